//! Pods of OCI containers: a real image from a real registry, run as users of Kubernetes expect it.

#[path = "containers/health.rs"]
mod health;
#[path = "containers/logs.rs"]
mod logs;
#[path = "containers/order.rs"]
mod order;
#[path = "containers/resources.rs"]
mod resources;
#[path = "containers/security.rs"]
mod security;
#[path = "containers/unruly.rs"]
mod unruly;
#[path = "containers/volumes.rs"]
mod volumes;

use anyhow::{Context, ensure};
use coracle_tests::{Case, Cluster, Mode, Registry, Result, busybox, eventually, has, is_root, main as suite};
use serde_json::{Value, json};
use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{ExitCode, Stdio},
    sync::{Mutex, MutexGuard},
};

const CASES: &[Case] = &[
    ("a_deployment_from_a_registry", a_deployment_from_a_registry),
    ("a_real_server_from_its_example", a_real_server_from_its_example),
    ("jobs_come_to_their_end", jobs_come_to_their_end),
    ("probes_of_every_kind", probes_of_every_kind),
    ("servers_are_asked_for_their_health", health::servers_are_asked_for_their_health),
    ("hooks_run_in_the_container", hooks_run_in_the_container),
    ("what_cannot_start_says_why", what_cannot_start_says_why),
    ("ends_are_told", ends_are_told),
    ("who_misbehaves_does_so_alone", unruly::who_misbehaves_does_so_alone),
    ("configuration_is_updated_in_place", configuration_is_updated_in_place),
    ("processes_and_files_are_a_containers_own", processes_and_files_are_a_containers_own),
    ("nothing_is_left_of_a_deleted_pod", nothing_is_left_of_a_deleted_pod),
    ("a_killed_shim_is_a_failed_container", a_killed_shim_is_a_failed_container),
    ("containers_are_looked_at_by_others", containers_are_looked_at_by_others),
    ("resources_change_in_place", resources::resources_change_in_place),
    ("what_asks_for_nothing_may_ask_later", resources::what_asks_for_nothing_may_ask_later),
    ("whole_pods_change_in_place", resources::whole_pods_change_in_place),
    ("a_runtime_class_has_its_overhead", resources::a_runtime_class_has_its_overhead),
    ("containers_begin_and_end_in_order", order::containers_begin_and_end_in_order),
    ("a_sidecar_begins_anew_and_ends_last", order::a_sidecar_begins_anew_and_ends_last),
    ("what_fails_at_first_holds_the_others", order::what_fails_at_first_holds_the_others),
    ("processes_may_what_their_context_says", security::processes_may_what_their_context_says),
    ("pods_are_where_they_ask_to_be", security::pods_are_where_they_ask_to_be),
    ("volumes_are_mounted_as_they_are_asked_to", volumes::volumes_are_mounted_as_they_are_asked_to),
    ("who_writes_too_much_is_evicted", volumes::who_writes_too_much_is_evicted),
    ("paths_of_the_machine_are_checked", volumes::paths_of_the_machine_are_checked),
    ("secrets_are_files", volumes::secrets_are_files),
    ("images_are_volumes", volumes::images_are_volumes),
    ("logs_are_had_in_every_form", logs::logs_are_had_in_every_form),
    ("a_followed_log_is_whole_when_it_is_rotated", logs::a_followed_log_is_whole_when_it_is_rotated),
];

/// Ended after the cases: what a static holds is never dropped.
static REGISTRY: Mutex<Option<Registry>> = Mutex::new(None);

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some(health::SERVE) {
        return health::serve().map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS);
    }
    if !is_root() {
        println!("SKIPPED, ALL OF THEM: containers need root, and this user is not.");
        return ExitCode::SUCCESS;
    }
    let code = suite(Mode::Whole, CASES);
    drop(REGISTRY.lock().map(|mut registry| registry.take()));
    code
}

