//! The pods' (and the node's) event lists, as kubelet fills them: repeated events count up, and one object cannot flood the API.

use crate::pods::time::Time;
use crate::session::Link;
use serde_json::{Value, json};
use std::{collections::HashMap, sync::Arc};
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

/// Events that may wait.
const QUEUE: usize = 4096;
/// Requests under way at once; few, so that statuses go first.
const PARALLEL: usize = 8;
/// Remembered for counting up.
const KNOWN: usize = 4096;
/// Events one object may have at once, and milliseconds until one more: client-go's spam filter.
const BURST: (i64, i64) = (25, 300_000);

/// What an event is about.
#[derive(Clone, Debug)]
pub struct About {
    /// `Pod` or `Node`.
    pub kind: &'static str,
    /// Namespace; empty for nodes, whose events go to `default`.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Uid.
    pub uid: String,
    /// `spec.containers{web}`, or empty.
    pub field_path: String,
}

impl About {
    /// A node. As in kubelet's own events, its name is in the uid's place.
    pub fn node(name: &str) -> Self {
        Self { kind: "Node", namespace: String::new(), name: name.into(), uid: name.into(), field_path: String::new() }
    }
}

struct Record {
    about: About,
    warning: bool,
    reason: String,
    message: String,
    at: Time,
}

/// Records events. Cheap to clone; never waits.
#[derive(Clone)]
pub struct Recorder {
    queue: mpsc::Sender<Record>,
}

/// The sending side, run once.
pub struct Service {
    queue: mpsc::Receiver<Record>,
    link: Link,
    node: String,
}

/// `node` is the reporting instance.
pub fn new(link: Link, node: &str) -> (Service, Recorder) {
    let (sender, queue) = mpsc::channel(QUEUE);
    (Service { queue, link, node: node.into() }, Recorder { queue: sender })
}

impl Recorder {
    /// One event. What does not fit into the queue (a long cut, a flood) is dropped: events are hints, statuses are the truth.
    pub fn record(&self, about: About, warning: bool, reason: &str, message: &str) {
        let record = Record { about, warning, reason: reason.into(), message: message.chars().take(1024).collect(), at: Time::now() };
        if self.queue.try_send(record).is_err() {
            tracing::debug!(reason, "the queue of events is full; one is dropped");
        }
    }
}

struct Known {
    name: String,
    namespace: String,
    count: u32,
    first: Time,
    used: Time,
}

/// Counting and spam filter; pure.
#[derive(Default)]
struct Ledger {
    known: HashMap<String, Known>,
    buckets: HashMap<String, (i64, Time)>,
    last: i64,
}

enum Verdict {
    Drop,
    Create { name: String, namespace: String },
    Count { name: String, namespace: String, count: u32, first: Time },
}

impl Ledger {
    fn judge(&mut self, record: &Record) -> Verdict {
        if self.buckets.len() >= KNOWN {
            self.buckets.retain(|_, (_, at)| record.at.since(*at) < BURST.0 * BURST.1);
            if self.buckets.len() >= KNOWN {
                self.buckets.clear();
            }
        }
        let (tokens, at) = self.buckets.entry(record.about.uid.clone()).or_insert((BURST.0, record.at));
        // Where the clock was set back it begins there.
        *at = record.at.min(*at);
        let earned = record.at.since(*at) / BURST.1;
        *tokens = tokens.saturating_add(earned).min(BURST.0);
        *at = at.after(earned * BURST.1);
        if *tokens == 0 {
            return Verdict::Drop;
        }
        *tokens -= 1;
        let about = &record.about;
        let key = [&about.uid, &about.field_path, &record.reason, &record.message].map(String::as_str).join("\0");
        if let Some(known) = self.known.get_mut(&key) {
            known.count += 1;
            known.used = record.at;
            return Verdict::Count { name: known.name.clone(), namespace: known.namespace.clone(), count: known.count, first: known.first };
        }
        if self.known.len() >= KNOWN
            && let Some(oldest) = self.known.iter().min_by_key(|(_, k)| k.used).map(|(k, _)| k.clone())
        {
            self.known.remove(&oldest);
        }
        // Nanoseconds as kubelet's, never twice the same: a list of events, which is sorted by name, is in the order of what happened.
        self.last = self.last.max(record.at.0.saturating_mul(1_000_000)).saturating_add(1);
        let name = format!("{}.{:x}", about.name, self.last);
        let namespace = if about.namespace.is_empty() { "default".to_string() } else { about.namespace.clone() };
        self.known.insert(key, Known { name: name.clone(), namespace: namespace.clone(), count: 1, first: record.at, used: record.at });
        Verdict::Create { name, namespace }
    }
}

