//! Whom a shortage costs: pods in kubelet's order, and its words. Pure.

use super::{Resource, state::Starved};
use crate::{
    pods::{fit, spec::Pod},
    stats::disk::OnDisk,
};
use coracle_api::{
    amounts::{Amounts, of_containers, quantity},
    names::quote,
    quantity::Quantity,
};
use coracle_runtime::PodStats;
use std::cmp::Reverse;

/// Pods of this priority are never evicted (`system-cluster-critical`).
pub const CRITICAL: i64 = 2_000_000_000;

/// A pod that runs, and what it uses.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// It.
    pub pod: &'a Pod,
    /// CPU, memory, processes; none when nothing could be measured.
    pub stats: Option<&'a PodStats>,
    /// Disk.
    pub disk: Option<&'a OnDisk>,
}

/// Whether a pod is spared whatever happens: those of the cluster itself, and those of this node's own files.
pub fn critical(pod: &Pod) -> bool {
    pod.spec.priority >= CRITICAL || pod.from_file
}

impl Candidate<'_> {
    fn memory(&self) -> Option<u64> {
        let stats = self.stats?;
        let sum = || stats.containers.iter().map(|(_, stats)| stats.memory_bytes).sum();
        Some(stats.whole.as_ref().map_or_else(sum, |whole| whole.memory_bytes))
    }

    fn used(&self, resource: Resource) -> Option<u64> {
        match resource {
            Resource::Memory => self.memory(),
            Resource::Disk => self.disk.map(|disk| disk.total().bytes),
            Resource::Inodes => self.disk.map(|disk| disk.total().inodes),
            Resource::Pids => self.stats?.whole.as_ref()?.group.as_ref().map(|group| group.tasks),
        }
    }

    fn asked(&self, resource: Resource) -> i64 {
        let asks = fit::asks(self.pod);
        match resource {
            Resource::Memory => asks.memory,
            Resource::Disk => asks.storage,
            Resource::Inodes | Resource::Pids => 0,
        }
    }
}

