//! The in-process client of controllers, scheduler and node sessions: same pipeline, no HTTP.
//!
//! SKELETON: contract (owner: http room). Resources are named by id: `pods`, `deployments.apps`.
use crate::{auth::User, pipeline::PatchKind};
use coracle_api::status::Status;
use coracle_store::{Object, Store};
use serde_json::Value;
use std::sync::Arc;

#[derive(Clone)]
pub struct Client {}

#[derive(Clone, Debug, Default)]
pub struct DeleteOptions {
    pub uid: Option<String>,
    pub resource_version: Option<String>,
    pub propagation: Option<&'static str>,
    pub grace_seconds: Option<i64>,
}

impl Client {
    /// The same client acting as somebody else (`system:serviceaccount:kube-system:deployment-controller`, groups as Kubernetes gives it).
    pub fn as_user(&self, user: Arc<User>) -> Client {
        unimplemented!()
    }
    /// For reads and watches: `store().snapshot()`, `store().list_watch(…)`.
    pub fn store(&self) -> &Store {
        unimplemented!()
    }
    pub fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Arc<Object>> {
        unimplemented!()
    }
    pub async fn create(&self, resource: &str, namespace: &str, object: Value) -> Result<Arc<Object>, Status> {
        unimplemented!()
    }
    /// `object.metadata.resourceVersion`, if set, is the precondition.
    pub async fn update(&self, resource: &str, object: Value) -> Result<Arc<Object>, Status> {
        unimplemented!()
    }
    pub async fn update_status(&self, resource: &str, object: Value) -> Result<Arc<Object>, Status> {
        unimplemented!()
    }
    /// PUT of another subresource: `namespaces/finalize`. The object names itself in its metadata.
    pub async fn update_subresource(&self, resource: &str, subresource: &str, object: Value) -> Result<Arc<Object>, Status> {
        unimplemented!()
    }
    /// `subresource` empty for the object itself.
    pub async fn patch(
        &self,
        resource: &str,
        namespace: &str,
        name: &str,
        subresource: &str,
        kind: PatchKind,
        patch: Value,
    ) -> Result<Arc<Object>, Status> {
        unimplemented!()
    }
    pub async fn delete(&self, resource: &str, namespace: &str, name: &str, options: DeleteOptions) -> Result<(), Status> {
        unimplemented!()
    }
    /// POST to a subresource: `pods/binding`, `serviceaccounts/token`; the answer's body.
    pub async fn create_subresource(&self, resource: &str, namespace: &str, name: &str, subresource: &str, body: Value) -> Result<Value, Status> {
        unimplemented!()
    }
    /// Records a core/v1 Event about an object (series-aggregated: same reason+object+message counts up). Never fails the caller; bounded queue.
    pub fn event(&self, about: &Object, kind: &'static str, reason: &str, message: &str) {}
}
