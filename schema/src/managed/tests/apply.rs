//! Server-side apply.

use super::*;

#[test]
fn what_is_applied_is_owned_and_goes_when_it_is_not_applied_any_more() {
    let mut story = Story::of("", "ConfigMap");
    story.apply("me", data(json!({"a": "1", "b": "1"}))).unwrap();
    assert_eq!(story.managed(), json!({"me Apply": {"f:data": {"f:a": {}, "f:b": {}}}}));
    story.patch("other", json!({"data": {"c": "2"}}));
    story.apply("me", data(json!({"a": "1"}))).unwrap();
    assert_eq!(story.at("/data"), &json!({"a": "1", "c": "2"}));
    story.apply("me", json!({"metadata": {"name": "a"}})).unwrap();
    assert_eq!(story.at("/data"), &json!({"c": "2"}), "only what is owned goes");
    assert_eq!(story.managed(), json!({"other Update": {"f:data": {"f:c": {}}}}), "who owns nothing is not listed");
}

#[test]
fn applying_the_same_again_changes_nothing() {
    let mut story = Story::of("apps", "Deployment");
    story.apply("me", deployment(json!(3))).unwrap();
    let before = story.live.clone();
    assert_eq!(story.order(), ["me Apply"]);
    story.apply("me", deployment(json!(3))).unwrap();
    assert_eq!(story.live, before);
    let mut spelled = deployment(json!(3));
    spelled["spec"]["template"]["spec"]["containers"][0]["resources"] = json!({"limits": {"cpu": "1000m"}});
    story.apply("me", spelled.clone()).unwrap();
    let before = story.live.clone();
    story.apply("me", spelled).unwrap();
    assert_eq!(story.live, before, "another spelling of a quantity is no change in the end");
}

#[test]
fn conflicts_name_the_manager_and_the_field() {
    let mut story = Story::of("apps", "Deployment");
    story.apply("me", deployment(json!(3))).unwrap();
    story.patch("hpa", json!({"spec": {"replicas": 5}}));
    let error = story.apply("me", deployment(json!(3))).unwrap_err();
    assert_eq!((error.code, error.reason), (409, "Conflict"));
    assert_eq!(error.message, "Apply failed with 1 conflict: conflict with \"hpa\" using apps/v1: .spec.replicas");
    let details = error.details.unwrap();
    assert_eq!(details.causes[0].reason, "FieldManagerConflict");
    assert_eq!(details.causes[0].message, "conflict with \"hpa\" using apps/v1");
    assert_eq!(details.causes[0].field, ".spec.replicas");

    let mut others = deployment(json!(4));
    others["spec"]["template"]["spec"]["containers"][0]["image"] = json!("j");
    let error = story.apply("other", others).unwrap_err();
    assert_eq!(
        error.message,
        "Apply failed with 2 conflicts: conflicts with \"hpa\" using apps/v1:\n- .spec.replicas\nconflicts with \"me\":\n- .spec.template.spec.containers[name=\"c\"].image"
    );

    story.force("me", deployment(json!(3)));
    assert_eq!(story.at("/spec/replicas"), 3);
    assert_eq!(story.order(), ["me Apply"]);
    // Leaving the field to the other is no conflict.
    story.patch("hpa", json!({"spec": {"replicas": 5}}));
    let mut without = deployment(json!(3));
    without["spec"].as_object_mut().unwrap().remove("replicas");
    story.apply("me", without).unwrap();
    assert_eq!(story.at("/spec/replicas"), 5);
    assert_eq!(story.order(), ["me Apply", "hpa Update"]);
}

#[test]
fn a_field_can_have_two_owners() {
    let mut story = Story::of("", "ConfigMap");
    story.apply("one", data(json!({"a": "1", "b": "1"}))).unwrap();
    story.apply("two", data(json!({"a": "1"}))).unwrap();
    story.apply("one", data(json!({"b": "1"}))).unwrap();
    assert_eq!(story.at("/data"), &json!({"a": "1", "b": "1"}), "the other one still has it");
    story.apply("two", data(json!({}))).unwrap();
    assert_eq!(story.at("/data"), &json!({"b": "1"}));
}

#[test]
fn lists_are_merged_by_their_keys() {
    let mut story = Story::of("", "Pod");
    let pod = |containers: Value| json!({"metadata": {"name": "p"}, "spec": {"containers": containers}});
    story.apply("one", pod(json!([{"name": "a", "image": "a"}, {"name": "b", "image": "b"}]))).unwrap();
    story.apply("two", pod(json!([{"name": "c", "image": "c"}, {"name": "b", "env": [{"name": "E", "value": "1"}]}]))).unwrap();
    let names = |story: &Story| -> Vec<String> {
        story.at("/spec/containers").as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&story), ["a", "c", "b"]);
    story.apply("one", pod(json!([{"name": "b", "image": "b"}]))).unwrap();
    assert_eq!(names(&story), ["c", "b"]);
    assert_eq!(story.at("/spec/containers/1/env/0/value"), "1");
    story.apply("two", pod(json!([{"name": "c", "image": "c"}]))).unwrap();
    assert_eq!(story.at("/spec/containers/1/env"), &Value::Null);
}

