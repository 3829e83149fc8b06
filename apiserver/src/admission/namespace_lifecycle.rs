//! NamespaceLifecycle: nothing is made where there is no namespace or where one is being emptied, and the system's own namespaces stay.

use super::{Plugin, lookup};
use crate::{
    pipeline::Verb,
    resources::{Cx, namespace::IMMORTAL},
};
use coracle_api::status::{Cause, Status};
use serde_json::Value;

/// The plugin.
pub struct NamespaceLifecycle;

impl Plugin for NamespaceLifecycle {
    fn name(&self) -> &'static str {
        "NamespaceLifecycle"
    }
    // First among the mutating ones: plugins after it may look into the namespace.
    fn mutate(&self, cx: &Cx<'_>, old: Option<&Value>, new: &mut Value) -> Result<(), Status> {
        if old.is_some() || !cx.row().namespaced() || cx.request.verb != Verb::Create {
            return Ok(());
        }
        let namespace = lookup::object(cx, "namespaces", "", &cx.request.namespace)?;
        within(namespace.as_ref(), &cx.request.namespace, |why| lookup::forbidden(cx, new, why))
    }
    fn validate(&self, cx: &Cx<'_>, _old: Option<&Value>, new: Option<&Value>) -> Result<(), Status> {
        let is_namespace = &*cx.row().plural == "namespaces" && cx.row().group.is_empty();
        if new.is_none() && is_namespace && IMMORTAL.contains(&cx.request.name.as_str()) {
            return Err(Status::forbidden("", "namespaces", &cx.request.name, "this namespace may not be deleted"));
        }
        Ok(())
    }
}

/// Whether something may be made in this namespace.
fn within(namespace: Option<&Value>, name: &str, forbidden: impl Fn(&str) -> Status) -> Result<(), Status> {
    let Some(namespace) = namespace else { return Err(Status::not_found("", "namespaces", name)) };
    if namespace["status"]["phase"] != "Terminating" {
        return Ok(());
    }
    let mut status = forbidden(&format!("unable to create new content in namespace {name} because it is being terminated"));
    if let Some(details) = &mut status.details {
        details.causes.push(Cause {
            reason: "NamespaceTerminating".into(),
            message: format!("namespace {name} is being terminated"),
            field: "metadata.namespace".into(),
        });
    }
    Err(status)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_in_namespaces_that_live() {
        let forbidden = |why: &str| Status::forbidden("", "pods", "a", why);
        assert_eq!(within(None, "x", forbidden).expect_err("missing").message, "namespaces \"x\" not found");
        let terminating = json!({"status": {"phase": "Terminating"}});
        let status = within(Some(&terminating), "x", forbidden).expect_err("terminating");
        assert_eq!(status.message, "pods \"a\" is forbidden: unable to create new content in namespace x because it is being terminated");
        assert_eq!(status.code, 403);
        assert_eq!(status.details.expect("details").causes[0].reason, "NamespaceTerminating");
        assert!(within(Some(&json!({"status": {"phase": "Active"}})), "x", forbidden).is_ok());
    }
}