/// The order in which pods go: first those that are not measured, then those that use more than they asked for, then by priority, then by how much more.
pub fn order(candidates: &mut [Candidate<'_>], resource: Resource) {
    candidates.sort_by_cached_key(|candidate| {
        let more = candidate.used(resource).map(|used| i64::try_from(used).unwrap_or(i64::MAX).saturating_sub(candidate.asked(resource)));
        // Nobody asks for processes: there priority alone goes before.
        let exceeds = resource != Resource::Pids && more.is_some_and(|more| more > 0);
        (more.is_some(), !exceeds, candidate.pod.spec.priority, Reverse(more))
    });
}

/// The pod's message.
pub fn message(candidate: &Candidate<'_>, starved: &Starved) -> String {
    let (resource, signal) = (starved.signal.resource(), starved.signal);
    let name = resource.name();
    let mut text = format!(
        "The node was low on resource: {name}. Threshold quantity: {}, available: {}. ",
        signal.quantity(starved.threshold),
        signal.quantity(starved.available)
    );
    let bytes = |amount: u64| Quantity::from_bytes(i64::try_from(amount).unwrap_or(i64::MAX));
    let asked = |list: &std::collections::BTreeMap<String, serde_json::Value>| list.get(name).map(quantity);
    if resource == Resource::Memory
        && let (Some(asked), Some(used)) = (asked(&candidate.pod.spec.resources.requests), candidate.memory())
    {
        text += &format!("Pod {} was using {}, request is {asked}, has larger consumption of {name}. ", candidate.pod.metadata.name, bytes(used));
    }
    for (container, stats) in candidate.stats.iter().flat_map(|stats| &stats.containers) {
        let Some(spec) = candidate.pod.spec.containers.iter().chain(&candidate.pod.spec.init_containers).find(|spec| spec.name == *container) else {
            continue;
        };
        let used = match resource {
            Resource::Memory => stats.memory_bytes,
            Resource::Disk => candidate.disk.map_or(0, |disk| disk.of_container(container).bytes),
            Resource::Inodes | Resource::Pids => continue,
        };
        let (used, asked) = (bytes(used), asked(&spec.resources.requests).unwrap_or(Quantity::ZERO));
        if used > asked {
            text += &format!("Container {container} was using {used}, request is {asked}, has larger consumption of {name}. ");
        }
    }
    text
}

const STORAGE: &str = "ephemeral-storage";

fn limit(list: &std::collections::BTreeMap<String, serde_json::Value>) -> Option<Quantity> {
    list.get(STORAGE).map(quantity).filter(|limit| !limit.is_zero())
}

/// The pod has a limit of local disk, so it is worth measuring.
pub fn limited(pod: &Pod) -> bool {
    !critical(pod) && pod.all_containers().any(|container| limit(&container.resources.limits).is_some())
}

/// What is wrong with a pod that takes more of the disk than it may.
pub fn over_limit(pod: &Pod, disk: &OnDisk) -> Option<String> {
    let amounts = |list: &std::collections::BTreeMap<String, serde_json::Value>| Amounts {
        storage: limit(list).map_or(0, |limit| limit.units()),
        ..Amounts::default()
    };
    if limited(pod) {
        let inits = pod.spec.init_containers.iter().map(|container| (amounts(&container.resources.limits), container.is_sidecar()));
        let all = of_containers(pod.spec.containers.iter().map(|container| amounts(&container.resources.limits)), inits);
        if u64::try_from(all.storage).is_ok_and(|limit| disk.total().bytes > limit) {
            let limit = Quantity::from_bytes(all.storage);
            return Some(format!("Pod ephemeral local storage usage exceeds the total limit of containers {limit}. "));
        }
    }
    pod.spec.containers.iter().find_map(|container| {
        let limit = limit(&container.resources.limits)?;
        let exceeds = u64::try_from(limit.units()).is_ok_and(|bytes| disk.of_container(&container.name).bytes > bytes);
        exceeds.then(|| format!("Container {} exceeded its local ephemeral storage limit {}. ", container.name, quote(&limit.to_string())))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{eviction::Signal, volumes::walk::Used};
    use coracle_runtime::{Stats, stats::Group};
    use serde_json::json;

    fn pod(name: &str, priority: i64, request: &str) -> Pod {
        let requests = if request.is_empty() { json!({}) } else { json!({ "memory": request, "ephemeral-storage": request }) };
        serde_json::from_value(json!({
            "metadata": { "name": name, "uid": name }, "spec": { "priority": priority, "containers": [{ "name": "c", "resources": { "requests": requests } }] },
        }))
        .unwrap()
    }

    fn stats(memory: u64, tasks: u64) -> PodStats {
        let group = Some(Group { tasks, ..Group::default() });
        let whole = Stats { memory_bytes: memory, group, ..Stats::default() };
        PodStats { whole: Some(whole.clone()), containers: vec![("c".into(), whole)], ..PodStats::default() }
    }

    fn on_disk(bytes: u64) -> OnDisk {
        OnDisk { logs: [("c".into(), Used { bytes, inodes: bytes })].into(), ..OnDisk::default() }
    }

    #[test]
    fn usage_above_requests_then_priority_then_how_much() {
        // Name, priority, request, use: in the order in which they go.
        let table = [
            ("above-low", 0, "10", Some(20)),
            ("above-low-less", 0, "", Some(5)),
            ("above-high", 9, "10", Some(1000)),
            ("within-low-more", -5, "100", Some(99)),
            ("within-low", -5, "100", Some(10)),
            ("within-high", 9, "10", Some(10)),
        ];
        let pods: Vec<Pod> = table.iter().map(|(name, priority, request, _)| pod(name, *priority, request)).collect();
        let used: Vec<PodStats> = table.iter().map(|row| stats(row.3.unwrap(), 1)).collect();
        let disks: Vec<OnDisk> = table.iter().map(|row| on_disk(row.3.unwrap())).collect();
        let unknown = pod("unknown", 100, "1Gi");
        for resource in [Resource::Memory, Resource::Disk] {
            let mut candidates: Vec<_> =
                pods.iter().zip(&used).zip(&disks).map(|((pod, stats), disk)| Candidate { pod, stats: Some(stats), disk: Some(disk) }).collect();
            candidates.reverse();
            candidates.push(Candidate { pod: &unknown, stats: None, disk: None });
            order(&mut candidates, resource);
            let names: Vec<_> = candidates.iter().map(|candidate| candidate.pod.metadata.name.as_str()).collect();
            assert_eq!(
                names,
                ["unknown", "above-low", "above-low-less", "above-high", "within-low-more", "within-low", "within-high"],
                "{resource:?}"
            );
        }
    }

    #[test]
    fn processes_cost_the_lowest_priority_and_then_whoever_has_most() {
        let pods = [pod("high", 5, ""), pod("few", 0, ""), pod("many", 0, "")];
        let used = [stats(0, 100), stats(0, 2), stats(0, 50)];
        let mut candidates: Vec<_> = pods.iter().zip(&used).map(|(pod, stats)| Candidate { pod, stats: Some(stats), disk: None }).collect();
        order(&mut candidates, Resource::Pids);
        assert_eq!(candidates.iter().map(|candidate| candidate.pod.metadata.name.as_str()).collect::<Vec<_>>(), ["many", "few", "high"]);
    }

    #[test]
    fn the_message_is_kubelets() {
        let (pod, used) = (pod("p", 0, "1Mi"), stats(3 << 20, 1));
        let candidate = Candidate { pod: &pod, stats: Some(&used), disk: None };
        let starved = |signal, threshold, available| Starved { signal, hard: true, threshold, available };
        assert_eq!(
            message(&candidate, &starved(Signal::MemoryAvailable, 100 << 20, 1_000_001)),
            "The node was low on resource: memory. Threshold quantity: 100Mi, available: 1000001. Container c was using 3Mi, request is 1Mi, has larger \
             consumption of memory. "
        );
        assert_eq!(
            message(&candidate, &starved(Signal::PidAvailable, 1000, 7)),
            "The node was low on resource: pids. Threshold quantity: 1k, available: 7. "
        );
        let disk = on_disk(2048);
        let asked = super::tests::pod("p", 0, "");
        let candidate = Candidate { pod: &asked, stats: Some(&used), disk: Some(&disk) };
        assert_eq!(
            message(&candidate, &starved(Signal::NodeFsAvailable, 10 << 30, 1 << 30)),
            "The node was low on resource: ephemeral-storage. Threshold quantity: 10Gi, available: 1Gi. Container c was using 2Ki, request is 0, has larger \
             consumption of ephemeral-storage. "
        );
    }

    #[test]
    fn limits_of_local_disk() {
        let pod = |first: &str, second: &str| -> Pod {
            let limits = |limit: &str| if limit.is_empty() { json!({}) } else { json!({ "limits": { "ephemeral-storage": limit } }) };
            serde_json::from_value(
                json!({ "spec": { "containers": [{ "name": "c", "resources": limits(first) }, { "name": "d", "resources": limits(second) }] } }),
            )
            .unwrap()
        };
        let disk = on_disk(3 << 20);
        assert!(!limited(&pod("", "")) && over_limit(&pod("", ""), &disk).is_none());
        assert_eq!(over_limit(&pod("3Mi", ""), &disk), None);
        assert_eq!(over_limit(&pod("2Mi", "2Mi"), &disk).unwrap(), "Container c exceeded its local ephemeral storage limit \"2Mi\". ");
        assert_eq!(over_limit(&pod("1Mi", "1Mi"), &disk).unwrap(), "Pod ephemeral local storage usage exceeds the total limit of containers 2Mi. ");
        let mut critical = pod("1Mi", "1Mi");
        critical.spec.priority = CRITICAL;
        assert!(!limited(&critical));
    }
}
