//! One pass over a Deployment: which sets to make, scale and forget.
//!
//! The rules are upstream's, so that kubectl's rollout commands and people's expectations hold: the new set grows within maxSurge, old
//! sets shrink within maxUnavailable (their unhealthy pods first), a change of the wanted number during a rollout is spread in
//! proportion, and a template that an old set already has is rolled out by growing that set again.

use super::{
    Deployment, RESOURCE, SETS,
    bounds::Bounds,
    revision::{self, DESIRED, MAX, REVISION},
    status, template,
};
use crate::controllers::{
    action::{Action, Plan},
    queue::Next,
    replica_set::ReplicaSet,
};
use coracle_apiserver::view::{Map, Owner, condition};
use coracle_store::Key;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::cmp::Reverse;

/// A ReplicaSet of the Deployment.
#[derive(Clone, Debug)]
pub struct Set<'a> {
    /// The set.
    pub view: ReplicaSet<'a>,
    /// Pods it is to have, this pass' changes included.
    pub replicas: i64,
    current: bool,
    has_pods: bool,
}

impl<'a> Set<'a> {
    /// `current`: its template is the Deployment's; `has_pods`: pods of it have not ended yet (looked at for Recreate only).
    pub fn new(view: ReplicaSet<'a>, current: bool, has_pods: bool) -> Self {
        let replicas = view.spec.replicas.unwrap_or(1);
        Self { view, replicas, current, has_pods }
    }
}

/// Everything a pass looks at, and what it has decided so far.
pub struct State<'s, 'a> {
    deployment: &'s Deployment<'a>,
    template: &'s Value,
    owner: &'s Owner<'a>,
    bounds: Bounds,
    /// Oldest first.
    sets: Vec<Set<'a>>,
    new: Option<usize>,
    now: Timestamp,
    actions: Vec<Action>,
}

impl<'s, 'a> State<'s, 'a> {
    /// `template` is the Deployment's, without the hash label; `owner` refers to the Deployment.
    pub fn new(deployment: &'s Deployment<'a>, template: &'s Value, owner: &'s Owner<'a>, mut sets: Vec<Set<'a>>, now: Timestamp) -> Self {
        sets.sort_by(|a, b| (a.view.metadata.created(), &a.view.metadata.name).cmp(&(b.view.metadata.created(), &b.view.metadata.name)));
        let new = sets.iter().position(|set| set.current);
        Self { deployment, template, owner, bounds: Bounds::of(deployment), sets, new, now, actions: Vec::new() }
    }

    /// The whole pass.
    pub fn decide(mut self) -> Plan {
        let mut conditions = self.deployment.status.conditions.clone();
        if self.deployment.metadata.deleting() {
            let report = status::count(self.deployment, &self.sets, self.new, conditions, self.now);
            return self.finish(report, None);
        }
        self.note_pause(&mut conditions);
        self.sync_revision(&mut conditions);
        if self.deployment.spec.paused || self.scaling_event() {
            self.scale_all();
            if self.deployment.spec.paused {
                self.forget_old();
            }
            let report = status::count(self.deployment, &self.sets, self.new, conditions, self.now);
            return self.finish(report, None);
        }
        match self.deployment.spec.strategy.kind == "Recreate" {
            true => self.recreate(&mut conditions),
            false => self.roll(&mut conditions),
        }
        let old = conditions.clone();
        let mut report = status::count(self.deployment, &self.sets, self.new, conditions, self.now);
        let again = status::judge(self.deployment, &self.sets, self.new, &mut report, &old, self.now);
        self.finish(report, again)
    }

    fn finish(mut self, report: super::Report<'a>, again: Option<std::time::Duration>) -> Plan {
        if report != self.deployment.status {
            // Before the Deployment's own annotations: a status must not be written over a newer object.
            let at = self.actions.iter().position(|action| matches!(action, Action::Patch { key, .. } if &*key.resource == RESOURCE));
            self.actions.insert(at.unwrap_or(self.actions.len()), Action::Status(status::to_json(&report)));
        }
        Plan { actions: self.actions, next: again.map_or(Next::Idle, Next::After) }
    }

    /// So that the time spent paused does not count against the progress deadline.
    fn note_pause(&self, conditions: &mut Vec<coracle_apiserver::view::Condition<'a>>) {
        if self.deployment.deadline().is_none() {
            return;
        }
        let reason = condition(conditions, "Progressing").map(|c| c.reason.to_string()).unwrap_or_default();
        match (self.deployment.spec.paused, &*reason) {
            (_, "ProgressDeadlineExceeded") | (true, "DeploymentPaused") => {}
            (true, _) => status::set(conditions, "Progressing", "Unknown", "DeploymentPaused", "Deployment is paused".to_owned(), self.now),
            (false, "DeploymentPaused") => {
                status::set(conditions, "Progressing", "Unknown", "DeploymentResumed", "Deployment is resumed".to_owned(), self.now);
            }
            (false, _) => {}
        }
    }

