use crate::world::{World, left, lines, until};
use coracle_runtime::{ContainerSpec, Event, ImageConfig, ImageContent, LocalImage, Mount, Port, Resources, Runtime, SandboxSpec, State};
use coracle_runtime_oci::wire::Pod;
use coracle_runtime_wasm::WasmRuntime;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use sha2::{Digest, Sha256};
use std::{fs, pin::Pin, sync::Arc, time::Duration};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

type Case = fn() -> Pin<Box<dyn Future<Output = ()>>>;

/// By name.
pub fn all() -> Vec<(&'static str, Case)> {
    vec![
        ("a_component_and_a_server_reach_each_other_on_localhost", || Box::pin(a_component_and_a_server_reach_each_other_on_localhost())),
        ("volumes_logs_and_exit_codes_are_as_of_any_container", || Box::pin(volumes_logs_and_exit_codes_are_as_of_any_container())),
        ("memory_is_bounded_and_its_end_has_a_reason", || Box::pin(memory_is_bounded_and_its_end_has_a_reason())),
        ("limits_change_while_a_component_runs", || Box::pin(limits_change_while_a_component_runs())),
        ("a_host_has_no_power", || Box::pin(a_host_has_no_power())),
        ("components_are_among_the_processes_of_pods_that_share_theirs", || Box::pin(components_are_among_the_processes_of_pods_that_share_theirs())),
        ("components_outlive_the_agent_and_end_with_their_shim", || Box::pin(components_outlive_the_agent_and_end_with_their_shim())),
        ("what_cannot_run_is_said", || Box::pin(what_cannot_run_is_said())),
    ]
}

async fn again(dir: Arc<TempDir>) -> World {
    let wasm = WasmRuntime::new(coracle_runtime_wasm::Options::new(dir.path().to_owned())).await.expect("a wasm runtime");
    World::with(dir, Arc::new(wasm)).await
}

async fn world() -> World {
    again(Arc::new(tempfile::tempdir().expect("a temporary folder"))).await
}

fn component(world: &World, sandbox: &SandboxSpec, guest: &str, args: &[&str]) -> ContainerSpec {
    let path = coracle_tests::guest(guest).expect("a guest");
    let hex: String = Sha256::digest(fs::read(&path).expect("a guest")).iter().map(|byte| format!("{byte:02x}")).collect();
    let digest = format!("sha256:{hex}");
    let image = LocalImage {
        reference: format!("{guest}:v1"),
        digest: digest.clone(),
        content: ImageContent::Wasm { path, digest },
        config: ImageConfig::default(),
    };
    let args = args.iter().map(ToString::to_string).collect();
    let ports = if guest == "web" { vec![Port { name: None, port: 8080, protocol: "TCP".into() }] } else { Vec::new() };
    ContainerSpec { image, args, ports, ..world.container(sandbox, &[]) }
}

/// The process of a container, as the shim writes it down when it has answered.
async fn pid(sandbox: &SandboxSpec, id: &str) -> i32 {
    let mut found = None;
    let written = || {
        let text = fs::read(sandbox.dir.join("runtime/oci/state.json")).ok()?;
        let pod: Pod = serde_json::from_slice(&text).ok()?;
        pod.containers.into_iter().find(|(spec, ..)| spec.id() == id)?.2
    };
    until("its process", || {
        found = written();
        found.is_some()
    })
    .await;
    found.unwrap()
}

