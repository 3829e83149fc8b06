//! The processes: who they are, and what survives whom.

use crate::{cases, world::*};
use coracle_runtime::{Event, Runtime, State};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

cases![
    hosts_are_confined,
    hosts_are_out_of_reach_of_their_uid,
    hosts_survive_the_agent_and_are_adopted,
    hosts_that_die_are_replaced_and_no_connection_is_refused,
    hosts_that_die_end_their_processes,
    hosts_end_with_the_data_directory,
    supervisor_lost_is_said_and_healed,
    supervisor_that_hangs_up_loses_nothing,
    supervisor_that_does_not_answer_is_replaced,
    hosts_have_a_control_group,
    hosts_serve_many_pods,
    hosts_of_another_engine_are_replaced,
    hosts_are_told_more_than_a_socket_holds,
];

fn status(pid: i32, field: &str) -> String {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    text.lines()
        .find_map(|line| line.strip_prefix(field))
        .unwrap_or_default()
        .trim_start_matches(':')
        .split_whitespace()
        .next()
        .unwrap_or_default()
        .to_owned()
}

async fn hosts_are_confined() {
    let world = World::new().await;
    let (_, _) = world.run(&world.built("hello"), |_| {}).await;
    let (supervisor, hosts) = world.processes();
    assert_eq!(hosts.len(), 2);
    let root = nix::unistd::geteuid().is_root();
    for pid in hosts.iter().chain([&supervisor]) {
        assert_eq!(status(*pid, "CapEff"), "0000000000000000");
        assert_eq!(status(*pid, "NoNewPrivs"), "1");
        if root {
            assert_eq!((status(*pid, "Uid").as_str(), status(*pid, "Groups").as_str()), ("65533", ""));
        }
        assert_eq!(status(*pid, "Seccomp"), "2");
        assert_eq!(status(*pid, "Threads"), "1");
    }
    // Opened before it could not be any more: without it every used page would be written anew.
    for pid in hosts.iter().filter(|_| root) {
        let open = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten().filter_map(|fd| std::fs::read_link(fd.path()).ok());
        assert_eq!(open.filter(|file| file.ends_with("pagemap")).count(), 1);
    }
}

/// What a process of uid 65533, with nothing else in its way, is told when it does `attempt`; none: it works.
#[allow(unsafe_code, reason = "system calls of an attacker")]
fn as_host_user(attempt: impl Fn() -> std::io::Result<()> + Send + Sync + 'static) -> Option<std::io::ErrorKind> {
    use std::os::unix::process::CommandExt;
    let mut command = std::process::Command::new("/bin/true");
    command.uid(65533).gid(65533);
    // SAFETY: runs in a child of its own that makes a few system calls and then execs or ends.
    unsafe { command.pre_exec(attempt) };
    match command.status() {
        Ok(_) => None,
        Err(error) => Some(error.kind()),
    }
}

