//! StatefulSets and DaemonSets from first pod to last.

use super::{Cluster, play_node, run, value};
use coracle_apiserver::{client::DeleteOptions, pipeline::PatchKind};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

fn template(image: &str) -> Value {
    json!({ "metadata": { "labels": { "app": "web" } }, "spec": { "containers": [{ "name": "c", "image": image }] } })
}

fn set(kind: &str, spec: Value) -> Value {
    let mut object = json!({ "apiVersion": "apps/v1", "kind": kind, "metadata": { "name": "web", "namespace": "default" },
        "spec": { "selector": { "matchLabels": { "app": "web" } }, "template": template("v1") } });
    for (key, value) in spec.as_object().expect("fields") {
        object["spec"][key] = value.clone();
    }
    object
}

/// Names and images of the pods that are there and ready.
fn ready(cluster: &Cluster) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let running = |pod: &Value| pod["status"]["phase"] == "Running" && pod["metadata"].get("deletionTimestamp").is_none();
    let pods = cluster.all("pods").into_iter().filter(running);
    pods.map(|pod| (text(&pod["metadata"]["name"]), text(&pod["spec"]["containers"][0]["image"]))).collect()
}

/// Numbers of the revisions, in the order of their names' creation.
fn revisions(cluster: &Cluster) -> Vec<i64> {
    let mut numbers: Vec<i64> = cluster.all("controllerrevisions.apps").iter().filter_map(|revision| revision["revision"].as_i64()).collect();
    numbers.sort_unstable();
    numbers
}

#[test]
fn a_stateful_set_keeps_names_and_order() {
    run(async {
        let cluster = Cluster::new().await;
        cluster.add_node("n1").await;
        let stop = CancellationToken::new();
        let node = tokio::spawn(play_node(cluster.client.clone(), stop.clone()));
        cluster.create("statefulsets.apps", set("StatefulSet", json!({ "replicas": 3, "serviceName": "web" }))).await;
        let names = |names: &[&str], image: &str| names.iter().map(|name| ((*name).to_owned(), image.to_owned())).collect::<Vec<_>>();
        let all = ["web-0", "web-1", "web-2"];
        cluster.until("three pods", |_| (ready(&cluster) == names(&all, "v1")).then_some(())).await;
        let made: Vec<Value> = cluster.all("pods").iter().map(|pod| pod["metadata"]["creationTimestamp"].clone()).collect();
        assert!(made.is_sorted_by(|a, b| a.as_str() <= b.as_str()), "one after the other: {made:?}");
        let status = |field: &str| value(&cluster.client.get("statefulsets.apps", "default", "web").expect("there"))["status"][field].clone();
        cluster.until("the first revision", |_| (status("currentReplicas") == 3 && status("updatedReplicas") == 3).then_some(())).await;
        assert_eq!(status("currentRevision"), status("updateRevision"));

        let image = |image: &str| json!({ "spec": { "template": { "spec": { "containers": [{ "name": "c", "image": image }] } } } });
        cluster.patch("statefulsets.apps", "web", image("v2")).await;
        cluster.until("the second template", |_| (ready(&cluster) == names(&all, "v2")).then_some(())).await;
        assert_eq!(revisions(&cluster), [1, 2]);
        cluster.until("the end of the update", |_| (status("currentRevision") == status("updateRevision")).then_some(())).await;

        // What kubectl sends to go back: the patch that the old revision holds.
        let first = cluster.all("controllerrevisions.apps").into_iter().find(|revision| revision["revision"] == 1).expect("the first revision");
        cluster.patch("statefulsets.apps", "web", first["data"].clone()).await;
        cluster.until("the first template again", |_| (ready(&cluster) == names(&all, "v1")).then_some(())).await;
        assert_eq!(revisions(&cluster), [2, 3], "it is a revision again, not another");

        // A pod that is lost comes back under its name.
        let uid = value(&cluster.client.get("pods", "default", "web-1").expect("there"))["metadata"]["uid"].clone();
        cluster.client.delete("pods", "default", "web-1", DeleteOptions::default()).await.expect("deleted");
        cluster.until("web-1 again", |c| (value(&*c.get("pods", "default", "web-1")?)["metadata"]["uid"] != uid).then_some(())).await;
        cluster.until("three pods", |_| (ready(&cluster).len() == 3).then_some(())).await;

        let scale = json!({ "spec": { "replicas": 1 } });
        cluster.client.patch("statefulsets.apps", "default", "web", "scale", PatchKind::Merge, scale).await.expect("scaled");
        cluster.until("the first pod alone", |_| (ready(&cluster) == names(&all[..1], "v1") && cluster.all("pods").len() == 1).then_some(())).await;
        cluster.client.delete("statefulsets.apps", "default", "web", DeleteOptions::default()).await.expect("deleted");
        cluster.until("nothing left", |_| (cluster.all("pods").is_empty() && cluster.all("controllerrevisions.apps").is_empty()).then_some(())).await;
        stop.cancel();
        node.await.expect("the node's task");
        cluster.stop().await;
    });
}

