//! LimitRanger: containers get the defaults of their namespace's LimitRanges, and containers, pods and claims stay within their bounds (upstream's
//! `plugin/pkg/admission/limitranger`). Texts are upstream's.

use super::{Plugin, lookup};
use crate::{
    quota::amounts::{self, Amounts},
    resources::{Cx, cells::list},
};
use coracle_api::{quantity::Quantity, status::Status};
use serde_json::{Map, Value, json};

/// The plugin.
pub struct LimitRanger;

const CLAIMS: &str = "persistentvolumeclaims";
/// Tells which amounts were set here.
const ANNOTATION: &str = "kubernetes.io/limit-ranger";

impl Plugin for LimitRanger {
    fn name(&self) -> &'static str {
        "LimitRanger"
    }

    fn mutate(&self, cx: &Cx<'_>, old: Option<&Value>, new: &mut Value) -> Result<(), Status> {
        if concerns(cx, old) && cx.row().id() == "pods" {
            ranges(cx)?.iter().for_each(|range| default_pod(range, new));
        }
        Ok(())
    }

    fn validate(&self, cx: &Cx<'_>, old: Option<&Value>, new: Option<&Value>) -> Result<(), Status> {
        let Some(new) = new.filter(|_| concerns(cx, old)) else { return Ok(()) };
        for range in ranges(cx)? {
            let wrong = if cx.row().id() == CLAIMS { claim(&range, new) } else { pod(&range, new) };
            let why = match wrong.as_slice() {
                [] => continue,
                [one] => one.clone(),
                several => format!("[{}]", several.join(", ")),
            };
            return Err(lookup::forbidden(cx, new, &why));
        }
        Ok(())
    }
}

/// New pods, resized ones, and claims. What is being deleted is left alone.
fn concerns(cx: &Cx<'_>, old: Option<&Value>) -> bool {
    let alive = old.is_none_or(|old| old["metadata"]["deletionTimestamp"].is_null());
    match (cx.row().id().as_str(), cx.subresource()) {
        ("pods", "") => old.is_none(),
        ("pods", "resize") | (CLAIMS, "") => alive,
        _ => false,
    }
}

/// The limits of the request's namespace, one list a LimitRange. One that cannot be read refuses everything.
fn ranges(cx: &Cx<'_>) -> Result<Vec<Vec<Value>>, Status> {
    let stored = cx.snapshot.range("limitranges", Some(&cx.request.namespace), None);
    let read =
        |object: &std::sync::Arc<coracle_store::Object>| crate::pipeline::object::parse(object).map(|range| list(&range["spec"]["limits"]).to_vec());
    stored.map(read).collect()
}

/// Gives the containers of a pod what they do not say.
fn default_pod(limits: &[Value], pod: &mut Value) {
    let (mut requests, mut most) = (Map::new(), Map::new());
    for limit in limits.iter().filter(|limit| limit["type"] == "Container") {
        requests.extend(limit["defaultRequest"].as_object().cloned().unwrap_or_default());
        most.extend(limit["default"].as_object().cloned().unwrap_or_default());
    }
    let mut told = Vec::new();
    for (place, kind) in [("/spec/containers", "container"), ("/spec/initContainers", "init container")] {
        for container in pod.pointer_mut(place).and_then(Value::as_array_mut).into_iter().flatten() {
            let name = container["name"].as_str().unwrap_or_default().to_string();
            for (field, word, defaults) in [("requests", "request", &requests), ("limits", "limit", &most)] {
                let set = fill(container, field, defaults);
                if !set.is_empty() {
                    told.push(format!("{} {word} for {kind} {name}", set.join(", ")));
                }
            }
        }
    }
    if !told.is_empty() {
        let metadata = crate::pipeline::metadata::of(pod);
        let annotations = metadata.entry("annotations").or_insert_with(|| json!({}));
        annotations[ANNOTATION] = format!("LimitRanger plugin set: {}", told.join("; ")).into();
    }
}

/// Names of what was set, in order.
fn fill(container: &mut Value, field: &str, defaults: &Map<String, Value>) -> Vec<String> {
    let missing: Vec<(&String, &Value)> = defaults.iter().filter(|(name, _)| container["resources"][field][name.as_str()].is_null()).collect();
    let mut set: Vec<String> = missing.iter().map(|(name, _)| (*name).clone()).collect();
    for (name, value) in missing {
        container["resources"][field][name] = value.clone();
    }
    set.sort();
    set
}

fn claim(limits: &[Value], claim: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    let asked = amounts::of(&claim["spec"]["resources"]["requests"]);
    for limit in limits.iter().filter(|limit| limit["type"] == "PersistentVolumeClaim") {
        wrong.extend(
            amounts::of(&limit["min"]).iter().filter_map(|(name, bound)| minimum("PersistentVolumeClaim", name, *bound, &asked, &Amounts::new())),
        );
        wrong.extend(amounts::of(&limit["max"]).iter().filter_map(|(name, bound)| {
            let about = format!("maximum {name} usage per PersistentVolumeClaim is {bound}");
            match asked.get(name) {
                None => Some(format!("{about}.  No request is specified")),
                Some(request) if request > bound => Some(format!("{about}, but request is {request}")),
                Some(_) => None,
            }
        }));
    }
    wrong
}

fn pod(limits: &[Value], pod: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    let spec = &pod["spec"];
    for limit in limits {
        match limit["type"].as_str() {
            Some("Container") => {
                for container in list(&spec["containers"]).iter().chain(list(&spec["initContainers"])) {
                    let resources = &container["resources"];
                    check(limit, "Container", &amounts::of(&resources["requests"]), &amounts::of(&resources["limits"]), &mut wrong);
                }
            }
            Some("Pod") => check(limit, "Pod", &amounts::of_pod(spec, "requests"), &amounts::of_pod(spec, "limits"), &mut wrong),
            _ => {}
        }
    }
    wrong
}

