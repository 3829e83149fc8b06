//! One pass over a StatefulSet: which pod comes, goes or is replaced next, and what the set reports.
//!
//! The order is upstream's. First the wanted pods from the first to the last: what ended goes, what is missing is made. Then those whose
//! number is no longer wanted, from the last to the first. Then, if all that is settled, pods of an old template. With `OrderedReady` each
//! waits for the one before it.

use super::{
    Report, StatefulSet,
    claims::{Claims, Retention},
    identity,
};
use crate::controllers::{
    action::Action,
    history::{REVISION_LABEL, Revision},
};
use coracle_api::Status;
use coracle_apiserver::view::{
    Condition, Owner, Text,
    pod::{Availability, Pod},
};
use coracle_store::Key;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::{cmp::Reverse, collections::BTreeMap, time::Duration};

/// Steps of one pass; the next goes on.
const BURST: usize = 500;

/// What is done for one pod, in order; the first failure ends it.
#[derive(Debug, Default)]
pub struct Step {
    /// `Create`, `Update`, `Delete`, for events.
    pub verb: &'static str,
    /// The pod's name.
    pub pod: String,
    /// Writes.
    pub actions: Vec<Action>,
    /// An event tells of its success; of failures always.
    pub told: bool,
    /// It cannot be done now, and why.
    pub refused: Option<Status>,
    /// Claims for which the retention policy cannot hold.
    pub conflicts: Vec<String>,
}

/// What a pass decides.
#[derive(Debug, Default)]
pub struct Decided<'a> {
    /// Steps for the wanted pods, the claims of condemned ones, the condemned ones; a failure ends the pass.
    pub phases: [Vec<Step>; 3],
    /// Pods that are deleted to be made anew from the present template.
    pub updates: Vec<Step>,
    /// What is reported if the updates are not counted.
    pub report: Report<'a>,
    /// When a pod becomes available, or may be replaced, by time alone.
    pub again: Option<Duration>,
}

impl Decided<'_> {
    fn look_again(&mut self, after: Duration) {
        self.again = Some(self.again.map_or(after, |before| before.min(after)));
    }
}

/// Everything a pass looks at.
pub struct State<'s, 'a> {
    /// The set.
    pub set: &'s StatefulSet<'a>,
    /// The reference to it.
    pub owner: &'s Owner<'a>,
    /// The pods it controls.
    pub pods: &'s [Pod<'a>],
    /// The revision that an update started from.
    pub current: &'s Revision,
    /// The revision of the present template.
    pub update: &'s Revision,
    /// Claims that exist.
    pub claims: &'s Claims,
    /// How long a pod of this name that has ended stays before another takes its place.
    pub wait: &'s (dyn Fn(&str) -> Option<Duration> + Sync),
    /// Wall-clock time.
    pub now: Timestamp,
}

fn revision_of<'p>(pod: &'p Pod<'_>) -> &'p str {
    pod.metadata.labels.get(REVISION_LABEL).map_or("", |name| &**name)
}

impl<'s, 'a> State<'s, 'a> {
    fn available(&self, pod: &Pod<'_>) -> bool {
        pod.availability(self.set.spec.min_ready_seconds, self.now) == Availability::Available
    }

    fn running_and_ready(pod: &Pod<'_>) -> bool {
        pod.status.phase == "Running" && pod.ready()
    }

    fn missing(&self, pod: &Pod<'_>) -> bool {
        pod.metadata.deleting() || !self.available(pod)
    }