/// The registry of all cases, with `busybox:v1`.
fn registry(cluster: &Cluster) -> Result<MutexGuard<'static, Option<Registry>>> {
    let mut held = REGISTRY.lock().map_err(|_| anyhow::anyhow!("another case failed while it started the registry"))?;
    if held.is_none() {
        let registry = Registry::start(&cluster.host, 5000)?;
        let archive = busybox::archive(&cluster.dir(), "busybox:v1", &json!({ "Cmd": ["sh"], "Env": ["FROM=image"] }))?;
        registry.push(&cluster.host, &archive, "busybox:v1")?;
        *held = Some(registry);
    }
    Ok(held)
}

/// The image's name in the registry.
fn image(cluster: &Cluster) -> Result<String> {
    Ok(format!("{}/busybox:v1", registry(cluster)?.as_ref().context("no registry")?.address))
}

/// A pod with one container `main` that runs a shell script; `container` and `spec` are YAML flow for more of either.
fn pod(cluster: &Cluster, ns: &str, name: &str, script: &str, container: &str, spec: &str) -> Result<String> {
    let (image, script) = (image(cluster)?, Value::from(script));
    cluster.apply(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {ns}}}\nspec:\n  terminationGracePeriodSeconds: 1\n{spec}  containers:\n  - {{name: main, image: '{image}', command: [sh, -c, {script}], {container}}}\n"
    ))
}

fn events(cluster: &Cluster, ns: &str, name: &str) -> Result<String> {
    cluster.kubectl(&["-n", ns, "get", "events", "--field-selector", &format!("involvedObject.name={name}")])?.ok()
}

fn a_deployment_from_a_registry(cluster: &Cluster) -> Result {
    let ns = cluster.namespace("deployed")?;
    let image = image(cluster)?;
    cluster.apply(&format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web, namespace: {ns}}}\nspec:\n  replicas: 2\n  selector: {{matchLabels: {{app: web}}}}\n  template:\n    metadata: {{labels: {{app: web}}}}\n    spec:\n      terminationGracePeriodSeconds: 1\n      containers:\n      - name: main\n        image: '{image}'\n        command: [sh, -c, 'echo serving as $(NAME); mkdir /www; hostname > /www/index.html; exec httpd -f -p 8080 -h /www']\n        env: [{{name: NAME, valueFrom: {{fieldRef: {{fieldPath: metadata.name}}}}}}]\n        readinessProbe: {{exec: {{command: [wget, -qO-, 'http://localhost:8080/']}}, periodSeconds: 1}}\n"
    ))?;
    cluster.kubectl(&["-n", &ns, "rollout", "status", "deployment/web", "--timeout=90s"])?.ok()?;
    let pods = cluster.get(&["-n", &ns, "pods", "-l", "app=web"])?;
    let pods = pods["items"].as_array().context("no list")?;
    ensure!(pods.len() == 2, "{pods:?}");
    for pod in pods {
        let (name, ip) = (pod["metadata"]["name"].as_str().unwrap_or_default(), pod["status"]["podIP"].as_str().unwrap_or_default());
        ensure!(cluster.host.get(&format!("http://{ip}:8080/"))?.trim() == name);
        ensure!(cluster.logs(&ns, name)? == format!("serving as {name}\n"));
        ensure!(pod["status"]["containerStatuses"][0]["imageID"].as_str().is_some_and(|id| id.contains("@sha256:")), "{pod}");
    }
    Ok(())
}

