//! Resize: the processor time and memory of a running pod's containers, changed through their own subresource (KEP-1287).

use super::{annotations::is_mirror, qos};
use crate::resources::{
    cells::list,
    rules::{At, Causes},
};
use serde_json::{Map, Value};

const LISTS: &[&str] = &["containers", "initContainers"];

/// Before validation of a write of the subresource: nothing but resources and their resize policies is taken from it. Containers that are not the same ones in
/// the same order are left for the rules to refuse.
pub fn keep_the_rest(old: &Value, new: &mut Value) {
    let same = |kind: &&&str| list(&new["spec"][**kind]).len() == list(&old["spec"][**kind]).len();
    if LISTS.iter().filter(same).count() < LISTS.len() {
        return;
    }
    let sent = new["spec"].clone();
    crate::pipeline::metadata::keep(old, new);
    new["spec"] = old["spec"].clone();
    new["status"] = old["status"].clone();
    put(&mut new["spec"], &sent, "resources");
    for kind in LISTS {
        let named = |spec: &Value| list(&spec[*kind]).iter().map(|container| container["name"].clone()).collect::<Vec<_>>();
        if named(&sent) != named(&old["spec"]) {
            put(&mut new["spec"], &sent, kind);
            continue;
        }
        for (container, sent) in new["spec"].get_mut(*kind).and_then(Value::as_array_mut).into_iter().flatten().zip(list(&sent[*kind])) {
            put(container, sent, "resources");
            put(container, sent, "resizePolicy");
        }
    }
}

fn put(to: &mut Value, from: &Value, field: &str) {
    if let Some(to) = to.as_object_mut() {
        match from.get(field) {
            Some(value) => to.insert(field.into(), value.clone()),
            None => to.remove(field),
        };
    }
}

/// Rules of a write of the subresource.
pub fn update(old: &Value, new: &Value, causes: &mut Causes) {
    let root = At::root(new);
    if is_mirror(old) {
        root.forbidden(causes, "static pods cannot be resized");
        return;
    }
    if old["spec"]["os"]["name"] == "windows" {
        root.forbidden(causes, "windows pods cannot be resized");
        return;
    }
    let before = causes.len();
    let (spec, was) = (root.field("spec"), &old["spec"]);
    super::spec::validate(&spec, super::spec::Of::Pod, causes);
    super::only_for_pods(&spec, causes);
    let class = old["status"]["qosClass"].as_str().unwrap_or_else(|| qos::class(was));
    if qos::class(spec.value) != class {
        spec.invalid_value(causes, class, "Pod QOS Class may not change as a result of resizing");
    }
    let running = list(&old["status"]["containerStatuses"]).iter().find(|status| status["state"]["running"].is_object());
    if running.is_some_and(|status| status["resources"].is_null()) {
        spec.forbidden(causes, "Pod running on node without support for resize");
    }
    whole_pod(was, &spec, causes);
    if !list(&old["status"]["nodeAllocatableResourceClaimStatuses"]).is_empty() {
        spec.forbidden(causes, "pods with node allocatable resource claims cannot be resized");
    }
    if !same_containers(was, &spec, causes) {
        return;
    }
    for kind in LISTS {
        for (container, was) in spec.field(kind).items().zip(list(&was[*kind])) {
            one_container(kind, &container, was, &spec, causes);
        }
    }
    if causes.len() == before && masked(spec.value, was) != *was {
        spec.forbidden(causes, "only cpu and memory resources are mutable");
    }
}

fn whole_pod(was: &Value, spec: &At<'_, '_>, causes: &mut Causes) {
    let (resources, was) = (spec.field("resources"), &was["resources"]);
    if was.is_object() && !resources.is_set() {
        resources.forbidden(causes, "pod-level resources cannot be removed");
        return;
    }
    for (field, why) in [("requests", "pod-level resource requests cannot be removed"), ("limits", "pod-level resource limits cannot be removed")] {
        let at = resources.field(field);
        if removed(at.value, &was[field]) {
            at.forbidden(causes, why);
        }
    }
    if masked_resources(resources.value, was) != *was {
        spec.forbidden(causes, "only cpu and memory resources are mutable at pod-level");
    }
}

/// Neither more nor fewer nor others.
fn same_containers(was: &Value, spec: &At<'_, '_>, causes: &mut Causes) -> bool {
    let before = causes.len();
    for kind in LISTS {
        let at = spec.field(kind);
        if at.len() != list(&was[*kind]).len() {
            at.forbidden(causes, &format!("{kind} may not be added or removed on resize"));
            continue;
        }
        for (container, was) in at.items().zip(list(&was[*kind])) {
            let name = container.field("name");
            if name.value != &was["name"] {
                name.forbidden(causes, &format!("{kind} may not be renamed or reordered on resize"));
            }
        }
    }
    causes.len() == before
}