#[test]
fn a_daemon_set_follows_the_nodes() {
    run(async {
        let cluster = Cluster::new().await;
        cluster.add_node("n1").await;
        cluster.add_node("n2").await;
        let stop = CancellationToken::new();
        let node = tokio::spawn(play_node(cluster.client.clone(), stop.clone()));
        cluster.create("daemonsets.apps", set("DaemonSet", json!({}))).await;
        let places = || {
            let pods = cluster.all("pods").into_iter().filter(|pod| pod["status"]["phase"] == "Running");
            let mut places: Vec<String> = pods.filter_map(|pod| pod["spec"]["nodeName"].as_str().map(str::to_owned)).collect();
            places.sort();
            places
        };
        cluster.until("a pod on each node", |_| (places() == ["n1", "n2"]).then_some(())).await;
        cluster.add_node("n3").await;
        cluster.until("a pod on the new node", |_| (places() == ["n1", "n2", "n3"]).then_some(())).await;
        let counts = |wanted: i64| {
            let status = value(&cluster.client.get("daemonsets.apps", "default", "web").expect("there"))["status"].clone();
            ["desiredNumberScheduled", "currentNumberScheduled", "numberReady", "numberAvailable", "updatedNumberScheduled"]
                .iter()
                .all(|field| status[field] == wanted)
                .then_some(())
        };
        cluster.until("three of three", |_| counts(3)).await;

        let image = json!({ "spec": { "template": { "spec": { "containers": [{ "name": "c", "image": "v2" }] } } } });
        cluster.patch("daemonsets.apps", "web", image).await;
        cluster
            .until("the second template", |_| {
                let images = ready(&cluster);
                (images.len() == 3 && images.iter().all(|(_, image)| image == "v2")).then_some(())
            })
            .await;
        cluster.until("three of three again", |_| counts(3)).await;
        assert_eq!(revisions(&cluster), [1, 2]);
        let stored = value(&cluster.client.get("daemonsets.apps", "default", "web").expect("there"));
        assert_eq!(stored["metadata"]["annotations"]["deprecated.daemonset.template.generation"], "2");

        let taint = json!({ "spec": { "taints": [{ "key": "maintenance", "effect": "NoExecute" }] } });
        cluster.client.patch("nodes", "", "n2", "", PatchKind::Merge, taint).await.expect("tainted");
        cluster.until("the tainted node is left", |_| (places() == ["n1", "n3"]).then(|| counts(2))?).await;
        cluster.client.patch("nodes", "", "n2", "", PatchKind::Merge, json!({ "spec": { "taints": null } })).await.expect("untainted");
        cluster.until("it is joined again", |_| (places() == ["n1", "n2", "n3"]).then_some(())).await;
        cluster.client.delete("nodes", "", "n3", DeleteOptions::default()).await.expect("deleted");
        cluster.until("two nodes", |_| counts(2)).await;
        stop.cancel();
        node.await.expect("the node's task");
        cluster.stop().await;
    });
}