/// An HTTP request through the runtime's way into the pod.
async fn get(world: &World, sandbox: &SandboxSpec, target: &str) -> String {
    let mut stream = world.runtime.connect(&sandbox.pod.uid, 8080).await.expect("a connection");
    let request = format!("GET {target} HTTP/1.1\r\nhost: pod\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("a request");
    let mut text = String::new();
    stream.read_to_string(&mut text).await.expect("an answer");
    text
}

async fn a_component_and_a_server_reach_each_other_on_localhost() {
    let world = world().await;
    let sandbox = world.pod(|_| ()).await;
    // Loopback is for this pod alone, so only its own network can make this work.
    let server = world.container(
        &sandbox,
        &["sh", "-c", "ip link set lo up; mkdir /www; echo from the server > /www/index.html; httpd -f -p 127.0.0.1:9000 -h /www"],
    );
    let server = ContainerSpec { security: coracle_runtime::Security { privileged: true, ..Default::default() }, ..server };
    world.start(&server).await.unwrap();
    let sidecar = component(&world, &sandbox, "web", &[]);
    world.start(&sidecar).await.unwrap();
    let client = "until wget -qO- http://127.0.0.1:9000/; do sleep 0.1; done; wget -qO- 'http://localhost:8080/fetch?localhost:9000'; wget -qO- 'http://localhost:8080/log?said'";
    let (code, _, out) = world.finish(&world.container(&sandbox, &["sh", "-c", client])).await;
    let out: Vec<&str> = out.iter().filter_map(|line| line.strip_prefix("stdout F ")).collect();
    assert_eq!((code, out), (0, vec!["from the server", "fetched 200", "logged"]));
    let answer = get(&world, &sandbox, "/fetch?127.0.0.1:9000").await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("fetched 200"), "{answer}");
    until("its log", || lines(&sidecar.log_path) == ["stdout F said", "stderr F said on stderr"]).await;
    // A process of the other kind: sockets of its own, in the same network.
    let echo = component(&world, &sandbox, "probe", &["connect", "127.0.0.1:9000", "GET /"]);
    let (code, _, out) = world.finish(&echo).await;
    assert_eq!((code, out[0].as_str()), (0, "stdout F connected from 127.0.0.1"));
    // A request that fails is an event of the pod.
    get(&world, &sandbox, "/panic").await;
    let container = sidecar.name.clone();
    let message = world
        .event(|event| match event {
            Event::Notice { container: of, reason, message, .. } if *of == container && reason == "RequestFailed" => Some(message.clone()),
            _ => None,
        })
        .await;
    assert!(message.contains("trap"), "{message}");
    world.runtime.remove_sandbox(&sandbox.pod.uid).await.unwrap();
    until("nothing left", || left(&sandbox).is_empty()).await;
}

