//! Creates, updates and patches.

use super::*;

#[test]
fn a_create_owns_what_it_says_and_what_is_filled_in() {
    let mut story = Story::of("apps", "DaemonSet");
    story.put(
        "create",
        json!({"metadata": {"name": "example", "uid": "1", "generation": 1, "creationTimestamp": "2026-01-01T00:00:00Z", "labels": {"app": "example"}},
        "spec": {"selector": {"matchLabels": {"app": "example"}}, "template": {"metadata": {"labels": {"app": "example"}}, "spec": {"containers": [{
            "name": "nginx", "image": "nginx",
            "ports": [{"name": "port0", "containerPort": 1}, {"name": "port1", "containerPort": 80}, {"name": "port2", "containerPort": 80}],
            "env": [{"name": "ENV0", "value": "/env0value"}, {"name": "PATH", "value": "/bin"}, {"name": "PATH", "value": "$PATH:/usr/bin"}]}]}}}}),
    );
    let expected = json!({
        "f:metadata": {"f:annotations": {".": {}, "f:deprecated.daemonset.template.generation": {}}, "f:labels": {".": {}, "f:app": {}}},
        "f:spec": {
            "f:revisionHistoryLimit": {},
            "f:selector": {},
            "f:template": {
                "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
                "f:spec": {
                    "f:containers": {"k:{\"name\":\"nginx\"}": {
                        ".": {},
                        "f:env": {".": {}, "k:{\"name\":\"ENV0\"}": {".": {}, "f:name": {}, "f:value": {}}, "k:{\"name\":\"PATH\"}": {}},
                        "f:image": {}, "f:imagePullPolicy": {}, "f:name": {},
                        "f:ports": {
                            ".": {},
                            "k:{\"containerPort\":1,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}, "f:name": {}, "f:protocol": {}},
                            "k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {}
                        },
                        "f:resources": {}, "f:terminationMessagePath": {}, "f:terminationMessagePolicy": {}
                    }},
                    "f:dnsPolicy": {}, "f:restartPolicy": {}, "f:schedulerName": {}, "f:securityContext": {}, "f:terminationGracePeriodSeconds": {}
                }
            },
            "f:updateStrategy": {"f:rollingUpdate": {".": {}, "f:maxSurge": {}, "f:maxUnavailable": {}}, "f:type": {}}
        }
    });
    // The annotation is a default of upstream's that this kind has only where it is prepared.
    let mut managed = story.managed();
    assert_eq!(managed.as_object().unwrap().len(), 1);
    let fields = &mut managed["create Update"];
    let mut expected = expected;
    fields["f:metadata"].as_object_mut().unwrap().remove("f:annotations");
    expected["f:metadata"].as_object_mut().unwrap().remove("f:annotations");
    assert_eq!(fields, &expected);
}

#[test]
fn who_changes_a_field_has_it() {
    let mut story = Story::of("", "ConfigMap");
    story.put("one", data(json!({"a": "1", "b": "1"})));
    assert_eq!(story.managed(), json!({"one Update": {"f:data": {".": {}, "f:a": {}, "f:b": {}}}}));
    story.patch("two", json!({"data": {"b": "2", "c": "2"}}));
    assert_eq!(story.managed(), json!({"one Update": {"f:data": {".": {}, "f:a": {}}}, "two Update": {"f:data": {"f:b": {}, "f:c": {}}}}));
    story.patch("three", json!({"data": {"b": null}, "metadata": {"labels": {"x": "y"}}}));
    assert_eq!(
        story.managed(),
        json!({"one Update": {"f:data": {".": {}, "f:a": {}}}, "two Update": {"f:data": {"f:c": {}}}, "three Update": {"f:metadata": {"f:labels": {".": {}, "f:x": {}}}}})
    );
    assert_eq!(story.order(), ["one Update", "two Update", "three Update"], "by time");
    story.patch("one", json!({"data": {"a": "3"}}));
    assert_eq!(story.order(), ["two Update", "three Update", "one Update"]);
    story.patch("four", json!({"data": null}));
    assert_eq!(story.managed(), json!({"three Update": {"f:metadata": {"f:labels": {".": {}, "f:x": {}}}}}), "nobody has what is gone");
}

#[test]
fn a_write_that_changes_nothing_changes_no_manager() {
    let mut story = Story::of("apps", "Deployment");
    story.put("one", deployment(json!(2)));
    let before = story.live.clone();
    story.patch("two", json!({}));
    assert_eq!(story.live, before);
    story.put("two", deployment(json!(2)));
    assert_eq!(story.live, before, "clients that know nothing of managed fields do not remove them");
}

