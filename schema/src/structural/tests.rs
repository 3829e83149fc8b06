use super::*;
use coracle_api::cause::Path;
use coracle_api::status::Cause;
use serde_json::json;

fn shape(schema: Value) -> Structural {
    Structural::parse(&schema).expect("structural")
}

fn object(properties: Value) -> Structural {
    shape(json!({"type": "object", "properties": properties}))
}

fn wrong(schema: &Structural, value: Value) -> Vec<String> {
    Validation { value: &value, old: None, base: "" }.run(schema.root()).iter().map(Cause::line).collect()
}

fn changed(schema: &Structural, old: Value, value: Value) -> Vec<String> {
    Validation { value: &value, old: Some(&old), base: "" }.run(schema.root()).iter().map(Cause::line).collect()
}

#[test]
fn what_is_unknown_goes() {
    let schema = object(json!({"spec": {"type": "object", "properties": {
        "known": {"type": "object", "properties": {"a": {"type": "integer"}}},
        "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"x": {"type": "string"}}}},
        "list": {"type": "array", "items": {"type": "object", "properties": {"x": {"type": "string"}}}},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"known": {"type": "object"}}},
        "freeList": {"type": "array", "x-kubernetes-preserve-unknown-fields": true, "items": {"type": "object", "properties": {"in": {"type": "object"}}}},
        "pod": {"type": "object", "x-kubernetes-embedded-resource": true, "properties": {"spec": {"type": "object"}}},
    }}}));
    let mut value = json!({
        "apiVersion": "a/v1", "kind": "A", "metadata": {"name": "x", "odd": 1}, "top": 1,
        "spec": {
            "known": {"a": 1, "b": 2, "metadata": {}}, "map": {"k": {"x": "1", "y": 2}}, "list": [{"x": "1"}, {"y": 2}],
            "free": {"any": {"thing": 1}, "known": {"gone": 1}}, "freeList": [{"kept": 1, "in": {"gone": 1}}],
            "pod": {"apiVersion": "v1", "kind": "Pod", "metadata": {"kept": 1}, "spec": {"gone": 1}, "status": 1},
        },
    });
    let gone = schema.prune(&mut value);
    assert_eq!(
        gone,
        [
            "spec.free.known.gone",
            "spec.freeList[0].in.gone",
            "spec.known.b",
            "spec.known.metadata",
            "spec.list[1].y",
            "spec.map.k.y",
            "spec.pod.spec.gone",
            "spec.pod.status",
            "top"
        ]
    );
    assert_eq!(
        value,
        json!({
            "apiVersion": "a/v1", "kind": "A", "metadata": {"name": "x", "odd": 1},
            "spec": {
                "known": {"a": 1}, "map": {"k": {"x": "1"}}, "list": [{"x": "1"}, {}],
                "free": {"any": {"thing": 1}, "known": {}}, "freeList": [{"kept": 1, "in": {}}],
                "pod": {"apiVersion": "v1", "kind": "Pod", "metadata": {"kept": 1}, "spec": {}},
            },
        })
    );
}

#[test]
fn defaults_fill_and_nulls_that_mean_nothing_go() {
    let schema = object(json!({"spec": {"type": "object", "default": {}, "properties": {
        "a": {"type": "string", "default": "A"},
        "b": {"type": "object", "properties": {"c": {"type": "integer", "default": 1}}},
        "list": {"type": "array", "items": {"type": "object", "properties": {"d": {"type": "boolean", "default": true}}}},
        "map": {"type": "object", "additionalProperties": {"type": "object", "default": {"e": 1}, "properties": {"e": {"type": "integer", "default": 2}}}},
        "none": {"type": "string", "nullable": true, "default": "N"},
        "plain": {"type": "string"},
    }}}));
    let fill = |mut value: Value| {
        schema.drop_nulls(&mut value);
        schema.default(&mut value);
        value
    };
    assert_eq!(fill(json!({})), json!({"spec": {"a": "A", "none": "N"}}));
    assert_eq!(
        fill(json!({"spec": {"a": null, "b": {}, "list": [{}, {"d": false}], "map": {"x": null, "y": {}}, "none": null, "plain": null}})),
        json!({"spec": {"a": "A", "b": {"c": 1}, "list": [{"d": true}, {"d": false}], "map": {"x": {"e": 1}, "y": {"e": 2}}, "none": null}})
    );
    let pruned = object(json!({"spec": {"type": "object", "default": {"a": 1, "odd": 2}, "properties": {"a": {"type": "integer"}}}}));
    let mut value = json!({});
    pruned.default(&mut value);
    assert_eq!(value, json!({"spec": {"a": 1}}), "a default is cut to its schema");
}