async fn volumes_logs_and_exit_codes_are_as_of_any_container() {
    let world = world().await;
    let sandbox = world.pod(|_| ()).await;
    let shared = world.path("shared");
    fs::create_dir_all(&shared).unwrap();
    fs::set_permissions(&shared, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let mount = |read_only| Mount { host_path: shared.canonicalize().unwrap(), container_path: "/data".into(), read_only, ..Default::default() };
    let writer = ContainerSpec { mounts: vec![mount(false)], ..world.container(&sandbox, &["sh", "-c", "echo from a process > /data/one"]) };
    assert_eq!(world.finish(&writer).await.0, 0);
    let mut reader = component(
        &world,
        &sandbox,
        "probe",
        &[
            "cat",
            "/data/one",
            "--",
            "write",
            "/data/two",
            "from",
            "a",
            "component",
            "--",
            "env",
            "GREETING",
            "--",
            "stderr",
            "oops",
            "--",
            "exit",
            "7",
        ],
    );
    reader.mounts = vec![mount(false)];
    reader.env = vec![("GREETING".into(), "hello".into())];
    let (code, reason, mut log) = world.finish(&reader).await;
    // Two pipes: no order between them.
    log.sort();
    assert_eq!((code, reason.as_str()), (7, "Error"));
    assert_eq!(log, ["stderr F oops", "stdout F GREETING=hello", "stdout F from a process"]);
    assert_eq!(fs::read_to_string(shared.join("two")).unwrap(), "from a component");
    let mut refused = component(&world, &sandbox, "probe", &["write", "/data/three", "no"]);
    refused.mounts = vec![mount(true)];
    let (code, _, log) = world.finish(&refused).await;
    assert!(code == 1 && log[0].contains("error"), "{code} {log:?}");
    // The same container again, as after a restart.
    let next = ContainerSpec { attempt: 1, args: vec!["hello".into()], ..reader.clone() };
    let (code, reason, log) = world.finish(&next).await;
    assert_eq!((code, reason.as_str(), log.last().map(String::as_str)), (0, "Completed", Some("stdout F hello from probe")));
    let stats = world.runtime.stats(&sandbox.pod.uid).await.unwrap();
    assert!(stats.containers.iter().any(|(name, stats)| *name == reader.name && stats.cpu_nanos > 0), "{stats:?}");
    // Stopped, a process without handlers ends as by SIGTERM; whoever serves finishes what it does.
    let sleeping = component(&world, &sandbox, "probe", &["count", "0", "20"]);
    let serving = component(&world, &sandbox, "web", &[]);
    for (spec, code) in [(&sleeping, 143), (&serving, 0)] {
        world.start(spec).await.unwrap();
        world.runtime.stop_container(&spec.id(), Duration::from_secs(20)).await.unwrap();
        assert_eq!(world.exit(&spec.id()).await.0, code);
    }
}

async fn memory_is_bounded_and_its_end_has_a_reason() {
    let world = world().await;
    let limit = 32 << 20;
    let sandbox = world.pod(|pod| pod.linux.resources.memory_limit = Some(limit)).await;
    let resources = Resources { memory_limit: Some(limit), ..Resources::default() };
    let mut fits = component(&world, &sandbox, "probe", &["allocate", "16"]);
    fits.resources = resources.clone();
    let (code, _, log) = world.finish(&fits).await;
    assert_eq!((code, log), (0, vec!["stdout F allocated 16".to_owned()]));
    let mut greedy = component(&world, &sandbox, "probe", &["allocate", "64"]);
    greedy.resources = resources;
    world.start(&greedy).await.unwrap();
    let (code, reason) = world.exit(&greedy.id()).await;
    assert_eq!((code, reason.as_str()), (137, "OOMKilled"));
    let list = world.runtime.list().await.unwrap();
    let status = list[0].containers.iter().find(|status| status.id == greedy.id()).unwrap();
    assert!(matches!(&status.state, State::Exited { message, .. } if message.contains("limits.memory")), "{status:?}");
    // Killed from outside, it is no process that ran out of memory.
    let victim = component(&world, &sandbox, "probe", &["count", "0", "50"]);
    world.start(&victim).await.unwrap();
    kill(Pid::from_raw(pid(&sandbox, &victim.id()).await), Signal::SIGKILL).unwrap();
    assert_eq!(world.exit(&victim.id()).await, (137, "Error".to_owned()));
}

async fn limits_change_while_a_component_runs() {
    let world = world().await;
    let bounded = |mebibytes: u64| Resources { memory_limit: Some(mebibytes << 20), ..Resources::default() };
    let sandbox = world.pod(|pod| pod.linux.resources = bounded(32)).await;
    let up = world.container(&sandbox, &["ip", "link", "set", "lo", "up"]);
    let up = ContainerSpec { security: coracle_runtime::Security { privileged: true, ..Default::default() }, ..up };
    assert_eq!(world.finish(&up).await.0, 0);
    let mut spec = component(&world, &sandbox, "web", &[]);
    spec.resources = bounded(32);
    world.start(&spec).await.unwrap();
    let resize = async |mebibytes: u64| world.runtime.resize(&sandbox.pod.uid, bounded(mebibytes), vec![(spec.id(), bounded(mebibytes))]).await;
    for (limit, status) in [(None, "HTTP/1.1 500"), (Some(256), "HTTP/1.1 200"), (Some(32), "HTTP/1.1 500")] {
        if let Some(limit) = limit {
            resize(limit).await.unwrap();
        }
        // Told by a signal, it may take another request meanwhile.
        tokio::time::timeout(crate::world::PATIENCE, async { while !get(&world, &sandbox, "/allocate?100").await.starts_with(status) {} })
            .await
            .unwrap_or_else(|_| panic!("never {status} with {limit:?}"));
    }
    let list = world.runtime.list().await.unwrap();
    let status = list[0].containers.iter().find(|status| status.id == spec.id()).unwrap();
    assert!(matches!(status.state, State::Running { .. }), "{status:?}");
}

async fn a_host_has_no_power() {
    let world = world().await;
    let sandbox = world.pod(|_| ()).await;
    let mut spec = component(&world, &sandbox, "web", &[]);
    spec.security.run_as_user = Some(0);
    spec.security.supplemental_groups = vec![4321];
    world.start(&spec).await.unwrap();
    let own = component(&world, &sandbox, "probe", &["count", "0", "50"]);
    let own =
        ContainerSpec { security: coracle_runtime::Security { run_as_user: Some(1234), run_as_group: Some(1235), ..Default::default() }, ..own };
    world.start(&own).await.unwrap();
    for (spec, uid, gid) in [(&spec, 65533, 65533), (&own, 1234, 1235)] {
        let pid = pid(&sandbox, &spec.id()).await;
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap_or_default().trim().to_owned();
        for (name, id) in [("Uid", uid), ("Gid", gid)] {
            assert_eq!(field(name), vec![id.to_string(); 4].join("\t"), "never root");
        }
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb", "CapBnd"] {
            assert_eq!(field(set), "0000000000000000", "{set}");
        }
        assert_eq!((field("NoNewPrivs").as_str(), field("Seccomp").as_str()), ("1", "2"));
        let namespace = |pid: i32, name: &str| fs::read_link(format!("/proc/{pid}/ns/{name}")).unwrap();
        let shim = crate::world::shims(&sandbox)[0];
        for name in ["net", "ipc", "uts"] {
            assert_eq!(namespace(pid, name), namespace(shim, name), "{name}");
            assert_ne!(namespace(pid, name), fs::read_link(format!("/proc/self/ns/{name}")).unwrap(), "{name}");
        }
        // Nothing of the machine's files and processes: an empty root, and a /proc with itself in it.
        for name in ["mnt", "pid"] {
            assert_ne!(namespace(pid, name), namespace(shim, name), "{name}");
        }
        assert_eq!(field("NSpid").split('\t').next_back(), Some("1"), "the first of its own");
        let names = |place: &str| {
            let entries = fs::read_dir(format!("/proc/{pid}/{place}")).unwrap();
            let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        };
        assert_eq!((names("root"), names("root/proc")), (vec!["proc".to_owned()], vec!["1".into(), "self".into(), "thread-self".into()]));
        assert_eq!(names("cwd"), names("root"));
        let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
        let mounts: Vec<Vec<&str>> = mounts.lines().map(|line| line.split(' ').collect()).collect();
        for (mount, (place, kind)) in mounts.iter().zip([("/", "tmpfs"), ("/proc", "proc")]) {
            assert!(mount[4] == place && mount[5].starts_with("ro,nosuid,nodev,noexec") && mount.contains(&kind), "{mount:?}");
        }
        assert_eq!(mounts.len(), 2, "{mounts:?}");
        let group = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
        assert!(group.contains(&format!("{}/{}-0", sandbox.pod.uid, spec.name)), "{group}");
        // Nothing came along but what it was given: streams, words, code, and what its own runtime opens.
        let targets: Vec<String> = fs::read_dir(format!("/proc/{pid}/fd"))
            .unwrap()
            .flatten()
            .map(|entry| fs::read_link(entry.path()).unwrap_or_default().display().to_string())
            .collect();
        assert!(!targets.iter().any(|target| target.contains("shim") || target.contains("state.json")), "{targets:?}");
        assert!(!targets.iter().any(|target| target.starts_with("/dev/") && target != "/dev/null"), "no device: {targets:?}");
    }
    assert!(fs::read_to_string(format!("/proc/{}/status", pid(&sandbox, &spec.id()).await)).unwrap().contains("4321"), "fsGroup and the like");
}

