//! storage/{csi_inline, csi_node, csistoragecapacity, storageclass, volumeattributesclass, volume_attachment, persistent_volumes}: drivers, classes and volumes
//! as objects, whoever acts on them.

use super::{items, made, name, namespace, ok, patched, put, written};
use crate::cluster::{Cluster, Peer};
use serde_json::{Value, json};

const GROUP: &str = "/apis/storage.k8s.io/v1";
const VOLUMES: &str = "/api/v1/persistentvolumes";
const CLAIMS: &str = "/api/v1/namespaces/stored/persistentvolumeclaims";

pub async fn all(cluster: &Cluster) {
    let mut admin = cluster.admin().await;
    namespace(&mut admin, "stored").await;
    pods_name_drivers(&mut admin).await;
    for (plural, first, second) in [
        ("csidrivers", json!({"spec": {"volumeLifecycleModes": ["Persistent"], "fsGroupPolicy": "ReadWriteOnceWithFSType"}}), None),
        ("csinodes", json!({"spec": {"drivers": []}}), None),
        (
            "storageclasses",
            json!({"provisioner": "e2e-fake-provisioner", "reclaimPolicy": "Delete", "volumeBindingMode": "Immediate"}),
            Some(json!({"provisioner": "e2e-fake-provisioner", "volumeBindingMode": "WaitForFirstConsumer"})),
        ),
        ("volumeattributesclasses", json!({"driverName": "e2e-fake-csi-driver", "parameters": {"foo": "bar"}}), None),
        ("volumeattachments", attachment(), None),
    ] {
        let second = second.unwrap_or_else(|| first.clone());
        life(&mut admin, &format!("{GROUP}/{plural}"), first, second).await;
    }
    capacities(&mut admin).await;
    attachments_have_a_status(&mut admin).await;
    volumes_and_claims(&mut admin).await;
    volumes_and_claims_have_a_status(&mut admin).await;
}

fn attachment() -> Value {
    json!({"spec": {"attacher": "e2e-test", "nodeName": "n1", "source": {"persistentVolumeName": "pv-e2e"}}})
}

fn of(mut object: Value, name: &str, labels: Value) -> Value {
    object["metadata"] = json!({"name": name, "labels": labels});
    object
}

async fn pods_name_drivers(admin: &mut Peer) {
    const PODS: &str = "/api/v1/namespaces/stored/pods";
    let mounts = json!([{"name": "v1", "mountPath": "/mnt/vol1"}, {"name": "v2", "mountPath": "/mnt/vol2"}]);
    let volumes = json!([{"name": "v1", "csi": {"driver": "e2e.example.com"}},
        {"name": "v2", "csi": {"driver": "e2e.example.com", "fsType": "ext4", "readOnly": true}}]);
    let spec = json!({"schedulerName": "nobody", "volumes": volumes, "containers": [{"name": "c", "image": "i", "volumeMounts": mounts}]});
    let pod = json!({"metadata": {"name": "inline"}, "spec": spec});
    let created = made(admin, PODS, pod.clone()).await;
    assert_eq!((&created["spec"]["volumes"][0], &created["spec"]["volumes"][1]), (&volumes[0], &volumes[1]));
    let again = admin.post(PODS, pod).await;
    assert_eq!((again.code, again.reason()), (409, "AlreadyExists"));
    let one = format!("{PODS}/inline");
    assert_eq!(admin.get(&one).await.body["metadata"]["uid"], created["metadata"]["uid"]);
    assert_eq!(items(admin, PODS).await.len(), 1);
    let patch = json!({"metadata": {"annotations": {"patched": "true"}}});
    assert_eq!(patched(admin, &one, "merge", patch).await["metadata"]["annotations"]["patched"], "true");
    ok(&admin.send("DELETE", &one, "", String::new()).await);
    assert_eq!(admin.get(&one).await.code, 404);
}

