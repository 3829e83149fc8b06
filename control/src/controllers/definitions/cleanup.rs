//! Deletes the instances of a CustomResourceDefinition that is being deleted, and lets it go when none is left (apiextensions' crd finalizer).
//!
//! Nothing new can come in between: every write of an instance is checked against the definition's revision. What remains is counted in the store; instances that
//! are held by finalizers are awaited by watching them go.

use crate::controllers::{
    Context,
    action::{Action, perform, perform_one},
    queue::Next,
    runner::{Controller, Event},
};
use async_trait::async_trait;
use coracle_api::Status;
use coracle_apiserver::{
    custom::{
        CLEANUP, DEFINITIONS,
        conditions::{self, Condition, set},
        key,
    },
    view::{Headed, parse, time},
};
use coracle_store::{Key, Object, Snapshot};
use futures::{StreamExt, stream};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};

/// Deletions under way at once for one definition.
const PARALLEL: usize = 32;
/// After so long upstream says that it could not confirm the end.
const PATIENCE: Duration = Duration::from_secs(60);

/// See the module.
pub struct Cleanup {
    context: Context,
}

impl Cleanup {
    /// Acting as the server itself, as upstream's finalizer does.
    pub fn new(context: &Context) -> Self {
        Self { context: context.clone() }
    }

    /// Asks for the deletion of every instance; what failed.
    async fn delete(&self, instances: Vec<Arc<Object>>) -> Result<Vec<String>, Status> {
        let client = &self.context.client;
        let mut asked = Vec::new();
        for object in instances {
            let view: Headed<'_> = parse(&object)?;
            if !view.metadata.deleting() {
                asked.push(Action::Delete { key: object.key.clone(), uid: view.metadata.uid.to_string(), propagation: None, grace: None });
            }
        }
        let results: Vec<Result<(), Status>> =
            stream::iter(asked).map(|action| perform_one(client, None, action)).buffer_unordered(PARALLEL).collect().await;
        Ok(results.into_iter().filter_map(Result::err).map(|status| status.message).collect())
    }
}

/// Whether this definition waits for its instances to go.
fn waits(definition: &Object) -> bool {
    parse::<Headed<'_>>(definition).is_ok_and(|view| view.metadata.deleting() && view.metadata.has_finalizer(CLEANUP))
}

fn terminating(status: &'static str, reason: &'static str, message: impl Into<String>) -> Condition {
    Condition { kind: "Terminating", status, reason, message: message.into() }
}

#[async_trait]
impl Controller for Cleanup {
    fn name(&self) -> &'static str {
        "crd-finalizer"
    }

    fn route(&self, event: &Event<'_>, keys: &mut Vec<Key>) {
        match (event.resource, event.new) {
            (DEFINITIONS, Some(new)) if waits(new) => keys.push(new.key.clone()),
            (resource, None) if resource.contains('.') => {
                let definition = key(resource);
                if event.snapshot.get(&definition).is_some_and(|definition| waits(&definition)) {
                    keys.push(definition);
                }
            }
            _ => {}
        }
    }

    fn all(&self, snapshot: &Snapshot, keys: &mut Vec<Key>) {
        keys.extend(snapshot.range(DEFINITIONS, None, None).filter(|definition| waits(definition)).map(|definition| definition.key.clone()));
    }

    async fn reconcile(&self, key: &Key) -> Result<Next, Status> {
        let client = &self.context.client;
        let (store, now) = (client.store(), self.context.now());
        let Some(object) = store.snapshot().get(key).filter(|definition| waits(definition)) else { return Ok(Next::Idle) };
        let definition: Value = parse(&object)?;
        let mut status = definition["status"].clone();
        let done = if !conditions::is_true(&status, "Established") {
            Some(terminating("False", "NeverEstablished", "resource was never established"))
        } else {
            let instances = || store.snapshot().range(&key.name, None, None).cloned().collect::<Vec<_>>();
            let failures = self.delete(instances()).await?;
            let left = instances().len();
            match failures.is_empty() {
                true if left == 0 => Some(terminating("False", "InstanceDeletionCompleted", "removed all instances")),
                true => {
                    let condition = status["conditions"].as_array().into_iter().flatten().find(|c| c["type"] == "Terminating");
                    let since = condition.and_then(|c| time(c["lastTransitionTime"].as_str()?)).unwrap_or(now);
                    let waited = Duration::try_from(now.duration_since(since)).unwrap_or_default();
                    let late = waited >= PATIENCE;
                    set(
                        &mut status,
                        match late {
                            true => terminating(
                                "True",
                                "InstanceDeletionCheck",
                                "could not confirm zero CustomResources remaining: context deadline exceeded",
                            ),
                            false => terminating("True", "InstanceDeletionInProgress", "CustomResource deletion is in progress"),
                        },
                        now,
                    );
                    if status != definition["status"] {
                        perform(client, Some(&object), vec![Action::Status(status)]).await?;
                    }
                    return Ok(if late { Next::Idle } else { Next::After(PATIENCE - waited) });
                }
                false => {
                    let why = format!("could not issue all deletes: {}", failures.join(", "));
                    set(&mut status, terminating("True", "InstanceDeletionFailed", why.clone()), now);
                    perform(client, Some(&object), vec![Action::Status(status)]).await?;
                    return Err(Status::internal(why));
                }
            }
        };
        if let Some(condition) = done {
            set(&mut status, condition, now);
        }
        if status != definition["status"] {
            perform(client, Some(&object), vec![Action::Status(status)]).await?;
        }
        let finalizers = definition["metadata"]["finalizers"].as_array().into_iter().flatten().filter(|f| *f != CLEANUP).cloned();
        let patch = json!({"metadata": {"uid": definition["metadata"]["uid"], "finalizers": finalizers.collect::<Vec<Value>>()}});
        perform(client, None, vec![Action::Patch { key: key.clone(), subresource: "", patch }]).await?;
        Ok(Next::Idle)
    }
}
