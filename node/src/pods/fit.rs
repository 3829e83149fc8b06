//! Whether a pod that was bound to this node fits it, which nobody may have asked before (a pod with `spec.nodeName` passes no scheduler): kubelet's predicates
//! (`pkg/kubelet/lifecycle/predicate.go`), worded as there.
//!
//! Not here: preemption for critical pods, and NoExecute taints, which the control plane acts on.

use super::{
    machine::Verdict,
    spec::{Container, ContainerPort, Pod},
    step::EVICTED,
};
use crate::{eviction::rank::critical, registration::Pressure};
use coracle_api::{
    amounts::{Amounts, of_containers},
    selector::Selector,
};
use serde_json::Value;

const OS: &str = "kubernetes.io/os";

/// What the node has for pods: its allocatable.
#[derive(Clone, Debug, Default)]
pub struct Room {
    /// CPU, memory, disk.
    pub amounts: Amounts,
    /// Pods.
    pub pods: u32,
}

/// What the pod asks for.
pub fn asks(pod: &Pod) -> Amounts {
    let list = |container: &Container| Amounts::of(container.resources.requests.iter().map(|(name, value)| (name.as_str(), value)));
    let init = pod.spec.init_containers.iter().map(|container| (list(container), container.is_sidecar()));
    let mut total = of_containers(pod.spec.containers.iter().map(list), init);
    let own = &pod.spec.resources.requests;
    let whole = Amounts::of(own.iter().map(|(name, value)| (name.as_str(), value)));
    if own.contains_key("cpu") {
        total.cpu = whole.cpu;
    }
    if own.contains_key("memory") {
        total.memory = whole.memory;
    }
    total.others.extend(whole.others);
    total.add(&Amounts::of(pod.spec.overhead.iter().map(|(name, value)| (name.as_str(), value))));
    total
}

/// `Err` refuses the pod: its event's reason and message. `used` is what `others` pods ask for together; `node` is the Node object, if it is known here.
pub fn fits(pod: &Pod, asks: &Amounts, used: &Amounts, others: usize, room: &Room, node: Option<&Value>) -> Result<(), Verdict> {
    let refuse = |reason: &str, message: String| Err(Verdict { reason: reason.into(), message });
    if pod.metadata.labels.get(OS).is_some_and(|os| os != "linux") {
        return refuse("PodOSSelectorNodeLabelDoesNotMatch", format!("Failed to admit pod as the `{OS}` label doesn't match node label"));
    }
    if !matches!(pod.spec.os.name.as_str(), "" | "linux") {
        return refuse("PodOSNotSupported", "Failed to admit pod as the OS field doesn't match node OS".into());
    }
    if let Some(verdict) = lacks(asks, used, others, room) {
        return Err(verdict);
    }
    if node.is_some_and(|node| !wanted(pod, node)) {
        return refuse("NodeAffinity", "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector".into());
    }
    Ok(())
}

/// What there is not enough of for a pod that asks for so much, beside `others` pods that ask for `used` together.
pub fn lacks(asks: &Amounts, used: &Amounts, others: usize, room: &Room) -> Option<Verdict> {
    let others = i64::try_from(others).unwrap_or(i64::MAX);
    let capacity = &room.amounts;
    let of = |amounts: &Amounts, name: &str| amounts.others.get(name).copied().unwrap_or(0);
    // Of other resources kubelet knows only what device plugins told it.
    let pages =
        asks.others.keys().filter(|name| name.starts_with("hugepages-")).map(|name| (&**name, of(asks, name), of(used, name), of(capacity, name)));
    [
        ("pods", 1, others, i64::from(room.pods)),
        ("cpu", asks.cpu, used.cpu, capacity.cpu),
        ("memory", asks.memory, used.memory, capacity.memory),
        ("ephemeral-storage", asks.storage, used.storage, capacity.storage),
    ]
    .into_iter()
    .chain(pages)
    // What asks for nothing fits everywhere.
    .find(|(_, asked, used, capacity)| *asked > 0 && *asked > capacity.saturating_sub(*used))
    .map(|(name, asked, used, capacity)| Verdict {
        reason: format!("OutOf{name}"),
        message: format!("Node didn't have enough resource: {name}, requested: {asked}, used: {used}, capacity: {capacity}"),
    })
}

/// `Err` refuses a pod that a node under pressure does not take (kubelet's eviction manager as an admission handler): all of them when disk or process ids are
/// short, those that ask for nothing when memory is. Critical pods are always taken.
pub fn bears(pod: &Pod, pressure: Pressure) -> Result<(), Verdict> {
    let conditions = [("MemoryPressure", pressure.memory), ("DiskPressure", pressure.disk), ("PIDPressure", pressure.pid)];
    let conditions: Vec<&str> = conditions.into_iter().filter_map(|(name, holds)| holds.then_some(name)).collect();
    if conditions.is_empty() || critical(pod) {
        return Ok(());
    }
    let asks_for_something = matches!(pod.status.qos_class.as_str(), "Burstable" | "Guaranteed");
    let bears_it = || pod.spec.tolerations.iter().any(|toleration| toleration.bears("node.kubernetes.io/memory-pressure", "NoSchedule"));
    if conditions == ["MemoryPressure"] && (asks_for_something || bears_it()) {
        return Ok(());
    }
    Err(Verdict { reason: EVICTED.into(), message: format!("The node had condition: [{}]. ", conditions.join(" ")) })
}

