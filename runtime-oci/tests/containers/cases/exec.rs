use crate::world::{World, lines, until};
use coracle_runtime::{ContainerId, ExecSpec, Mount, Runtime, Seccomp, Session, Standard, cgroup::Trees};
use std::{fs, time::Duration};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const ALL: Standard = Standard { stdin: true, stdout: true, stderr: true };

fn spec(container: &ContainerId, command: &[&str]) -> ExecSpec {
    ExecSpec { container: container.clone(), command: command.iter().map(ToString::to_string).collect(), streams: ALL, tty: false, timeout: None }
}

/// Runs it to its end with that input: exit code, output, complaints.
async fn run(world: &World, spec: ExecSpec, input: &str) -> (i32, String, String) {
    let session = world.runtime.exec(spec).await.unwrap_or_else(|why| panic!("{} {}", why.reason, why.message));
    finish(session, input).await
}

async fn finish(session: Session, input: &str) -> (i32, String, String) {
    let Session { stdin, stdout, stderr, exit, .. } = session;
    if let Some(mut stdin) = stdin {
        // A program need not read it.
        _ = stdin.write_all(input.as_bytes()).await;
        _ = stdin.shutdown().await;
    }
    let (mut out, mut err) = (String::new(), String::new());
    if let Some(mut stdout) = stdout {
        stdout.read_to_string(&mut out).await.unwrap();
    }
    if let Some(mut stderr) = stderr {
        stderr.read_to_string(&mut err).await.unwrap();
    }
    (exit.await.unwrap(), out, err)
}

/// A container that only waits.
async fn idle(world: &World, change: impl FnOnce(&mut coracle_runtime::ContainerSpec)) -> ContainerId {
    let sandbox = world.pod(|_| ()).await;
    let mut spec = world.container(&sandbox, &["sleep", "1000"]);
    change(&mut spec);
    world.start(&spec).await.unwrap()
}

pub async fn programs_run_beside_the_first() {
    let world = World::new().await;
    let id = idle(&world, |spec| spec.env = vec![("OWN".into(), "variable".into())]).await;
    let script = "cat; echo $OWN $FROM; echo complaint >&2; ps -o args | grep -c 'sleep 100[0]'; exit 3";
    assert_eq!(run(&world, spec(&id, &["sh", "-c", script]), "input\n").await, (3, "input\nvariable image\n1\n".into(), "complaint\n".into()));
    let big = "x".repeat(300_000);
    let (code, out, _) = run(&world, spec(&id, &["wc", "-c"]), &big).await;
    assert_eq!((code, out.trim()), (0, "300000"));
    // Nothing is held: no stream, and the program's is /dev/null.
    let mut none = spec(&id, &["sh", "-c", "cat; echo x; kill -9 $$"]);
    none.streams = Standard::default();
    assert_eq!(run(&world, none, "").await.0, 137);
    let mut many = Vec::new();
    for number in 0..20 {
        many.push(world.runtime.exec(spec(&id, &["sh", "-c", &format!("exit {number}")])).await.unwrap());
    }
    for (number, session) in many.into_iter().enumerate() {
        assert_eq!(finish(session, "").await.0, i32::try_from(number).unwrap());
    }
    world.runtime.stop_container(&id, Duration::ZERO).await.unwrap();
    assert!(world.runtime.exec(spec(&id, &["true"])).await.unwrap_err().message.contains("does not run"));
}

const SELF: &str = "grep -E '^(Uid|Gid|Groups|Cap...|NoNewPrivs|Seccomp|Seccomp_filters):' /proc/self/status; cat /proc/self/cgroup /proc/self/oom_score_adj; pwd; for n in cgroup ipc mnt net pid uts; do readlink /proc/self/ns/$n; done";

