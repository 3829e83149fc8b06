//! Empties a namespace that is being deleted, and lets it go when nothing is left (Kubernetes' namespace-controller): its pods go first, and while one of them is there nothing
//! else is deleted, so that what still runs keeps its policies, secrets and rights (KEP-5080).
//!
//! What remains is counted in the store's snapshot; a pod that takes its grace is awaited by watching deletions, not by asking again.

use super::{
    Context, Kinds,
    action::{Action, perform, perform_one},
    queue::Next,
    runner::{Controller, Event, every},
};
use crate::view::View;
use async_trait::async_trait;
use coracle_api::{Scope, Status};
use coracle_apiserver::view::{Condition, Headed, Text, condition, parse, stamp};
use coracle_store::{Key, Object, Snapshot};
use futures::{StreamExt, stream};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::Arc};

/// Deletions under way at once in one namespace.
const PARALLEL: usize = 32;

/// See the module.
pub struct Namespaces {
    context: Context,
    kinds: Kinds,
}

type Namespace<'a> = View<'a, Spec<'a>, State<'a>>;
#[derive(Deserialize, Default, Clone)]
#[serde(default)]
struct Spec<'a> {
    #[serde(borrow)]
    finalizers: Vec<Text<'a>>,
}
#[derive(Deserialize, Default, Clone)]
#[serde(default)]
struct State<'a> {
    #[serde(borrow)]
    phase: Text<'a>,
    conditions: Vec<Condition<'a>>,
}

/// What is still in the namespace after every deletion was asked for.
#[derive(Clone, Debug, Default)]
struct Remaining {
    /// Objects per resource id.
    resources: BTreeMap<String, usize>,
    /// Objects per finalizer.
    finalizers: BTreeMap<String, usize>,
    /// Deletions that failed.
    failures: Vec<String>,
}

impl Remaining {
    fn is_empty(&self) -> bool {
        self.resources.is_empty() && self.failures.is_empty()
    }
}

impl Namespaces {
    /// Acting as `namespace-controller`; `kinds` tells which resources there are.
    pub fn new(context: &Context, kinds: Kinds) -> Self {
        Self { context: context.acting_as("namespace-controller"), kinds }
    }

    /// What is in a namespace: its pods, or all else.
    fn content(&self, snapshot: &Snapshot, namespace: &str, pods: bool) -> Vec<Arc<Object>> {
        let mut content = Vec::new();
        for id in (self.kinds)().iter().filter(|kind| kind.scope == Scope::Namespaced).map(|kind| kind.id()) {
            if (id == "pods") == pods {
                content.extend(snapshot.range(&id, Some(namespace), None).cloned());
            }
        }
        content
    }

    /// Deletes what is in a namespace, its pods or all else, and adds what is left of it.
    async fn delete(&self, namespace: &str, pods: bool, remaining: &mut Remaining) -> Result<(), Status> {
        let client = &self.context.client;
        let mut asked = Vec::new();
        for object in self.content(&client.store().snapshot(), namespace, pods) {
            asked.extend(deletion(&object)?);
        }
        let deletions = stream::iter(asked).map(|action| perform_one(client, None, action)).buffer_unordered(PARALLEL);
        let results: Vec<Result<(), Status>> = deletions.collect().await;
        remaining.failures.extend(results.into_iter().filter_map(Result::err).map(|status| status.message));
        for object in self.content(&client.store().snapshot(), namespace, pods) {
            *remaining.resources.entry(object.key.resource.to_string()).or_default() += 1;
            for finalizer in &parse::<Headed<'_>>(&object)?.metadata.finalizers {
                *remaining.finalizers.entry(finalizer.to_string()).or_default() += 1;
            }
        }
        Ok(())
    }
}

