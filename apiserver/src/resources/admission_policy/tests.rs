//! Rules, kind by kind.

use super::*;
use crate::resources::rules::lines;
use serde_json::json;

fn wrong(rule: impl Fn(&Value, &mut Causes), object: &Value) -> Vec<String> {
    let mut causes = Vec::new();
    rule(object, &mut causes);
    lines(&causes)
}

fn constraints(operations: &[&str]) -> Value {
    json!({"matchPolicy": "Equivalent", "namespaceSelector": {}, "objectSelector": {}, "resourceRules": [
        {"apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments"], "operations": operations}]})
}

fn policy(change: impl Fn(&mut Value)) -> Value {
    let mut policy = json!({"metadata": {"name": "p"}, "spec": {"failurePolicy": "Fail", "matchConstraints": constraints(&["CREATE"]),
        "validations": [{"expression": "object.spec.replicas < 3"}]}});
    change(&mut policy["spec"]);
    policy
}

#[test]
fn validating_policies() {
    let wrong = |change: &dyn Fn(&mut Value)| wrong(validating, &policy(change));
    assert_eq!(wrong(&|_| ()), Vec::<String>::new());
    assert_eq!(
        wrong(&|spec| spec["validations"] = json!([{"expression": "object.x +"}])),
        [
            "spec.validations[0].expression: Invalid value: \"object.x +\": compilation failed: ERROR: <input>:1:11: Syntax error: mismatched input '<EOF>' expecting {'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}\n | object.x +\n | ..........^"
        ]
    );
    assert_eq!(
        wrong(&|spec| spec["validations"] = json!([{"expression": "1 + 1"}])),
        ["spec.validations[0].expression: Invalid value: \"1 + 1\": must evaluate to bool but got int"]
    );
    assert_eq!(
        wrong(&|spec| spec["validations"] = json!([{"expression": "true", "messageExpression": "1", "message": "a\nb", "reason": "Nope"}])),
        [
            "spec.validations[0].messageExpression: Invalid value: \"1\": must evaluate to string but got int",
            "spec.validations[0].message: Invalid value: \"a\\nb\": must not contain line breaks",
            "spec.validations[0].reason: Unsupported value: \"Nope\": supported values: \"Forbidden\", \"Invalid\", \"RequestEntityTooLarge\", \"Unauthorized\"",
        ]
    );
    assert_eq!(
        wrong(&|spec| spec["validations"] = json!([])),
        [
            "spec.validations: Required value: validations or auditAnnotations must contain at least one item",
            "spec.auditAnnotations: Required value: validations or auditAnnotations must contain at least one item",
        ]
    );
    // Params and variables are there when they are declared, in order.
    assert!(wrong(&|spec| spec["validations"] = json!([{"expression": "params.x == 1"}]))[0].contains("undeclared reference to 'params'"));
    assert_eq!(
        wrong(&|spec| {
            spec["paramKind"] = json!({"apiVersion": "v1", "kind": "ConfigMap"});
            spec["variables"] = json!([{"name": "a", "expression": "params.data.x"}, {"name": "b", "expression": "variables.a + 'x'"}]);
            spec["validations"] = json!([{"expression": "variables.b == 'x'", "messageExpression": "variables.b + string(params)"}]);
        }),
        Vec::<String>::new()
    );
    assert!(
        wrong(&|spec| spec["validations"] =
            json!([{"expression": "true", "messageExpression": "string(authorizer.group('').resource('pods').check('get').allowed())"}]))[0]
            .contains("undeclared reference to 'authorizer'")
    );
    assert_eq!(
        wrong(&|spec| spec["variables"] = json!([{"name": "if", "expression": "1"}, {"name": "ok", "expression": ""}])),
        [
            "spec.variables[0].name: Invalid value: \"if\": must be a valid CEL identifier",
            "spec.variables[1].expression: Required value: expression is not specified"
        ]
    );
    assert_eq!(
        wrong(&|spec| spec["matchConditions"] = json!([{"name": "a b", "expression": "true"}, {"name": "x", "expression": "'s'"}]))[1],
        "spec.matchConditions[1].expression: Invalid value: \"'s'\": must evaluate to bool but got string"
    );
    assert_eq!(
        wrong(&|spec| spec["matchConstraints"]["resourceRules"][0]["operations"] = json!(["*", "READ"])),
        [
            "spec.matchConstraints.resourceRules[0].operations: Invalid value: [\"*\",\"READ\"]: if '*' is present, must not specify other operations",
            "spec.matchConstraints.resourceRules[0].operations[1]: Unsupported value: \"READ\": supported values: \"*\", \"CONNECT\", \"CREATE\", \"DELETE\", \"UPDATE\"",
        ]
    );
    assert_eq!(
        wrong(&|spec| spec["auditAnnotations"] = json!([{"key": "k", "valueExpression": "'v'"}, {"key": "k", "valueExpression": "1"}])),
        [
            "spec.auditAnnotations[1].valueExpression: Invalid value: \"1\": must evaluate to one of [string null] but got int",
            "spec.auditAnnotations[1].key: Duplicate value: \"k\"",
        ]
    );
}

