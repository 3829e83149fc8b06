//! Room that is made, and tokens that are handed out, on a running control plane.

use super::{Cluster, play_node, run, value};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

fn pod(name: &str, cpu: &str, class: Option<&str>) -> Value {
    let mut pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "namespace": "default" },
        "spec": { "containers": [{ "name": "c", "image": "i", "resources": { "requests": { "cpu": cpu } } }] } });
    if let Some(class) = class {
        pod["spec"]["priorityClassName"] = json!(class);
    }
    pod
}

#[test]
fn the_important_make_room_for_themselves() {
    run(async {
        let cluster = Cluster::new().await;
        cluster.add_node("n1").await;
        let stop = CancellationToken::new();
        let node = tokio::spawn(play_node(cluster.client.clone(), stop.clone()));
        let class = json!({ "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": { "name": "high" }, "value": 1000 });
        cluster.create("priorityclasses.scheduling.k8s.io", class).await;
        cluster.create("pods", pod("low", "3", None)).await;
        let running = |name: &'static str| {
            move |client: &coracle_apiserver::client::Client| {
                let pod = value(&*client.get("pods", "default", name)?);
                (pod["status"]["phase"] == "Running").then_some(pod)
            }
        };
        cluster.until("the first runs", running("low")).await;
        let high = cluster.create("pods", pod("high", "3", Some("high"))).await;
        let bound = cluster.until("the important one runs", running("high")).await;
        assert_eq!(bound["spec"]["nodeName"], "n1");
        assert!(bound["status"]["nominatedNodeName"].is_null(), "{}", bound["status"]);
        assert!(cluster.client.get("pods", "default", "low").is_none());
        let told = format!("Preempted by pod {} on node n1", high.meta.uid);
        cluster.until("the event", |_| cluster.all("events").into_iter().find(|event| event["message"] == *told)).await;
        cluster.create("pods", pod("late", "3", None)).await;
        let why = "0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod.";
        cluster
            .until("the reason", |client| {
                let late = value(&*client.get("pods", "default", "late")?);
                late["status"]["conditions"].as_array()?.iter().find(|condition| condition["message"] == why).map(drop)
            })
            .await;
        stop.cancel();
        node.await.expect("the node ends");
        cluster.stop().await;
    });
}

#[test]
fn secrets_hold_tokens_for_as_long_as_they_live() {
    run(async {
        let cluster = Cluster::new().await;
        let account = json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": "robot", "namespace": "default" } });
        cluster.create("serviceaccounts", account).await;
        let secret = |name: &str| {
            json!({ "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/service-account-token",
                "metadata": { "name": name, "namespace": "default", "annotations": { "kubernetes.io/service-account.name": "robot" } } })
        };
        cluster.create("secrets", secret("key")).await;
        let filled = |name: &'static str| {
            move |client: &coracle_apiserver::client::Client| {
                let secret = value(&*client.get("secrets", "default", name)?);
                let token = BASE64_STANDARD.decode(secret["data"]["token"].as_str()?).expect("base64");
                Some((String::from_utf8(token).expect("text"), secret))
            }
        };
        let (token, held) = cluster.until("a token", filled("key")).await;
        assert_eq!(held["data"]["namespace"], BASE64_STANDARD.encode("default"));
        assert!(held["data"]["ca.crt"].is_string() && held["metadata"]["annotations"]["kubernetes.io/service-account.uid"].is_string());
        let auth = &cluster.client.core().auth;
        let (user, _) = auth.token_user(&token, &[]).expect("a user");
        assert_eq!(user.name, "system:serviceaccount:default:robot");
        let data = json!({ "data": { "token": BASE64_STANDARD.encode("another") } });
        cluster.patch("secrets", "key", data).await;
        assert!(auth.token_user(&token, &[]).is_err(), "the Secret holds another");
        cluster.create("secrets", secret("second")).await;
        let (token, _) = cluster.until("a token", filled("second")).await;
        cluster.client.delete("secrets", "default", "second", Default::default()).await.expect("deleted");
        assert!(auth.token_user(&token, &[]).is_err(), "the Secret is gone");
        cluster.client.delete("serviceaccounts", "default", "robot", Default::default()).await.expect("deleted");
        cluster.until("its Secrets go", |client| client.get("secrets", "default", "key").is_none().then_some(())).await;
        cluster.stop().await;
    });
}
