//! Controllers and scheduler in a real control plane, with a node that is played by the test.

mod addresses;
mod budgets;
mod cluster;
mod controllers;
mod jobs;
mod scheduling;
mod sets;

use self::cluster::{Cluster, play_node, run, value};
use coracle_apiserver::{
    client::{Client, DeleteOptions},
    pipeline::PatchKind,
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

fn deployment(image: &str, replicas: i64) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "web", "namespace": "default" },
        "spec": {
            "replicas": replicas, "selector": { "matchLabels": { "app": "web" } },
            "template": {
                "metadata": { "labels": { "app": "web" } },
                "spec": { "containers": [{ "name": "c", "image": image, "ports": [{ "name": "http", "containerPort": 8080 }] }] },
            },
        },
    })
}

fn complete(cluster: &Cluster, replicas: i64) -> Option<()> {
    let web = cluster.all("deployments.apps").into_iter().next()?;
    let status = &web["status"];
    let counts = ["replicas", "updatedReplicas", "readyReplicas", "availableReplicas"].iter().all(|field| status[field] == json!(replicas));
    (counts && status["observedGeneration"] == web["metadata"]["generation"]).then_some(())
}

fn addresses(cluster: &Cluster) -> Vec<String> {
    let slices =
        cluster.all("endpointslices.discovery.k8s.io").into_iter().filter(|s| s["metadata"]["labels"]["kubernetes.io/service-name"] == "web");
    let endpoints = slices.flat_map(|slice| slice["endpoints"].as_array().cloned().unwrap_or_default());
    endpoints.filter(|e| e["conditions"]["ready"] == json!(true)).filter_map(|e| e["addresses"][0].as_str().map(str::to_owned)).collect()
}

#[test]
fn a_deployment_lives_from_first_pod_to_last() {
    run(async {
        let cluster = Cluster::new().await;
        cluster.add_node("n1").await;
        let stop = CancellationToken::new();
        let node = tokio::spawn(play_node(cluster.client.clone(), stop.clone()));
        cluster.until("a pod range", |c| value(&*c.get("nodes", "", "n1")?)["spec"]["podCIDR"].as_str().map(str::to_owned)).await;

        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": { "name": "web", "namespace": "default" },
            "spec": { "selector": { "app": "web" }, "ports": [{ "port": 80, "targetPort": "http" }] },
        });
        cluster.create("services", service).await;
        cluster.create("deployments.apps", deployment("v1", 3)).await;
        cluster.until("three pods", |_| complete(&cluster, 3)).await;
        cluster.until("three endpoints", |_| (addresses(&cluster).len() == 3).then_some(())).await;
        let slice =
            cluster.all("endpointslices.discovery.k8s.io").into_iter().find(|s| s["metadata"]["labels"]["kubernetes.io/service-name"] == "web");
        assert_eq!(slice.expect("a slice")["ports"][0]["port"], 8080);

        let image = |image: &str| json!({ "spec": { "template": { "spec": { "containers": [{ "name": "c", "image": image }] } } } });
        cluster.patch("deployments.apps", "web", image("v2")).await;
        cluster.until("the second set", |_| (cluster.all("replicasets.apps").len() == 2).then(|| complete(&cluster, 3))?).await;
        cluster.patch("deployments.apps", "web", image("v1")).await;
        cluster
            .until("the first set again", |_| {
                let sets = cluster.all("replicasets.apps");
                let revisions: Vec<_> = sets.iter().map(|s| s["metadata"]["annotations"]["deployment.kubernetes.io/revision"].clone()).collect();
                complete(&cluster, 3)?;
                assert_eq!(sets.len(), 2);
                revisions.contains(&json!("3")).then_some(())
            })
            .await;
        cluster.patch("deployments.apps", "web", json!({ "spec": { "replicas": 1 } })).await;
        cluster.until("one pod", |_| complete(&cluster, 1)).await;
        cluster.until("one endpoint", |_| (addresses(&cluster).len() == 1).then_some(())).await;

        let reason = |reason: &str, message: &str| {
            let events = cluster.all("events");
            events.iter().any(|e| e["reason"] == reason && e["message"].as_str().is_some_and(|m| m.contains(message))).then_some(())
        };
        cluster.until("the scaling event", |_| reason("ScalingReplicaSet", " from 0 to 3")).await;
        cluster.until("the creation event", |_| reason("SuccessfulCreate", "Created pod: web-")).await;
        cluster.until("the scheduling event", |_| reason("Scheduled", " to n1")).await;

        cluster.client.delete("deployments.apps", "default", "web", DeleteOptions::default()).await.expect("deleted");
        cluster.until("nothing left", |_| (cluster.all("replicasets.apps").is_empty() && cluster.all("pods").is_empty()).then_some(())).await;
        cluster.until("no endpoint", |_| addresses(&cluster).is_empty().then_some(())).await;
        stop.cancel();
        node.await.expect("the node's task");
        cluster.stop().await;
    });
}

