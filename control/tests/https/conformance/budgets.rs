//! apps/cronjob and apps/disruption: what schedules make of jobs that go on, and what budgets make of evictions.

use super::{delete, items, made, name, namespace, ok, patched, put, reached, settled, template};
use crate::cluster::{Answer, Cluster, Peer};
use serde_json::{Value, json};

pub async fn all(cluster: &Cluster) {
    let (mut a, mut b, mut c, mut d) = (cluster.admin().await, cluster.admin().await, cluster.admin().await, cluster.admin().await);
    let budgets = async {
        budgets_are_listed_changed_and_deleted(&mut d).await;
        evictions_wait_for_budgets(&mut d).await;
        the_status_is_written(&mut d).await;
    };
    tokio::join!(schedules_overlap(&mut a), schedules_forbid(&mut b), schedules_replace(&mut c), budgets);
}

fn cron_jobs(place: &str) -> String {
    format!("/apis/batch/v1/namespaces/{place}/cronjobs")
}

fn jobs(place: &str) -> String {
    format!("/apis/batch/v1/namespaces/{place}/jobs")
}

/// A cron job whose jobs go on for ever.
async fn cron_job(admin: &mut Peer, place: &str, policy: &str, suspend: bool) -> Value {
    namespace(admin, place).await;
    let job = json!({"spec": {"template": {"spec": {"restartPolicy": "OnFailure", "containers": [{"name": "c", "image": "run"}]}}}});
    let spec = json!({"schedule": "@every 1s", "concurrencyPolicy": policy, "suspend": suspend, "jobTemplate": job});
    made(admin, &cron_jobs(place), json!({"metadata": {"name": "tick"}, "spec": spec})).await
}

fn active(cron_job: &Value) -> usize {
    cron_job["status"]["active"].as_array().map_or(0, Vec::len)
}

async fn schedules_overlap(admin: &mut Peer) {
    cron_job(admin, "cj-suspended", "Allow", true).await;
    cron_job(admin, "cj-allow", "Allow", false).await;
    reached(admin, &cron_jobs("cj-allow"), "tick", "two run at once", |tick| active(tick) >= 2).await;
    let running = items(admin, &jobs("cj-allow")).await;
    assert!(running.len() >= 2 && running.iter().all(|job| job["status"]["completionTime"].is_null()));
    // The other had as much time, and nothing to do.
    assert!(items(admin, &jobs("cj-suspended")).await.is_empty());
    assert_eq!(active(&admin.get(&format!("{}/tick", cron_jobs("cj-suspended"))).await.body), 0);
    patched(admin, &format!("{}/tick", cron_jobs("cj-allow")), "merge", json!({"spec": {"suspend": true}})).await;
}

async fn schedules_forbid(admin: &mut Peer) {
    cron_job(admin, "cj-forbid", "Forbid", false).await;
    let first = reached(admin, &cron_jobs("cj-forbid"), "tick", "one runs", |tick| active(tick) == 1).await;
    // The next times come and say why they are left out.
    let why = format!("{}?fieldSelector=reason%3DJobAlreadyActive", "/api/v1/namespaces/cj-forbid/events");
    settled(admin, &why, "a time is left out", |events| !events.is_empty()).await;
    let there = items(admin, &jobs("cj-forbid")).await;
    assert_eq!((there.len(), &there[0]["metadata"]["uid"]), (1, &first["status"]["active"][0]["uid"]));
    assert_eq!(active(&admin.get(&format!("{}/tick", cron_jobs("cj-forbid"))).await.body), 1);
    patched(admin, &format!("{}/tick", cron_jobs("cj-forbid")), "merge", json!({"spec": {"suspend": true}})).await;
}

async fn schedules_replace(admin: &mut Peer) {
    cron_job(admin, "cj-replace", "Replace", false).await;
    let first = reached(admin, &cron_jobs("cj-replace"), "tick", "one runs", |tick| active(tick) == 1).await;
    let first = &first["status"]["active"][0]["uid"];
    settled(admin, &jobs("cj-replace"), "another runs in its place", |jobs| {
        jobs.len() == 1 && jobs.iter().all(|job| job["metadata"]["uid"] != *first)
    })
    .await;
    let tick = admin.get(&format!("{}/tick", cron_jobs("cj-replace"))).await.body;
    delete(admin, &format!("{}/tick", cron_jobs("cj-replace")), &tick, "Background").await;
    settled(admin, &jobs("cj-replace"), "its jobs go", |jobs| jobs.is_empty()).await;
}

fn budgets(place: &str) -> String {
    format!("/apis/policy/v1/namespaces/{place}/poddisruptionbudgets")
}

async fn budget(admin: &mut Peer, place: &str, key: &str, least: Value) -> Value {
    let spec = json!({"minAvailable": least, "selector": {"matchLabels": {"foo": "bar"}}});
    made(admin, &budgets(place), json!({"metadata": {"name": key, "labels": {"foo_pdb": "bar_pdb"}}, "spec": spec})).await
}

