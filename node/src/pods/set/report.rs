//! What the API and others on this node see of a pod.

use super::{Set, Uid};
use crate::{
    pods::{
        machine::{Image, Machine, Run, Sandbox},
        spec::Pod,
        status, step,
        time::{Due, Time},
        views::{ContainerView, View},
    },
    report,
};
use coracle_api::amounts::quantity;
use std::hash::{DefaultHasher, Hash, Hasher};

/// How long a status that only says "being made" waits for a better one, milliseconds.
const PATIENCE: i64 = 150;

impl Set {
    pub(super) fn report(&mut self, uid: &Uid, at_once: bool) {
        let Some(entry) = self.pods.get(uid) else { return };
        let Some(about) = self.known_as(&entry.pod, uid) else { return };
        let Some(entry) = self.pods.get_mut(uid) else { return };
        // A pod that is stopped with its agent has not ended: it comes back with it.
        if entry.machine.leaving.is_some() || entry.machine.gone {
            return;
        }
        let now = Time::now();
        let status = status::status(&entry.pod, &mut entry.machine, self.work.options.node_ip, now);
        let mut hasher = DefaultHasher::new();
        status.to_string().hash(&mut hasher);
        let hash = hasher.finish();
        if entry.reported == Some(hash) {
            entry.patience = None;
            return;
        }
        if !at_once && being_made(&entry.pod, &entry.machine) {
            let due = *entry.patience.get_or_insert(Due::in_millis(now, PATIENCE));
            if !due.reached(now) {
                return;
            }
        }
        entry.patience = None;
        entry.reported = Some(hash);
        self.reports.status(about, status);
    }

    /// What is to be said of a pod that is over, for the next agent: once its sandbox is gone, nothing else tells.
    pub(super) fn last_status(&mut self, uid: &Uid) -> Option<serde_json::Value> {
        let entry = self.pods.get_mut(uid)?;
        let nobody_asks = entry.machine.gone || entry.machine.leaving.is_some() || entry.pod.deletion_grace().is_some();
        if nobody_asks || step::end(&entry.pod, &entry.machine).is_none() {
            return None;
        }
        Some(status::status(&entry.pod, &mut entry.machine, self.work.options.node_ip, Time::now()))
    }

    pub(super) fn show(&self, uid: &Uid) {
        let Some(entry) = self.pods.get(uid) else { return };
        let over = step::end(&entry.pod, &entry.machine).is_some() || entry.pod.deletion_grace().is_some();
        let now = Time::now();
        let containers = entry
            .pod
            .all_containers()
            .zip(&entry.machine.containers)
            .enumerate()
            .map(|(index, (container, state))| (index, container, state, status::waiting(&entry.pod, &entry.machine, index, container, state, now)))
            .map(|(index, container, state, waiting)| ContainerView {
                name: container.name.clone(),
                attempt: state.attempt,
                created: state.created,
                // One that has ended and waits to be started again is the last one already.
                previous: if matches!(state.run, Run::Exited(_)) && waiting.is_some() { Some(state.attempt) } else { state.attempt.checked_sub(1) },
                alive: state.alive(),
                over: over || matches!(&state.run, Run::Exited(exit) if !step::restarts(&entry.pod, index, exit.code)),
                waiting: waiting.map(|(reason, _)| reason),
                started: match &state.run {
                    Run::Running { since, .. } => Some(*since),
                    _ => None,
                },
                image: container.image.clone(),
                memory_limit: container.resources.limits.get("memory").and_then(|limit| u64::try_from(quantity(limit).units()).ok()),
            })
            .collect();
        self.work.views.set(View {
            namespace: entry.pod.metadata.namespace.clone(),
            name: entry.pod.metadata.name.clone(),
            uid: uid.clone(),
            ip: entry.machine.ip,
            containers,
            start_time: entry.machine.start_time.rfc3339(),
            active: !over,
            from_file: entry.pod.from_file,
        });
    }
}

pub(super) fn about(pod: &Pod, uid: &Uid) -> report::About {
    report::About { uid: uid.clone(), namespace: pod.metadata.namespace.clone(), name: pod.metadata.name.clone() }
}

/// Nothing is wrong and nothing has come of it yet: such a status can wait a moment for the next.
fn being_made(pod: &Pod, machine: &Machine) -> bool {
    step::end(pod, machine).is_none()
        && !matches!(machine.sandbox, Sandbox::Failed(_))
        && machine
            .containers
            .iter()
            .all(|c| !matches!(c.image, Image::Failed { .. }) && !c.created && c.last.is_none() && matches!(c.run, Run::Idle | Run::Starting))
}
