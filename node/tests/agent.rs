//! The whole agent against a control plane that is a map and a runtime that is a mock: the real link protocol, the real mirror and
//! disk, no network.

#[path = "agent/control.rs"]
mod control;

use control::{Control, pod, wait};
use coracle_node::{Agent, Handle, Options, images};
use coracle_runtime::mock::{Behaviour, MockRuntime};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{path::Path, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::watch,
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

struct Node {
    handle: Handle,
    cancel: CancellationToken,
    task: JoinHandle<()>,
}

impl Node {
    fn start(dir: &Path, control: &Control, runtime: &MockRuntime) -> Self {
        Self::start_with(dir, control, runtime, |_| ())
    }

    fn start_with(dir: &Path, control: &Control, runtime: &MockRuntime, change: impl FnOnce(&mut Options)) -> Self {
        let mut options = Options::new(dir, "n1");
        options.pod_cidr = "127.77.0.0/16".into();
        change(&mut options);
        let (service, handle) = Agent::new(options, control.connector(), vec![Arc::new(runtime.clone())]).unwrap();
        let cancel = CancellationToken::new();
        let task = tokio::spawn(service.run(cancel.clone()));
        Self { handle, cancel, task }
    }

    /// As a killed process: nothing is said to anyone.
    async fn kill(self) {
        self.cancel.cancel();
        self.task.await.unwrap();
    }
}

fn import(dir: &Path, name: &str) {
    let file = dir.join("guest.wasm");
    std::fs::write(&file, b"\0asm\x0d\0\x01\0").unwrap();
    images::import(dir, &file, Some(name)).unwrap();
}

fn setup() -> (tempfile::TempDir, Control, MockRuntime) {
    let dir = tempfile::tempdir().unwrap();
    import(dir.path(), "hello:v1");
    (dir, Control::new(), MockRuntime::new("wasm"))
}

fn ready(status: &Value) -> bool {
    condition(status, "Ready") == Some("True")
}

fn condition<'a>(status: &'a Value, kind: &str) -> Option<&'a str> {
    status["conditions"].as_array()?.iter().find(|c| c["type"] == kind)?["status"].as_str()
}

#[tokio::test]
async fn a_pod_from_the_feed_runs_and_says_so() {
    let (dir, control, runtime) = setup();
    let node = Node::start(dir.path(), &control, &runtime);
    control.subscribed().await;
    control.put(pod("a", json!({ "containers": [{ "name": "c", "image": "hello:v1" }] })));
    let status = control.status("a", ready).await;
    assert_eq!(status["phase"], "Running");
    assert_eq!(status["containerStatuses"][0]["ready"], true);
    assert_eq!(status["containerStatuses"][0]["restartCount"], 0);
    assert_eq!(status["containerStatuses"][0]["containerID"], "coracle://uid-a/c/0");
    assert!(status["podIP"].as_str().unwrap().starts_with("127.77."));
    assert_eq!(status["hostIP"], "127.0.0.1");
    // One request from pending to ready.
    assert_eq!(control.status_reports("a"), 1);
    let events = control.events("a", "Started").await;
    assert_eq!(events, ["Pulled", "Created", "Started"]);
    node.kill().await;
}

#[tokio::test]
async fn the_node_registers_and_renews() {
    let (dir, control, runtime) = setup();
    let node = Node::start(dir.path(), &control, &runtime);
    let object = wait("the node", || control.object("nodes", "", "n1").filter(|n| condition(&n["status"], "Ready") == Some("True"))).await;
    assert_eq!(object["metadata"]["labels"]["kubernetes.io/os"], "linux");
    assert_eq!(object["status"]["capacity"]["pods"], "2k");
    assert_eq!(
        object["status"]["declaredFeatures"],
        json!(["InPlacePodLevelResourcesVerticalScaling", "InPlacePodVerticalScalingInitContainers", "RestartAllContainersOnContainerExits"])
    );
    assert_eq!(object["status"]["nodeInfo"]["containerRuntimeVersion"].as_str().unwrap().split("://").next(), Some("coracle"));
    let lease = wait("the lease", || control.object("leases", "kube-node-lease", "n1")).await;
    assert_eq!(lease["spec"]["holderIdentity"], "n1");
    node.kill().await;
}

