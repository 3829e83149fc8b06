//! How many pods a Job needs now: which are made, which are given up.

use super::{
    backoff,
    pass::{New, Pass},
    pod::{Pod, untracked},
};
use std::{cmp::Reverse, collections::BTreeSet};

/// Pods made or deleted in one pass.
const BURST: usize = 500;

impl<'j, 'a> Pass<'j, 'a> {
    /// Brings the number of active pods to what is still needed.
    pub(super) fn staff(&mut self) {
        let active = self.report.active;
        if self.job.spec.suspend {
            self.take(self.pods.iter().filter(|pod| pod.active()).collect(), true);
            return;
        }
        let parallelism = self.job.spec.parallelism.unwrap_or(1).max(0);
        let wanted = match self.job.spec.completions {
            // A work queue: after the first success no pod is added.
            None if self.successes() > 0 => active,
            None => parallelism,
            Some(completions) => (completions - self.successes()).clamp(0, parallelism),
        };
        let mut surplus = self.surplus(usize::try_from(active - wanted).unwrap_or(0));
        if !surplus.is_empty() {
            surplus.truncate(BURST);
            self.take(surplus, true);
            return;
        }
        let going = if self.only_ended() { self.report.terminating } else { 0 };
        let missing = usize::try_from(wanted - active - going).unwrap_or(0).min(BURST);
        if missing == 0 {
            return;
        }
        if self.failed_indexes.is_none()
            && let Some(left) = self.backoff_left()
        {
            self.look_after(left);
            return;
        }
        self.decided.create = match self.job.indexed() {
            true => self.pending(missing),
            false => vec![New::default(); missing],
        };
        self.report.active += self.decided.create.len() as i64;
    }

    /// Deletes active pods; those that are given up are not counted.
    pub(super) fn take(&mut self, pods: Vec<&'j Pod<'a>>, give_up: bool) {
        self.report.active -= pods.len() as i64;
        self.report.ready -= pods.iter().filter(|pod| pod.ready()).count() as i64;
        self.report.terminating += pods.len() as i64;
        for pod in pods {
            if give_up && pod.tracked() {
                self.decided.given_up.push(untracked(&pod.key(), &pod.metadata));
            }
            self.decided.deletions.push((pod.key(), pod.metadata.uid.to_string()));
        }
    }

    /// Active pods that go: of an index that another works on, or none should, and then, up to `at_least`, those that have done least.
    fn surplus(&self, at_least: usize) -> Vec<&'j Pod<'a>> {
        let mut active: Vec<&Pod<'a>> = self.pods.iter().filter(|pod| pod.active()).collect();
        active.sort_by_key(|pod| {
            let bound = !pod.spec.node_name.is_empty();
            (bound, pod.status.phase == "Running", pod.ready(), Reverse(pod.restarts()), Reverse(pod.metadata.created()))
        });
        let mut surplus: Vec<&Pod<'a>> = Vec::new();
        if self.job.indexed() {
            // From the one that has done most: the first of an index stays.
            let mut seen = BTreeSet::new();
            let stays = |pod: &&&Pod<'_>| pod.index().is_some_and(|index| index < self.job.completions() && seen.insert(index));
            let staying: BTreeSet<&str> = active.iter().rev().filter(stays).map(|pod| &*pod.metadata.uid).collect();
            surplus.extend(active.iter().filter(|pod| !staying.contains(&*pod.metadata.uid)));
            active.retain(|pod| staying.contains(&*pod.metadata.uid));
        }
        let more = at_least.saturating_sub(surplus.len());
        surplus.extend(active.into_iter().take(more));
        surplus
    }

    /// The first indexes that nobody works on, has completed or failed for good; those that must wait are left out.
    fn pending(&mut self, count: usize) -> Vec<New> {
        let mut taken = self.completed.clone();
        let working = |pod: &&Pod<'_>| pod.active() || (self.only_ended() && pod.terminating());
        taken.extend(self.pods.iter().filter(working).filter_map(Pod::index));
        let Some(failed) = &self.failed_indexes else {
            return taken.gaps(self.job.completions()).take(count).map(|index| New { index: Some(index), failures: None }).collect();
        };
        taken.unite(failed);
        let mut new = Vec::new();
        for index in taken.gaps(self.job.completions()).take(count) {
            let (failures, ignored) = self.failures_of(index);
            let last = self.last_failed.get(&index).map(|pod| pod.finished_at());
            match last.and_then(|last| backoff::after(failures + ignored, last, self.now)) {
                Some(left) => self.look_after(left),
                None => new.push(New { index: Some(index), failures: Some((failures, ignored)) }),
            }
        }
        new
    }
}
