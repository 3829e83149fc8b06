//! apps/rc, apps/replica_set, apps/job and apps/controller_revision: what a controller adopts, lets go of, and says about itself.

use super::{items, made, name, namespace, patched, settled, template};
use crate::cluster::{Cluster, Peer};
use serde_json::{Value, json};

pub async fn all(cluster: &Cluster) {
    let mut admin = cluster.admin().await;
    for kind in ["replicationcontrollers", "replicasets", "jobs"] {
        matching_pods_are_adopted_and_others_let_go(&mut admin, kind).await;
    }
    a_quota_shows_as_a_condition(&mut admin).await;
    revisions_have_a_life(&mut admin).await;
    service_accounts_keep_their_certificate_authority(&mut admin).await;
}

fn selecting(kind: &str, labels: &Value) -> Value {
    let mut template = template(labels);
    let (selector, more) = match kind {
        "replicationcontrollers" => (labels.clone(), json!({"replicas": 1})),
        "replicasets" => (json!({"matchLabels": labels}), json!({"replicas": 1})),
        _ => {
            template["spec"]["restartPolicy"] = "Never".into();
            (json!({"matchLabels": labels}), json!({"parallelism": 1, "manualSelector": true}))
        }
    };
    let mut spec = more;
    spec["selector"] = selector;
    spec["template"] = template;
    json!({"metadata": {"name": "adopter"}, "spec": spec})
}

/// A pod that was there first is taken over; one whose label is taken away is let go, and another takes its place.
async fn matching_pods_are_adopted_and_others_let_go(admin: &mut Peer, kind: &str) {
    let place = format!("adopt-{kind}");
    namespace(admin, &place).await;
    let pods = format!("/api/v1/namespaces/{place}/pods");
    let labels = json!({"name": "pod-adoption"});
    let mut pod = template(&labels);
    pod["metadata"]["name"] = "first".into();
    if kind == "jobs" {
        pod["spec"]["restartPolicy"] = "Never".into();
        pod["metadata"]["finalizers"] = json!(["batch.kubernetes.io/job-tracking"]);
    }
    made(admin, &pods, pod).await;
    let group = match kind {
        "jobs" => "/apis/batch/v1",
        "replicasets" => "/apis/apps/v1",
        _ => "/api/v1",
    };
    let owner = made(admin, &format!("{group}/namespaces/{place}/{kind}"), selecting(kind, &labels)).await;
    let owned = |pod: &Value| pod["metadata"]["ownerReferences"][0]["uid"] == owner["metadata"]["uid"];
    let adopted = settled(admin, &pods, "the pod is adopted", |pods| pods.len() == 1 && owned(&pods[0])).await;
    let reference = &adopted[0]["metadata"]["ownerReferences"][0];
    assert_eq!((name(&adopted[0]), &reference["controller"], &reference["blockOwnerDeletion"]), ("first", &json!(true), &json!(true)));
    patched(admin, &format!("{pods}/first"), "strategic-merge", json!({"metadata": {"labels": {"name": "other"}}})).await;
    let all = settled(admin, &pods, "the pod is let go and replaced", |pods| {
        let free = pods.iter().any(|pod| name(pod) == "first" && pod["metadata"]["ownerReferences"].is_null());
        free && pods.iter().any(|pod| name(pod) != "first" && owned(pod))
    })
    .await;
    assert_eq!(all.len(), 2, "{kind}");
}