    fn old(&self) -> impl Iterator<Item = usize> + use<> {
        let new = self.new;
        (0..self.sets.len()).filter(move |i| Some(*i) != new)
    }

    fn key(&self, set: &Set<'_>) -> Key {
        Key::new(SETS, &*self.deployment.metadata.namespace, &*set.view.metadata.name)
    }

    /// The new set's revision, annotations and minReadySeconds, and the Deployment's revision.
    fn sync_revision(&mut self, conditions: &mut Vec<coracle_apiserver::view::Condition<'a>>) {
        let Some(set) = self.new.and_then(|new| self.sets.get(new)) else { return };
        let next = revision::highest(self.old().filter_map(|i| self.sets.get(i))) + 1;
        let annotations = &set.view.metadata.annotations;
        let changes = revision::annotations(self.deployment, annotations, next);
        let revision = changes.get(REVISION).cloned().or_else(|| annotations.get(REVISION).map(|text| text.to_string()));
        let min_ready = self.deployment.spec.min_ready_seconds;
        let key = self.key(set);
        let uid = set.view.metadata.uid.to_string();
        let name = set.view.metadata.name.to_string();
        if !changes.is_empty() || set.view.spec.min_ready_seconds != min_ready {
            let mut patch = json!({ "metadata": { "uid": uid } });
            if !changes.is_empty() {
                patch["metadata"]["annotations"] = json!(changes);
            }
            if set.view.spec.min_ready_seconds != min_ready {
                patch["spec"] = json!({ "minReadySeconds": min_ready });
            }
            self.actions.push(Action::Patch { key, subresource: "", patch });
        }
        self.set_revision(revision);
        if self.deployment.deadline().is_some() && condition(conditions, "Progressing").is_none() {
            status::set(conditions, "Progressing", "True", "FoundNewReplicaSet", format!("Found new replica set \"{name}\""), self.now);
        }
    }

    fn set_revision(&mut self, revision: Option<String>) {
        let meta = &self.deployment.metadata;
        if let Some(revision) = revision.filter(|revision| meta.annotations.get(REVISION).map(|old| &**old) != Some(revision)) {
            let key = Key::new(RESOURCE, &*meta.namespace, &*meta.name);
            let patch = json!({ "metadata": { "uid": meta.uid, "annotations": { REVISION: revision } } });
            self.actions.push(Action::Patch { key, subresource: "", patch });
        }
    }

    /// The wanted number changed since an active set was last scaled.
    fn scaling_event(&self) -> bool {
        let wanted = self.deployment.replicas();
        self.sets.iter().any(|set| set.replicas > 0 && desired(&set.view.metadata.annotations).is_some_and(|desired| desired != wanted))
    }

    fn total(&self) -> i64 {
        self.sets.iter().map(|set| set.replicas).sum()
    }

    /// Scales a set and tells so. With `force`, annotations are brought up to date even if the number stays.
    fn scale(&mut self, index: usize, to: i64, force: bool) -> bool {
        let wanted = self.deployment.replicas();
        let most = wanted + self.bounds.surge;
        let Some(set) = self.sets.get_mut(index) else { return false };
        let from = set.replicas;
        let annotations = &set.view.metadata.annotations;
        let stale = desired(annotations) != Some(wanted) || revision::number(annotations, MAX) != Some(most);
        if from == to && !(force && stale) {
            return false;
        }
        set.replicas = to;
        let name = set.view.metadata.name.to_string();
        let uid = set.view.metadata.uid.to_string();
        let patch = json!({
            "metadata": { "uid": uid, "annotations": { DESIRED: wanted.to_string(), MAX: most.to_string() } },
            "spec": { "replicas": to },
        });
        let key = Key::new(SETS, &*self.deployment.metadata.namespace, &*name);
        self.actions.push(Action::Patch { key, subresource: "", patch });
        if from != to {
            let way = if from < to { "up" } else { "down" };
            let message = format!("Scaled {way} replica set {name} from {from} to {to}");
            self.actions.push(Action::Event { kind: "Normal", reason: "ScalingReplicaSet", message });
        }
        from != to
    }

    fn saturated(&self) -> bool {
        let wanted = self.deployment.replicas();
        self.new.and_then(|new| self.sets.get(new)).is_some_and(|set| {
            set.replicas == wanted && desired(&set.view.metadata.annotations) == Some(wanted) && set.view.status.available_replicas == wanted
        })
    }

