use super::*;
use crate::resources::rules::lines;
use serde_json::json;

fn wrong(rule: fn(Option<&Value>, &Value, &mut Causes), old: Option<&Value>, new: &Value) -> Vec<String> {
    let mut causes = Vec::new();
    rule(old, new, &mut causes);
    lines(&causes)
}

fn changed(object: &Value, change: impl FnOnce(&mut Value)) -> Value {
    let mut object = object.clone();
    change(&mut object);
    object
}

#[test]
fn storage_classes_stay_what_they_are() {
    let good = json!({"provisioner": "example.com/p", "reclaimPolicy": "Delete", "volumeBindingMode": "Immediate", "parameters": {"a": "b"},
        "allowedTopologies": [{"matchLabelExpressions": [{"key": "zone", "values": ["a"]}]}]});
    assert_eq!(wrong(storage_class, Some(&good), &good), Vec::<String>::new());
    assert_eq!(
        wrong(storage_class, Some(&good), &changed(&good, |c| c["parameters"]["a"] = "c".into())),
        ["parameters: Invalid value: {\"a\":\"c\"}: field is immutable"]
    );
    let bad = json!({"reclaimPolicy": "Recycle", "volumeBindingMode": "x", "allowedTopologies": [
        {"matchLabelExpressions": [{"key": "z", "values": ["a", "a"]}, {"key": "z"}]}]});
    assert_eq!(
        wrong(storage_class, None, &bad),
        [
            "provisioner: Required value",
            "reclaimPolicy: Unsupported value: \"Recycle\": supported values: \"Delete\", \"Retain\"",
            "volumeBindingMode: Unsupported value: \"x\": supported values: \"Immediate\", \"WaitForFirstConsumer\"",
            "allowedTopologies[0].matchLabelExpressions[0].values[1]: Duplicate value: \"a\"",
            "allowedTopologies[0].matchLabelExpressions[1].values: Required value",
            "allowedTopologies[0].matchLabelExpressions[1].key: Duplicate value: \"z\"",
        ]
    );
    assert_eq!(
        class_warnings(&json!({"allowedTopologies": [{"matchLabelExpressions": [{"key": "beta.kubernetes.io/os", "values": ["a"]}]}]})),
        ["allowedTopologies[0].matchLabelExpressions[0].key: deprecated since v1.14; use \"kubernetes.io/os\" instead"]
    );
}

#[test]
fn attribute_classes_are_fixed_and_not_empty() {
    let good = json!({"driverName": "d", "parameters": {"a": "b"}});
    assert_eq!(wrong(volume_attributes_class, None, &good), Vec::<String>::new());
    assert_eq!(
        wrong(volume_attributes_class, Some(&good), &json!({"driverName": "e"})),
        [
            "driverName: Forbidden: updates to driverName are forbidden.",
            "parameters: Forbidden: updates to parameters are forbidden.",
            "parameters: Required value: must contain at least one key/value pair",
        ]
    );
}

#[test]
fn drivers_of_a_node_are_fixed_but_for_their_limit() {
    let good = json!({"spec": {"drivers": [{"name": "d", "nodeID": "n", "topologyKeys": ["a"], "allocatable": {"count": 1}}]}});
    assert_eq!(wrong(csi_node, Some(&good), &changed(&good, |n| n["spec"]["drivers"][0]["allocatable"]["count"] = 2.into())), Vec::<String>::new());
    assert_eq!(wrong(csi_node, Some(&good), &changed(&good, |n| n["spec"]["drivers"][0]["nodeID"] = "m".into())).len(), 1);
    assert_eq!(
        wrong(csi_node, None, &json!({"spec": {"drivers": [{"name": "d", "topologyKeys": ["a", "a"]}, {"name": "d", "nodeID": "n"}]}})),
        ["spec.drivers[0].nodeID: Required value", "spec.drivers[0]: Duplicate value: \"a\"", "spec.drivers[1].name: Duplicate value: \"d\""]
    );
}

