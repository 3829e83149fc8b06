//! A container is made and started.

use super::{Failure, Work, last_words, linux};
use crate::{
    pods::{
        admit, env, hostname,
        machine::Event,
        spec::{Container, ContainerPort, Pod, VolumeMount},
    },
    volumes,
};
use coracle_runtime::{ContainerId, ContainerSpec, ImageContent, LocalImage, Mount, Port, Propagation, Runtime};
use std::{net::IpAddr, path::PathBuf, sync::Arc};

/// Reasons of a runtime that has not made the container.
const NEVER_MADE: [&str; 3] = ["CreateContainerConfigError", "CreateContainerError", "RunContainerError"];
/// A log file is rotated at this size, and so many are kept: kubelet's defaults.
const LOG: (u64, u32) = (10 << 20, 5);

impl Work {
    pub(super) async fn start(&self, pod: &Pod, index: usize, attempt: u32, ip: Option<IpAddr>) -> Event {
        let _permit = self.gate.acquire().await;
        let refused = |f: Failure| Event::Refused { container: index, attempt, reason: f.reason, message: f.message, fatal: f.fatal };
        let Some(container) = pod.container(index) else {
            return refused(Failure { reason: "CreateContainerError".into(), message: "no such container".into(), fatal: true });
        };
        let again = |reason: &str, message: String| refused(Failure { reason: reason.into(), message, fatal: false });
        let runtime = match self.runtime(pod) {
            Ok(runtime) => runtime,
            Err(message) => return again("CreateContainerError", message),
        };
        let image = match self.images.lookup(&container.image) {
            // Under its name there may be another by now, which has to stay as well.
            Ok(Some(image)) if self.images.hold(&self.directory(&pod.metadata.uid), &image).is_ok_and(|there| there) => image,
            Ok(_) => return again("CreateContainerError", format!("image {} was removed from this machine meanwhile", container.image)),
            Err(why) => return again("CreateContainerError", why.message),
        };
        if let (ImageContent::Wasm { .. }, Err(message)) = (&image.content, admit::component(pod, container)) {
            return refused(Failure { reason: "CreateContainerConfigError".into(), message, fatal: true });
        }
        let facts = self.facts(ip);
        let volumes = volumes::directory(&self.directory(&pod.metadata.uid));
        let services = env::services(pod, &*self.objects, self.options.api_server);
        let variables = self
            .patiently(
                || async { env::resolve(pod, container, &facts, &services, &*self.objects, &volumes) },
                |error| matches!(error, env::Error::Missing { .. }),
            )
            .await;
        let mut variables = match variables {
            Ok(variables) => variables,
            Err(why) => return again("CreateContainerConfigError", why.to_string()),
        };
        // Runtimes set it before a container's own variables, so that those win.
        if !variables.iter().any(|(name, _)| name == "HOSTNAME") {
            let name = hostname::of(pod, &self.options.cluster_domain).unwrap_or_default().name;
            variables.insert(0, ("HOSTNAME".into(), name));
        }
        let spec = match self.container(pod, container, attempt, image, variables) {
            Ok(spec) => spec,
            Err(message) => return again("CreateContainerConfigError", message),
        };
        if let Some(parent) = spec.log_path.parent()
            && let Err(why) = volumes::paths::make(parent, 0o755)
        {
            return again("CreateContainerError", format!("make {}: {why}", parent.display()));
        }
        let id = match runtime.create_container(spec).await {
            Ok(id) => id,
            Err(why) => return refused(Failure { reason: why.reason, message: why.message, fatal: why.fatal }),
        };
        let event = match runtime.start_container(&id).await {
            Ok(()) => Event::Started { container: index, attempt },
            // It was never made, so that nothing has ended: it waits, and is tried again.
            Err(why) if NEVER_MADE.contains(&why.reason.as_str()) => {
                return refused(Failure { reason: why.reason, message: why.message, fatal: why.fatal });
            }
            Err(why) => {
                let reason = if why.reason.is_empty() { "StartError".into() } else { why.reason };
                Event::StartFailed { container: index, attempt, reason, message: why.message }
            }
        };
        self.remove_old(runtime, pod, container, attempt).await;
        event
    }

