//! Admission policies as clients see them.

use crate::cluster::{Answer, Cluster, Peer};
use serde_json::{Value, json};

const GROUP: &str = "/apis/admissionregistration.k8s.io/v1";

async fn made(admin: &mut Peer, path: &str, object: Value) -> Value {
    let answer = admin.post(path, object).await;
    assert_eq!(answer.code, 201, "{}", answer.body);
    answer.body
}

async fn patch(admin: &mut Peer, path: &str, patch: Value) -> Answer {
    admin.send("PATCH", path, "application/merge-patch+json", patch.to_string()).await
}

async fn namespace(admin: &mut Peer, name: &str) {
    made(admin, "/api/v1/namespaces", json!({"metadata": {"name": name, "labels": {"test": name}}})).await;
}

fn constraints(group: &str, resource: &str, operations: &[&str]) -> Value {
    json!({"resourceRules": [{"apiGroups": [group], "apiVersions": ["v1"], "resources": [resource], "operations": operations}]})
}

async fn policy(admin: &mut Peer, name: &str, spec: Value) -> Value {
    made(admin, &format!("{GROUP}/validatingadmissionpolicies"), json!({"metadata": {"name": name}, "spec": spec})).await
}

/// Binds a policy in the namespace of the same name as the test.
async fn bind(admin: &mut Peer, policy: &str, namespace: &str, more: Value) {
    let mut spec = json!({"policyName": policy, "validationActions": ["Deny"],
        "matchResources": {"namespaceSelector": {"matchLabels": {"test": namespace}}}});
    for (name, value) in more.as_object().into_iter().flatten() {
        spec[name] = value.clone();
    }
    made(admin, &format!("{GROUP}/validatingadmissionpolicybindings"), json!({"metadata": {"name": format!("{policy}-binding")}, "spec": spec}))
        .await;
}

