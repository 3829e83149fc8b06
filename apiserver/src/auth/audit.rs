//! One record for every decision: in the [audit log](crate::audit), and at trace target `coracle::audit`. Cheap when nobody listens.

use super::{Attributes, Decision, User};

/// The target that a subscriber filters on.
pub const TARGET: &str = "coracle::audit";

/// Denials are kept at `info`, the rest at `debug`.
pub fn decision(user: &User, a: &Attributes<'_>, decision: &Decision) {
    let (word, why) = match decision {
        Decision::Allow { reason } => ("allow", reason),
        Decision::Deny { reason } => ("forbid", reason),
    };
    crate::audit::annotate("authorization.k8s.io/decision", || word.to_owned());
    crate::audit::annotate("authorization.k8s.io/reason", || why.clone());
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
