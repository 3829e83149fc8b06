//! apps/job: how jobs end, by indexes and by policies.

use super::{gone, items, made, namespace, ok, patched, put, reached, settled};
use crate::cluster::{Cluster, Peer};
use serde_json::{Value, json};
use std::collections::BTreeSet;

pub async fn all(cluster: &Cluster) {
    let mut admin = cluster.admin().await;
    namespace(&mut admin, "jobs").await;
    // Failures are made up for after ten seconds: what waits for that waits together.
    let (mut a, mut b, mut c) = (cluster.admin().await, cluster.admin().await, cluster.admin().await);
    let policies = async {
        exit_codes_end_jobs(&mut a).await;
        disruptions_are_ignored(&mut a).await;
        indexes_have_names(&mut a).await;
        some_indexes_are_success(&mut a).await;
        indexes_fail_alone(&mut a).await;
    };
    let made_up_for = failures_are_made_up_for(&mut b);
    let others = async {
        suspended_jobs_wait(&mut c).await;
        others_manage_their_own(&mut c).await;
        deadlines_and_backoff(&mut c).await;
        orphans_are_adopted(&mut c).await;
        the_status_is_written(&mut c).await;
        lifecycle(&mut c).await;
    };
    tokio::join!(policies, made_up_for, others);
}

const JOBS: &str = "/apis/batch/v1/namespaces/jobs/jobs";
const PODS: &str = "/api/v1/namespaces/jobs/pods";

fn job(key: &str, image: &str, spec: Value) -> Value {
    let mut job = json!({"metadata": {"name": key}, "spec": {"parallelism": 2, "completions": 4, "template": {"spec": {
        "restartPolicy": "Never", "containers": [{"name": "c", "image": image}]}}}});
    for (field, value) in spec.as_object().expect("fields") {
        job["spec"][field] = value.clone();
    }
    job
}

async fn make(admin: &mut Peer, key: &str, image: &str, spec: Value) -> Value {
    made(admin, JOBS, job(key, image, spec)).await
}

/// Types and reasons of the conditions that hold.
fn conditions(job: &Value) -> Vec<(&str, &str)> {
    let all = job["status"]["conditions"].as_array().into_iter().flatten().filter(|one| one["status"] == "True");
    all.filter_map(|one| Some((one["type"].as_str()?, one["reason"].as_str().unwrap_or_default()))).collect()
}

/// Waits until a job is over, and sees that nothing of it goes on.
async fn over(admin: &mut Peer, key: &str, how: &str, reason: &str) -> Value {
    let done = reached(admin, JOBS, key, &format!("{key} is {how}"), |job| conditions(job).iter().any(|(kind, _)| *kind == how)).await;
    let before = if how == "Complete" { "SuccessCriteriaMet" } else { "FailureTarget" };
    assert_eq!(conditions(&done), [(before, reason), (how, reason)], "{done}");
    let count = |field: &str| done["status"][field].as_u64().unwrap_or(0);
    assert_eq!((count("active"), &done["status"]["ready"], &done["status"]["terminating"]), (0, &json!(0), &json!(0)), "{done}");
    assert_eq!(done["status"]["completionTime"].is_string(), how == "Complete");
    done
}

async fn pods_of(admin: &mut Peer, key: &str) -> Vec<Value> {
    items(admin, &format!("{PODS}?labelSelector=batch.kubernetes.io/job-name%3D{key}")).await
}

async fn running(admin: &mut Peer, key: &str, count: usize) -> Vec<Value> {
    let path = format!("{PODS}?labelSelector=job-name%3D{key}");
    settled(admin, &path, "its pods run", |pods| pods.len() == count && pods.iter().all(|pod| pod["status"]["phase"] == "Running")).await
}

async fn exit_codes_end_jobs(admin: &mut Peer) {
    let rules = json!({"rules": [{"action": "FailJob", "onExitCodes": {"operator": "In", "values": [1]}}]});
    make(admin, "fail-job", "exit:1", json!({"podFailurePolicy": rules, "backoffLimit": 6})).await;
    let failed = over(admin, "fail-job", "Failed", "PodFailurePolicy").await;
    let message = failed["status"]["conditions"][1]["message"].as_str().expect("a message").to_owned();
    assert!(message.contains("failed with exit code 1 matching FailJob rule at index 0"), "{message}");
}