/// "should run through the lifecycle of a …": one is deleted by name, the next by its label.
async fn life(admin: &mut Peer, path: &str, first: Value, second: Value) {
    let created = made(admin, path, of(first.clone(), "e2e-first", json!({"e2e-test": "life"}))).await;
    let again = admin.post(path, of(first, "e2e-first", json!({}))).await;
    assert_eq!((again.code, again.reason()), (409, "AlreadyExists"), "{path}");
    let one = format!("{path}/e2e-first");
    assert_eq!(admin.get(&one).await.body["metadata"]["uid"], created["metadata"]["uid"], "{path}");
    let answer = patched(admin, &one, "strategic-merge", json!({"metadata": {"labels": {"e2e-first": "patched"}}})).await;
    assert_eq!(answer["metadata"]["labels"], json!({"e2e-first": "patched", "e2e-test": "life"}), "{path}");
    let selected = format!("{path}?labelSelector=e2e-first%3Dpatched");
    assert_eq!(items(admin, &selected).await.len(), 1, "{path}");
    ok(&admin.send("DELETE", &one, "", String::new()).await);
    // Something may hold it for a moment.
    super::settled(admin, &selected, "it is gone", |left| left.is_empty()).await;
    assert_eq!(admin.get(&one).await.code, 404, "{path}");

    let mut object = made(admin, path, of(second, "e2e-second", json!({"e2e-test": "life"}))).await;
    object["metadata"]["labels"]["e2e-second"] = "updated".into();
    let updated = put(admin, &format!("{path}/e2e-second"), &object).await;
    assert_eq!(updated["metadata"]["labels"]["e2e-second"], "updated", "{path}");
    let selected = format!("{path}?labelSelector=e2e-second%3Dupdated");
    assert_eq!(items(admin, &selected).await.iter().map(name).collect::<Vec<_>>(), ["e2e-second"], "{path}");
    ok(&admin.send("DELETE", &selected, "", String::new()).await);
    super::settled(admin, &selected, "it is gone", |left| left.is_empty()).await;
}

async fn capacities(admin: &mut Peer) {
    let (path, all) = (format!("{GROUP}/namespaces/stored/csistoragecapacities"), format!("{GROUP}/csistoragecapacities"));
    let selector = "labelSelector=test%3Dcapacities";
    let mut watches = [admin.watch(&format!("{path}?watch=true&{selector}")).await, admin.watch(&format!("{all}?watch=true&{selector}")).await];
    for key in ["a", "b", "c"] {
        made(admin, &path, of(json!({"storageClassName": "e2e"}), key, json!({"test": "capacities"}))).await;
    }
    for path in [&path, &all] {
        assert_eq!(items(admin, &format!("{path}?{selector}")).await.len(), 3);
    }
    let one = format!("{path}/c");
    let mut object = patched(admin, &one, "merge", json!({"metadata": {"annotations": {"patched": "true"}}})).await;
    object["metadata"]["annotations"]["updated"] = "true".into();
    assert_eq!(put(admin, &one, &object).await["metadata"]["annotations"]["updated"], "true");
    for events in &mut watches {
        loop {
            let event = events.next().await.expect("an event");
            if event["type"] == "MODIFIED" {
                assert_eq!(event["object"]["metadata"]["annotations"]["patched"], "true");
                break;
            }
            assert_eq!(event["type"], "ADDED");
        }
    }
    ok(&admin.send("DELETE", &one, "", String::new()).await);
    assert_eq!(admin.get(&one).await.code, 404);
    ok(&admin.send("DELETE", &format!("{path}?{selector}"), "", String::new()).await);
    assert_eq!(items(admin, &format!("{path}?{selector}")).await.len(), 0);
}

async fn attachments_have_a_status(admin: &mut Peer) {
    let path = format!("{GROUP}/volumeattachments");
    made(admin, &path, of(attachment(), "va-status", json!({}))).await;
    let (one, status) = (format!("{path}/va-status"), format!("{path}/va-status/status"));
    patched(admin, &one, "merge", json!({"metadata": {"labels": {"va-status": "patched"}}})).await;
    assert_eq!(admin.get(&status).await.body["status"]["attached"], false);
    let mut object = patched(admin, &status, "merge", json!({"status": {"attached": true}})).await;
    assert_eq!(object["status"]["attached"], true);
    object["status"]["attached"] = false.into();
    assert_eq!(put(admin, &status, &object).await["status"]["attached"], false);
    ok(&admin.send("DELETE", &one, "", String::new()).await);
    assert_eq!(items(admin, &format!("{path}?labelSelector=va-status%3Dpatched")).await.len(), 0);
}

