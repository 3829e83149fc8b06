//! What a pod of processes is to its runtime: pure, from the pod's spec.

use crate::pods::{
    downward, fit,
    spec::{self, Container, Pod, SeccompProfile},
};
use coracle_api::amounts::{Amounts, of_containers, quantity};
use coracle_runtime::{LinuxSandbox, Qos, Reclaim, Resources, Seccomp, Security};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    path::{Component, Path},
};

/// The least priority of critical pods.
const CRITICAL: i64 = 2_000_000_000;

/// Of what a container may use before it is slowed down: kubelet's default `memoryThrottlingFactor`.
const THROTTLING: f64 = 0.9;

/// What of the node matters to what its pods are given.
#[derive(Clone, Copy, Debug, Default)]
pub struct Node {
    /// Bytes of memory.
    pub memory: i64,
    /// With memory QoS (KEP-2570): bytes of memory that pods may have together. None: without.
    pub reclaims: Option<i64>,
    /// Processes and threads that a pod may have.
    pub pids: Option<u64>,
}

/// What the pod's containers share.
pub fn sandbox(pod: &Pod, node: Node) -> LinuxSandbox {
    let spec = &pod.spec;
    LinuxSandbox {
        host_network: spec.host_network,
        host_pid: spec.host_pid,
        host_ipc: spec.host_ipc,
        share_processes: spec.share_process_namespace,
        sysctls: spec.security_context.sysctls.iter().map(|sysctl| (sysctl.name.clone(), sysctl.value.clone())).collect(),
        host_aliases: spec.host_aliases.iter().map(|alias| (alias.ip.clone(), alias.hostnames.clone())).collect(),
        qos: qos(pod),
        resources: whole(pod, node),
        pids_limit: node.pids,
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

/// What the pod itself says (KEP-2837), else requests of all containers together, and limits where every container has one; the RuntimeClass's overhead comes on top of both (KEP-688).
pub fn whole(pod: &Pod, node: Node) -> Resources {
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
    let own = |name: &str, millis: bool| {
        let value = quantity(pod.spec.resources.limits.get(name)?);
        u64::try_from(if millis { value.millis() } else { value.units() }).ok().filter(|limit| *limit > 0)
    };
    let asks = fit::asks(pod);
    Resources {
        memory_limit: own("memory", false).or_else(|| sum(&limit("memory", false))).map(|limit| limit + overhead("memory", false)),
        cpu_limit_millis: own("cpu", true).or_else(|| sum(&limit("cpu", true))).map(|limit| limit + overhead("cpu", true)),
        cpu_request_millis: u64::try_from(asks.cpu).ok().filter(|request| *request > 0),
        oom_score_adj: 0,
        huge_pages: asks.others.iter().filter_map(|(name, bytes)| Some((page_size(name)?, u64::try_from(*bytes).ok()?))).collect(),
        reclaim: node.reclaims.map_or_else(Reclaim::default, |_| kept(pod, asks.memory)),
    }
}

/// The size of a page, out of a resource's name such as `hugepages-2Mi`.
pub fn page_size(name: &str) -> Option<u64> {
    u64::try_from(quantity(&json!(name.strip_prefix("hugepages-")?)).units()).ok().filter(|size| *size > 0)
}

/// Memory that was asked for stays: for certain in Guaranteed pods, else where that can be (kubelet's `TieredReservation`).
fn kept(pod: &Pod, request: i64) -> Reclaim {
    let request = u64::try_from(request).unwrap_or(0);
    match qos(pod) {
        Qos::Guaranteed => Reclaim { min: request, ..Reclaim::default() },
        _ => Reclaim { low: request, ..Reclaim::default() },
    }
}

/// What a container uses beyond its request is taken back before it meets its limit, or the node's end: kubelet's formula, in whole pages.
fn high(request: i64, limit: Option<i64>, allocatable: i64) -> Option<u64> {
    if Some(request) == limit {
        return None;
    }
    let most = limit.unwrap_or(allocatable);
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "upstream reckons so, and rounds to pages")]
    let high = (request as f64 + (most - request) as f64 * THROTTLING) as i64;
    let page = i64::try_from(rustix::param::page_size()).unwrap_or(4096);
    u64::try_from(high / page * page).ok().filter(|high| i64::try_from(*high).is_ok_and(|high| high > request))
}

