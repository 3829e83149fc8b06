//! What objects use, and what quotas say to it.

use super::*;
use serde_json::json;

fn quota(hard: Value, used: Value, spec: Value) -> Value {
    json!({"metadata": {"name": "q"}, "spec": spec, "status": {"hard": hard, "used": used}})
}

fn now() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().expect("a time")
}

fn charged(quota: &Value, change: &Change<'_>) -> Result<Option<Value>, String> {
    charge(std::slice::from_ref(quota), change).map(|used| used[0].as_ref().map(amounts::to_json))
}

fn create(id: &str, object: &Value, quota: &Value) -> Result<Option<Value>, String> {
    charged(quota, &Change { id, subresource: "", old: None, new: object, now: now() })
}

fn update(id: &str, subresource: &str, old: &Value, new: &Value, quota: &Value) -> Result<Option<Value>, String> {
    charged(quota, &Change { id, subresource, old: Some(old), new, now: now() })
}

fn pod(resources: Value) -> Value {
    json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "resources": resources}]}})
}

#[test]
fn pods_are_charged_for_what_they_ask() {
    let hard = json!({"pods": "2", "requests.cpu": "1", "limits.memory": "1Gi", "count/pods": "5", "requests.example.com/gpu": "1", "ephemeral-storage": "1Gi"});
    let zero =
        json!({"pods": "0", "requests.cpu": "0", "limits.memory": "0", "count/pods": "0", "requests.example.com/gpu": "0", "ephemeral-storage": "0"});
    let bound = quota(hard.clone(), zero, json!({}));
    let asks = pod(json!({"requests": {"cpu": "600m", "example.com/gpu": "1", "ephemeral-storage": "10Mi"}, "limits": {"memory": "512Mi"}}));
    let used = create("pods", &asks, &bound).expect("fits").expect("is charged");
    assert_eq!(
        used,
        json!({"pods": "1", "requests.cpu": "600m", "limits.memory": "512Mi", "count/pods": "1", "requests.example.com/gpu": "1", "ephemeral-storage": "10Mi"})
    );
    let after = quota(hard, used, json!({}));
    assert_eq!(
        create("pods", &asks, &after).expect_err("two do not fit"),
        "exceeded quota: q, requested: requests.cpu=600m,requests.example.com/gpu=1, used: requests.cpu=600m,requests.example.com/gpu=1, limited: requests.cpu=1,requests.example.com/gpu=1"
    );
    assert_eq!(
        create("pods", &pod(json!({"requests": {"memory": "1"}})), &after).expect_err("must be said"),
        "failed quota: q: must specify limits.memory for: c; requests.cpu for: c"
    );
    // What ended uses nothing but its place.
    let mut ended = asks;
    ended["status"] = json!({"phase": "Succeeded"});
    assert_eq!(usage::of("pods", &ended, now()).keys().collect::<Vec<_>>(), ["count/pods"]);
}

#[test]
fn of_several_quotas_what_is_missing_comes_before_what_is_too_much() {
    let full = quota(json!({"pods": "1"}), json!({"pods": "1"}), json!({}));
    let mut wants = quota(json!({"requests.cpu": "1"}), json!({"requests.cpu": "0"}), json!({}));
    wants["metadata"]["name"] = json!("wants");
    let quotas = [full, wants];
    let said = |pod: &Value| charge(&quotas, &Change { id: "pods", subresource: "", old: None, new: pod, now: now() }).expect_err("refused");
    assert_eq!(said(&pod(json!({}))), "failed quota: wants: must specify requests.cpu for: c");
    assert_eq!(said(&pod(json!({"requests": {"cpu": "1"}}))), "exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1");
}

#[test]
fn a_quota_that_was_never_counted_refuses() {
    let unknown = quota(json!({"configmaps": "1", "services": "1"}), json!({}), json!({}));
    assert_eq!(create("configmaps", &json!({}), &unknown).expect_err("unknown"), "status unknown for quota: q, resources: configmaps");
    assert_eq!(create("secrets", &json!({}), &unknown), Ok(None));
    assert_eq!(create("configmaps", &json!({}), &quota(json!({}), json!({}), json!({}))), Ok(None), "one without a status bounds nothing yet");
}