/// redis out of Debian's package, as `examples/redis` has it.
fn a_real_server_from_its_example(cluster: &Cluster) -> Result {
    let ns = cluster.namespace("redis")?;
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/redis");
    let archive = cluster.dir().join("redis.tar");
    cluster.host.run(&example.join("build").to_string_lossy(), &[&archive.to_string_lossy()])?.ok()?;
    let image = registry(cluster)?.as_ref().context("no registry")?.push(&cluster.host, &archive, "redis:v1")?;
    let manifest = fs::read_to_string(example.join("redis.yaml"))?;
    let ours = manifest.replace("image: redis:v1", &format!("image: {image}"));
    ensure!(ours != manifest, "{manifest}");
    cluster.kubectl_with(&["-n", &ns, "apply", "-f", "-"], &ours)?.ok()?;
    cluster.kubectl(&["-n", &ns, "rollout", "status", "deploy/redis", "--timeout=120s"])?.ok()?;
    let ask = |words: &[&str]| cluster.kubectl(&[&["-n", &ns, "exec", "deploy/redis", "--", "redis-cli"][..], words].concat());
    ensure!(ask(&["set", "answer", "42"])?.ok()? == "OK\n");
    // By its Service's name, out of its own pod and out of another one.
    ensure!(ask(&["-h", "redis", "get", "answer"])?.ok()? == "42\n");
    pod(cluster, &ns, "client", "(printf 'GET answer\\r\\n'; sleep 1) | nc -w 5 redis 6379", "", "  restartPolicy: Never\n")?;
    cluster.finished(&ns, "client")?;
    ensure!(cluster.logs(&ns, "client")?.contains("42"), "{}", cluster.logs(&ns, "client")?);
    // It ends in good order, begins anew, and has what was written.
    ask(&["shutdown"])?;
    eventually("it has begun anew", 60, || {
        let pod = &cluster.get(&["-n", &ns, "pods", "-l", "app=redis"])?["items"][0]["status"]["containerStatuses"][0];
        ensure!(pod["restartCount"] == 1 && pod["ready"] == true && pod["lastState"]["terminated"]["exitCode"] == 0, "{pod}");
        Ok(())
    })?;
    ensure!(ask(&["get", "answer"])?.ok()? == "42\n");
    cluster.kubectl(&["-n", &ns, "delete", "deploy/redis", "--timeout=60s"])?.ok().map(drop)
}

fn jobs_come_to_their_end(cluster: &Cluster) -> Result {
    let ns = cluster.namespace("jobs")?;
    let image = image(cluster)?;
    cluster.apply(&format!(
        "apiVersion: batch/v1\nkind: Job\nmetadata: {{name: sum, namespace: {ns}}}\nspec:\n  template:\n    spec:\n      restartPolicy: Never\n      containers: [{{name: main, image: '{image}', command: [sh, -c, 'echo $((6 * 7)) $FROM']}}]\n"
    ))?;
    cluster.kubectl(&["-n", &ns, "wait", "--for=condition=complete", "job/sum", "--timeout=60s"])?.ok()?;
    ensure!(cluster.kubectl(&["-n", &ns, "logs", "job/sum"])?.ok()? == "42 image\n");
    Ok(())
}

