//! Service addresses that hosts of pods listen on.

use super::{Done, Set, Uid};
use crate::{network::Listeners, pods::machine::Sandbox};
use std::time::Duration;

/// When a Service address could not be listened on, it is tried again after this time.
const LISTEN_AGAIN: Duration = Duration::from_secs(30);

impl Set {
    pub(super) fn listeners(&mut self, listeners: Vec<(String, Listeners)>) {
        for (uid, listeners) in listeners {
            let uid = Uid::from(uid);
            if let Some(entry) = self.pods.get_mut(&uid) {
                entry.wanted = listeners;
                self.listen(&uid);
            }
        }
    }

    /// Has the pod's host listen where it should, one change at a time.
    pub(super) fn listen(&mut self, uid: &Uid) {
        let Some(entry) = self.pods.get_mut(uid) else { return };
        if entry.machine.sandbox != Sandbox::Ready {
            entry.held = Some(Vec::new());
            return;
        }
        if entry.listening || entry.held.as_ref() == Some(&entry.wanted) {
            return;
        }
        entry.listening = true;
        let (work, pod, uid, wanted) = (self.work.clone(), entry.pod.clone(), uid.clone(), entry.wanted.clone());
        self.tasks.spawn(async move {
            let had = work.listen(&pod, wanted.clone()).await;
            Done::Listening(uid, wanted, had)
        });
    }

    pub(super) fn listened(&mut self, uid: Uid, asked: Listeners, had: bool) {
        let Some(entry) = self.pods.get_mut(&uid) else { return };
        entry.listening = false;
        let changed = entry.wanted != asked;
        entry.held = had.then_some(asked);
        if had || changed {
            return self.listen(&uid);
        }
        if !std::mem::replace(&mut entry.again, true) {
            self.tasks.spawn(async move {
                tokio::time::sleep(LISTEN_AGAIN).await;
                Done::ListenAgain(uid)
            });
        }
    }
}