async fn disruptions_are_ignored(admin: &mut Peer) {
    let rules = json!({"rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}]});
    let spec = json!({"podFailurePolicy": rules, "completionMode": "Indexed", "parallelism": 3, "completions": 3, "backoffLimit": 0});
    make(admin, "evicted", "run", spec).await;
    let first = running(admin, "evicted", 3).await;
    for pod in &first {
        let name = super::name(pod);
        ok(&admin.post(&format!("{PODS}/{name}/eviction"), json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}})).await);
    }
    let path = format!("{PODS}?labelSelector=job-name%3Devicted");
    let second = settled(admin, &path, "others run in their place", |pods| {
        let other = |pod: &Value| first.iter().all(|old| old["metadata"]["uid"] != pod["metadata"]["uid"]);
        pods.len() == 3 && pods.iter().all(|pod| other(pod) && pod["status"]["phase"] == "Running")
    })
    .await;
    for pod in second {
        let ended = json!({"status": {"phase": "Succeeded"}});
        patched(admin, &format!("{PODS}/{}/status", super::name(&pod)), "merge", ended).await;
    }
    let done = over(admin, "evicted", "Complete", "CompletionsReached").await;
    assert_eq!((done["status"]["failed"].as_u64().unwrap_or(0), &done["status"]["succeeded"]), (0, &json!(3)));
}

async fn indexes_have_names(admin: &mut Peer) {
    make(admin, "indexed", "exit:0", json!({"completionMode": "Indexed"})).await;
    let done = over(admin, "indexed", "Complete", "CompletionsReached").await;
    assert_eq!((&done["status"]["succeeded"], &done["status"]["completedIndexes"]), (&json!(4), &json!("0-3")));
    let mut indexes = BTreeSet::new();
    for pod in pods_of(admin, "indexed").await {
        let index = pod["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"].as_str().expect("an index").to_owned();
        assert_eq!(pod["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"], json!(index));
        assert_eq!(pod["spec"]["hostname"], format!("indexed-{index}"));
        let given = pod["spec"]["containers"][0]["env"].as_array().expect("variables").iter().any(|env| env["name"] == "JOB_COMPLETION_INDEX");
        assert!(given && super::name(&pod).starts_with(&format!("indexed-{index}-")), "{pod}");
        indexes.insert(index);
    }
    assert_eq!(indexes.into_iter().collect::<Vec<_>>(), ["0", "1", "2", "3"]);
}

async fn some_indexes_are_success(admin: &mut Peer) {
    let spec = |completions: u32, rule: Value| json!({"completionMode": "Indexed", "completions": completions, "successPolicy": {"rules": [rule]}});
    make(admin, "success-all", "exit:0", spec(2, json!({"succeededCount": 2}))).await;
    let done = over(admin, "success-all", "Complete", "SuccessPolicy").await;
    assert_eq!((&done["status"]["succeeded"], done["status"]["failed"].as_u64().unwrap_or(0)), (&json!(2), 0));
    for (key, rule) in [("success-indexes", json!({"succeededIndexes": "0"})), ("success-count", json!({"succeededCount": 1}))] {
        // The odd indexes never end: those that run are told to go.
        let mut spec = spec(5, rule);
        spec["backoffLimit"] = i32::MAX.into();
        make(admin, key, "odd:1", spec).await;
        let done = over(admin, key, "Complete", "SuccessPolicy").await;
        assert_eq!((&done["status"]["completedIndexes"], &done["status"]["succeeded"]), (&json!("0"), &json!(1)), "{key}");
    }
}

