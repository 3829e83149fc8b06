//! Pods run by hand, shown to others by a Service, and what they print.

use anyhow::ensure;
use coracle_tests::{Background, Cluster, Result, eventually, has};

pub fn run_expose_and_logs(cluster: &Cluster) -> Result {
    let ns = cluster.namespace("logs")?;
    let kubectl = |arguments: &[&str]| cluster.kubectl_in(&ns, arguments);
    has(
        &kubectl(&["run", "counter", "--image=probe:v1", "--restart=Never", "-l", "run=counter", "--", "count", "3", "10"])?.ok()?,
        &["pod/counter created"],
    )?;
    kubectl(&["wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/counter", "--timeout=30s"])?.ok()?;
    ensure!(kubectl(&["logs", "counter"])?.ok()? == "line 1\nline 2\nline 3\n");
    ensure!(kubectl(&["logs", "counter", "--tail=1"])?.ok()? == "line 3\n");
    ensure!(kubectl(&["logs", "counter", "-c", "counter", "--since=1h"])?.ok()?.lines().count() == 3);
    eventually("what is older than a second", 20, || {
        ensure!(kubectl(&["logs", "counter", "--since=1s"])?.ok()?.is_empty());
        Ok(())
    })?;
    has(&kubectl(&["logs", "-l", "run=counter"])?.ok()?, &["line 1"])?;
    has(&kubectl(&["logs", "counter", "--timestamps"])?.ok()?, &["T", "Z line 1"])?;
    has(&kubectl(&["logs", "counter", "-c", "none"])?.err()?, &["container none is not valid for pod counter"])?;
    kubectl(&["run", "ticker", "--image=probe:v1", "--", "count", "0", "100"])?.ok()?;
    let follow = Background::start(&mut {
        kubectl(&["wait", "--for=condition=Ready", "pod/ticker", "--timeout=30s"])?.ok()?;
        cluster.kubectl_command(&["-n", &ns, "logs", "-f", "ticker"])
    })?;
    eventually("five followed lines", 20, || {
        ensure!(follow.lines().len() >= 5, "{:?}", follow.lines());
        Ok(())
    })?;
    kubectl(&["run", "crasher", "--image=probe:v1", "--", "stderr", "first", "life", "--", "exit", "3"])?.ok()?;
    eventually("a restart", 60, || {
        let pod = cluster.get(&["-n", &ns, "pod", "crasher"])?;
        let status = &pod["status"]["containerStatuses"][0];
        ensure!(status["restartCount"].as_u64().unwrap_or(0) >= 1, "{status}");
        ensure!(status["lastState"]["terminated"]["exitCode"] == 3, "{status}");
        Ok(())
    })?;
    has(&kubectl(&["logs", "-p", "crasher"])?.ok()?, &["first life"])?;
    eventually("CrashLoopBackOff", 60, || has(&kubectl(&["get", "pod", "crasher"])?.ok()?, &["CrashLoopBackOff"]))?;
    has(
        &kubectl(&["describe", "pod", "crasher"])?.ok()?,
        &["Back-off restarting failed container", "Started", "Pulled", "Scheduled", "Successfully assigned"],
    )?;
    kubectl(&["run", "front", "--image=hello:v1", "--port=8080"])?.ok()?;
    has(&kubectl(&["expose", "pod", "front", "--port=80", "--target-port=8080"])?.ok()?, &["service/front exposed"])?;
    has(&kubectl(&["get", "svc", "front"])?.ok()?, &["TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)", "ClusterIP", "<none>", "80/TCP"])?;
    kubectl(&["wait", "--for=condition=Ready", "pod/front", "--timeout=30s"])?.ok()?;
    eventually("an endpoint", 20, || has(&kubectl(&["describe", "svc", "front"])?.ok()?, &["Endpoints:", ":8080"]))?;
    has(&kubectl(&["events", "--for", "pod/front"])?.ok()?, &["Scheduled", "Started"])?;
    has(&kubectl(&["get", "events"])?.ok()?, &["LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE", "pod/front"])?;
    kubectl(&["delete", "pod", "ticker", "crasher", "front", "counter", "--grace-period=1"])?.ok().map(drop)
}