#[test]
fn services_claims_and_counts() {
    let bound = quota(
        json!({"services": "5", "services.nodeports": "1", "services.loadbalancers": "1"}),
        json!({"services": "0", "services.nodeports": "0", "services.loadbalancers": "0"}),
        json!({}),
    );
    let service = |kind: &str, ports: usize| json!({"spec": {"type": kind, "ports": vec![json!({}); ports]}});
    assert_eq!(
        create("services", &service("ClusterIP", 3), &bound),
        Ok(Some(json!({"services": "1", "services.nodeports": "0", "services.loadbalancers": "0"})))
    );
    assert!(create("services", &service("LoadBalancer", 2), &bound).is_err_and(|why| why.contains("requested: services.nodeports=2")));
    let mut without = service("LoadBalancer", 2);
    without["spec"]["allocateLoadBalancerNodePorts"] = json!(false);
    assert!(create("services", &without, &bound).is_ok());
    assert_eq!(
        update("services", "", &service("ClusterIP", 1), &service("NodePort", 1), &bound),
        Ok(Some(json!({"services": "0", "services.nodeports": "1", "services.loadbalancers": "0"})))
    );
    assert_eq!(update("services", "", &service("NodePort", 1), &service("ClusterIP", 1), &bound), Ok(None), "what is given back is counted later");

    let claim = |size: &str| json!({"spec": {"storageClassName": "gold", "resources": {"requests": {"storage": size}}}});
    let names = [
        "requests.storage",
        "gold.storageclass.storage.k8s.io/requests.storage",
        "gold.storageclass.storage.k8s.io/persistentvolumeclaims",
        "silver.storageclass.storage.k8s.io/persistentvolumeclaims",
    ];
    let list = |amount: &str| Value::Object(names.iter().map(|name| ((*name).to_string(), amount.into())).collect());
    let bound = quota(list("2Gi"), list("0"), json!({}));
    let used = create("persistentvolumeclaims", &claim("1Gi"), &bound).expect("fits").expect("is charged");
    assert_eq!(used, json!({names[0]: "1Gi", names[1]: "1Gi", names[2]: "1", names[3]: "0"}));
    assert!(update("persistentvolumeclaims", "", &claim("1Gi"), &claim("3Gi"), &quota(list("2Gi"), used, json!({}))).is_err());

    let bound = quota(json!({"count/widgets.example.com": "1"}), json!({"count/widgets.example.com": "1"}), json!({}));
    assert_eq!(
        create("widgets.example.com", &json!({}), &bound).expect_err("one is enough"),
        "exceeded quota: q, requested: count/widgets.example.com=1, used: count/widgets.example.com=1, limited: count/widgets.example.com=1"
    );
    assert_eq!(update("widgets.example.com", "", &json!({}), &json!({}), &bound), Ok(None));
    assert!(!concerns("events", "count/events"));
}

