//! Containers that begin again where they are.

use super::{apply, begin, container, pod};
use anyhow::{Context, ensure};
use coracle_tests::{Cluster, Result, eventually};
use serde_json::{Value, json};

/// KEP-5532, as common/node/container_restart_policy has it.
pub fn all_containers_begin_again(cluster: &Cluster) -> Result {
    let ns = begin(cluster, "again")?;
    let rules = json!([{ "action": "RestartAllContainers", "exitCodes": { "operator": "In", "values": [42] } }]);
    let asks = json!({ "restartPolicy": "Never", "restartPolicyRules": rules, "volumeMounts": [{ "name": "w", "mountPath": "/mnt" }] });
    let sidecar = container("sidecar", "exec sleep 1000", json!({ "restartPolicy": "Always" }));
    let once = "test -f /mnt/done && exec sleep 1000; touch /mnt/done; exit 42";
    let containers = [container("source", once, asks), container("regular", "exec sleep 1000", json!({}))];
    let init = json!([container("init", "true", json!({})), sidecar]);
    let one = pod(&ns, "again", &containers, json!({ "initContainers": init, "volumes": [{ "name": "w", "emptyDir": {} }] }));
    apply(cluster, &[one])?;
    eventually("all of them have begun again, once", 120, || {
        let status = cluster.status(&ns, "again")?;
        for list in ["initContainerStatuses", "containerStatuses"] {
            for one in status[list].as_array().context("no containers")? {
                ensure!(one["restartCount"] == 1 && one["lastState"]["terminated"]["reason"] == "RestartingAllContainers", "{status}");
                ensure!(one["state"]["running"].is_object() || one["name"] == "init" && one["state"]["terminated"]["exitCode"] == 0, "{status}");
            }
        }
        let restarting = status["conditions"].as_array().and_then(|all| all.iter().find(|one| one["type"] == "AllContainersRestarting").cloned());
        ensure!(status["phase"] == "Running" && restarting.is_some_and(|one| one["status"] == "False"), "{status}");
        Ok(())
    })
}

/// apps/job: tasks that sometimes fail and are started again where they are.
pub fn jobs_whose_containers_begin_again(cluster: &Cluster) -> Result {
    let ns = begin(cluster, "retries")?;
    let once = container(
        "c",
        "test -f /data/tried && exit 0; touch /data/tried; exit 1",
        json!({ "volumeMounts": [{ "name": "data", "mountPath": "/data" }] }),
    );
    let spec = json!({ "restartPolicy": "OnFailure", "containers": [once], "volumes": [{ "name": "data", "emptyDir": {} }] });
    let spec = json!({ "parallelism": 2, "completions": 4, "backoffLimit": 6, "template": { "spec": spec } });
    apply(cluster, &[json!({ "apiVersion": "batch/v1", "kind": "Job", "metadata": { "name": "retries", "namespace": ns }, "spec": spec })])?;
    cluster.kubectl(&["-n", &ns, "wait", "--for=condition=complete", "job/retries", "--timeout=120s"])?.ok()?;
    let (job, pods) = (cluster.get(&["-n", &ns, "job", "retries"])?, cluster.get(&["-n", &ns, "pods"])?);
    ensure!(job["status"]["succeeded"] == 4 && job["status"]["failed"].is_null(), "{}", job["status"]);
    let pods = pods["items"].as_array().context("no list")?;
    let again = |pod: &&Value| pod["status"]["containerStatuses"][0]["restartCount"] == 1 && pod["status"]["phase"] == "Succeeded";
    ensure!(pods.len() == 4 && pods.iter().all(|pod| again(&pod)), "{pods:?}");
    Ok(())
}