#[test]
fn keys_that_are_left_out_have_their_default() {
    let mut story = Story::of("", "Service");
    let service = |ports: Value| json!({"metadata": {"name": "s"}, "spec": {"ports": ports}});
    story.apply("one", service(json!([{"port": 53, "name": "tcp"}, {"port": 53, "protocol": "UDP", "name": "udp"}]))).unwrap();
    assert_eq!(story.at("/spec/ports").as_array().unwrap().len(), 2);
    let ports = &story.managed()["one Apply"]["f:spec"]["f:ports"];
    assert!(ports.get("k:{\"port\":53,\"protocol\":\"TCP\"}").is_some() && ports.get("k:{\"port\":53,\"protocol\":\"UDP\"}").is_some(), "{ports}");
    story.apply("one", service(json!([{"port": 53, "protocol": "TCP", "name": "tcp"}]))).unwrap();
    assert_eq!(story.at("/spec/ports").as_array().unwrap().len(), 1);
    let twice = story.apply("one", service(json!([{"port": 53}, {"port": 53, "protocol": "TCP"}]))).unwrap_err();
    assert!(twice.message.ends_with(".spec.ports: duplicate entries for key [port=53,protocol=\"TCP\"]"), "{}", twice.message);
}

#[test]
fn sets_and_atomic_values() {
    let mut story = Story::of("", "ConfigMap");
    let finalizers = |list: Value| json!({"metadata": {"name": "a", "finalizers": list}});
    story.apply("one", finalizers(json!(["x/a", "x/b"]))).unwrap();
    story.apply("two", finalizers(json!(["x/c"]))).unwrap();
    assert_eq!(story.at("/metadata/finalizers"), &json!(["x/a", "x/b", "x/c"]));
    assert_eq!(story.managed()["two Apply"], json!({"f:metadata": {"f:finalizers": {"v:\"x/c\"": {}}}}));
    story.apply("one", finalizers(json!(["x/b"]))).unwrap();
    assert_eq!(story.at("/metadata/finalizers"), &json!(["x/b", "x/c"]));

    let mut story = Story::of("apps", "Deployment");
    story.apply("one", deployment(json!(1))).unwrap();
    let mut other = deployment(json!(1));
    other["spec"]["selector"] = json!({"matchLabels": {"app": "x", "tier": "y"}});
    let error = story.apply("two", other).unwrap_err();
    assert!(error.message.ends_with("conflict with \"one\": .spec.selector"), "a selector is one value: {}", error.message);
}

#[test]
fn null_unsets_what_is_owned() {
    let mut story = Story::of("", "ConfigMap");
    story.apply("me", data(json!({"a": "1", "b": "2"}))).unwrap();
    story.apply("me", data(json!({"a": null, "b": "2"}))).unwrap();
    assert_eq!(story.at("/data"), &json!({"a": "", "b": "2"}), "a text that is null is empty, as Go reads it");
    let mut story = Story::of("apps", "Deployment");
    story.apply("me", deployment(json!(3))).unwrap();
    story.apply("me", deployment(Value::Null)).unwrap();
    assert_eq!(story.at("/spec/replicas"), 1, "the default is back");
}

#[test]
fn what_does_not_fit_is_refused_in_upstreams_words() {
    let mut story = Story::of("apps", "Deployment");
    let refused = |story: &mut Story, change: fn(&mut Value)| {
        let mut config = deployment(json!(1));
        change(&mut config);
        let status = story.apply("me", config).unwrap_err();
        (status.code, status.message)
    };
    let what = "failed to create typed patch object (default/d; apps/v1, Kind=Deployment): ";
    let (code, message) = refused(&mut story, |c| c["spec"]["foo"] = json!(1));
    assert_eq!((code, message), (500, format!("{what}.spec.foo: field not declared in schema")));
    let (_, message) = refused(&mut story, |c| c["spec"]["replicas"] = json!("3"));
    assert_eq!(message, format!("{what}.spec.replicas: expected numeric (int or float), got string"));
    let (_, message) = refused(&mut story, |c| c["metadata"]["labels"] = json!({"a": 1, "b": {}}));
    assert_eq!(
        message,
        format!(
            "{what}errors:\n  .metadata.labels.a: expected string, got &value.valueUnstructured{{Value:1}}\n  .metadata.labels.b: expected string, got &value.valueUnstructured{{Value:map[string]interface {{}}{{}}}}"
        )
    );
    let (_, message) = refused(&mut story, |c| c["spec"]["template"]["spec"]["containers"] = json!([{"image": "x"}]));
    assert_eq!(
        message,
        format!(
            "{what}.spec.template.spec.containers: element 0: associative list with keys has an element that omits all key fields [\"name\"] (and doesn't have default values for any key fields)"
        )
    );
    let (_, message) = refused(&mut story, |c| c["spec"]["template"]["spec"]["containers"] = json!({"a": 1}));
    assert_eq!(message, format!("{what}.spec.template.spec.containers: expected list, got &{{map[a:1]}}"));
    let (code, message) = refused(&mut story, |c| c["metadata"]["managedFields"] = json!([{}]));
    assert_eq!((code, &*message), (400, "metadata.managedFields must be nil"));
}

