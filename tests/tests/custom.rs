//! Custom resources as people use them with kubectl: a definition, what `kubectl` makes of it, and what it refuses.

use anyhow::ensure;
use coracle_tests::{Case, Cluster, Mode, Result, eventually, has, main as suite};
use std::process::ExitCode;

const CASES: &[Case] = &[
    ("defined_explained_and_listed", defined_explained_and_listed),
    ("status_and_scale", status_and_scale),
    ("versions", versions),
    ("applied_on_the_server", applied_on_the_server),
    ("wrong_objects_are_refused", wrong_objects_are_refused),
    ("published_schemas_are_what_kubectl_goes_by", published_schemas_are_what_kubectl_goes_by),
    ("wrong_definitions_are_refused", wrong_definitions_are_refused),
    ("gone_with_the_definition", gone_with_the_definition),
];

fn main() -> ExitCode {
    suite(Mode::Whole, CASES)
}

/// Ships in a group of the case's own.
fn definition(group: &str) -> String {
    let version = |name: &str, storage: bool| {
        format!(
            "  - name: {name}
    served: true
    storage: {storage}
    subresources:
      status: {{}}
      scale: {{specReplicasPath: .spec.replicas, statusReplicasPath: .status.replicas, labelSelectorPath: .status.selector}}
    additionalPrinterColumns:
    - {{name: Masts, type: integer, jsonPath: .spec.masts}}
    - {{name: Port, type: string, jsonPath: .spec.port, description: Where she lies}}
    - {{name: Flag, type: string, jsonPath: .spec.flag, priority: 1}}
    schema:
      openAPIV3Schema:
        type: object
        required: [spec]
        properties:
          spec:
            description: What the ship is meant to be.
            type: object
            required: [masts]
            x-kubernetes-validations:
            - {{rule: 'self.masts >= self.replicas', message: more ships than masts, fieldPath: .replicas}}
            - {{rule: 'self.flag == oldSelf.flag', message: a ship keeps her flag, reason: FieldValueForbidden}}
            properties:
              masts: {{type: integer, minimum: 1, maximum: 7, description: How many masts she has.}}
              replicas: {{type: integer, default: 1}}
              port: {{type: string, maxLength: 10}}
              flag: {{type: string, enum: [red, blue], default: red}}
              cargo:
                type: array
                maxItems: 10
                x-kubernetes-list-type: map
                x-kubernetes-list-map-keys: [name]
                items: {{type: object, required: [name], properties: {{name: {{type: string, maxLength: 20}}, tons: {{type: integer}}}}}}
          status:
            type: object
            properties: {{replicas: {{type: integer}}, selector: {{type: string}}}}
"
        )
    };
    let versions = version("v1", true) + &version("v1beta1", false);
    format!(
        "apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {{name: ships.{group}}}
spec:
  group: {group}
  scope: Namespaced
  names: {{plural: ships, singular: ship, kind: Ship, shortNames: [sh], categories: [all, fleet]}}
  versions:
{versions}"
    )
}

fn ship(group: &str, ns: &str, name: &str, spec: &str) -> String {
    format!("apiVersion: {group}/v1\nkind: Ship\nmetadata: {{name: {name}, namespace: {ns}}}\nspec: {spec}\n")
}

/// A namespace, and the definition established.
fn define(cluster: &Cluster, name: &str) -> Result<(String, String)> {
    let (ns, group) = (cluster.namespace(name)?, format!("{name}.example.com"));
    has(&cluster.apply(&definition(&group))?, &["customresourcedefinition.apiextensions.k8s.io/ships."])?;
    let crd = format!("crd/ships.{group}");
    cluster.kubectl(&["wait", "--for=condition=Established", "--timeout=30s", &crd])?.ok()?;
    Ok((ns, group))
}