#[tokio::test]
async fn a_deleted_pod_stops_reports_and_goes() {
    let (dir, control, runtime) = setup();
    let node = Node::start(dir.path(), &control, &runtime);
    control.subscribed().await;
    control.put(pod("a", json!({ "containers": [{ "name": "c", "image": "hello:v1" }] })));
    control.status("a", ready).await;
    control.delete("a", 30);
    wait("the object to go", || control.object("pods", "default", "a").is_none().then_some(())).await;
    assert!(runtime.running().is_empty());
    let last = control.last_status("a").unwrap();
    assert_eq!(last["containerStatuses"][0]["state"]["terminated"]["exitCode"], 143);
    wait("the directory to go", || (!dir.path().join("pods/uid-a").exists()).then_some(())).await;
    assert!(control.events("a", "Killing").await.contains(&"Killing".to_string()));
    assert!(node.handle.views().all().is_empty());
    node.kill().await;
}

#[tokio::test]
async fn cut_off_and_restarted_the_agent_goes_on_with_what_it_knows() {
    let (dir, control, runtime) = setup();
    let node = Node::start(dir.path(), &control, &runtime);
    control.subscribed().await;
    control.put(pod("a", json!({ "containers": [{ "name": "c", "image": "hello:v1" }] })));
    let status = control.status("a", ready).await;
    node.kill().await;
    assert_eq!(runtime.running().len(), 1, "an agent that ends leaves its pods");

    control.cut();
    let node = Node::start(dir.path(), &control, &runtime);
    node.handle.adopted().await;
    assert_eq!(runtime.count("start_container"), 1, "adopted, not restarted");
    // It dies while the node is cut off, and is restarted all the same.
    assert!(runtime.exit("uid-a/c/0", 1, "Error"));
    wait("the restart", || runtime.running().first().filter(|c| c.attempt == 1).map(|_| ())).await;
    control.heal();
    let after = control.status("a", |s| ready(s) && s["containerStatuses"][0]["restartCount"] == 1).await;
    assert_eq!(after["podIP"], status["podIP"]);
    assert_eq!(after["containerStatuses"][0]["lastState"]["terminated"]["exitCode"], 1);
    assert!(control.resumed(), "the subscription went on where it was");
    node.kill().await;
}

#[tokio::test]
async fn a_name_is_one_pods_whether_of_a_file_or_of_the_api() {
    let (dir, control, runtime) = setup();
    let manifests = dir.path().join("manifests");
    std::fs::create_dir(&manifests).unwrap();
    let write = |name: &str| {
        let text = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, uid: file-{name}}}\nspec: {{containers: [{{name: c, image: 'hello:v1'}}]}}\n"
        );
        std::fs::write(manifests.join(name), text).unwrap();
    };
    let of_api = |name: &str| pod(name, json!({ "containers": [{ "name": "c", "image": "hello:v1" }] }));
    let runs = |uid: &'static str, so: bool| {
        let runtime = runtime.clone();
        async move { wait(uid, || (runtime.running().iter().any(|spec| spec.sandbox == uid) == so).then_some(())).await }
    };
    write("a");
    let start = || Node::start_with(dir.path(), &control, &runtime, |options| options.manifests = Some(manifests.clone()));
    let node = start();
    control.subscribed().await;
    runs("file-a", true).await;
    // The later one is turned away, and says so; it can be deleted.
    control.put(of_api("a-n1"));
    let status = control.status("a-n1", |status| status["phase"] == "Failed").await;
    assert_eq!(
        (&status["reason"], &status["message"]),
        (&json!("NameConflict"), &json!("Pod was rejected: this node has a static pod of that name"))
    );
    control.events("a-n1", "NameConflict").await;
    control.delete("a-n1", 30);
    wait("the object to go", || control.object("pods", "default", "a-n1").is_none().then_some(())).await;
    runs("file-a", true).await;
    // A file's waits for the API's, over a restart, too.
    control.put(of_api("b-n1"));
    runs("uid-b-n1", true).await;
    write("b");
    node.kill().await;
    let node = start();
    node.handle.adopted().await;
    assert_eq!(runtime.count("start_container"), 2, "both were taken over, and no other was begun");
    control.delete("b-n1", 0);
    runs("file-b", true).await;
    // The same file again is the same pod, in the same directory, which is not removed under it.
    for _ in 0..5 {
        std::fs::remove_file(manifests.join("a")).unwrap();
        runs("file-a", false).await;
        write("a");
        runs("file-a", true).await;
        assert!(dir.path().join("pods/file-a/logs").is_dir());
    }
    node.kill().await;
}