async fn components_are_among_the_processes_of_pods_that_share_theirs() {
    let world = world().await;
    let sandbox = world.pod(|sandbox| sandbox.linux.share_processes = true).await;
    let ending = component(&world, &sandbox, "probe", &["sleep", "100000"]);
    world.start(&ending).await.unwrap();
    // Another container sees its host, and ends it, as it would any process of the pod.
    let killer = world.container(&sandbox, &["sh", "-c", "for p in /proc/[0-9]*; do grep -qx 'NoNewPrivs:.1' $p/status && grep -qx 'Uid:.65533.*' $p/status && kill -9 ${p#/proc/} && echo killed; done"]);
    let (_, _, log) = world.finish(&killer).await;
    assert_eq!(log, ["stdout F killed"]);
    assert_eq!(world.exit(&ending.id()).await.0, 137);
}

async fn components_outlive_the_agent_and_end_with_their_shim() {
    let world = world().await;
    let sandbox = world.pod(|_| ()).await;
    let up = ContainerSpec {
        security: coracle_runtime::Security { privileged: true, ..Default::default() },
        ..world.container(&sandbox, &["ip", "link", "set", "lo", "up"])
    };
    assert_eq!(world.finish(&up).await.0, 0);
    let serving = component(&world, &sandbox, "web", &[]);
    let ending = component(&world, &sandbox, "probe", &["sleep", "300", "--", "hello", "--", "exit", "5"]);
    for spec in [&serving, &ending] {
        world.start(spec).await.unwrap();
    }
    let process = pid(&sandbox, &serving.id()).await;
    let dir = world.dir.clone();
    drop(world);
    until("the end of one", || fs::read_to_string(sandbox.dir.join("runtime/oci/state.json")).is_ok_and(|text| text.contains("\"code\":5"))).await;
    let world = again(dir).await;
    let list = world.runtime.list().await.unwrap();
    let state = |id: &str| list[0].containers.iter().find(|status| status.id == id).map(|status| status.state.clone());
    assert!(matches!(state(&ending.id()), Some(State::Exited { code: 5, .. })), "{list:?}");
    assert!(matches!(state(&serving.id()), Some(State::Running { .. })));
    assert_eq!((lines(&ending.log_path), pid(&sandbox, &serving.id()).await), (vec!["stdout F hello from probe".to_owned()], process));
    let answer = get(&world, &sandbox, "/served").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    kill(Pid::from_raw(crate::world::shims(&sandbox)[0]), Signal::SIGKILL).unwrap();
    let uid = sandbox.pod.uid.clone();
    world.event(|event| matches!(event, Event::SandboxLost { sandbox, .. } if *sandbox == uid).then_some(())).await;
    until("nothing left", || left(&sandbox).is_empty() && !fs::exists(format!("/proc/{process}")).unwrap_or(true)).await;
}

async fn what_cannot_run_is_said() {
    let world = world().await;
    let sandbox = world.pod(|_| ()).await;
    // One port for both of them.
    let first = component(&world, &sandbox, "web", &[]);
    world.start(&first).await.unwrap();
    let second = component(&world, &sandbox, "web", &[]);
    let why = world.start(&second).await.unwrap_err();
    assert!(why.reason == "RunContainerError" && why.message.contains("in use"), "{why:?}");
    // Nothing can be run in it.
    let exec = coracle_runtime::ExecSpec { container: first.id(), command: vec!["true".into()], ..Default::default() };
    let why = world.runtime.exec(exec).await.unwrap_err();
    assert!(why.message.contains("nothing can be run in a wasm container"), "{why}");
    // Less than it begins with.
    let mut small = component(&world, &sandbox, "web", &[]);
    small.resources.memory_limit = Some(1 << 10);
    let why = world.start(&small).await.unwrap_err();
    assert!(why.fatal && why.message.contains("limits.memory"), "{why:?}");
    // The pod goes on.
    assert_eq!(world.finish(&world.container(&sandbox, &["true"])).await.0, 0);
}
