//! Role-based access control (`rbac.authorization.k8s.io/v1`): rules, bindings, aggregation, escalation.
//!
//! Upstream walks every binding for every request. Here bindings are indexed by subject, so a request looks at its user's and
//! groups' bindings only; rules are parsed once, when they change.

pub mod escalation;
mod follow;
mod index;
mod parse;
mod rule;

pub use follow::follow;
pub use index::Index;
pub use parse::rules_of;
pub use rule::{Rule, Shown};

/// Resource ids of the four kinds.
pub const ROLES: &str = "roles.rbac.authorization.k8s.io";
/// See [`ROLES`].
pub const CLUSTER_ROLES: &str = "clusterroles.rbac.authorization.k8s.io";
/// See [`ROLES`].
pub const ROLE_BINDINGS: &str = "rolebindings.rbac.authorization.k8s.io";
/// See [`ROLES`].
pub const CLUSTER_ROLE_BINDINGS: &str = "clusterrolebindings.rbac.authorization.k8s.io";

#[cfg(test)]
pub(in crate::auth) mod tests;
