//! Update and patch, of an object or of a subresource that is stored in it (`status`, `scale`, `finalize`).
//!
//! Each attempt starts from the current object: a patch is applied again, an update compared again, until the compare-and-set holds.

use super::{Answer, Body, Core, Request, Verb, decode, handle, metadata, object, patch, scale};
use crate::custom;
use coracle_api::status::Status;
use coracle_store::{Error, Expect, Object, Op, Snapshot, Txn};
use serde_json::Value;
use std::{borrow::Cow, sync::Arc, time::Instant};

const MODIFIED: &str = "the object has been modified; please apply your changes to the latest version and try again";

impl Core {
    pub(super) async fn update(self: &Arc<Self>, request: &Request) -> Result<Answer, Status> {
        let (mut sent, mut warnings) = self.replacement(request)?;
        let mut request = Cow::Borrowed(request);
        let until = Instant::now() + handle::DEADLINE;
        loop {
            match self.try_update(&request, sent.as_ref(), &mut warnings).await? {
                Some(answer) => return Ok(answer),
                None if Instant::now() < until => {
                    // The kind itself may have changed: then what was sent means something else.
                    if let Some(renewed) = self.renewed(&request)? {
                        (sent, warnings) = self.replacement(&renewed)?;
                        request = Cow::Owned(renewed);
                    }
                }
                None => return Err(conflict(&request, MODIFIED)),
            }
        }
    }

    /// What an update was sent, with warnings; None for a patch.
    fn replacement(&self, request: &Request) -> Result<(Option<Value>, Vec<String>), Status> {
        if request.verb != Verb::Update {
            return Ok((None, Vec::new()));
        }
        let (mut value, warnings) = decode::body(self, request)?;
        metadata::agree_with_path(&mut value, &request.namespace, &request.name)?;
        Ok((Some(value), warnings))
    }