/// Two ways to the same process: the one must not have more than the other.
pub async fn a_program_has_what_the_first_process_has() {
    let world = World::new().await;
    let profile = world.path("profile.json");
    fs::write(&profile, r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO"}]}"#).unwrap();
    type Change = Box<dyn Fn(&mut coracle_runtime::ContainerSpec)>;
    let changes: Vec<Change> = vec![
        Box::new(|_| ()),
        Box::new(|spec| spec.security.seccomp = Seccomp::RuntimeDefault),
        Box::new(|spec| {
            spec.security.seccomp = Seccomp::RuntimeDefault;
            spec.security.allow_privilege_escalation = Some(false);
            (spec.security.run_as_user, spec.security.run_as_group) = (Some(33), Some(7));
            spec.security.supplemental_groups = vec![5, 6];
            spec.working_dir = Some("/home".into());
        }),
        Box::new(|spec| {
            spec.security.drop = vec!["ALL".into()];
            spec.security.add = vec!["NET_BIND_SERVICE".into()];
            spec.security.run_as_user = Some(1234);
        }),
        Box::new(move |spec| spec.security.seccomp = Seccomp::Localhost(profile.clone())),
        Box::new(|spec| spec.security.privileged = true),
    ];
    for (number, change) in changes.iter().enumerate() {
        let sandbox = world.pod(|_| ()).await;
        let mut container = world.container(&sandbox, &["sh", "-c", &format!("{SELF}; echo over; sleep 1000")]);
        change(&mut container);
        let id = world.start(&container).await.unwrap();
        until("what the first one is", || lines(&container.log_path).last().is_some_and(|line| line.ends_with("over"))).await;
        let mut first: Vec<String> = lines(&container.log_path).iter().map(|line| line[9..].to_owned()).collect();
        first.pop();
        let (code, out, err) = run(&world, spec(&id, &["sh", "-c", SELF]), "").await;
        assert_eq!((code, err.as_str()), (0, ""), "{number}");
        assert_eq!(out.lines().collect::<Vec<_>>(), first, "{number}");
        let (_, out, err) =
            run(&world, spec(&id, &["sh", "-c", "busybox mkdir /dev/shm/x && echo made; unshare -U true && echo unshared"]), "").await;
        assert_eq!(out.contains("made"), number != 4, "{number}: {out}{err}");
        assert_eq!(out.contains("unshared"), ![1, 2].contains(&number), "{number}: {out}{err}");
    }
}

pub async fn what_cannot_be_run_says_why() {
    let world = World::new().await;
    let id = idle(&world, |_| ()).await;
    for (program, why) in [
        ("none", "unable to start container process: exec: \"none\": executable file not found in $PATH"),
        ("/none", "unable to start container process: exec: \"/none\": stat /none: no such file or directory"),
        ("data", "unable to start container process: exec: \"data\": permission denied"),
    ] {
        let failed = world.runtime.exec(spec(&id, &[program])).await.unwrap_err();
        assert_eq!((failed.reason.as_str(), failed.message.as_str()), ("ExecError", why));
    }
    assert!(world.runtime.exec(spec(&"no/such/0".to_owned(), &["true"])).await.is_err());
    let (mut held, mut refused) = (Vec::new(), None);
    while refused.is_none() && held.len() < 100 {
        match world.runtime.exec(spec(&id, &["sleep", "1000"])).await {
            Ok(session) => held.push(session),
            Err(why) => refused = Some(why.message),
        }
    }
    let refused = refused.unwrap();
    // The pod's own limit of processes may come first.
    assert!(refused.contains("already") || refused.contains("Resource temporarily unavailable") || refused.contains("EAGAIN"), "{refused}");
}

fn sleepers(number: u32) -> usize {
    let line = format!("sleep\0{number}\0");
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes.filter(|entry| fs::read_to_string(entry.path().join("cmdline")).is_ok_and(|text| text == line)).count()
}

pub async fn programs_end_with_their_session_and_their_time() {
    let world = World::new().await;
    let id = idle(&world, |_| ()).await;
    let number = 70_000 + std::process::id() % 10_000;
    let sleep = number.to_string();
    let session = world.runtime.exec(spec(&id, &["sleep", &sleep])).await.unwrap();
    assert_eq!(sleepers(number), 1);
    drop(session);
    until("its end", || sleepers(number) == 0).await;
    let mut short = spec(&id, &["sh", "-c", &format!("sleep {sleep}; true")]);
    short.timeout = Some(Duration::from_millis(200));
    assert_eq!(run(&world, short, "").await.0, 137, "it is killed with what it started");
    until("its end", || sleepers(number) == 0).await;
    // The agent goes, and what it ran for somebody goes too.
    let held = world.runtime.exec(spec(&id, &["sleep", &sleep])).await.unwrap();
    assert_eq!(sleepers(number), 1);
    let dir = world.dir.clone();
    drop(world.runtime);
    until("its end", || sleepers(number) == 0).await;
    assert!(held.exit.await.is_err());
    // A killed container ends all of them.
    let world = World::again(dir).await;
    world.runtime.list().await.unwrap();
    let held = world.runtime.exec(spec(&id, &["sleep", &sleep])).await.unwrap();
    world.runtime.stop_container(&id, Duration::ZERO).await.unwrap();
    assert_eq!(held.exit.await.unwrap(), 137);
}

pub async fn a_terminal_is_one() {
    let world = World::new().await;
    let id = idle(&world, |_| ()).await;
    let mut wanted =
        spec(&id, &["sh", "-c", "test -t 0 && test -t 1 && test -t 2 && echo terminal $TERM; read line; stty size; echo got $line; exit 4"]);
    wanted.tty = true;
    let Session { stdin, stdout, stderr, resize, exit } = world.runtime.exec(wanted).await.unwrap();
    assert!(stderr.is_none());
    resize.unwrap().resize(123, 45);
    let (mut stdin, mut stdout) = (stdin.unwrap(), stdout.unwrap());
    stdin.write_all(b"typed\n").await.unwrap();
    let mut out = String::new();
    stdout.read_to_string(&mut out).await.unwrap();
    assert_eq!(exit.await.unwrap(), 4);
    for part in ["terminal xterm", "45 123", "got typed"] {
        assert!(out.contains(part), "{part}: {out:?}");
    }
}

/// CVE-2024-21626 and CVE-2019-5736, by way of exec.
pub async fn nothing_of_the_machine_comes_along() {
    let world = World::new().await;
    let id = idle(&world, |_| ()).await;
    let (_, out, _) = run(&world, spec(&id, &["sh", "-c", "ls /proc/self/fd | wc -l"]), "").await;
    assert_eq!(out.trim(), "4", "0, 1, 2 and the directory that ls reads");
    let sandbox = world.pod(|sandbox| sandbox.linux.pids_limit = None).await;
    for number in 3..30 {
        let mut container = world.container(&sandbox, &["sleep", "1000"]);
        // Nothing in the image: for the first process the directory is made, for what is run later it is what the number means there.
        container.working_dir = Some(format!("/proc/self/fd/{number}"));
        if world.start(&container).await.is_err() {
            continue;
        }
        if let Ok(session) = world.runtime.exec(spec(&container.id(), &["sh", "-c", "pwd; ls -d ../../../../etc/machine-id"])).await {
            let (_, out, _) = finish(session, "").await;
            assert!(out.starts_with('/') && !out.contains("machine-id"), "{number}: {out}");
        }
    }
    // While programs come in, one that is there already looks into all of them: what it can see of them is nothing but programs of the container.
    let spy =
        "i=0; while [ $i -lt 20 ]; do for p in /proc/[0-9]*; do for n in exe cwd root; do readlink $p/$n; done; done; i=$((i+1)); done 2>/dev/null";
    let spying = world.runtime.exec(spec(&id, &["sh", "-c", spy])).await.unwrap();
    for _ in 0..30 {
        run(&world, spec(&id, &["true"]), "").await;
    }
    drop(spying.stdin);
    let mut seen = String::new();
    // Long enough to have looked at all of them.
    _ = tokio::time::timeout(Duration::from_secs(20), spying.stdout.unwrap().read_to_string(&mut seen)).await;
    assert!(seen.lines().count() > 100, "it has seen something: {seen:?}");
    assert!(seen.lines().all(|line| ["/", "/bin/busybox"].contains(&line)), "{:?}", seen.lines().find(|line| !["/", "/bin/busybox"].contains(line)));
}

pub async fn input_and_output_of_a_container() {
    let world = World::new().await;
    let sandbox = world.pod(|_| ()).await;
    let mut container = world.container(&sandbox, &["sh", "-c", "while read line; do echo got $line; echo and $line >&2; done; echo over; exit 6"]);
    (container.stdin, container.stdin_once) = (true, true);
    let id = world.start(&container).await.unwrap();
    let first = world.runtime.attach(&id, Standard { stdin: false, ..ALL }).await.unwrap();
    let second = world.runtime.attach(&id, ALL).await.unwrap();
    let mut stdin = second.stdin.unwrap();
    stdin.write_all(b"one\n").await.unwrap();
    until("the log", || lines(&container.log_path).contains(&"stdout F got one".to_owned())).await;
    stdin.write_all(b"two\n").await.unwrap();
    // With the attachment the input ends.
    drop(stdin);
    for (mut stdout, mut stderr, exit) in
        [(first.stdout.unwrap(), first.stderr.unwrap(), first.exit), (second.stdout.unwrap(), second.stderr.unwrap(), second.exit)]
    {
        let (mut out, mut err) = (String::new(), String::new());
        stdout.read_to_string(&mut out).await.unwrap();
        stderr.read_to_string(&mut err).await.unwrap();
        assert_eq!((exit.await.unwrap(), out.as_str(), err.as_str()), (6, "got one\ngot two\nover\n", "and one\nand two\n"));
    }
    assert_eq!(world.exit(&id).await.0, 6);
    assert!(world.runtime.attach(&id, ALL).await.is_err(), "it has ended");
    // Without stdinOnce it goes on for the next one.
    let mut container = world.container(&sandbox, &["cat"]);
    container.stdin = true;
    let id = world.start(&container).await.unwrap();
    for text in ["one", "two"] {
        let mut session = world.runtime.attach(&id, ALL).await.unwrap();
        let mut stdin = session.stdin.take().unwrap();
        stdin.write_all(format!("{text}\n").as_bytes()).await.unwrap();
        drop(stdin);
        let mut got = [0; 4];
        session.stdout.unwrap().read_exact(&mut got).await.unwrap();
        assert_eq!(got, format!("{text}\n").as_bytes());
    }
    // And nobody's is /dev/null.
    let container = world.container(&sandbox, &["cat"]);
    assert_eq!(world.finish(&container).await.0, 0);
}

pub async fn a_container_with_a_terminal() {
    let world = World::new().await;
    let sandbox = world.pod(|_| ()).await;
    let script = "test -t 0 && test -t 2 && echo terminal $TERM; read line; stty size; test -c /dev/console && echo console; echo got $line; exit 5";
    let mut container = world.container(&sandbox, &["sh", "-c", script]);
    (container.tty, container.stdin) = (true, true);
    let id = world.start(&container).await.unwrap();
    until("its first line", || lines(&container.log_path).iter().any(|line| line.contains("terminal xterm"))).await;
    let Session { stdin, stdout, stderr, resize, exit } = world.runtime.attach(&id, ALL).await.unwrap();
    assert!(stderr.is_none());
    resize.unwrap().resize(99, 33);
    stdin.unwrap().write_all(b"typed\n").await.unwrap();
    let mut out = String::new();
    stdout.unwrap().read_to_string(&mut out).await.unwrap();
    assert_eq!(exit.await.unwrap(), 5);
    for part in ["33 99", "console", "got typed"] {
        assert!(out.contains(part), "{part}: {out:?}");
        assert!(lines(&container.log_path).iter().any(|line| line.starts_with("stdout") && line.contains(part)), "{part} is in the log too");
    }
    assert_eq!(world.exit(&id).await, (5, "Error".into()));
}

pub async fn who_does_not_read_is_let_go() {
    let world = World::new().await;
    let sandbox = world.pod(|_| ()).await;
    let mut container = world.container(&sandbox, &["sh", "-c", "read line; seq 100000; echo over"]);
    container.stdin = true;
    let id = world.start(&container).await.unwrap();
    let idle = world.runtime.attach(&id, ALL).await.unwrap();
    let mut reading = world.runtime.attach(&id, ALL).await.unwrap();
    let mut stdin = reading.stdin.take().unwrap();
    stdin.write_all(b"go\n").await.unwrap();
    let mut out = String::new();
    reading.stdout.unwrap().read_to_string(&mut out).await.unwrap();
    assert!(out.ends_with("100000\nover\n"), "the other one gets everything");
    assert_eq!(world.exit(&id).await.0, 0, "and the container comes to its end");
    drop(idle);
}

/// A program that was asked for while its container stood still, and given up before that went on.
pub async fn what_nobody_waits_for_is_never_run() {
    let world = World::new().await;
    let volume = world.path("volume");
    fs::create_dir_all(&volume).unwrap();
    let sandbox = world.pod(|_| ()).await;
    let mut container = world.container(&sandbox, &["sleep", "1000"]);
    container.mounts = vec![Mount { host_path: volume.clone(), container_path: "/volume".into(), read_only: false, ..Default::default() }];
    let id = world.start(&container).await.unwrap();
    let group = coracle_runtime_oci::config::group(&container, &sandbox);
    let below = group.strip_prefix("/").unwrap();
    let (file, still, on) = match Trees::find().unwrap() {
        Trees::V2(root) => (root.join(below).join("cgroup.freeze"), "1", "0"),
        Trees::V1(_) => (std::path::Path::new("/sys/fs/cgroup/freezer").join(below).join("freezer.state"), "FROZEN", "THAWED"),
    };
    fs::write(&file, still).unwrap();
    let ask = world.runtime.exec(spec(&id, &["touch", "/volume/ran"]));
    // Its worker enters the container's group, and stands still there.
    let group_of = |pid: &str| fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let entered = || {
        let names = fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| entry.file_name().into_string().ok());
        names.filter(|pid| group_of(pid).contains(&*group.to_string_lossy())).count() > 1
    };
    tokio::select! {
        _ = ask => panic!("nothing runs in a container that stands still"),
        () = until("a worker in the group", entered) => {}
    }
    // The shim has heard that it was given up when it has answered what was asked later.
    world.runtime.list().await.unwrap();
    fs::write(&file, on).unwrap();
    until("nothing but the container in the group", || !entered()).await;
    assert_eq!(run(&world, spec(&id, &["touch", "/volume/other"]), "").await.0, 0);
    assert!(volume.join("other").exists() && !volume.join("ran").exists());
}