#[test]
fn the_upgrade_from_client_side_apply() {
    let config = deployment(json!(3));
    let mut story = Story::of("apps", "Deployment");
    let mut object = config.clone();
    let mut remembered = config.clone();
    remembered["apiVersion"] = json!("apps/v1");
    remembered["kind"] = json!("Deployment");
    object["metadata"]["annotations"] = json!({"kubectl.kubernetes.io/last-applied-configuration": remembered.to_string()});
    story.put("kubectl-client-side-apply", object);
    story.patch("hpa", json!({"spec": {"replicas": 5}}));
    // The server's own part: conflicts with what kubectl applied itself are none, others are.
    let mut changed = config.clone();
    changed["spec"]["template"]["spec"]["containers"][0]["image"] = json!("j");
    let error = story.apply("kubectl", changed.clone()).unwrap_err();
    assert_eq!(error.message, "Apply failed with 1 conflict: conflict with \"hpa\" using apps/v1: .spec.replicas");
    changed["spec"].as_object_mut().unwrap().remove("replicas");
    story.apply("kubectl", changed.clone()).unwrap();
    assert_eq!((story.at("/spec/replicas"), story.at("/spec/template/spec/containers/0/image")), (&json!(5), &json!("j")));
    let annotation = story.at("/metadata/annotations/kubectl.kubernetes.io~1last-applied-configuration").as_str().unwrap();
    assert!(annotation.ends_with("}\n") && annotation.contains("\"image\":\"j\""), "{annotation}");
    // Another manager's name does without.
    changed["spec"]["template"]["spec"]["containers"][0]["image"] = json!("k");
    assert_eq!(story.apply("flux", changed).unwrap_err().code, 409);
}

#[test]
fn status_and_object_are_applied_apart() {
    let mut story = Story::of("apps", "Deployment");
    story.reach = Reach::Without(&["status"]);
    let mut config = deployment(json!(1));
    config["status"] = json!({"replicas": 9});
    story.apply("me", config).unwrap();
    assert_eq!(story.managed()["me Apply"].get("f:status"), None);
    (story.subresource, story.reach) = ("status", Reach::Without(&["spec"]));
    story.apply("me", json!({"metadata": {"name": "d"}, "spec": {"replicas": 1}, "status": {"replicas": 4}})).unwrap();
    assert_eq!(story.managed()["me[status] Apply"], json!({"f:status": {"f:replicas": {}}}));
}

#[test]
fn what_became_one_value_is_owned_as_one() {
    let mut story = Story::of("apps", "Deployment");
    story.apply("me", deployment(json!(1))).unwrap();
    // As an older version of the kind would have it.
    story.live.as_mut().unwrap()["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"]["f:selector"] = json!({"f:matchLabels": {"f:app": {}}});
    story.apply("me", deployment(json!(2))).unwrap();
    assert_eq!(story.managed()["me Apply"]["f:spec"]["f:selector"], json!({}));
    assert_eq!(story.at("/spec/selector/matchLabels/app"), "x");
}

#[test]
fn duplicates_that_are_there_are_left_alone() {
    let mut story = Story::of("", "Pod");
    let pod = |env: Value| json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i", "env": env}]}});
    story.put("create", pod(json!([{"name": "PATH", "value": "a"}, {"name": "PATH", "value": "b"}, {"name": "X", "value": "x"}])));
    story.apply("apply", pod(json!([{"name": "HOME", "value": "/"}]))).unwrap();
    assert_eq!(
        story.at("/spec/containers/0/env"),
        &json!([{"name": "PATH", "value": "a"}, {"name": "PATH", "value": "b"}, {"name": "X", "value": "x"}, {"name": "HOME", "value": "/"}])
    );
    let error = story.apply("apply", pod(json!([{"name": "PATH", "value": "c"}]))).unwrap_err();
    assert!(error.message.contains("conflict with \"create\" using v1: .spec.containers[name=\"c\"].env[name=\"PATH\"]"), "{}", error.message);
    story.force("apply", pod(json!([{"name": "PATH", "value": "c"}])));
    assert_eq!(story.at("/spec/containers/0/env"), &json!([{"name": "PATH", "value": "c"}, {"name": "X", "value": "x"}]));
}
