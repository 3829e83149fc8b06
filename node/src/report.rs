//! What the node says of its pods: the latest status of each, and the deletion that ends it.
//!
//! Per pod at most one request is under way; meanwhile a newer status replaces the one that waits, so a slow or cut link costs one
//! body per pod and no more.

use crate::session::{CallError, Link};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::{Notify, mpsc},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

/// Requests under way at once.
const PARALLEL: usize = 32;
/// Wait after a failure, doubling.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

/// Whom a report is about.
#[derive(Clone, Debug)]
pub struct About {
    /// Uid.
    pub uid: Arc<str>,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

struct Pending {
    about: About,
    status: Option<Value>,
    delete: bool,
    busy: bool,
    queued: bool,
}

#[derive(Default)]
struct Queue {
    pods: HashMap<Arc<str>, Pending>,
    ready: VecDeque<Arc<str>>,
}

/// Hands reports over. Cheap to clone.
#[derive(Clone)]
pub struct Reports {
    queue: Arc<Mutex<Queue>>,
    woken: Arc<Notify>,
}

/// How a deletion went.
#[derive(Clone, Debug)]
pub struct Deleted {
    /// Which pod.
    pub uid: Arc<str>,
    /// The API server agreed, or knows no such pod.
    pub done: bool,
}

/// The sending side, run once.
pub struct Service {
    reports: Reports,
    link: Link,
    deleted: mpsc::Sender<Deleted>,
}

/// `deleted` hears how deletions went.
pub fn new(link: Link, deleted: mpsc::Sender<Deleted>) -> (Service, Reports) {
    let reports = Reports { queue: Arc::default(), woken: Arc::default() };
    (Service { reports: reports.clone(), link, deleted }, reports)
}

impl Reports {
    /// The pod's status is now this.
    pub fn status(&self, about: About, status: Value) {
        self.put(about, |pending| pending.status = Some(status));
    }

    /// After the last status, the object goes.
    pub fn delete(&self, about: About) {
        self.put(about, |pending| pending.delete = true);
    }

    /// Nothing more is to be said of this pod.
    pub fn forget(&self, uid: &str) {
        let mut queue = self.queue.lock();
        if queue.pods.get(uid).is_some_and(|p| !p.busy) {
            queue.pods.remove(uid);
        } else if let Some(pending) = queue.pods.get_mut(uid) {
            pending.status = None;
            pending.delete = false;
        }
    }

    fn put(&self, about: About, change: impl FnOnce(&mut Pending)) {
        let uid = about.uid.clone();
        let mut queue = self.queue.lock();
        let pending = queue.pods.entry(uid.clone()).or_insert_with(|| Pending { about, status: None, delete: false, busy: false, queued: false });
        change(pending);
        if !pending.busy && !pending.queued {
            pending.queued = true;
            queue.ready.push_back(uid);
        }
        drop(queue);
        self.woken.notify_one();
    }

    fn take(&self) -> Option<(About, Option<Value>, bool)> {
        let mut queue = self.queue.lock();
        while let Some(uid) = queue.ready.pop_front() {
            let Some(pending) = queue.pods.get_mut(&uid) else { continue };
            pending.queued = false;
            if pending.status.is_none() && !pending.delete {
                queue.pods.remove(&uid);
                continue;
            }
            pending.busy = true;
            // The deletion goes with the last status and not before.
            return Some((pending.about.clone(), pending.status.take(), pending.delete));
        }
        None
    }

    /// The request about that pod is over; `again` is what could not be said.
    fn finish(&self, uid: &Arc<str>, again: Option<Value>, deleted: bool) {
        let mut queue = self.queue.lock();
        let Some(pending) = queue.pods.get_mut(uid) else { return };
        pending.busy = false;
        if deleted {
            pending.delete = false;
        }
        if pending.status.is_none() {
            pending.status = again;
        }
        if pending.status.is_some() || pending.delete {
            pending.queued = true;
            queue.ready.push_back(uid.clone());
        } else {
            queue.pods.remove(uid);
        }
        drop(queue);
        self.woken.notify_one();
    }
}

impl Service {
    /// Sends until cancelled.
    pub async fn run(self, cancel: CancellationToken) {
        let mut tasks = JoinSet::new();
        loop {
            while tasks.len() < PARALLEL {
                let Some((about, status, delete)) = self.reports.take() else { break };
                tasks.spawn(send(self.link.clone(), self.reports.clone(), self.deleted.clone(), about, status, delete));
            }
            tokio::select! {
                () = cancel.cancelled() => return,
                () = self.reports.woken.notified() => {}
                Some(_) = tasks.join_next() => {}
            }
        }
    }
}

async fn send(link: Link, reports: Reports, deleted: mpsc::Sender<Deleted>, about: About, status: Option<Value>, delete: bool) {
    let mut wait = RETRY.0;
    let base = format!("/api/v1/namespaces/{}/pods/{}", about.namespace, about.name);
    if let Some(status) = status {
        // The uid is the precondition: another pod of that name is not ours to speak of.
        let body = json!({ "metadata": { "uid": &*about.uid }, "status": status }).to_string().into_bytes();
        loop {
            let result = link.call("PATCH", &format!("{base}/status"), "application/strategic-merge-patch+json", body.clone()).await;
            match result {
                Ok(_) => break,
                Err(why) if why.transient() => {
                    pause(&link, &why, &mut wait).await;
                    // Something newer may have come meanwhile; it is sent instead.
                    if reports.queue.lock().pods.get(&about.uid).is_none_or(|p| p.status.is_some() || p.delete != delete) {
                        reports.finish(&about.uid, Some(status), false);
                        return;
                    }
                }
                Err(why) => {
                    // 404 and 409: the pod is gone or another has its name; the feed says the rest.
                    if !matches!(why.code(), Some(404 | 409)) {
                        tracing::warn!(%why, "report a pod's status: it is dropped");
                    }
                    break;
                }
            }
        }
    }
    if delete {
        let body = json!({ "apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0, "preconditions": { "uid": &*about.uid } });
        let result = link.call("DELETE", &base, "application/json", body.to_string().into_bytes()).await;
        let done = match &result {
            Ok(_) => true,
            Err(why) => matches!(why.code(), Some(404 | 409)),
        };
        if let Err(why) = result
            && !done
        {
            tracing::debug!(%why, "delete a pod that has ended: tried again");
            if why.transient() {
                link.connected().await;
            }
        }
        let _ = deleted.send(Deleted { uid: about.uid.clone(), done }).await;
    }
    reports.finish(&about.uid, None, delete);
}

async fn pause(link: &Link, why: &CallError, wait: &mut Duration) {
    if !matches!(why, CallError::Down { .. }) {
        tokio::time::sleep(*wait).await;
        *wait = (*wait * 2).min(RETRY.1);
    }
    link.connected().await;
}