async fn budgets_are_listed_changed_and_deleted(admin: &mut Peer) {
    for place in ["pdb-one", "pdb-two"] {
        namespace(admin, place).await;
    }
    budget(admin, "pdb-one", "foo", json!(2)).await;
    budget(admin, "pdb-one", "foo2", json!("1%")).await;
    budget(admin, "pdb-two", "foo3", json!(2)).await;
    let label = "labelSelector=foo_pdb%3Dbar_pdb";
    assert_eq!(items(admin, &format!("/apis/policy/v1/poddisruptionbudgets?{label}")).await.len(), 3);
    assert_eq!(items(admin, &format!("{}?{label}", budgets("pdb-one"))).await.len(), 2);
    let path = format!("{}/foo2", budgets("pdb-one"));
    let answer = patched(admin, &path, "merge", json!({"spec": {"minAvailable": "3%"}})).await;
    assert_eq!(answer["spec"]["minAvailable"], "3%");
    ok(&admin.send("DELETE", &budgets("pdb-one"), "application/json", String::new()).await);
    assert!(items(admin, &budgets("pdb-one")).await.is_empty());
    assert_eq!(items(admin, &budgets("pdb-two")).await.len(), 1);
}

async fn evict(admin: &mut Peer, place: &str, pod: &str) -> Answer {
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": place}});
    admin.post(&format!("/api/v1/namespaces/{place}/pods/{pod}/eviction"), eviction).await
}

#[track_caller]
fn held_back(answer: &Answer) {
    assert_eq!((answer.code, &answer.body["details"]["causes"][0]["reason"]), (429, &json!("DisruptionBudget")), "{}", answer.body);
}

async fn evictions_wait_for_budgets(admin: &mut Peer) {
    const PLACE: &str = "pdb-evict";
    namespace(admin, PLACE).await;
    budget(admin, PLACE, "foo", json!(3)).await;
    let labels = json!({"foo": "bar"});
    let set = json!({"metadata": {"name": "rs"}, "spec": {"replicas": 3, "selector": {"matchLabels": labels}, "template": template(&labels)}});
    made(admin, &format!("/apis/apps/v1/namespaces/{PLACE}/replicasets"), set).await;
    let pods = format!("/api/v1/namespaces/{PLACE}/pods");
    let three = |pods: &[Value]| {
        pods.len() == 3 && pods.iter().all(|pod| pod["status"]["phase"] == "Running" && pod["metadata"]["deletionTimestamp"].is_null())
    };
    let pod = name(&settled(admin, &pods, "three run", three).await[0]).to_owned();
    let healthy =
        |budget: &Value| budget["status"]["currentHealthy"] == 3 && budget["status"]["observedGeneration"] == budget["metadata"]["generation"];
    let full = reached(admin, &budgets(PLACE), "foo", "it is counted", healthy).await;
    assert_eq!(
        (&full["status"]["expectedPods"], &full["status"]["desiredHealthy"], &full["status"]["disruptionsAllowed"]),
        (&json!(3), &json!(3), &json!(0))
    );
    held_back(&evict(admin, PLACE, &pod).await);

    let path = format!("{}/foo", budgets(PLACE));
    let mut changed = full;
    changed["spec"]["minAvailable"] = 2.into();
    changed["metadata"]["resourceVersion"] = admin.get(&path).await.body["metadata"]["resourceVersion"].clone();
    assert_eq!(put(admin, &path, &changed).await["spec"]["minAvailable"], 2);
    reached(admin, &budgets(PLACE), "foo", "one may go", |budget| healthy(budget) && budget["status"]["disruptionsAllowed"] == 1).await;
    ok(&evict(admin, PLACE, &pod).await);

    patched(admin, &path, "merge", json!({"spec": {"minAvailable": null, "maxUnavailable": 0}})).await;
    let now = settled(admin, &pods, "three run again", |pods| three(pods) && pods.iter().all(|one| name(one) != pod)).await;
    let pod = name(&now[0]).to_owned();
    reached(admin, &budgets(PLACE), "foo", "it is counted", healthy).await;
    held_back(&evict(admin, PLACE, &pod).await);
    ok(&admin.send("DELETE", &path, "application/json", String::new()).await);
    ok(&evict(admin, PLACE, &pod).await);
}

async fn the_status_is_written(admin: &mut Peer) {
    const PLACE: &str = "pdb-status";
    namespace(admin, PLACE).await;
    budget(admin, PLACE, "foo", json!(1)).await;
    let pod = json!({"metadata": {"name": "one", "labels": {"foo": "bar"}}, "spec": {"containers": [{"name": "c", "image": "run"}]}});
    made(admin, &format!("/api/v1/namespaces/{PLACE}/pods"), pod).await;
    let path = format!("{}/foo/status", budgets(PLACE));
    let mut current = reached(admin, &budgets(PLACE), "foo", "it is counted", |budget| budget["status"]["currentHealthy"] == 1).await;
    let at = current["metadata"]["creationTimestamp"].clone();
    current["status"]["disruptedPods"] = json!({"one": at});
    let written = put(admin, &path, &current).await;
    assert_eq!(written["status"]["disruptedPods"]["one"], at);
    let emptied = patched(admin, &path, "merge", json!({"status": {"disruptedPods": null}})).await;
    assert_eq!(emptied["status"]["disruptedPods"], Value::Null);
}
