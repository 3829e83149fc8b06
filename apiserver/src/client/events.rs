//! core/v1 Events of controllers, scheduler and nodes: queued, counted up when they repeat, never in the caller's way.

use super::Client;
use crate::{auth::User, pipeline::PatchKind};
use coracle_api::{names, registry::Resource};
use coracle_store::Object;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};
use tokio::sync::mpsc;

/// Events that wait to be written; what comes when it is full is dropped and counted in the log.
const QUEUE: usize = 1024;
/// Series that are remembered.
const SERIES: usize = 4096;
/// A series that was silent for this long begins anew, seconds.
const SERIES_SECONDS: i64 = 600;
/// Longest message, as upstream.
const MESSAGE: usize = 1024;

/// Something that happened to an object.
#[derive(Clone, Debug)]
pub struct Occurrence {
    involved: Value,
    namespace: Arc<str>,
    name: Arc<str>,
    uid: Box<str>,
    user: Arc<User>,
    component: String,
    host: String,
    kind: &'static str,
    reason: String,
    message: String,
    at: Timestamp,
}

/// The event source's component and host of a user.
fn source(user: &User) -> (String, String) {
    if let Some(node) = user.node_name() {
        return ("kubelet".into(), node.into());
    }
    let last = user.name.rsplit(':').next().unwrap_or_default();
    let component = if last == "kube-scheduler" { "default-scheduler" } else { last };
    (component.into(), String::new())
}

impl Occurrence {
    /// About a stored object, now.
    pub fn new(row: &Resource, about: &Object, user: &Arc<User>, kind: &'static str, reason: &str, message: &str) -> Self {
        let key = &about.key;
        let mut involved = json!({
            "kind": row.kind, "name": &*key.name, "uid": about.meta.uid, "apiVersion": row.api_version(), "resourceVersion": about.revision.to_string(),
        });
        if !key.namespace.is_empty() {
            involved["namespace"] = json!(&*key.namespace);
        }
        let (component, host) = source(user);
        Self {
            involved,
            // Events about cluster-scoped things live in `default`.
            namespace: if key.namespace.is_empty() { "default".into() } else { key.namespace.clone() },
            name: key.name.clone(),
            uid: about.meta.uid.clone(),
            user: user.clone(),
            component,
            host,
            kind,
            reason: reason.into(),
            message: message.chars().take(MESSAGE).collect(),
            at: Timestamp::now(),
        }
    }

    fn series(&self) -> Series {
        Series {
            uid: self.uid.clone(),
            component: self.component.clone(),
            kind: self.kind,
            reason: self.reason.clone(),
            message: self.message.clone(),
        }
    }