fn probes_of_every_kind(cluster: &Cluster) -> Result {
    let ns = cluster.namespace("probes")?;
    let serve = "mkdir /www; touch /www/here /tmp/well; exec httpd -f -p 8080 -h /www";
    let often = "periodSeconds: 1, failureThreshold: 30";
    let probes = format!(
        "startupProbe: {{exec: {{command: [test, -f, /tmp/well]}}, {often}}}, readinessProbe: {{httpGet: {{path: /here, port: 8080}}, {often}}}, livenessProbe: {{tcpSocket: {{port: 8080}}, {often}}}"
    );
    pod(cluster, &ns, "well", serve, &probes, "")?;
    cluster.ready(&ns, "well")?;
    let failing = "livenessProbe: {exec: {command: [sh, -c, 'echo feeling bad; exit 3']}, periodSeconds: 1, failureThreshold: 1}";
    pod(cluster, &ns, "dying", "sleep 1000", failing, "")?;
    let slow = "readinessProbe: {exec: {command: [sleep, '100']}, periodSeconds: 1, timeoutSeconds: 1}";
    pod(cluster, &ns, "slow", "sleep 1000", slow, "")?;
    let lost = "readinessProbe: {exec: {command: [no-such-program]}, periodSeconds: 1}";
    pod(cluster, &ns, "lost", "sleep 1000", lost, "")?;
    let grpc = "readinessProbe: {grpc: {port: 9999}, periodSeconds: 1}";
    pod(cluster, &ns, "mute", "sleep 1000", grpc, "")?;
    for (name, words) in [
        ("dying", &["Unhealthy", "Liveness probe failed: feeling bad", "Container main failed liveness probe, will be restarted"][..]),
        ("slow", &["Readiness probe failed: command timed out: \"sleep 100\" timed out after 1s"]),
        ("lost", &["Readiness probe errored and resulted in unknown state", "executable file not found in $PATH"]),
        ("mute", &["Readiness probe failed: timeout: failed to connect service"]),
    ] {
        eventually("events of the probe", 60, || has(&events(cluster, &ns, name)?, words))?;
    }
    eventually("the restart", 60, || {
        let status = cluster.status(&ns, "dying")?;
        ensure!(status["containerStatuses"][0]["restartCount"].as_u64() >= Some(1), "{status}");
        Ok(())
    })?;
    // One that ends says when it is not ready any more.
    let ready = "readinessProbe: {exec: {command: [test, -f, /tmp/ready]}, periodSeconds: 1, failureThreshold: 1}";
    let leaves = "touch /tmp/ready; trap 'rm /tmp/ready; sleep 100' TERM; while :; do sleep 0.1; done";
    pod(cluster, &ns, "leaving", leaves, ready, "")?;
    cluster.ready(&ns, "leaving")?;
    cluster.kubectl(&["-n", &ns, "delete", "pod", "leaving", "--grace-period=30", "--wait=false"])?.ok()?;
    eventually("its answer while it ends", 25, || {
        let pod = cluster.get(&["-n", &ns, "pod", "leaving"])?;
        ensure!(pod["metadata"]["deletionTimestamp"].is_string() && pod["status"]["containerStatuses"][0]["ready"] == false, "{pod}");
        ensure!(pod["status"]["phase"] == "Running" && pod["status"]["containerStatuses"][0]["state"]["running"].is_object(), "{pod}");
        Ok(())
    })?;
    cluster.kubectl(&["-n", &ns, "delete", "pod", "leaving", "--grace-period=1"])?.ok()?;
    for name in ["slow", "lost", "mute"] {
        let status = cluster.status(&ns, name)?;
        ensure!(status["containerStatuses"][0]["ready"] == false && status["containerStatuses"][0]["restartCount"] == 0, "{status}");
    }
    Ok(())
}

fn hooks_run_in_the_container(cluster: &Cluster) -> Result {
    let ns = cluster.namespace("hooks")?;
    let spec = "  volumes: [{name: shared, emptyDir: {}}]\n";
    let mount = "volumeMounts: [{name: shared, mountPath: /shared}]";
    let hook = "lifecycle: {postStart: {exec: {command: [sh, -c, 'echo begun > /shared/begun']}}}";
    pod(
        cluster,
        &ns,
        "begun",
        "until test -f /shared/begun; do sleep 0.05; done; cat /shared/begun",
        &format!("{mount}, {hook}"),
        &format!("  restartPolicy: Never\n{spec}"),
    )?;
    ensure!(cluster.finished(&ns, "begun")?["phase"] == "Succeeded");
    ensure!(cluster.logs(&ns, "begun")? == "begun\n");
    pod(cluster, &ns, "bad", "sleep 1000", "lifecycle: {postStart: {exec: {command: ['false']}}}", "")?;
    eventually("the failed hook", 60, || has(&events(cluster, &ns, "bad")?, &["FailedPostStartHook", "PostStartHook failed"]))?;
    let last = "lifecycle: {preStop: {exec: {command: [sh, -c, 'echo stopping > /proc/1/fd/1; exit 1']}}}";
    pod(cluster, &ns, "last", "trap 'exit 0' TERM; echo up; while :; do sleep 0.1; done", last, "")?;
    let text = last_words(cluster, &ns, "last")?;
    ensure!(text.contains("stopping"), "{text:?}");
    has(&events(cluster, &ns, "last")?, &["FailedPreStopHook", "PreStopHook failed"])?;
    // Of other kinds: its own server tells that it was asked.
    let others = "lifecycle: {postStart: {sleep: {seconds: 1}}, preStop: {httpGet: {path: /bye, port: 8080}}}";
    pod(cluster, &ns, "others", "echo up; exec httpd -f -vv -p 8080", others, "")?;
    cluster.ready(&ns, "others")?;
    let state = cluster.status(&ns, "others")?["containerStatuses"][0]["state"].clone();
    ensure!(state["running"].is_object(), "{state}");
    let text = last_words(cluster, &ns, "others")?;
    ensure!(text.contains("url:/bye"), "{text:?}");
    Ok(())
}

