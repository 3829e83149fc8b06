//! What a pod of processes is to its runtime: pure, from the pod's spec.

use crate::pods::{
    downward,
    spec::{Container, Pod, SeccompProfile},
};
use coracle_api::amounts::{Amounts, of_containers, quantity};
use coracle_runtime::{LinuxSandbox, Qos, Resources, Seccomp, Security};
use std::path::{Component, Path};

/// Processes and threads of a pod: a pod that forks without end must not take the machine's.
const PIDS: u64 = 16_384;
/// The least priority of critical pods.
const CRITICAL: i64 = 2_000_000_000;

/// What the pod's containers share.
pub fn sandbox(pod: &Pod) -> LinuxSandbox {
    let spec = &pod.spec;
    LinuxSandbox {
        host_network: spec.host_network,
        host_pid: spec.host_pid,
        host_ipc: spec.host_ipc,
        share_processes: spec.share_process_namespace,
        sysctls: spec.security_context.sysctls.iter().map(|sysctl| (sysctl.name.clone(), sysctl.value.clone())).collect(),
        host_aliases: spec.host_aliases.iter().map(|alias| (alias.ip.clone(), alias.hostnames.clone())).collect(),
        qos: qos(pod),
        resources: whole(pod),
        pids_limit: Some(PIDS),
        users: None,
    }
}

fn qos(pod: &Pod) -> Qos {
    match pod.status.qos_class.as_str() {
        "Guaranteed" => Qos::Guaranteed,
        "Burstable" => Qos::Burstable,
        _ => Qos::BestEffort,
    }
}

/// Requests of all containers together, and limits where every container has one (KEP-2837's rule for the pod's level); the RuntimeClass's overhead comes on top
/// of both (KEP-688).
fn whole(pod: &Pod) -> Resources {
    let containers: Vec<&Container> = pod.spec.containers.iter().collect();
    let inits: Vec<&Container> = pod.spec.init_containers.iter().collect();
    let sum = |of: &dyn Fn(&Container) -> Option<i64>| -> Option<u64> {
        let amount = |container: &&Container| of(container).map(|memory| Amounts { memory, ..Amounts::default() });
        let list: Option<Vec<Amounts>> = containers.iter().map(amount).collect();
        let first: Option<Vec<(Amounts, bool)>> = inits.iter().map(|container| Some((amount(container)?, container.is_sidecar()))).collect();
        u64::try_from(of_containers(list?, first?).memory).ok().filter(|sum| *sum > 0)
    };
    let limit = |name: &'static str, millis: bool| {
        move |container: &Container| {
            let value = quantity(container.resources.limits.get(name)?);
            Some(if millis { value.millis() } else { value.units() }).filter(|value| *value > 0)
        }
    };
    let overhead = |name: &str, millis: bool| {
        let value = pod.spec.overhead.get(name).map(quantity);
        value.and_then(|value| u64::try_from(if millis { value.millis() } else { value.units() }).ok()).unwrap_or(0)
    };
    let (memory, cpu) = (overhead("memory", false), overhead("cpu", true));
    let request = |container: &Container| Some(container.resources.requests.get("cpu").map_or(0, |value| quantity(value).millis()));
    Resources {
        memory_limit: sum(&limit("memory", false)).map(|limit| limit + memory),
        cpu_limit_millis: sum(&limit("cpu", true)).map(|limit| limit + cpu),
        cpu_request_millis: Some(sum(&request).unwrap_or(0) + cpu).filter(|request| *request > 0),
        oom_score_adj: 0,
    }
}

/// A container's own resources. `memory` is the node's.
///
/// # Errors
/// A quantity that is none.
pub fn resources(pod: &Pod, container: &Container, memory: i64) -> Result<Resources, String> {
    let quantity = |value: Option<&serde_json::Value>| value.map(downward::parse).transpose();
    let (limits, requests) = (&container.resources.limits, &container.resources.requests);
    let asked = quantity(requests.get("memory"))?.map_or(0, |q| q.units());
    Ok(Resources {
        memory_limit: quantity(limits.get("memory"))?.and_then(|q| u64::try_from(q.units()).ok()),
        cpu_limit_millis: quantity(limits.get("cpu"))?.and_then(|q| u64::try_from(q.millis()).ok()),
        cpu_request_millis: quantity(requests.get("cpu"))?.and_then(|q| u64::try_from(q.millis()).ok()),
        oom_score_adj: oom_score(if node_critical(pod) { Qos::Guaranteed } else { qos(pod) }, asked, memory),
    })
}

/// What the node cannot do without goes last, whatever it asks for.
fn node_critical(pod: &Pod) -> bool {
    pod.spec.priority >= CRITICAL && pod.spec.priority_class_name == "system-node-critical"
}

/// kubelet's rule: guaranteed pods go last, best-effort ones first, others the earlier the less of the node's memory they asked for.
fn oom_score(qos: Qos, request: i64, memory: i64) -> i32 {
    match qos {
        Qos::Guaranteed => -997,
        Qos::BestEffort => 1000,
        Qos::Burstable => {
            let share = 1000_i64.saturating_mul(request).checked_div(memory).unwrap_or(0);
            i32::try_from((1000 - share).clamp(3, 999)).unwrap_or(999)
        }
    }
}

