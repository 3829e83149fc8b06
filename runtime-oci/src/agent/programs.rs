//! Containers whose images are not file systems: what runs them is made elsewhere ([`coracle_runtime::Programs`]), and run by the pod's shim.

use super::Shared;
use crate::{config, wire::Ask};
use coracle_runtime::{
    ContainerId, ContainerSpec, Error, ImageContent, LocalImage, Program, Programs, Resources, SandboxSpec,
    program::{OWN_MEMORY, of_group},
};
use std::{
    collections::{BTreeSet, HashMap},
    os::fd::OwnedFd,
    path::PathBuf,
    sync::Arc,
};

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

/// What is given to a pod's groups, for what is given to its containers.
pub struct Groups {
    /// Of the containers.
    pub containers: Vec<(PathBuf, Resources)>,
    /// Those of them in which a program is to be told.
    pub programs: Vec<PathBuf>,
    /// What all programs of the pod may take themselves: the pod's own group has that on top.
    pub own: u64,
}

/// Of those `containers` that are there.
pub fn groups(known: &HashMap<ContainerId, ContainerSpec>, sandbox: &SandboxSpec, containers: Vec<(ContainerId, Resources)>) -> Groups {
    let names: BTreeSet<&str> = known.values().filter(|spec| hosted(spec)).map(|spec| spec.name.as_str()).collect();
    let mut groups = Groups { containers: Vec::new(), programs: Vec::new(), own: OWN_MEMORY * names.len() as u64 };
    for (id, resources) in containers {
        let Some(spec) = known.get(&id) else { continue };
        let group = config::group(spec, sandbox);
        if hosted(spec) {
            groups.programs.push(group.clone());
            groups.containers.push((group, of_group(resources)));
        } else {
            groups.containers.push((group, resources));
        }
    }
    groups
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
