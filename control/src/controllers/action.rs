//! What a reconcile function decides, as data, and the one place that carries it out.

use super::queue::Next;
use coracle_api::Status;
use coracle_apiserver::{
    client::{Client, DeleteOptions},
    pipeline::PatchKind,
};
use coracle_store::{Key, Object};
use serde_json::Value;
use std::collections::HashMap;

/// One write or event. Tests compare exact sequences of these.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Create an object; its namespace and name (or generateName) stand in its metadata.
    Create {
        /// Resource id, such as `pods`.
        resource: &'static str,
        /// The object.
        object: Value,
    },
    /// JSON merge patch (RFC 7386). A `metadata.resourceVersion` or `metadata.uid` in it is a precondition; of several patches of one object that name a
    /// revision the first is about the object as it was read, and each of the others about what the one before left.
    Patch {
        /// What is patched.
        key: Key,
        /// Empty for the object itself.
        subresource: &'static str,
        /// The patch.
        patch: Value,
    },
    /// Delete, if it is still the same object.
    Delete {
        /// What is deleted.
        key: Key,
        /// Precondition.
        uid: String,
        /// `Background`, `Foreground`, `Orphan`; None leaves the choice to the server.
        propagation: Option<&'static str>,
        /// Grace in seconds; None leaves it to the object.
        grace: Option<i64>,
    },
    /// Replace the status of the object that is being reconciled, if nobody wrote it since it was read.
    Status(Value),
    /// An event about the object that is being reconciled.
    Event {
        /// `Normal` or `Warning`.
        kind: &'static str,
        /// CamelCase reason.
        reason: &'static str,
        /// Sentence.
        message: String,
    },
}

/// Everything one look at an object decides.
#[derive(Debug, PartialEq)]
pub struct Plan {
    /// In order; the first failure ends it.
    pub actions: Vec<Action>,
    /// When to look again.
    pub next: Next,
}

impl Default for Plan {
    fn default() -> Self {
        Self { actions: Vec::new(), next: Next::Idle }
    }
}

impl Plan {
    /// A plan of these actions, with nothing to wait for.
    pub fn of(actions: Vec<Action>) -> Self {
        Self { actions, next: Next::Idle }
    }
}

/// Carries the actions out in order. `about` is the object that is being reconciled. An object that is already gone is deleted enough.
///
/// # Errors
/// The first failure; conflicts are among them, and the runner then looks at the fresh object.
pub async fn perform(client: &Client, about: Option<&Object>, actions: Vec<Action>) -> Result<(), Status> {
    let mut chain = Chain::default();
    for mut action in actions {
        chain.follow(&mut action);
        match action {
            Action::Patch { key, subresource, patch } => {
                let written = client.patch(&key.resource, &key.namespace, &key.name, subresource, PatchKind::Merge, patch).await?;
                chain.wrote(key, written.revision);
            }
            action => perform_one(client, about, action).await?,
        }
    }
    Ok(())
}

/// Carries out what makes an object, if anything is to be done. Whoever was first, it is there.
///
/// # Errors
/// As for [`perform`].
pub async fn provide(client: &Client, action: Option<Action>) -> Result<Next, Status> {
    match perform(client, None, action.into_iter().collect()).await {
        Err(status) if status.reason == "AlreadyExists" => Ok(Next::Idle),
        result => result.map(|()| Next::Idle),
    }
}

/// At which revisions a series of actions left objects.
#[derive(Debug, Default)]
pub struct Chain(HashMap<Key, u64>);

impl Chain {
    /// Puts what the action before left in place of the revision that a patch names.
    pub fn follow(&self, action: &mut Action) {
        if let Action::Patch { key, patch, .. } = action
            && let (Some(revision), Some(named)) = (self.0.get(key), patch.pointer_mut("/metadata/resourceVersion"))
        {
            *named = revision.to_string().into();
        }
    }

    /// A patch made this revision.
    pub fn wrote(&mut self, key: Key, revision: u64) {
        self.0.insert(key, revision);
    }
}

/// Carries out one action; see [`perform`].
///
/// # Errors
/// What the pipeline answers.
pub async fn perform_one(client: &Client, about: Option<&Object>, action: Action) -> Result<(), Status> {
    match action {
        Action::Create { resource, object } => {
            let namespace = object.pointer("/metadata/namespace").and_then(Value::as_str).unwrap_or_default().to_owned();
            client.create(resource, &namespace, object).await.map(drop)
        }
        Action::Patch { key, subresource, patch } => {
            client.patch(&key.resource, &key.namespace, &key.name, subresource, PatchKind::Merge, patch).await.map(drop)
        }
        Action::Delete { key, uid, propagation, grace } => {
            let options = DeleteOptions { uid: Some(uid), resource_version: None, propagation, grace_seconds: grace };
            match client.delete(&key.resource, &key.namespace, &key.name, options).await {
                Err(status) if status.is_not_found() || status.is_conflict() => Ok(()),
                result => result,
            }
        }
        Action::Status(status) => {
            let Some(object) = about else { return Ok(()) };
            let mut value: Value = coracle_apiserver::view::parse(object)?;
            if let Some(fields) = value.as_object_mut() {
                fields.insert("status".to_owned(), status);
            }
            client.update_status(&object.key.resource, value).await.map(drop)
        }
        Action::Event { kind, reason, message } => {
            if let Some(object) = about {
                client.event(object, kind, reason, &message);
            }
            Ok(())
        }
    }
}