#[test]
fn a_subresource_is_kept_apart_and_cannot_edit_managers() {
    let mut story = Story::of("apps", "Deployment");
    story.put("kubectl", deployment(json!(2)));
    (story.subresource, story.reach) = ("status", Reach::Without(&["spec", "metadata.labels"]));
    let mut reported = story.live.clone().unwrap();
    reported["status"] = json!({"replicas": 2, "conditions": [{"type": "Available", "status": "True"}]});
    reported["spec"]["replicas"] = json!(7);
    reported["metadata"]["labels"] = json!({"y": "z"});
    reported["metadata"]["managedFields"] = json!([{}]);
    story.put("kube-controller-manager", reported);
    let managed = story.managed();
    assert_eq!(
        managed["kube-controller-manager[status] Update"],
        json!({"f:status": {"f:replicas": {}, "f:conditions": {".": {}, "k:{\"type\":\"Available\"}":
            {".": {}, "f:lastTransitionTime": {}, "f:lastUpdateTime": {}, "f:status": {}, "f:type": {}}}}})
    );
    assert!(managed["kubectl Update"]["f:spec"]["f:replicas"].is_object());
}

#[test]
fn the_list_can_be_edited_and_forgotten() {
    for reset in [json!([]), json!([{}])] {
        let mut story = Story::of("", "ConfigMap");
        story.put("one", data(json!({"a": "1"})));
        let mut object = story.live.clone().unwrap();
        object["metadata"]["managedFields"] = reset.clone();
        story.put("two", object);
        assert_eq!(story.at("/metadata/managedFields"), &Value::Null, "{reset}");
        story.patch("two", json!({"data": {"a": "2"}}));
        assert_eq!(story.at("/metadata/managedFields"), &Value::Null, "who is not tracked stays so");
        story.apply("three", data(json!({"b": "3"}))).unwrap();
        assert_eq!(story.managed(), json!({"before-first-apply Update": {"f:data": {".": {}, "f:a": {}}}, "three Apply": {"f:data": {"f:b": {}}}}));
    }
    let mut story = Story::of("", "ConfigMap");
    story.put("one", data(json!({"a": "1"})));
    let entry = |fields: Value| json!([{"manager": "me", "operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": fields}]);
    story.patch("two", json!({"metadata": {"managedFields": entry(json!({"f:data": {"f:a": {}}}))}}));
    assert_eq!(story.managed(), json!({"me Apply": {"f:data": {"f:a": {}}}}));
    let before = story.live.clone();
    for bad in [
        entry(json!({"f:data": 1})),
        json!([{"manager": "me", "operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV2"}]),
        json!([{"manager": "me", "operation": "Create", "apiVersion": "v1", "fieldsType": "FieldsV1"}]),
        json!([{"manager": "me", "operation": "Apply", "fieldsType": "FieldsV1"}]),
    ] {
        story.patch("two", json!({"metadata": {"managedFields": bad}}));
        assert_eq!(story.live, before, "what is no list of entries is not taken");
    }
}

#[test]
fn the_oldest_updates_are_put_together() {
    let mut story = Story::of("", "ConfigMap");
    story.put("m00", data(json!({"k00": "v"})));
    for n in 1..12 {
        let (manager, key) = (format!("m{n:02}"), format!("k{n:02}"));
        story.patch(&manager, json!({"data": {key: "v"}}));
    }
    let order = story.order();
    assert_eq!(order.len(), 10);
    assert_eq!(order[..2], ["ancient-changes Update", "m03 Update"]);
    assert_eq!(story.managed()["ancient-changes Update"], json!({"f:data": {".": {}, "f:k00": {}, "f:k01": {}, "f:k02": {}}}));
    story.apply("a", data(json!({"x": "y"}))).unwrap();
    assert_eq!(story.order().len(), 11, "those who apply are not counted");
}

#[test]
fn managers_of_a_scale_are_those_of_its_count() {
    let mut story = Story::of("apps", "Deployment");
    story.apply("a", deployment(json!(1))).unwrap();
    let object = story.live.clone().unwrap();
    let list = super::super::to_scale(&object, "spec.replicas").unwrap();
    assert_eq!(list[0]["apiVersion"], "autoscaling/v1");
    assert_eq!(list[0]["fieldsV1"], json!({"f:spec": {"f:replicas": {}}}));

    let mut scale = Story::of("autoscaling", "Scale");
    scale.subresource = "scale";
    scale.live = Some(
        json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "d", "managedFields": list}, "spec": {"replicas": 1}, "status": {"replicas": 0}}),
    );
    let same = super::super::from_scale(&object, scale.live.as_ref().unwrap(), "apps/v1", "spec.replicas").unwrap();
    assert_eq!(&same, object.pointer("/metadata/managedFields").unwrap(), "there and back");

    assert_eq!(
        scale.apply("b", json!({"metadata": {"name": "d"}, "spec": {"replicas": 5}})).unwrap_err().message,
        "Apply failed with 1 conflict: conflict with \"a\": .spec.replicas"
    );
    scale.patch("scaler", json!({"spec": {"replicas": 5}, "status": {"replicas": 42}}));
    let list = super::super::from_scale(&object, scale.live.as_ref().unwrap(), "apps/v1", "spec.replicas").unwrap();
    story.live.as_mut().unwrap()["metadata"]["managedFields"] = list;
    let managed = story.managed();
    assert_eq!(managed["scaler[scale] Update"], json!({"f:spec": {"f:replicas": {}}}));
    assert_eq!(managed["a Apply"]["f:spec"].get("f:replicas"), None);
    assert!(managed["a Apply"]["f:spec"].get("f:selector").is_some());
}