#[tokio::test]
async fn orphans_are_removed() {
    let (dir, control, runtime) = setup();
    let node = Node::start(dir.path(), &control, &runtime);
    control.subscribed().await;
    control.put(pod("a", json!({ "containers": [{ "name": "c", "image": "hello:v1" }] })));
    control.status("a", ready).await;
    node.kill().await;
    std::fs::remove_file(dir.path().join("mirror.redb")).unwrap();
    control.cut();
    let node = Node::start(dir.path(), &control, &runtime);
    node.handle.adopted().await;
    assert!(runtime.running().is_empty());
    node.kill().await;
}

#[tokio::test]
async fn crashes_back_off_as_kubernetes_does() {
    let (dir, control, runtime) = setup();
    runtime.behave("hello:v1", Behaviour::Exits(3));
    let node = Node::start(dir.path(), &control, &runtime);
    control.subscribed().await;
    control.put(pod("a", json!({ "containers": [{ "name": "c", "image": "hello:v1" }] })));
    let status = control.status("a", |s| s["containerStatuses"][0]["state"]["waiting"]["reason"] == "CrashLoopBackOff").await;
    let container = &status["containerStatuses"][0];
    assert_eq!(container["restartCount"], 1);
    assert_eq!(container["lastState"]["terminated"]["exitCode"], 3);
    assert_eq!(container["state"]["waiting"]["message"], "back-off 10s restarting failed container=c pod=a_default(uid-a)");
    assert_eq!(status["phase"], "Running");
    let logs = dir.path().join("pods/uid-a/logs/c");
    for number in 0..2 {
        std::fs::write(logs.join(format!("{number}.log")), format!("2026-01-01T00:00:00.000000000Z stdout F life {number}\n")).unwrap();
    }
    assert_eq!(control.logs("a", true).await, (200, "life 1\n".to_string()), "the one that lastState tells of");
    node.kill().await;
}

#[tokio::test]
async fn a_job_like_pod_ends() {
    let (dir, control, runtime) = setup();
    runtime.behave("hello:v1", Behaviour::Exits(0));
    let node = Node::start(dir.path(), &control, &runtime);
    control.subscribed().await;
    control.put(pod("a", json!({ "restartPolicy": "Never", "containers": [{ "name": "c", "image": "hello:v1" }] })));
    let status = control.status("a", |s| s["phase"] == "Succeeded").await;
    assert_eq!(status["containerStatuses"][0]["state"]["terminated"]["reason"], "Completed");
    assert_eq!(condition(&status, "Ready"), Some("False"));
    wait("the sandbox to go", || (runtime.count("remove_sandbox") > 0).then_some(())).await;
    node.kill().await;
}

