//! Create: the generic handler's POST.

use super::{Answer, Core, Request, Verb, decode, handle, managers, metadata, update::conflict};
use crate::{auth::Attributes, custom};
use coracle_api::{names, status::Status};
use coracle_schema::managed;
use coracle_store::{Error, Expect, Key, Op, Txn};
use serde_json::{Value, json};
use std::{borrow::Cow, sync::Arc, time::Instant};

/// Tries of `generateName` before giving up, as upstream.
const GENERATE_TRIES: usize = 8;

impl Core {
    pub(super) async fn create(self: &Arc<Self>, request: &Request) -> Result<Answer, Status> {
        let mut decoded = self.sent(request).await?;
        let mut request = Cow::Borrowed(request);
        let generated = decoded["metadata"]["name"].as_str().unwrap_or_default().is_empty()
            && !decoded["metadata"]["generateName"].as_str().unwrap_or_default().is_empty();
        let until = Instant::now() + handle::DEADLINE;
        let mut collisions = 0;
        loop {
            let mut new = decoded.clone();
            if generated {
                let base = new["metadata"]["generateName"].as_str().unwrap_or_default();
                let name = names::generate(base, |below| rand::random_range(0..below));
                metadata::of(&mut new).insert("name".into(), Value::String(name));
            }
            match self.try_create(&request, new).await? {
                Tried::Done(answer) => return Ok(answer),
                Tried::Exists(name) if generated => {
                    collisions += 1;
                    if collisions == GENERATE_TRIES {
                        return Err(already(&request, &name));
                    }
                }
                Tried::Exists(name) => return Err(already(&request, &name)),
                Tried::Lost if Instant::now() < until => {
                    // The kind itself may have changed: then what was sent means something else.
                    if let Some(renewed) = self.renewed(&request)? {
                        request.warnings.take();
                        decoded = self.sent(&renewed).await?;
                        request = Cow::Owned(renewed);
                    }
                }
                Tried::Lost => return Err(Status::internal("the write lost too many races; try again")),
            }
        }
    }

    /// The object in the request's body with its managed fields, in the form that is stored.
    async fn sent(&self, request: &Request) -> Result<Value, Status> {
        let mut decoded = decode::body(self, request)?;
        metadata::agree_with_path(&mut decoded, &request.namespace, &request.name)?;
        if decoded["metadata"]["resourceVersion"].as_str().is_some_and(|rv| !rv.is_empty()) {
            return Err(Status::bad_request("resourceVersion should not be set on objects to be created"));
        }
        self.noted(request, decoded).await
    }

    /// A new object with its managed fields, in the form that is stored.
    async fn noted(&self, request: &Request, mut new: Value) -> Result<Value, Status> {
        let now = names::rfc3339(jiff::Timestamp::now());
        let (schema, versions) = (self.own_schema(request)?, self.versions(request));
        let writer = managers::writer(request, &now, &versions);
        let list = versions.settle(|| schema.track(None, &new, &writer)).await?;
        managed::put(&mut new, list);
        self.to_stored(&request.resource, &mut new)?;
        Ok(new)
    }

    /// Creates what an update is about and is not there. None if it is there by now.
    pub(super) async fn create_updated(self: &Arc<Self>, request: &Request, value: &Value) -> Result<Option<Answer>, Status> {
        self.authorize(&request.user, &Attributes { verb: Verb::Create.as_str(), ..handle::attributes(request) })?;
        if let Some(uid) = value["metadata"]["uid"].as_str().filter(|uid| !uid.is_empty()) {
            return Err(conflict(request, &format!("Precondition failed: UID in precondition: {uid}, UID in object meta: ")));
        }
        let mut new = value.clone();
        // It is that of an object that is gone.
        metadata::of(&mut new).remove("resourceVersion");
        let new = self.noted(request, new).await?;
        match self.try_create(request, new).await? {
            Tried::Done(answer) => Ok(Some(answer)),
            Tried::Exists(_) | Tried::Lost => Ok(None),
        }
    }