/// Upstream's spec uses a quota; here pods are refused by their template's account, which is the same to the controller.
async fn a_quota_shows_as_a_condition(admin: &mut Peer) {
    namespace(admin, "rc-failure").await;
    let labels = json!({"name": "condition-test"});
    let mut rc = json!({"metadata": {"name": "condition-test"}, "spec": {"replicas": 3, "selector": labels, "template": template(&labels)}});
    rc["spec"]["template"]["spec"]["serviceAccountName"] = "nobody".into();
    let path = "/api/v1/namespaces/rc-failure/replicationcontrollers";
    made(admin, path, rc).await;
    let failing = |list: &[Value]| {
        let conditions = list[0]["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions
            .iter()
            .any(|condition| condition["type"] == "ReplicaFailure" && condition["status"] == "True" && condition["reason"] == "FailedCreate")
    };
    settled(admin, path, "the failure shows", failing).await;
    made(admin, "/api/v1/namespaces/rc-failure/serviceaccounts", json!({"metadata": {"name": "nobody"}})).await;
    patched(admin, &format!("{path}/condition-test"), "merge", json!({"spec": {"replicas": 2}})).await;
    let well = |list: &[Value]| list[0]["status"]["replicas"] == 2 && list[0]["status"]["conditions"].as_array().is_none_or(Vec::is_empty);
    settled(admin, path, "the failure is gone", well).await;
}

/// apps/controller_revision: the history of a daemon set is made, relabelled, copied, deleted and made again.
async fn revisions_have_a_life(admin: &mut Peer) {
    namespace(admin, "revisions").await;
    let labels = json!({"daemonset-name": "history"});
    let set =
        json!({"metadata": {"name": "history", "labels": labels}, "spec": {"selector": {"matchLabels": labels}, "template": template(&labels)}});
    let set = made(admin, "/apis/apps/v1/namespaces/revisions/daemonsets", set).await;
    let path = "/apis/apps/v1/namespaces/revisions/controllerrevisions";
    let one = settled(admin, path, "a first revision", |list| list.len() == 1).await.remove(0);
    assert_eq!((&one["revision"], &one["metadata"]["ownerReferences"][0]["uid"]), (&json!(1), &set["metadata"]["uid"]));
    let key = one["metadata"]["name"].as_str().expect("a name").to_owned();
    let relabelled = patched(admin, &format!("{path}/{key}"), "strategic-merge", json!({"metadata": {"labels": {key.as_str(): "patched"}}})).await;
    assert_eq!(relabelled["metadata"]["labels"][&key], "patched");
    let mut copy = json!({"apiVersion": "apps/v1", "kind": "ControllerRevision", "metadata": {"name": "copy", "ownerReferences": one["metadata"]["ownerReferences"], "labels": labels}, "data": one["data"], "revision": 2});
    copy = made(admin, path, copy).await;
    assert_eq!(copy["revision"], 2);
    let gone = admin.send("DELETE", &format!("{path}/copy"), "application/json", String::new()).await;
    assert_eq!(gone.code, 200, "{}", gone.body);
    patched(
        admin,
        "/apis/apps/v1/namespaces/revisions/daemonsets/history",
        "strategic-merge",
        json!({"spec": {"template": {"metadata": {"annotations": {"a": "b"}}}}}),
    )
    .await;
    let two = settled(admin, path, "a second revision", |list| list.len() == 2).await;
    assert!(two.iter().any(|revision| revision["revision"].as_i64() > Some(1)), "{two:?}");
    let changed = admin.send("PATCH", &format!("{path}/{key}"), "application/merge-patch+json", json!({"data": {"x": 1}}).to_string()).await;
    assert_eq!((changed.code, changed.reason()), (422, "Invalid"), "what a revision holds does not change");
}

/// auth/service_accounts: the CA's certificate is in every namespace, comes back when deleted and is made right when changed.
async fn service_accounts_keep_their_certificate_authority(admin: &mut Peer) {
    namespace(admin, "root-ca").await;
    let path = "/api/v1/namespaces/root-ca/configmaps";
    let there = |list: &[Value]| list.iter().any(|map| map["data"]["ca.crt"].as_str().is_some_and(|text| text.starts_with("-----BEGIN CERTIFICATE")));
    settled(admin, path, "the certificate", there).await;
    admin.send("DELETE", &format!("{path}/kube-root-ca.crt"), "application/json", String::new()).await;
    settled(admin, path, "the certificate again", there).await;
    patched(admin, &format!("{path}/kube-root-ca.crt"), "merge", json!({"data": {"ca.crt": "", "more": "x"}})).await;
    settled(admin, path, "the right certificate", |list| there(list) && list.iter().all(|map| map["data"]["more"].is_null())).await;
    let accounts = "/api/v1/namespaces/root-ca/serviceaccounts";
    assert_eq!(items(admin, accounts).await.iter().map(name).collect::<Vec<_>>(), ["default"]);
}