/// What a pod says while it is deleted, by one who follows its log since it said its first line.
fn last_words(cluster: &Cluster, ns: &str, name: &str) -> Result<String> {
    cluster.ready(ns, name)?;
    let mut following = cluster.kubectl_command(&["-n", ns, "logs", "-f", name]).stdout(Stdio::piped()).spawn()?;
    let mut text = String::new();
    let mut log = BufReader::new(following.stdout.take().context("its output")?);
    log.read_line(&mut text)?;
    cluster.kubectl(&["-n", ns, "delete", "pod", name, "--timeout=30s"])?.ok()?;
    log.read_to_string(&mut text)?;
    following.wait()?;
    Ok(text)
}

fn what_cannot_start_says_why(cluster: &Cluster) -> Result {
    let ns = cluster.namespace("reasons")?;
    let image = image(cluster)?;
    for (name, command, place, wanted) in [
        ("missing", "/no/such/program", "/", "no such file or directory"),
        ("broken", "broken", "/", "exec format error"),
        ("nowhere", "true", "/etc/passwd", "chdir to cwd (\"/etc/passwd\") set in config.json failed: not a directory"),
    ] {
        cluster.apply(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {ns}}}\nspec: {{restartPolicy: Never, containers: [{{name: main, image: '{image}', workingDir: {place}, command: ['{command}']}}]}}\n"
        ))?;
        let ended = cluster.finished(&ns, name)?;
        let ended = &ended["containerStatuses"][0]["state"]["terminated"];
        ensure!(ended["reason"] == "StartError" && ended["exitCode"] == 128, "{ended}");
        ensure!(ended["message"].as_str().is_some_and(|message| message.contains(wanted)), "{ended}");
    }
    let volume = "  volumes: [{name: v, emptyDir: {}}]\n";
    for (name, expression, why) in
        [("unset", "$(NO_SUCH)/x", "missing value for \"NO_SUCH\""), ("leads-out", "$(OUT)/etc", "must be relative, without '..'")]
    {
        let mount = format!("env: [{{name: OUT, value: ../../..}}], volumeMounts: [{{name: v, mountPath: /v, subPathExpr: '{expression}'}}]");
        pod(cluster, &ns, name, "true", &mount, volume)?;
        eventually("why it waits", 60, || {
            let status = cluster.status(&ns, name)?;
            let waiting = &status["containerStatuses"][0]["state"]["waiting"];
            ensure!(waiting["reason"] == "CreateContainerConfigError", "{status}");
            has(waiting["message"].as_str().unwrap_or_default(), &[why])
        })?;
    }
    // One of two has no image: the other runs, and the pod has its address.
    let two = [("main", image.as_str(), "IfNotPresent"), ("absent", "absent:v1", "Never")];
    let two = two.map(|(name, image, policy)| format!("{{name: {name}, image: '{image}', imagePullPolicy: {policy}, command: [sleep, '1000']}}"));
    cluster.apply(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: half, namespace: {ns}}}\nspec: {{terminationGracePeriodSeconds: 1, containers: [{}]}}\n",
        two.join(", ")
    ))?;
    eventually("one of them runs", 60, || {
        let status = cluster.status(&ns, "half")?;
        let (absent, main) = (&status["containerStatuses"][0], &status["containerStatuses"][1]);
        ensure!(status["phase"] == "Pending" && status["podIP"].is_string(), "{status}");
        let (absent, main) = if absent["name"] == "absent" { (absent, main) } else { (main, absent) };
        ensure!(absent["state"]["waiting"]["reason"] == "ErrImageNeverPull" && main["state"]["running"].is_object(), "{status}");
        Ok(())
    })?;
    pod(cluster, &ns, "root", "true", "securityContext: {runAsNonRoot: true}", "")?;
    eventually("why it waits", 60, || {
        let status = cluster.status(&ns, "root")?;
        let container = &status["containerStatuses"][0];
        ensure!(container["state"]["waiting"]["reason"] == "CreateContainerConfigError" && container["restartCount"] == 0, "{status}");
        has(container["state"]["waiting"]["message"].as_str().unwrap_or_default(), &["container has runAsNonRoot and image will run as root"])
    })
}

