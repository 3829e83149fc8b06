//! The resource registry: one row for every kind the server knows.
//!
//! A row says how a kind is named and addressed; how it behaves is the generic handler's business, and what is special about it
//! lives in `apiserver/resources`. Rows own their strings, so that custom resources can be added while the server runs.

pub mod builtin;
mod index;
mod version;

pub use builtin::builtin;
pub use index::Registry;
pub use version::newest_first;

use std::{any::Any, fmt, sync::Arc};

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
    /// Kind of its lists, such as `DeploymentList`.
    pub list_kind: Box<str>,
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
    /// Columns of its table, after which the cells are computed by `apiserver/resources`.
    pub columns: Vec<Column>,
    /// `metadata.generation` starts at 1 and counts changes outside metadata and status.
    pub generation: bool,
    /// For rows with a `scale` subresource.
    pub scale: Option<ScalePaths>,
    /// Group and version of the row in whose form objects are stored, when this row only shows them in another one.
    pub stored_as: Option<(Box<str>, Box<str>)>,
    /// What users of this version are told when it is deprecated: `v1 Endpoints is deprecated in v1.33+; use …`.
    pub deprecation: Option<Box<str>>,
    /// For rows that a CustomResourceDefinition made.
    pub custom: Option<Custom>,
}

/// What the row of a custom resource carries: a row is made anew whenever its definition changes.
#[derive(Clone)]
pub struct Custom {
    /// Name of its CustomResourceDefinition.
    pub definition: Box<str>,
    /// The revision of the definition that the row was made from.
    pub revision: u64,
    /// Whether objects are stored in this version.
    pub storage: bool,
    /// Whether requests in this version are answered.
    pub served: bool,
    /// Whether the definition is being deleted, so that nothing new is taken in.
    pub terminating: bool,
    /// What the server made of the definition; opaque here.
    pub kind: Arc<dyn Any + Send + Sync>,
}

impl fmt::Debug for Custom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.definition, self.revision)
    }
}

impl Resource {
    /// The name under which the store and controllers know the resource: `pods`, `deployments.apps`; the same for all forms of one resource.
    pub fn id(&self) -> String {
        let group = self.stored_as.as_ref().map_or(&self.group, |(group, _)| group);
        if group.is_empty() { self.plural.to_string() } else { format!("{}.{group}", self.plural) }
    }

    /// Whether objects may have to be converted before they are shown.
    pub fn converted(&self) -> bool {
        self.custom.is_some() || self.stored_as.is_some()
    }

    /// Whether requests are answered in this version; of a custom resource only objects may be left in it.
    pub fn served(&self) -> bool {
        self.custom.as_ref().is_none_or(|custom| custom.served)
    }

    /// Whether objects of it are kept; reviews and component statuses are only answered.
    pub fn stored(&self) -> bool {
        self.serves("get") && self.serves("update")
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
