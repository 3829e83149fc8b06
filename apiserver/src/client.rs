//! The in-process client of controllers, scheduler and node sessions: same pipeline, no HTTP.
//!
//! Resources are named by id: `pods`, `deployments.apps`.

pub mod events;

use crate::{
    auth::User,
    http,
    pipeline::{Answer, Body, Core, PatchKind, Request, Verb, WriteOptions, handle, managers, object},
};
use bytes::Bytes;
use coracle_api::status::Status;
use coracle_store::{Key, Object, Store};
use events::Recorder;
use futures::future::BoxFuture;
use serde_json::{Value, json};
use std::sync::Arc;

/// Cheap clone; acts as one user.
#[derive(Clone)]
pub struct Client {
    core: Arc<Core>,
    user: Arc<User>,
    recorder: Recorder,
}

/// Options of a delete.
#[derive(Clone, Debug, Default)]
pub struct DeleteOptions {
    /// Only this one.
    pub uid: Option<String>,
    /// Only at this revision.
    pub resource_version: Option<String>,
    /// `Background`, `Foreground`, `Orphan`.
    pub propagation: Option<&'static str>,
    /// Seconds.
    pub grace_seconds: Option<i64>,
}

impl DeleteOptions {
    fn body(&self) -> Value {
        let mut body = json!({"kind": "DeleteOptions", "apiVersion": "v1"});
        if self.uid.is_some() || self.resource_version.is_some() {
            body["preconditions"] = json!({"uid": self.uid, "resourceVersion": self.resource_version});
        }
        if let Some(propagation) = self.propagation {
            body["propagationPolicy"] = propagation.into();
        }
        if let Some(grace) = self.grace_seconds {
            body["gracePeriodSeconds"] = grace.into();
        }
        body
    }
}

fn said<'a>(object: &'a Value, field: &str) -> &'a str {
    object["metadata"][field].as_str().unwrap_or_default()
}

impl Client {
    /// Acts as `user`; events go to `recorder`.
    pub fn new(core: Arc<Core>, user: Arc<User>, recorder: Recorder) -> Self {
        Self { core, user, recorder }
    }

    /// The same client acting as somebody else (`system:serviceaccount:kube-system:deployment-controller`, groups as Kubernetes gives it).
    pub fn as_user(&self, user: Arc<User>) -> Client {
        Client { user, ..self.clone() }
    }

    /// For reads and watches: `store().snapshot()`, `store().list_watch(…)`.
    pub fn store(&self) -> &Store {
        &self.core.store
    }

    /// The shared parts of the server.
    pub fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// The newest stored object of that name, without authorization: reads in process are by watch and snapshot anyway.
    pub fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Arc<Object>> {
        self.core.store.snapshot().get(&Key::new(resource, namespace, name))
    }

    async fn request(&self, verb: Verb, resource: &str, subresource: &str, namespace: &str, name: &str, body: Body) -> Result<Answer, Status> {
        let row = self.core.registry.by_id(resource).ok_or_else(handle::no_such_path)?;
        let request = Request {
            user: self.user.clone(),
            verb,
            resource: row,
            subresource: subresource.into(),
            namespace: namespace.into(),
            name: name.into(),
            query: Vec::new(),
            write: WriteOptions { field_manager: managers::of_user(&self.user).into(), ..WriteOptions::default() },
            body,
            http: None,
            warnings: Default::default(),
        };
        self.core.handle(request).await
    }

    /// The stored object of an answer; answers made for the request (scale) are looked up.
    fn stored(&self, answer: Answer, resource: &str, namespace: &str, name: &str) -> Result<Arc<Object>, Status> {
        match answer {
            Answer::Object { object, .. } => Ok(object),
            _ => self.get(resource, namespace, name).ok_or_else(|| Status::not_found("", resource, name)),
        }
    }

    /// POST of an object.
    pub async fn create(&self, resource: &str, namespace: &str, object: Value) -> Result<Arc<Object>, Status> {
        match self.request(Verb::Create, resource, "", namespace, "", Body::Object(object)).await? {
            Answer::Object { object, .. } => Ok(object),
            _ => Err(Status::internal(format_args!("creating {resource} stored nothing"))),
        }
    }

    /// `object.metadata.resourceVersion`, if set, is the precondition.
    pub async fn update(&self, resource: &str, object: Value) -> Result<Arc<Object>, Status> {
        self.update_subresource(resource, "", object).await
    }

    /// PUT of the status.
    pub async fn update_status(&self, resource: &str, object: Value) -> Result<Arc<Object>, Status> {
        self.update_subresource(resource, "status", object).await
    }

    /// PUT of another subresource: `namespaces/finalize`. The object names itself in its metadata.
    pub async fn update_subresource(&self, resource: &str, subresource: &str, object: Value) -> Result<Arc<Object>, Status> {
        let (namespace, name) = (said(&object, "namespace").to_string(), said(&object, "name").to_string());
        let answer = self.request(Verb::Update, resource, subresource, &namespace, &name, Body::Object(object)).await?;
        self.stored(answer, resource, &namespace, &name)
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
        let body = Body::Patch { kind, bytes: patch.to_string().into() };
        let answer = self.request(Verb::Patch, resource, subresource, namespace, name, body).await?;
        self.stored(answer, resource, namespace, name)
    }

    /// DELETE.
    pub async fn delete(&self, resource: &str, namespace: &str, name: &str, options: DeleteOptions) -> Result<(), Status> {
        self.request(Verb::Delete, resource, "", namespace, name, Body::Object(options.body())).await.map(drop)
    }

    /// POST to a subresource: `pods/binding`, `serviceaccounts/token`; the answer's body.
    pub async fn create_subresource(&self, resource: &str, namespace: &str, name: &str, subresource: &str, body: Value) -> Result<Value, Status> {
        match self.request(Verb::Create, resource, subresource, namespace, name, Body::Object(body)).await? {
            Answer::Value { value, .. } => Ok(value),
            Answer::Object { object, .. } => object::parse(&object),
            _ => Err(Status::internal(format_args!("{resource}/{subresource} answered with a stream"))),
        }
    }

    /// GET of a path, as over HTTPS: of what other servers serve. The code and the body, at most 4 MiB. Boxed, as [`Core::handle`] is.
    pub fn get_path<'a>(&'a self, path: &'a str) -> BoxFuture<'a, (u16, Bytes)> {
        Box::pin(http::serve_call(&self.core, self.user.clone(), "GET", path, "", Bytes::new()))
    }

    /// Records a core/v1 Event about an object (series-aggregated: same reason+object+message counts up). Never fails the caller; bounded queue.
    pub fn event(&self, about: &Object, kind: &'static str, reason: &str, message: &str) {
        let Some(row) = self.core.registry.by_id(&about.key.resource) else { return };
        self.recorder.record(events::Occurrence::new(&row, about, &self.user, kind, reason, message));
    }
}