fn check(limit: &Value, kind: &str, requests: &Amounts, limits: &Amounts, wrong: &mut Vec<String>) {
    wrong.extend(amounts::of(&limit["min"]).iter().filter_map(|(name, bound)| minimum(kind, name, *bound, requests, limits)));
    wrong.extend(amounts::of(&limit["max"]).iter().filter_map(|(name, bound)| maximum(kind, name, *bound, requests, limits)));
    wrong.extend(amounts::of(&limit["maxLimitRequestRatio"]).iter().filter_map(|(name, bound)| ratio(kind, name, *bound, requests, limits)));
}

fn minimum(kind: &str, name: &str, bound: Quantity, requests: &Amounts, limits: &Amounts) -> Option<String> {
    let about = format!("minimum {name} usage per {kind} is {bound}");
    match (requests.get(name), limits.get(name)) {
        (None, _) => Some(format!("{about}.  No request is specified")),
        (Some(request), _) if *request < bound => Some(format!("{about}, but request is {request}")),
        (_, Some(limit)) if *limit < bound => Some(format!("{about}, but limit is {limit}")),
        _ => None,
    }
}

fn maximum(kind: &str, name: &str, bound: Quantity, requests: &Amounts, limits: &Amounts) -> Option<String> {
    let about = format!("maximum {name} usage per {kind} is {bound}");
    match (requests.get(name), limits.get(name)) {
        (_, None) => Some(format!("{about}.  No limit is specified")),
        (_, Some(limit)) if *limit > bound => Some(format!("{about}, but limit is {limit}")),
        (Some(request), _) if *request > bound => Some(format!("{about}, but request is {request}")),
        _ => None,
    }
}

fn ratio(kind: &str, name: &str, bound: Quantity, requests: &Amounts, limits: &Amounts) -> Option<String> {
    let about = format!("{name} max limit to request ratio per {kind} is {bound}");
    let some = |list: &Amounts| list.get(name).filter(|amount| !amount.is_zero()).copied();
    match (some(requests), some(limits)) {
        (None, _) => Some(format!("{about}, but no request is specified or request is 0")),
        (_, None) => Some(format!("{about}, but no limit is specified or limit is 0")),
        (Some(request), Some(limit)) => {
            let ratio = limit.approximate() / request.approximate();
            (ratio > bound.approximate()).then(|| format!("{about}, but provided ratio is {ratio:.6}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(resources: Value) -> Value {
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a", "resources": resources}]}})
    }

    #[test]
    fn containers_get_what_they_do_not_say() {
        let limits = vec![json!({"type": "Container", "default": {"cpu": "1", "memory": "2Gi"}, "defaultRequest": {"cpu": "100m"}})];
        let mut object = of(json!({"limits": {"memory": "1Gi"}}));
        default_pod(&limits, &mut object);
        assert_eq!(object["spec"]["containers"][0]["resources"], json!({"limits": {"memory": "1Gi", "cpu": "1"}, "requests": {"cpu": "100m"}}));
        assert_eq!(object["metadata"]["annotations"][ANNOTATION], "LimitRanger plugin set: cpu request for container a; cpu limit for container a");
        assert!(object["spec"].get("initContainers").is_none(), "what is not there stays away");
        let before = object.clone();
        default_pod(&limits, &mut object);
        assert_eq!(object, before);
    }

    #[test]
    fn bounds_are_named_when_they_are_passed() {
        let limits = vec![json!({"type": "Container", "min": {"cpu": "50m"}, "max": {"cpu": "500m"}, "maxLimitRequestRatio": {"cpu": "2"}})];
        let wrong = |resources: Value| pod(&limits, &of(resources));
        assert_eq!(wrong(json!({"requests": {"cpu": "100m"}, "limits": {"cpu": "200m"}})), Vec::<String>::new());
        assert_eq!(
            wrong(json!({"requests": {"cpu": "10m"}, "limits": {"cpu": "600m"}})),
            [
                "minimum cpu usage per Container is 50m, but request is 10m",
                "maximum cpu usage per Container is 500m, but limit is 600m",
                "cpu max limit to request ratio per Container is 2, but provided ratio is 60.000000",
            ]
        );
        assert_eq!(
            wrong(json!({})),
            [
                "minimum cpu usage per Container is 50m.  No request is specified",
                "maximum cpu usage per Container is 500m.  No limit is specified",
                "cpu max limit to request ratio per Container is 2, but no request is specified or request is 0",
            ]
        );
        let whole = vec![json!({"type": "Pod", "max": {"memory": "1Gi"}})];
        let two = json!({"spec": {"containers": [{"resources": {"limits": {"memory": "768Mi"}}}, {"resources": {"limits": {"memory": "512Mi"}}}]}});
        assert_eq!(pod(&whole, &two), ["maximum memory usage per Pod is 1Gi, but limit is 1280Mi"]);
        let storage = vec![json!({"type": "PersistentVolumeClaim", "min": {"storage": "1Gi"}, "max": {"storage": "10Gi"}})];
        let asks = |size: &str| claim(&storage, &json!({"spec": {"resources": {"requests": {"storage": size}}}}));
        assert_eq!(asks("5Gi"), Vec::<String>::new());
        assert_eq!(asks("500Mi"), ["minimum storage usage per PersistentVolumeClaim is 1Gi, but request is 500Mi"]);
        assert_eq!(asks("11Gi"), ["maximum storage usage per PersistentVolumeClaim is 10Gi, but request is 11Gi"]);
    }
}