#[tokio::test]
async fn missing_things_are_named_and_waited_for() {
    let (dir, control, runtime) = setup();
    let node = Node::start(dir.path(), &control, &runtime);
    control.subscribed().await;
    control.put(pod("env", json!({ "containers": [{ "name": "c", "image": "hello:v1", "envFrom": [{ "configMapRef": { "name": "late" } }] }] })));
    control.put(pod(
        "vol",
        json!({ "containers": [{ "name": "c", "image": "hello:v1" }], "volumes": [{ "name": "v", "configMap": { "name": "late" } }] }),
    ));
    control.put(pod("img", json!({ "containers": [{ "name": "c", "image": "none:v1", "imagePullPolicy": "Never" }] })));
    let waiting = |s: &Value| s["containerStatuses"][0]["state"]["waiting"].clone();
    let status = control.status("env", |s| waiting(s)["reason"] == "CreateContainerConfigError").await;
    assert_eq!(waiting(&status)["message"], "configmap \"late\" not found");
    // Its own report coming back is no reason to try again.
    let before = control.status_reports("env");
    control.put(json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "other", "namespace": "default" } }));
    let status = control.status("img", |s| waiting(s)["reason"] == "ErrImageNeverPull").await;
    assert_eq!(waiting(&status)["message"], "Container image \"none:v1\" is not present with pull policy of Never");
    control.events("vol", "FailedMount").await;
    assert_eq!(control.status_reports("env"), before);
    assert_eq!(runtime.count("create_container"), 0);
    control.put(json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "late", "namespace": "default" }, "data": { "K": "v" } }));
    control.status("env", ready).await;
    control.status("vol", ready).await;
    let spec = runtime.running().into_iter().find(|c| c.sandbox == "uid-env").unwrap();
    assert!(spec.env.contains(&("K".into(), "v".into())));
    assert_eq!(std::fs::read(dir.path().join("pods/uid-vol/volumes/v/K")).unwrap(), b"v");
    // And a change of it is seen in the volume.
    control.put(json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "late", "namespace": "default" }, "data": { "K": "w" } }));
    wait("the update", || (std::fs::read(dir.path().join("pods/uid-vol/volumes/v/K")).ok()? == b"w").then_some(())).await;
    node.kill().await;
}

#[tokio::test]
async fn what_a_wasm_pod_cannot_have_is_refused_once_with_the_remedy() {
    let (dir, control, runtime) = setup();
    let node = Node::start(dir.path(), &control, &runtime);
    control.subscribed().await;
    control.put(pod("a", json!({ "containers": [{ "name": "c", "image": "hello:v1", "livenessProbe": { "exec": { "command": ["true"] } } }] })));
    let status = control.status("a", |s| s["phase"] == "Failed").await;
    assert_eq!(status["reason"], "UnsupportedByRuntime");
    let message = status["message"].as_str().unwrap();
    assert!(message.contains("exec liveness probes") && message.contains("use an httpGet or tcpSocket probe"), "{message}");
    assert_eq!(runtime.count("run_sandbox"), 0);
    node.kill().await;
}

