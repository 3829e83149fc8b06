//! What a pod cannot have from its runtime: found once, before anything is started, and refused with one clear reason and the remedy.

use super::{
    machine::Verdict,
    probes::Kind,
    spec::{Container, Pod},
};
use coracle_api::sysctls::SAFE;

/// Volume sources that are served.
const SOURCES: &str = "configMap, secret, emptyDir, projected and downwardAPI";

/// `Err` refuses the pod: it fails with that reason and message.
pub fn admit(pod: &Pod, runtime: &str) -> Result<(), Verdict> {
    let refuse = |message: String| Err(Verdict { reason: "UnsupportedByRuntime".into(), message });
    // Not the ephemeral ones, which are refused one by one: the pod, which is set up again after a restart of the node, goes on without.
    let containers = || pod.all_containers().take(pod.mains().end);
    if runtime != "wasm" {
        for container in containers() {
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
    for container in containers() {
        if let Err(message) = container_can_run(container) {
            return refuse(format!("container {}: {message}", container.name));
        }
    }
    Ok(())
}

/// Only parameters of the kernel that are the pod's own and do no harm, whatever runs it: kubelet's allowlist.
///
/// # Errors
/// Another one: the pod fails.
pub fn sysctls(pod: &Pod) -> Result<(), Verdict> {
    let refuse = |why: String| Err(Verdict { reason: "SysctlForbidden".into(), message: format!("forbidden sysctl: {why}") });
    for sysctl in &pod.spec.security_context.sysctls {
        // Both ways of writing it.
        let name = sysctl.name.replace('/', ".");
        if !SAFE.contains(&name.as_str()) {
            return refuse(format!("{name:?} not allowlisted"));
        }
        for (host, prefix, namespace) in [(pod.spec.host_network, "net.", "Net"), (pod.spec.host_ipc, "kernel.", "IPC")] {
            if host && name.starts_with(prefix) {
                return refuse(format!("{name:?} not allowed with host {namespace} enabled"));
            }
        }
    }
    Ok(())
}

/// No runtime here gives containers a profile of AppArmor, so that who wants one fails instead of running without, as with kubelet on a machine without AppArmor.
///
/// # Errors
/// It wants one: the pod fails.
pub fn apparmor(pod: &Pod) -> Result<(), Verdict> {
    let of_containers = pod.all_containers().filter_map(|container| container.security_context.app_armor_profile.as_ref());
    match pod.spec.security_context.app_armor_profile.iter().chain(of_containers).any(|profile| profile.kind != "Unconfined") {
        true => Err(Verdict {
            reason: "AppArmor".into(),
            message: "Cannot enforce AppArmor: no runtime of this node gives containers a profile; ask for Unconfined, or for none".into(),
        }),
        false => Ok(()),
    }
}

/// What containers of processes have not.
fn process_can_run(container: &Container) -> Result<(), String> {
    if !container.volume_devices.is_empty() {
        return Err("block devices are not supported on this node; remove volumeDevices".into());
    }
    Ok(())
}

/// What a component cannot have in a pod of processes either, which is known once its image is here.
///
/// # Errors
/// Why not, with the remedy.
pub fn component(pod: &Pod, container: &Container) -> Result<(), String> {
    container_can_run(container).and_then(|()| apart(pod, container)).map_err(|message| format!("container {}: {message}", container.name))
}

/// A component's host stands in the machine's own tree of files, and is to be seen by nobody, and it is not the place to look at files of the machine.
fn apart(pod: &Pod, container: &Container) -> Result<(), String> {
    for (set, field) in [(pod.spec.share_process_namespace, "shareProcessNamespace"), (pod.spec.host_pid, "hostPID")] {
        if set {
            return Err(format!("a WebAssembly component shows its process to no others; remove spec.{field}, or put it into a pod of its own"));
        }
    }
    for mount in &container.volume_mounts {
        let Some(volume) = pod.spec.volumes.iter().find(|volume| volume.name == mount.name) else { continue };
        let kind = if volume.host_path.is_some() {
            "hostPath"
        } else if volume.image.is_some() {
            "image"
        } else {
            continue;
        };
        return Err(format!("volume {:?} is of type {kind}, which WebAssembly components cannot have; they have {SOURCES}", mount.name));
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
    let why = match kind {
        "hostPath" | "image" => format!("are for containers, not for WebAssembly components, which have {SOURCES}"),
        _ => format!("are not supported on this node, which has {SOURCES}, and hostPath and image for containers"),
    };
    format!("MountVolume.SetUp failed for volume \"{name}\" : volumes of type {kind} {why}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn what_an_ephemeral_container_asks_for_refuses_no_pod() {
        let verdict = |field: &str| {
            let mut spec = json!({ "containers": [{ "name": "c", "image": "i" }] });
            spec[field] = json!([{ "name": "d", "image": "i", "stdin": true, "tty": true }]);
            let pod: Pod = serde_json::from_value(json!({ "metadata": { "name": "p" }, "spec": spec })).unwrap();
            admit(&pod, "wasm").err().map(|verdict| verdict.message)
        };
        assert_eq!(verdict("ephemeralContainers"), None, "kubectl debug -it was refused, and then the node began anew");
        assert_eq!(verdict("initContainers").as_deref(), Some("container d: stdin and tty are not supported for wasm pods; remove both fields"));
    }

    #[test]
    fn a_component_among_processes_stays_apart() {
        let verdict = |spec: serde_json::Value| {
            let pod: Pod = serde_json::from_value(json!({ "metadata": { "name": "p" }, "spec": spec })).unwrap();
            component(&pod, &pod.spec.containers[0])
        };
        let mounting = |source: serde_json::Value| {
            let mut volume = json!({ "name": "v" });
            volume.as_object_mut().unwrap().extend(source.as_object().unwrap().clone());
            json!({ "volumes": [volume], "containers": [{ "name": "c", "image": "i", "volumeMounts": [{ "name": "v", "mountPath": "/v" }] }] })
        };
        assert_eq!(verdict(mounting(json!({ "emptyDir": {} }))), Ok(()));
        for (spec, why) in [
            (mounting(json!({ "hostPath": { "path": "/" } })), "of type hostPath"),
            (mounting(json!({ "image": { "reference": "i" } })), "of type image"),
            (json!({ "shareProcessNamespace": true, "containers": [{ "name": "c", "image": "i" }] }), "remove spec.shareProcessNamespace"),
            (json!({ "hostPID": true, "containers": [{ "name": "c", "image": "i" }] }), "remove spec.hostPID"),
        ] {
            assert!(verdict(spec).unwrap_err().contains(why), "{why}");
        }
    }

    #[test]
    fn volumes_that_cannot_be_had_are_told_with_those_that_can() {
        let said = |kind: &str| unsupported_volume("v", kind);
        assert!(said("hostPath").ends_with("volumes of type hostPath are for containers, not for WebAssembly components, which have configMap, secret, emptyDir, projected and downwardAPI"));
        assert!(
            said("nfs")
                .ends_with("this node, which has configMap, secret, emptyDir, projected and downwardAPI, and hostPath and image for containers")
        );
    }

    #[test]
    fn who_wants_a_profile_of_apparmor_does_not_run_without() {
        let verdict = |pod: Value, container: Value| {
            let spec = json!({ "securityContext": pod, "containers": [{ "name": "a" }, { "name": "b", "securityContext": container }] });
            super::apparmor(&serde_json::from_value(json!({ "metadata": { "name": "p" }, "spec": spec })).unwrap())
                .err()
                .map(|verdict| verdict.reason)
        };
        let profile = |kind: &str| json!({ "appArmorProfile": { "type": kind } });
        assert_eq!(verdict(json!({}), profile("Unconfined")), None);
        for (pod, container) in [(profile("RuntimeDefault"), profile("Unconfined")), (json!({}), profile("Localhost"))] {
            assert_eq!(verdict(pod, container).as_deref(), Some("AppArmor"));
        }
    }

    #[test]
    fn only_harmless_kernel_parameters_are_a_pods_own() {
        let verdict = |names: &[&str], host: bool| {
            let sysctls: Vec<_> = names.iter().map(|name| json!({ "name": name, "value": "1" })).collect();
            let pod = json!({ "metadata": { "name": "p" }, "spec": { "hostNetwork": host, "securityContext": { "sysctls": sysctls } } });
            super::sysctls(&serde_json::from_value(pod).unwrap()).err().map(|verdict| (verdict.reason, verdict.message))
        };
        let forbidden = |message: &str| Some(("SysctlForbidden".to_owned(), format!("forbidden sysctl: {message}")));
        assert_eq!(verdict(&["net.ipv4.tcp_syncookies", "kernel/shm_rmid_forced"], false), None);
        assert_eq!(verdict(&["kernel.shm_rmid_forced", "net.core.somaxconn"], false), forbidden("\"net.core.somaxconn\" not allowlisted"));
        assert_eq!(verdict(&["net.ipv4.tcp_syncookies"], true), forbidden("\"net.ipv4.tcp_syncookies\" not allowed with host Net enabled"));
    }
}
