//! Wasm pods: what a container may ask for, and what it may not.

use anyhow::ensure;
use coracle_tests::{Case, Cluster, Mode, Result, eventually, has, main as suite};
use serde_json::json;
use std::process::ExitCode;

const CASES: &[Case] = &[
    ("a_function_answers_on_its_own_address", a_function_answers_on_its_own_address),
    ("a_fresh_instance_for_every_request", a_fresh_instance_for_every_request),
    ("environment_from_everywhere", environment_from_everywhere),
    ("volumes_and_their_updates", volumes_and_their_updates),
    ("exit_codes_and_restart_policies", exit_codes_and_restart_policies),
    ("init_containers_run_in_order", init_containers_run_in_order),
    ("memory_limits_hold", memory_limits_hold),
    ("cpu_limits_hold", cpu_limits_hold),
    ("components_are_resized_in_place", components_are_resized_in_place),
    ("an_endless_loop_stays_alone", an_endless_loop_stays_alone),
    ("probes_decide", probes_decide),
    ("sockets_have_the_pods_address", sockets_have_the_pods_address),
    ("deletion_is_graceful_and_bounded", deletion_is_graceful_and_bounded),
    ("refusals_name_the_remedy", refusals_name_the_remedy),
    ("missing_configuration_is_named", missing_configuration_is_named),
];

fn main() -> ExitCode {
    suite(Mode::Whole, CASES)
}

/// A pod with one container `main`; `rest` is YAML flow for more of the container, such as `args: [hello]`.
fn pod(ns: &str, name: &str, image: &str, container: &str, spec: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {ns}, labels: {{app: {name}}}}}\nspec:\n  terminationGracePeriodSeconds: 1\n{spec}  containers:\n  - {{name: main, image: '{image}', {container}}}\n"
    )
}

fn a_function_answers_on_its_own_address(cluster: &Cluster) -> Result {
    let ns = cluster.namespace("function")?;
    cluster.apply(&pod(&ns, "hello", "hello:v1", "ports: [{containerPort: 8080}]", ""))?;
    let ip = cluster.ready(&ns, "hello")?;
    ensure!(cluster.host.get(&format!("http://{ip}:8080/"))? == "Hello from a coracle\n");
    let status = cluster.status(&ns, "hello")?;
    ensure!(status["phase"] == "Running" && status["containerStatuses"][0]["ready"] == true, "{status}");
    ensure!(status["containerStatuses"][0]["imageID"].as_str().is_some_and(|id| id.contains("sha256:")), "{status}");
    ensure!(status["qosClass"] == "BestEffort" && status["hostIP"].is_string(), "{status}");
    for wanted in ["PodScheduled", "Initialized", "ContainersReady", "Ready", "PodReadyToStartContainers"] {
        let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
        ensure!(conditions.iter().any(|condition| condition["type"] == wanted && condition["status"] == "True"), "{wanted}: {status}");
    }
    Ok(())
}

fn a_fresh_instance_for_every_request(cluster: &Cluster) -> Result {
    let ns = cluster.namespace("fresh")?;
    cluster.apply(&pod(&ns, "web", "web:v1", "ports: [{containerPort: 8080}]", ""))?;
    let ip = cluster.ready(&ns, "web")?;
    for _ in 0..5 {
        ensure!(cluster.host.get(&format!("http://{ip}:8080/served"))? == "1\n");
    }
    cluster.host.get(&format!("http://{ip}:8080/panic")).expect_err("a panic is an error of that request");
    ensure!(cluster.host.get(&format!("http://{ip}:8080/served"))? == "1\n");
    cluster.host.get(&format!("http://{ip}:8080/log?heard"))?;
    eventually("the function's output in its log", 10, || {
        let text = cluster.logs(&ns, "web")?;
        ensure!(text.contains("heard\n") && text.contains("heard on stderr"), "{text}");
        Ok(())
    })
}