#[test]
fn values_are_checked_with_upstreams_words() {
    let schema = object(json!({
        "n": {"type": "integer", "minimum": 1, "maximum": 10, "exclusiveMaximum": true, "multipleOf": 3},
        "f": {"type": "number", "minimum": 0.5, "maximum": 2_000_000.0},
        "i32": {"type": "integer", "format": "int32"},
        "s": {"type": "string", "minLength": 2, "maxLength": 4, "pattern": "^a"},
        "d": {"type": "string", "format": "date-time"},
        "e": {"type": "string", "enum": ["A", "B"]},
        "en": {"type": "integer", "enum": [1, 2]},
        "l": {"type": "array", "minItems": 1, "maxItems": 2, "items": {"type": "string"}},
        "o": {"type": "object", "minProperties": 1, "maxProperties": 2, "additionalProperties": {"type": "integer"}},
        "r": {"type": "object", "required": ["x", "y"], "properties": {"x": {"type": "string"}, "y": {"type": "string"}}},
        "is": {"x-kubernetes-int-or-string": true},
        "b": {"type": "boolean"},
        "no": {"type": "string", "nullable": true},
    }));
    for (value, want) in [
        (json!({"n": 3, "f": 1, "s": "abc", "d": "2026-01-02T03:04:05Z", "e": "A", "en": 1, "l": ["x"], "o": {"k": 1}, "is": 5, "no": null}), vec![]),
        (json!({"is": "5%", "i32": 2_147_483_647}), vec![]),
        (json!({"n": 0}), vec!["n: Invalid value: 0: n in body should be greater than or equal to 1"]),
        (json!({"n": 12}), vec!["n: Invalid value: 12: n in body should be less than 10"]),
        (json!({"n": 4}), vec!["n: Invalid value: 4: n in body should be a multiple of 3"]),
        (json!({"n": "x"}), vec![r#"n: Invalid value: "string": n in body must be of type integer: "string""#]),
        (
            json!({"n": 1.5}),
            vec![
                r#"n: Invalid value: "number": n in body must be of type integer: "number""#,
                r#"<nil>: Invalid value: "": Checked value must be of type integer (default format) in n"#,
                "n: Invalid value: 1.5: n in body should be a multiple of 3",
            ],
        ),
        (json!({"n": null}), vec![r#"n: Invalid value: "null": n in body must be of type integer: "null""#]),
        (json!({"f": 0.25}), vec!["f: Invalid value: 0.25: f in body should be greater than or equal to 0.5"]),
        (json!({"f": 2_500_000.5}), vec!["f: Invalid value: 2500000.5: f in body should be less than or equal to 2e+06"]),
        (json!({"i32": 3_000_000_000_u64}), vec![r#"<nil>: Invalid value: "": Checked value must be of type integer with format int32 in i32"#]),
        (json!({"s": "a"}), vec![r#"s: Invalid value: "a": s in body should be at least 2 chars long"#]),
        (json!({"s": "abcde"}), vec!["s: Too long: may not be more than 4 bytes"]),
        (json!({"s": "bc"}), vec![r#"s: Invalid value: "bc": s in body should match '^a'"#]),
        (json!({"d": "x"}), vec![r#"d: Invalid value: "x": d in body must be of type date-time: "x""#]),
        (json!({"e": "C"}), vec![r#"e: Unsupported value: "C": supported values: "A", "B""#]),
        (json!({"en": 3}), vec![r#"en: Unsupported value: 3: supported values: "1", "2""#]),
        (json!({"l": []}), vec!["l: Invalid value: 0: l in body should have at least 1 items"]),
        (json!({"l": ["a", "b", "c"]}), vec!["l: Too many: 3: must have at most 2 items"]),
        (json!({"l": [1]}), vec![r#"l[0]: Invalid value: "integer": l[0] in body must be of type string: "integer""#]),
        (json!({"o": {}}), vec!["o: Invalid value: 0: o in body should have at least 1 properties"]),
        (json!({"o": {"a": 1, "b": 2, "c": 3}}), vec!["o: Too many: 3: must have at most 2 items"]),
        (json!({"o": {"a.b": "x"}}), vec![r#"o.a.b: Invalid value: "string": o.a.b in body must be of type integer: "string""#]),
        (json!({"r": {"x": "1"}}), vec!["r.y: Required value"]),
        (json!({"is": true}), vec![r#"is: Invalid value: "boolean": is in body must be of type integer,string: "boolean""#]),
        (json!({"b": "true"}), vec![r#"b: Invalid value: "string": b in body must be of type boolean: "string""#]),
    ] {
        assert_eq!(wrong(&schema, value.clone()), want, "{value}");
    }
}

#[test]
fn alternatives_tell_what_was_nearest() {
    let schema = object(json!({
        "any": {"type": "integer", "anyOf": [{"minimum": 10}, {"maximum": 5}]},
        "one": {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}}, "oneOf": [{"required": ["a"]}, {"required": ["b"]}]},
        "all": {"type": "integer", "allOf": [{"minimum": 2}, {"maximum": 8}]},
        "not": {"type": "string", "not": {"enum": ["x"]}},
    }));
    assert!(wrong(&schema, json!({"any": 3, "one": {"a": "1"}, "all": 5, "not": "y"})).is_empty());
    assert_eq!(
        wrong(&schema, json!({"any": 7})),
        [
            r#"<nil>: Invalid value: "": "any" must validate at least one schema (anyOf)"#,
            "any: Invalid value: 7: any in body should be greater than or equal to 10"
        ]
    );
    assert_eq!(
        wrong(&schema, json!({"one": {}})),
        [r#"<nil>: Invalid value: "": "one" must validate one and only one schema (oneOf). Found none valid"#, "one.a: Required value"]
    );
    assert_eq!(
        wrong(&schema, json!({"one": {"a": "1", "b": "2"}})),
        [r#"<nil>: Invalid value: "": "one" must validate one and only one schema (oneOf). Found 2 valid alternatives"#]
    );
    assert_eq!(
        wrong(&schema, json!({"all": 1})),
        [
            "all: Invalid value: 1: all in body should be greater than or equal to 2",
            r#"<nil>: Invalid value: "": "all" must validate all the schemas (allOf)"#
        ]
    );
    assert_eq!(wrong(&schema, json!({"not": "x"})), [r#"<nil>: Invalid value: "": "not" must not validate the schema (not)"#]);
}

#[test]
fn what_did_not_change_is_not_held_against_anybody() {
    let schema = object(json!({"spec": {"type": "object", "properties": {
        "a": {"type": "string", "maxLength": 1},
        "b": {"type": "string", "maxLength": 1},
        "map": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"], "items": {
            "type": "object", "properties": {"k": {"type": "string"}, "v": {"type": "string", "maxLength": 1}}}},
        "list": {"type": "array", "items": {"type": "string", "maxLength": 1}},
    }}}));
    let long = "a: Too long: may not be more than 1 byte";
    assert_eq!(changed(&schema, json!({"spec": {"a": "xx"}}), json!({"spec": {"a": "xx", "b": "y"}})), Vec::<String>::new());
    assert_eq!(changed(&schema, json!({"spec": {"a": "xx"}}), json!({"spec": {"a": "xxx"}})), [format!("spec.{long}")]);
    let old = json!({"spec": {"map": [{"k": "1", "v": "xx"}, {"k": "2"}]}});
    assert_eq!(changed(&schema, old.clone(), json!({"spec": {"map": [{"k": "2"}, {"k": "1", "v": "xx"}]}})), Vec::<String>::new());
    assert_eq!(changed(&schema, old, json!({"spec": {"map": [{"k": "3", "v": "xx"}]}})), ["spec.map[0].v: Too long: may not be more than 1 byte"]);
    let old = json!({"spec": {"list": ["xx"]}});
    assert_eq!(changed(&schema, old.clone(), json!({"spec": {"list": ["xx"], "a": "y"}})), Vec::<String>::new());
    assert_eq!(changed(&schema, old, json!({"spec": {"list": ["xx", "y"]}})), ["spec.list[0]: Too long: may not be more than 1 byte"]);
}

#[test]
fn sets_and_maps_hold_nothing_twice() {
    let schema = object(json!({
        "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "map": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["a", "b"], "items": {
            "type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "integer"}}}},
    }));
    let twice = |value: Value| {
        let mut causes = Vec::new();
        unique(schema.root(), &value, Path::Root, &mut causes);
        causes.iter().map(Cause::line).collect::<Vec<_>>()
    };
    assert_eq!(twice(json!({"set": ["a", "b", "a", "a"]})), [r#"set[2]: Duplicate value: "a""#]);
    assert_eq!(twice(json!({"map": [{"a": "1", "b": 1}, {"a": "1", "b": 2}, {"a": "1"}]})), Vec::<String>::new());
    assert_eq!(twice(json!({"map": [{"a": "1", "b": 1, "c": 1}, {"a": "1", "b": 1, "c": 2}]})), [r#"map[1]: Duplicate value: {"a":"1","b":1}"#]);
    assert_eq!(twice(json!({"map": ["x"]})), [r#"map[0]: Invalid value: "x": must be an object for an array of list-type map"#]);
}

#[test]
fn embedded_objects_have_type_and_metadata() {
    let schema = object(json!({"pod": {"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true}}));
    let mut value = json!({"pod": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x", "odd": 1, "labels": {"a": "b"}}}});
    assert_eq!(coerce(schema.root(), &mut value, false, Malformed::Refuse), Ok(vec!["pod.metadata.odd".into()]));
    assert_eq!(value["pod"]["metadata"], json!({"name": "x", "labels": {"a": "b"}}));
    let refused = |pod: Value| coerce(schema.root(), &mut json!({"pod": pod}), false, Malformed::Refuse).map_err(|cause| cause.line());
    assert_eq!(refused(json!({"apiVersion": 5})), Err("pod.apiVersion: Invalid value: 5: must be a string".into()));
    assert_eq!(
        refused(json!({"metadata": {"labels": {"a": 1}}})),
        Err(
            r#"pod.metadata: Invalid value: {"labels":{"a":1}}: json: cannot unmarshal number into Go struct field ObjectMeta.labels of type string"#
                .into()
        )
    );
    let mut malformed = json!({"pod": {"kind": 5, "metadata": {"name": "x", "labels": 7}}});
    assert_eq!(coerce(schema.root(), &mut malformed, false, Malformed::Drop), Ok(vec![]));
    assert_eq!(malformed, json!({"pod": {"metadata": {"name": "x"}}}));
    let check = |pod: Value| {
        let mut causes = Vec::new();
        embedded(
            schema.root(),
            &json!({"pod": pod}),
            Path::Root,
            &|_, path, causes| causes.push(Cause { field: path.to_string(), ..Cause::default() }),
            &mut causes,
        );
        causes.iter().map(Cause::line).collect::<Vec<_>>()
    };
    assert_eq!(check(json!({})), ["pod.apiVersion: Required value", "pod.kind: Required value"]);
    assert_eq!(check(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {}})), ["pod.metadata: "]);
    assert_eq!(
        check(json!({"apiVersion": "a/b/c", "kind": ""})),
        [r#"pod.apiVersion: Invalid value: "a/b/c": unexpected GroupVersion string: a/b/c"#, r#"pod.kind: Invalid value: "": must not be empty"#]
    );
}

#[test]
fn what_no_structural_schema_holds_is_refused() {
    for (schema, why) in [
        (json!({"$ref": "#/a"}), "OpenAPIV3Schema '$ref' is not supported"),
        (json!({"properties": {"a": {"definitions": {}}}}), "OpenAPIV3Schema 'definitions' is not supported"),
        (json!({"items": [{"type": "string"}]}), "OpenAPIV3Schema 'items' must be a schema, but is an array"),
    ] {
        assert_eq!(Structural::parse(&schema).map(drop), Err(why.to_owned()));
    }
}

/// What the rules of a schema say about a value, and what they only warn of.
fn ruled(schema: &Structural, old: Option<Value>, value: Value) -> (Vec<String>, Vec<String>) {
    let trial = Trial { value: &value, old: old.as_ref(), ratchet: true, base: "" };
    let (causes, warnings) = schema.rules().expect("rules").check(schema.root(), trial, &mut coracle_cel::Budget::default());
    (causes.iter().map(Cause::line).collect(), warnings)
}

#[test]
fn rules_are_evaluated_along_the_tree() {
    let schema = shape(json!({
        "type": "object",
        "x-kubernetes-validations": [{"rule": "self.metadata.name != 'bad' && self.kind == 'A'", "message": "not that name"}],
        "properties": {"spec": {
            "type": "object",
            "x-kubernetes-validations": [
                {"rule": "self.min <= self.max", "messageExpression": "'min %d is more than max %d'.format([self.min, self.max])", "fieldPath": ".min", "reason": "FieldValueForbidden"},
            ],
            "properties": {
                "min": {"type": "integer"},
                "max": {"type": "integer", "x-kubernetes-validations": [{"rule": "self >= oldSelf", "message": "may only grow"}]},
                "names": {"type": "object", "additionalProperties": {"type": "string", "x-kubernetes-validations": [{"rule": "self.startsWith('a')"}]}},
                "list": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"], "items": {"type": "object", "properties": {
                    "k": {"type": "string"},
                    "v": {"type": "integer", "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "is fixed", "reason": "FieldValueDuplicate"}]},
                }}},
                "once": {"type": "string", "x-kubernetes-validations": [{"rule": "!oldSelf.hasValue() || oldSelf.value() == self", "optionalOldSelf": true, "message": "stays"}]},
                "either": {"x-kubernetes-int-or-string": true, "x-kubernetes-validations": [{"rule": "type(self) == int || self.endsWith('%')"}]},
                "pod": {"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true,
                    "x-kubernetes-validations": [{"rule": "self.kind == 'Pod' && self.metadata.name.size() < 5"}]},
            },
        }},
    }));
    let spec = |spec: Value| json!({"apiVersion": "a/v1", "kind": "A", "metadata": {"name": "x"}, "spec": spec});
    let good = spec(json!({"min": 1, "max": 2, "names": {"x": "ab"}, "list": [{"k": "a", "v": 1}], "once": "a", "either": "5%"}));
    assert_eq!(ruled(&schema, None, good.clone()), (vec![], vec![]));
    let bad = spec(json!({
        "min": 3, "max": 2, "names": {"x": "b"}, "either": "5", "pod": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "longer"}},
    }));
    let (mut broken, _) = ruled(&schema, None, bad.clone());
    broken.sort();
    assert_eq!(
        broken,
        [
            "spec.either: Invalid value: \"5\": failed rule: type(self) == int || self.endsWith('%')",
            "spec.min: Forbidden: min 3 is more than max 2",
            "spec.names[x]: Invalid value: \"b\": failed rule: self.startsWith('a')",
            "spec.pod: Invalid value: failed rule: self.kind == 'Pod' && self.metadata.name.size() < 5",
        ]
    );
    let (broken, _) = ruled(&schema, None, json!({"apiVersion": "a/v1", "kind": "A", "metadata": {"name": "bad"}}));
    assert_eq!(broken, ["<nil>: Invalid value: not that name"]);

    // Changes are seen where it can be told what was there before; what stays wrong is only warned of.
    let changed = spec(json!({"min": 1, "max": 1, "names": {"x": "ab"}, "list": [{"k": "b", "v": 9}, {"k": "a", "v": 2}], "once": "b", "either": 1}));
    let (mut broken, _) = ruled(&schema, Some(good), changed);
    broken.sort();
    assert_eq!(broken, ["spec.list[1].v: Duplicate value: 2", "spec.max: Invalid value: 1: may only grow", "spec.once: Invalid value: \"b\": stays"]);
    let mut moved = bad.clone();
    moved["spec"]["once"] = "x".into();
    let (broken, warnings) = ruled(&schema, Some(bad), moved);
    assert_eq!(
        broken,
        [
            "spec.min: Forbidden: min 3 is more than max 2",
            "spec.pod: Invalid value: failed rule: self.kind == 'Pod' && self.metadata.name.size() < 5"
        ],
        "the rule about the whole spec sees that it changed, and of what no schema describes nobody can tell"
    );
    assert_eq!(warnings.len(), 2, "{warnings:?}");
}

#[test]
fn rules_that_cannot_be_evaluated_say_so() {
    let schema = object(json!({"n": {"x-kubernetes-int-or-string": true, "x-kubernetes-validations": [
        {"rule": "self < 5", "message": "small"}, {"rule": "[1, 2][self] > 0"},
    ]}}));
    let (broken, _) = ruled(&schema, None, json!({"n": "x"}));
    assert!(broken.iter().all(|line| line.starts_with("n: Invalid value: \"\": ")), "{broken:?}");
    assert_eq!(broken.len(), 2);
    let schema = object(json!({"l": {"type": "array", "items": {"type": "integer"}, "x-kubernetes-validations": [
        {"rule": "self.all(a, self.all(b, self.all(c, a + b + c > 0)))"}, {"rule": "false"},
    ]}}));
    let many: Vec<u32> = (1..2000).collect();
    let (broken, _) = ruled(&schema, None, json!({"l": many}));
    assert_eq!(broken.len(), 1, "nothing is evaluated after that: {broken:?}");
    assert!(broken[0].contains("no further validation rules will be run due to call cost exceeds limit"), "{broken:?}");
}