fn one_container(kind: &str, container: &At<'_, '_>, was: &Value, spec: &At<'_, '_>, causes: &mut Causes) {
    let resources = container.field("resources");
    for (field, why) in [("requests", "resource requests cannot be removed"), ("limits", "resource limits cannot be removed")] {
        let at = resources.field(field);
        if removed(at.value, &was["resources"][field]) {
            at.forbidden(causes, why);
        }
    }
    let init = kind == "initContainers";
    if masked_container(container.value, was) != *was {
        match init {
            true => container.forbidden(causes, "only cpu and memory resources for init or sidecar containers are mutable"),
            false => spec.forbidden(causes, "only cpu and memory resources are mutable"),
        }
    }
    if init && container.value != was && was["restartPolicy"] != "Always" {
        for _ in list(&container.value["resizePolicy"]).iter().filter(|policy| policy["restartPolicy"] == "RestartContainer") {
            container.forbidden(causes, "non-sidecar init containers with a resize policy of RestartContainer cannot be resized");
        }
    }
}

/// Whether something was asked for before and is not now.
fn removed(now: &Value, before: &Value) -> bool {
    before.as_object().into_iter().flatten().any(|(name, _)| now.get(name).is_none())
}

/// A list of amounts with the changeable ones as they were.
fn masked_list(now: &Value, was: &Value) -> Map<String, Value> {
    let mut masked = now.as_object().cloned().unwrap_or_default();
    for name in ["cpu", "memory"] {
        match was.get(name) {
            Some(amount) => masked.insert(name.into(), amount.clone()),
            None => masked.remove(name),
        };
    }
    masked
}

fn masked_resources(now: &Value, was: &Value) -> Value {
    let mut masked = now.as_object().cloned().unwrap_or_default();
    for field in ["limits", "requests"] {
        let list = masked_list(&now[field], &was[field]);
        match list.is_empty() && was.get(field).is_none() {
            true => masked.remove(field),
            false => masked.insert(field.into(), Value::Object(list)),
        };
    }
    if masked.is_empty() && was.is_null() { Value::Null } else { Value::Object(masked) }
}

fn masked_container(now: &Value, was: &Value) -> Value {
    let mut masked = now.clone();
    match masked_resources(&now["resources"], &was["resources"]) {
        Value::Null => {}
        resources => masked["resources"] = resources,
    }
    masked
}

fn masked(now: &Value, was: &Value) -> Value {
    let mut masked = now.clone();
    if let Value::Object(resources) = masked_resources(&now["resources"], &was["resources"]) {
        masked["resources"] = Value::Object(resources);
    } else if let Some(masked) = masked.as_object_mut() {
        masked.remove("resources");
    }
    for kind in LISTS {
        for (container, was) in masked.get_mut(*kind).and_then(Value::as_array_mut).into_iter().flatten().zip(list(&was[*kind])) {
            *container = masked_container(container, was);
        }
    }
    masked
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::rules::lines;
    use serde_json::json;

    fn pod(cpu: &str) -> Value {
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a", "image": "x", "resources": {"requests": {"cpu": cpu, "memory": "1Gi"}}}],
            "hostname": "h"}, "status": {"qosClass": "Burstable"}})
    }

    fn wrong(change: impl FnOnce(&mut Value)) -> Vec<String> {
        let (old, mut new) = (pod("1"), pod("1"));
        change(&mut new);
        keep_the_rest(&old, &mut new);
        let mut causes = Vec::new();
        update(&old, &new, &mut causes);
        lines(&causes)
    }

    #[test]
    fn amounts_change_and_nothing_else() {
        assert_eq!(wrong(|p| *p = pod("2")), Vec::<String>::new());
        assert_eq!(wrong(|p| p["spec"]["hostname"] = "other".into()), Vec::<String>::new(), "not taken from the body");
        assert_eq!(
            wrong(|p| p["spec"]["containers"][0]["resources"]["requests"] = json!({"cpu": "1"})),
            ["spec.containers[0].resources.requests: Forbidden: resource requests cannot be removed"]
        );
        assert_eq!(
            wrong(|p| p["spec"]["containers"][0]["resources"]["requests"]["ephemeral-storage"] = "1Gi".into()),
            ["spec: Forbidden: only cpu and memory resources are mutable"]
        );
        assert_eq!(
            wrong(|p| p["spec"]["containers"][0]["name"] = "b".into()),
            ["spec.containers[0].name: Forbidden: containers may not be renamed or reordered on resize"]
        );
        assert_eq!(
            wrong(|p| p["spec"]["containers"] =
                json!([{"name": "a", "image": "x", "resources": {"requests": {"cpu": "1", "memory": "1Gi"}}}, {"name": "b", "image": "x"}])),
            ["spec.containers: Forbidden: containers may not be added or removed on resize"]
        );
        assert_eq!(
            wrong(|p| p["spec"]["containers"][0]["resources"] =
                json!({"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "1", "memory": "1Gi"}})),
            ["spec: Invalid value: \"Burstable\": Pod QOS Class may not change as a result of resizing"]
        );
    }

    #[test]
    fn a_policy_may_not_change_here() {
        assert_eq!(
            wrong(|p| p["spec"]["containers"][0]["resizePolicy"] = json!([{"resourceName": "cpu", "restartPolicy": "NotRequired"}])),
            ["spec: Forbidden: only cpu and memory resources are mutable"]
        );
    }
}
