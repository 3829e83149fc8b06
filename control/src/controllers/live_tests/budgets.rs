//! Disruption budgets and the evictions that they allow.

use super::{Cluster, play_node, run, value};
use coracle_api::Status;
use coracle_apiserver::{client::Client, pipeline::PatchKind};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

async fn evict(client: &Client, pod: &str, options: Value) -> Result<Value, Status> {
    let eviction = json!({ "apiVersion": "policy/v1", "kind": "Eviction", "metadata": { "name": pod }, "deleteOptions": options });
    client.create_subresource("pods", "default", pod, "eviction", eviction).await
}

fn budget(spec: Value) -> Value {
    let mut budget = json!({ "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": { "name": "web", "namespace": "default" },
        "spec": { "selector": { "matchLabels": { "app": "web" } } } });
    for (key, value) in spec.as_object().expect("fields") {
        budget["spec"][key] = value.clone();
    }
    budget
}

fn names(cluster: &Cluster) -> Vec<String> {
    cluster.all("pods").iter().filter_map(|pod| pod["metadata"]["name"].as_str().map(str::to_owned)).collect()
}

#[test]
fn evictions_stay_within_the_budget() {
    run(async {
        let cluster = Cluster::new().await;
        cluster.add_node("n1").await;
        let stop = CancellationToken::new();
        let node = tokio::spawn(play_node(cluster.client.clone(), stop.clone()));
        cluster.create("poddisruptionbudgets.policy", budget(json!({ "minAvailable": 2 }))).await;
        for name in ["a", "b", "c"] {
            let pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "namespace": "default", "labels": { "app": "web" } },
                "spec": { "containers": [{ "name": "c", "image": "i" }] } });
            cluster.create("pods", pod).await;
        }
        let allowed = |wanted: i64| {
            let budget = value(&cluster.client.get("poddisruptionbudgets.policy", "default", "web").expect("there"));
            let status = &budget["status"];
            (status["disruptionsAllowed"] == wanted && status["observedGeneration"] == budget["metadata"]["generation"]).then_some(())
        };
        cluster.until("one may go", |_| allowed(1)).await;
        let asked = evict(&cluster.client, "a", json!({ "dryRun": ["All"] })).await.expect("allowed");
        assert_eq!(asked["status"], "Success");
        assert_eq!((names(&cluster).len(), allowed(1)), (3, Some(())), "it was only asked");
        evict(&cluster.client, "a", json!({})).await.expect("allowed");
        cluster.until("a is gone", |_| (names(&cluster) == ["b", "c"]).then_some(())).await;
        cluster.until("no other may go", |_| allowed(0)).await;

        let status = evict(&cluster.client, "b", json!({})).await.expect_err("refused");
        assert_eq!((status.code, status.reason), (429, "TooManyRequests"));
        assert_eq!(status.message, "Cannot evict pod as it would violate the pod's disruption budget.");
        let details = status.details.expect("details");
        assert_eq!(details.causes[0].reason, "DisruptionBudget");
        assert_eq!(details.causes[0].message, "The disruption budget web needs 2 healthy pods and has 2 currently");
        let free = json!({ "spec": { "minAvailable": 1 } });
        cluster.patch("poddisruptionbudgets.policy", "web", free).await;
        cluster.until("one may go again", |_| allowed(1)).await;

        // A pod that is not healthy may go for nothing, if so wanted.
        let sick = json!({ "status": { "conditions": [{ "type": "Ready", "status": "False" }] } });
        cluster.client.patch("pods", "default", "b", "status", PatchKind::Strategic, sick).await.expect("sick");
        cluster.until("no other may go", |_| allowed(0)).await;
        assert_eq!(evict(&cluster.client, "c", json!({})).await.expect_err("the last healthy one").code, 429);
        evict(&cluster.client, "b", json!({})).await.expect("those that are needed are healthy");
        cluster.until("c is left", |_| (names(&cluster) == ["c"]).then_some(())).await;

        cluster
            .create("poddisruptionbudgets.policy", {
                let mut second = budget(json!({ "maxUnavailable": 1 }));
                second["metadata"]["name"] = json!("second");
                second
            })
            .await;
        let status = evict(&cluster.client, "c", json!({})).await.expect_err("two budgets");
        assert_eq!((status.code, status.message.starts_with("This pod has more than one PodDisruptionBudget")), (500, true));
        stop.cancel();
        node.await.expect("the node's task");
        cluster.stop().await;
    });
}

#[test]
fn a_budget_counts_what_there_should_be() {
    run(async {
        let cluster = Cluster::new().await;
        cluster.add_node("n1").await;
        let stop = CancellationToken::new();
        let node = tokio::spawn(play_node(cluster.client.clone(), stop.clone()));
        cluster.create("deployments.apps", super::deployment("v1", 4)).await;
        cluster.create("poddisruptionbudgets.policy", budget(json!({ "maxUnavailable": "25%" }))).await;
        let status = cluster
            .until("four of four", |c| {
                let status = value(&*c.get("poddisruptionbudgets.policy", "default", "web")?)["status"].clone();
                (status["currentHealthy"] == 4).then_some(status)
            })
            .await;
        assert_eq!((&status["expectedPods"], &status["desiredHealthy"], &status["disruptionsAllowed"]), (&json!(4), &json!(3), &json!(1)));
        assert_eq!((&status["conditions"][0]["type"], &status["conditions"][0]["reason"]), (&json!("DisruptionAllowed"), &json!("SufficientPods")));
        stop.cancel();
        node.await.expect("the node's task");
        cluster.stop().await;
    });
}