    /// The container before goes from the runtime; of the logs, this one's and the last one's stay.
    async fn remove_old(&self, runtime: &Arc<dyn Runtime>, pod: &Pod, container: &Container, attempt: u32) {
        let Some(before) = attempt.checked_sub(1) else { return };
        let uid = &pod.metadata.uid;
        if let Err(why) = runtime.remove_container(&format!("{uid}/{}/{before}", container.name)).await {
            tracing::debug!(%why, "remove the container before");
        }
        let logs = self.directory(uid).join("logs").join(&container.name);
        let Ok(entries) = std::fs::read_dir(&logs) else { return };
        for entry in entries.flatten() {
            let number = entry.file_name().to_str().and_then(|n| n.split('.').next()?.parse::<u32>().ok());
            if number.is_some_and(|n| n < before) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }

    fn container(&self, pod: &Pod, container: &Container, attempt: u32, image: LocalImage, variables: env::Env) -> Result<ContainerSpec, String> {
        let uid = &pod.metadata.uid;
        let dir = self.directory(uid);
        let lookup = |name: &str| variables.iter().find(|(k, _)| k == name).map(|(_, v)| v.as_str());
        let expand = |list: &[String]| list.iter().map(|text| env::expand(text, lookup)).collect::<Vec<_>>();
        let mut mounts = Vec::with_capacity(container.volume_mounts.len());
        for mount in &container.volume_mounts {
            mounts.push(self.volume(pod, mount, &lookup)?);
        }
        let component = matches!(image.content, ImageContent::Wasm { .. });
        let termination = match self.runtime(pod)?.name() {
            // Thousands of them are held open by a few processes: no directory for each.
            "wasm" => last_words::nowhere(container),
            _ => last_words::place(container, &dir, attempt, component, &mut mounts)?,
        };
        let resources = linux::resources(pod, container, self.node_of_pods())?;
        let port = |p: &ContainerPort| Port {
            name: p.name.clone(),
            port: p.container_port,
            protocol: if p.protocol.is_empty() { "TCP".into() } else { p.protocol.clone() },
        };
        Ok(ContainerSpec {
            sandbox: uid.clone(),
            name: container.name.clone(),
            attempt,
            image,
            command: expand(&container.command),
            args: expand(&container.args),
            working_dir: container.working_dir.clone(),
            mounts,
            ports: container.ports.iter().map(port).collect(),
            resources,
            log_path: dir.join("logs").join(volumes::paths::name(&container.name)?).join(format!("{attempt}.log")),
            log_max_bytes: LOG.0,
            log_max_files: LOG.1,
            request_timeout: self.options.request_timeout,
            env: variables,
            security: linux::security(pod, container, &self.options.data_dir.join("seccomp"))?,
            stdin: container.stdin,
            stdin_once: container.stdin_once,
            tty: container.tty,
            termination,
            joins: self.target(pod, container)?,
        })
    }

    /// The container whose processes an ephemeral one sees, which runs.
    fn target(&self, pod: &Pod, container: &Container) -> Result<Option<ContainerId>, String> {
        let name = &container.target_container_name;
        if name.is_empty() {
            return Ok(None);
        }
        let uid = &pod.metadata.uid;
        let view = self.views.get(uid);
        let found = view.as_ref().and_then(|view| view.containers.iter().find(|known| known.name == *name && known.started.is_some()));
        let found = found.ok_or_else(|| format!("unable to find target container {name}"))?;
        Ok(Some(format!("{uid}/{name}/{}", found.attempt)))
    }

    /// A volume as a container sees it.
    fn volume<'a>(&self, pod: &Pod, mount: &VolumeMount, lookup: &impl Fn(&str) -> Option<&'a str>) -> Result<Mount, String> {
        let volume = pod.spec.volumes.iter().find(|volume| volume.name == mount.name);
        let sub = match mount.sub_path_expr.as_str() {
            "" => mount.sub_path.clone(),
            expression => env::expand_all(expression, lookup)?,
        };
        let seen = Mount {
            container_path: mount.mount_path.clone(),
            read_only: mount.read_only,
            // `IfPossible` always is.
            recursive_read_only: matches!(&*mount.recursive_read_only, "Enabled" | "IfPossible"),
            propagation: match &*mount.mount_propagation {
                "HostToContainer" => Propagation::HostToContainer,
                "Bidirectional" => Propagation::Bidirectional,
                _ => Propagation::None,
            },
            ..Mount::default()
        };
        if let Some(source) = volume.and_then(|volume| volume.image.as_ref()) {
            let found = self.images.lookup(&source.reference).map_err(|why| why.message)?;
            let image = found.ok_or_else(|| format!("image {} was removed from this machine meanwhile", source.reference))?;
            self.images.hold(&self.directory(&pod.metadata.uid), &image).map_err(|why| why.message)?;
            let ImageContent::Oci { layers } = image.content else {
                return Err(format!("image {} of volume {} is a WebAssembly component, which has no files", source.reference, mount.name));
            };
            return Ok(Mount { host_path: volumes::paths::relative_or_root(&sub)?, layers, ..seen });
        }
        let path = match volume.and_then(|volume| volume.host_path.as_ref()) {
            Some(source) => PathBuf::from(&source.path),
            None => volumes::directory(&self.directory(&pod.metadata.uid)).join(volumes::paths::name(&mount.name)?),
        };
        // Without links either way: runtimes refuse to follow one, since it would be the pod's own.
        let host_path = match sub.as_str() {
            "" => std::fs::canonicalize(&path).map_err(|why| format!("{}: {why}", path.display()))?,
            sub => volumes::paths::sub_path(&path, sub)?,
        };
        // What is written for the pod is not for the pod to write.
        let ours = volume.is_some_and(|volume| volume.empty_dir.is_none() && volume.host_path.is_none());
        Ok(Mount { host_path, read_only: mount.read_only || ours, ..seen })
    }
}
