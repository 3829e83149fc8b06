//! ReplicationControllers.

use super::{Cluster, run, value};
use coracle_apiserver::{client::DeleteOptions, pipeline::PatchKind};
use serde_json::json;

#[test]
fn a_replication_controller_keeps_its_pods() {
    run(async {
        let cluster = Cluster::new().await;
        let controller = json!({ "apiVersion": "v1", "kind": "ReplicationController", "metadata": { "name": "old", "namespace": "default" },
            "spec": { "replicas": 2, "template": { "metadata": { "labels": { "app": "old", "tier": "x" } },
                "spec": { "containers": [{ "name": "c", "image": "i" }] } } } });
        let made = value(&*cluster.create("replicationcontrollers", controller).await);
        assert_eq!(made["spec"]["selector"], json!({ "app": "old", "tier": "x" }), "the template's labels");
        cluster.until("two pods", |_| (cluster.all("pods").len() == 2).then_some(())).await;
        assert!(cluster.all("pods").iter().all(|pod| pod["metadata"]["ownerReferences"][0]["kind"] == "ReplicationController"));
        let replicas = |wanted: i64| {
            let controller = value(&cluster.client.get("replicationcontrollers", "default", "old").expect("there"));
            (controller["status"]["replicas"] == wanted && controller["status"]["observedGeneration"] == controller["metadata"]["generation"])
                .then_some(())
        };
        cluster.until("it says so", |_| replicas(2)).await;

        // A pod that loses its labels is let go, and another comes.
        let name = cluster.all("pods")[0]["metadata"]["name"].as_str().expect("a name").to_owned();
        cluster
            .client
            .patch("pods", "default", &name, "", PatchKind::Merge, json!({ "metadata": { "labels": { "app": "stray" } } }))
            .await
            .expect("relabelled");
        cluster.until("a third", |_| (cluster.all("pods").len() == 3).then_some(())).await;
        let stray = value(&cluster.client.get("pods", "default", &name).expect("there"));
        assert!(stray["metadata"].get("ownerReferences").is_none());
        cluster.client.delete("pods", "default", &name, DeleteOptions::default()).await.expect("deleted");

        let scale = json!({ "spec": { "replicas": 1 } });
        cluster.client.patch("replicationcontrollers", "default", "old", "scale", PatchKind::Merge, scale).await.expect("scaled");
        cluster.until("one pod", |_| (cluster.all("pods").len() == 1).then(|| replicas(1))?).await;
        let background = DeleteOptions { propagation: Some("Background"), ..DeleteOptions::default() };
        cluster.client.delete("replicationcontrollers", "default", "old", background).await.expect("deleted");
        cluster.until("no pod", |_| cluster.all("pods").is_empty().then_some(())).await;
        let template = json!({ "apiVersion": "v1", "kind": "PodTemplate", "metadata": { "name": "t", "namespace": "default" },
            "template": { "metadata": { "labels": { "a": "b" } }, "spec": { "containers": [] } } });
        let refused = cluster.client.create("podtemplates", "default", template).await.expect_err("no container");
        assert_eq!(refused.message, "PodTemplate \"t\" is invalid: template.spec.containers: Required value");
        cluster.stop().await;
    });
}
