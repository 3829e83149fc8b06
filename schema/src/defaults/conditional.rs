//! Defaults that depend on other fields: the `SetDefaults_*` functions of upstream that are more than constants.

use serde_json::{Map, Value, json};

mod pod;

type Object = Map<String, Value>;

/// The function of a type of the table, if it has one.
pub(super) fn of(name: &str) -> Option<fn(&mut Object)> {
    Some(match name {
        "apiextensions.v1.CustomResourceDefinition" => custom_resource,
        "apps.v1.DaemonSetUpdateStrategy" => daemon_set_strategy,
        "apps.v1.DeploymentStrategy" => deployment_strategy,
        "apps.v1.StatefulSetUpdateStrategy" => stateful_set_strategy,
        "autoscaling.v2.HorizontalPodAutoscalerSpec" => autoscaler,
        "batch.v1.Job" => job,
        "core.v1.Container" | "core.v1.EphemeralContainer" => pod::pull_policy_of_image,
        "core.v1.ImageVolumeSource" => pod::pull_policy_of_reference,
        "core.v1.LimitRangeItem" => limit_range_item,
        "core.v1.Namespace" => namespace,
        "core.v1.NodeStatus" => node_status,
        "core.v1.PersistentVolumeClaim" => claim,
        "core.v1.Pod" => pod::pod,
        "core.v1.ReplicationController" => replication_controller,
        "core.v1.Service" => service_status,
        "core.v1.ServicePort" => service_port,
        "core.v1.ServiceSpec" => service_spec,
        "core.v1.Volume" => pod::volume,
        "networking.v1.NetworkPolicySpec" => network_policy,
        "rbac.v1.Subject" => subject,
        "resource.v1.DeviceSubRequest" | "resource.v1.ExactDeviceRequest" => device_request,
        "storage.v1.CSIDriverSpec" => csi_driver,
        _ => return None,
    })
}

/// A text that is set and not empty.
fn text<'a>(map: &'a Object, key: &str) -> Option<&'a str> {
    map.get(key).and_then(Value::as_str).filter(|s| !s.is_empty())
}

fn is_set(map: &Object, key: &str) -> bool {
    map.get(key).is_some_and(|v| !v.is_null())
}

/// Sets what is not set.
fn set(map: &mut Object, key: &str, value: impl Into<Value>) {
    if !is_set(map, key) {
        map.insert(key.to_owned(), value.into());
    }
}

/// Sets a text that is not set or empty.
fn set_text(map: &mut Object, key: &str, value: &str) {
    if text(map, key).is_none() {
        map.insert(key.to_owned(), value.into());
    }
}

/// The struct under `key`, made if it is not there.
fn object<'a>(map: &'a mut Object, key: &str) -> Option<&'a mut Object> {
    set(map, key, json!({}));
    map.get_mut(key).and_then(Value::as_object_mut)
}

fn objects<'a>(map: &'a mut Object, key: &str) -> impl Iterator<Item = &'a mut Object> {
    map.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten().filter_map(Value::as_object_mut)
}

fn deployment_strategy(strategy: &mut Object) {
    set_text(strategy, "type", "RollingUpdate");
    if text(strategy, "type") == Some("RollingUpdate")
        && let Some(update) = object(strategy, "rollingUpdate")
    {
        set(update, "maxUnavailable", "25%");
        set(update, "maxSurge", "25%");
    }
}

fn daemon_set_strategy(strategy: &mut Object) {
    set_text(strategy, "type", "RollingUpdate");
    if text(strategy, "type") == Some("RollingUpdate")
        && let Some(update) = object(strategy, "rollingUpdate")
    {
        set(update, "maxUnavailable", 1);
        set(update, "maxSurge", 0);
    }
}

fn stateful_set_strategy(strategy: &mut Object) {
    if text(strategy, "type").is_none() {
        set_text(strategy, "type", "RollingUpdate");
        set(strategy, "rollingUpdate", json!({}));
    }
    if text(strategy, "type") == Some("RollingUpdate")
        && let Some(update) = strategy.get_mut("rollingUpdate").and_then(Value::as_object_mut)
    {
        set(update, "partition", 0);
    }
}

