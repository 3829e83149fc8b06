//! Writes that subresources of a pod make to the pod itself: compare-and-set until it holds.

use crate::pipeline::{Core, Request, handle, object};
use coracle_api::status::Status;
use coracle_store::{Error, Expect, Key, Object, Op, Txn};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::{sync::Arc, time::Instant};

/// Changes the pod of this request; `change` runs again after a lost race and may refuse. A change of nothing is no write.
pub async fn change(
    core: &Arc<Core>,
    request: &Request,
    change: impl Fn(&Object, &mut Value, &str) -> Result<(), Status>,
) -> Result<Arc<Object>, Status> {
    let missing = || Status::not_found("", "pods", &request.name);
    let key = Key::new("pods", request.namespace.as_str(), request.name.as_str());
    let until = Instant::now() + handle::DEADLINE;
    core.store.barrier().await.map_err(handle::store_error)?;
    loop {
        let now = Timestamp::now();
        let stored = core.store.snapshot().get(&key).ok_or_else(missing)?;
        let mut pod = object::parse(&stored)?;
        change(&stored, &mut pod, &coracle_api::names::rfc3339(now))?;
        let draft = object::draft(&request.resource, &pod);
        if request.write.dry_run || object::unchanged(&stored, &draft) {
            return Ok(stored);
        }
        let ops = vec![Op::Put { key: key.clone(), expect: Expect::Revision(stored.revision), draft }];
        match core.store.commit(Txn { ops }).await {
            Ok(committed) => return committed.objects.into_iter().next().flatten().ok_or_else(missing),
            Err(Error::Precondition { .. }) if Instant::now() < until => {}
            Err(Error::Precondition { .. }) => return Err(Status::conflict("", "pods", &request.name, "the pod is changing too fast; try again")),
            Err(error) => return Err(handle::store_error(error)),
        }
    }
}

/// The body of a subresource must name the pod of the path, or nothing; a uid or revision in it must be the pod's.
pub fn precondition(stored: &Object, body: &Value) -> Result<(), Status> {
    let (name, metadata) = (&*stored.key.name, &body["metadata"]);
    let said = |field: &str| metadata[field].as_str().filter(|text| !text.is_empty());
    if let Some(uid) = said("uid").filter(|uid| **uid != *stored.meta.uid) {
        let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {}", stored.meta.uid);
        return Err(Status::conflict("", "pods", name, &why));
    }
    if let Some(revision) = said("resourceVersion").filter(|revision| **revision != stored.revision.to_string()) {
        let why = format!("Precondition failed: ResourceVersion in precondition: {revision}, ResourceVersion in object meta: {}", stored.revision);
        return Err(Status::conflict("", "pods", name, &why));
    }
    Ok(())
}

/// `{"kind":"Status","status":"Success"}`
pub fn success() -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201})
}