#[tokio::test]
async fn pods_that_do_not_fit_are_rejected_and_those_that_run_stay() {
    let (dir, control, runtime) = setup();
    let node = Node::start_with(dir.path(), &control, &runtime, |options| options.max_pods = 3);
    control.subscribed().await;
    control.put(json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "n1", "labels": { "disk": "ssd" } } }));
    let container = |cpu: &str| json!([{ "name": "c", "image": "hello:v1", "resources": { "requests": { "cpu": cpu } } }]);
    control.put(pod("large", json!({ "containers": container("1000") })));
    let status = control.status("large", |s| s["phase"] == "Failed").await;
    let cores = std::thread::available_parallelism().unwrap().get() * 1000;
    assert_eq!(status["reason"], "OutOfcpu");
    assert_eq!(status["message"], format!("Pod was rejected: Node didn't have enough resource: cpu, requested: 1000000, used: 0, capacity: {cores}"));
    assert!(status["containerStatuses"].is_null());
    assert_eq!(control.events("large", "OutOfcpu").await, ["OutOfcpu"]);
    control.put(pod("elsewhere", json!({ "containers": container("0"), "nodeSelector": { "disk": "hdd" } })));
    assert_eq!(control.status("elsewhere", |s| s["phase"] == "Failed").await["reason"], "NodeAffinity");
    // What failed takes no place.
    for name in ["a", "b", "c"] {
        control.put(pod(name, json!({ "containers": container("0"), "nodeSelector": { "disk": "ssd" } })));
        control.status(name, ready).await;
    }
    control.put(pod("d", json!({ "containers": container("0") })));
    let status = control.status("d", |s| s["phase"] == "Failed").await;
    assert_eq!(status["message"], "Pod was rejected: Node didn't have enough resource: pods, requested: 1, used: 3, capacity: 3");
    assert_eq!(runtime.count("run_sandbox"), 3);
    control.delete("a", 0);
    wait("the object to go", || control.object("pods", "default", "a").is_none().then_some(())).await;
    control.put(pod("e", json!({ "containers": container("0") })));
    control.status("e", ready).await;
    node.kill().await;
    // Fewer places than pods: nobody who runs is sent away.
    let node = Node::start_with(dir.path(), &control, &runtime, |options| options.max_pods = 1);
    node.handle.adopted().await;
    control.put(pod("f", json!({ "containers": container("0") })));
    assert_eq!(control.status("f", |s| s["phase"] == "Failed").await["reason"], "OutOfpods");
    assert_eq!(runtime.running().len(), 3);
    node.kill().await;
}

#[tokio::test]
async fn a_pod_whose_volume_grows_too_large_is_evicted() {
    let (dir, control, runtime) = setup();
    let node = Node::start(dir.path(), &control, &runtime);
    control.subscribed().await;
    let volumes = json!([{ "name": "v", "emptyDir": { "sizeLimit": "1Mi" } }]);
    let spec =
        json!({ "containers": [{ "name": "c", "image": "hello:v1", "volumeMounts": [{ "name": "v", "mountPath": "/v" }] }], "volumes": volumes });
    control.put(pod("a", spec.clone()));
    control.put(pod("b", spec));
    control.status("a", ready).await;
    control.status("b", ready).await;
    std::fs::write(dir.path().join("pods/uid-a/volumes/v/file"), vec![1; 2 << 20]).unwrap();
    let status = control.status("a", |s| s["phase"] == "Failed" && !s["containerStatuses"][0]["state"]["terminated"].is_null()).await;
    assert_eq!(status["reason"], "Evicted");
    assert_eq!(status["message"], "Usage of EmptyDir volume \"v\" exceeds the limit \"1Mi\". ");
    assert!(control.events("a", "Evicted").await.contains(&"Evicted".to_string()));
    wait("its space to be given back", || (!dir.path().join("pods/uid-a/volumes").exists()).then_some(())).await;
    assert_eq!(runtime.running().len(), 1, "and the other goes on");
    // Adopted, it is held to its limit as before.
    node.kill().await;
    let node = Node::start(dir.path(), &control, &runtime);
    node.handle.adopted().await;
    std::fs::write(dir.path().join("pods/uid-b/volumes/v/file"), vec![1; 2 << 20]).unwrap();
    control.status("b", |s| s["reason"] == "Evicted").await;
    node.kill().await;
}

