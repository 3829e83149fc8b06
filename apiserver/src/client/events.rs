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

/// What the scheduler's events come from.
const SCHEDULER: &str = "default-scheduler";

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
    // Most controllers sign with their account's name; these do not.
    let component = match user.name.rsplit(':').next().unwrap_or_default() {
        "kube-scheduler" => SCHEDULER,
        "daemon-set-controller" => "daemonset-controller",
        "disruption-controller" => "controllermanager",
        "endpointslice-controller" => "endpoint-slice-controller",
        "endpointslicemirroring-controller" => "endpoint-slice-mirroring-controller",
        "generic-garbage-collector" => "garbage-collector-controller",
        "resource-claim-controller" => "resource_claim",
        "service-cidrs-controller" => "service-cidr-controller",
        own => own,
    };
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

    /// What the scheduler was doing. As upstream, its events alone are in the manner of `events.k8s.io`: with an action, the exact time and a series.
    fn action(&self) -> Option<&'static str> {
        (self.component == SCHEDULER).then_some(match &*self.reason {
            "Scheduled" => "Binding",
            "Preempted" => "Preempting",
            _ => "Scheduling",
        })
    }

    fn event(&self, name: &str) -> Value {
        let mut event = json!({
            "apiVersion": "v1", "kind": "Event", "metadata": {"name": name, "namespace": &*self.namespace}, "involvedObject": self.involved,
            "type": self.kind, "reason": self.reason, "message": self.message, "source": {}, "reportingComponent": self.component,
        });
        if let Some(action) = self.action() {
            event["action"] = json!(action);
            event["eventTime"] = json!(names::rfc3339_micro(self.at));
            event["reportingInstance"] = json!(self.component);
            return event;
        }
        let at = names::rfc3339(self.at);
        event["source"]["component"] = json!(self.component);
        if !self.host.is_empty() {
            event["source"]["host"] = json!(self.host);
        }
        event["count"] = json!(1);
        event["firstTimestamp"] = json!(at);
        event["lastTimestamp"] = json!(at);
        event["reportingInstance"] = json!(self.host);
        event
    }

    /// The change of an event that has happened `count` times by now.
    fn again(&self, count: i64) -> Value {
        match self.action() {
            Some(_) => json!({"series": {"count": count, "lastObservedTime": names::rfc3339_micro(self.at)}}),
            None => json!({"count": count, "lastTimestamp": names::rfc3339(self.at)}),
        }
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
    named: i128,
}

/// What to write for an occurrence.
#[derive(Debug, PartialEq, Eq)]
enum Write {
    Create { name: String },
    Count { name: String, count: i64 },
}

impl Memory {
    fn note(&mut self, occurrence: &Occurrence) -> Write {
        let series = occurrence.series();
        if let Some(seen) = self.seen.get_mut(&series)
            && occurrence.at.duration_since(seen.last).as_secs() < SERIES_SECONDS
        {
            seen.count += 1;
            seen.last = occurrence.at;
            return Write::Count { name: seen.name.clone(), count: seen.count };
        }
        // Nanoseconds, never twice the same: a list of events, which is sorted by name, is in the order of what happened.
        self.named = occurrence.at.as_nanosecond().max(self.named + 1);
        let name = format!("{}.{:x}", occurrence.name, self.named);
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
        let mut write = memory.note(&occurrence);
        let client = client.as_user(occurrence.user.clone());
        if let Write::Count { name, count } = &write {
            match client.patch("events", &occurrence.namespace, name, "", PatchKind::Merge, occurrence.again(*count)).await {
                Err(status) if status.is_not_found() => {
                    memory.forget(&occurrence);
                    write = memory.note(&occurrence);
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
        assert_eq!(memory.note(&occurrence("m", 1)), Write::Create { name: "a.3b9aca00".into() });
        assert_eq!(memory.note(&occurrence("m", 5)), Write::Count { name: "a.3b9aca00".into(), count: 2 });
        assert_eq!(memory.note(&occurrence("other", 1)), Write::Create { name: "a.3b9aca01".into() }, "after the first, though no later");
        assert_eq!(memory.note(&occurrence("m", 1000)), Write::Create { name: "a.e8d4a51000".into() });
    }

    #[test]
    fn memory_is_bounded() {
        let mut memory = Memory::default();
        for i in 0..SERIES + 10 {
            memory.note(&occurrence(&i.to_string(), 0));
        }
        assert_eq!((memory.seen.len(), memory.order.len()), (SERIES, SERIES));
    }

    #[test]
    fn the_scheduler_tells_in_the_newer_manner() {
        let mut placed = occurrence("m", 1);
        let event = placed.event("a.1");
        assert_eq!(
            (&event["count"], &event["lastTimestamp"], &event["source"]["component"]),
            (&json!(1), &json!("1970-01-01T00:00:01Z"), &json!("c"))
        );
        assert!(event["eventTime"].is_null() && event["action"].is_null());
        assert_eq!(placed.again(2), json!({"count": 2, "lastTimestamp": "1970-01-01T00:00:01Z"}));
        (placed.component, placed.reason) = (SCHEDULER.into(), "Scheduled".into());
        let event = placed.event("a.1");
        assert_eq!((&event["action"], &event["eventTime"]), (&json!("Binding"), &json!("1970-01-01T00:00:01.000000Z")));
        assert!(event["count"].is_null() && event["lastTimestamp"].is_null() && event["source"] == json!({}));
        assert_eq!(placed.again(2), json!({"series": {"count": 2, "lastObservedTime": "1970-01-01T00:00:01.000000Z"}}));
    }

    #[test]
    fn sources_are_named_as_upstream_does() {
        let named = |name: &str| source(&User { name: name.into(), ..User::default() }).0;
        assert_eq!(named("system:serviceaccount:kube-system:deployment-controller"), "deployment-controller");
        assert_eq!(named("system:kube-scheduler"), "default-scheduler");
        assert_eq!(named("system:serviceaccount:kube-system:daemon-set-controller"), "daemonset-controller");
        assert_eq!(source(&User::node("n1")), ("kubelet".to_string(), "n1".to_string()));
    }
}
