//! What a pod cannot have from its runtime: found once, before anything is started, and refused with one clear reason and the remedy.

use super::{
    machine::Verdict,
    probes::Kind,
    spec::{Container, Pod},
};

/// Volume sources that are served.
const SOURCES: &str = "configMap, secret, emptyDir, projected and downwardAPI";

/// `Err` refuses the pod: it fails with that reason and message.
pub fn admit(pod: &Pod, runtime: &str) -> Result<(), Verdict> {
    let refuse = |message: String| Err(Verdict { reason: "UnsupportedByRuntime".into(), message });
    if runtime != "wasm" {
        // Its first process would be a way to the machine's files; it has to be confined first.
        if pod.spec.share_process_namespace && !pod.spec.host_pid {
            return refuse("spec.shareProcessNamespace is not supported for containers yet; remove the field".into());
        }
        if pod.spec.host_users == Some(false) {
            return refuse("spec.hostUsers: false (user namespaces) is not supported on this node yet; remove the field".into());
        }
        for container in pod.all_containers() {
            if let Err(message) = process_can_run(container) {
                return refuse(format!("container {}: {message}", container.name));
            }
        }
        return Ok(());
    }
    let spec = &pod.spec;
    for (set, field, remedy) in [
        (spec.host_network, "hostNetwork", "the pod has an address of its own; use a Service to reach it"),
        (spec.host_pid, "hostPID", "a component sees no processes"),
        (spec.host_ipc, "hostIPC", "a component has no IPC"),
    ] {
        if set {
            return refuse(format!("spec.{field} has no meaning for a wasm pod: {remedy}; remove the field"));
        }
    }
    for container in pod.all_containers() {
        if let Err(message) = container_can_run(container) {
            return refuse(format!("container {}: {message}", container.name));
        }
    }
    Ok(())
}

/// What containers of processes will have and have not yet.
fn process_can_run(container: &Container) -> Result<(), String> {
    for kind in Kind::ALL {
        let Some(probe) = kind.of(container) else { continue };
        if probe.exec.is_some() || probe.grpc.is_some() {
            let title = kind.title().to_lowercase();
            return Err(format!("exec and grpc {title} probes are not supported for containers yet; use an httpGet or tcpSocket probe"));
        }
    }
    if let Some(lifecycle) = &container.lifecycle
        && [&lifecycle.post_start, &lifecycle.pre_stop].into_iter().flatten().any(|hook| hook.exec.is_some())
    {
        return Err("lifecycle exec hooks are not supported for containers yet; use an httpGet or sleep hook".into());
    }
    if container.tty || container.stdin {
        return Err("stdin and tty are not supported for containers yet; remove both fields".into());
    }
    if !container.volume_devices.is_empty() {
        return Err("block devices are not supported on this node; remove volumeDevices".into());
    }
    for mount in &container.volume_mounts {
        if !matches!(&*mount.mount_propagation, "" | "None") {
            return Err(format!("mountPropagation of volumeMount {} is not supported on this node yet; remove the field", mount.name));
        }
        if mount.recursive_read_only == "Enabled" {
            return Err(format!("recursiveReadOnly of volumeMount {} is not supported on this node yet; remove the field", mount.name));
        }
    }
    Ok(())
}

fn container_can_run(container: &Container) -> Result<(), String> {
    for kind in Kind::ALL {
        let Some(probe) = kind.of(container) else { continue };
        let title = kind.title().to_lowercase();
        if probe.exec.is_some() {
            return Err(format!(
                "exec {title} probes need a process to start inside, which a wasm component has not; use an httpGet or tcpSocket probe"
            ));
        }
        if probe.grpc.is_some() {
            return Err(format!("grpc {title} probes are not supported for wasm pods; use an httpGet or tcpSocket probe"));
        }
    }
    if let Some(lifecycle) = &container.lifecycle {
        for (hook, name) in [(&lifecycle.post_start, "postStart"), (&lifecycle.pre_stop, "preStop")] {
            let Some(hook) = hook else { continue };
            if hook.exec.is_some() {
                return Err(format!(
                    "lifecycle.{name} exec hooks need a process to start inside, which a wasm component has not; use an httpGet or sleep hook"
                ));
            }
            if hook.tcp_socket.is_some() {
                return Err(format!("lifecycle.{name} tcpSocket hooks are run by no kubelet; use an httpGet or sleep hook"));
            }
        }
    }
    if container.security_context.privileged == Some(true) {
        return Err("privileged has no meaning for a wasm component, which only has what it is given; remove securityContext.privileged".into());
    }
    if container.tty || container.stdin {
        return Err("stdin and tty are not supported for wasm pods; remove both fields".into());
    }
    if !container.volume_devices.is_empty() {
        return Err("block devices are not supported for wasm pods; remove volumeDevices".into());
    }
    Ok(())
}

/// A volume source that nobody here can mount, as the `FailedMount` event words it.
pub fn unsupported_volume(name: &str, kind: &str) -> String {
    format!("MountVolume.SetUp failed for volume \"{name}\" : volumes of type {kind} are not supported on this node, which has {SOURCES}")
}
