//! Which runtime a pod is for.

use super::Work;
use crate::pods::{admit, machine::Verdict, spec::Pod};
use coracle_runtime::{ImageContent, Runtime};
use std::sync::Arc;

impl Work {
    /// The runtime handler that the pod's RuntimeClass names.
    fn handler(&self, pod: &Pod) -> Option<String> {
        let class = pod.spec.runtime_class_name.as_deref().filter(|c| !c.is_empty())?;
        let object = self.objects.get("runtimeclasses.node.k8s.io", "", class);
        let object = object.and_then(|json| serde_json::from_slice::<serde_json::Value>(&json).ok());
        Some(object.as_ref().and_then(|o| o["handler"].as_str()).unwrap_or(class).to_string())
    }

    /// Whether the runtime is known before the images are there.
    pub fn runtime_named(&self, pod: &Pod) -> bool {
        self.runtimes.len() == 1 || self.handler(pod).is_some()
    }

    /// Whether the image is on this machine and is no component.
    pub fn is_oci(&self, image: &str) -> bool {
        matches!(self.images.lookup(image), Ok(Some(image)) if matches!(image.content, ImageContent::Oci { .. }))
    }

    /// The runtime: by class, or the only one, or by what the images hold (one OCI image makes an OCI sandbox).
    pub(super) fn runtime(&self, pod: &Pod) -> Result<&Arc<dyn Runtime>, String> {
        let by_name = |name: &str| self.runtimes.iter().find(|r| r.name() == name);
        let have = || self.runtimes.iter().map(|r| r.name()).collect::<Vec<_>>().join(", ");
        if let Some(handler) = self.handler(pod) {
            return by_name(&handler).ok_or_else(|| {
                format!("no runtime for \"{handler}\" is configured on this node, which has {}; change or remove runtimeClassName", have())
            });
        }
        if let [only] = self.runtimes.as_slice() {
            return Ok(only);
        }
        // Not the ephemeral ones, which come when it is settled.
        let oci = pod.all_containers().take(pod.mains().end).any(|container| self.is_oci(&container.image));
        let name = if oci { "oci" } else { "wasm" };
        by_name(name).ok_or_else(|| format!("this pod needs the {name} runtime, which this node has not; it has {}", have()))
    }

    /// What can be refused before anything is done.
    pub fn admit(&self, pod: &Pod) -> Result<(), Verdict> {
        match (self.handler(pod), self.runtimes.as_slice()) {
            (Some(name), _) => admit::admit(pod, &name),
            (None, [only]) => admit::admit(pod, only.name()),
            // Its images will say; see `set_up`.
            _ => Ok(()),
        }
    }
}