    fn event(&self, name: &str) -> Value {
        let at = names::rfc3339(self.at);
        let mut source = json!({"component": self.component});
        if !self.host.is_empty() {
            source["host"] = json!(self.host);
        }
        json!({
            "apiVersion": "v1", "kind": "Event", "metadata": {"name": name, "namespace": &*self.namespace}, "involvedObject": self.involved,
            "type": self.kind, "reason": self.reason, "message": self.message, "source": source, "count": 1,
            "firstTimestamp": at, "lastTimestamp": at, "reportingComponent": self.component, "reportingInstance": self.host,
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Series {
    uid: Box<str>,
    component: String,
    kind: &'static str,
    reason: String,
    message: String,
}

struct Seen {
    name: String,
    count: i64,
    last: Timestamp,
}

/// The series of late, bounded; the oldest is forgotten first.
#[derive(Default)]
struct Memory {
    seen: HashMap<Series, Seen>,
    order: VecDeque<Series>,
}

/// What to write for an occurrence.
#[derive(Debug, PartialEq, Eq)]
enum Write {
    Create { name: String },
    Count { name: String, count: i64 },
}

impl Memory {
    fn note(&mut self, occurrence: &Occurrence, suffix: impl FnOnce() -> u64) -> Write {
        let series = occurrence.series();
        if let Some(seen) = self.seen.get_mut(&series)
            && occurrence.at.duration_since(seen.last).as_secs() < SERIES_SECONDS
        {
            seen.count += 1;
            seen.last = occurrence.at;
            return Write::Count { name: seen.name.clone(), count: seen.count };
        }
        let name = format!("{}.{:016x}", occurrence.name, suffix());
        if self.seen.insert(series.clone(), Seen { name: name.clone(), count: 1, last: occurrence.at }).is_none() {
            self.order.push_back(series);
        }
        while self.order.len() > SERIES {
            if let Some(oldest) = self.order.pop_front() {
                self.seen.remove(&oldest);
            }
        }
        Write::Create { name }
    }

    fn forget(&mut self, occurrence: &Occurrence) {
        let series = occurrence.series();
        self.seen.remove(&series);
        self.order.retain(|other| *other != series);
    }
}

/// Where events are handed in.
#[derive(Clone)]
pub struct Recorder {
    queue: mpsc::Sender<Occurrence>,
}

impl Recorder {
    /// The recorder and the queue that [`run`] empties.
    pub fn new() -> (Self, mpsc::Receiver<Occurrence>) {
        let (queue, receiver) = mpsc::channel(QUEUE);
        (Self { queue }, receiver)
    }

    /// Never waits.
    pub fn record(&self, occurrence: Occurrence) {
        if let Err(mpsc::error::TrySendError::Full(lost)) = self.queue.try_send(occurrence) {
            tracing::debug!(reason = lost.reason, name = &*lost.name, "event dropped: too many at once");
        }
    }
}

/// Writes what is handed in, in order, as whoever handed it in.
pub async fn run(client: Client, mut queue: mpsc::Receiver<Occurrence>) {
    let mut memory = Memory::default();
    while let Some(occurrence) = queue.recv().await {
        let mut write = memory.note(&occurrence, rand::random);
        let client = client.as_user(occurrence.user.clone());
        if let Write::Count { name, count } = &write {
            let patch = json!({"count": count, "lastTimestamp": names::rfc3339(occurrence.at)});
            match client.patch("events", &occurrence.namespace, name, "", PatchKind::Merge, patch).await {
                Err(status) if status.is_not_found() => {
                    memory.forget(&occurrence);
                    write = memory.note(&occurrence, rand::random);
                }
                Err(error) => tracing::debug!(%error, name, "event not counted up"),
                Ok(_) => {}
            }
        }
        if let Write::Create { name } = &write
            && let Err(error) = client.create("events", &occurrence.namespace, occurrence.event(name)).await
        {
            tracing::debug!(%error, name, "event not written");
            memory.forget(&occurrence);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn occurrence(message: &str, at: i64) -> Occurrence {
        Occurrence {
            involved: json!({}),
            namespace: "default".into(),
            name: "a".into(),
            uid: "u".into(),
            user: Default::default(),
            component: "c".into(),
            host: String::new(),
            kind: "Normal",
            reason: "R".into(),
            message: message.into(),
            at: Timestamp::from_second(at).expect("valid"),
        }
    }

    #[test]
    fn what_repeats_is_counted_until_it_is_silent() {
        let mut memory = Memory::default();
        assert_eq!(memory.note(&occurrence("m", 0), || 1), Write::Create { name: "a.0000000000000001".into() });
        assert_eq!(memory.note(&occurrence("m", 5), || 2), Write::Count { name: "a.0000000000000001".into(), count: 2 });
        assert_eq!(memory.note(&occurrence("other", 5), || 3), Write::Create { name: "a.0000000000000003".into() });
        assert_eq!(memory.note(&occurrence("m", 1000), || 4), Write::Create { name: "a.0000000000000004".into() });
    }

    #[test]
    fn memory_is_bounded() {
        let mut memory = Memory::default();
        for i in 0..SERIES + 10 {
            memory.note(&occurrence(&i.to_string(), 0), || i as u64);
        }
        assert_eq!((memory.seen.len(), memory.order.len()), (SERIES, SERIES));
    }

    #[test]
    fn sources_are_named_as_upstream_does() {
        let named = |name: &str| source(&User { name: name.into(), ..User::default() }).0;
        assert_eq!(named("system:serviceaccount:kube-system:deployment-controller"), "deployment-controller");
        assert_eq!(named("system:kube-scheduler"), "default-scheduler");
        assert_eq!(source(&User::node("n1")), ("kubelet".to_string(), "n1".to_string()));
    }
}