    /// Spreads a new wanted number over the sets.
    fn scale_all(&mut self) {
        let wanted = self.deployment.replicas();
        let active: Vec<usize> = (0..self.sets.len()).filter(|i| self.sets.get(*i).is_some_and(|set| set.replicas > 0)).collect();
        match active.as_slice() {
            [] => {
                if let Some(latest) = self.new.or_else(|| self.old().last()) {
                    self.scale(latest, wanted, false);
                }
            }
            [only] => {
                // An unchanged number still renews the annotations, or the scaling event would never end.
                self.scale(*only, wanted, true);
            }
            _ if self.saturated() => {
                let new = self.new;
                for index in active.into_iter().filter(|i| Some(*i) != new) {
                    self.scale(index, 0, false);
                }
            }
            _ if self.deployment.spec.strategy.kind == "Recreate" => {
                // Not spread: the next pass without this event empties the old sets. Their annotations must agree first.
                for index in active {
                    let replicas = self.sets.get(index).map_or(0, |set| set.replicas);
                    self.scale(index, replicas, true);
                }
            }
            _ => self.scale_in_proportion(active),
        }
    }

    fn scale_in_proportion(&mut self, mut active: Vec<usize>) {
        let wanted = self.deployment.replicas();
        let allowed = if wanted > 0 { wanted + self.bounds.surge } else { 0 };
        let to_add = allowed - self.total();
        let size = |i: &usize| self.sets.get(*i).map_or(0, |set| set.replicas);
        match to_add {
            1.. => active.sort_by_key(|i| Reverse((size(i), *i))),
            _ => active.sort_by_key(|i| (Reverse(size(i)), *i)),
        }
        let mut added = 0;
        let mut sizes: Vec<(usize, i64)> = Vec::new();
        for index in active {
            let Some(set) = self.sets.get(index) else { continue };
            let mut share = 0;
            if to_add != 0 && to_add != added {
                let fraction = self.fraction(set);
                let left = to_add - added;
                share = if to_add > 0 { fraction.min(left) } else { fraction.max(left) };
            }
            added += share;
            sizes.push((index, set.replicas + share));
        }
        if let Some(largest) = sizes.first_mut() {
            largest.1 = (largest.1 + to_add - added).max(0);
        }
        for (index, size) in sizes {
            self.scale(index, size, true);
        }
    }

    /// By how much a set would change to keep its share.
    fn fraction(&self, set: &Set<'_>) -> i64 {
        let wanted = self.deployment.replicas();
        if wanted == 0 {
            return -set.replicas;
        }
        let before = match revision::number(&set.view.metadata.annotations, MAX) {
            Some(most) if most > 0 => most,
            _ => self.deployment.status.replicas,
        };
        if before == 0 {
            return 0;
        }
        let size = (set.replicas * (wanted + self.bounds.surge)) as f64 / before as f64;
        size.round() as i64 - set.replicas
    }

    /// How large the new set may be now.
    fn new_size(&self, current: i64) -> i64 {
        let wanted = self.deployment.replicas();
        if self.deployment.spec.strategy.kind == "Recreate" {
            return wanted;
        }
        let room = wanted + self.bounds.surge - self.total();
        if room <= 0 { current } else { current + room.min(wanted - current) }
    }

    /// Makes the new set, named by the template's hash so that making it twice is impossible.
    fn create(&mut self, conditions: &mut Vec<coracle_apiserver::view::Condition<'a>>) {
        let deployment = self.deployment;
        let meta = &deployment.metadata;
        let hash = template::hash(self.template, deployment.status.collision_count);
        let room = 253 - 1 - hash.len();
        let stem = meta.name.get(..room).unwrap_or(&meta.name);
        let name = format!("{stem}-{hash}");
        let replicas = self.new_size(0);
        let wanted = deployment.replicas();
        let next = (revision::highest(self.sets.iter()) + 1).to_string();

        let mut annotations = revision::annotations(deployment, &Map::new(), 0);
        annotations.insert(REVISION.to_owned(), next.clone());
        annotations.insert(DESIRED.to_owned(), wanted.to_string());
        annotations.insert(MAX.to_owned(), (wanted + self.bounds.surge).to_string());
        let mut template = self.template.clone();
        if !template.is_object() {
            template = json!({});
        }
        if !template["metadata"]["labels"].is_object() {
            template["metadata"]["labels"] = json!({});
        }
        template["metadata"]["labels"][template::HASH_LABEL] = json!(hash);
        let labels = template["metadata"]["labels"].clone();
        let mut match_labels = json!(deployment.spec.selector.match_labels);
        match_labels[template::HASH_LABEL] = json!(hash);
        let mut selector = json!({ "matchLabels": match_labels });
        if !deployment.spec.selector.match_expressions.is_empty() {
            let expressions = deployment.spec.selector.match_expressions.iter();
            selector["matchExpressions"] = expressions.map(|r| json!({ "key": r.key, "operator": r.operator, "values": r.values })).collect();
        }
        let object = json!({
            "apiVersion": "apps/v1", "kind": "ReplicaSet",
            "metadata": {
                "name": name, "namespace": meta.namespace, "labels": labels, "annotations": annotations,
                "ownerReferences": [self.owner.to_json()],
            },
            "spec": {
                "replicas": replicas, "minReadySeconds": deployment.spec.min_ready_seconds, "selector": selector, "template": template,
            },
        });
        self.actions.push(Action::Create { resource: SETS, object });
        if replicas > 0 {
            let message = format!("Scaled up replica set {name} from 0 to {replicas}");
            self.actions.push(Action::Event { kind: "Normal", reason: "ScalingReplicaSet", message });
        }
        self.set_revision(Some(next));
        if deployment.deadline().is_some() {
            status::set(conditions, "Progressing", "True", "NewReplicaSetCreated", format!("Created new replica set \"{name}\""), self.now);
        }
    }

