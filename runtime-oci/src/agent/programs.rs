//! Containers whose images are not file systems: what runs them is made elsewhere ([`coracle_runtime::Programs`]), and run by the pod's shim.

use super::Shared;
use crate::wire::Ask;
use coracle_runtime::{ContainerSpec, Error, ImageContent, LocalImage, Program, Programs, SandboxSpec};
use std::{os::fd::OwnedFd, sync::Arc};

/// Whether its process is a program of ours.
pub fn hosted(spec: &ContainerSpec) -> bool {
    matches!(spec.image.content, ImageContent::Wasm { .. })
}

impl Shared {
    /// What runs that image.
    pub(super) fn programs(&self, image: &LocalImage) -> Result<&Arc<dyn Programs>, Error> {
        self.options.programs.as_ref().ok_or_else(|| {
            let message = format!("image {} is a WebAssembly component, and this node runs containers only", image.reference);
            Error::fatal("InvalidImage", message)
        })
    }
}

/// What the shim is asked for to start the container.
pub async fn start(shared: &Shared, sandbox: &SandboxSpec, spec: &ContainerSpec) -> Result<(Ask, Vec<Arc<OwnedFd>>), Error> {
    if !hosted(spec) {
        return Ok((Ask::Start(Box::new(spec.clone())), Vec::new()));
    }
    let Program { subcommand, descriptors } = shared.programs(&spec.image)?.program(spec, sandbox).await?;
    let mut spec = spec.clone();
    // A component has neither, and knows no signals: what asks it to stop is its host's business.
    (spec.tty, spec.stdin) = (false, false);
    spec.image.config.stop_signal.clear();
    Ok((Ask::Program(Box::new(spec), subcommand), descriptors))
}