/// A container's own resources; where it has no limit, the pod's own is its, too.
///
/// # Errors
/// A quantity that is none.
pub fn resources(pod: &Pod, container: &Container, node: Node) -> Result<Resources, String> {
    let spec::Resources { limits, requests } = &container.resources;
    let quantity = |list: &BTreeMap<String, Value>, name: &str| list.get(name).map(downward::parse).transpose();
    let whole = &pod.spec.resources.limits;
    let limit = |name: &str| Ok::<_, String>(quantity(limits, name)?.or(quantity(whole, name)?));
    let asked = quantity(requests, "memory")?.map_or(0, |q| q.units());
    let most = quantity(limits, "memory")?.map(|q| q.units()).filter(|limit| *limit > 0);
    let pages = whole.iter().chain(limits).filter_map(|(name, value)| Some((page_size(name)?, value)));
    Ok(Resources {
        memory_limit: limit("memory")?.and_then(|q| u64::try_from(q.units()).ok()),
        cpu_limit_millis: limit("cpu")?.and_then(|q| u64::try_from(q.millis()).ok()),
        cpu_request_millis: quantity(requests, "cpu")?.and_then(|q| u64::try_from(q.millis()).ok()),
        oom_score_adj: oom_score(if node_critical(pod) { Qos::Guaranteed } else { qos(pod) }, weight(pod, container), node.memory),
        huge_pages: pages
            .map(|(size, value)| Ok((size, u64::try_from(downward::parse(value)?.units()).unwrap_or(0))))
            .collect::<Result<_, String>>()?,
        reclaim: node.reclaims.map_or_else(Reclaim::default, |allocatable| Reclaim { high: high(asked, most, allocatable), ..kept(pod, asked) }),
    })
}

/// What the node cannot do without goes last, whatever it asks for.
fn node_critical(pod: &Pod) -> bool {
    pod.spec.priority >= CRITICAL && pod.spec.priority_class_name == "system-node-critical"
}