#[test]
fn claims_of_devices_count_by_class_what_they_may_be_given() {
    let option = |class: &str, mode: &str, count: Value| json!({"deviceClassName": class, "allocationMode": mode, "count": count});
    let claim = json!({"spec": {"devices": {"requests": [
        {"name": "two", "exactly": option("gold", "ExactCount", json!(2))},
        {"name": "either", "firstAvailable": [option("gold", "ExactCount", json!(1)), option("gold", "ExactCount", json!(3)), option("tin", "All", Value::Null)]},
    ]}}});
    let (gold, tin) = ("gold.deviceclass.resource.k8s.io/devices", "tin.deviceclass.resource.k8s.io/devices");
    let count = "count/resourceclaims.resource.k8s.io";
    let bound = |most: &str| quota(json!({gold: most, tin: "100", count: "2"}), json!({gold: "0", tin: "0", count: "0"}), json!({}));
    let id = "resourceclaims.resource.k8s.io";
    assert_eq!(create(id, &claim, &bound("5")), Ok(Some(json!({gold: "5", tin: "32", count: "1"}))));
    assert_eq!(
        create(id, &claim, &bound("4")).expect_err("one too many"),
        format!("exceeded quota: q, requested: {gold}=5, used: {gold}=0, limited: {gold}=4")
    );
    assert_eq!(create("configmaps", &claim, &bound("4")), Ok(None));
    let stored = crate::fixture::object(id, 1, json!({"metadata": {"name": "c", "namespace": "n"}, "spec": claim["spec"]}));
    let snapshot = Snapshot::of(1, [stored]);
    let counted = used(&json!({"spec": {"hard": {gold: "9"}}}), "n", &snapshot, now()).0;
    assert_eq!(amounts::to_json(&counted), json!({gold: "5"}));
}

#[test]
fn scopes_choose() {
    let (hard, none) = (json!({"pods": "1"}), json!({"pods": "0"}));
    let scoped = |scope: &str| quota(hard.clone(), none.clone(), json!({"scopes": [scope]}));
    let charged = |quota: &Value, pod: &Value| create("pods", pod, quota).expect("fits").is_some();
    let (idle, busy) = (pod(json!({})), pod(json!({"requests": {"cpu": "1"}})));
    let mut ending = idle.clone();
    ending["spec"]["activeDeadlineSeconds"] = json!(5);
    for (scope, idle_in, busy_in, ending_in) in [
        ("BestEffort", true, false, true),
        ("NotBestEffort", false, true, false),
        ("Terminating", false, false, true),
        ("NotTerminating", true, true, false),
    ] {
        let bound = scoped(scope);
        assert_eq!((charged(&bound, &idle), charged(&bound, &busy), charged(&bound, &ending)), (idle_in, busy_in, ending_in), "{scope}");
    }
    assert_eq!(update("pods", "", &idle, &ending, &scoped("Terminating")), Ok(Some(json!({"pods": "1"}))), "what comes into a scope is charged");
    let selected = |operator: &str, values: &[&str]| {
        let expression = json!({"scopeName": "PriorityClass", "operator": operator, "values": values});
        quota(hard.clone(), none.clone(), json!({"scopeSelector": {"matchExpressions": [expression]}}))
    };
    let mut classed = idle.clone();
    classed["spec"]["priorityClassName"] = json!("high");
    assert!(charged(&selected("In", &["high", "low"]), &classed) && !charged(&selected("In", &["low"]), &classed));
    assert!(charged(&selected("Exists", &[]), &classed) && !charged(&selected("Exists", &[]), &idle));
    assert!(charged(&selected("NotIn", &["low"]), &classed) && charged(&selected("DoesNotExist", &[]), &idle));
    let mut crossing = idle.clone();
    crossing["spec"]["affinity"] =
        json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "k", "namespaces": ["a"]}]}});
    assert!(charged(&scoped("CrossNamespacePodAffinity"), &crossing) && !charged(&scoped("CrossNamespacePodAffinity"), &idle));
    assert!(!scope::matches(&scoped("BestEffort"), "configmaps", &json!({})), "what is no pod is in no scope of pods");
}

#[test]
fn init_containers_come_before_and_sidecars_beside() {
    let asks = |cpu: &str| json!({"resources": {"requests": {"cpu": cpu}}});
    let mut sidecar = asks("200m");
    sidecar["restartPolicy"] = json!("Always");
    let spec = json!({"containers": [asks("100m"), asks("100m")], "initContainers": [sidecar, asks("1")], "overhead": {"cpu": "50m"}});
    assert_eq!(amounts::to_json(&amounts::of_pod(&spec, "requests")), json!({"cpu": "1200m"}));
    assert_eq!(usage::of("pods", &json!({"spec": spec}), now())["requests.cpu"].to_string(), "1250m");
}