fn ends_are_told(cluster: &Cluster) -> Result {
    let ns = cluster.namespace("ends")?;
    let never = "  restartPolicy: Never\n";
    pod(cluster, &ns, "greedy", "tail /dev/zero", "resources: {limits: {memory: 16Mi}}", never)?;
    pod(cluster, &ns, "words", "echo -n last words > /dev/termination-log; exit 7", "", never)?;
    pod(cluster, &ns, "noisy", "echo to the log; exit 8", "terminationMessagePolicy: FallbackToLogsOnError", never)?;
    pod(cluster, &ns, "other", "echo -n there > /tmp/end", "terminationMessagePath: /tmp/end, securityContext: {runAsUser: 1234}", never)?;
    for (name, code, reason, message) in [
        ("greedy", 137, "OOMKilled", None),
        ("words", 7, "Error", Some("last words")),
        ("noisy", 8, "Error", Some("to the log\n")),
        ("other", 0, "Completed", Some("there")),
    ] {
        let status = cluster.finished(&ns, name)?;
        let ended = &status["containerStatuses"][0]["state"]["terminated"];
        ensure!(ended["exitCode"] == code && ended["reason"] == reason && ended["message"].as_str() == message, "{name}: {ended}");
    }
    Ok(())
}

fn configuration_is_updated_in_place(cluster: &Cluster) -> Result {
    let ns = cluster.namespace("updates")?;
    cluster.kubectl(&["-n", &ns, "create", "cm", "settings", "--from-literal=color=blue"])?.ok()?;
    let script = "last=; while :; do now=$(cat /settings/color); test \"$now\" = \"$last\" || echo $now; last=$now; sleep 0.1; done";
    let spec = "  volumes: [{name: settings, configMap: {name: settings}}]\n";
    pod(cluster, &ns, "watcher", script, "volumeMounts: [{name: settings, mountPath: /settings}]", spec)?;
    cluster.ready(&ns, "watcher")?;
    cluster.kubectl(&["-n", &ns, "patch", "cm", "settings", "-p", r#"{"data":{"color":"green"}}"#])?.ok()?;
    eventually("the update", 60, || {
        let text = cluster.logs(&ns, "watcher")?;
        ensure!(text == "blue\ngreen\n", "{text:?}");
        Ok(())
    })
}

fn processes_and_files_are_a_containers_own(cluster: &Cluster) -> Result {
    let ns = cluster.namespace("own")?;
    // Kubernetes makes one dollar of two.
    let never = "  restartPolicy: Never\n";
    pod(
        cluster,
        &ns,
        "alone",
        "echo pid $$$$; ps -o pid | wc -l; touch /x || echo refused",
        "securityContext: {readOnlyRootFilesystem: true}",
        never,
    )?;
    cluster.finished(&ns, "alone")?;
    let text = cluster.logs(&ns, "alone")?;
    // The shell, ps, wc and the title.
    ensure!(text.starts_with("pid 1\n4\n") && text.contains("refused"), "{text}");
    let image = image(cluster)?;
    let shared = "  restartPolicy: Never\n  shareProcessNamespace: true\n";
    cluster.apply(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: shared, namespace: {ns}}}\nspec:\n  terminationGracePeriodSeconds: 1\n{shared}  containers:\n  - {{name: main, image: '{image}', command: [sh, -c, 'until ps -o args | grep -q \"^sleep 4321\"; do sleep 0.1; done; echo seen; ls /proc/1/root/etc || echo nothing']}}\n  - {{name: other, image: '{image}', command: [sleep, '4321']}}\n"
    ))?;
    eventually("one container sees the other", 60, || {
        let text = cluster.kubectl(&["-n", &ns, "logs", "shared", "-c", "main"])?.ok()?;
        has(&text, &["seen\n", "nothing\n"])
    })
}