pub async fn a_program_enters_a_group_that_was_divided() {
    let world = World::new().await;
    let sandbox = world.pod(|_| ()).await;
    let script = r#"
        if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
            own=/sys/fs/cgroup$(sed -n 's/^0:://p' /proc/self/cgroup)
            mkdir $own/part && echo 1 > $own/part/cgroup.procs && echo +pids > $own/cgroup.subtree_control && echo divided
        else
            mkdir /sys/fs/cgroup/pids/part && echo 1 > /sys/fs/cgroup/pids/part/cgroup.procs && echo divided
        fi
        exec sleep 1000"#;
    let mut container = world.container(&sandbox, &["sh", "-c", script]);
    container.security.privileged = true;
    let id = world.start(&container).await.unwrap();
    until("a divided group", || lines(&container.log_path) == ["stdout F divided"]).await;
    let (code, out, err) = run(&world, spec(&id, &["cat", "/proc/self/cgroup"]), "").await;
    assert_eq!((code, err.as_str()), (0, ""));
    let group = coracle_runtime_oci::config::group(&container, &sandbox);
    assert!(out.contains(&*group.to_string_lossy()), "{out}");
}

/// `stdinOnce`, whose one attachment nobody could end.
pub async fn input_ends_with_an_agent_that_was_killed() {
    let world = World::new().await;
    let sandbox = world.pod(|_| ()).await;
    let mut container = world.container(&sandbox, &["sh", "-c", "while read line; do echo got $line; done; echo over"]);
    (container.stdin, container.stdin_once) = (true, true);
    let id = world.start(&container).await.unwrap();
    let mut session = world.runtime.attach(&id, ALL).await.unwrap();
    session.stdin.as_mut().unwrap().write_all(b"one\n").await.unwrap();
    until("the log", || lines(&container.log_path) == ["stdout F got one"]).await;
    drop(world.runtime);
    drop(session);
    until("the end", || lines(&container.log_path) == ["stdout F got one", "stdout F over"]).await;
}