#[allow(unsafe_code, reason = "system calls of an attacker")]
fn trace(pid: i32) -> std::io::Result<()> {
    // SAFETY: integers only; the tracer ends at once and lets go.
    match unsafe { libc::ptrace(libc::PTRACE_SEIZE, pid, 0, 0) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

async fn hosts_are_out_of_reach_of_their_uid() {
    use std::{fs::File, io::ErrorKind::PermissionDenied, os::unix::process::CommandExt};
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let world = World::new().await;
    world.run(&world.built("hello"), |_| {}).await;
    let (supervisor, hosts) = world.processes();
    // An ordinary process of that uid, to see that the attempts are real ones.
    let mut plain = std::process::Command::new("/bin/sleep").arg("1000").uid(65533).gid(65533).spawn().unwrap();
    let own = plain.id() as i32;
    for (file, write) in [("mem", true), ("mem", false), ("environ", false), ("pagemap", false)] {
        let open = |pid: i32| as_host_user(move || File::options().read(!write).write(write).open(format!("/proc/{pid}/{file}")).map(|_| ()));
        assert_eq!(open(own), None, "{file}");
        for pid in hosts.iter().chain([&supervisor]) {
            assert_eq!(open(*pid), Some(PermissionDenied), "{file} of {pid}");
        }
    }
    // Where Yama is, nobody traces but parents.
    let yama = std::fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").is_ok_and(|scope| scope.trim() != "0");
    assert_eq!(as_host_user(move || trace(own)), yama.then_some(PermissionDenied));
    for pid in hosts.into_iter().chain([supervisor]) {
        assert_eq!(as_host_user(move || trace(pid)), Some(PermissionDenied));
    }
    plain.kill().unwrap();
    plain.wait().unwrap();
}

async fn hosts_survive_the_agent_and_are_adopted() {
    let world = World::new().await;
    let (served, web) = world.run(&world.built("web"), |_| {}).await;
    let (_, job) = world.run(&world.built("probe"), |spec| spec.args = ["sleep", "1500", "--", "exit", "3"].map(str::to_owned).to_vec()).await;
    let (supervisor, _) = world.processes();
    let started = world.state(&web).await;
    let world = world.restart_agent().await;
    assert_eq!(get(served.ip, 8080, "/served").await.unwrap().0, 200);
    assert_eq!(world.processes().0, supervisor, "the same processes");
    assert_eq!(world.state(&web).await, started, "and the same containers, running since the same time");
    assert!(matches!(world.state(&job).await, Some(State::Running { .. })));
    world.runtime.start_container(&web).await.unwrap();
    assert_eq!(world.exit(&job).await.0, 3, "its end is heard by the new agent");
    // What ends while nobody is there is listed.
    let (_, quick) = world.run(&world.built("probe"), |spec| spec.args = ["sleep", "200", "--", "exit", "5"].map(str::to_owned).to_vec()).await;
    let world = world.restart_agent().await;
    until("its end is listed", async || matches!(world.state(&quick).await, Some(State::Exited { code: 5, .. }))).await;
    // New pods run in the old processes.
    let (new, _) = world.run(&world.built("hello"), |_| {}).await;
    assert_eq!(get(new.ip, 8080, "/").await.unwrap().0, 200);
    world.runtime.stop_container(&web, Duration::from_secs(1)).await.unwrap();
    assert!(get(served.ip, 8080, "/").await.is_err());
}

async fn hosts_that_die_are_replaced_and_no_connection_is_refused() {
    let world = World::new().await;
    let (sandbox, id) = world.run(&world.built("hello"), |_| {}).await;
    let (_, before) = world.processes();
    let (done, refused) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (stop, flag, ip) = (done.clone(), refused.clone(), sandbox.ip);
    // Connections come in all the time; each is answered or cut (its host died with it), but never refused.
    let knocking = tokio::spawn(async move {
        let mut answered = 0;
        while !stop.load(Relaxed) {
            match get(ip, 8080, "/").await {
                Ok((200, _)) => answered += 1,
                Err(error) if error.contains("refused") => flag.store(true, Relaxed),
                _ => {}
            }
        }
        answered
    });
    for pid in &before {
        kill(Pid::from_raw(*pid), Signal::SIGKILL).unwrap();
        until("it is replaced", async || {
            let (_, now) = world.processes();
            now.len() == 2 && !now.contains(pid)
        })
        .await;
    }
    // Both new hosts answer: the kernel spreads connections over them.
    for _ in 0..40 {
        assert_eq!(get(sandbox.ip, 8080, "/").await.unwrap().0, 200);
    }
    done.store(true, Relaxed);
    assert!(knocking.await.unwrap() > 0);
    assert!(!refused.load(Relaxed), "a connection was refused");
    assert!(matches!(world.state(&id).await, Some(State::Running { .. })));
}

async fn hosts_that_die_end_their_processes() {
    let world = World::new().await;
    let image = world.built("probe");
    let (_, one) = world.run(&image, |spec| spec.args = ["sleep", "1000000"].map(str::to_owned).to_vec()).await;
    let (_, two) = world.run(&image, |spec| spec.args = ["sleep", "1000000"].map(str::to_owned).to_vec()).await;
    // One process in each host, since they are placed where there is least to do.
    let (_, hosts) = world.processes();
    kill(Pid::from_raw(hosts[0]), Signal::SIGKILL).unwrap();
    let (id, code, message) = world
        .event("exit", |event| match event {
            Event::Container { status, .. } => match &status.state {
                State::Exited { code, message, .. } => Some((status.id.clone(), *code, message.clone())),
                _ => None,
            },
            _ => None,
        })
        .await;
    assert_eq!(code, 137);
    assert!(message.contains("SIGKILL"), "{message}");
    let other = if id == one { two } else { one };
    assert!(matches!(world.state(&other).await, Some(State::Running { .. })));
}

async fn hosts_end_with_the_data_directory() {
    let world = World::new().await;
    world.run(&world.built("hello"), |_| {}).await;
    let (supervisor, hosts) = world.processes();
    std::fs::remove_dir_all(world.dir.path()).unwrap();
    until("they are gone", async || !alive(supervisor) && hosts.iter().all(|pid| !alive(*pid))).await;
}

async fn supervisor_lost_is_said_and_healed() {
    let world = World::new().await;
    let (sandbox, _) = world.run(&world.built("hello"), |_| {}).await;
    let (supervisor, hosts) = world.processes();
    kill(Pid::from_raw(supervisor), Signal::SIGKILL).unwrap();
    let lost = world
        .event("loss", |event| match event {
            Event::SandboxLost { sandbox, .. } => Some(sandbox.clone()),
            _ => None,
        })
        .await;
    assert_eq!(lost, sandbox.pod.uid);
    until("its hosts are gone", async || hosts.iter().all(|pid| !alive(*pid))).await;
    assert!(world.runtime.list().await.unwrap().is_empty());
    let (again, _) = world.run(&world.built("hello"), |_| {}).await;
    assert_eq!(get(again.ip, 8080, "/").await.unwrap().0, 200);
}

async fn hosts_serve_many_pods() {
    let world = World::new().await;
    let image = world.built("hello");
    let mut pods = Vec::new();
    for _ in 0..200 {
        pods.push(world.run(&image, |_| {}).await);
    }
    for (sandbox, _) in &pods {
        assert_eq!(get(sandbox.ip, 8080, "/").await.unwrap().0, 200);
    }
    assert_eq!(world.runtime.list().await.unwrap().len(), 200);
    for (sandbox, _) in &pods {
        world.runtime.remove_sandbox(&sandbox.pod.uid).await.unwrap();
    }
    assert!(world.runtime.list().await.unwrap().is_empty());
}

async fn hosts_of_another_engine_are_replaced() {
    use coracle_runtime_wasm::{
        SUPERVISOR,
        agent::{self, Connection},
        wire::{Answer, Ask, Happened, VERSION},
    };
    let world = World::new().await;
    // As an agent of another build left it: a supervisor with a pod.
    let run_dir = world.dir.path().join("run/wasm");
    let socket = std::os::unix::net::UnixListener::bind(run_dir.join("control.sock")).unwrap();
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.arg(SUPERVISOR).arg(&run_dir).args(["2", "another", "-"]).stdin(std::os::fd::OwnedFd::from(socket));
    if let Some((uid, gid)) = options(world.dir.path()).drop_to {
        command.args([uid.to_string(), gid.to_string()]);
    }
    let mut child = command.spawn().unwrap();
    // It holds the socket too, which would then be there for ever.
    drop(command);
    let stream = std::os::unix::net::UnixStream::connect(run_dir.join("control.sock")).unwrap();
    stream.set_nonblocking(true).unwrap();
    let (events, _heard) = tokio::sync::mpsc::unbounded_channel::<Happened>();
    let before = Connection::new(stream.into(), events).unwrap();
    let hello = before.ask(Ask::Hello { version: VERSION }, Vec::new()).await.unwrap().unwrap();
    assert!(matches!(hello, Answer::Hello { engine, .. } if engine == "another"));
    before.ask(Ask::RunSandbox(Box::new(world.sandbox())), Vec::new()).await.unwrap().unwrap();
    assert_eq!(agent::list(&before).await.unwrap().len(), 1);
    let world = world.restart_agent().await;
    assert!(world.runtime.list().await.unwrap().is_empty(), "its pods are not adopted");
    assert!(!alive(child.id() as i32), "it is gone before anything else starts");
    child.wait().unwrap();
    let (pod, _) = world.run(&world.built("hello"), |_| {}).await;
    assert_eq!(get(pod.ip, 8080, "/").await.unwrap().0, 200);
    // Its own is kept.
    let (supervisor, _) = world.processes();
    let world = world.restart_agent().await;
    assert_eq!(world.runtime.list().await.unwrap().len(), 1);
    assert_eq!(world.processes().0, supervisor);
}

async fn hosts_are_told_more_than_a_socket_holds() {
    let world = World::new().await;
    let image = world.built("hello");
    // Near the limit, of bytes that become six in JSON: together more than may wait on a link.
    let env: Vec<(String, String)> = (0..15).map(|n| (format!("N{n:03}"), "\u{1}".repeat((128 << 10) - 8))).collect();
    let mut pods = Vec::new();
    for _ in 0..8 {
        pods.push(world.run(&image, |spec| spec.env = env.clone()).await);
    }
    // One more is refused, and disturbs nobody.
    let sandbox = world.sandbox();
    world.runtime.run_sandbox(sandbox.clone()).await.unwrap();
    let mut spec = world.container(&sandbox, &image);
    spec.env = [&env[..], &env[..]].concat();
    let error = world.runtime.create_container(spec).await.unwrap_err();
    assert!(error.fatal && error.message.contains("container main"), "{error}");
    let (supervisor, hosts) = world.processes();
    let (killed, kept) = (hosts[0], hosts[1]);
    kill(Pid::from_raw(killed), Signal::SIGKILL).unwrap();
    until("it is replaced", async || {
        let (_, now) = world.processes();
        now.len() == 2 && !now.contains(&killed)
    })
    .await;
    for (sandbox, _) in &pods {
        for _ in 0..10 {
            assert_eq!(get(sandbox.ip, 8080, "/").await.unwrap().0, 200);
        }
    }
    let world = world.restart_agent().await;
    assert_eq!(world.runtime.list().await.unwrap().len(), 9);
    let (now, hosts) = world.processes();
    assert!(now == supervisor && hosts.contains(&kept), "nobody else has died of it");
    for (_, id) in &pods {
        world.runtime.stop_container(id, Duration::from_secs(1)).await.unwrap();
    }
}

async fn supervisor_that_hangs_up_loses_nothing() {
    let world = World::new().await;
    let (sandbox, id) = world.run(&world.built("hello"), |_| {}).await;
    // A stranger on the socket is taken for a newer agent; talking nonsense, it is cut off.
    let mut stranger = tokio::net::UnixStream::connect(world.dir.path().join("run/wasm/control.sock")).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut stranger, b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut rest = Vec::new();
    tokio::io::AsyncReadExt::read_to_end(&mut stranger, &mut rest).await.unwrap();
    // A request that was under way when the agent was cut off fails, and is asked again.
    let listed =
        async || world.runtime.list().await.is_ok_and(|list| list.iter().flat_map(|sandbox| &sandbox.containers).any(|found| found.id == id));
    until("the agent is heard again", listed).await;
    assert_eq!(get(sandbox.ip, 8080, "/").await.unwrap().0, 200);
    world.runtime.stop_container(&id, Duration::from_secs(1)).await.unwrap();
    assert_eq!(world.exit(&id).await.0, 0, "its end is heard");
}

async fn supervisor_that_does_not_answer_is_replaced() {
    let world = World::impatient().await;
    let (sandbox, _) = world.run(&world.built("hello"), |_| {}).await;
    let (supervisor, hosts) = world.processes();
    kill(Pid::from_raw(supervisor), Signal::SIGSTOP).unwrap();
    // A new agent begins with a deaf supervisor.
    let world = world.restart_agent().await;
    assert!(world.runtime.list().await.unwrap().is_empty(), "its pods go with it");
    until("it and its hosts are gone", async || !alive(supervisor) && hosts.iter().all(|pid| !alive(*pid))).await;
    let (sandbox, id) = {
        let mut spec = world.container(&sandbox, &world.built("hello"));
        world.runtime.run_sandbox(sandbox.clone()).await.unwrap();
        spec.attempt = 1;
        let id = world.runtime.create_container(spec).await.unwrap();
        world.runtime.start_container(&id).await.unwrap();
        (sandbox, id)
    };
    assert_eq!(get(sandbox.ip, 8080, "/").await.unwrap().0, 200);
    // One that stops listening later is found out by the first who asks, and its pods are said to be lost.
    let (supervisor, _) = world.processes();
    kill(Pid::from_raw(supervisor), Signal::SIGSTOP).unwrap();
    let error = world.runtime.stats(&sandbox.pod.uid).await.unwrap_err();
    assert!(!error.fatal && error.message.contains("did not answer"), "{error}");
    let lost = world
        .event("loss", |event| match event {
            Event::SandboxLost { sandbox, .. } => Some(sandbox.clone()),
            _ => None,
        })
        .await;
    assert_eq!(lost, sandbox.pod.uid);
    assert!(!alive(supervisor));
    assert_eq!(world.state(&id).await, None);
    let (again, _) = world.run(&world.built("hello"), |_| {}).await;
    assert_eq!(get(again.ip, 8080, "/").await.unwrap().0, 200);
}

async fn hosts_have_a_control_group() {
    use coracle_runtime::{Resources, cgroup::Trees};
    use std::{fs, os::unix::fs::MetadataExt, path::Path};
    let writable = Trees::find().is_ok() && fs::metadata("/sys/fs/cgroup").is_ok() && nix::unistd::geteuid().is_root();
    let world = World::new().await;
    let place = fs::metadata(world.dir.path().join("run/wasm")).unwrap();
    let group = format!("coracle/wasm-{:x}-{:x}", place.dev(), place.ino());
    let file = |name: &str| {
        let mut trees = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|tree| tree.path()).collect::<Vec<_>>();
        trees.push("/sys/fs/cgroup".into());
        trees.into_iter().find_map(|tree| fs::read_to_string(tree.join(&group).join(name)).ok()).map(|text| text.trim().to_owned())
    };
    if !writable || file("pids.max").is_none() {
        eprintln!("no control groups to write: not tested");
        return;
    }
    let (sandbox, id) =
        world.run(&world.built("hello"), |spec| spec.resources = Resources { cpu_request_millis: Some(750), ..spec.resources.clone() }).await;
    let (supervisor, hosts) = world.processes();
    for pid in hosts.iter().chain([&supervisor]) {
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
        let in_it = |controller: &str| {
            groups
                .lines()
                .any(|line| line.split(':').nth(1).is_some_and(|c| c.is_empty() || c.split(',').any(|c| c == controller)) && line.ends_with(&group))
        };
        assert!(in_it("cpu") && in_it("pids"), "{groups}");
    }
    let shares = || file("cpu.shares").or_else(|| file("cpu.weight"));
    assert!(shares() == Some("1024".into()) || shares() == Some("39".into()), "{:?}", shares());
    assert_eq!(file("pids.max"), Some("320".into()));
    world.runtime.stop_container(&id, Duration::ZERO).await.unwrap();
    world.runtime.remove_sandbox(&sandbox.pod.uid).await.unwrap();
    assert!(shares() == Some("256".into()) || shares() == Some("10".into()), "{:?}", shares());
    world.runtime.shutdown().await;
    assert_eq!(file("pids.max"), None, "it goes with them");
    assert!(Path::new("/sys/fs/cgroup").is_dir() && !alive(supervisor));
}