#[tokio::test]
async fn hooks_are_run_after_the_start_and_before_the_stop() {
    let (dir, control, runtime) = setup();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, mut requests) = tokio::sync::mpsc::unbounded_channel();
    let running = runtime.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = vec![0; 1024];
            let n = tokio::io::AsyncReadExt::read(&mut stream, &mut request).await.unwrap();
            let line = String::from_utf8_lossy(&request[..n]).lines().next().unwrap().to_string();
            sender.send((line, running.running().len())).unwrap();
            let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").await;
        }
    });
    let node = Node::start(dir.path(), &control, &runtime);
    control.subscribed().await;
    let hook = |path: &str, port: u16| json!({ "httpGet": { "host": "127.0.0.1", "port": port, "path": path } });
    let lifecycle = json!({ "postStart": hook("/begin", port), "preStop": hook("/end", port) });
    control.put(pod("a", json!({ "containers": [{ "name": "c", "image": "hello:v1", "lifecycle": lifecycle }] })));
    control.status("a", ready).await;
    assert_eq!(requests.recv().await.unwrap(), ("GET /begin HTTP/1.1".to_string(), 1));
    control.delete("a", 30);
    assert_eq!(requests.recv().await.unwrap(), ("GET /end HTTP/1.1".to_string(), 1), "while it still runs");
    wait("the object to go", || control.object("pods", "default", "a").is_none().then_some(())).await;
    // Nobody answers: the container that was started is stopped again, and one that is to stop does so all the same.
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let lifecycle = json!({ "postStart": hook("/", closed) });
    control.put(pod("b", json!({ "restartPolicy": "Never", "containers": [{ "name": "c", "image": "hello:v1", "lifecycle": lifecycle }] })));
    let status = control.status("b", |s| s["phase"] == "Failed").await;
    assert_eq!(status["containerStatuses"][0]["state"]["terminated"]["exitCode"], 143);
    assert!(control.events("b", "FailedPostStartHook").await.contains(&"FailedPostStartHook".to_string()));
    let lifecycle = json!({ "preStop": hook("/", closed) });
    control.put(pod("d", json!({ "containers": [{ "name": "c", "image": "hello:v1", "lifecycle": lifecycle }] })));
    control.status("d", ready).await;
    control.delete("d", 30);
    wait("the object to go", || control.object("pods", "default", "d").is_none().then_some(())).await;
    assert!(control.events("d", "FailedPreStopHook").await.contains(&"FailedPreStopHook".to_string()));
    // An exec hook has no process to run in.
    let lifecycle = json!({ "preStop": { "exec": { "command": ["true"] } } });
    control.put(pod("e", json!({ "containers": [{ "name": "c", "image": "hello:v1", "lifecycle": lifecycle }] })));
    let status = control.status("e", |s| s["phase"] == "Failed").await;
    assert!(status["message"].as_str().unwrap().contains("use an httpGet or sleep hook"), "{status}");
    node.kill().await;
}

#[tokio::test]
async fn sidecars_hear_of_the_end_with_all_others_and_stop_after_them() {
    let (dir, control, runtime) = setup();
    import(dir.path(), "slow:v1");
    runtime.behave("slow:v1", Behaviour::Stubborn);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hook = json!({ "httpGet": { "host": "127.0.0.1", "port": listener.local_addr().unwrap().port() } });
    let node = Node::start(dir.path(), &control, &runtime);
    control.subscribed().await;
    let sidecar = json!({ "name": "s", "image": "hello:v1", "restartPolicy": "Always", "lifecycle": { "preStop": hook } });
    control.put(pod("a", json!({ "initContainers": [sidecar], "containers": [{ "name": "c", "image": "slow:v1" }] })));
    control.status("a", ready).await;
    control.delete("a", 600);
    let hooked =
        tokio::time::timeout(Duration::from_secs(20), listener.accept()).await.expect("its hook is run, although the other runs still").unwrap();
    drop(hooked);
    let stopped = || runtime.calls().into_iter().filter(|call| call.op == "stop_container").map(|call| call.on).collect::<Vec<_>>();
    wait("the other to be asked", || (!stopped().is_empty()).then_some(())).await;
    assert!(control.events("a", "FailedPreStopHook").await.contains(&"FailedPreStopHook".to_string()), "it got no answer");
    assert_eq!((stopped(), runtime.running().len()), (vec!["uid-a/c/0".to_string()], 2));
    assert!(runtime.exit("uid-a/c/0", 0, "Completed"));
    wait("the object to go", || control.object("pods", "default", "a").is_none().then_some(())).await;
    assert_eq!(stopped(), ["uid-a/c/0", "uid-a/s/0"]);
    // Who does not end in time keeps nobody waiting beyond the pod's grace.
    let sidecar = json!({ "name": "s", "image": "hello:v1", "restartPolicy": "Always" });
    control.put(pod("b", json!({ "initContainers": [sidecar], "containers": [{ "name": "c", "image": "slow:v1" }] })));
    control.status("b", ready).await;
    runtime.fail("stop_container", None, coracle_runtime::Error::again("Stuck", "cannot".into()));
    control.delete("b", 1);
    wait("the sidecar to be asked", || stopped().contains(&"uid-b/s/0".to_string()).then_some(())).await;
    // The agent has not given the other up by then, which it does after six tries.
    assert!(stopped().iter().filter(|id| **id == "uid-b/c/0").count() < 6, "{:?}", stopped());
    runtime.heal("stop_container");
    wait("the object to go", || control.object("pods", "default", "b").is_none().then_some(())).await;
    node.kill().await;
}

