//! The one pipeline that every request takes, from HTTPS, from a node's link and from controllers alike.
//!
//! Authenticate and the in-flight limit are the caller's first steps (a node or a controller is already known); from authorization on nobody can skip a step.
mod apply;
mod change;
mod create;
pub mod decode;
mod delete;
pub mod handle;
pub mod list;
pub mod managers;
pub mod metadata;
pub mod object;
pub mod patch;
mod read;
pub mod scale;
mod told;
mod update;
mod warnings;
pub mod watch;

pub use warnings::Warnings;

use crate::{
    admission, aggregation,
    auth::{Auth, User},
    custom,
    http::upgrade::Upgrade,
    metrics, resources, webhook,
};
use async_trait::async_trait;
use bytes::Bytes;
use coracle_api::{
    registry::{Registry, ResourceRef},
    status::Status,
};
use coracle_schema::{FieldValidation, Schemas};
use coracle_store::{Draft, Object, Store};
use serde_json::Value;
use std::sync::{Arc, OnceLock};

/// What is done to a resource, in RBAC's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are RBAC's")]
pub enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
    Delete,
    DeleteCollection,
    Proxy,
}
impl Verb {
    /// `get`, `deletecollection`, …
    pub fn as_str(self) -> &'static str {
        match self {
            Verb::Get => "get",
            Verb::List => "list",
            Verb::Watch => "watch",
            Verb::Create => "create",
            Verb::Update => "update",
            Verb::Patch => "patch",
            Verb::Delete => "delete",
            Verb::DeleteCollection => "deletecollection",
            Verb::Proxy => "proxy",
        }
    }
}

/// The patch content types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchKind {
    /// RFC 6902.
    Json,
    /// RFC 7386.
    Merge,
    /// Kubernetes' strategic merge.
    Strategic,
    /// Server-side apply.
    Apply,
}

/// The body of a request.
#[derive(Clone, Debug)]
pub enum Body {
    /// None was sent.
    None,
    /// Raw bytes as they came, JSON or YAML by content type.
    Raw {
        /// Media type as sent.
        content_type: String,
        /// At most 3 MiB.
        bytes: Bytes,
    },
    /// From in-process callers.
    Object(Value),
    /// A patch.
    Patch {
        /// By its media type.
        kind: PatchKind,
        /// JSON (or, for apply, YAML).
        bytes: Bytes,
    },
}

/// Query options of a write; list and watch options are [`list::ListOptions`].
#[derive(Clone, Debug)]
pub struct WriteOptions {
    /// `dryRun=All`.
    pub dry_run: bool,
    /// `fieldValidation`.
    pub field_validation: FieldValidation,
    /// `fieldManager`, or what stands for it: who manages the fields that are written.
    pub field_manager: String,
    /// `force` of apply: take fields from other managers.
    pub force: bool,
}

impl Default for WriteOptions {
    fn default() -> Self {
        Self { dry_run: false, field_validation: FieldValidation::Ignore, field_manager: String::new(), force: false }
    }
}

/// One request about resources. Non-resource paths (/version, /openapi) are answered in `http` after authorization.
#[derive(Clone, Debug)]
pub struct Request {
    /// Who asks, after impersonation.
    pub user: Arc<User>,
    /// What is done.
    pub verb: Verb,
    /// To what.
    pub resource: ResourceRef,
    /// Empty for the main resource.
    pub subresource: Box<str>,
    /// Empty for cluster-scoped and for all namespaces.
    pub namespace: String,
    /// Empty for create, list, watch, deletecollection.
    pub name: String,
    /// Decoded query parameters, in order.
    pub query: Vec<(String, String)>,
    /// Options of a write.
    pub write: WriteOptions,
    /// The body.
    pub body: Body,
    /// What the HTTP request was, for proxies; None from in-process callers.
    pub http: Option<Arc<HttpParts>>,
    /// What is said to the client besides.
    pub warnings: Warnings,
}

impl Request {
    /// Whether it opens a connection to a pod, node or Service: CONNECT, in admission's words.
    pub fn connects(&self) -> bool {
        matches!(&*self.subresource, "attach" | "exec" | "portforward" | "proxy")
    }

