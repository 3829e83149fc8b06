//! The life of a Deployment: rolled out, scaled, taken back, restarted, paused.

use super::deployment;
use anyhow::ensure;
use coracle_tests::{Cluster, Result, eventually, has};

pub fn deployment_life(cluster: &Cluster) -> Result {
    let ns = cluster.namespace("rollouts")?;
    let kubectl = |arguments: &[&str]| cluster.kubectl_in(&ns, arguments);
    cluster.apply(&deployment(&ns, "shop", "hello:v1", 3))?;
    has(&kubectl(&["rollout", "status", "deploy/shop", "--timeout=60s"])?.ok()?, &["successfully rolled out"])?;
    has(
        &kubectl(&["get", "deploy", "shop", "-o", "wide"])?.ok()?,
        &["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE", "CONTAINERS", "IMAGES", "SELECTOR", "3/3", "hello:v1", "app=shop"],
    )?;
    has(&kubectl(&["get", "rs"])?.ok()?, &["DESIRED", "CURRENT", "READY"])?;
    has(&kubectl(&["get", "pods", "-o", "wide"])?.ok()?, &["1/1", "Running", "test-node", "NOMINATED NODE", "READINESS GATES"])?;
    has(
        &kubectl(&["describe", "deploy", "shop"])?.ok()?,
        &["RollingUpdateStrategy:", "3 desired | 3 updated | 3 total | 3 available | 0 unavailable", "ScalingReplicaSet"],
    )?;
    has(&kubectl(&["scale", "deploy", "shop", "--replicas=5"])?.ok()?, &["deployment.apps/shop scaled"])?;
    kubectl(&["rollout", "status", "deploy/shop", "--timeout=60s"])?.ok()?;
    has(&kubectl(&["get", "deploy", "shop"])?.ok()?, &["5/5"])?;
    kubectl(&["set", "image", "deploy/shop", "web=web:v1"])?.ok()?;
    kubectl(&["rollout", "status", "deploy/shop", "--timeout=60s"])?.ok()?;
    has(&kubectl(&["rollout", "history", "deploy/shop"])?.ok()?, &["REVISION", "1", "2"])?;
    has(&kubectl(&["rollout", "history", "deploy/shop", "--revision=1"])?.ok()?, &["revision #1", "hello:v1"])?;
    has(&kubectl(&["rollout", "history", "deploy/shop", "--revision=2"])?.ok()?, &["revision #2", "web:v1"])?;
    has(&kubectl(&["rollout", "undo", "deploy/shop"])?.ok()?, &["deployment.apps/shop rolled back"])?;
    kubectl(&["rollout", "status", "deploy/shop", "--timeout=60s"])?.ok()?;
    ensure!(kubectl(&["get", "deploy", "shop", "-o", "jsonpath={.spec.template.spec.containers[0].image}"])?.ok()? == "hello:v1");
    // The way back has become the third revision.
    has(&kubectl(&["rollout", "undo", "deploy/shop", "--to-revision=2"])?.ok()?, &["deployment.apps/shop rolled back"])?;
    kubectl(&["rollout", "status", "deploy/shop", "--timeout=60s"])?.ok()?;
    ensure!(kubectl(&["get", "deploy", "shop", "-o", "jsonpath={.spec.template.spec.containers[0].image}"])?.ok()? == "web:v1");
    has(&kubectl(&["rollout", "undo", "deploy/shop", "--to-revision=9"])?.err()?, &["unable to find specified revision 9"])?;
    kubectl(&["set", "image", "deploy/shop", "web=hello:v1"])?.ok()?;
    kubectl(&["rollout", "status", "deploy/shop", "--timeout=60s"])?.ok()?;
    has(&kubectl(&["rollout", "restart", "deploy/shop"])?.ok()?, &["deployment.apps/shop restarted"])?;
    kubectl(&["rollout", "status", "deploy/shop", "--timeout=60s"])?.ok()?;
    kubectl(&["rollout", "pause", "deploy/shop"])?.ok()?;
    kubectl(&["set", "image", "deploy/shop", "web=web:v1"])?.ok()?;
    let ask = |path: &str| kubectl(&["get", "deploy", "shop", "-o", &format!("jsonpath={path}")])?.ok();
    let images = || kubectl(&["get", "pods", "-o", "jsonpath={.items[*].spec.containers[0].image}"])?.ok();
    eventually("the change is seen", 20, || {
        ensure!(ask("{.status.observedGeneration}")? == ask("{.metadata.generation}")?);
        Ok(())
    })?;
    ensure!(!images()?.contains("web:v1"), "nothing rolls while it is paused: {}", images()?);
    kubectl(&["rollout", "resume", "deploy/shop"])?.ok()?;
    kubectl(&["rollout", "status", "deploy/shop", "--timeout=60s"])?.ok()?;
    has(&images()?, &["web:v1"])?;
    kubectl(&["wait", "--for=condition=Available", "deploy/shop", "--timeout=20s"])?.ok()?;
    has(&kubectl(&["delete", "deploy", "shop"])?.ok()?, &["deployment.apps \"shop\" deleted"])?;
    eventually("the pods are gone", 60, || {
        let left = kubectl(&["get", "pods", "-o", "name"])?.ok()?;
        ensure!(left.trim().is_empty(), "{left}");
        Ok(())
    })
}
