//! The resource registry: one row for every kind the server knows.
//!
//! A row says how a kind is named and addressed; how it behaves is the generic handler's business, and what is special about it
//! lives in `control/resources`. Rows own their strings, so that custom resources can be added while the server runs.

pub mod builtin;
mod index;

pub use builtin::builtin;
pub use index::Registry;

use std::sync::Arc;

/// Whether objects of a resource live in a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// One object per name in the cluster.
    Cluster,
    /// One object per name in each namespace.
    Namespaced,
}

/// One column of a `Table` answer (`kubectl get`), as in `metav1.TableColumnDefinition`.
#[derive(Clone, Debug)]
pub struct Column {
    /// Heading, such as `Ready`.
    pub name: Box<str>,
    /// OpenAPI type: `string`, `integer`, `date`.
    pub kind: Box<str>,
    /// OpenAPI format: `name` for the name column, else empty.
    pub format: Box<str>,
    /// 0 shows always, 1 only with `-o wide`.
    pub priority: i32,
    /// One sentence for the reader of the table definition.
    pub description: Box<str>,
}

/// A subresource that a resource serves, such as `status` or `scale`.
#[derive(Clone, Debug)]
pub struct Subresource {
    /// The last path segment, such as `status`.
    pub name: Box<str>,
    /// The kind of the body, as `group/version, Kind` parts: `("autoscaling", "v1", "Scale")`.
    pub gvk: (Box<str>, Box<str>, Box<str>),
    /// Verbs in discovery's words: `get`, `patch`, `update`, `create`.
    pub verbs: Vec<Box<str>>,
}

/// Where the parts of `autoscaling/v1 Scale` lie in an object, as dotted JSON paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScalePaths {
    /// Wanted count: `spec.replicas`.
    pub spec: Box<str>,
    /// Observed count: `status.replicas`.
    pub status: Box<str>,
    /// A label selector object, or for custom resources a string: `spec.selector`.
    pub selector: Option<Box<str>>,
}

/// One row of the registry.
#[derive(Clone, Debug)]
pub struct Resource {
    /// API group; empty for core.
    pub group: Box<str>,
    /// API version, such as `v1`.
    pub version: Box<str>,
    /// Kind, such as `Deployment`.
    pub kind: Box<str>,
    /// Plural, lower case: `deployments`.
    pub plural: Box<str>,
    /// Singular, lower case: `deployment`.
    pub singular: Box<str>,
    /// Short names: `deploy`.
    pub short_names: Vec<Box<str>>,
    /// Categories: `all`.
    pub categories: Vec<Box<str>>,
    /// Cluster or namespaced.
    pub scope: Scope,
    /// Verbs of the main resource in discovery's words.
    pub verbs: Vec<Box<str>>,
    /// Subresources, in discovery's order.
    pub subresources: Vec<Subresource>,
    /// Fields that a field selector may name besides `metadata.name` and `metadata.namespace`, as dotted JSON paths.
    pub selectable: Vec<Box<str>>,
    /// Columns of its table, after which the cells are computed by `control/resources`.
    pub columns: Vec<Column>,
    /// `metadata.generation` starts at 1 and counts changes outside metadata and status.
    pub generation: bool,
    /// For rows with a `scale` subresource.
    pub scale: Option<ScalePaths>,
}

impl Resource {
    /// The name under which the store, RBAC and controllers know the resource: `pods`, `deployments.apps`.
    pub fn id(&self) -> String {
        if self.group.is_empty() { self.plural.to_string() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// Whether objects of it are kept; reviews are only answered.
    pub fn stored(&self) -> bool {
        self.serves("get")
    }

    /// Whether the main resource serves a verb.
    pub fn serves(&self, verb: &str) -> bool {
        self.verbs.iter().any(|v| &**v == verb)
    }

    /// A subresource by name.
    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|s| &*s.name == name)
    }

    /// Whether the status is written through its own subresource only.
    pub fn has_status(&self) -> bool {
        self.subresource("status").is_some()
    }

    /// Whether objects live in a namespace.
    pub fn namespaced(&self) -> bool {
        self.scope == Scope::Namespaced
    }

    /// `v1` or `apps/v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_string() } else { format!("{}/{}", self.group, self.version) }
    }
}

/// A shared row.
pub type ResourceRef = Arc<Resource>;
