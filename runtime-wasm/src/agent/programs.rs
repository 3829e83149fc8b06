//! Components in pods of processes: what is needed is opened here, as for any host, and handed to the pod's shim.

use super::{WasmRuntime, failed, ports, volume};
use crate::{
    CONTAINER,
    container::Order,
    wire::{Start, bounds},
};
use coracle_runtime::{ContainerSpec, Error, LocalImage, Program, Programs, Runtime, SandboxSpec};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use std::{
    fs::File,
    io::{self, Seek, Write},
    os::fd::OwnedFd,
    path::Path,
    sync::Arc,
};

#[async_trait::async_trait]
impl Programs for WasmRuntime {
    fn supports(&self, image: &LocalImage) -> Result<(), Error> {
        Runtime::supports(self, image)
    }

    async fn prepare(&self, image: &LocalImage) -> Result<(), Error> {
        Runtime::prepare(self, image).await
    }

    async fn program(&self, spec: &ContainerSpec, sandbox: &SandboxSpec) -> Result<Program, Error> {
        let artifact = self.shared.check(spec).await?;
        bounds::descriptors(spec, 2 + spec.mounts.len())?;
        let code = File::open(&artifact.path).map_err(|error| failed("opening artifact", &artifact.path, &error))?;
        let ports = ports(spec, artifact.verdict.kind);
        let start = Start { spec: spec.clone(), kind: artifact.verdict.kind, artifact: artifact.key, memory: artifact.verdict.memory, ports };
        let order = Order { start, sandbox: bounds::sandbox(sandbox.clone())? };
        let order = told(&order).map_err(|error| failed("writing the order of", Path::new(&spec.name), &error))?;
        let mut descriptors = vec![Arc::new(order), Arc::new(code.into())];
        for mount in &spec.mounts {
            descriptors.push(volume::open(mount)?);
        }
        Ok(Program { subcommand: CONTAINER.into(), descriptors })
    }
}

/// In memory, since it holds the container's variables; for reading once.
fn told(order: &Order) -> io::Result<OwnedFd> {
    let mut file = File::from(memfd_create("order", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?);
    file.write_all(&serde_json::to_vec(order)?)?;
    file.rewind()?;
    fcntl_add_seals(&file, SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE)?;
    Ok(file.into())
}