fn deployment(name: &str, replicas: u32) -> Value {
    json!({"metadata": {"name": name}, "spec": {"replicas": replicas, "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}})
}

fn map(name: &str, data: Value) -> Value {
    json!({"metadata": {"name": name}, "data": data})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn policies() {
    let cluster = Cluster::start().await;
    let mut admin = cluster.admin().await;
    validation(&mut admin).await;
    actions(&mut admin).await;
    params(&mut admin).await;
    what_expressions_see(&mut admin).await;
    failures(&mut admin).await;
    types(&mut admin).await;
    mutation(&mut admin).await;
    mutations_again(&mut admin).await;
    custom_kinds(&mut admin).await;
}

async fn validation(admin: &mut Peer) {
    namespace(admin, "validation").await;
    namespace(admin, "elsewhere").await;
    let validations = json!([
        {"expression": "object.spec.replicas > 1", "messageExpression": "'wants replicas > 1, got ' + string(object.spec.replicas)"},
        {"expression": "namespaceObject.metadata.name == 'validation'", "reason": "Forbidden"}]);
    let spec = json!({"matchConstraints": constraints("apps", "deployments", &["CREATE", "UPDATE"]), "validations": validations});
    let stored = policy(admin, "replicas", spec).await;
    assert_eq!(stored["spec"]["failurePolicy"], "Fail");
    assert_eq!(stored["spec"]["matchConstraints"]["matchPolicy"], "Equivalent");

    let path = "/apis/apps/v1/namespaces/validation/deployments";
    made(admin, path, deployment("unbound", 1)).await;
    bind(admin, "replicas", "validation", json!({})).await;
    let refused = admin.post(path, deployment("one", 1)).await;
    let why = "ValidatingAdmissionPolicy 'replicas' with binding 'replicas-binding' denied request: wants replicas > 1, got 1";
    assert_eq!((refused.code, refused.reason()), (422, "Invalid"), "{}", refused.body);
    assert_eq!(refused.message(), format!("deployments.apps \"one\" is forbidden: {why}"));
    assert_eq!(refused.body["details"]["causes"], json!([{"message": why}]));
    made(admin, path, deployment("two", 2)).await;
    made(admin, "/apis/apps/v1/namespaces/elsewhere/deployments", deployment("one", 1)).await;
    let replica_set = json!({"metadata": {"name": "r"}, "spec": {"replicas": 1, "selector": {"matchLabels": {"a": "c"}},
        "template": {"metadata": {"labels": {"a": "c"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    made(admin, "/apis/apps/v1/namespaces/validation/replicasets", replica_set).await;

    let scaled = patch(admin, &format!("{path}/two"), json!({"spec": {"replicas": 1}})).await;
    assert_eq!(scaled.code, 422, "{}", scaled.body);
    // A subresource is not what the rule names.
    let scaled = patch(admin, &format!("{path}/two/scale"), json!({"spec": {"replicas": 1}})).await;
    assert_eq!(scaled.code, 200, "{}", scaled.body);
    assert_eq!(admin.send("DELETE", &format!("{path}/two"), "", String::new()).await.code, 200);

    // A changed policy counts at once, a deleted one no more.
    let policy = format!("{GROUP}/validatingadmissionpolicies/replicas");
    let changed = patch(admin, &policy, json!({"spec": {"validations": [{"expression": "object.spec.replicas > 2", "message": "more!"}]}})).await;
    assert_eq!((changed.code, &changed.body["metadata"]["generation"]), (200, &json!(2)), "{}", changed.body);
    let refused = admin.post(path, deployment("three", 2)).await;
    assert!(refused.message().ends_with("denied request: more!"), "{}", refused.body);
    assert_eq!(admin.send("DELETE", &policy, "", String::new()).await.code, 200);
    made(admin, path, deployment("three", 1)).await;
}

async fn actions(admin: &mut Peer) {
    namespace(admin, "actions").await;
    let spec = json!({"matchConstraints": constraints("", "configmaps", &["CREATE", "DELETE"]), "validations": [
        {"expression": "request.operation == 'DELETE' ? oldObject.metadata.name != 'kept' : object.metadata.name != 'odd'", "message": "no good"}],
        "auditAnnotations": [{"key": "seen", "valueExpression": "'name ' + request.name"}]});
    policy(admin, "names", spec).await;
    bind(admin, "names", "actions", json!({"validationActions": ["Warn", "Audit"]})).await;
    let path = "/api/v1/namespaces/actions/configmaps";
    let warned = admin.post(path, map("odd", json!({}))).await;
    assert_eq!(warned.code, 201, "{}", warned.body);
    let warning = warned.header("warning").to_string();
    assert!(warning.contains("Validation failed for ValidatingAdmissionPolicy 'names' with binding 'names-binding': no good"), "{warning}");
    assert_eq!(admin.post(path, map("even", json!({}))).await.header("warning"), "");
    made(admin, path, map("kept", json!({}))).await;
    let deleted = admin.send("DELETE", &format!("{path}/kept"), "", String::new()).await;
    assert_eq!(deleted.code, 200);
    assert!(deleted.header("warning").contains("no good"), "{}", deleted.header("warning"));
    let binding = format!("{GROUP}/validatingadmissionpolicybindings/names-binding");
    assert_eq!(patch(admin, &binding, json!({"spec": {"validationActions": ["Deny"]}})).await.code, 200);
    made(admin, path, map("kept", json!({}))).await;
    let refused = admin.send("DELETE", &format!("{path}/kept"), "", String::new()).await;
    assert_eq!((refused.code, refused.reason()), (422, "Invalid"), "{}", refused.body);
}

async fn params(admin: &mut Peer) {
    namespace(admin, "params").await;
    let path = "/api/v1/namespaces/params/configmaps";
    made(admin, path, json!({"metadata": {"name": "limits", "labels": {"kind": "limits"}}, "data": {"most": "2"}})).await;
    let spec = json!({"paramKind": {"apiVersion": "v1", "kind": "ConfigMap"}, "matchConstraints": constraints("", "secrets", &["CREATE"]),
        "variables": [{"name": "most", "expression": "int(params.data.most)"}, {"name": "count", "expression": "has(object.data) ? object.data.size() : 0"}],
        "validations": [{"expression": "variables.count <= variables.most", "messageExpression": "string(variables.count) + ' are more than ' + params.data.most"}]});
    policy(admin, "limits", spec).await;
    bind(admin, "limits", "params", json!({"paramRef": {"name": "limits", "parameterNotFoundAction": "Deny"}})).await;
    let secrets = "/api/v1/namespaces/params/secrets";
    let secret = |name: &str, count: usize| {
        let data: serde_json::Map<String, Value> = (0..count).map(|at| (format!("k{at}"), json!("eA=="))).collect();
        json!({"metadata": {"name": name}, "data": data})
    };
    made(admin, secrets, secret("small", 2)).await;
    let refused = admin.post(secrets, secret("large", 3)).await;
    assert!(refused.message().ends_with("denied request: 3 are more than 2"), "{}", refused.body);
    let binding = format!("{GROUP}/validatingadmissionpolicybindings/limits-binding");
    let missing = json!({"spec": {"paramRef": {"name": "gone"}}});
    assert_eq!(patch(admin, &binding, missing).await.code, 200);
    let refused = admin.post(secrets, secret("other", 1)).await;
    assert!(
        refused.message().ends_with("failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction"),
        "{}",
        refused.body
    );
    let selected = json!({"spec": {"paramRef": {"name": null, "selector": {"matchLabels": {"kind": "limits"}}, "parameterNotFoundAction": "Allow"}}});
    let answer = patch(admin, &binding, selected).await;
    assert_eq!(answer.code, 200, "{}", answer.body);
    assert_eq!(admin.post(secrets, secret("large", 3)).await.code, 422);
    assert_eq!(admin.send("DELETE", &format!("{path}/limits"), "", String::new()).await.code, 200);
    made(admin, secrets, secret("large", 3)).await;
}

async fn what_expressions_see(admin: &mut Peer) {
    namespace(admin, "sees").await;
    let spec = json!({"matchConstraints": constraints("", "configmaps", &["*"]),
        "matchConditions": [{"name": "not-exempt", "expression": "!object.metadata.name.startsWith('exempt')"}],
        "validations": [
            {"expression": "request.resource.resource == 'configmaps' && request.kind.kind == 'ConfigMap' && request.namespace == 'sees'"},
            {"expression": "request.userInfo.groups.exists(g, g == 'system:masters')"},
            {"expression": "authorizer.group('').resource('pods').namespace('sees').check('get').allowed()"},
            {"expression": "!authorizer.serviceAccount('sees', 'default').group('').resource('secrets').namespace('sees').check('list').allowed()"},
            {"expression": "authorizer.requestResource.check('create').allowed() && authorizer.path('/healthz').check('get').allowed()"},
            {"expression": "oldObject == null ? request.operation == 'CREATE' : oldObject.data.k == 'v' && request.operation == 'UPDATE'"},
            {"expression": "namespaceObject.metadata.labels['test'] == 'sees' && !has(object.data.forbidden)", "message": "last"}]});
    policy(admin, "sees", spec).await;
    bind(admin, "sees", "sees", json!({})).await;
    let path = "/api/v1/namespaces/sees/configmaps";
    made(admin, path, map("a", json!({"k": "v"}))).await;
    let changed = patch(admin, &format!("{path}/a"), json!({"data": {"l": "w"}})).await;
    assert_eq!(changed.code, 200, "{}", changed.body);
    let refused = admin.post(path, map("b", json!({"forbidden": ""}))).await;
    assert!(refused.message().ends_with("denied request: last"), "{}", refused.body);
    made(admin, path, map("exempt-b", json!({"forbidden": ""}))).await;
}

async fn failures(admin: &mut Peer) {
    namespace(admin, "failures").await;
    let spec = json!({"matchConstraints": constraints("", "configmaps", &["CREATE"]), "validations": [{"expression": "object.nope.field == 1"}]});
    policy(admin, "fails", spec).await;
    bind(admin, "fails", "failures", json!({})).await;
    let path = "/api/v1/namespaces/failures/configmaps";
    let refused = admin.post(path, map("a", json!({}))).await;
    assert!(
        refused.message().ends_with("denied request: expression 'object.nope.field == 1' resulted in error: no such key: nope"),
        "{}",
        refused.body
    );
    let policies = format!("{GROUP}/validatingadmissionpolicies");
    assert_eq!(patch(admin, &format!("{policies}/fails"), json!({"spec": {"failurePolicy": "Ignore"}})).await.code, 200);
    made(admin, path, map("a", json!({}))).await;
    // What would run for ever is cut off.
    let endless = "object.data.map(a, object.data.map(b, object.data.map(c, object.data.map(d, 1)))).size() == 0";
    let changed =
        patch(admin, &format!("{policies}/fails"), json!({"spec": {"failurePolicy": "Fail", "validations": [{"expression": endless}]}})).await;
    assert_eq!(changed.code, 200, "{}", changed.body);
    let data: serde_json::Map<String, Value> = (0..1000).map(|at| (format!("k{at}"), json!("v"))).collect();
    let refused = admin.post(path, map("b", Value::Object(data))).await;
    assert!(refused.message().contains("operation cancelled: actual cost limit exceeded"), "{}", refused.body);

    let bad = json!({"metadata": {"name": "bad"}, "spec": {"matchConstraints": constraints("", "configmaps", &["CREATE"]),
        "validations": [{"expression": "object.x +"}]}});
    let refused = admin.post(&policies, bad).await;
    assert_eq!((refused.code, refused.reason()), (422, "Invalid"));
    assert!(refused.message().contains("spec.validations[0].expression: Invalid value: \"object.x +\": compilation failed: ERROR: <input>:1:11:"));
}

async fn types(admin: &mut Peer) {
    let validations = json!([{"expression": "object.spec.replicas > '1'", "messageExpression": "'wants replicas > 1, got ' + object.spec.replicas"}]);
    let spec = json!({"matchConstraints": constraints("apps", "deployments", &["CREATE"]), "validations": validations});
    let stored = policy(admin, "types", spec).await;
    let warnings = &stored["status"]["typeChecking"]["expressionWarnings"];
    assert_eq!(stored["status"]["observedGeneration"], 1);
    assert_eq!(warnings[0]["fieldRef"], "spec.validations[0].expression");
    let text = warnings[0]["warning"].as_str().unwrap_or_default();
    assert!(
        text.starts_with("apps/v1, Kind=Deployment: ") && text.contains("found no matching overload for '_>_' applied to '(int, string)'"),
        "{text}"
    );
    assert_eq!(warnings[1]["fieldRef"], "spec.validations[0].messageExpression");
    assert!(warnings[1]["warning"].as_str().is_some_and(|text| text.contains("found no matching overload for '_+_' applied to '(string, int)'")));
    let path = format!("{GROUP}/validatingadmissionpolicies/types");
    let fixed = patch(admin, &path, json!({"spec": {"validations": [{"expression": "object.spec.replicas > 1"}]}})).await;
    assert_eq!(fixed.body["status"], json!({"observedGeneration": 2, "typeChecking": {}}));
    let condition = json!({"type": "T", "status": "False", "reason": "R", "message": "", "lastTransitionTime": "2024-01-01T00:00:00Z"});
    let patched = patch(admin, &format!("{path}/status"), json!({"status": {"conditions": [condition]}})).await;
    assert_eq!((patched.code, &patched.body["status"]["conditions"][0]["type"]), (200, &json!("T")), "{}", patched.body);
}

async fn mutating(admin: &mut Peer, name: &str, namespace: &str, spec: Value) {
    made(admin, &format!("{GROUP}/mutatingadmissionpolicies"), json!({"metadata": {"name": name}, "spec": spec})).await;
    let binding = json!({"metadata": {"name": format!("{name}-binding")}, "spec": {"policyName": name,
        "matchResources": {"namespaceSelector": {"matchLabels": {"test": namespace}}}}});
    made(admin, &format!("{GROUP}/mutatingadmissionpolicybindings"), binding).await;
}

async fn mutation(admin: &mut Peer) {
    namespace(admin, "mutation").await;
    let apply =
        "Object{metadata: Object.metadata{annotations: {'my-foo': object.metadata.?labels.?tier.orValue('none')}}, spec: Object.spec{replicas: 7}}";
    let added = "[JSONPatch{op: 'test', path: '/spec/replicas', value: 7}, JSONPatch{op: 'add', path: '/metadata/annotations/' + jsonpatch.escapeKey('a/b'), value: 'c'}]";
    let spec = json!({"reinvocationPolicy": "Never", "matchConstraints": constraints("apps", "deployments", &["CREATE"]), "mutations": [
        {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": apply}},
        {"patchType": "JSONPatch", "jsonPatch": {"expression": added}}]});
    mutating(admin, "annotate", "mutation", spec).await;
    let path = "/apis/apps/v1/namespaces/mutation/deployments";
    let stored = made(admin, path, deployment("d", 1)).await;
    assert_eq!(stored["metadata"]["annotations"], json!({"my-foo": "none", "a/b": "c"}));
    assert_eq!(stored["spec"]["replicas"], 7);
    assert_eq!(stored["spec"]["template"]["spec"]["containers"][0]["image"], "i");

    let policy = format!("{GROUP}/mutatingadmissionpolicies/annotate");
    let atomic = json!([{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": "Object{spec: Object.spec{selector: Object.spec.selector{matchLabels: {'x': 'y'}}}}"}}]);
    assert_eq!(patch(admin, &policy, json!({"spec": {"mutations": atomic}})).await.code, 200);
    let refused = admin.post(path, deployment("e", 1)).await;
    assert_eq!(refused.code, 422, "{}", refused.body);
    assert_eq!(
        refused.message(),
        "policy 'annotate' with binding 'annotate-binding' denied request: error applying patch: invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: .spec.selector"
    );
    let misnamed = json!([{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": "Object{spec: Object.wrong{replicas: 1}}"}}]);
    assert_eq!(patch(admin, &policy, json!({"spec": {"mutations": misnamed}})).await.code, 200);
    let refused = admin.post(path, deployment("e", 1)).await;
    assert!(refused.message().contains("type mismatch: unexpected type name \"Object.wrong\", expected \"Object.spec\""), "{}", refused.body);
    assert_eq!(patch(admin, &policy, json!({"spec": {"failurePolicy": "Ignore"}})).await.code, 200);
    made(admin, path, deployment("e", 1)).await;
}

async fn mutations_again(admin: &mut Peer) {
    namespace(admin, "again").await;
    let spec = |text: &str, again: &str| {
        json!({"reinvocationPolicy": again, "matchConstraints": constraints("", "configmaps", &["CREATE"]),
            "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": text}}]})
    };
    // The first counts what is there, the second adds; asked again, the first counts that too.
    let count = |name: &str| format!("Object{{metadata: Object.metadata{{labels: {{'{name}': string(object.data.size())}}}}}}");
    mutating(admin, "m1-count", "again", spec(&count("again"), "IfNeeded")).await;
    mutating(admin, "m2-once", "again", spec(&count("once"), "Never")).await;
    mutating(admin, "m3-add", "again", spec("Object{data: {'added': 'x'}}", "Never")).await;
    let stored = made(admin, "/api/v1/namespaces/again/configmaps", map("a", json!({"k": "v"}))).await;
    assert_eq!(stored["data"], json!({"k": "v", "added": "x"}));
    assert_eq!(stored["metadata"]["labels"], json!({"again": "2", "once": "1"}));
}

/// Policies judge, type and change objects of custom kinds as any other.
async fn custom_kinds(admin: &mut Peer) {
    namespace(admin, "custom").await;
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {"size": {"type": "integer"}, "parts": {
        "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
        "items": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}, "kind": {"type": "string"}}}}}}}});
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let definition = json!({"metadata": {"name": "boats.policy.example.com"}, "spec": {
        "group": "policy.example.com", "scope": "Namespaced", "names": {"plural": "boats", "kind": "Boat"},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}]}});
    made(admin, definitions, definition).await;
    let mut events = admin.watch(&format!("{definitions}?watch=true&fieldSelector=metadata.name=boats.policy.example.com")).await;
    let established = |event: &Value| {
        let conditions = event["object"]["status"]["conditions"].as_array().into_iter().flatten();
        conditions.into_iter().any(|one| one["type"] == "Established" && one["status"] == "True")
    };
    while !established(&events.next().await.expect("the watch goes on")) {}

    let rules = constraints("policy.example.com", "boats", &["CREATE", "UPDATE"]);
    let validations = json!([{"expression": "object.spec.size < 10", "message": "too large"}, {"expression": "object.spec.width > 1 || true"}]);
    let stored = policy(admin, "boats", json!({"matchConstraints": rules, "validations": validations})).await;
    let warnings = &stored["status"]["typeChecking"]["expressionWarnings"];
    assert_eq!(warnings.as_array().map(Vec::len), Some(1), "{warnings}");
    let text = warnings[0]["warning"].as_str().unwrap_or_default();
    assert!(text.starts_with("policy.example.com/v1, Kind=Boat: ") && text.contains("undefined field 'width'"), "{text}");
    let typed = json!({"spec": {"validations": [{"expression": "object.spec.size < 10 && !('bad' in object.metadata.?labels.orValue({}))", "message": "too large"}]}});
    let fixed = patch(admin, &format!("{GROUP}/validatingadmissionpolicies/boats"), typed).await;
    assert_eq!(fixed.body["status"]["typeChecking"], json!({}), "metadata has its fields");
    bind(admin, "boats", "custom", json!({})).await;
    let apply =
        "Object{metadata: Object.metadata{labels: {'seen': 'yes'}}, spec: Object.spec{parts: [Object.spec.parts{name: 'mast', kind: 'wood'}]}}";
    let spec = json!({"reinvocationPolicy": "Never", "matchConstraints": rules, "mutations": [
        {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": apply}},
        {"patchType": "JSONPatch", "jsonPatch": {"expression": "[JSONPatch{op: 'add', path: '/spec/size', value: object.spec.size + 1}]"}}]});
    mutating(admin, "masts", "custom", spec).await;

    let path = "/apis/policy.example.com/v1/namespaces/custom/boats";
    let boat = |name: &str, size: u32| json!({"apiVersion": "policy.example.com/v1", "kind": "Boat", "metadata": {"name": name}, "spec": {"size": size, "parts": [{"name": "mast"}, {"name": "oar"}]}});
    let stored = made(admin, path, boat("a", 2)).await;
    assert_eq!(stored["spec"], json!({"size": 3, "parts": [{"name": "mast", "kind": "wood"}, {"name": "oar"}]}));
    assert_eq!(stored["metadata"]["labels"], json!({"seen": "yes"}));
    let refused = admin.post(path, boat("b", 9)).await;
    assert_eq!(
        (refused.code, refused.message()),
        (
            422,
            "boats.policy.example.com \"b\" is forbidden: ValidatingAdmissionPolicy 'boats' with binding 'boats-binding' denied request: too large"
        )
    );
    // What is applied is admitted as any write.
    let config = boat("b", 9).to_string();
    let refused = admin.send("PATCH", &format!("{path}/b?fieldManager=me"), "application/apply-patch+yaml", config).await;
    assert!(refused.code == 422 && refused.message().ends_with("denied request: too large"), "{}", refused.body);
    let config = boat("b", 1).to_string();
    let applied = admin.send("PATCH", &format!("{path}/b?fieldManager=me"), "application/apply-patch+yaml", config).await;
    assert_eq!((applied.code, &applied.body["spec"]["size"], &applied.body["metadata"]["labels"]["seen"]), (201, &json!(2), &json!("yes")));
    let fields = &applied.body["metadata"]["managedFields"][0]["fieldsV1"];
    assert_eq!((fields.get("f:metadata"), fields["f:spec"].get("f:size")), (None, Some(&json!({}))), "what a policy adds is nobody's");
}
