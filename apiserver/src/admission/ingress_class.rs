//! DefaultIngressClass: an ingress that names no class gets the one that is marked as the default.

use super::{Plugin, storage::default_of};
use crate::resources::{
    Cx,
    networking::ingress::{CLASS_ANNOTATION, DEFAULT_CLASS},
};
use coracle_api::status::Status;
use serde_json::Value;

/// The plugin.
pub struct DefaultIngressClass;

impl Plugin for DefaultIngressClass {
    fn name(&self) -> &'static str {
        "DefaultIngressClass"
    }
    fn mutate(&self, cx: &Cx<'_>, old: Option<&Value>, new: &mut Value) -> Result<(), Status> {
        let ours = old.is_none() && cx.subresource().is_empty() && cx.row().id() == "ingresses.networking.k8s.io";
        let classed = new["spec"]["ingressClassName"].is_string() || new["metadata"]["annotations"][CLASS_ANNOTATION].is_string();
        if let Some(class) = (ours && !classed).then(|| default_of(cx, "ingressclasses.networking.k8s.io", &[DEFAULT_CLASS])).flatten() {
            new["spec"]["ingressClassName"] = class.into();
        }
        Ok(())
    }
}
