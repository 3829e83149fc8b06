//! Pod Security admission as clients see it.

use crate::cluster::{Answer, Cluster, Peer};
use serde_json::{Value, json};

async fn made(admin: &mut Peer, path: &str, object: Value) -> Answer {
    let answer = admin.post(path, object).await;
    assert_eq!(answer.code, 201, "{}", answer.body);
    answer
}

/// Waits for the account that pods run as.
async fn account(admin: &mut Peer, namespace: &str) {
    let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts?watch=true&fieldSelector=metadata.name=default");
    admin.watch(&path).await.next().await.expect("an account");
}

fn pod(name: &str, context: Value) -> Value {
    json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i", "securityContext": context}]}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pod_security() {
    let cluster = Cluster::start().await;
    let mut admin = cluster.admin().await;
    let label = |mode: &str| format!("pod-security.kubernetes.io/{mode}");
    let namespaces = "/api/v1/namespaces";
    let pods = "/api/v1/namespaces/guarded/pods";
    made(&mut admin, namespaces, json!({"metadata": {"name": "guarded"}})).await;
    account(&mut admin, "guarded").await;
    let privileged = json!({"privileged": true});
    assert_eq!(made(&mut admin, pods, pod("early", privileged.clone())).await.header("warning"), "");

    // Who raises the level is told about the pods that are there.
    let levels = json!({"metadata": {"labels": {label("enforce"): "baseline", label("warn"): "restricted", label("warn-version"): "v1.25"}}});
    let raised = admin.send("PATCH", "/api/v1/namespaces/guarded", "application/merge-patch+json", levels.to_string()).await;
    assert_eq!(raised.code, 200, "{}", raised.body);
    let warning = raised.header("warning").to_string();
    assert!(warning.contains("early: privileged"), "{warning}");
    let all = admin.get("/api/v1/namespaces/guarded/pods/early").await;
    assert_eq!(all.code, 200, "what is there stays");

    let refused = admin.post(pods, pod("late", privileged.clone())).await;
    assert_eq!((refused.code, refused.reason()), (403, "Forbidden"), "{}", refused.body);
    assert_eq!(
        refused.message(),
        "pods \"late\" is forbidden: violates PodSecurity \"baseline:latest\": privileged (container \"c\" must not set securityContext.privileged=true)"
    );
    let warned = made(&mut admin, pods, pod("plain", json!({}))).await;
    assert!(
        warned
            .header("warning")
            .contains("would violate PodSecurity \\\"restricted:v1.25\\\": allowPrivilegeEscalation != false (container \\\"c\\\" must set"),
        "{}",
        warned.header("warning")
    );
    // What makes pods is warned about, and let in.
    let deployment = json!({"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": pod("", privileged.clone())["spec"]}}});
    let warned = made(&mut admin, "/apis/apps/v1/namespaces/guarded/deployments", deployment).await;
    assert!(warned.header("warning").contains("would violate PodSecurity"), "{}", warned.header("warning"));
    let cron = json!({"metadata": {"name": "c"}, "spec": {"schedule": "0 0 * * *", "jobTemplate": {"spec": {"template": {
        "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}}}});
    let warned = made(&mut admin, "/apis/batch/v1/namespaces/guarded/cronjobs", cron).await;
    assert!(warned.header("warning").contains("would violate PodSecurity"), "{}", warned.header("warning"));
    // A pod from before may still be changed in what does not matter, but not in its images.
    let labelled = json!({"metadata": {"labels": {"x": "y"}}}).to_string();
    assert_eq!(admin.send("PATCH", &format!("{pods}/early"), "application/merge-patch+json", labelled).await.code, 200);
    let image = json!([{"op": "replace", "path": "/spec/containers/0/image", "value": "j"}]).to_string();
    assert_eq!(admin.send("PATCH", &format!("{pods}/early"), "application/json-patch+json", image).await.code, 403);

    let wrong = json!({"metadata": {"name": "wrong", "labels": {label("enforce"): "strict", label("audit-version"): "v2.0"}}});
    let refused = admin.post(namespaces, wrong).await;
    assert_eq!((refused.code, refused.reason()), (422, "Invalid"));
    assert_eq!(
        refused.message(),
        "Namespace \"wrong\" is invalid: [metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: \"strict\": must be one of privileged, baseline, restricted, \
         metadata.labels[pod-security.kubernetes.io/audit-version]: Invalid value: \"v2.0\": must be \"latest\" or \"v1.x\"]"
    );
}