fn defined_explained_and_listed(cluster: &Cluster) -> Result {
    let (ns, group) = define(cluster, "listed")?;
    has(&cluster.kubectl(&["api-resources", "--api-group", &group])?.ok()?, &["ships", "sh", "true", "Ship"])?;
    has(&cluster.kubectl(&["api-versions"])?.ok()?, &[&format!("{group}/v1\n"), &format!("{group}/v1beta1\n")])?;
    let plural = format!("ships.{group}");
    let told = cluster.kubectl(&["explain", &format!("{plural}.spec")])?.ok()?;
    has(&told, &["KIND:       Ship", "What the ship is meant to be.", "masts", "<integer> -required-", "cargo", "<[]Object>"])?;
    has(&cluster.kubectl(&["explain", &format!("{plural}.spec.masts")])?.ok()?, &["How many masts she has."])?;
    has(&cluster.kubectl(&["explain", &plural, "--recursive"])?.ok()?, &["metadata\t<ObjectMeta>", "tons"])?;

    has(&cluster.apply(&ship(&group, &ns, "vasa", "{masts: 3, port: Stockholm}"))?, &[&format!("ship.{group}/vasa created")])?;
    let short = cluster.kubectl(&["-n", &ns, "get", &format!("sh.{group}")])?.ok()?;
    // Columns of a definition stand in place of the age.
    ensure!(short == "NAME   MASTS   PORT\nvasa   3       Stockholm\n", "{short}");
    let wide = cluster.kubectl(&["-n", &ns, "get", &plural, "-o", "wide"])?.ok()?;
    has(&wide, &["FLAG", "red"])?;
    has(&cluster.kubectl(&["-n", &ns, "get", "fleet"])?.ok()?, &["vasa"])?;
    has(&cluster.kubectl(&["-n", &ns, "get", "all"])?.ok()?, &[&format!("ship.{group}/vasa")])?;
    has(&cluster.kubectl(&["-n", &ns, "describe", &plural, "vasa"])?.ok()?, &["API Version:  listed.example.com/v1", "Masts:     3"])?;
    let changed = cluster.apply(&ship(&group, &ns, "vasa", "{masts: 4, port: Stockholm}"))?;
    has(&changed, &[&format!("ship.{group}/vasa configured")])?;
    has(&cluster.apply(&ship(&group, &ns, "vasa", "{masts: 4, port: Stockholm}"))?, &["unchanged"])?;
    cluster.kubectl(&["-n", &ns, "patch", &plural, "vasa", "--type=merge", "-p", r#"{"spec":{"masts":5}}"#])?.ok()?;
    cluster.kubectl(&["-n", &ns, "label", &plural, "vasa", "kind=warship"])?.ok()?;
    has(&cluster.kubectl(&["-n", &ns, "get", &plural, "-l", "kind=warship", "--no-headers"])?.ok()?, &["vasa   5 "])?;
    has(&cluster.kubectl(&["-n", &ns, "delete", &plural, "vasa"])?.ok()?, &["\"vasa\" deleted"])?;
    has(&cluster.kubectl(&["-n", &ns, "get", &plural, "vasa"])?.err()?, &[&format!("Error from server (NotFound): {plural} \"vasa\" not found")])
}

fn status_and_scale(cluster: &Cluster) -> Result {
    let (ns, group) = define(cluster, "scaled")?;
    let plural = format!("ships.{group}");
    cluster.apply(&(ship(&group, &ns, "vasa", "{masts: 5}") + "status: {replicas: 9}\n"))?;
    let read = |path: &str| cluster.kubectl(&["-n", &ns, "get", &plural, "vasa", "-o", &format!("jsonpath={{{path}}}")])?.ok();
    ensure!(read(".status")?.is_empty(), "a status has its own path");
    let status = r#"{"spec":{"masts":1},"status":{"replicas":2,"selector":"app=x"}}"#;
    cluster.kubectl(&["-n", &ns, "patch", &plural, "vasa", "--subresource=status", "--type=merge", "-p", status])?.ok()?;
    ensure!(read(".status.replicas")? + &read(".spec.masts")? + &read(".metadata.generation")? == "251");
    has(&cluster.kubectl(&["-n", &ns, "scale", &plural, "vasa", "--replicas=4"])?.ok()?, &["vasa scaled"])?;
    ensure!(read(".spec.replicas")? == "4");
    let seen =
        cluster.kubectl(&["-n", &ns, "get", &plural, "vasa", "--subresource=scale", "-o", "jsonpath={.kind} {.spec.replicas} {.status}"])?.ok()?;
    ensure!(seen == r#"Scale 4 {"replicas":2,"selector":"app=x"}"#, "{seen}");
    // Rules hold whichever way an object is written.
    has(
        &cluster.kubectl(&["-n", &ns, "scale", &plural, "vasa", "--replicas=6"])?.err()?,
        &["spec.replicas: Invalid value: ", "more ships than masts"],
    )
}

fn versions(cluster: &Cluster) -> Result {
    let (ns, group) = define(cluster, "versions")?;
    cluster.apply(&ship(&group, &ns, "vasa", "{masts: 3}").replace("/v1\n", "/v1beta1\n"))?;
    let read = |version: &str| {
        let resource = format!("ships.{version}.{group}/vasa");
        cluster.kubectl(&["-n", &ns, "get", &resource, "-o", "jsonpath={.apiVersion} {.spec.masts}"])?.ok()
    };
    ensure!(read("v1")? == format!("{group}/v1 3") && read("v1beta1")? == format!("{group}/v1beta1 3"));
    let unserved = r#"[{"op":"replace","path":"/spec/versions/1/served","value":false}]"#;
    cluster.kubectl(&["patch", "crd", &format!("ships.{group}"), "--type=json", "-p", unserved])?.ok()?;
    eventually("v1beta1 is no longer served", 30, || {
        ensure!(!cluster.kubectl(&["api-versions"])?.ok()?.contains(&format!("{group}/v1beta1")));
        Ok(())
    })?;
    has(&cluster.kubectl(&["-n", &ns, "get", &format!("ships.{group}")])?.ok()?, &["vasa"])
}

fn applied_on_the_server(cluster: &Cluster) -> Result {
    let (ns, group) = define(cluster, "applied")?;
    let apply = |manager: &str, spec: &str| {
        let words = ["apply", "--server-side", "-f", "-", &*format!("--field-manager={manager}")];
        cluster.kubectl_with(&words, &ship(&group, &ns, "vasa", spec))
    };
    has(&apply("builder", "{masts: 3, cargo: [{name: rum, tons: 2}]}")?.ok()?, &[&format!("ship.{group}/vasa serverside-applied")])?;
    apply("trader", "{masts: 3, cargo: [{name: tea, tons: 1}]}")?.ok()?;
    let cargo = || cluster.kubectl(&["-n", &ns, "get", &format!("ships.{group}"), "vasa", "-o", "jsonpath={.spec.cargo[*].name}"])?.ok();
    ensure!(cargo()? == "rum tea", "{}", cargo()?);
    let told = apply("trader", "{masts: 3, cargo: [{name: rum, tons: 7}]}")?.err()?;
    has(&told, &["Apply failed with 1 conflict: conflict with \"builder\": .spec.cargo[name=\"rum\"].tons", "--force-conflicts"])?;
    ensure!(cargo()? == "rum tea", "what was refused took nothing away");
    apply("builder", "{masts: 3}")?.ok()?;
    ensure!(cargo()? == "tea", "{}", cargo()?);
    let refused = apply("builder", "{masts: 3, sails: 1}")?.err()?;
    has(&refused, &[".spec.sails: field not declared in schema"])
}

fn wrong_objects_are_refused(cluster: &Cluster) -> Result {
    let (ns, group) = define(cluster, "refused")?;
    let refused = |spec: &str| cluster.kubectl_with(&["create", "--validate=false", "-f", "-"], &ship(&group, &ns, "vasa", spec))?.err();
    let head = "The Ship \"vasa\" is invalid: ";
    has(&refused("{}")?, &[head, "spec.masts: Required value"])?;
    has(&refused("{masts: 9}")?, &[head, "spec.masts: Invalid value: 9: spec.masts in body should be less than or equal to 7"])?;
    has(&refused("{masts: many}")?, &[head, "spec.masts: Invalid value: \"string\": spec.masts in body must be of type integer: \"string\""])?;
    has(&refused("{masts: 1, flag: green}")?, &["spec.flag: Unsupported value: \"green\": supported values: \"red\", \"blue\""])?;
    has(&refused("{masts: 1, cargo: [{name: a}, {name: a}]}")?, &["spec.cargo[1]: Duplicate value: {\"name\":\"a\"}"])?;
    has(&refused("{masts: 1, replicas: 2}")?, &[head, "spec.replicas: Invalid value: ", "more ships than masts"])?;
    let strict = cluster.kubectl_with(&["create", "-f", "-"], &ship(&group, &ns, "vasa", "{masts: 1, sails: 2}"))?.err()?;
    has(&strict, &["strict decoding error: unknown field \"spec.sails\""])?;
    cluster.apply(&ship(&group, &ns, "vasa", "{masts: 1}"))?;
    let patch = ["-n", &ns, "patch", &format!("ships.{group}"), "vasa", "--type=merge", "-p", r#"{"spec":{"flag":"blue"}}"#];
    has(&cluster.kubectl(&patch)?.err()?, &["spec: Forbidden: a ship keeps her flag"])
}

/// The schema of upstream's crd_publish_openapi, step by step.
const FOO: &str =
    "{type: object, description: Foo CRD for Testing, properties: {spec: {type: object, description: Specification of Foo, properties: {
      bars: {description: List of Bars and their specs., type: array, items: {type: object, required: [name], properties: {
        name: {description: Name of Bar., type: string}, age: {description: Age of Bar., type: string},
        feeling: {description: Whether Bar is feeling great., type: string, enum: [Great, Down]},
        bazs: {description: List of Bazs., type: array, items: {type: string}}}}}}}}}";