/// Whether the pod's host ports are free beside those of `others`: two want the same one if protocol and number are, at one address or either at all.
///
/// # Errors
/// They are not.
pub fn ports<'a>(pod: &Pod, others: impl IntoIterator<Item = &'a Pod>) -> Result<(), Verdict> {
    let everywhere = |ip: &str| matches!(ip, "" | "0.0.0.0" | "::");
    let protocol = |port: &ContainerPort| if port.protocol.is_empty() { "TCP".to_owned() } else { port.protocol.clone() };
    let clash = |a: &ContainerPort, b: &ContainerPort| {
        a.host_port == b.host_port && protocol(a) == protocol(b) && (a.host_ip == b.host_ip || everywhere(&a.host_ip) || everywhere(&b.host_ip))
    };
    if pod.host_ports().next().is_none() || !others.into_iter().any(|other| other.host_ports().any(|b| pod.host_ports().any(|a| clash(a, b)))) {
        return Ok(());
    }
    let message = "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports";
    Err(Verdict { reason: "NodePorts".into(), message: message.into() })
}

/// The node has the labels and the name that `nodeSelector` and required node affinity ask for.
fn wanted(pod: &Pod, node: &Value) -> bool {
    let (labels, name) = (&node["metadata"]["labels"], node["metadata"]["name"].as_str());
    if !Selector::from_map(&pod.spec.node_selector).is_ok_and(|selector| selector.matches_labels(labels)) {
        return false;
    }
    let Some(required) = &pod.spec.affinity.node_affinity.required else { return true };
    required.node_selector_terms.iter().any(|term| {
        let (labelled, named) = (Selector::from_node_requirements(&term.match_expressions), Selector::from_node_requirements(&term.match_fields));
        let (Ok(labelled), Ok(named)) = (labelled, named) else { return false };
        // A term without requirements matches nothing.
        !(labelled.is_everything() && named.is_everything())
            && labelled.matches_labels(labels)
            && named.matches(|key| name.filter(|_| key == "metadata.name"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(spec: Value) -> Pod {
        serde_json::from_value(json!({ "metadata": { "name": "p" }, "spec": spec })).unwrap()
    }

    fn judge(spec: Value, used: (i64, usize), node: Option<Value>) -> Result<(), (String, String)> {
        let room = Room { amounts: Amounts { cpu: 2000, memory: 1 << 30, storage: 1 << 30, ..Amounts::default() }, pods: 10 };
        let used_amounts = Amounts { cpu: used.0, ..Amounts::default() };
        let pod = pod(spec);
        fits(&pod, &asks(&pod), &used_amounts, used.1, &room, node.as_ref()).map_err(|verdict| (verdict.reason, verdict.message))
    }

    fn cpu(amount: &str) -> Value {
        json!({ "containers": [{ "name": "c", "resources": { "requests": { "cpu": amount } } }] })
    }

    #[test]
    fn resources_are_reckoned_and_worded_as_kubelet_does() {
        assert_eq!(judge(cpu("1500m"), (500, 9), None), Ok(()));
        let (reason, message) = judge(cpu("1501m"), (500, 0), None).unwrap_err();
        assert_eq!(reason, "OutOfcpu");
        assert_eq!(message, "Node didn't have enough resource: cpu, requested: 1501, used: 500, capacity: 2000");
        let (reason, message) = judge(cpu("9"), (0, 10), None).unwrap_err();
        assert_eq!(
            (reason.as_str(), message.as_str()),
            ("OutOfpods", "Node didn't have enough resource: pods, requested: 1, used: 10, capacity: 10")
        );
        let memory = json!({ "initContainers": [{ "name": "i", "resources": { "requests": { "memory": "2Gi" } } }], "containers": [] });
        assert_eq!(judge(memory, (0, 0), None).unwrap_err().0, "OutOfmemory");
        let disk = json!({ "containers": [], "overhead": { "ephemeral-storage": "2Gi" } });
        assert_eq!(judge(disk, (0, 0), None).unwrap_err().0, "OutOfephemeral-storage");
        let pages = json!({ "containers": [{ "resources": { "requests": { "hugepages-2Mi": "2Mi" } } }] });
        assert_eq!(judge(pages, (0, 0), None).unwrap_err().0, "OutOfhugepages-2Mi");
        // A node that is over its measure takes those that ask for nothing.
        assert_eq!(judge(cpu("0"), (3000, 0), None), Ok(()));
        assert_eq!(
            asks(&pod(json!({ "containers": [{ "resources": { "requests": { "cpu": "1" } } }], "resources": { "requests": { "cpu": "250m" } } })))
                .cpu,
            250
        );
    }

    #[test]
    fn a_node_under_pressure_takes_what_it_can_bear() {
        let pod = |class: &str, priority: i64, tolerations: Value| -> Pod {
            serde_json::from_value(json!({ "spec": { "priority": priority, "tolerations": tolerations }, "status": { "qosClass": class } })).unwrap()
        };
        let (memory, disk) = (Pressure { memory: true, ..Pressure::default() }, Pressure { disk: true, ..Pressure::default() });
        let both = Pressure { memory: true, ..disk };
        let judge = |pod: &Pod, pressure| bears(pod, pressure).map_err(|verdict| (verdict.reason, verdict.message));
        let refused = |conditions: &str| Err(("Evicted".to_string(), format!("The node had condition: [{conditions}]. ")));
        let plain = pod("BestEffort", 0, json!([]));
        assert_eq!(judge(&plain, Pressure::default()), Ok(()));
        assert_eq!(judge(&plain, memory), refused("MemoryPressure"));
        assert_eq!(judge(&plain, both), refused("MemoryPressure DiskPressure"));
        assert_eq!(judge(&pod("Burstable", 0, json!([])), memory), Ok(()));
        assert_eq!(judge(&pod("Guaranteed", 0, json!([])), disk), refused("DiskPressure"));
        assert_eq!(judge(&pod("BestEffort", 2_000_000_000, json!([])), both), Ok(()));
        for (toleration, bears) in [
            (json!({ "key": "node.kubernetes.io/memory-pressure", "operator": "Exists", "effect": "NoSchedule" }), true),
            (json!({ "operator": "Exists" }), true),
            (json!({ "key": "node.kubernetes.io/memory-pressure" }), true),
            (json!({ "key": "node.kubernetes.io/memory-pressure", "value": "x" }), false),
            (json!({ "key": "node.kubernetes.io/disk-pressure", "operator": "Exists" }), false),
            (json!({ "operator": "Exists", "effect": "NoExecute" }), false),
        ] {
            let pod = pod("BestEffort", 0, json!([toleration]));
            assert_eq!(judge(&pod, memory).is_ok(), bears, "{toleration}");
            assert_eq!(judge(&pod, disk), refused("DiskPressure"), "a toleration is for memory alone");
        }
    }

    #[test]
    fn labels_and_affinity_must_match_the_node_when_it_is_known() {
        let node = json!({ "metadata": { "name": "n1", "labels": { "disk": "ssd", "cores": "8" } } });
        let affinity = |terms: Value| json!({ "containers": [], "affinity": { "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": terms } } } });
        for (spec, fits) in [
            (json!({ "containers": [], "nodeSelector": { "disk": "ssd" } }), true),
            (json!({ "containers": [], "nodeSelector": { "disk": "hdd" } }), false),
            (affinity(json!([{ "matchExpressions": [{ "key": "cores", "operator": "Gt", "values": ["4"] }] }])), true),
            (affinity(json!([{ "matchExpressions": [{ "key": "cores", "operator": "Lt", "values": ["4"] }] }, {}])), false),
            (affinity(json!([{ "matchFields": [{ "key": "metadata.name", "operator": "In", "values": ["n1"] }] }])), true),
            (affinity(json!([{ "matchFields": [{ "key": "metadata.name", "operator": "NotIn", "values": ["n1"] }] }])), false),
        ] {
            let verdict = judge(spec.clone(), (0, 0), Some(node.clone()));
            assert_eq!(verdict.is_ok(), fits, "{spec}");
            if let Err((reason, message)) = verdict {
                assert_eq!(reason, "NodeAffinity");
                assert_eq!(message, "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector");
            }
            assert_eq!(judge(spec, (0, 0), None), Ok(()));
        }
        assert_eq!(judge(json!({ "containers": [], "os": { "name": "windows" } }), (0, 0), None).unwrap_err().0, "PodOSNotSupported");
    }

    #[test]
    fn a_port_of_the_node_is_one_pods() {
        let wants = |host_ip: &str, protocol: &str| {
            pod(
                json!({ "containers": [{ "name": "c", "ports": [{ "containerPort": 80, "hostPort": 8080, "hostIP": host_ip, "protocol": protocol }] }] }),
            )
        };
        let none = pod(json!({ "containers": [{ "name": "c", "ports": [{ "containerPort": 8080 }] }] }));
        for (a, b, free) in [
            (wants("", "TCP"), wants("127.0.0.1", ""), false),
            (wants("127.0.0.1", "TCP"), wants("127.0.0.1", "TCP"), false),
            (wants("127.0.0.1", "TCP"), wants("127.0.0.2", "TCP"), true),
            (wants("", "TCP"), wants("", "UDP"), true),
            (wants("", "TCP"), none.clone(), true),
            (none.clone(), none, true),
        ] {
            assert_eq!(ports(&a, [&b]).is_ok(), free, "{a:?} {b:?}");
        }
    }
}
