//! Changes of cpu and memory that the API wants: granted when there is room.

use super::{Set, Uid};
use crate::pods::{fit, machine::Sandbox, resize, step};
use coracle_api::amounts::Amounts;
use std::sync::Arc;

impl Set {
    /// Grants what is wanted for a pod, or says why not.
    pub(super) fn resize(&mut self, uid: &Uid) {
        let Some(entry) = self.pods.get(uid) else { return };
        let Some(wanted) = entry.machine.resize.wanted() else { return };
        if entry.machine.sandbox == Sandbox::Gone || step::end(&entry.pod, &entry.machine).is_some() || entry.pod.deletion_grace().is_some() {
            return;
        }
        let pod = resize::with(&entry.pod, wanted);
        let asks = fit::asks(&pod);
        let (mut used, mut others) = (Amounts::default(), 0);
        for (_, other) in self.pods.iter().filter(|(id, other)| *id != uid && step::end(&other.pod, &other.machine).is_none()) {
            used.add(&other.asks);
            others += 1;
        }
        let (room, node) = (self.work.room(), self.work.node());
        let never = fit::lacks(&asks, &Amounts::default(), 0, &room).map(|verdict| (resize::INFEASIBLE, verdict.message));
        let now = || fit::fits(&pod, &asks, &used, others, &room, node.as_ref()).err();
        let refused = never.or_else(|| now().map(|verdict| (resize::DEFERRED, verdict.message)));
        let Some(entry) = self.pods.get_mut(uid) else { return };
        let note = match refused {
            Some((reason, message)) => entry.machine.resize.refuse(&pod, reason, message),
            None => {
                entry.asks = asks;
                let note = entry.machine.resize.grant(&pod);
                entry.pod = Arc::new(pod);
                Some(note)
            }
        };
        let pod = entry.pod.clone();
        if let Some(note) = note {
            self.record(&pod, &note);
        }
        self.pump(uid);
    }

    /// There may be room now for what there was none before.
    pub(super) fn resize_those_who_wait(&mut self) {
        let waiting: Vec<Uid> = self.pods.iter().filter(|(_, entry)| entry.machine.resize.waits()).map(|(uid, _)| uid.clone()).collect();
        for uid in waiting {
            self.resize(&uid);
        }
    }
}