/// Where anything of that pod is left: processes, control groups, mounts, directories.
fn left(cluster: &Cluster, uid: &str) -> Vec<String> {
    let find = |words: &[&str]| cluster.host.run(words[0], &words[1..]).map(|output| output.stdout).unwrap_or_default();
    let mut left: Vec<String> =
        find(&["find", "/sys/fs/cgroup", "-name", &format!("*{uid}*"), "-maxdepth", "5"]).lines().map(str::to_owned).collect();
    left.extend(find(&["grep", uid, "/proc/mounts"]).lines().map(str::to_owned));
    left.extend(
        find(&["find", &cluster.data_dir().display().to_string(), "-maxdepth", "2", "-name", &format!("*{uid}*")]).lines().map(str::to_owned),
    );
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let path = |name: &str| std::fs::read_link(entry.path().join(name)).map(|path| path.display().to_string()).unwrap_or_default();
        left.extend(["fd/2", "root", "cwd"].map(path).into_iter().filter(|path| path.contains(uid)));
    }
    left
}

fn nothing_is_left_of_a_deleted_pod(cluster: &Cluster) -> Result {
    let ns = cluster.namespace("left")?;
    let spec = "  shareProcessNamespace: true\n  volumes: [{name: memory, emptyDir: {medium: Memory}}]\n";
    let devices = || cluster.host.run("ip", &["-br", "link"])?.ok();
    pod(cluster, &ns, "gone", "sleep 1000 & sleep 1000", "volumeMounts: [{name: memory, mountPath: /memory}]", spec)?;
    let ip = cluster.ready(&ns, "gone")?;
    let uid = cluster.get(&["-n", &ns, "pod", "gone"])?["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
    ensure!(!left(cluster, &uid).is_empty(), "while it runs there is something");
    ensure!(devices()?.contains("veth") || devices()?.contains('@'), "{}", devices()?);
    cluster.kubectl(&["-n", &ns, "delete", "pod", "gone", "--timeout=30s"])?.ok()?;
    eventually("nothing of the pod", 60, || {
        let left = left(cluster, &uid);
        ensure!(left.is_empty(), "{left:?}");
        ensure!(!cluster.host.run("ip", &["route", "get", &ip])?.stdout.contains("veth"));
        Ok(())
    })
}

fn a_killed_shim_is_a_failed_container(cluster: &Cluster) -> Result {
    let ns = cluster.namespace("shims")?;
    pod(cluster, &ns, "lost", "sleep 1000", "", "")?;
    cluster.ready(&ns, "lost")?;
    let uid = cluster.get(&["-n", &ns, "pod", "lost"])?["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
    let shim = std::fs::read_dir("/proc")?.flatten().find(|entry| {
        std::fs::read_to_string(entry.path().join("comm")).is_ok_and(|name| name.trim() == "coracle-shim")
            && std::fs::read_link(entry.path().join("fd/2")).is_ok_and(|path| path.display().to_string().contains(&uid))
    });
    let shim = shim.context("no shim")?;
    cluster.host.run("kill", &["-KILL", &shim.file_name().to_string_lossy()])?.ok()?;
    eventually("it runs again in a new sandbox", 60, || {
        let status = cluster.status(&ns, "lost")?;
        let container = &status["containerStatuses"][0];
        ensure!(container["restartCount"] == 1 && container["ready"] == true, "{status}");
        ensure!(container["lastState"]["terminated"]["exitCode"] == 137, "{status}");
        Ok(())
    })?;
    has(&events(cluster, &ns, "lost")?, &["SandboxChanged"])
}

/// `kubectl debug`.
fn containers_are_looked_at_by_others(cluster: &Cluster) -> Result {
    let ns = cluster.namespace("debug")?;
    pod(cluster, &ns, "web", "echo found > /marker; exec sleep 4321", "", "")?;
    cluster.ready(&ns, "web")?;
    let image = image(cluster)?;
    let debug = |name: &str, script: &str| {
        let flags = ["--image", &image, "--target=main", "--profile=general", "-q", "-i", "-c", name, "--", "sh", "-c", script];
        cluster.kubectl(&[&["-n", &ns, "debug", "web"], &flags[..]].concat())
    };
    // As long as it takes kubectl to attach: what was said before is in the log.
    let said = debug("look", "ps -o args; cat /proc/1/root/marker; sleep 1; exit 3")?;
    let text = format!("{}{}", said.stdout, cluster.kubectl(&["-n", &ns, "logs", "web", "-c", "look"])?.ok()?);
    has(&text, &["sleep 4321", "found"])?;
    eventually("its end is told", 60, || {
        let status = cluster.status(&ns, "web")?;
        let own = &status["ephemeralContainerStatuses"][0];
        ensure!(own["name"] == "look" && own["state"]["terminated"]["exitCode"] == 3 && own["ready"] == false, "{status}");
        let main = &status["containerStatuses"][0];
        ensure!(status["phase"] == "Running" && main["ready"] == true && main["restartCount"] == 0, "the pod does not notice: {status}");
        Ok(())
    })?;
    debug("again", "sleep 1")?;
    eventually("another one", 60, || {
        let status = cluster.status(&ns, "web")?;
        ensure!(status["ephemeralContainerStatuses"][1]["state"]["terminated"]["exitCode"] == 0, "{status}");
        ensure!(status["ephemeralContainerStatuses"][0]["restartCount"] == 0, "{status}");
        Ok(())
    })?;
    // A component has no processes.
    cluster.import("hello", "hello:v1")?;
    cluster.apply(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: component, namespace: {ns}}}\nspec: {{containers: [{{name: main, image: 'hello:v1', imagePullPolicy: Never}}]}}"
    ))?;
    eventually("it has begun", 60, || {
        let status = cluster.status(&ns, "component")?;
        ensure!(status["containerStatuses"][0]["containerID"].is_string(), "{status}");
        Ok(())
    })?;
    cluster.kubectl(&["-n", &ns, "debug", "component", "--image", &image, "--profile=general", "-q", "-c", "look", "--", "true"])?.ok()?;
    eventually("why it cannot be", 60, || {
        let status = cluster.status(&ns, "component")?;
        let waiting = &status["ephemeralContainerStatuses"][0]["state"]["waiting"];
        ensure!(waiting["message"].as_str().is_some_and(|text| text.contains("WebAssembly components")), "{status}");
        Ok(())
    })
}
