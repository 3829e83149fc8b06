use super::*;
use coracle_api::registry::{Custom, Scope, Subresource};
use serde_json::Value;
use std::sync::Arc;

/// Name; group, version and kind; verbs.
type Sub<'a> = (&'a str, (&'a str, &'a str, &'a str), &'a [&'a str]);

fn row(group: &str, version: &str, kind: &str, plural: &str, verbs: &[&str], subresources: &[Sub<'_>]) -> ResourceRef {
    Arc::new(Resource {
        group: group.into(),
        version: version.into(),
        kind: kind.into(),
        list_kind: format!("{kind}List").into(),
        plural: plural.into(),
        singular: kind.to_lowercase().into(),
        short_names: Vec::new(),
        categories: Vec::new(),
        scope: Scope::Namespaced,
        verbs: verbs.iter().map(|v| (*v).into()).collect(),
        subresources: subresources
            .iter()
            .map(|(name, (g, v, k), verbs)| Subresource {
                name: (*name).into(),
                gvk: ((*g).into(), (*v).into(), (*k).into()),
                verbs: verbs.iter().map(|v| (*v).into()).collect(),
            })
            .collect(),
        selectable: Vec::new(),
        columns: Vec::new(),
        generation: false,
        scale: None,
        stored_as: None,
        deprecation: None,
        custom: None,
    })
}

const ALL: &[&str] = &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

fn rows() -> Vec<ResourceRef> {
    let object: &[&str] = &["get", "patch", "update"];
    vec![
        row(
            "apps",
            "v1",
            "Deployment",
            "deployments",
            ALL,
            &[("scale", ("autoscaling", "v1", "Scale"), object), ("status", ("apps", "v1", "Deployment"), object)],
        ),
        row(
            "",
            "v1",
            "Pod",
            "pods",
            ALL,
            &[
                ("binding", ("", "v1", "Binding"), &["create"]),
                ("eviction", ("policy", "v1", "Eviction"), &["create"]),
                ("exec", ("", "v1", "PodExecOptions"), &["create", "get"]),
                ("log", ("", "v1", "Pod"), &["get"]),
                ("proxy", ("", "v1", "PodProxyOptions"), &["get"]),
            ],
        ),
        row("authentication.k8s.io", "v1", "TokenReview", "tokenreviews", &["create"], &[]),
    ]
}

/// Every `$ref` must lead somewhere.
fn check_references(value: &Value, document: &Value) {
    match value {
        Value::Object(map) => {
            if let Some(Value::String(reference)) = map.get("$ref") {
                assert!(document.pointer(reference.trim_start_matches('#')).is_some(), "{reference}");
            }
            map.values().for_each(|v| check_references(v, document));
        }
        Value::Array(list) => list.iter().for_each(|v| check_references(v, document)),
        _ => {}
    }
}

#[test]
fn what_kubectl_reads_is_there() {
    let document: Value = serde_json::from_slice(&v3("apps", "v1", &rows(), &|_| None)).unwrap();
    check_references(&document, &document);
    let patch = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
    assert_eq!(patch["x-kubernetes-action"], "patch");
    assert_eq!(patch["x-kubernetes-group-version-kind"], serde_json::json!({"group": "apps", "version": "v1", "kind": "Deployment"}));
    assert_eq!(patch["operationId"], "patchAppsV1NamespacedDeployment");
    assert!(patch["parameters"].as_array().unwrap().iter().any(|p| p["name"] == "fieldValidation" && p["in"] == "query"));
    let collection = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments"];
    assert_eq!(collection["delete"]["operationId"], "deleteAppsV1CollectionNamespacedDeployment");
    assert_eq!(document["paths"]["/apis/apps/v1/deployments"]["get"]["operationId"], "listAppsV1DeploymentForAllNamespaces");
    let deployment = &document["components"]["schemas"]["io.k8s.api.apps.v1.Deployment"];
    assert_eq!(deployment["x-kubernetes-group-version-kind"][0]["kind"], "Deployment");
    assert!(deployment["description"].as_str().unwrap().contains("Deployment"));
    let spec = &document["components"]["schemas"]["io.k8s.api.core.v1.PodSpec"]["properties"];
    assert_eq!(spec["containers"]["x-kubernetes-patch-merge-key"], "name");
    assert_eq!(spec["volumes"]["x-kubernetes-patch-strategy"], "merge,retainKeys");
    assert_eq!(spec["volumes"]["x-kubernetes-list-map-keys"], serde_json::json!(["name"]));
    assert_eq!(spec["restartPolicy"]["enum"], serde_json::json!(["Always", "Never", "OnFailure"]));
    assert_eq!(document["paths"].as_object().unwrap().len(), 5);
}

#[test]
fn every_field_of_the_kinds_we_serve_is_described() {
    let document: Value = serde_json::from_slice(&v3("", "v1", &rows(), &|_| None)).unwrap();
    check_references(&document, &document);
    for (name, component) in document["components"]["schemas"].as_object().unwrap() {
        assert!(component["description"].is_string(), "{name}");
        for (field, property) in component["properties"].as_object().into_iter().flatten() {
            assert!(property["description"].is_string(), "{name}.{field}");
        }
    }
    let paths = document["paths"].as_object().unwrap();
    assert_eq!(paths["/api/v1/namespaces/{namespace}/pods/{name}/eviction"]["post"]["operationId"], "createCoreV1NamespacedPodEviction");
    assert_eq!(paths["/api/v1/namespaces/{namespace}/pods/{name}/exec"]["get"]["operationId"], "connectCoreV1GetNamespacedPodExec");
    assert_eq!(paths["/api/v1/namespaces/{namespace}/pods/{name}/log"]["get"]["operationId"], "readCoreV1NamespacedPodLog");
}

#[test]
fn the_older_form_refers_to_definitions() {
    let document: Value = serde_json::from_slice(&v2(&rows(), &|_| None)).unwrap();
    check_references(&document, &document);
    assert_eq!(document["swagger"], "2.0");
    let create = &document["paths"]["/api/v1/namespaces/{namespace}/pods"]["post"];
    let body = create["parameters"].as_array().unwrap().iter().find(|p| p["in"] == "body").unwrap();
    assert_eq!(body["schema"]["$ref"], "#/definitions/io.k8s.api.core.v1.Pod");
    assert!(document["definitions"]["io.k8s.api.core.v1.Pod"]["properties"]["spec"]["$ref"].is_string());
    assert!(document["paths"].get("/apis/authentication.k8s.io/v1/namespaces/{namespace}/tokenreviews").is_some());
}

fn foos() -> ResourceRef {
    let mut row = (*row("example.com", "v1", "Foo", "foos", ALL, &[("status", ("example.com", "v1", "Foo"), &["get", "patch", "update"])])).clone();
    row.selectable = vec!["spec.a".into()];
    let definition = "foos.example.com".into();
    row.custom = Some(Custom { definition, revision: 1, storage: true, served: true, terminating: false, kind: Arc::new(()) });
    Arc::new(row)
}

#[test]
fn custom_kinds_are_published_with_what_every_object_has() {
    let schema = json!({"type": "object", "description": "A foo.", "properties": {
        "spec": {"type": "object", "required": ["none"], "properties": {
            "port": {"x-kubernetes-int-or-string": true},
            "none": {"type": "string", "nullable": true},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"a": {"type": "string"}}},
            "pod": {"type": "object", "x-kubernetes-embedded-resource": true, "properties": {"spec": {"type": "object"}}},
        }},
    }});
    let custom = |_: &Resource| Some(schema.clone());
    let document: Value = serde_json::from_slice(&v3("example.com", "v1", &[foos()], &custom)).unwrap();
    check_references(&document, &document);
    let foo = &document["components"]["schemas"]["com.example.v1.Foo"];
    assert_eq!(foo["x-kubernetes-group-version-kind"], json!([{"group": "example.com", "version": "v1", "kind": "Foo"}]));
    assert_eq!(foo["x-kubernetes-selectable-fields"], json!([{"fieldPath": "spec.a"}]));
    assert_eq!(foo["properties"]["metadata"]["allOf"][0]["$ref"], "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta");
    for (field, words) in [("apiVersion", "APIVersion defines"), ("kind", "Kind is a string"), ("metadata", "Standard object's metadata")] {
        let description = foo["properties"][field]["description"].as_str().unwrap_or_default();
        assert!(description.starts_with(words), "{field} is what it is of every kind: {description}");
    }
    let spec = &foo["properties"]["spec"]["properties"];
    assert_eq!(spec["port"]["anyOf"], json!([{"type": "integer"}, {"type": "string"}]));
    assert_eq!((&spec["none"]["nullable"], &spec["pod"]["required"]), (&json!(true), &json!(["kind", "apiVersion"])));
    assert!(spec["pod"]["properties"]["metadata"]["allOf"].is_array());
    let list = &document["components"]["schemas"]["com.example.v1.FooList"]["properties"]["items"]["items"];
    assert_eq!(list["$ref"], "#/components/schemas/com.example.v1.Foo");
    let patch = &document["paths"]["/apis/example.com/v1/namespaces/{namespace}/foos/{name}/status"]["patch"];
    assert_eq!(patch["requestBody"]["content"].as_object().unwrap().len(), 2, "no strategic merge");

    let older: Value = serde_json::from_slice(&v2(&[foos()], &custom)).unwrap();
    check_references(&older, &older);
    let spec = &older["definitions"]["com.example.v1.Foo"]["properties"]["spec"];
    assert_eq!(spec["properties"]["free"], json!({"x-kubernetes-preserve-unknown-fields": true}));
    assert_eq!((&spec["properties"]["none"], spec.get("required")), (&json!({}), None));
    assert_eq!(spec["properties"]["port"], json!({"x-kubernetes-int-or-string": true}));
    let free = |_: &Resource| Some(json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}));
    let older: Value = serde_json::from_slice(&v2(&[foos()], &free)).unwrap();
    assert!(older["definitions"]["com.example.v1.Foo"].get("properties").is_none(), "kubectl would take all else for unknown");
}