#[test]
fn mutating_policies() {
    let mutation = |text: &str| json!([{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": text}}]);
    let wrong = |mutations: Value, operations: &[&str]| {
        let policy = policy(|spec| {
            spec["mutations"] = mutations.clone();
            spec["reinvocationPolicy"] = json!("Never");
            spec["matchConstraints"] = constraints(operations);
        });
        wrong(mutating, &policy)
    };
    assert_eq!(wrong(mutation("Object{spec: Object.spec{replicas: 3}}"), &["CREATE"]), Vec::<String>::new());
    assert_eq!(
        wrong(mutation("{'spec': 1}"), &["CREATE"]),
        ["spec.mutations[0].applyConfiguration.expression: Invalid value: \"{'spec': 1}\": must evaluate to Object but got map(string, int)"]
    );
    assert_eq!(
        wrong(json!([{"patchType": "JSONPatch", "jsonPatch": {"expression": "[JSONPatch{op: 'add', path: '/a', value: 1}]"}}]), &["DELETE"]),
        ["spec.matchConstraints.resourceRules.operations: Unsupported value: \"DELETE\": supported values: \"CREATE\", \"UPDATE\""]
    );
    assert_eq!(
        wrong(json!([{"patchType": "JSONPatch", "applyConfiguration": {"expression": "Object{}"}}]), &["CREATE"]),
        [
            "spec.mutations[0].jsonPatch: Required value: must be specified when patchType is JSONPatch",
            "spec.mutations[0].applyConfiguration: Invalid value: \"{applyConfiguration}\": must not be specified when patchType is JSONPatch",
        ]
    );
}

#[test]
fn bindings() {
    let of = |spec: Value, mutating: bool| wrong(|object, causes| binding(object, mutating, causes), &json!({ "spec": spec }));
    assert_eq!(of(json!({"policyName": "p", "validationActions": ["Deny"]}), false), Vec::<String>::new());
    assert_eq!(
        of(json!({"validationActions": []}), false),
        ["spec.policyName: Required value", "spec.validationActions: Required value: at least one validation action is required"]
    );
    assert!(of(json!({"policyName": "p", "validationActions": ["Deny", "Warn"]}), false)[0].contains("must not contain both Deny and Warn"));
    assert_eq!(
        of(json!({"policyName": "p", "paramRef": {"name": "n", "selector": {}}}), true),
        [
            "spec.paramRef.name: Forbidden: name and selector are mutually exclusive",
            "spec.paramRef.selector: Forbidden: name and selector are mutually exclusive",
            "spec.paramRef.parameterNotFoundAction: Required value",
        ]
    );
}