#[test]
fn foreground_and_orphan_deletion_keep_their_promises() {
    run(async {
        let cluster = Cluster::new().await;
        cluster.create("deployments.apps", deployment("v1", 2)).await;
        cluster.until("two pods", |_| (cluster.all("pods").len() == 2).then_some(())).await;
        let options = DeleteOptions { propagation: Some("Foreground"), ..DeleteOptions::default() };
        cluster.client.delete("deployments.apps", "default", "web", options).await.expect("deleted");
        cluster
            .until("the Deployment goes last", |c| {
                let gone = c.get("deployments.apps", "default", "web").is_none();
                assert!(!gone || cluster.all("replicasets.apps").is_empty(), "its set must go first");
                gone.then_some(())
            })
            .await;
        assert!(cluster.all("pods").is_empty());

        cluster.create("deployments.apps", deployment("v1", 2)).await;
        cluster.until("two pods", |_| (cluster.all("pods").len() == 2).then_some(())).await;
        let options = DeleteOptions { propagation: Some("Orphan"), ..DeleteOptions::default() };
        cluster.client.delete("deployments.apps", "default", "web", options).await.expect("deleted");
        cluster.until("the Deployment goes alone", |c| c.get("deployments.apps", "default", "web").is_none().then_some(())).await;
        let sets = cluster.all("replicasets.apps");
        assert_eq!((sets.len(), cluster.all("pods").len()), (1, 2));
        assert!(sets[0]["metadata"].get("ownerReferences").is_none());
        // A new Deployment of the same template takes the set over instead of making another.
        cluster.create("deployments.apps", deployment("v1", 2)).await;
        cluster.until("adoption", |_| cluster.all("replicasets.apps")[0]["metadata"].get("ownerReferences").map(|_| ())).await;
        assert_eq!(cluster.all("replicasets.apps").len(), 1);
        cluster.stop().await;
    });
}

#[test]
fn a_job_completes_and_its_pods_are_let_go() {
    run(async {
        let cluster = Cluster::new().await;
        cluster.add_node("n1").await;
        let stop = CancellationToken::new();
        let node = tokio::spawn(play_node(cluster.client.clone(), stop.clone()));
        let job = json!({
            "apiVersion": "batch/v1", "kind": "Job", "metadata": { "name": "sum", "namespace": "default" },
            "spec": { "completions": 3, "parallelism": 2, "template": { "spec": {
                "restartPolicy": "Never", "containers": [{ "name": "c", "image": "i" }] } } },
        });
        cluster.create("jobs.batch", job).await;
        let done = cluster
            .until("completion", |c| {
                let job = value(&*c.get("jobs.batch", "default", "sum")?);
                let conditions = job["status"]["conditions"].as_array().cloned().unwrap_or_default();
                conditions.iter().any(|c| c["type"] == "Complete" && c["status"] == "True").then_some(job)
            })
            .await;
        assert_eq!(done["status"]["succeeded"], 3);
        let pods = cluster.all("pods");
        assert_eq!(pods.len(), 3);
        assert!(pods.iter().all(|pod| pod["metadata"].get("finalizers").is_none()), "{pods:?}");
        let options = DeleteOptions { propagation: Some("Background"), ..DeleteOptions::default() };
        cluster.client.delete("jobs.batch", "default", "sum", options).await.expect("deleted");
        cluster.until("its pods go", |_| cluster.all("pods").is_empty().then_some(())).await;
        stop.cancel();
        node.await.expect("the node's task");
        cluster.stop().await;
    });
}