#[tokio::test]
async fn stopping_all_pods_names_the_late_and_reports_none_as_ended() {
    let (dir, control, runtime) = setup();
    import(dir.path(), "slow:v1");
    runtime.behave("slow:v1", Behaviour::Stubborn);
    let node = Node::start(dir.path(), &control, &runtime);
    control.subscribed().await;
    control.put(pod("a", json!({ "containers": [{ "name": "c", "image": "hello:v1" }] })));
    control.put(pod("b", json!({ "containers": [{ "name": "c", "image": "slow:v1" }], "terminationGracePeriodSeconds": 600 })));
    control.status("a", ready).await;
    control.status("b", ready).await;
    let late = node.handle.stop_pods(Duration::from_millis(300)).await;
    // The stubborn one is killed when its share of the bound is over, long before its own grace is.
    assert_eq!(late, ["default/b"]);
    assert!(runtime.running().is_empty());
    assert!(ready(&control.last_status("a").unwrap()));
    node.kill().await;

    let node = Node::start(dir.path(), &control, &runtime);
    wait("the pods to be back", || (runtime.running().len() == 2).then_some(())).await;
    runtime.fail("remove_sandbox", None, coracle_runtime::Error::again("Stuck", "cannot".into()));
    let late = node.handle.stop_pods(Duration::from_millis(300)).await;
    assert_eq!(late.len(), 2, "{late:?}");
    assert!(late.contains(&"default/a".to_string()));
    node.kill().await;
}

#[tokio::test]
async fn logs_dial_and_stats_are_served() {
    let (dir, control, runtime) = setup();
    let node = Node::start(dir.path(), &control, &runtime);
    control.subscribed().await;
    control.put(pod("a", json!({ "containers": [{ "name": "c", "image": "hello:v1" }] })));
    let status = control.status("a", ready).await;
    let log = runtime.running()[0].log_path.clone();
    std::fs::write(&log, "2026-01-01T00:00:00.000000000Z stdout F hello\n").unwrap();
    assert_eq!(control.logs("a", false).await, (200, "hello\n".to_string()));
    let (code, body) = control.logs("a", true).await;
    assert!(code == 400 && body.contains("previous terminated container"), "{code} {body}");

    let listener = tokio::net::TcpListener::bind((status["podIP"].as_str().unwrap(), 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let (mut read, mut write) = socket.split();
        tokio::io::copy(&mut read, &mut write).await.unwrap();
    });
    assert_eq!(control.dial("a", port, "echo").await, (200, "echo".to_string()));
    let (code, body) = control.dial("a", 1, "").await;
    assert!(code == 503 && body.contains("of pod default/a"), "{body}");

    let stats = control.stats().await;
    assert_eq!(stats["node"]["nodeName"], "n1");
    assert_eq!(stats["pods"][0]["podRef"]["name"], "a");
    node.kill().await;
}

