use super::{
    super::rules::{Causes, lines},
    slice::{resource_slice, semantic_version},
    *,
};
use serde_json::json;

fn found(check: impl Fn(&mut Causes)) -> Vec<String> {
    let mut causes = Causes::new();
    check(&mut causes);
    lines(&causes)
}

fn claim() -> Value {
    json!({"spec": {"devices": {"requests": [{"name": "gpu", "exactly": {"deviceClassName": "gpu.example.com", "allocationMode": "ExactCount", "count": 1}}]}}})
}

#[test]
fn claims_name_their_requests_and_know_them() {
    assert_eq!(found(|causes| resource_claim(None, &claim(), causes)), Vec::<String>::new());
    let mut bad = claim();
    let devices = &mut bad["spec"]["devices"];
    devices["requests"][0]["exactly"] = json!({"allocationMode": "All", "count": 2, "selectors": [{}],
        "tolerations": [{"operator": "Exists", "value": "v"}, {"effect": "Never"}]});
    devices["requests"].as_array_mut().expect("a list").extend([
        json!({"name": "gpu", "firstAvailable": [{"name": "a", "deviceClassName": "c", "allocationMode": "ExactCount", "count": 1}]}),
        json!({"name": "Nothing"}),
    ]);
    devices["constraints"] = json!([{"requests": ["gpu/a", "gpu/b", "a/b/c"], "matchAttribute": "model"}, {}]);
    devices["config"] = json!([{"requests": ["gpu", "gpu"], "opaque": {"driver": "d.example.com", "parameters": 7}}, {}]);
    let found = found(|causes| resource_claim(None, &bad, causes));
    let reference = "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";
    for want in [
        "spec.devices.requests[0].exactly.deviceClassName: Required value",
        "spec.devices.requests[0].exactly.selectors[0].cel: Required value",
        "spec.devices.requests[0].exactly.count: Invalid value: 2: must not be specified when allocationMode is 'All'",
        "spec.devices.requests[0].exactly.tolerations[0].value: Invalid value: \"v\": must be empty for operator `Exists`",
        "spec.devices.requests[0].exactly.tolerations[1].operator: Required value",
        "spec.devices.requests[0].exactly.tolerations[1].effect: Unsupported value: \"Never\": supported values: \"NoExecute\", \"NoSchedule\", \"None\"",
        "spec.devices.requests[2]: Required value: exactly one of `exactly` or `firstAvailable` is required",
        "spec.devices.requests[1]: Duplicate value: \"gpu\"",
        &format!("spec.devices.constraints[0].requests[1]: Invalid value: \"gpu/b\": {reference}"),
        &format!("spec.devices.constraints[0].requests[2]: Invalid value: \"a/b/c\": {reference}"),
        "spec.devices.constraints[0].matchAttribute: Invalid value: \"model\": a fully qualified name must be a domain and a name separated by a slash",
        "spec.devices.constraints[1]: Required value: exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, but multiple fields are set",
        "spec.devices.config[0].requests[1]: Duplicate value: \"gpu\"",
        "spec.devices.config[0].opaque.parameters: Invalid value: \"<value omitted>\": must be a valid JSON object",
        "spec.devices.config[1].opaque: Required value",
    ] {
        assert!(found.iter().any(|line| line == want), "{want}\nis not in {found:#?}");
    }
}

#[test]
fn what_is_asked_for_stays() {
    let (old, mut new) = (claim(), claim());
    new["spec"]["devices"]["requests"][0]["exactly"]["count"] = 2.into();
    let lines = found(|causes| resource_claim(Some(&old), &new, causes));
    assert!(lines.len() == 1 && lines[0].starts_with("spec: Invalid value: ") && lines[0].ends_with(": field is immutable"), "{lines:?}");
}