fn job_spec(spec: &mut Object) {
    if !is_set(spec, "completions") && !is_set(spec, "parallelism") {
        set(spec, "completions", 1);
    }
    set(spec, "parallelism", 1);
    let limit = if is_set(spec, "backoffLimitPerIndex") { i32::MAX } else { 6 };
    set(spec, "backoffLimit", limit);
    set(spec, "completionMode", "NonIndexed");
    set(spec, "suspend", false);
    let replacement = if is_set(spec, "podFailurePolicy") { "Failed" } else { "TerminatingOrFailed" };
    set(spec, "podReplacementPolicy", replacement);
    set(spec, "manualSelector", false);
}

/// Jobs only, not the job templates of cron jobs. A job without labels takes those of its template.
fn job(job: &mut Object) {
    if let Some(spec) = object(job, "spec") {
        job_spec(spec);
    }
    labels_of_template(job);
}

fn labels_of_template(owner: &mut Object) -> Option<Value> {
    let labels = owner.get("spec")?.get("template")?.get("metadata")?.get("labels")?.as_object().filter(|l| !l.is_empty())?;
    let labels = Value::Object(labels.clone());
    if let Some(metadata) = object(owner, "metadata") {
        set(metadata, "labels", labels.clone());
    }
    Some(labels)
}

fn replication_controller(controller: &mut Object) {
    let labels = labels_of_template(controller);
    if let (Some(labels), Some(spec)) = (labels, object(controller, "spec")) {
        set(spec, "selector", labels);
    }
}

fn namespace(namespace: &mut Object) {
    let Some(name) = namespace.get("metadata").and_then(|m| m.get("name")).and_then(Value::as_str).filter(|n| !n.is_empty()) else {
        return;
    };
    let name = name.to_owned();
    if let Some(labels) = object(namespace, "metadata").and_then(|m| object(m, "labels")) {
        labels.insert("kubernetes.io/metadata.name".into(), name.into());
    }
}

fn node_status(status: &mut Object) {
    if let Some(capacity) = status.get("capacity").cloned() {
        set(status, "allocatable", capacity);
    }
}

fn claim(claim: &mut Object) {
    if let Some(status) = object(claim, "status") {
        set_text(status, "phase", "Pending");
    }
}

