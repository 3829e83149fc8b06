//! Keeps the network in step with Services: one task, so that pods never wait for rules, and changes that come while it works are taken together.

use super::Network;
use crate::{events, mirror::Objects, pods::set::Input};
use std::{sync::Arc, time::Duration};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// First and longest wait before a failed change is tried again.
const AGAIN: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));

/// What the task needs.
pub struct Sync {
    /// Services and slices.
    pub objects: Arc<dyn Objects>,
    /// Whose rules are kept.
    pub network: Arc<dyn Network>,
    /// The node's name.
    pub node: String,
    /// Where failures are told.
    pub recorder: events::Recorder,
    /// Pods' hosts are told what to listen on.
    pub inputs: mpsc::Sender<Input>,
}

impl Sync {
    /// Follows `changed` until cancelled.
    pub async fn run(self, mut changed: watch::Receiver<u64>, cancel: CancellationToken) {
        let mut wait = AGAIN.0;
        loop {
            changed.borrow_and_update();
            let all = |resource: &str| self.objects.list(resource, None).into_iter().map(|(_, json)| json).collect::<Vec<_>>();
            let failed = match self.network.sync_services(all("services"), all("endpointslices.discovery.k8s.io"), &self.node).await {
                Ok(listeners) => {
                    wait = AGAIN.0;
                    if !listeners.is_empty() && self.inputs.send(Input::Listeners(listeners)).await.is_err() {
                        return;
                    }
                    false
                }
                Err(why) => {
                    tracing::error!(%why, "make the services known to this node's network; it is tried again");
                    self.tell(&why.to_string());
                    true
                }
            };
            tokio::select! {
                () = cancel.cancelled() => return,
                more = changed.changed() => if more.is_err() { return },
                () = self.network.disturbed() => {}
                () = tokio::time::sleep(wait), if failed => wait = (wait * 2).min(AGAIN.1),
            }
        }
    }

    fn tell(&self, why: &str) {
        let message = format!("Services cannot be reached as they should from this node: {why}");
        self.recorder.record(events::About::node(&self.node), true, "ServiceRulesFailed", &message);
    }
}