    /// Admits, validates and stores an object that is decoded, with its managed fields.
    pub(super) async fn try_create(self: &Arc<Self>, request: &Request, mut new: Value) -> Result<Tried, Status> {
        let row = &request.resource;
        let hooks = self.hooks_of(row);
        let snapshot = self.store.snapshot();
        let cx = self.cx(request, &snapshot);

        metadata::prepare_create(row, &mut new, uuid::Uuid::new_v4().to_string(), &cx.timestamp());
        if self.admission.mutate(&cx, None, Some(&mut new)).await? {
            // What only the server may say, no webhook says either.
            let uid = uuid::Uuid::new_v4().to_string();
            metadata::agree_with_path(&mut new, &request.namespace, &request.name)?;
            metadata::prepare_create(row, &mut new, uid, &cx.timestamp());
        }
        if row.has_status()
            && !hooks.status_on_create()
            && let Some(object) = new.as_object_mut()
        {
            object.remove("status");
            // A struct to upstream, and so always there: clients read its fields without looking.
            if row.custom.is_none() {
                object.insert("status".into(), json!({}));
            }
        }
        hooks.prepare_create(&cx, &mut new)?;
        if let Some(schema) = self.stored_schema(row) {
            schema.default(&mut new);
        }

        let mut causes = Vec::new();
        metadata::validate(row, None, &new, &mut causes);
        hooks.validate(&cx, None, &new, &mut causes);
        let name = new["metadata"]["name"].as_str().unwrap_or_default().to_string();
        if !causes.is_empty() {
            return Err(Status::invalid(&row.group, &row.kind, &name, causes));
        }
        request.warnings.extend(hooks.warnings(&cx, None, &new));
        if &*row.group == "rbac.authorization.k8s.io" {
            self.auth.check_escalation(&request.user, &row.plural, None, &new)?;
        }
        self.admission.validate(&cx, None, Some(&new)).await?;

        if row.custom.as_ref().is_some_and(|custom| custom.terminating) {
            let why = "create not allowed while custom resource definition is terminating";
            return Err(Status::forbidden(&row.group, &row.plural, &name, why));
        }

        let key = Key::new(row.id(), request.namespace.as_str(), name.as_str());
        let draft = self.draft(row, &new).await?;
        let mut ops = vec![Op::Put { key: key.clone(), expect: Expect::Absent, draft }];
        ops.extend(custom::guard(row));
        if row.namespaced() {
            // Nothing slips into a namespace between the look at it and the write.
            let namespace = Key::new("namespaces", "", request.namespace.as_str());
            let expect = snapshot.get(&namespace).map_or(Expect::Absent, |found| Expect::Revision(found.revision));
            ops.push(Op::Check { key: namespace, expect });
        }
        hooks.also(&cx, None, Some(&new), &mut ops)?;
        self.admission.charge(&cx, None, &new, &mut ops)?;

        if request.write.dry_run {
            if snapshot.get(&key).is_some() {
                return Ok(Tried::Exists(name));
            }
            return Ok(Tried::Done(Answer::Value { code: 201, value: self.shown(row, new)? }));
        }
        match self.store.commit(Txn { ops }).await {
            Ok(committed) => match committed.objects.into_iter().next().flatten() {
                Some(object) => {
                    let object = self.view(row, object).await?;
                    Ok(Tried::Done(Answer::Object { object, created: true }))
                }
                None => Err(Status::internal("the store did not return what it wrote")),
            },
            Err(Error::Precondition { op: 0, .. }) => Ok(Tried::Exists(name)),
            Err(Error::Precondition { .. }) => Ok(Tried::Lost),
            Err(error) => Err(handle::store_error(error)),
        }
    }
}

pub(super) enum Tried {
    Done(Answer),
    Exists(String),
    Lost,
}

fn already(request: &Request, name: &str) -> Status {
    Status::already_exists(&request.resource.group, &request.resource.plural, name)
}
