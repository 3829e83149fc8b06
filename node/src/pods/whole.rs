//! What a pod as a whole was granted and has: `status.allocatedResources` and `status.resources` (KEP-5419), as kubelet's `convertToAPIPodLevelResourcesStatus` tells them. Pure.

use super::{
    spec::{Container, Pod},
    work::linux,
};
use coracle_api::{amounts::quantity, quantity::Quantity};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// At or below so many thousandths of a CPU the kernel's weights cannot tell requests from none, and quotas are as small as they get: what the pod says is told, not what it has.
const LEAST: (u64, u64) = (2, 10);

type List = BTreeMap<String, Quantity>;
type Amounts = BTreeMap<String, Value>;

/// The two fields, as a strategic merge patch of them.
pub fn status(pod: &Pod, running: bool) -> [(&'static str, Value); 2] {
    let requests = sum(pod, |container| &container.resources.requests, &pod.spec.resources.requests, false);
    let limits = sum(pod, |container| &container.resources.limits, &pod.spec.resources.limits, true);
    let [has_limits, has] = if running { given(pod, &requests) } else { [limits.clone(), requests.clone()] };
    let resources = json!({ "limits": object(&has_limits, &limits), "requests": object(&has, &requests) });
    [("resources", resources), ("allocatedResources", object(&requests, &List::new()))]
}

/// Limits and requests of one that runs: its own, and what its control group has. `requests` are those of all its containers.
fn given(pod: &Pod, requests: &List) -> [List; 2] {
    let [mut limits, mut has] = [&pod.spec.resources.limits, &pod.spec.resources.requests].map(read);
    let group = linux::whole(pod, linux::Node::default());
    let millis = |list: &List| list.get("cpu").map_or(0, |cpu| cpu.millis().unsigned_abs());
    if let Some(cpu) = group.cpu_request_millis.filter(|cpu| (*cpu).max(millis(&has)) > LEAST.0) {
        has.insert("cpu".into(), in_millis(cpu));
    }
    if let Some(memory) = requests.get("memory").filter(|_| !has.contains_key("memory")) {
        has.insert("memory".into(), *memory);
    }
    if let Some(cpu) = group.cpu_limit_millis.filter(|cpu| (*cpu).max(millis(&limits)) > LEAST.1) {
        limits.insert("cpu".into(), in_millis(cpu));
    }
    if let Some(memory) = group.memory_limit {
        limits.insert("memory".into(), Quantity::from_bytes(i64::try_from(memory).unwrap_or(i64::MAX)));
    }
    [limits, has]
}

fn in_millis(millis: u64) -> Quantity {
    Quantity::from_millis(i64::try_from(millis).unwrap_or(i64::MAX))
}

/// Upstream's `PodRequests` and `PodLimits`: what the containers have together at their worst, what the pod says itself instead, and its overhead, on limits only where there are any.
fn sum<'a>(pod: &'a Pod, of: impl Fn(&'a Container) -> &'a Amounts, own: &Amounts, limits: bool) -> List {
    let mut total = List::new();
    for container in &pod.spec.containers {
        add(&mut total, &read(of(container)));
    }
    let (mut sidecars, mut worst) = (List::new(), List::new());
    for container in &pod.spec.init_containers {
        let mut now = read(of(container));
        if container.is_sidecar() {
            add(&mut total, &now);
            add(&mut sidecars, &now);
            now.clone_from(&sidecars);
        } else {
            add(&mut now, &sidecars);
        }
        raise(&mut worst, now);
    }
    raise(&mut total, worst);
    total.extend(read(own).into_iter().filter(|(name, _)| name == "cpu" || name == "memory" || name.starts_with("hugepages-")));
    let mut overhead = read(&pod.spec.overhead);
    overhead.retain(|name, _| !limits || total.get(name).is_some_and(|limit| !limit.is_zero()));
    add(&mut total, &overhead);
    total
}

fn read(list: &Amounts) -> List {
    list.iter().map(|(name, value)| (name.clone(), quantity(value))).collect()
}

fn add(total: &mut List, more: &List) {
    for (name, amount) in more {
        let sum = total.get(name).map_or(*amount, |sum| sum.plus(*amount));
        total.insert(name.clone(), sum);
    }
}

fn raise(total: &mut List, least: List) {
    for (name, amount) in least {
        let most = total.get(&name).map_or(amount, |known| (*known).max(amount));
        total.insert(name, most);
    }
}

/// What is in the other list alone may have been told before, and would stay: null takes it back.
fn object(list: &List, other: &List) -> Value {
    if list.is_empty() {
        return Value::Null;
    }
    let amount = |name: &String| list.get(name).map(ToString::to_string);
    list.keys().chain(other.keys()).map(|name| (name.clone(), json!(amount(name)))).collect::<Map<_, _>>().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(spec: Value, running: bool) -> (Value, Value) {
        let class = json!({ "qosClass": "Burstable" });
        let pod: Pod = serde_json::from_value(json!({ "metadata": { "name": "p", "uid": "u" }, "spec": spec, "status": class })).unwrap();
        let [(_, resources), (_, allocated)] = status(&pod, running);
        (resources, allocated)
    }

    #[test]
    fn containers_together_before_they_run_and_their_group_when_they_do() {
        let both = |cpu: &str, memory: &str| json!({ "requests": { "cpu": cpu, "memory": memory }, "limits": { "cpu": cpu, "memory": memory } });
        let mut limited = both("100m", "64Mi");
        limited["requests"]["ephemeral-storage"] = json!("1G");
        let spec = json!({ "initContainers": [{ "name": "i", "resources": { "requests": { "cpu": "1" } } }],
            "containers": [{ "name": "a", "resources": limited }, { "name": "b", "resources": { "requests": { "memory": "64Mi" } } }] });
        let requests = json!({ "cpu": "1", "memory": "128Mi", "ephemeral-storage": "1G" });
        let limits = json!({ "cpu": "100m", "memory": "64Mi" });
        assert_eq!(told(spec.clone(), false), (json!({ "requests": requests, "limits": limits }), requests.clone()));
        // One has no limits, so that the pod has none.
        let has = json!({ "requests": { "cpu": "1", "memory": "128Mi", "ephemeral-storage": null }, "limits": null });
        assert_eq!(told(spec, true), (has, requests));
        let spec = json!({ "overhead": { "cpu": "50m" }, "containers": [{ "name": "a", "resources": both("100m", "64Mi") }, { "name": "b", "resources": both("1", "1Gi") }] });
        let all = json!({ "cpu": "1150m", "memory": "1088Mi" });
        assert_eq!(told(spec, true), (json!({ "requests": all, "limits": all }), all));
        assert_eq!(told(json!({ "containers": [{ "name": "a" }] }), true), (json!({ "limits": null, "requests": null }), Value::Null));
    }

    #[test]
    fn what_the_pod_says_itself_goes_before_what_its_containers_say() {
        let spec = json!({ "resources": { "requests": { "cpu": "2" }, "limits": { "cpu": "3", "memory": "1Gi" } },
            "containers": [{ "name": "a", "resources": { "requests": { "cpu": "1", "memory": "10M" } } }] });
        let requests = json!({ "cpu": "2", "memory": "10M" });
        let resources = json!({ "requests": requests, "limits": { "cpu": "3", "memory": "1Gi" } });
        for running in [false, true] {
            assert_eq!(told(spec.clone(), running), (resources.clone(), requests.clone()));
        }
    }
}
