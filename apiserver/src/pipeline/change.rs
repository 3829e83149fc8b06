//! What a request makes of the current object: the object as it is wanted, and who manages which of its fields then.

use super::{
    Body, Core, PatchKind, Request, apply, decode, managers, metadata,
    patch::Patch,
    scale,
    update::{MODIFIED, conflict},
};
use coracle_api::status::Status;
use coracle_schema::{Schema, managed};
use coracle_store::Object;
use serde_json::Value;
use std::sync::Arc;

/// What came with an update or patch, read once; it is carried out anew after every lost race.
pub(super) enum Wanted {
    /// The whole object, or a scale.
    Object(Value),
    /// A patch of what is there.
    Patch(Patch),
    /// Server-side apply.
    Config(apply::Config),
}

impl Core {
    /// What an update or patch brings.
    pub(super) fn wanted(&self, request: &Request) -> Result<Wanted, Status> {
        Ok(match &request.body {
            Body::Patch { kind: PatchKind::Apply, bytes } => Wanted::Config(apply::Config::read(bytes)?),
            Body::Patch { kind, bytes } => Wanted::Patch(Patch::read(*kind, bytes)?),
            _ => {
                let mut value = decode::body(self, request)?;
                metadata::agree_with_path(&mut value, &request.namespace, &request.name)?;
                Wanted::Object(value)
            }
        })
    }

    /// The object that a request wants in place of the current one: decoded, defaulted, its managed fields up to date. What the request cannot change is
    /// put back, so that only what is really changed is managed. `stored` is in the form that is stored, and so is the outcome; in between it is the request's.
    pub(super) async fn change(&self, request: &Request, stored: &Object, current: &Value, wanted: &Wanted, now: &str) -> Result<Value, Status> {
        let row = &request.resource;
        let shown = if row.stored_as.is_some() { Some(self.shown(row, current.clone())?) } else { None };
        let old = shown.as_ref().unwrap_or(current);
        let scaled = &*request.subresource == "scale";
        let (schema, scale) = match scaled {
            true => (self.schemas.get("autoscaling", "v1", "Scale").ok_or_else(|| Status::internal("no schema for Scale"))?, scale::view(row, old)),
            false => (self.own_schema(request)?, Value::Null),
        };
        let base = if scaled { &scale } else { old };
        let versions = self.versions(request);
        let writer = managers::writer(request, now, &versions);

        let mut new = match wanted {
            Wanted::Object(value) => value.clone(),
            Wanted::Patch(patch) => patch.apply(base, &schema)?,
            Wanted::Config(config) => {
                let applied = versions.settle(|| schema.apply(Some(base), &config.value, &writer, request.write.force)).await??;
                request.warnings.extend(config.judge(request.write.field_validation)?);
                applied
            }
        };
        let patch = if let Wanted::Patch(patch) = wanted { Some(patch) } else { None };
        if !matches!(wanted, Wanted::Object(_)) {
            decode::patched(self, request, &mut new, patch)?;
            metadata::agree_with_path(&mut new, &request.namespace, &request.name)?;
        }
        // An apply has noted already what is whose.
        let noted = matches!(wanted, Wanted::Config(_)).then(|| managed::take(&mut new));
        if !scaled {
            check_preconditions(request, stored, &new)?;
            keep_what_is_not_theirs(request, old, &mut new);
        }
        let list = match noted {
            Some(list) => list,
            None => versions.settle(|| schema.track(Some(base), &new, &writer)).await?,
        };
        managed::put(&mut new, list);
        if scaled {
            new = scale::merge(row, old, &new)?;
            check_preconditions(request, stored, &new)?;
        } else if shown.is_some() {
            self.to_stored(row, &mut new)?;
            // What one form carries in another place is put back there.
            keep_what_is_not_theirs(request, current, &mut new);
        }
        Ok(new)
    }

    /// The schema of the kind that a request's resource stores.
    pub(super) fn own_schema(&self, request: &Request) -> Result<Arc<Schema>, Status> {
        let row = &request.resource;
        self.schema_of(row).ok_or_else(|| Status::internal(format_args!("no schema for {} in {}", row.kind, row.api_version())))
    }
}

/// resourceVersion and uid of what is wanted, where given, must be those of the stored object.
fn check_preconditions(request: &Request, stored: &Object, new: &Value) -> Result<(), Status> {
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

/// A write of the object cannot touch its status, a write of the status nothing but the status, labels and annotations.
pub(super) fn keep_what_is_not_theirs(request: &Request, old: &Value, new: &mut Value) {
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
            let mut sent = std::mem::take(new);
            *new = old.clone();
            put(new, "status", &sent["status"]);
            let metadata = metadata::of(new);
            for field in ["labels", "annotations"] {
                match sent["metadata"].get_mut(field) {
                    Some(value) if !value.is_null() => metadata.insert(field.into(), value.take()),
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
    use crate::pipeline::Verb;
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
            warnings: Default::default(),
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