fn service_spec(spec: &mut Object) {
    match text(spec, "sessionAffinity") {
        Some("ClientIP") => {
            if let Some(client) = object(spec, "sessionAffinityConfig").and_then(|c| object(c, "clientIP")) {
                set(client, "timeoutSeconds", 10800);
            }
        }
        Some("None") => {
            spec.remove("sessionAffinityConfig");
        }
        _ => {}
    }
    let kind = text(spec, "type").unwrap_or_default().to_owned();
    let external = spec.get("externalIPs").and_then(Value::as_array).is_some_and(|ips| !ips.is_empty());
    if kind == "LoadBalancer" || kind == "NodePort" || (kind == "ClusterIP" && external) {
        set_text(spec, "externalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" || kind == "NodePort" || kind == "ClusterIP" {
        set(spec, "internalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" {
        set(spec, "allocateLoadBalancerNodePorts", true);
    }
}

fn service_port(port: &mut Object) {
    let unset = match port.get("targetPort") {
        None | Some(Value::Null) => true,
        Some(Value::Number(n)) => n.as_i64() == Some(0),
        Some(Value::String(s)) => s.is_empty(),
        Some(_) => false,
    };
    if unset && let Some(number) = port.get("port").cloned() {
        port.insert("targetPort".into(), number);
    }
}

fn service_status(service: &mut Object) {
    let balanced = service.get("spec").and_then(|s| s.get("type")).is_some_and(|t| t == "LoadBalancer");
    let status = service.get_mut("status").and_then(|s| s.get_mut("loadBalancer")).and_then(Value::as_object_mut);
    if let (true, Some(status)) = (balanced, status) {
        for ingress in objects(status, "ingress") {
            if text(ingress, "ip").is_some() {
                set(ingress, "ipMode", "VIP");
            }
        }
    }
}

/// Adds to `to` the entries of `from` that it lacks.
fn complete(to: &mut Object, from: &Object) {
    for (key, value) in from {
        to.entry(key.clone()).or_insert_with(|| value.clone());
    }
}

fn limit_range_item(item: &mut Object) {
    if text(item, "type") != Some("Container") {
        return;
    }
    let part = |item: &Object, key: &str| item.get(key).and_then(Value::as_object).cloned().unwrap_or_default();
    let mut default = part(item, "default");
    complete(&mut default, &part(item, "max"));
    let mut request = part(item, "defaultRequest");
    complete(&mut request, &default);
    complete(&mut request, &part(item, "min"));
    for (key, value) in [("default", default), ("defaultRequest", request)] {
        if !value.is_empty() {
            item.insert(key.into(), Value::Object(value));
        }
    }
}

fn network_policy(spec: &mut Object) {
    let has = |spec: &Object, key: &str| spec.get(key).and_then(Value::as_array).is_some_and(|l| !l.is_empty());
    if !has(spec, "policyTypes") {
        let types = if has(spec, "egress") { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) };
        spec.insert("policyTypes".into(), types);
    }
}

fn subject(subject: &mut Object) {
    if let Some("User" | "Group") = text(subject, "kind") {
        set_text(subject, "apiGroup", "rbac.authorization.k8s.io");
    }
}

fn device_request(request: &mut Object) {
    set_text(request, "allocationMode", "ExactCount");
    if text(request, "allocationMode") == Some("ExactCount") && request.get("count").is_none_or(|c| *c == 0) {
        request.insert("count".into(), 1.into());
    }
}

fn csi_driver(spec: &mut Object) {
    if spec.get("volumeLifecycleModes").and_then(Value::as_array).is_none_or(Vec::is_empty) {
        spec.insert("volumeLifecycleModes".into(), json!(["Persistent"]));
    }
}

fn custom_resource(definition: &mut Object) {
    let Some(spec) = object(definition, "spec") else { return };
    if let Some(names) = object(spec, "names")
        && let Some(kind) = text(names, "kind").map(str::to_owned)
    {
        set_text(names, "singular", &kind.to_lowercase());
        set_text(names, "listKind", &format!("{kind}List"));
    }
    set(spec, "conversion", json!({ "strategy": "None" }));
    let stored = objects(spec, "versions").find(|v| v.get("storage") == Some(&Value::Bool(true))).and_then(|v| v.get("name").cloned());
    if let (Some(stored), Some(status)) = (stored, object(definition, "status")) {
        let empty = status.get("storedVersions").and_then(Value::as_array).is_none_or(Vec::is_empty);
        if empty {
            status.insert("storedVersions".into(), Value::Array(vec![stored]));
        }
    }
}

fn autoscaler(spec: &mut Object) {
    if spec.get("metrics").and_then(Value::as_array).is_none_or(Vec::is_empty) {
        let cpu = json!([{ "type": "Resource", "resource": { "name": "cpu", "target": { "type": "Utilization", "averageUtilization": 80 } } }]);
        spec.insert("metrics".into(), cpu);
    }
    if let Some(behavior) = spec.get_mut("behavior").and_then(Value::as_object_mut) {
        let percent = json!({ "type": "Percent", "value": 100, "periodSeconds": 15 });
        let pods = json!({ "type": "Pods", "value": 4, "periodSeconds": 15 });
        if let Some(up) = object(behavior, "scaleUp") {
            set(up, "stabilizationWindowSeconds", 0);
            set(up, "selectPolicy", "Max");
            set(up, "policies", vec![pods, percent.clone()]);
        }
        if let Some(down) = object(behavior, "scaleDown") {
            set(down, "selectPolicy", "Max");
            set(down, "policies", vec![percent]);
        }
    }
}