#[test]
fn a_namespace_is_furnished_and_emptied() {
    run(async {
        let cluster = Cluster::new().await;
        cluster.create("namespaces", json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "team" } })).await;
        cluster.until("an account", |c| c.get("serviceaccounts", "team", "default")).await;
        let map = cluster.until("the CA", |c| c.get("configmaps", "team", "kube-root-ca.crt")).await;
        cluster.client.delete("configmaps", "team", "kube-root-ca.crt", DeleteOptions::default()).await.expect("deleted");
        let again = cluster.until("the CA again", |c| c.get("configmaps", "team", "kube-root-ca.crt").filter(|m| m.meta.uid != map.meta.uid)).await;
        assert_eq!(value(&again)["data"], value(&map)["data"]);
        let tampered = json!({ "data": { "ca.crt": "none" } });
        cluster.client.patch("configmaps", "team", "kube-root-ca.crt", "", PatchKind::Merge, tampered).await.expect("patched");
        cluster
            .until("the CA put right", |c| c.get("configmaps", "team", "kube-root-ca.crt").filter(|m| value(m)["data"] == value(&map)["data"]))
            .await;

        let mut web = deployment("v1", 5);
        web["metadata"]["namespace"] = json!("team");
        cluster.create("deployments.apps", web).await;
        cluster.until("pods that are in the way", |c| (c.store().snapshot().count("pods", Some("team")) == 5).then_some(())).await;
        let held = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "held", "namespace": "team", "finalizers": ["example.com/hold"] } });
        cluster.create("configmaps", held).await;
        cluster.client.delete("namespaces", "", "team", DeleteOptions::default()).await.expect("deleted");
        cluster
            .until("the reason it stays", |c| {
                let namespace = value(&*c.get("namespaces", "", "team")?);
                let conditions = namespace["status"]["conditions"].as_array().cloned().unwrap_or_default();
                let told = conditions.iter().find(|c| c["type"] == "NamespaceFinalizersRemaining")?;
                told["message"].as_str().is_some_and(|m| m.contains("example.com/hold in 1 resource instances")).then_some(())
            })
            .await;
        let free = json!({ "metadata": { "finalizers": null } });
        cluster.client.patch("configmaps", "team", "held", "", PatchKind::Merge, free).await.expect("patched");
        cluster.until("the namespace goes", |c| c.get("namespaces", "", "team").is_none().then_some(())).await;
        let snapshot = cluster.client.store().snapshot();
        let left: Vec<_> = snapshot.resources().filter(|(resource, _)| snapshot.count(resource, Some("team")) > 0).collect();
        assert!(left.is_empty(), "{left:?}");
        cluster.stop().await;
    });
}