impl Service {
    /// Sends until cancelled.
    pub async fn run(mut self, cancel: CancellationToken) {
        let mut ledger = Ledger::default();
        let gate = Arc::new(Semaphore::new(PARALLEL));
        let mut tasks = JoinSet::new();
        loop {
            let record = tokio::select! {
                () = cancel.cancelled() => return,
                Some(_) = tasks.join_next() => continue,
                record = self.queue.recv() => match record {
                    Some(record) => record,
                    None => return,
                },
            };
            let requests = match ledger.judge(&record) {
                Verdict::Drop => continue,
                Verdict::Create { name, namespace } => vec![create(&record, &name, &namespace, &self.node, (1, record.at))],
                Verdict::Count { name, namespace, count, first } => {
                    let patch = json!({ "count": count, "lastTimestamp": record.at.rfc3339() });
                    let patch = ("PATCH", format!("/api/v1/namespaces/{namespace}/events/{name}"), patch);
                    // Events live an hour: one that is gone is made anew, with its count.
                    vec![patch, create(&record, &name, &namespace, &self.node, (count, first))]
                }
            };
            let permit = tokio::select! {
                () = cancel.cancelled() => return,
                permit = gate.clone().acquire_owned() => match permit {
                    Ok(permit) => permit,
                    Err(_) => return,
                },
            };
            let link = self.link.clone();
            tasks.spawn(async move {
                let _permit = permit;
                for (method, path, body) in requests {
                    if !send(&link, method, &path, &body).await {
                        return;
                    }
                }
            });
        }
    }
}

/// Whether the request that stands in for this one is to be sent: what it speaks of is not there any more.
async fn send(link: &Link, method: &'static str, path: &str, body: &Value) -> bool {
    let content = if method == "POST" { "application/json" } else { "application/merge-patch+json" };
    let body = body.to_string().into_bytes();
    // Twice, once a link is there: a node that was cut off tells what happened, but not for ever.
    for _ in 0..2 {
        link.connected().await;
        match link.call(method, path, content, body.clone()).await {
            Err(why) if why.transient() => {}
            Err(why) => {
                tracing::debug!(%why, "record an event");
                return why.code() == Some(404);
            }
            Ok(_) => return false,
        }
    }
    false
}

/// The request that makes it; `seen` is how often it happened, and when first.
fn create(record: &Record, name: &str, namespace: &str, node: &str, seen: (u32, Time)) -> (&'static str, String, Value) {
    ("POST", format!("/api/v1/namespaces/{namespace}/events"), body(record, name, namespace, node, seen))
}

fn body(record: &Record, name: &str, namespace: &str, node: &str, (count, first): (u32, Time)) -> Value {
    let about = &record.about;
    let mut involved = json!({ "apiVersion": "v1", "kind": about.kind, "name": about.name, "uid": about.uid });
    if !about.namespace.is_empty() {
        involved["namespace"] = json!(about.namespace);
    }
    if !about.field_path.is_empty() {
        involved["fieldPath"] = json!(about.field_path);
    }
    json!({
        "apiVersion": "v1", "kind": "Event", "metadata": { "name": name, "namespace": namespace },
        "involvedObject": involved, "reason": record.reason, "message": record.message,
        "type": if record.warning { "Warning" } else { "Normal" }, "count": count, "firstTimestamp": first.rfc3339(), "lastTimestamp": record.at.rfc3339(),
        "source": { "component": "kubelet", "host": node }, "reportingComponent": "kubelet", "reportingInstance": node,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(message: &str, at: i64) -> Record {
        let about = About { kind: "Pod", namespace: "ns".into(), name: "p".into(), uid: "u".into(), field_path: String::new() };
        Record { about, warning: true, reason: "BackOff".into(), message: message.into(), at: Time(at) }
    }

    #[test]
    fn repeated_events_count_up() {
        let mut ledger = Ledger::default();
        let Verdict::Create { name, .. } = ledger.judge(&record("a", 0)) else { panic!("the first is created") };
        let Verdict::Count { name: same, count, first, .. } = ledger.judge(&record("a", 1)) else { panic!("the second counts") };
        assert_eq!((same, count, first), (name, 2, Time(0)));
        assert!(matches!(ledger.judge(&record("b", 2)), Verdict::Create { .. }));
    }

    #[test]
    fn one_object_cannot_flood_the_api() {
        let mut ledger = Ledger::default();
        let passed = (0..100).filter(|n| !matches!(ledger.judge(&record(&n.to_string(), 0)), Verdict::Drop)).count();
        assert_eq!(passed, 25);
        assert!(matches!(ledger.judge(&record("later", BURST.1)), Verdict::Create { .. }));
        assert!(matches!(ledger.judge(&record("again", BURST.1)), Verdict::Drop));
        // The clock is set back by a day.
        assert!(matches!(ledger.judge(&record("before", -86_400_000)), Verdict::Drop));
        assert!(matches!(ledger.judge(&record("after", BURST.1 - 86_400_000)), Verdict::Create { .. }));
    }
}