    /// The revision that a missing pod is made from.
    fn revision_for(&self, place: i64) -> &'s Revision {
        let strategy = &self.set.spec.update_strategy;
        let old = match &strategy.rolling_update {
            Some(rolling) => rolling.partition,
            None if strategy.kind == "RollingUpdate" => self.set.status.current_replicas,
            None => 0,
        };
        if place < old { self.current } else { self.update }
    }

    /// The wanted pods by their place, and the others with their numbers, from the last down.
    fn sort(&self) -> (BTreeMap<i64, &'s Pod<'a>>, Vec<(i64, &'s Pod<'a>)>) {
        let (start, count) = (self.set.spec.ordinals.start, self.set.replicas());
        let mut wanted = BTreeMap::new();
        let mut condemned = Vec::new();
        for pod in self.pods {
            match identity::ordinal(&self.set.metadata.name, &pod.metadata.name) {
                Some(ordinal) if (start..start + count).contains(&ordinal) => drop(wanted.insert(ordinal - start, pod)),
                Some(ordinal) => condemned.push((ordinal, pod)),
                None => {}
            }
        }
        condemned.sort_by_key(|(ordinal, _)| Reverse(*ordinal));
        (wanted, condemned)
    }

    /// Decides a pass. `collisions` is the number that is reported.
    ///
    /// # Errors
    /// A stored claim that cannot be read.
    pub fn decide(&self, collisions: i64) -> Result<Decided<'a>, Status> {
        let mut decided = Decided { report: self.report(collisions), again: self.again(), ..Decided::default() };
        if self.set.metadata.deleting() {
            return Ok(decided);
        }
        let (wanted, condemned) = self.sort();
        let ordered = self.set.ordered();
        for place in 0..self.set.replicas() {
            if decided.phases[0].len() == BURST {
                decided.again = Some(Duration::ZERO);
                return Ok(decided);
            }
            let pod = wanted.get(&place).copied();
            let ended = pod.filter(|pod| pod.terminal() && !pod.metadata.deleting());
            let waits = match ended.and_then(|pod| (self.wait)(&pod.metadata.name)) {
                Some(left) => {
                    decided.look_again(left);
                    true
                }
                None => self.tend(place, pod, &mut decided.phases[0])?,
            };
            if waits && ordered {
                return Ok(decided);
            }
        }
        for (ordinal, pod) in &condemned {
            let retention = self.claims.retain(self.set, self.owner, &pod.metadata, *ordinal, true)?;
            Self::retain(pod, retention, &mut decided.phases[1]);
        }
        // In order, every wanted pod is available here: the first that is not can only be among these.
        let first_missing = condemned.iter().rev().find(|(_, pod)| self.missing(pod)).map(|(ordinal, _)| *ordinal);
        for (ordinal, pod) in &condemned {
            let settled = Self::running_and_ready(pod) && self.available(pod);
            if pod.metadata.deleting() || (ordered && !settled && first_missing != Some(*ordinal)) {
                if ordered {
                    return Ok(decided);
                }
                continue;
            }
            decided.phases[2].push(self.delete(pod));
            if ordered {
                return Ok(decided);
            }
        }
        if self.set.spec.update_strategy.kind != "OnDelete" {
            decided.updates = self.updates(&wanted);
        }
        Ok(decided)
    }

    fn delete(&self, pod: &Pod<'_>) -> Step {
        let key = Key::new("pods", &*self.set.metadata.namespace, &*pod.metadata.name);
        let action = Action::Delete { key, uid: pod.metadata.uid.to_string(), propagation: None, grace: None };
        Step { verb: "Delete", pod: pod.metadata.name.to_string(), actions: vec![action], told: true, ..Step::default() }
    }

    fn retain(pod: &Pod<'_>, retention: Retention, steps: &mut Vec<Step>) {
        if !retention.actions.is_empty() {
            let Retention { actions, conflicts } = retention;
            steps.push(Step { verb: "Update", pod: pod.metadata.name.to_string(), actions, conflicts, ..Step::default() });
        }
    }

    /// A step with the claims that a pod lacks before anything else.
    fn with_claims(&self, verb: &'static str, pod: String, ordinal: i64) -> Step {
        let step = Step { verb, pod, ..Step::default() };
        match self.claims.missing(self.set, ordinal) {
            Ok(actions) => Step { actions, ..step },
            Err(refused) => Step { refused: Some(refused), ..step },
        }
    }

    /// What a wanted pod needs. True if the next one must wait for it.
    fn tend(&self, place: i64, pod: Option<&Pod<'_>>, steps: &mut Vec<Step>) -> Result<bool, Status> {
        let ordinal = self.set.spec.ordinals.start + place;
        let Some(pod) = pod else {
            // A claim of the pod that was: it must be gone before the new one is made, or that would lose its claim.
            if self.claims.stale(self.set, ordinal)? {
                return Ok(true);
            }
            let object = identity::pod(self.set, self.owner, self.revision_for(place), ordinal);
            let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            let mut step = self.with_claims("Create", name, ordinal);
            step.actions.push(Action::Create { resource: "pods", object });
            step.told = true;
            steps.push(step);
            return Ok(true);
        };
        if pod.terminal() {
            if !pod.metadata.deleting() {
                steps.push(self.delete(pod));
            }
            return Ok(true);
        }
        if pod.status.phase == "Pending" {
            let step = self.with_claims("Update", pod.metadata.name.to_string(), ordinal);
            if !step.actions.is_empty() || step.refused.is_some() {
                steps.push(step);
            }
        }
        let waits = pod.metadata.deleting() || !Self::running_and_ready(pod) || !self.available(pod);
        if waits && self.set.ordered() {
            return Ok(true);
        }
        if !identity::matches(&pod.metadata) {
            let key = Key::new("pods", &*self.set.metadata.namespace, &*pod.metadata.name);
            let labels = identity::labels(&pod.metadata.name, ordinal);
            let patch = json!({ "metadata": { "uid": pod.metadata.uid, "labels": labels } });
            let actions = vec![Action::Patch { key, subresource: "", patch }];
            steps.push(Step { verb: "Update", pod: pod.metadata.name.to_string(), actions, told: true, ..Step::default() });
        }
        let retention = self.claims.retain(self.set, self.owner, &pod.metadata, ordinal, false)?;
        Self::retain(pod, retention, steps);
        Ok(waits)
    }

    /// Pods of an old template that may go now, those of the highest numbers first.
    fn updates(&self, wanted: &BTreeMap<i64, &Pod<'_>>) -> Vec<Step> {
        let rolling = self.set.spec.update_strategy.rolling_update.as_ref();
        let partition = rolling.map_or(0, |rolling| rolling.partition);
        let old = |pod: &Pod<'_>| !pod.metadata.deleting() && revision_of(pod) != self.update.name;
        if let Some(most) = rolling.and_then(|rolling| rolling.max_unavailable.as_ref()) {
            // KEP-961: any number of pods may be missing, wherever they are.
            let there = wanted.values().filter(|pod| !self.missing(pod)).count() as i64;
            let room = most.of(self.set.replicas(), false).max(1) - (self.set.replicas() - there);
            let targets = wanted.iter().rev().filter(|(place, pod)| **place >= partition && old(pod));
            return targets.take(usize::try_from(room).unwrap_or(0)).map(|(_, pod)| self.delete(pod)).collect();
        }
        for place in (partition..self.set.replicas()).rev() {
            match wanted.get(&place) {
                Some(pod) if old(pod) => return vec![self.delete(pod)],
                Some(pod) if !self.missing(pod) => {}
                _ => break,
            }
        }
        Vec::new()
    }

    fn report(&self, collisions: i64) -> Report<'a> {
        let created = || self.pods.iter().filter(|pod| !pod.status.phase.is_empty());
        let of = |name: &str| created().filter(|pod| !pod.metadata.deleting() && revision_of(pod) == name).count() as i64;
        let ready = || self.pods.iter().filter(|pod| Self::running_and_ready(pod));
        let mut report = Report {
            observed_generation: self.set.metadata.generation,
            replicas: created().count() as i64,
            ready_replicas: ready().count() as i64,
            available_replicas: ready().filter(|pod| self.available(pod)).count() as i64,
            current_replicas: of(&self.current.name),
            updated_replicas: of(&self.update.name),
            current_revision: Text::from(self.current.name.clone()),
            update_revision: Text::from(self.update.name.clone()),
            collision_count: collisions,
            conditions: self.set.status.conditions.clone(),
        };
        let wanted = self.set.replicas();
        let all = [report.updated_replicas, report.ready_replicas, report.replicas].iter().all(|count| *count == wanted);
        if all && self.set.spec.update_strategy.kind == "RollingUpdate" {
            report.current_replicas = report.updated_replicas;
            report.current_revision = report.update_revision.clone();
        }
        report
    }

    fn again(&self) -> Option<Duration> {
        let left = self.pods.iter().filter_map(|pod| match pod.availability(self.set.spec.min_ready_seconds, self.now) {
            Availability::In(left) => Some(left),
            _ => None,
        });
        left.min()
    }
}

/// The status as it is written.
pub fn to_json(report: &Report<'_>) -> Value {
    let mut json = json!({
        "observedGeneration": report.observed_generation,
        "replicas": report.replicas,
        "readyReplicas": report.ready_replicas,
        "currentReplicas": report.current_replicas,
        "updatedReplicas": report.updated_replicas,
        "availableReplicas": report.available_replicas,
        "currentRevision": report.current_revision,
        "updateRevision": report.update_revision,
        "collisionCount": report.collision_count,
    });
    if !report.conditions.is_empty() {
        json["conditions"] = report.conditions.iter().map(Condition::to_json).collect();
    }
    json
}

#[cfg(test)]
#[path = "pass_tests.rs"]
mod tests;