const NESTED: &str = "{type: object, description: preserve-unknown-properties in nested field for Testing, properties: {spec: {
      description: Specification of Waldo, type: object, x-kubernetes-preserve-unknown-fields: true, properties: {dummy: {type: object}}}}}";

fn published_schemas_are_what_kubectl_goes_by(cluster: &Cluster) -> Result {
    let ns = cluster.namespace("published")?;
    let anything = "{type: object, x-kubernetes-preserve-unknown-fields: true}";
    for (plural, kind, schema) in [("foos", "Foo", FOO), ("anys", "Any", anything), ("nesteds", "Nested", NESTED)] {
        let definition = format!(
            "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {{name: {plural}.published.example.com}}\nspec:\n  \
             group: published.example.com\n  scope: Namespaced\n  names: {{plural: {plural}, kind: {kind}}}\n  versions:\n  - name: v1\n    \
             served: true\n    storage: true\n    schema:\n      openAPIV3Schema: {schema}\n"
        );
        cluster.apply(&definition)?;
        cluster.kubectl(&["wait", "--for=condition=Established", "--timeout=60s", &format!("crd/{plural}.published.example.com")])?.ok()?;
    }
    let object =
        |kind: &str, rest: &str| format!(r#"{{"kind":"{kind}","apiVersion":"published.example.com/v1","metadata":{{"name":"test-cr"}},{rest}}}"#);
    let write = |how: &str, object: &str| cluster.kubectl_with(&["-n", &ns, how, "-f", "-"], object);
    for (plural, kind, rest) in [
        ("foos", "Foo", r#""spec":{"bars":[{"name":"test-bar"}]}"#),
        ("anys", "Any", r#""a":{"b":[{"c":"d"}]}"#),
        ("nesteds", "Nested", r#""spec":{"a":null,"b":[{"c":"d"}]}"#),
    ] {
        for how in ["create", "apply"] {
            write(how, &object(kind, rest))?.ok()?;
            cluster.kubectl(&["-n", &ns, "delete", plural, "test-cr"])?.ok()?;
        }
    }
    let bad = object("Foo", r#""spec":{"bars":[{"name":"test-bar","feeling":"NonExistentValue"}]}"#);
    has(&write("create", &bad)?.err()?, &[r#"Unsupported value: "NonExistentValue""#])?;
    for how in ["create", "apply"] {
        has(&write(how, &object("Foo", r#""spec":{"foo":true}"#))?.err()?, &[r#"unknown field "spec.foo""#])?;
        has(&write(how, &object("Foo", r#""spec":{"bars":[{"age":"10"}]}"#))?.err()?, &["spec.bars[0].name: Required value"])?;
    }
    for (what, told) in [
        (
            "foos",
            &[
                "DESCRIPTION:\n    Foo CRD for Testing",
                "FIELDS:",
                "apiVersion\t<string>",
                "APIVersion defines",
                "spec\t<Object>",
                "Specification of Foo",
            ][..],
        ),
        ("foos.metadata", &["Standard object's metadata", "creationTimestamp\t<string>", "CreationTimestamp is a timestamp"]),
        ("foos.spec", &["Specification of Foo", "bars\t<[]Object>", "List of Bars and their specs"]),
        (
            "foos.spec.bars",
            &["FIELD: bars <[]Object>", "List of Bars and their specs", "bazs\t<[]string>", "List of Bazs", "name\t<string>", "Name of Bar"],
        ),
        ("anys", &["KIND:       Any", "DESCRIPTION:\n    <empty>"]),
        ("nesteds", &["DESCRIPTION:\n    preserve-unknown-properties in nested field for Testing"]),
    ] {
        has(&cluster.kubectl(&["explain", what])?.ok()?, told)?;
    }
    has(&cluster.kubectl(&["explain", "foos.spec", "--recursive"])?.ok()?, &["bars\t<[]Object>", "feeling\t<string>", "enum: Great, Down"])?;
    has(&cluster.kubectl(&["explain", "foos.spec.bars2"])?.err()?, &[r#"field "bars2" does not exist"#])
}

fn wrong_definitions_are_refused(cluster: &Cluster) -> Result {
    let good = definition("wrong.example.com");
    let refused = |from: &str, to: &str| cluster.kubectl_with(&["create", "--dry-run=server", "-f", "-"], &good.replace(from, to))?.err();
    has(
        &refused("name: ships.wrong", "name: boats.wrong")?,
        &["metadata.name: Invalid value: \"boats.wrong.example.com\": must be spec.names.plural+\".\"+spec.group"],
    )?;
    has(&refused("self.masts >= self.replicas", "self.sails > 1")?, &["undefined field 'sails'"])?;
    has(&refused("self.masts >= self.replicas", "self.masts")?, &["cel expression must evaluate to a bool"])?;
    has(&refused("storage: false", "storage: true")?, &["must have exactly one version marked as storage version"])?;
    cluster.kubectl_with(&["create", "--dry-run=server", "-f", "-"], &good)?.ok()?;
    Ok(())
}

fn gone_with_the_definition(cluster: &Cluster) -> Result {
    let (ns, group) = define(cluster, "gone")?;
    cluster.apply(&ship(&group, &ns, "vasa", "{masts: 1}"))?;
    has(&cluster.kubectl(&["delete", "crd", &format!("ships.{group}")])?.ok()?, &["deleted"])?;
    let told = cluster.kubectl(&["-n", &ns, "get", &format!("ships.{group}")])?.err()?;
    has(&told, &["the server doesn't have a resource type \"ships\""])?;
    // Made again, it is empty.
    cluster.apply(&definition(&group))?;
    cluster.kubectl(&["wait", "--for=condition=Established", "--timeout=30s", &format!("crd/ships.{group}")])?.ok()?;
    has(&cluster.kubectl(&["-n", &ns, "get", &format!("ships.{group}")])?.stderr, &["No resources found"])
}