#[test]
fn drivers_say_how_they_are_used() {
    let good = json!({"spec": {"attachRequired": true, "podInfoOnMount": false, "storageCapacity": false, "seLinuxMount": false,
        "volumeLifecycleModes": ["Persistent"]}});
    assert_eq!(wrong(csi_driver, Some(&good), &good), Vec::<String>::new());
    let bad = changed(&good, |d| {
        d["spec"]["attachRequired"] = false.into();
        d["spec"]["fsGroupPolicy"] = "x".into();
        d["spec"]["tokenRequests"] = json!([{"audience": "a", "expirationSeconds": 1}, {"audience": "a"}]);
        d["spec"]["nodeAllocatableUpdatePeriodSeconds"] = 1.into();
    });
    assert_eq!(
        wrong(csi_driver, Some(&good), &bad),
        [
            "spec.fsGroupPolicy: Unsupported value: \"x\": supported values: \"File\", \"None\", \"ReadWriteOnceWithFSType\"",
            "spec.tokenRequests[0].expirationSeconds: Invalid value: 1: may not specify a duration less than 10 minutes",
            "spec.tokenRequests[1].audience: Duplicate value: \"a\"",
            "spec.nodeAllocatableUpdatePeriodSeconds: Invalid value: 1: must be greater than or equal to 10 seconds",
            "spec.attachedRequired: Invalid value: false: field is immutable",
        ]
    );
    assert_eq!(driver_warnings(&bad).len(), 1);
    let mut counted = bad.clone();
    driver_generation(Some(&good), &mut counted);
    assert_eq!(counted["metadata"]["generation"], 1);
    assert_eq!(
        cells::golden(&driver_row(&changed(&good, |d| d["metadata"]["name"] = "d".into())), "2026-01-02T03:04:05Z"),
        "d | true | false | false | <unset> | false | Persistent | <unknown>"
    );
}

#[test]
fn attachments_have_one_volume_and_stay() {
    let good = json!({"spec": {"attacher": "d", "nodeName": "n", "source": {"persistentVolumeName": "v"}}});
    assert_eq!(wrong(volume_attachment, Some(&good), &good), Vec::<String>::new());
    assert_eq!(
        wrong(volume_attachment, None, &json!({"spec": {"attacher": "d", "nodeName": "n", "source": {}}})),
        ["spec.source: Required value: must specify exactly one of inlineVolumeSpec and persistentVolumeName"]
    );
    assert_eq!(
        wrong(
            volume_attachment,
            None,
            &changed(&good, |a| a["spec"]["source"] = json!({"inlineVolumeSpec": {"capacity": {"storage": "1"}, "accessModes": ["ReadWriteOnce"],
            "hostPath": {"path": "/x"}, "storageClassName": "c"}}))
        ),
        [
            "spec.source.inlineVolumeSpec.capacity: Forbidden: may not be specified in the context of inline volumes",
            "spec.source.inlineVolumeSpec.csi: Required value: has to be specified in the context of inline volumes",
            "spec.source.inlineVolumeSpec.storageClassName: Forbidden: may not be specified in the context of inline volumes",
        ]
    );
    assert_eq!(
        wrong(volume_attachment, Some(&good), &changed(&good, |a| a["status"] = json!({"attachError": {"errorCode": -1}}))),
        ["status.attachError.errorCode: Invalid value: -1: must be between 0 and 2147483647, inclusive"]
    );
    assert_eq!(wrong(volume_attachment, Some(&good), &changed(&good, |a| a["spec"]["nodeName"] = "m".into())).len(), 1);
}

#[test]
fn capacities_speak_of_one_class_in_one_place() {
    let good = json!({"storageClassName": "c", "capacity": "1Gi", "nodeTopology": {"matchLabels": {"a": "b"}}});
    assert_eq!(wrong(storage_capacity, Some(&good), &good), Vec::<String>::new());
    assert_eq!(
        wrong(storage_capacity, Some(&good), &json!({"storageClassName": "d", "capacity": "-1", "nodeTopology": {"matchLabels": {"a": "b"}}})),
        ["capacity: Invalid value: \"-1\": must be greater than or equal to 0", "storageClassName: Invalid value: \"d\": field is immutable"]
    );
}