#[tokio::test]
async fn tokens_are_asked_for_and_go_with_the_pod() {
    let (dir, control, runtime) = setup();
    let node = Node::start(dir.path(), &control, &runtime);
    control.subscribed().await;
    control.put(pod(
        "a",
        json!({ "serviceAccountName": "sa", "containers": [{ "name": "c", "image": "hello:v1",
        "volumeMounts": [{ "name": "t", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": true }] }],
        "volumes": [{ "name": "t", "projected": { "sources": [{ "serviceAccountToken": { "path": "token", "expirationSeconds": 3607 } }] } }] }),
    ));
    control.status("a", ready).await;
    let file = dir.path().join("pods/uid-a/volumes/t/token");
    assert_eq!(std::fs::read_to_string(&file).unwrap().split('.').count(), 3);
    let asked = control.token_requests();
    assert_eq!(asked[0]["spec"]["boundObjectRef"]["uid"], "uid-a");
    assert_eq!(asked[0]["spec"]["expirationSeconds"], 3607);
    let mount = &runtime.running()[0].mounts[0];
    assert!(mount.read_only && mount.host_path.join("token").exists());
    control.delete("a", 1);
    wait("the token to go", || (!file.exists()).then_some(())).await;
    node.kill().await;
}

/// A registry of one component, which is sent to the end only when it is told to be; its address.
async fn slow_registry(finish: watch::Receiver<bool>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let wasm = [b"\0asm\x0d\0\x01\0".as_slice(), &[0; 4 << 20]].concat();
    let digest = format!("sha256:{}", Sha256::digest(&wasm).iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    let layer = json!({ "mediaType": "application/wasm", "digest": digest, "size": wasm.len() });
    let config = json!({ "mediaType": "application/vnd.wasm.config.v0+json", "digest": digest, "size": 2 });
    let manifest = json!({ "schemaVersion": 2, "config": config, "layers": [layer] }).to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (mut finish, wasm, manifest) = (finish.clone(), wasm.clone(), manifest.clone());
            tokio::spawn(async move {
                let mut asked = Vec::new();
                while !asked.ends_with(b"\r\n\r\n") {
                    asked.push(stream.read_u8().await?);
                }
                let body = if String::from_utf8_lossy(&asked).contains("/manifests/") { manifest.into_bytes() } else { wasm };
                stream.write_all(format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len()).as_bytes()).await?;
                let (first, rest) = body.split_at(body.len() / 4 * 3);
                stream.write_all(first).await?;
                if body.len() > 1 << 20 {
                    _ = finish.wait_for(|finish| *finish).await;
                }
                stream.write_all(rest).await
            });
        }
    });
    address
}

#[tokio::test]
async fn a_pull_that_takes_its_time_says_how_far_it_is() {
    let (dir, control, runtime) = setup();
    let (finish, wait_for) = watch::channel(false);
    let address = slow_registry(wait_for).await;
    let node = Node::start_with(dir.path(), &control, &runtime, |options| options.pull_events = Duration::from_millis(50));
    control.subscribed().await;
    control.put(pod("a", json!({ "containers": [{ "name": "c", "image": format!("{address}/slow:v1") }] })));
    let words = format!("Still pulling image \"{address}/slow:v1\": 3 of 4 MiB received, 0 of 1 layers unpacked");
    wait("how far it is", || control.messages("a").contains(&words).then_some(())).await;
    finish.send(true).unwrap();
    control.status("a", ready).await;
    let messages = control.messages("a");
    assert!(messages.iter().any(|message| message.starts_with("Successfully pulled image")), "{messages:?}");
    node.kill().await;
}

#[tokio::test]
async fn many_pods_at_once() {
    let (dir, control, runtime) = setup();
    let node = Node::start(dir.path(), &control, &runtime);
    control.subscribed().await;
    for n in 0..200 {
        control.put(pod(&format!("p{n}"), json!({ "containers": [{ "name": "c", "image": "hello:v1" }] })));
    }
    for n in 0..200 {
        control.status(&format!("p{n}"), ready).await;
    }
    assert_eq!(runtime.running().len(), 200);
    node.kill().await;
}