    fn roll(&mut self, conditions: &mut Vec<coracle_apiserver::view::Condition<'a>>) {
        let Some(new) = self.new else { return self.create(conditions) };
        let current = self.sets.get(new).map_or(0, |set| set.replicas);
        let wanted = self.deployment.replicas();
        let size = if current > wanted { wanted } else { self.new_size(current) };
        if current != wanted && self.scale(new, size, false) {
            return;
        }
        if self.shrink_old(new) {
            return;
        }
        if status::complete(self.deployment, &self.deployment.status) {
            self.forget_old();
        }
    }

    /// Old sets lose their unhealthy pods first, then as many available ones as the bound allows.
    fn shrink_old(&mut self, new: usize) -> bool {
        let active: Vec<usize> = self.old().filter(|i| self.sets.get(*i).is_some_and(|set| set.replicas > 0)).collect();
        if active.is_empty() {
            return false;
        }
        let at_least = self.deployment.replicas() - self.bounds.unavailable;
        let new_unavailable = self.sets.get(new).map_or(0, |set| set.replicas - set.view.status.available_replicas);
        let most = self.total() - at_least - new_unavailable;
        if most <= 0 {
            return false;
        }
        let mut gone = 0;
        for &index in &active {
            let Some(set) = self.sets.get(index) else { continue };
            let unhealthy = (set.replicas - set.view.status.available_replicas).max(0).min(most - gone);
            if unhealthy > 0 {
                let to = set.replicas - unhealthy;
                gone += unhealthy;
                self.scale(index, to, false);
            }
        }
        // Counted over the sets that are still being worked with, as upstream: the active old ones and the new one.
        let available: i64 = active.iter().chain([&new]).filter_map(|i| self.sets.get(*i)).map(|set| set.view.status.available_replicas).sum();
        let mut surplus = available - at_least;
        for &index in &active {
            let Some(set) = self.sets.get(index) else { continue };
            let down = set.replicas.min(surplus);
            if down > 0 {
                let to = set.replicas - down;
                surplus -= down;
                gone += down;
                self.scale(index, to, false);
            }
        }
        gone > 0
    }

    fn recreate(&mut self, conditions: &mut Vec<coracle_apiserver::view::Condition<'a>>) {
        let old: Vec<usize> = self.old().collect();
        let mut scaled = false;
        for &index in &old {
            scaled |= self.scale(index, 0, false);
        }
        let running = old.iter().filter_map(|i| self.sets.get(*i)).any(|set| set.view.status.replicas > 0 || set.has_pods);
        if scaled || running {
            return;
        }
        let Some(new) = self.new else { return self.create(conditions) };
        self.scale(new, self.deployment.replicas(), false);
        if status::complete(self.deployment, &self.deployment.status) {
            self.forget_old();
        }
    }

    /// Deletes the oldest empty sets beyond the history limit.
    fn forget_old(&mut self) {
        let Some(limit) = self.deployment.history() else { return };
        let mut old: Vec<&Set<'_>> = self.old().filter_map(|i| self.sets.get(i)).filter(|set| !set.view.metadata.deleting()).collect();
        let surplus = old.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
        old.sort_by_key(|set| revision::number(&set.view.metadata.annotations, REVISION).unwrap_or(0));
        let empty = |set: &&&Set<'_>| {
            set.replicas == 0 && set.view.status.replicas == 0 && set.view.metadata.generation <= set.view.status.observed_generation
        };
        let actions: Vec<Action> = old
            .iter()
            .take(surplus)
            .filter(empty)
            .map(|set| Action::Delete { key: self.key(set), uid: set.view.metadata.uid.to_string(), propagation: Some("Background"), grace: None })
            .collect();
        self.actions.extend(actions);
    }
}

fn desired(annotations: &Map<'_>) -> Option<i64> {
    revision::number(annotations, DESIRED)
}

#[cfg(test)]
#[path = "rollout_tests.rs"]
mod tests;
