//! One record for every decision, at trace target `coracle::audit`.
//!
//! `audit.k8s.io` policies and sinks come later; what must not be missing is the record, so it is made in one place and cheap when
//! nobody listens (a disabled tracing event).

use super::{Attributes, Decision, User};

/// The target that a subscriber filters on.
pub const TARGET: &str = "coracle::audit";

/// Denials are kept at `info`, the rest at `debug`.
pub fn decision(user: &User, a: &Attributes<'_>, decision: &Decision) {
    let (user, groups) = (user.name.as_str(), &user.groups);
    match decision {
        Decision::Allow { reason } => tracing::debug!(
            target: TARGET, user, ?groups, verb = a.verb, group = a.group, resource = a.resource, subresource = a.subresource,
            namespace = a.namespace, name = a.name, path = a.path, decision = "allow", reason
        ),
        Decision::Deny { reason } => tracing::info!(
            target: TARGET, user, ?groups, verb = a.verb, group = a.group, resource = a.resource, subresource = a.subresource,
            namespace = a.namespace, name = a.name, path = a.path, decision = "forbid", reason
        ),
    }
}