    /// None after a lost race.
    async fn try_update(self: &Arc<Self>, request: &Request, sent: Option<&Value>, warnings: &mut Vec<String>) -> Result<Option<Answer>, Status> {
        let row = &request.resource;
        let snapshot = self.store.snapshot();
        let stored = match snapshot.get(&handle::key(request)) {
            Some(stored) => stored,
            // Absence is only believed after a linearizable look.
            None => {
                self.store.barrier().await.map_err(handle::store_error)?;
                self.store.snapshot().get(&handle::key(request)).ok_or_else(|| handle::missing(request))?
            }
        };
        let old = object::parse(&*self.view(row, stored.clone()).await?)?;
        let scaled = &*request.subresource == "scale";

        let mut new = match (sent, &request.body) {
            (Some(sent), _) if scaled => scale::merge(row, &old, sent)?,
            (Some(sent), _) => sent.clone(),
            (None, Body::Patch { kind, bytes }) => {
                let base = if scaled { scale::view(row, &old) } else { old.clone() };
                let schema = if scaled { self.schemas.get("autoscaling", "v1", "Scale") } else { self.schema_of(row) };
                let mut value = patch::apply(*kind, bytes, &base, schema.as_deref())?;
                for warning in decode::patched(self, request, &mut value)? {
                    if !warnings.contains(&warning) {
                        warnings.push(warning);
                    }
                }
                metadata::agree_with_path(&mut value, &request.namespace, &request.name)?;
                if scaled { scale::merge(row, &old, &value)? } else { value }
            }
            (None, _) => return Err(Status::bad_request("a patch is needed as the body of this request")),
        };

        self.check_preconditions(request, &stored, &new)?;
        keep_what_is_not_theirs(request, &old, &mut new);
        metadata::prepare_update(&old, &mut new);

        let hooks = self.hooks_of(row);
        let cx = self.cx(request, &snapshot);
        for plugin in &self.admission {
            plugin.mutate(&cx, Some(&old), &mut new)?;
        }
        hooks.prepare_update(&cx, &old, &mut new)?;
        metadata::bump_generation(row, &old, &mut new);

        let mut causes = Vec::new();
        metadata::validate(row, Some(&old), &new, &mut causes);
        hooks.validate(&cx, Some(&old), &new, &mut causes);
        if !causes.is_empty() {
            return Err(Status::invalid(&row.group, &row.kind, &request.name, causes));
        }
        if &*row.group == "rbac.authorization.k8s.io" {
            self.auth.check_escalation(&request.user, &row.plural, Some(&old), &new)?;
        }
        for plugin in &self.admission {
            plugin.validate(&cx, Some(&old), Some(&new))?;
        }
        for warning in cx.warnings.take().into_iter().chain(hooks.warnings(&cx, Some(&old), &new)) {
            if !warnings.contains(&warning) {
                warnings.push(warning);
            }
        }

        let gone = metadata::deleting(&new)
            && metadata::finalizers(&new).is_empty()
            && !hooks.held(&new)
            && new["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) == 0;
        let draft = object::draft(row, &self.stored_form(row, &new).await?);
        if !gone && object::unchanged(&stored, &draft) {
            return Ok(Some(self.answer(request, stored, std::mem::take(warnings)).await?));
        }
        if request.write.dry_run {
            let value = object::with_revision(new, stored.revision);
            let value = if scaled { scale::view(row, &value) } else { value };
            return Ok(Some(Answer::Value { code: 200, value, warnings: std::mem::take(warnings) }));
        }

        let key = stored.key.clone();
        let expect = Expect::Revision(stored.revision);
        let mut ops = vec![if gone { Op::Delete { key, expect } } else { Op::Put { key, expect, draft } }];
        ops.extend(custom::guard(row));
        hooks.also(&cx, Some(&old), (!gone).then_some(&new), &mut ops)?;
        match self.commit_first(request, ops).await? {
            Some(object) => Ok(Some(self.answer(request, object, std::mem::take(warnings)).await?)),
            None => Ok(None),
        }
    }

    /// Commits; the first operation's object, or None after a lost race.
    pub(super) async fn commit_first(&self, request: &Request, ops: Vec<Op>) -> Result<Option<Arc<Object>>, Status> {
        // A node's lease has time: it is valid four times as long as it takes to be renewed.
        let renewal = &*request.resource.plural == "leases" && request.user.node_name().is_some();
        let committed = if renewal { self.store.commit_patiently(Txn { ops }).await } else { self.store.commit(Txn { ops }).await };
        match committed {
            Ok(committed) => match committed.objects.into_iter().next().flatten() {
                Some(object) => Ok(Some(object)),
                None => Err(Status::internal("the store did not return what it wrote")),
            },
            Err(Error::Precondition { .. }) => Ok(None),
            Err(error) => Err(handle::store_error(error)),
        }
    }

    /// resourceVersion and uid of the body, where given, must be those of the stored object.
    fn check_preconditions(&self, request: &Request, stored: &Object, new: &Value) -> Result<(), Status> {
        let said = |field: &str| new["metadata"][field].as_str().filter(|text| !text.is_empty());
        if let Some(uid) = said("uid")
            && *uid != *stored.meta.uid
        {
            let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {}", stored.meta.uid);
            return Err(conflict(request, &why));
        }
        if let Some(revision) = said("resourceVersion")
            && revision != stored.revision.to_string()
        {
            return Err(conflict(request, MODIFIED));
        }
        Ok(())
    }

    /// The stored object as this subresource shows it.
    pub(super) async fn answer(&self, request: &Request, object: Arc<Object>, warnings: Vec<String>) -> Result<Answer, Status> {
        let object = self.view(&request.resource, object).await?;
        if &*request.subresource == "scale" {
            let value = scale::view(&request.resource, &object::parse(&object)?);
            return Ok(Answer::Value { code: 200, value, warnings });
        }
        Ok(Answer::Object { object, created: false, warnings })
    }

    /// A consistent look for a read.
    pub(crate) async fn fresh(&self) -> Result<Snapshot, Status> {
        self.store.barrier().await.map_err(handle::store_error)?;
        Ok(self.store.snapshot())
    }
}

pub(super) fn conflict(request: &Request, why: &str) -> Status {
    Status::conflict(&request.resource.group, &request.resource.plural, &request.name, why)
}

/// A write of the object cannot touch its status, a write of the status nothing but the status, labels and annotations.
fn keep_what_is_not_theirs(request: &Request, old: &Value, new: &mut Value) {
    fn put(object: &mut Value, field: &str, value: &Value) {
        if let Some(map) = object.as_object_mut() {
            match value {
                Value::Null => map.remove(field),
                value => map.insert(field.into(), value.clone()),
            };
        }
    }
    match &*request.subresource {
        "" if request.resource.has_status() => put(new, "status", &old["status"]),
        "status" => {
            let sent = std::mem::replace(new, old.clone());
            put(new, "status", &sent["status"]);
            let metadata = metadata::of(new);
            for field in ["labels", "annotations"] {
                match sent["metadata"].get(field) {
                    Some(value) if !value.is_null() => metadata.insert(field.into(), value.clone()),
                    _ => metadata.remove(field),
                };
            }
        }
        "finalize" => {
            let sent = std::mem::replace(new, old.clone());
            super::object::set(new, "spec.finalizers", sent["spec"]["finalizers"].clone());
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn request(plural: &str, subresource: &str) -> Request {
        let row = coracle_api::registry::builtin().into_iter().find(|row| &*row.plural == plural).expect("row");
        Request {
            user: Default::default(),
            verb: Verb::Update,
            resource: Arc::new(row),
            subresource: subresource.into(),
            namespace: "default".into(),
            name: "a".into(),
            query: Vec::new(),
            write: Default::default(),
            body: Body::None,
            http: None,
        }
    }

    #[test]
    fn object_and_status_are_written_apart() {
        let old = json!({"metadata": {"name": "a", "finalizers": ["x/y"]}, "spec": {"n": 1}, "status": {"s": 1}});
        let sent = json!({"metadata": {"name": "a", "labels": {"l": "v"}}, "spec": {"n": 2}, "status": {"s": 2}});
        let mut new = sent.clone();
        keep_what_is_not_theirs(&request("pods", ""), &old, &mut new);
        assert_eq!(new["spec"]["n"], 2);
        assert_eq!(new["status"]["s"], 1);
        let mut new = sent.clone();
        keep_what_is_not_theirs(&request("pods", "status"), &old, &mut new);
        assert_eq!(new, json!({"metadata": {"name": "a", "finalizers": ["x/y"], "labels": {"l": "v"}}, "spec": {"n": 1}, "status": {"s": 2}}));
        let mut new = sent;
        keep_what_is_not_theirs(&request("configmaps", ""), &old, &mut new);
        assert_eq!(new["status"]["s"], 2, "a kind without a status subresource keeps what is sent");
    }
}
