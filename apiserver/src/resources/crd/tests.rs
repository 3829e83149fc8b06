use super::spec::{self, Before};
use coracle_api::status::Cause;
use serde_json::{Value, json};

fn definition(schema: Value) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "foos.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced", "names": {"plural": "foos", "singular": "foo", "kind": "Foo", "listKind": "FooList"},
            "conversion": {"strategy": "None"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}],
        },
        "status": {"storedVersions": ["v1"]},
    })
}

fn wrong(definition: &Value, old: Option<&Value>) -> Vec<String> {
    let mut causes = Vec::new();
    spec::definition(definition, Before { old }, &mut causes);
    causes.iter().map(Cause::line).collect()
}

fn of_schema(schema: Value) -> Vec<String> {
    wrong(&definition(schema), None).iter().map(|line| line.replace("spec.validation.openAPIV3Schema", "")).collect()
}

#[test]
fn a_good_definition_is_good() {
    assert_eq!(of_schema(json!({"type": "object"})), [""; 0]);
}

#[test]
fn rules_must_compile() {
    let rule = |rule: Value| {
        of_schema(
            json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {"n": {"type": "integer"}}, "x-kubernetes-validations": [rule]}}}),
        )
    };
    assert_eq!(rule(json!({"rule": "self.n > 0"})), [""; 0]);
    let place = ".properties[spec].x-kubernetes-validations[0]";
    for (text, why) in [
        (json!({"rule": " "}), ".rule: Required value: rule is not specified"),
        (json!({"rule": "true", "message": " "}), ".message: Invalid value: \" \": must be non-empty if specified"),
        (json!({"rule": "true\n"}), ""),
        (json!({"rule": "true\n&& true"}), ".message: Required value: message must be specified if rule contains line breaks"),
        (json!({"rule": "true", "fieldPath": ".x"}), ".fieldPath: Invalid value: \".x\": must be a valid path"),
        (
            json!({"rule": "true", "reason": "Odd"}),
            ".reason: Unsupported value: \"Odd\": supported values: \"FieldValueDuplicate\", \"FieldValueForbidden\", \"FieldValueInvalid\", \"FieldValueRequired\"",
        ),
        (json!({"rule": "true", "optionalOldSelf": true}), ".optionalOldSelf: Invalid value: true: may not be set if oldSelf is not used in rule"),
        (
            json!({"rule": "self.n"}),
            ".rule: Invalid value: {\"Rule\":\"self.n\",\"Message\":\"\",\"MessageExpression\":\"\",\"Reason\":null,\"FieldPath\":\"\",\"OptionalOldSelf\":null}: cel expression must evaluate to a bool",
        ),
    ] {
        let wanted: Vec<String> = if why.is_empty() { Vec::new() } else { vec![format!("{place}{why}")] };
        assert_eq!(rule(text.clone()), wanted, "{text}");
    }
    let undefined = rule(json!({"rule": "self.m > 0"}));
    assert!(undefined.len() == 1 && undefined[0].contains("compilation failed: ERROR: <input>:1:5: undefined field 'm'"), "{undefined:?}");
}

#[test]
fn rules_may_not_cost_too_much() {
    let list = |limits: Value| {
        let mut list = json!({"type": "array", "items": {"type": "string", "maxLength": 100}, "x-kubernetes-validations": [{"rule": "self.all(x, self.all(y, x == y))"}]});
        list.as_object_mut().expect("a map").extend(limits.as_object().expect("a map").clone());
        of_schema(json!({"type": "object", "properties": {"l": list}}))
    };
    let unbounded = list(json!({}));
    assert!(
        unbounded[0].starts_with(
            ".properties[l].x-kubernetes-validations[0].rule: Forbidden: estimated rule cost exceeds budget by factor of more than 100x (try"
        ),
        "{unbounded:?}"
    );
    assert!(
        unbounded.last().is_some_and(|line| line
            .starts_with(": Forbidden: x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema exceeds budget by factor of")),
        "{unbounded:?}"
    );
    assert_eq!(list(json!({"maxItems": 10})), [""; 0]);
    // What was accepted once stays so.
    let nested = definition(
        json!({"type": "object", "properties": {"m": {"type": "array", "items": {"type": "string", "x-kubernetes-validations": [{"rule": "self.matches('a+')"}]}}}}),
    );
    let strict = wrong(&nested, None);
    assert!(strict.iter().any(|line| line.contains("estimated rule cost exceeds")), "{strict:?}");
    assert!(!wrong(&nested, Some(&nested)).iter().any(|line| line.contains("]: Forbidden: estimated rule cost exceeds")));
}

#[test]
fn old_values_must_be_told_apart() {
    let list = |kind: Value| {
        of_schema(
            json!({"type": "object", "properties": {"l": {"type": "array", "maxItems": 5, "x-kubernetes-list-type": kind, "x-kubernetes-list-map-keys": ["k"], "items": {
                "type": "object", "required": ["k"], "properties": {"k": {"type": "string"}, "v": {"type": "integer", "x-kubernetes-validations": [{"rule": "self >= oldSelf"}]}},
            }}}}),
        )
    };
    assert_eq!(list("map".into()), [""; 0]);
    let atomic = of_schema(
        json!({"type": "object", "properties": {"l": {"type": "array", "maxItems": 5, "items": {"type": "integer", "x-kubernetes-validations": [{"rule": "self >= oldSelf"}]}}}}),
    );
    assert_eq!(
        atomic,
        [
            ".properties[l].items.x-kubernetes-validations[0].rule: Invalid value: \"self >= oldSelf\": oldSelf cannot be used on the uncorrelatable portion of the schema within .properties[l]"
        ]
    );
}

#[test]
fn defaults_must_hold_the_rules() {
    let default = |default: i64| {
        of_schema(
            json!({"type": "object", "properties": {"n": {"type": "integer", "default": default, "x-kubernetes-validations": [{"rule": "self > 3", "message": "more"}]}}}),
        )
    };
    assert_eq!(default(4), [""; 0]);
    assert_eq!(default(2), [".properties[n].default: Invalid value: 2: more"]);
}