    /// First value of a query parameter.
    pub fn param(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// A boolean parameter as upstream's conversion reads it: whatever is given is true, but for `false` and `0`.
pub fn flag(value: &str) -> bool {
    value != "0" && !value.eq_ignore_ascii_case("false")
}

/// The parts of an HTTP request that a proxy or stream subresource needs.
#[derive(Clone, Debug)]
pub struct HttpParts {
    /// Method.
    pub method: http::Method,
    /// Headers as they came.
    pub headers: http::HeaderMap,
    /// What follows the subresource in the path (`pods/a/proxy/REST`), without its first slash.
    pub rest: String,
    /// Query as it came.
    pub raw_query: String,
    /// The client's wish to use the connection otherwise.
    pub upgrade: Option<Upgrade>,
}

/// What came of a request.
pub enum Answer {
    /// Stored bytes as they are; `created` gives 201.
    Object {
        /// The object.
        object: Arc<Object>,
        /// 201 instead of 200.
        created: bool,
    },
    /// Made for this request (dry-run, reviews, Scale, Status of deletes).
    Value {
        /// HTTP status.
        code: u16,
        /// Body.
        value: Value,
    },
    /// A list.
    List(Box<list::Page>),
    /// A watch.
    Watch(Box<watch::Stream>),
    /// A body that is not an object: logs, a proxied answer.
    Response(Box<http::Response<axum::body::Body>>),
}

/// Opens streams to node agents; given by `nodes` (see [`Core::nodes`]).
#[async_trait]
pub trait NodeLink: Send + Sync + 'static {
    /// Sends `open` as the first frame of a new stream to this node. A node that is not connected is 503 with a sentence that names it.
    async fn open(&self, node: &str, open: coracle_link::protocol::Open) -> Result<Box<dyn coracle_link::Stream>, Status>;
}

/// Cluster-wide settings that kinds and controllers read.
#[derive(Clone, Debug)]
pub struct Config {
    /// Range of Service cluster IPs, such as `10.96.0.0/16`.
    pub service_cidr: String,
    /// Range of pod addresses, such as `10.244.0.0/16`.
    pub pod_cidr: String,
    /// First and last node port.
    pub node_ports: (u16, u16),
    /// `cluster.local`
    pub domain: String,
    /// Issuer of service-account tokens: `https://kubernetes.default.svc.cluster.local`.
    pub issuer: String,
    /// The cluster's CA, PEM (goes into `kube-root-ca.crt`).
    pub ca_pem: String,
    /// Where the API server can be reached by clients: address and port.
    pub api_addr: std::net::SocketAddr,
}

/// The shared parts of one server. Everything that serves requests holds an `Arc` of it.
pub struct Core {
    /// Bytes and revisions.
    pub store: Store,
    /// Shapes.
    pub schemas: Schemas,
    /// Rows.
    pub registry: Registry,
    /// Kinds that CustomResourceDefinitions made.
    pub customs: custom::Kinds,
    /// Connections to webhooks that wait for the next call.
    pub webhooks: webhook::Pool,
    /// What pods and nodes use.
    pub metrics: metrics::Metrics,
    /// Group versions that other servers serve.
    pub aggregation: aggregation::Aggregation,
    /// What is special about built-in kinds.
    pub hooks: resources::Table,
    /// Rules across objects.
    pub admission: admission::Admission,
    /// Who and whether.
    pub auth: Auth,
    /// Settings.
    pub config: Config,
    /// What is told of requests, if anything is.
    pub audit: Option<crate::audit::Log>,
    /// How much is worked on at once.
    pub inflight: crate::http::inflight::Limits,
    /// What is told to monitoring.
    pub telemetry: crate::telemetry::Telemetry,
    /// What goes on in this server. Its token is cancelled when the server stops: streams end, so that clients reconnect elsewhere.
    pub tasks: crate::Tasks,
    /// Set once by the node sessions when they start.
    pub nodes: OnceLock<Arc<dyn NodeLink>>,
}

/// The value of a key that only reserves something (an IP, a port): names who holds it.
pub fn reservation(owner: &str) -> Draft {
    let (json, hole) = coracle_schema::to_draft(&serde_json::json!({"metadata": {"resourceVersion": ""}, "owner": owner}));
    Draft { json, hole, meta: Default::default() }
}