/// Memory that a container counts as having asked for when there is none left: a sidecar goes no sooner than those it serves (KEP-753), and what the pod asks for beyond its
/// containers is theirs in equal parts (KEP-2837).
fn weight(pod: &Pod, container: &Container) -> i64 {
    let (inits, mains) = (&pod.spec.init_containers, &pod.spec.containers);
    let asked = |container: &Container| container.resources.requests.get("memory").map_or(0, |memory| quantity(memory).units());
    let sidecar = container.is_sidecar() && inits.iter().any(|init| init.name == container.name);
    let least = if sidecar { mains.iter().map(asked).min() } else { None };
    let share = pod.spec.resources.requests.get("memory").map_or(0, |whole| {
        let amounts = |container: &Container| Amounts { memory: asked(container), ..Amounts::default() };
        let together = of_containers(mains.iter().map(amounts), inits.iter().map(|init| (amounts(init), init.is_sidecar()))).memory;
        let count = i64::try_from(inits.len() + mains.len()).unwrap_or(1);
        quantity(whole).units().saturating_sub(together).max(0).checked_div(count).unwrap_or(0)
    });
    asked(container).max(least.unwrap_or(0)).saturating_add(share)
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
        let both = sandbox(&pod(json!({ "containers": [limited, limited] })), Node::default());
        assert_eq!(
            (both.resources.memory_limit, both.resources.cpu_limit_millis, both.resources.cpu_request_millis),
            (Some(20 << 20), Some(1000), Some(500))
        );
        assert_eq!(both.qos, Qos::Burstable);
        let classed = sandbox(&pod(json!({ "overhead": { "memory": "1Mi", "cpu": "100m" }, "containers": [limited, limited] })), Node::default());
        assert_eq!(
            (classed.resources.memory_limit, classed.resources.cpu_limit_millis, classed.resources.cpu_request_millis),
            (Some(21 << 20), Some(1100), Some(600)),
            "what the runtime itself takes comes on top"
        );
        let none = sandbox(&pod(json!({ "overhead": { "memory": "1Mi", "cpu": "100m" }, "containers": [{}] })), Node::default());
        assert_eq!((none.resources.memory_limit, none.resources.cpu_limit_millis, none.resources.cpu_request_millis), (None, None, Some(100)));
        let one = sandbox(&pod(json!({ "containers": [limited, {}] })), Node::default());
        assert_eq!((one.resources.memory_limit, one.resources.cpu_request_millis), (None, Some(250)));
    }

    #[test]
    fn the_pod_may_say_itself_what_it_has() {
        let pod = pod(
            json!({ "resources": { "limits": { "memory": "30Mi", "cpu": "2", "hugepages-2Mi": "8Mi" }, "requests": { "cpu": "1", "hugepages-2Mi": "8Mi" } },
            "containers": [{ "resources": { "limits": { "cpu": "500m", "hugepages-2Mi": "4Mi" } } }, {}] }),
        );
        let whole = sandbox(&pod, Node::default()).resources;
        assert_eq!((whole.memory_limit, whole.cpu_limit_millis, whole.cpu_request_millis), (Some(30 << 20), Some(2000), Some(1000)));
        assert_eq!(whole.huge_pages, BTreeMap::from([(2 << 20, 8 << 20)]));
        let own = |index: usize| resources(&pod, &pod.spec.containers[index], Node::default()).unwrap();
        assert_eq!((own(0).memory_limit, own(0).cpu_limit_millis, own(1).cpu_limit_millis), (Some(30 << 20), Some(500), Some(2000)));
        assert_eq!((own(0).huge_pages[&(2 << 20)], own(1).huge_pages[&(2 << 20)]), (4 << 20, 8 << 20));
    }

    #[test]
    fn huge_pages_are_summed_by_their_size() {
        let some = json!({ "resources": { "limits": { "hugepages-2Mi": "4Mi", "hugepages-1Gi": "1Gi", "memory": "1Mi" }, "requests": { "hugepages-2Mi": "4Mi", "hugepages-1Gi": "1Gi" } } });
        let pod = pod(json!({ "containers": [some, some] }));
        assert_eq!(sandbox(&pod, Node::default()).resources.huge_pages, BTreeMap::from([(2 << 20, 8 << 20), (1 << 30, 2 << 30)]));
        let own = resources(&pod, &pod.spec.containers[0], Node::default()).unwrap();
        assert_eq!(own.huge_pages, BTreeMap::from([(2 << 20, 4 << 20), (1 << 30, 1 << 30)]));
        assert_eq!([page_size("hugepages-64Ki"), page_size("hugepages-"), page_size("memory")], [Some(64 << 10), None, None]);
    }

    #[test]
    fn memory_that_was_asked_for_is_kept_where_the_node_does_that() {
        let with = |class: &str, memory: Value| {
            let mut pod = pod(json!({ "containers": [{ "resources": memory }] }));
            pod.status.qos_class = class.into();
            let of = |node: Node| (sandbox(&pod, node).resources.reclaim, resources(&pod, &pod.spec.containers[0], node).unwrap().reclaim);
            assert_eq!(of(Node::default()), (Reclaim::default(), Reclaim::default()), "only where it is asked for");
            of(Node { memory: 1 << 30, reclaims: Some(1000 << 20), ..Node::default() })
        };
        let (mib, page) = (1 << 20, 4096);
        let same = json!({ "limits": { "memory": "100Mi" }, "requests": { "memory": "100Mi" } });
        let kept = Reclaim { min: 100 * mib, low: 0, high: None };
        assert_eq!(with("Guaranteed", same), (kept, kept), "what is never slowed down may use it all");
        let more = json!({ "limits": { "memory": "200Mi" }, "requests": { "memory": "100Mi" } });
        let kept = Reclaim { min: 0, low: 100 * mib, high: None };
        assert_eq!(with("Burstable", more), (kept, Reclaim { high: Some(190 * mib), ..kept }));
        let none = json!({ "requests": { "memory": "100Mi" } });
        assert_eq!(with("Burstable", none).1.high, Some(910 * mib), "up to what the node has for pods");
        let (pod, container) = with("BestEffort", json!({}));
        assert_eq!((pod, container), (Reclaim::default(), Reclaim { high: Some(900 * mib), ..Reclaim::default() }));
        assert_eq!(high(0, Some(page + 1), 0), None, "less than a page is nothing");
    }

    #[test]
    fn who_goes_first_when_memory_ends_is_kubelets_rule() {
        assert_eq!([oom_score(Qos::Guaranteed, 5, 10), oom_score(Qos::BestEffort, 0, 10)], [-997, 1000]);
        assert_eq!([oom_score(Qos::Burstable, 0, 1000), oom_score(Qos::Burstable, 500, 1000), oom_score(Qos::Burstable, 1000, 1000)], [999, 500, 3]);
        let memory = |amount: &str| json!({ "requests": { "memory": amount } });
        let init = |name: &str, policy: &str| json!({ "name": name, "restartPolicy": policy });
        let mains = json!([{ "name": "a", "resources": memory("300") }, { "name": "b", "resources": memory("200"), "restartPolicy": "Always" }]);
        let spec = json!({ "initContainers": [init("first", ""), init("sidecar", "Always")], "containers": mains });
        let scores = |spec: &Value| {
            let pod = pod(spec.clone());
            let node = Node { memory: 1000, ..Node::default() };
            pod.all_containers().map(|container| resources(&pod, container, node).unwrap().oom_score_adj).collect::<Vec<_>>()
        };
        assert_eq!(scores(&spec), [999, 800, 700, 800], "a sidecar is as dear as the cheapest that it serves");
        let mut whole = spec;
        whole["resources"] = memory("900");
        assert_eq!(scores(&whole), [900, 700, 600, 700], "each has a quarter of what is left of the pod's");
    }
}