/// A volume and a claim of a class that nobody else uses.
async fn pair(admin: &mut Peer, key: &str) {
    let size = json!({"storage": "2Gi"});
    let modes = json!(["ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany"]);
    let spec = json!({"capacity": size, "accessModes": modes, "storageClassName": key, "persistentVolumeReclaimPolicy": "Retain",
        "csi": {"driver": "e2e-driver.example.com", "volumeHandle": key}});
    made(admin, VOLUMES, of(json!({"spec": spec}), key, json!({"e2e-pv-pool": key}))).await;
    let spec = json!({"storageClassName": key, "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
    made(admin, CLAIMS, of(json!({"spec": spec}), key, json!({}))).await;
}

async fn volumes_and_claims(admin: &mut Peer) {
    pair(admin, "life").await;
    assert_eq!(items(admin, &format!("{VOLUMES}?labelSelector=e2e-pv-pool%3Dlife")).await.len(), 1);
    let (volume, claim) = (format!("{VOLUMES}/life"), format!("{CLAIMS}/life"));
    for one in [&volume, &claim] {
        let patch = json!({"metadata": {"labels": {"life": "patched"}}});
        let answer = patched(admin, one, "strategic-merge", patch).await;
        assert_eq!(answer["metadata"]["labels"]["life"], "patched");
        assert_eq!(admin.get(one).await.body["metadata"]["uid"], answer["metadata"]["uid"]);
    }
    for (one, collection) in [(&claim, CLAIMS), (&volume, VOLUMES)] {
        ok(&admin.send("DELETE", one, "", String::new()).await);
        let selected = format!("{collection}?labelSelector=life%3Dpatched");
        super::settled(admin, &selected, "it is gone", |left| left.is_empty()).await;
    }
    // By their labels, after an update.
    pair(admin, "again").await;
    for (collection, all) in [(CLAIMS, "/api/v1/persistentvolumeclaims"), (VOLUMES, VOLUMES)] {
        let one = format!("{collection}/again");
        written(admin, &one, |object| object["metadata"]["labels"]["again"] = "updated".into()).await;
        assert_eq!(items(admin, &format!("{all}?labelSelector=again%3Dupdated")).await.len(), 1);
        let selected = format!("{collection}?labelSelector=again%3Dupdated");
        ok(&admin.send("DELETE", &selected, "", String::new()).await);
        super::settled(admin, &selected, "it is gone", |left| left.is_empty()).await;
    }
}

async fn volumes_and_claims_have_a_status(admin: &mut Peer) {
    pair(admin, "status").await;
    let (volume, claim) = (format!("{VOLUMES}/status/status"), format!("{CLAIMS}/status/status"));
    let phase = admin.get(&claim).await.body["status"]["phase"].clone();
    assert!(matches!(phase.as_str(), Some("Pending" | "Bound")), "{phase}");
    let phase = admin.get(&volume).await.body["status"]["phase"].clone();
    assert!(matches!(phase.as_str(), Some("Pending" | "Available" | "Bound")), "{phase}");

    let condition = |kind: &str| json!({"type": kind, "status": "True", "reason": format!("E2E {kind}"), "message": "Set from e2e test"});
    let has = |object: &Value, kind: &str| {
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.iter().any(|one| one["type"] == kind && one["reason"] == format!("E2E {kind}"))
    };
    let answer = patched(admin, &claim, "merge", json!({"status": {"conditions": [condition("StatusPatched")]}})).await;
    assert!(has(&answer, "StatusPatched"), "{answer}");
    let answer = patched(admin, &volume, "merge", json!({"status": {"message": "StatusPatched", "reason": "E2E patchStatus"}})).await;
    assert_eq!((&answer["status"]["message"], &answer["status"]["reason"]), (&json!("StatusPatched"), &json!("E2E patchStatus")));
    let answer = written(admin, &claim, |object| {
        let conditions = &mut object["status"]["conditions"];
        *conditions = json!([conditions[0], condition("StatusUpdated")]);
    })
    .await;
    assert!(has(&answer, "StatusPatched") && has(&answer, "StatusUpdated"), "{answer}");
    let answer = written(admin, &volume, |object| object["status"]["message"] = "StatusUpdated".into()).await;
    assert_eq!(answer["status"]["message"], "StatusUpdated");
}