#[test]
fn a_tainted_node_loses_its_pods_and_a_waiting_pod_says_why() {
    run(async {
        let cluster = Cluster::new().await;
        cluster.add_node("n1").await;
        let stop = CancellationToken::new();
        let node = tokio::spawn(play_node(cluster.client.clone(), stop.clone()));
        let pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "p", "namespace": "default" },
            "spec": { "containers": [{ "name": "c", "image": "i" }] } });
        cluster.create("pods", pod).await;
        cluster.until("it runs", |_| (cluster.all("pods")[0]["status"]["phase"] == "Running").then_some(())).await;
        let taint = json!({ "spec": { "taints": [{ "key": "maintenance", "effect": "NoExecute" }] } });
        cluster.client.patch("nodes", "", "n1", "", PatchKind::Merge, taint).await.expect("tainted");
        cluster.until("it goes", |_| cluster.all("pods").is_empty().then_some(())).await;

        let pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "q", "namespace": "default" },
            "spec": { "containers": [{ "name": "c", "image": "i" }] } });
        cluster.create("pods", pod).await;
        cluster
            .until("why it waits", |_| {
                let conditions = cluster.all("pods")[0]["status"]["conditions"].as_array().cloned()?;
                let told = conditions.iter().find(|c| c["type"] == "PodScheduled")?.clone();
                let why = "0/1 nodes are available: 1 node(s) had untolerated taint(s). no new claims to deallocate, preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.";
                (told["reason"] == "Unschedulable" && told["message"] == why).then_some(())
            })
            .await;
        cluster.client.patch("nodes", "", "n1", "", PatchKind::Merge, json!({ "spec": { "taints": null } })).await.expect("untainted");
        cluster.until("it runs", |_| (cluster.all("pods")[0]["status"]["phase"] == "Running").then_some(())).await;

        // A node that leaves: its cordon first becomes a taint.
        cluster.client.patch("nodes", "", "n1", "", PatchKind::Merge, json!({ "spec": { "unschedulable": true } })).await.expect("cordoned");
        cluster
            .until("the cordon's taint", |c| {
                let node = value(&*c.get("nodes", "", "n1")?);
                (node["spec"]["taints"][0]["key"] == "node.kubernetes.io/unschedulable").then_some(())
            })
            .await;
        stop.cancel();
        node.await.expect("the node's task");
        cluster.stop().await;
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn aggregated_roles_show_what_they_unite() {
    let cluster = Cluster::new().await;
    const ROLES: &str = "clusterroles.rbac.authorization.k8s.io";
    let rules = |client: &Client, name: &str| {
        let stored = client.store().snapshot().get(&coracle_store::Key::new(ROLES, "", name))?;
        value(&stored)["rules"].as_array().cloned()
    };
    let verbs = |client: &Client, name: &str, resource: &str| {
        let found =
            rules(client, name)?.into_iter().find(|rule| rule["resources"].as_array().is_some_and(|all| all.iter().any(|one| one == resource)))?;
        Some(found["verbs"].clone())
    };
    // The chain of the default ones: view into edit into admin.
    cluster.until("admin holds what view holds", |client| verbs(client, "view", "configmaps").zip(verbs(client, "admin", "configmaps"))).await;
    let rule = json!({"apiGroups": ["boats.dev"], "resources": ["coracles"], "verbs": ["get"]});
    let label = "rbac.authorization.k8s.io/aggregate-to-view";
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "boats", "labels": {label: "true"}}, "rules": [rule]});
    cluster.client.create(ROLES, "", role).await.expect("a role");
    for name in ["view", "edit", "admin"] {
        cluster.until(name, |client| verbs(client, name, "coracles").filter(|verbs| *verbs == json!(["get"]))).await;
    }
    let patch = json!({"rules": [{"apiGroups": ["boats.dev"], "resources": ["coracles"], "verbs": ["list"]}]});
    cluster.client.patch(ROLES, "", "boats", "", PatchKind::Merge, patch).await.expect("a change");
    cluster.until("the change is in admin", |client| verbs(client, "admin", "coracles").filter(|verbs| *verbs == json!(["list"]))).await;
    cluster.client.delete(ROLES, "", "boats", DeleteOptions::default()).await.expect("a deletion");
    cluster.until("it is gone from admin", |client| verbs(client, "admin", "coracles").is_none().then_some(())).await;
    cluster.stop().await;
}