fn allocated() -> Value {
    let mut claim = claim();
    claim["status"] = json!({
        "allocation": {"devices": {"results": [{"request": "gpu", "driver": "d.example.com", "pool": "n1", "device": "gpu-0"}]}},
        "reservedFor": [{"resource": "pods", "name": "p", "uid": "1"}],
        "devices": [{"driver": "d.example.com", "pool": "n1", "device": "gpu-0", "data": {"a": 1}, "networkData": {"ips": ["10.9.8.7/24"]}}],
    });
    claim
}

#[test]
fn allocations_answer_requests() {
    let check = |old: &Value, new: &Value| found(|causes| status::validate(old, new, causes));
    let (old, good) = (claim(), allocated());
    assert_eq!(check(&old, &good), Vec::<String>::new());
    let mut bad = good.clone();
    bad["status"]["allocation"]["devices"]["results"][0]["request"] = "x".into();
    bad["status"]["allocation"]["devices"]["results"][0]["bindingConditions"] = json!(["a"]);
    bad["status"]["allocation"]["devices"]["results"][0]["shareID"] = "x".into();
    bad["status"]["devices"][0]["networkData"]["ips"] = json!(["10.9.8.7"]);
    bad["status"]["reservedFor"] = json!([{"resource": "pods", "name": "p", "uid": "1"}, {"name": "q", "uid": "1"}]);
    let lines = check(&old, &bad);
    for want in [
        "status.reservedFor[1].resource: Required value",
        "status.reservedFor[1]: Duplicate value: \"1\"",
        "status.devices[0]: Invalid value: \"d.example.com/n1/gpu-0\": must be an allocated device in the claim",
        "status.devices[0].networkData.ips[0]: Invalid value: \"10.9.8.7\": must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or 2001:db8::1/64)",
        "status.allocation.devices.results[0].shareID: Invalid value: \"x\": error validating uid: invalid UUID format",
        "status.allocation.devices.results[0].bindingFailureConditions: Invalid value: null: bindingFailureConditions are required to use bindingConditions",
    ] {
        assert!(lines.iter().any(|line| line == want), "{want}\nis not in {lines:#?}");
    }
    let mut moved = good.clone();
    moved["status"]["allocation"]["devices"]["results"][0]["device"] = "gpu-1".into();
    status::drop_deallocated(&good, &mut moved);
    assert!(moved["status"]["devices"].is_null(), "what is told of a device goes with it");
    assert!(check(&good, &moved).iter().any(|line| line.starts_with("status.allocation: Invalid value") && line.ends_with("field is immutable")));
    let mut unreserved = good.clone();
    unreserved["status"]["allocation"] = Value::Null;
    unreserved["status"]["devices"] = Value::Null;
    assert_eq!(check(&good, &unreserved), ["status.reservedFor: Forbidden: may not be specified when `allocated` is not set"]);
}

#[test]
fn classes_choose_and_configure() {
    let good = json!({"spec": {"selectors": [{"cel": {"expression": "true"}}], "extendedResourceName": "example.com/gpu"}});
    assert_eq!(found(|causes| device_class(None, &good, causes)), Vec::<String>::new());
    let bad = json!({"spec": {"selectors": [{"cel": {"expression": "x".repeat(MAX_EXPRESSION + 1)}}], "extendedResourceName": "cpu"}});
    assert_eq!(
        found(|causes| device_class(None, &bad, causes)),
        [
            "spec.selectors[0].cel.expression: Too long: may not be more than 10240 bytes",
            "spec.extendedResourceName: Invalid value: \"cpu\": must be a valid extended resource name",
        ]
    );
}

fn slice() -> Value {
    json!({"spec": {"driver": "d.example.com", "nodeName": "n1", "pool": {"name": "n1", "generation": 1, "resourceSliceCount": 1},
        "devices": [{"name": "gpu-0", "attributes": {"model": {"string": "A"}, "d.example.com/driver": {"version": "1.2.3-rc.1+b"}},
            "capacity": {"memory": {"value": "10Gi"}}}]}})
}