/// What the container's process may do. `profiles` is the node's directory of seccomp profiles.
///
/// # Errors
/// A profile that leads out of that directory.
pub fn security(pod: &Pod, container: &Container, profiles: &Path) -> Result<Security, String> {
    let (own, pods) = (&container.security_context, &pod.spec.security_context);
    let mut supplemental_groups = pods.supplemental_groups.clone();
    supplemental_groups.extend(pods.fs_group);
    Ok(Security {
        privileged: own.privileged == Some(true),
        run_as_user: own.run_as_user.or(pods.run_as_user),
        run_as_group: own.run_as_group.or(pods.run_as_group),
        run_as_non_root: own.run_as_non_root.or(pods.run_as_non_root).unwrap_or(false),
        supplemental_groups,
        strict_groups: pods.supplemental_groups_policy == "Strict",
        add: own.capabilities.add.clone(),
        drop: own.capabilities.drop.clone(),
        read_only_root: own.read_only_root_filesystem,
        allow_privilege_escalation: own.allow_privilege_escalation,
        unmasked_proc: own.proc_mount == "Unmasked",
        seccomp: seccomp(own.seccomp_profile.as_ref().or(pods.seccomp_profile.as_ref()), profiles)?,
    })
}

fn seccomp(profile: Option<&SeccompProfile>, profiles: &Path) -> Result<Seccomp, String> {
    let Some(profile) = profile else { return Ok(Seccomp::Unconfined) };
    match profile.kind.as_str() {
        "RuntimeDefault" => Ok(Seccomp::RuntimeDefault),
        "Unconfined" => Ok(Seccomp::Unconfined),
        "Localhost" => {
            let path = Path::new(&profile.localhost_profile);
            match path.as_os_str().is_empty() || path.components().any(|part| !matches!(part, Component::Normal(_))) {
                true => Err(format!("localhostProfile {:?} is no path below {}", profile.localhost_profile, profiles.display())),
                false => Ok(Seccomp::Localhost(profiles.join(path))),
            }
        }
        other => Err(format!("seccompProfile of type {other:?} is not known")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(spec: serde_json::Value) -> Pod {
        serde_json::from_value(json!({ "metadata": { "name": "p" }, "spec": spec, "status": { "qosClass": "Burstable" } })).unwrap()
    }

    #[test]
    fn the_container_goes_before_the_pod() {
        let pod = pod(json!({
            "securityContext": { "runAsUser": 1, "runAsGroup": 2, "fsGroup": 3, "supplementalGroups": [4], "seccompProfile": { "type": "RuntimeDefault" } },
            "containers": [
                { "name": "a" },
                { "name": "b", "securityContext": { "runAsUser": 9, "seccompProfile": { "type": "Localhost", "localhostProfile": "x/y.json" }, "procMount": "Unmasked" } },
                { "name": "c", "securityContext": { "seccompProfile": { "type": "Localhost", "localhostProfile": "../y.json" } } },
            ],
        }));
        let security = |index: usize| security(&pod, &pod.spec.containers[index], Path::new("/p"));
        let a = security(0).unwrap();
        assert_eq!((a.run_as_user, a.run_as_group, a.supplemental_groups, a.seccomp), (Some(1), Some(2), vec![4, 3], Seccomp::RuntimeDefault));
        let b = security(1).unwrap();
        assert_eq!((b.run_as_user, b.unmasked_proc, b.seccomp), (Some(9), true, Seccomp::Localhost("/p/x/y.json".into())));
        assert!(security(2).unwrap_err().contains("../y.json"));
    }

    #[test]
    fn the_pod_is_limited_when_all_its_containers_are() {
        let limited = json!({ "resources": { "limits": { "memory": "10Mi", "cpu": "500m" }, "requests": { "cpu": "250m" } } });
        let both = sandbox(&pod(json!({ "containers": [limited, limited] })));
        assert_eq!(
            (both.resources.memory_limit, both.resources.cpu_limit_millis, both.resources.cpu_request_millis),
            (Some(20 << 20), Some(1000), Some(500))
        );
        assert_eq!(both.qos, Qos::Burstable);
        let classed = sandbox(&pod(json!({ "overhead": { "memory": "1Mi", "cpu": "100m" }, "containers": [limited, limited] })));
        assert_eq!(
            (classed.resources.memory_limit, classed.resources.cpu_limit_millis, classed.resources.cpu_request_millis),
            (Some(21 << 20), Some(1100), Some(600)),
            "what the runtime itself takes comes on top"
        );
        let none = sandbox(&pod(json!({ "overhead": { "memory": "1Mi", "cpu": "100m" }, "containers": [{}] })));
        assert_eq!((none.resources.memory_limit, none.resources.cpu_limit_millis, none.resources.cpu_request_millis), (None, None, Some(100)));
        let one = sandbox(&pod(json!({ "containers": [limited, {}] })));
        assert_eq!((one.resources.memory_limit, one.resources.cpu_request_millis), (None, Some(250)));
    }

    #[test]
    fn who_goes_first_when_memory_ends_is_kubelets_rule() {
        assert_eq!([oom_score(Qos::Guaranteed, 5, 10), oom_score(Qos::BestEffort, 0, 10)], [-997, 1000]);
        assert_eq!([oom_score(Qos::Burstable, 0, 1000), oom_score(Qos::Burstable, 500, 1000), oom_score(Qos::Burstable, 1000, 1000)], [999, 500, 3]);
    }
}
