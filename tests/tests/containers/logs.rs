//! `kubectl logs` in every form, of containers.

use anyhow::{Context, ensure};
use coracle_tests::{Background, Cluster, Result, eventually, has};
use serde_json::{Value, json};

fn pod(cluster: &Cluster, ns: &str, name: &str, spec: Value) -> Result {
    cluster.import_busybox()?;
    let pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "namespace": ns, "labels": { "app": name } }, "spec": spec });
    cluster.apply(&pod.to_string()).map(drop)
}

fn container(name: &str, script: &str) -> Value {
    json!({ "name": name, "image": "busybox:v1", "imagePullPolicy": "Never", "command": ["sh", "-c", script] })
}

pub fn logs_are_had_in_every_form(cluster: &Cluster) -> Result {
    let ns = cluster.namespace("words")?;
    // What comes by two ways has an order when there is time between; kubectl says times in seconds.
    let one = "echo out 1; sleep 0.3; echo err 1 >&2; sleep 1.2; echo out 2; sleep 0.3; echo err 2 >&2";
    let spec = json!({ "restartPolicy": "Never", "initContainers": [container("before", "echo from before")],
        "containers": [container("one", one), container("two", "echo from two")] });
    pod(cluster, &ns, "many", spec)?;
    let mut spec = json!({ "terminationGracePeriodSeconds": 1, "volumes": [{ "name": "v", "emptyDir": {} }],
        "containers": [container("main", "test -e /v/seen || { touch /v/seen; echo first life; exit 1; }; echo second life; sleep 1000")] });
    spec["containers"][0]["volumeMounts"] = json!([{ "name": "v", "mountPath": "/v" }]);
    pod(cluster, &ns, "again", spec)?;
    ensure!(cluster.finished(&ns, "many")?["phase"] == "Succeeded");
    let logs = |words: &[&str]| cluster.kubectl_in(&ns, &[&["logs"], words].concat());
    let all = "out 1\nerr 1\nout 2\nerr 2\n";
    ensure!(logs(&["many", "-c", "one"])?.ok()? == all);
    ensure!(logs(&["many", "-c", "before"])?.ok()? == "from before\n");
    let prefixed = ["[pod/many/before] from before", "[pod/many/one] out 1", "[pod/many/one] err 2", "[pod/many/two] from two"];
    has(&logs(&["many", "--all-containers", "--prefix"])?.ok()?, &prefixed)?;
    has(&logs(&["-l", "app=many", "--all-containers", "--prefix"])?.ok()?, &prefixed)?;
    let stamped = logs(&["many", "-c", "one", "--timestamps"])?.ok()?;
    let lines: Vec<(&str, &str)> = stamped.lines().filter_map(|line| line.split_once(' ')).collect();
    ensure!(lines.iter().map(|(_, text)| *text).collect::<Vec<_>>().join("\n") + "\n" == all, "{stamped}");
    ensure!(lines.is_sorted_by_key(|(time, _)| *time) && lines.iter().all(|(time, _)| time.contains('T') && time.ends_with('Z')), "{stamped}");
    let third = lines.get(2).context("no third line")?.0;
    ensure!(logs(&["many", "-c", "one", "--since-time", third])?.ok()? == "out 2\nerr 2\n");
    ensure!(logs(&["many", "-c", "one", "--since", "1h"])?.ok()? == all);
    ensure!(logs(&["many", "-c", "one", "--limit-bytes=8"])?.ok()? == "out 1\ner");
    ensure!(logs(&["many", "-c", "one", "--tail=2"])?.ok()? == "out 2\nerr 2\n");
    ensure!(logs(&["many", "-c", "one", "--tail=1", "--timestamps"])?.ok()?.ends_with("Z err 2\n"));
    ensure!(logs(&["many", "-c", "one", "-f"])?.ok()? == all, "it ends by itself");
    has(&logs(&["many", "-c", "none"])?.err()?, &["container none is not valid for pod many"])?;
    has(&logs(&["many", "-c", "one", "-p"])?.err()?, &["previous terminated container \"one\" in pod \"many\" not found"])?;
    // One of the two ways (KEP-3288).
    let raw = |query: &str| cluster.kubectl(&["get", "--raw", &format!("/api/v1/namespaces/{ns}/pods/many/log?container=one&{query}")]);
    for (stream, text) in [("All", all), ("Stdout", "out 1\nout 2\n"), ("Stderr", "err 1\nerr 2\n")] {
        ensure!(raw(&format!("stream={stream}"))?.ok()? == text, "{stream}");
    }
    has(&raw("stream=Stdin")?.err()?, &["stream: Unsupported value: \"Stdin\": supported values: \"All\", \"Stderr\", \"Stdout\""])?;
    eventually("another life", 60, || {
        ensure!(logs(&["again"])?.ok()? == "second life\n");
        Ok(())
    })?;
    ensure!(logs(&["again", "-p"])?.ok()? == "first life\n");
    // What ends without the end of a line is shown as it was written.
    let spec = json!({ "restartPolicy": "Never", "containers": [container("main", "echo whole; printf 'no end'")] });
    pod(cluster, &ns, "unended", spec)?;
    cluster.finished(&ns, "unended")?;
    for words in [&["unended"][..], &["unended", "-f"], &["unended", "--tail=2"]] {
        ensure!(logs(words)?.ok()? == "whole\nno end", "{words:?}: {:?}", logs(words)?.ok()?);
    }
    Ok(())
}

/// More than a file takes, while somebody reads on.
pub fn a_followed_log_is_whole_when_it_is_rotated(cluster: &Cluster) -> Result {
    const LINES: usize = 12_000;
    let ns = cluster.namespace("rotated")?;
    let script = format!("until test -e /tmp/go; do sleep 0.1; done; awk 'BEGIN {{ for (i = 0; i < {LINES}; i++) printf \"%d %01000d\\n\", i, i }}'");
    pod(cluster, &ns, "much", json!({ "restartPolicy": "Never", "containers": [container("main", &script)] }))?;
    cluster.ready(&ns, "much")?;
    let uid = cluster.get(&["-n", &ns, "pod", "much"])?["metadata"]["uid"].as_str().context("no uid")?.to_owned();
    let mut follow = Background::start(&mut cluster.kubectl_command(&["-n", &ns, "logs", "-f", "much"]))?;
    cluster.kubectl_in(&ns, &["exec", "much", "--", "touch", "/tmp/go"])?.ok()?;
    ensure!(follow.wait(120)? == 0, "{:?}", follow.lines().last());
    let whole = |lines: &[String]| -> Result {
        let wrong = lines.iter().enumerate().find(|(index, line)| **line != format!("{index} {index:01000}"));
        ensure!(wrong.is_none() && lines.len() == LINES, "{} lines; the first wrong one: {wrong:?}", lines.len());
        Ok(())
    };
    // What it printed is read by a thread of its own.
    eventually("every line", 30, || whole(&follow.lines()))?;
    let rotated = cluster.data_dir().join("pods").join(uid).join("logs/main/0.log.1");
    ensure!(rotated.exists(), "it was too little");
    let later: Vec<String> = cluster.logs(&ns, "much")?.lines().map(str::to_owned).collect();
    whole(&later)?;
    let tail = cluster.kubectl_in(&ns, &["logs", "much", "--tail=11999"])?.ok()?;
    ensure!(tail.lines().count() == LINES - 1 && tail.starts_with("1 "), "it begins in the older file");
    Ok(())
}