#[test]
fn slices_say_what_there_is_and_where() {
    let check = |old: Option<&Value>, new: &Value| found(|causes| resource_slice(old, new, causes));
    assert_eq!(check(None, &slice()), Vec::<String>::new());
    let mut bad = slice();
    bad["spec"]["allNodes"] = true.into();
    bad["spec"]["pool"] = json!({"name": "N1", "generation": -1});
    bad["spec"]["devices"] = json!([
        {"name": "d", "attributes": {"a-b": {"int": 1, "bool": true}, "v": {"version": "1.02.3"}}, "allNodes": true,
            "capacity": {"memory": {"value": "1Gi", "requestPolicy": {}}}, "taints": [{"key": "k", "effect": "Never"}]},
        {"name": "d", "consumesCounters": [{"counterSet": "c"}], "allowMultipleAllocations": true, "capacity": {
            "memory": {"value": "10", "requestPolicy": {"default": "3", "validRange": {"min": "1", "max": "11", "step": "4"}}},
            "cores": {"value": "10", "requestPolicy": {"default": "3", "validValues": ["4", "2", "12"]}}}},
    ]);
    let lines = check(Some(&slice()), &bad);
    for want in [
        "spec.pool.name: Invalid value: \"N1\": field is immutable",
        "spec.pool.resourceSliceCount: Invalid value: 0: must be greater than zero",
        "spec.pool.generation: Invalid value: -1: must be greater than or equal to zero",
        "spec: Invalid value: \"{`nodeName`, `allNodes`}\": exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required, but multiple fields are set",
        "spec.devices[0].attributes[v].version: Invalid value: \"1.02.3\": must be a string compatible with semver.org spec 2.0.0",
        "spec.devices[0].capacity[memory].requestPolicy: Forbidden: allowMultipleAllocations must be true",
        "spec.devices[0].taints[0].effect: Unsupported value: \"Never\": supported values: \"NoExecute\", \"NoSchedule\", \"None\"",
        "spec.devices[0]: Invalid value: null: `nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in the ResourceSlice spec",
        "spec.devices[1]: Duplicate value: \"d\"",
        "spec.devices[1].consumesCounters[0].counters: Required value",
        "spec.devices[1].capacity[memory].requestPolicy.validRange.max: Invalid value: \"11\": max is larger than capacity value: 10",
        "spec.devices[1].capacity[memory].requestPolicy.validRange.step: Invalid value: \"3\": value is not a multiple of a given step (4) from (1)",
        "spec.devices[1].capacity[cores].requestPolicy.validValues[1]: Invalid value: \"2\": values must be sorted in ascending order",
        "spec.devices[1].capacity[cores].requestPolicy.validValues[2]: Invalid value: \"12\": option is larger than capacity value: 10",
        "spec.devices[1].capacity[cores].requestPolicy.validValues: Invalid value: \"3\": default value is not valid according to the requestPolicy",
    ] {
        assert!(lines.iter().any(|line| line == want), "{want}\nis not in {lines:#?}");
    }
    let many: Vec<Value> = (0..65).map(|n| json!({"name": format!("d{n}"), "taints": [{"key": "k", "effect": "None"}]})).collect();
    let mut long = slice();
    long["spec"]["devices"] = many.into();
    assert_eq!(check(None, &long), ["spec.devices: Too many: 65: must have at most 64 items"]);
}

#[test]
fn versions_are_semantic() {
    for good in ["0.0.0", "1.2.3", "1.0.0-alpha.1", "1.0.0-0a.b-c+build.01", "10.20.30+x"] {
        assert!(semantic_version(good), "{good}");
    }
    for bad in ["", "1", "1.2", "1.2.3.4", "01.2.3", "1.2.3-", "1.2.3-01", "1.2.3+", "1.2.3-a..b", "v1.2.3"] {
        assert!(!semantic_version(bad), "{bad}");
    }
}