/// The conditions that tell why a namespace is still there, with upstream's words.
fn conditions(old: &[Condition<'_>], remaining: &Remaining, now: Timestamp) -> Vec<Value> {
    // Upstream names resources with a dot before their group, also where that is empty.
    let name = |id: &str, word: &str| if word == "in" || id.contains('.') { id.to_owned() } else { format!("{id}.") };
    let list = |counts: &BTreeMap<String, usize>, word: &str| {
        counts.iter().map(|(id, count)| format!("{} {word} {count} resource instances", name(id, word))).collect::<Vec<_>>().join(", ")
    };
    let left = |set: bool, reason: &'static str, message: String| if set { ("True", reason, message) } else { ("False", "", String::new()) };
    let rows = [
        ("NamespaceDeletionDiscoveryFailure", ("False", "ResourcesDiscovered", "All resources successfully discovered".to_owned())),
        ("NamespaceDeletionGroupVersionParsingFailure", ("False", "ParsedGroupVersions", "All legacy kube types successfully parsed".to_owned())),
        (
            "NamespaceDeletionContentFailure",
            match remaining.failures.is_empty() {
                true => ("False", "ContentDeleted", "All content successfully deleted, may be waiting on finalization".to_owned()),
                false => (
                    "True",
                    "ContentDeletionFailed",
                    format!("Failed to delete all resource types, {} remaining: {}", remaining.failures.len(), remaining.failures.join(", ")),
                ),
            },
        ),
        (
            "NamespaceContentRemaining",
            match left(
                !remaining.resources.is_empty(),
                "SomeResourcesRemain",
                format!("Some resources are remaining: {}", list(&remaining.resources, "has")),
            ) {
                ("False", ..) => ("False", "ContentRemoved", "All content successfully removed".to_owned()),
                row => row,
            },
        ),
        (
            "NamespaceFinalizersRemaining",
            match left(
                !remaining.finalizers.is_empty(),
                "SomeFinalizersRemain",
                format!("Some content in the namespace has finalizers remaining: {}", list(&remaining.finalizers, "in")),
            ) {
                ("False", ..) => ("False", "ContentHasNoFinalizers", "All content-preserving finalizers finished".to_owned()),
                row => row,
            },
        ),
    ];
    let ours: Vec<&str> = rows.iter().map(|(kind, _)| *kind).collect();
    let kept = old.iter().filter(|c| !ours.contains(&&*c.kind)).map(Condition::to_json);
    let set = rows.iter().map(|(kind, (status, reason, message))| {
        let since = condition(old, kind).filter(|c| *c.status == **status).map_or_else(|| stamp(now), |c| c.last_transition_time.to_string());
        json!({ "type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": since })
    });
    kept.chain(set).collect()
}

/// How an object of the namespace is deleted; None if that was asked for already.
fn deletion(object: &Object) -> Result<Option<Action>, Status> {
    let view: Headed<'_> = parse(object)?;
    if view.metadata.deleting() {
        return Ok(None);
    }
    let uid = view.metadata.uid.to_string();
    Ok(Some(Action::Delete { key: object.key.clone(), uid, propagation: Some("Background"), grace: None }))
}

#[async_trait]
impl Controller for Namespaces {
    fn name(&self) -> &'static str {
        "namespace-controller"
    }

    fn route(&self, event: &Event<'_>, keys: &mut Vec<Key>) {
        match (event.resource, event.prev, event.new) {
            ("namespaces", _, Some(new)) => keys.push(new.key.clone()),
            // Something left (or slipped into) a namespace that may be waiting for it.
            (_, prev, new) if prev.is_none() || new.is_none() => {
                let Some(key) = event.key().filter(|key| !key.namespace.is_empty()) else { return };
                let namespace = Key::new("namespaces", "", key.namespace.clone());
                let deleting = event.snapshot.get(&namespace).is_some_and(|o| parse::<Headed<'_>>(&o).is_ok_and(|view| view.metadata.deleting()));
                if deleting {
                    keys.push(namespace);
                }
            }
            _ => {}
        }
    }

    fn all(&self, snapshot: &Snapshot, keys: &mut Vec<Key>) {
        every(snapshot, "namespaces", keys);
    }

    async fn reconcile(&self, key: &Key) -> Result<Next, Status> {
        let client = &self.context.client;
        let Some(object) = client.store().snapshot().get(key) else { return Ok(Next::Idle) };
        let view: Namespace<'_> = parse(&object)?;
        if !view.metadata.deleting() || !view.spec.finalizers.iter().any(|f| **f == *"kubernetes") {
            return Ok(Next::Idle);
        }
        let mut remaining = Remaining::default();
        self.delete(&key.name, true, &mut remaining).await?;
        if remaining.is_empty() {
            self.delete(&key.name, false, &mut remaining).await?;
        }
        if remaining.is_empty() {
            let finalizers: Vec<&Text<'_>> = view.spec.finalizers.iter().filter(|f| ***f != *"kubernetes").collect();
            let mut value: Value = parse(&object)?;
            value["spec"]["finalizers"] = json!(finalizers);
            return match client.update_subresource("namespaces", "finalize", value).await {
                Err(status) if status.is_not_found() => Ok(Next::Idle),
                result => result.map(|_| Next::Idle),
            };
        }
        let status = json!({ "phase": "Terminating", "conditions": conditions(&view.status.conditions, &remaining, self.context.now()) });
        if view.status.phase != "Terminating"
            || status["conditions"] != json!(view.status.conditions.iter().map(Condition::to_json).collect::<Vec<_>>())
        {
            perform(client, Some(&object), vec![Action::Status(status)]).await?;
        }
        match remaining.failures.first() {
            Some(failure) => Err(Status::internal(format_args!(
                "{} objects of namespace {} could not be deleted, the first: {failure}",
                remaining.failures.len(),
                key.name
            ))),
            None => Ok(Next::Idle),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_name_what_remains_and_keep_their_times() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().expect("time");
        let later: Timestamp = "2026-01-01T00:01:00Z".parse().expect("time");
        let remaining =
            Remaining { resources: [("pods".to_owned(), 2)].into(), finalizers: [("example.com/hold".to_owned(), 1)].into(), failures: Vec::new() };
        let first = conditions(&[], &remaining, now);
        assert_eq!(first[3]["message"], "Some resources are remaining: pods. has 2 resource instances");
        assert_eq!(first[4]["message"], "Some content in the namespace has finalizers remaining: example.com/hold in 1 resource instances");
        let text = serde_json::to_string(&first).expect("json");
        let old: Vec<Condition<'_>> = serde_json::from_str(&text).expect("conditions");
        assert_eq!(conditions(&old, &remaining, later), first, "nothing changed, so no time changed");
        let done = conditions(&old, &Remaining::default(), later);
        assert_eq!((&done[3]["status"], &done[3]["lastTransitionTime"]), (&json!("False"), &json!("2026-01-01T00:01:00Z")));
    }
}