fn environment_from_everywhere(cluster: &Cluster) -> Result {
    let ns = cluster.namespace("environment")?;
    cluster.kubectl(&["-n", &ns, "create", "cm", "settings", "--from-literal=COLOR=blue", "--from-literal=SIZE=4"])?.ok()?;
    cluster.kubectl(&["-n", &ns, "create", "secret", "generic", "keys", "--from-literal=KEY=hush"])?.ok()?;
    let container = "args: [environment], resources: {limits: {memory: 64Mi}}, envFrom: [{configMapRef: {name: settings}}, {secretRef: {name: keys}, prefix: S_}],
     env: [{name: A, value: one}, {name: B, value: '$(A)-two-$$(A)'}, {name: NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}, {name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}},
     {name: ONE, valueFrom: {configMapKeyRef: {name: settings, key: SIZE}}}, {name: TWO, valueFrom: {secretKeyRef: {name: keys, key: KEY}}}, {name: NONE, valueFrom: {configMapKeyRef: {name: nothing, key: x, optional: true}}},
     {name: LIMIT, valueFrom: {resourceFieldRef: {resource: limits.memory, divisor: 1Mi}}}, {name: APP, valueFrom: {fieldRef: {fieldPath: \"metadata.labels['app']\"}}}]";
    cluster.apply(&pod(&ns, "env", "probe:v1", container, "  restartPolicy: Never\n"))?;
    cluster.finished(&ns, "env")?;
    let text = cluster.logs(&ns, "env")?;
    for line in [
        "COLOR=blue",
        "SIZE=4",
        "S_KEY=hush",
        "A=one",
        "B=one-two-$(A)",
        "NAME=env",
        "ONE=4",
        "TWO=hush",
        "LIMIT=64",
        "APP=env",
        "KUBERNETES_SERVICE_PORT=443",
        "HOSTNAME=env",
    ] {
        ensure!(text.lines().any(|have| have == line), "{line} is missing in:\n{text}");
    }
    ensure!(!text.contains("NONE="), "{text}");
    let ip = cluster.status(&ns, "env")?["podIP"].as_str().unwrap_or_default().to_string();
    ensure!(text.contains(&format!("IP={ip}")), "{ip} in {text}");
    Ok(())
}

fn volumes_and_their_updates(cluster: &Cluster) -> Result {
    let ns = cluster.namespace("volumes")?;
    cluster.kubectl(&["-n", &ns, "create", "cm", "files", "--from-literal=a.txt=first", "--from-literal=b.txt=bee"])?.ok()?;
    cluster.kubectl(&["-n", &ns, "create", "secret", "generic", "hidden", "--from-literal=word=sesame"])?.ok()?;
    let spec = "  volumes:\n  - {name: files, configMap: {name: files}}\n  - {name: hidden, secret: {secretName: hidden}}\n  - {name: scratch, emptyDir: {}}\n  - {name: about, downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}}\n";
    let mounts = "volumeMounts: [{name: files, mountPath: /files, readOnly: true}, {name: hidden, mountPath: /hidden}, {name: scratch, mountPath: /scratch}, {name: about, mountPath: /about}]";
    cluster.apply(&pod(&ns, "web", "web:v1", &format!("ports: [{{containerPort: 8080}}], {mounts}"), spec))?;
    let ip = cluster.ready(&ns, "web")?;
    let read = |path: &str| cluster.host.get(&format!("http://{ip}:8080/read?{path}"));
    ensure!(read("/files/a.txt")? == "first");
    ensure!(read("/hidden/word")? == "sesame");
    ensure!(read("/about/labels")?.trim() == "app=\"web\"");
    let token = read("/var/run/secrets/kubernetes.io/serviceaccount/token")?;
    ensure!(token.split('.').count() == 3, "{token}");
    ensure!(read("/var/run/secrets/kubernetes.io/serviceaccount/namespace")? == ns);
    ensure!(read("/var/run/secrets/kubernetes.io/serviceaccount/ca.crt")?.contains("BEGIN CERTIFICATE"));
    cluster.kubectl(&["-n", &ns, "patch", "cm", "files", "-p", r#"{"data":{"a.txt":"second"}}"#])?.ok()?;
    eventually("the update arrives", 30, || {
        ensure!(read("/files/a.txt")? == "second");
        Ok(())
    })?;
    let args = "args: [write, /scratch/x, hi, --, cat, /scratch/x, --, ls, /files, --, write, /files/no, nope]";
    cluster.apply(&pod(&ns, "writer", "probe:v1", &format!("{args}, {mounts}"), &format!("  restartPolicy: Never\n{spec}")))?;
    let status = cluster.finished(&ns, "writer")?;
    ensure!(status["phase"] == "Failed", "a read-only mount refuses writes: {status}");
    let text = cluster.logs(&ns, "writer")?;
    ensure!(text.starts_with("hi") && text.contains("a.txt") && text.contains("b.txt"), "{text}");
    Ok(())
}

fn exit_codes_and_restart_policies(cluster: &Cluster) -> Result {
    let ns = cluster.namespace("exits")?;
    cluster.apply(&pod(&ns, "never", "probe:v1", "args: [exit, '42']", "  restartPolicy: Never\n"))?;
    cluster.apply(&pod(&ns, "fine", "probe:v1", "args: [hello]", "  restartPolicy: OnFailure\n"))?;
    cluster.apply(&pod(&ns, "again", "probe:v1", "args: [exit, '1']", "  restartPolicy: OnFailure\n"))?;
    let never = cluster.finished(&ns, "never")?;
    let ended = &never["containerStatuses"][0]["state"]["terminated"];
    ensure!(never["phase"] == "Failed" && ended["exitCode"] == 42 && ended["reason"] == "Error", "{never}");
    let fine = cluster.finished(&ns, "fine")?;
    ensure!(fine["phase"] == "Succeeded" && fine["containerStatuses"][0]["state"]["terminated"]["reason"] == "Completed", "{fine}");
    eventually("restarts with back-off", 60, || {
        let status = cluster.status(&ns, "again")?;
        let container = &status["containerStatuses"][0];
        ensure!(container["restartCount"].as_u64().unwrap_or(0) >= 2 && container["state"]["waiting"]["reason"] == "CrashLoopBackOff", "{container}");
        ensure!(status["phase"] == "Running", "{status}");
        Ok(())
    })
}

fn init_containers_run_in_order(cluster: &Cluster) -> Result {
    let ns = cluster.namespace("inits")?;
    let spec = "  restartPolicy: Never\n  volumes: [{name: shared, emptyDir: {}}]\n  initContainers:\n  - {name: first, image: 'probe:v1', args: [write, /shared/one, uno], volumeMounts: [{name: shared, mountPath: /shared}]}\n  - {name: second, image: 'probe:v1', args: [cat, /shared/one], volumeMounts: [{name: shared, mountPath: /shared}]}\n";
    cluster.apply(&pod(&ns, "steps", "probe:v1", "args: [cat, /shared/one], volumeMounts: [{name: shared, mountPath: /shared}]", spec))?;
    ensure!(cluster.finished(&ns, "steps")?["phase"] == "Succeeded");
    ensure!(cluster.logs(&ns, "steps")?.trim_end() == "uno");
    ensure!(cluster.kubectl(&["-n", &ns, "logs", "steps", "-c", "second"])?.ok()?.trim_end() == "uno");
    cluster.apply(&pod(
        &ns,
        "stuck",
        "hello:v1",
        "ports: [{containerPort: 8080}]",
        "  restartPolicy: Never\n  initContainers:\n  - {name: bad, image: 'probe:v1', args: [exit, '9']}\n",
    ))?;
    let stuck = cluster.finished(&ns, "stuck")?;
    ensure!(stuck["phase"] == "Failed" && stuck["initContainerStatuses"][0]["state"]["terminated"]["exitCode"] == 9, "{stuck}");
    ensure!(cluster.kubectl(&["-n", &ns, "get", "pod", "stuck"])?.ok()?.contains("Init:Error"));
    Ok(())
}

fn memory_limits_hold(cluster: &Cluster) -> Result {
    let ns = cluster.namespace("memory")?;
    let limits = "resources: {limits: {memory: 32Mi}}";
    cluster.apply(&pod(&ns, "greedy", "probe:v1", &format!("args: [allocate, '200'], {limits}"), "  restartPolicy: Never\n"))?;
    cluster.apply(&pod(&ns, "web", "web:v1", &format!("ports: [{{containerPort: 8080}}], {limits}"), ""))?;
    let ended = cluster.finished(&ns, "greedy")?;
    let state = &ended["containerStatuses"][0]["state"]["terminated"];
    ensure!(state["reason"] == "OOMKilled" && state["exitCode"] == 137, "{ended}");
    let ip = cluster.ready(&ns, "web")?;
    ensure!(cluster.host.get(&format!("http://{ip}:8080/allocate?4"))? == "4\n");
    let refused = cluster.host.get(&format!("http://{ip}:8080/allocate?200")).expect_err("beyond the limit").to_string();
    ensure!(refused.contains("500"), "{refused}");
    ensure!(cluster.host.get(&format!("http://{ip}:8080/allocate?4"))? == "4\n", "the pod goes on serving");
    let after = cluster.status(&ns, "web")?;
    ensure!(after["containerStatuses"][0]["ready"] == true && after["containerStatuses"][0]["restartCount"] == 0, "{after}");
    Ok(())
}

/// A component in a loop uses a tenth of a core if that is what it may.
fn cpu_limits_hold(cluster: &Cluster) -> Result {
    let ns = cluster.namespace("cpu")?;
    cluster.apply(&pod(&ns, "eager", "probe:v1", "args: [loop], resources: {limits: {cpu: 100m}}", ""))?;
    cluster.ready(&ns, "eager")?;
    eventually("what it uses", 60, || {
        let top = cluster.kubectl_in(&ns, &["top", "pods", "--no-headers"])?.ok()?;
        let millis = top.split_whitespace().nth(1).and_then(|cpu| cpu.strip_suffix('m')?.parse::<u64>().ok());
        ensure!(millis.is_some_and(|millis| (1..=150).contains(&millis)), "{top}");
        Ok(())
    })
}

/// `kubectl patch --subresource resize` (KEP-1287) of a pod of components.
fn components_are_resized_in_place(cluster: &Cluster) -> Result {
    let ns = cluster.namespace("resize")?;
    let limits = "ports: [{containerPort: 8080}], resources: {requests: {cpu: 10m, memory: 8Mi}, limits: {memory: 32Mi}}";
    cluster.apply(&pod(&ns, "web", "web:v1", limits, ""))?;
    let ip = cluster.ready(&ns, "web")?;
    let resize = |cpu: &str, memory: &str| {
        let container = json!({ "name": "main", "resources": { "requests": { "cpu": cpu }, "limits": { "memory": memory } } });
        let patch = json!({ "spec": { "containers": [container] } }).to_string();
        cluster.kubectl_in(&ns, &["patch", "pod", "web", "--subresource", "resize", "-p", &patch])?.ok().map(drop)
    };
    let becomes = |cpu: &str, memory: &str| {
        eventually(&format!("it has {cpu} and {memory}"), 60, || {
            let status = cluster.status(&ns, "web")?;
            let main = &status["containerStatuses"][0];
            ensure!(main["resources"]["limits"]["memory"] == memory && main["resources"]["requests"]["cpu"] == cpu, "{status}");
            ensure!(main["allocatedResources"]["cpu"] == cpu && main["restartCount"] == 0 && main["ready"] == true, "{status}");
            Ok(())
        })
    };
    let allocate = || cluster.host.get(&format!("http://{ip}:8080/allocate?100"));
    ensure!(allocate().expect_err("beyond the limit").to_string().contains("500"));
    resize("20m", "256Mi")?;
    becomes("20m", "256Mi")?;
    ensure!(allocate()? == "100\n");
    // And less again.
    resize("20m", "8Mi")?;
    becomes("20m", "8Mi")?;
    ensure!(allocate().expect_err("beyond the limit").to_string().contains("500"));
    Ok(())
}

fn an_endless_loop_stays_alone(cluster: &Cluster) -> Result {
    let ns = cluster.namespace("loops")?;
    cluster.apply(&pod(&ns, "calm", "hello:v1", "ports: [{containerPort: 8080}]", ""))?;
    cluster.apply(&pod(&ns, "mad", "probe:v1", "args: [loop]", ""))?;
    let calm = cluster.ready(&ns, "calm")?;
    cluster.ready(&ns, "mad")?;
    for _ in 0..20 {
        cluster.host.get(&format!("http://{calm}:8080/"))?;
    }
    cluster.kubectl(&["-n", &ns, "delete", "pod", "mad", "--timeout=20s"])?.ok()?;
    ensure!(cluster.host.get(&format!("http://{calm}:8080/"))? == "Hello from a coracle\n");
    Ok(())
}

fn probes_decide(cluster: &Cluster) -> Result {
    let ns = cluster.namespace("probes")?;
    let http = |path: &str| format!("{{httpGet: {{path: {path}, port: 8080}}, periodSeconds: 1, failureThreshold: 1}}");
    cluster.apply(&pod(
        &ns,
        "fit",
        "web:v1",
        &format!("ports: [{{containerPort: 8080}}], readinessProbe: {}, livenessProbe: {{tcpSocket: {{port: 8080}}, periodSeconds: 1}}", http("/")),
        "",
    ))?;
    cluster.apply(&pod(&ns, "unready", "web:v1", &format!("ports: [{{containerPort: 8080}}], readinessProbe: {}", http("/missing")), ""))?;
    cluster.apply(&pod(&ns, "dying", "web:v1", &format!("ports: [{{containerPort: 8080}}], livenessProbe: {}", http("/missing")), ""))?;
    cluster.ready(&ns, "fit")?;
    eventually("the liveness probe restarts it", 40, || {
        let status = cluster.status(&ns, "dying")?;
        ensure!(status["containerStatuses"][0]["restartCount"].as_u64().unwrap_or(0) >= 1, "{status}");
        Ok(())
    })?;
    let unready = cluster.status(&ns, "unready")?;
    ensure!(unready["containerStatuses"][0]["ready"] == false && unready["phase"] == "Running", "{unready}");
    let events = cluster.kubectl(&["-n", &ns, "get", "events"])?.ok()?;
    ensure!(events.contains("Unhealthy") && events.contains("HTTP probe failed with statuscode: 404") && events.contains("Killing"), "{events}");
    Ok(())
}

fn sockets_have_the_pods_address(cluster: &Cluster) -> Result {
    let ns = cluster.namespace("sockets")?;
    cluster.apply(&pod(&ns, "server", "probe:v1", "args: [listen, '0.0.0.0:9000'], ports: [{containerPort: 9000}]", ""))?;
    let server = cluster.ready(&ns, "server")?;
    eventually("the server listens on the pod's address", 20, || {
        let text = cluster.logs(&ns, "server")?;
        ensure!(text.contains(&format!("listening on {server}:9000")), "{text}");
        Ok(())
    })?;
    cluster.apply(&pod(&ns, "client", "probe:v1", &format!("args: [connect, '{server}:9000']"), "  restartPolicy: Never\n"))?;
    let client = cluster.finished(&ns, "client")?["podIP"].as_str().unwrap_or_default().to_string();
    let text = cluster.logs(&ns, "client")?;
    ensure!(text.contains(&format!("connected from {client}")) && text.contains(&format!("received you are {client}")), "{client}: {text}");
    cluster.apply(&pod(&ns, "inward", "probe:v1", "args: [connect, '127.0.0.1:6443']", "  restartPolicy: Never\n"))?;
    ensure!(cluster.finished(&ns, "inward")?["phase"] == "Failed", "the machine's own loopback is closed to pods");
    cluster.apply(&pod(&ns, "foreign", "probe:v1", "args: [listen, '10.99.99.99:9000']", "  restartPolicy: Never\n"))?;
    ensure!(cluster.finished(&ns, "foreign")?["phase"] == "Failed", "an address that is not the pod's is refused");
    Ok(())
}

fn deletion_is_graceful_and_bounded(cluster: &Cluster) -> Result {
    let ns = cluster.namespace("deletions")?;
    cluster.apply(&pod(&ns, "looping", "probe:v1", "args: [loop]", ""))?;
    let ip = {
        cluster.apply(&pod(&ns, "web", "web:v1", "ports: [{containerPort: 8080}]", ""))?;
        cluster.ready(&ns, "web")?
    };
    cluster.ready(&ns, "looping")?;
    cluster.kubectl(&["-n", &ns, "delete", "pod", "looping", "web", "--timeout=20s"])?.ok()?;
    cluster.host.get(&format!("http://{ip}:8080/")).expect_err("nothing listens any more");
    ensure!(cluster.kubectl(&["-n", &ns, "get", "pods", "-o", "name"])?.ok()?.trim().is_empty());
    Ok(())
}

fn refusals_name_the_remedy(cluster: &Cluster) -> Result {
    let ns = cluster.namespace("refusals")?;
    cluster.apply(&pod(&ns, "execs", "hello:v1", "ports: [{containerPort: 8080}], livenessProbe: {exec: {command: [ls]}}", ""))?;
    eventually("an exec probe is refused with a reason", 20, || {
        let text = cluster.kubectl(&["-n", &ns, "describe", "pod", "execs"])?.ok()?;
        has(&text, &["exec liveness probes need a process to start inside", "use an httpGet or tcpSocket probe"])
    })?;
    cluster.apply(&pod(&ns, "hosted", "hello:v1", "ports: [{containerPort: 8080}]", "  volumes: [{name: root, hostPath: {path: /}}]\n"))?;
    eventually("an unsupported volume is named", 20, || {
        let text = cluster.kubectl(&["-n", &ns, "describe", "pod", "hosted"])?.ok()?;
        has(&text, &["volumes of type hostPath are for containers, not for WebAssembly components, which have configMap, secret, emptyDir"])
    })
}

fn missing_configuration_is_named(cluster: &Cluster) -> Result {
    let ns = cluster.namespace("missing")?;
    cluster.apply(&pod(&ns, "waits", "probe:v1", "args: [hello], envFrom: [{configMapRef: {name: later}}]", "  restartPolicy: Never\n"))?;
    eventually("the missing config map is named", 20, || {
        let status = cluster.status(&ns, "waits")?;
        let waiting = &status["containerStatuses"][0]["state"]["waiting"];
        ensure!(waiting["reason"] == "CreateContainerConfigError" && waiting["message"] == "configmap \"later\" not found", "{status}");
        Ok(())
    })?;
    cluster.kubectl(&["-n", &ns, "create", "cm", "later"])?.ok()?;
    ensure!(cluster.finished(&ns, "waits")?["phase"] == "Succeeded");
    cluster.apply(&pod(&ns, "nowhere", "hello:v1", "ports: [{containerPort: 8080}]", "  nodeSelector: {disk: gold}\n"))?;
    eventually("why it is not scheduled", 20, || {
        let text = cluster.kubectl(&["-n", &ns, "describe", "pod", "nowhere"])?.ok()?;
        ensure!(
            text.contains("FailedScheduling") && text.contains("0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector"),
            "{text}"
        );
        Ok(())
    })
}
