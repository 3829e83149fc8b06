//! CronJobs and the rarer ways of Jobs.

use super::{Cluster, play_node, run, value};
use coracle_apiserver::{client::DeleteOptions, pipeline::PatchKind};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

fn job(name: &str, spec: Value) -> Value {
    let mut job = json!({ "apiVersion": "batch/v1", "kind": "Job", "metadata": { "name": name, "namespace": "default" },
        "spec": { "template": { "spec": { "restartPolicy": "Never", "containers": [{ "name": "c", "image": "i" }] } } } });
    for (key, value) in spec.as_object().expect("fields") {
        job["spec"][key] = value.clone();
    }
    job
}

fn conditions(job: &Value) -> Vec<String> {
    let list = job["status"]["conditions"].as_array().cloned().unwrap_or_default();
    list.iter()
        .filter(|c| c["status"] == "True")
        .map(|c| format!("{}:{}", c["type"].as_str().unwrap_or(""), c["reason"].as_str().unwrap_or("")))
        .collect()
}

#[test]
fn a_cron_job_makes_jobs_and_forgets_them() {
    run(async {
        let cluster = Cluster::new().await;
        cluster.add_node("n1").await;
        let stop = CancellationToken::new();
        let node = tokio::spawn(play_node(cluster.client.clone(), stop.clone()));
        let cron = |schedule: &str| {
            json!({ "apiVersion": "batch/v1", "kind": "CronJob", "metadata": { "name": "tick", "namespace": "default" },
                "spec": { "schedule": schedule, "jobTemplate": { "metadata": { "labels": { "from": "tick" } }, "spec": job("", json!({}))["spec"] } } })
        };
        let refused = cluster.client.create("cronjobs.batch", "default", cron("TZ=UTC * * * * *")).await.expect_err("refused");
        assert!(refused.message.contains("cannot use TZ or CRON_TZ in schedule, use timeZone field instead"), "{refused}");
        cluster.create("cronjobs.batch", cron("@every 1s")).await;
        let made = cluster.until("a job", |_| cluster.all("jobs.batch").into_iter().next()).await;
        assert_eq!((&made["metadata"]["labels"]["from"], &made["metadata"]["ownerReferences"][0]["kind"]), (&json!("tick"), &json!("CronJob")));
        assert!(made["metadata"]["annotations"]["batch.kubernetes.io/cronjob-scheduled-timestamp"].is_string());
        let tick = cluster
            .until("it is seen to end", |c| {
                let tick = value(&*c.get("cronjobs.batch", "default", "tick")?);
                tick["status"]["lastSuccessfulTime"].is_string().then_some(tick)
            })
            .await;
        assert!(tick["status"]["lastScheduleTime"].is_string());
        cluster.patch("cronjobs.batch", "tick", json!({ "spec": { "suspend": true, "successfulJobsHistoryLimit": 0 } })).await;
        cluster.until("no job is kept", |_| cluster.all("jobs.batch").is_empty().then_some(())).await;
        let reasons: Vec<String> = cluster.all("events").iter().filter_map(|event| event["reason"].as_str().map(str::to_owned)).collect();
        for reason in ["SawCompletedJob", "SuccessfulDelete"] {
            cluster.until(reason, |_| cluster.all("events").iter().any(|event| event["reason"] == reason).then_some(())).await;
        }
        assert!(!reasons.iter().any(|reason| reason == "UnexpectedJob"), "{reasons:?}");
        cluster.client.delete("cronjobs.batch", "default", "tick", DeleteOptions::default()).await.expect("deleted");
        stop.cancel();
        node.await.expect("the node's task");
        cluster.stop().await;
    });
}

#[test]
fn an_indexed_job_may_succeed_early_and_a_failed_pod_may_fail_its_job() {
    run(async {
        let cluster = Cluster::new().await;
        let spec = json!({ "completions": 3, "parallelism": 3, "completionMode": "Indexed",
            "successPolicy": { "rules": [{ "succeededIndexes": "1", "succeededCount": 1 }] } });
        cluster.create("jobs.batch", job("early", spec)).await;
        cluster.until("three pods", |_| (cluster.all("pods").len() == 3).then_some(())).await;
        let index = |pod: &Value| pod["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"] == "1";
        let leader = cluster.all("pods").into_iter().find(index).expect("index 1");
        assert_eq!(leader["spec"]["hostname"], "early-1");
        let name = leader["metadata"]["name"].as_str().expect("a name").to_owned();
        let done = json!({ "status": { "phase": "Succeeded" } });
        cluster.client.patch("pods", "default", &name, "status", PatchKind::Merge, done).await.expect("done");
        let of = |name: &str| cluster.client.get("jobs.batch", "default", name).map(|job| value(&job)).unwrap_or_default();
        cluster.until("success", |_| conditions(&of("early")).iter().any(|c| c.starts_with("Complete")).then_some(())).await;
        let early = of("early");
        assert_eq!(conditions(&early), ["SuccessCriteriaMet:SuccessPolicy", "Complete:SuccessPolicy"]);
        assert_eq!(
            (&early["status"]["succeeded"], &early["status"]["completedIndexes"], &early["status"]["active"]),
            (&json!(1), &json!("1"), &Value::Null)
        );

        let rule = json!({ "action": "FailJob", "onExitCodes": { "operator": "In", "values": [42] } });
        cluster.create("jobs.batch", job("doomed", json!({ "podFailurePolicy": { "rules": [rule] } }))).await;
        let pod = cluster.until("its pod", |_| cluster.all("pods").into_iter().find(|pod| pod["metadata"]["labels"]["job-name"] == "doomed")).await;
        let name = pod["metadata"]["name"].as_str().expect("a name").to_owned();
        let failed = json!({ "status": { "phase": "Failed", "containerStatuses": [{ "name": "c", "image": "i", "imageID": "i", "ready": false,
            "restartCount": 0, "state": { "terminated": { "exitCode": 42 } } }] } });
        cluster.client.patch("pods", "default", &name, "status", PatchKind::Merge, failed).await.expect("failed");
        cluster.until("failure", |_| conditions(&of("doomed")).iter().any(|c| c == "Failed:PodFailurePolicy").then_some(())).await;

        // What somebody else writes into the status must still be true.
        let mut lie = of("doomed");
        lie["status"]["conditions"] = json!([]);
        let refused = cluster.client.update_status("jobs.batch", lie).await.expect_err("refused");
        assert!(refused.message.contains("cannot disable the terminal Failed=True condition"), "{refused}");
        cluster.stop().await;
    });
}