async fn indexes_fail_alone(admin: &mut Peer) {
    let indexed = |completions: u32, limit: u32| json!({"completionMode": "Indexed", "backoffLimitPerIndex": limit, "completions": completions});
    make(admin, "per-index", "odd:1", indexed(4, 1)).await;
    make(admin, "counted", "exit:1", indexed(2, 1)).await;
    let mut spec = indexed(4, 0);
    spec["maxFailedIndexes"] = 0.into();
    spec["parallelism"] = 1.into();
    make(admin, "max-failed", "exit:1", spec).await;
    let mut spec = indexed(2, 1);
    spec["podFailurePolicy"] = json!({"rules": [{"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [1]}}]});
    make(admin, "fail-index", "odd:1", spec).await;
    for (key, reason, indexes, counts) in [
        ("max-failed", "MaxFailedIndexesExceeded", ("0", ""), (1, 0)),
        ("fail-index", "FailedIndexes", ("1", "0"), (1, 1)),
        ("counted", "FailedIndexes", ("0,1", ""), (4, 0)),
        ("per-index", "FailedIndexes", ("1,3", "0,2"), (4, 2)),
    ] {
        let status = over(admin, key, "Failed", reason).await["status"].clone();
        let text = |field: &str| status[field].as_str().unwrap_or_default().to_owned();
        let count = |field: &str| status[field].as_u64().unwrap_or(0);
        assert_eq!((&*text("failedIndexes"), &*text("completedIndexes")), indexes, "{key}");
        assert_eq!((count("failed"), count("succeeded")), counts, "{key}");
    }
    let mut counts: Vec<String> = pods_of(admin, "counted")
        .await
        .iter()
        .map(|pod| {
            let annotations = &pod["metadata"]["annotations"];
            format!("{} {}", annotations["batch.kubernetes.io/job-completion-index"], annotations["batch.kubernetes.io/job-index-failure-count"])
        })
        .collect();
    counts.sort_unstable();
    assert_eq!(counts, [r#""0" "0""#, r#""0" "1""#, r#""1" "0""#, r#""1" "1""#]);
}

async fn failures_are_made_up_for(admin: &mut Peer) {
    let rules = json!({"rules": [{"action": "Ignore", "onExitCodes": {"operator": "In", "values": [42]}}]});
    let spec = json!({"podFailurePolicy": rules, "completionMode": "Indexed", "completions": 1, "backoffLimit": 0});
    make(admin, "ignored", "once:42", spec).await;
    make(admin, "again", "once:1", json!({"completionMode": "Indexed", "completions": 1})).await;
    for (key, failed) in [("ignored", 0), ("again", 1)] {
        let done = over(admin, key, "Complete", "CompletionsReached").await;
        assert_eq!((done["status"]["failed"].as_u64().unwrap_or(0), &done["status"]["succeeded"]), (failed, &json!(1)), "{key}");
    }
}

async fn suspended_jobs_wait(admin: &mut Peer) {
    make(admin, "suspended", "run", json!({"suspend": true})).await;
    let suspended = |job: &Value| conditions(job).contains(&("Suspended", "JobSuspended"));
    let waiting = reached(admin, JOBS, "suspended", "it is suspended", suspended).await;
    assert_eq!((&waiting["status"]["startTime"], &waiting["status"]["ready"]), (&Value::Null, &json!(0)));
    assert!(pods_of(admin, "suspended").await.is_empty());
    let path = format!("{JOBS}/suspended");
    patched(admin, &path, "merge", json!({"spec": {"suspend": false}})).await;
    running(admin, "suspended", 2).await;
    let resumed = reached(admin, JOBS, "suspended", "its pods are ready", |job| job["status"]["ready"] == 2).await;
    let condition = &resumed["status"]["conditions"][0];
    assert_eq!(
        (&condition["status"], &condition["reason"], resumed["status"]["startTime"].is_string()),
        (&json!("False"), &json!("JobResumed"), true)
    );
    patched(admin, &path, "merge", json!({"spec": {"suspend": true}})).await;
    settled(admin, &format!("{PODS}?labelSelector=job-name%3Dsuspended"), "its pods go", |pods| pods.is_empty()).await;
    reached(admin, JOBS, "suspended", "it is suspended again", |job| suspended(job) && job["status"]["ready"] == 0).await;
}

async fn others_manage_their_own(admin: &mut Peer) {
    make(admin, "theirs", "exit:0", json!({"managedBy": "example.com/custom-job-controller"})).await;
    make(admin, "ours", "exit:0", json!({})).await;
    over(admin, "ours", "Complete", "CompletionsReached").await;
    let untouched = admin.get(&format!("{JOBS}/theirs")).await.body;
    assert!(untouched["status"].as_object().is_none_or(serde_json::Map::is_empty), "{untouched}");
    assert!(pods_of(admin, "theirs").await.is_empty());
}

async fn deadlines_and_backoff(admin: &mut Peer) {
    make(admin, "late", "run", json!({"activeDeadlineSeconds": 1})).await;
    over(admin, "late", "Failed", "DeadlineExceeded").await;
    make(admin, "hopeless", "exit:1", json!({"backoffLimit": 0, "completions": 1, "parallelism": 1})).await;
    over(admin, "hopeless", "Failed", "BackoffLimitExceeded").await;
    let pods = pods_of(admin, "hopeless").await;
    assert_eq!((pods.len(), &pods[0]["status"]["phase"]), (1, &json!("Failed")));
}

async fn orphans_are_adopted(admin: &mut Peer) {
    let job = make(admin, "adopting", "run", json!({})).await;
    let pods = running(admin, "adopting", 2).await;
    let pod = super::name(&pods[0]).to_owned();
    patched(admin, &format!("{PODS}/{pod}"), "merge", json!({"metadata": {"ownerReferences": null}})).await;
    let adopted =
        reached(admin, PODS, &pod, "it is adopted again", |pod| pod["metadata"]["ownerReferences"][0]["uid"] == job["metadata"]["uid"]).await;
    assert_eq!(adopted["metadata"]["ownerReferences"][0]["controller"], true);
    patched(admin, &format!("{PODS}/{pod}"), "merge", json!({"metadata": {"labels": null}})).await;
    reached(admin, PODS, &pod, "it is let go", |pod| pod["metadata"]["ownerReferences"].is_null()).await;
    let gone = admin.send("DELETE", &format!("{JOBS}/adopting?propagationPolicy=Background"), "", String::new()).await;
    assert_eq!(gone.code, 200, "{}", gone.body);
    settled(admin, &format!("{PODS}?labelSelector=job-name%3Dadopting"), "its pods go", |pods| pods.is_empty()).await;
}

async fn the_status_is_written(admin: &mut Peer) {
    let job = make(admin, "told", "run", json!({})).await;
    running(admin, "told", 2).await;
    let path = format!("{JOBS}/told/status");
    let condition = |at: &str| json!({"type": "CustomConditionType", "status": "True", "lastTransitionTime": at});
    let find =
        |job: &Value| job["status"]["conditions"].as_array().and_then(|all| all.iter().find(|one| one["type"] == "CustomConditionType").cloned());
    let patch = json!({"metadata": {"annotations": {"patchedstatus": "true"}}, "status": {"conditions": [condition("2026-01-02T03:04:05Z")]}});
    let answer = patched(admin, &path, "merge", patch).await;
    assert_eq!(find(&answer).expect("the condition")["lastTransitionTime"], "2026-01-02T03:04:05Z");
    assert_eq!(answer["metadata"]["annotations"]["patchedstatus"], "true");
    let mut current = reached(admin, JOBS, "told", "it is counted", |job| job["status"]["ready"] == 2).await;
    current["status"]["conditions"] = json!([condition("2026-02-02T03:04:05Z")]);
    let answer = put(admin, &path, &current).await;
    assert_eq!(find(&answer).expect("the condition")["lastTransitionTime"], "2026-02-02T03:04:05Z");
    assert_eq!(admin.get(&path).await.body["metadata"]["uid"], job["metadata"]["uid"]);
}

async fn lifecycle(admin: &mut Peer) {
    let mut first = job("life", "exit:0", json!({"suspend": true}));
    first["metadata"]["labels"] = json!({"e2e-job-label": "life"});
    let mut events = admin.watch(&format!("{JOBS}?watch=true&labelSelector=e2e-job-label%3Dlife")).await;
    made(admin, JOBS, first).await;
    let path = format!("{JOBS}/life");
    patched(admin, &path, "strategic-merge", json!({"metadata": {"labels": {"life": "patched"}}})).await;
    // The controller writes its status too: what lost the race is written again.
    loop {
        let mut current = admin.get(&path).await.body;
        current["spec"]["suspend"] = false.into();
        current["metadata"]["annotations"]["updated"] = "true".into();
        let answer = admin.send("PUT", &path, "application/json", current.to_string()).await;
        if answer.code != 409 {
            ok(&answer);
            break;
        }
    }
    let list = items(admin, "/apis/batch/v1/jobs?labelSelector=e2e-job-label%3Dlife").await;
    assert_eq!((list.len(), &list[0]["metadata"]["labels"]["life"]), (1, &json!("patched")));
    let done = reached(admin, JOBS, "life", "it is complete", |job| conditions(job).contains(&("Complete", "CompletionsReached"))).await;
    assert_eq!(done["metadata"]["annotations"]["updated"], "true");
    let all = format!("{JOBS}?labelSelector=e2e-job-label%3Dlife");
    ok(&admin.send("DELETE", &all, "application/json", json!({"propagationPolicy": "Background"}).to_string()).await);
    gone(&mut events, "life").await;
    settled(admin, &format!("{PODS}?labelSelector=job-name%3Dlife"), "its pods go", |pods| pods.is_empty()).await;
}
