use crate::world::{World, lines, until};
use coracle_runtime::{Runtime, Seccomp};
use std::fs;

fn own(namespace: &str) -> String {
    fs::read_link(format!("/proc/self/ns/{namespace}")).unwrap().display().to_string()
}

const NAMESPACES: &str = "for n in net ipc uts pid mnt; do readlink /proc/self/ns/$n; done";

pub async fn namespaces_are_the_pods_own() {
    let world = World::new().await;
    let sandbox = world.pod(|_| ()).await;
    let mut seen = Vec::new();
    for _ in 0..2 {
        // Both at once: the numbers of namespaces are used again.
        let spec = world.container(&sandbox, &["sh", "-c", &format!("{NAMESPACES}; sleep 1000")]);
        world.start(&spec).await.unwrap();
        until("its namespaces", || lines(&spec.log_path).len() == 5).await;
        seen.push(lines(&spec.log_path));
    }
    for (number, namespace) in ["net", "ipc", "uts", "pid", "mnt"].iter().enumerate() {
        assert!(!seen[0][number].ends_with(&own(namespace)), "{namespace} is the machine's: {seen:?}");
        assert_eq!(seen[0][number] == seen[1][number], number < 3, "{namespace} of two containers: {seen:?}");
    }
    let first = world.container(&sandbox, &["sh", "-c", "echo shared > /dev/shm/x"]);
    assert_eq!(world.finish(&first).await.0, 0);
    let second = world.container(&sandbox, &["sh", "-c", "cat /dev/shm/x; hostname; grep -c . /etc/hosts; cat /etc/resolv.conf; echo $$"]);
    let (_, _, lines) = world.finish(&second).await;
    let texts: Vec<&str> = lines.iter().map(|line| &line[9..]).collect();
    assert_eq!(texts, ["shared", "the-pod", "8", "search svc.cluster.local", "nameserver 10.96.0.10", "options ndots:5", "1"]);
    let left = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!left.contains(&sandbox.pod.uid), "nothing is mounted where the machine sees it");
}

pub async fn the_machines_namespaces_where_asked_for() {
    let world = World::new().await;
    let host = |sandbox: &mut coracle_runtime::SandboxSpec| {
        (sandbox.linux.host_network, sandbox.linux.host_ipc, sandbox.linux.host_pid) = (true, true, true);
    };
    let sandbox = world.pod(host).await;
    assert_eq!(world.runtime.run_sandbox(sandbox.clone()).await.unwrap(), None, "no network to set up");
    let spec = world.container(&sandbox, &["sh", "-c", NAMESPACES]);
    let (_, _, lines) = world.finish(&spec).await;
    for (number, namespace) in ["net", "ipc", "uts", "pid"].iter().enumerate() {
        assert!(lines[number].ends_with(&own(namespace)), "{namespace}: {lines:?}");
    }
    assert!(!lines[4].ends_with(&own("mnt")));
}

pub async fn processes_are_shared_where_asked_for() {
    let world = World::new().await;
    let sandbox = world.pod(|sandbox| sandbox.linux.share_processes = true).await;
    let sleeper = world.container(&sandbox, &["sleep", "987"]);
    world.start(&sleeper).await.unwrap();
    let mut spec = world.container(&sandbox, &["sh", "-c", "echo $$; ps -o args; ls -A /proc/1/root /proc/1/cwd /proc/1/fd; grep -E '^(Uid|CapEff|CapBnd|Seccomp|NoNewPrivs):' /proc/1/status; kill -9 1; cat /proc/1/comm"]);
    // Even for one that may look into every process.
    spec.security.add = vec!["SYS_PTRACE".into()];
    let (_, _, lines) = world.finish(&spec).await;
    let text = lines.join("\n");
    for wanted in ["Uid:\t65535\t65535\t65535\t65535", "CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "Seccomp:\t1", "NoNewPrivs:\t1"] {
        assert!(text.contains(wanted), "{wanted}: {text}");
    }
    let listing: Vec<&str> = lines.iter().map(|line| &line[9..]).skip_while(|line| *line != "/proc/1/root:").take(3).collect();
    assert_eq!(listing.first(), Some(&"/proc/1/root:"), "{text}");
    for nothing in ["etc", "bin", "work", "usr"] {
        assert!(!lines.iter().any(|line| &line[9..] == nothing), "the machine's files are seen: {text}");
    }
    assert_ne!(lines[0], "stdout F 1");
    assert!(lines.iter().any(|line| line.contains("sleep 987")), "{lines:?}");
    assert_eq!(lines.last().map(String::as_str), Some("stdout F pause"));
    world.runtime.stop_container(&sleeper.id(), std::time::Duration::ZERO).await.unwrap();
    assert_eq!(world.exit(&sleeper.id()).await.0, 137);
}

const STATUS: &str = "grep -E 'CapEff|NoNewPrivs|Seccomp:' /proc/self/status; touch /new && echo written; ls /sys/firmware | wc -l; cat /proc/interrupts | wc -c; echo x > /proc/sys/kernel/hostname; cat /proc/self/oom_score_adj";

pub async fn capabilities_and_hidden_paths() {
    let world = World::new().await;
    let out = world.shell(STATUS, |_| ()).await;
    // On control groups of version 2 alone there is no rule for devices, and so no CAP_MKNOD.
    let v2 = std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let wanted = if v2 { "CapEff:\t00000000a00425fb" } else { "CapEff:\t00000000a80425fb" };
    assert!(out.contains(wanted), "containerd's defaults: {out}");
    assert!(out.contains("NoNewPrivs:\t0") && out.contains("Seccomp:\t0") && out.contains("written"), "{out}");
    assert!(
        out.contains("\n0\n0\n") && out.contains("Read-only file system") && out.contains("\n1000"),
        "the kernel's files are hidden, /proc/sys for reading: {out}"
    );
    let out = world
        .shell(STATUS, |spec| {
            spec.security.drop = vec!["ALL".into()];
            spec.security.add = vec!["NET_BIND_SERVICE".into()];
            spec.security.allow_privilege_escalation = Some(false);
            spec.security.read_only_root = true;
        })
        .await;
    assert!(out.contains("CapEff:\t0000000000000400") && out.contains("NoNewPrivs:\t1") && !out.contains("written"), "{out}");
    let out = world.shell("grep -E 'CapEff|CapPrm' /proc/self/status", |spec| spec.security.run_as_user = Some(7)).await;
    assert!(out.contains("CapEff:\t0000000000000000"), "another user than root has none: {out}");
    let escape = "for f in /sys/fs/cgroup/*/; do mkdir $f/own 2> /dev/null && echo made in $f; done; echo -1 > /sys/fs/cgroup/memory/memory.limit_in_bytes && echo raised; echo over";
    let out = world.shell(escape, |_| ()).await;
    assert!(out.contains("over") && !out.contains("made in") && !out.contains("raised"), "control groups are for reading: {out}");
    let out = world.shell("mknod /disk b 254 0 && cat /disk | wc -c; echo over", |_| ()).await;
    assert!(out.contains("not permitted") || out.contains("can't open"), "no device but the usual ones: {out}");
}

pub async fn privileged_sees_the_machine() {
    let world = World::new().await;
    let out = world
        .shell("grep CapEff /proc/self/status; ls /dev | wc -l; mount -t tmpfs x /tmp && echo mounted; cat /proc/interrupts | wc -c", |spec| {
            spec.security.privileged = true
        })
        .await;
    assert!(out.contains("mounted") && !out.contains("\n0\n") && !out.ends_with("\n0"), "{out}");
    let own = fs::read_to_string("/proc/self/status").unwrap();
    let capabilities = own.lines().find(|line| line.starts_with("CapPrm")).unwrap().split('\t').nth(1).unwrap().to_owned();
    assert!(out.contains(&capabilities), "all that we have ({capabilities}): {out}");
}

pub async fn system_calls_are_filtered() {
    let world = World::new().await;
    // A fork, a pipe and a socket work; a namespace of its own does not, whatever the capabilities say.
    let script = "grep Seccomp: /proc/self/status; echo piped | cat; unshare -U true || echo refused";
    let out = world.shell(script, |spec| spec.security.seccomp = Seccomp::RuntimeDefault).await;
    assert_eq!(out.lines().filter(|line| !line.contains("unshare")).collect::<Vec<_>>(), ["Seccomp:\t2", "piped", "refused"], "{out}");
    let out = world
        .shell(script, |spec| {
            spec.security.seccomp = Seccomp::RuntimeDefault;
            spec.security.allow_privilege_escalation = Some(false);
        })
        .await;
    assert!(out.contains("Seccomp:\t2") && out.contains("piped"), "{out}");
    let profile = world.path("profile.json");
    fs::write(&profile, r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO"}]}"#).unwrap();
    let out = world.shell("busybox mkdir /x || echo refused", |spec| spec.security.seccomp = Seccomp::Localhost(profile)).await;
    assert!(out.contains("refused"), "{out}");
    let sandbox = world.pod(|_| ()).await;
    let mut spec = world.container(&sandbox, &["true"]);
    spec.security.seccomp = Seccomp::Localhost(world.path("none.json"));
    assert_eq!(world.start(&spec).await.unwrap_err().reason, "CreateContainerConfigError", "never silently without");
}

pub async fn kernel_parameters_are_the_pods() {
    let world = World::new().await;
    let sandbox = world.pod(|sandbox| _ = sandbox.linux.sysctls.insert("net.ipv4.ip_local_port_range".into(), "20000 20100".into())).await;
    let spec = world.container(&sandbox, &["sh", "-c", "cat /proc/sys/net/ipv4/ip_local_port_range /proc/sys/net/ipv4/ip_unprivileged_port_start"]);
    let (_, _, lines) = world.finish(&spec).await;
    assert_eq!(lines, ["stdout F 20000\t20100", "stdout F 0"]);
    assert!(!fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap().starts_with("20000\t20100"));
    let mut sandbox = world.sandbox();
    sandbox.linux.sysctls.insert("kernel.panic".into(), "1".into());
    let why = world.runtime.run_sandbox(sandbox.clone()).await.unwrap_err();
    assert!(why.message.contains("kernel.panic"), "{}", why.message);
    until("nothing left", || crate::world::left(&sandbox).is_empty()).await;
}

/// CVE-2019-5736: a container that is `/proc/self/exe` gets our binary to run, and must not get it to write.
pub async fn the_binary_is_out_of_reach() {
    let world = World::new().await;
    let sandbox = world.pod(|_| ()).await;
    let exe = std::env::current_exe().unwrap();
    let before = fs::metadata(&exe).unwrap().len();
    let script = "for p in /proc/[0-9]*; do echo gone > $p/exe; done; for p in /proc/[0-9]*; do readlink $p/exe; done";
    let mut spec = world.container(&sandbox, &["sh", "-c", script]);
    spec.security.privileged = true;
    world.finish(&spec).await;
    // A program that is the runtime's own first process: it runs, as something with nothing to do, and cannot be opened for writing.
    let mut spec = world.container(&sandbox, &["/proc/self/exe", "--list"]);
    spec.security.privileged = true;
    let started = world.start(&spec).await;
    if started.is_ok() {
        world.exit(&spec.id()).await;
    }
    assert_eq!(fs::metadata(&exe).unwrap().len(), before);
    let shim = crate::world::shims(&sandbox)[0];
    let write = fs::File::options().write(true).open(format!("/proc/{shim}/exe"));
    assert!(write.is_err(), "even for the machine's root");
}

/// CVE-2024-21626: a working directory or a descriptor that leads out of the container.
pub async fn no_descriptor_of_the_shim_comes_along() {
    let world = World::new().await;
    let out = world.shell("ls /proc/self/fd | wc -l; cat /proc/self/fd/3 2>/dev/null | wc -c", |_| ()).await;
    // 0, 1, 2 and the directory that ls reads.
    assert_eq!(out.lines().next(), Some("4"), "{out}");
    let sandbox = world.pod(|_| ()).await;
    for number in 3..20 {
        let mut spec = world.container(&sandbox, &["pwd"]);
        spec.working_dir = Some(format!("/proc/self/fd/{number}"));
        if world.start(&spec).await.is_ok() {
            world.exit(&spec.id()).await;
            let lines = crate::world::lines(&spec.log_path);
            assert!(lines.iter().all(|line| line.starts_with("stdout F /") && !line.contains("..") && !line.contains("unreachable")), "{lines:?}");
        }
    }
}

pub async fn a_killed_first_process_of_shared_ones_is_replaced() {
    let world = World::new().await;
    let sandbox = world.pod(|sandbox| sandbox.linux.share_processes = true).await;
    let spec = world.container(&sandbox, &["sleep", "1000"]);
    world.start(&spec).await.unwrap();
    let shim = crate::world::shims(&sandbox)[0];
    let children = fs::read_to_string(format!("/proc/{shim}/task/{shim}/children")).unwrap();
    let pause = children.split_whitespace().find(|pid| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "pause"));
    let pause = nix::unistd::Pid::from_raw(pause.unwrap().parse().unwrap());
    nix::sys::signal::kill(pause, nix::sys::signal::Signal::SIGKILL).unwrap();
    assert_eq!(world.exit(&spec.id()).await.0, 137, "the namespace ends with it");
    let script = "ps -o args | grep -c [p]ause; echo $$";
    let (code, _, lines) = world.finish(&world.container(&sandbox, &["sh", "-c", script])).await;
    assert_eq!((code, lines[0].as_str()), (0, "stdout F 1"), "{lines:?}");
}

/// A session keyring is inherited, and what is in it can be read by whoever has it.
#[allow(unsafe_code, reason = "add_key and keyctl")]
pub async fn keys_of_the_machine_stay_there() {
    const SESSION: i32 = -3;
    /// The one who has it in a keyring may see and do all, nobody else anything.
    const POSSESSOR: u32 = 0x3f00_0000;
    let name = format!("of-the-machine-{}", std::process::id());
    let description = std::ffi::CString::new(name.clone()).unwrap();
    // SAFETY: strings end with NUL, and the payload's length is its own.
    let key = unsafe { libc::syscall(libc::SYS_add_key, c"user".as_ptr(), description.as_ptr(), c"secret".as_ptr(), 6usize, SESSION) };
    assert!(key > 0, "{}", std::io::Error::last_os_error());
    // SAFETY: numbers only.
    assert_eq!(unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_SETPERM, key, POSSESSOR) }, 0);
    assert!(fs::read_to_string("/proc/keys").unwrap().contains(&name), "who has the keyring sees it");
    let world = World::new().await;
    let sandbox = world.pod(|_| ()).await;
    // With nothing hidden: the first process, and a program beside it.
    let mut spec = world.container(&sandbox, &["sh", "-c", "cat /proc/keys; echo over; sleep 1000"]);
    spec.security.privileged = true;
    let id = world.start(&spec).await.unwrap();
    until("keys", || crate::world::lines(&spec.log_path).last().is_some_and(|line| line.ends_with("over"))).await;
    let log = crate::world::lines(&spec.log_path);
    assert!(log.iter().any(|line| line.contains("_ses")) && !log.iter().any(|line| line.contains(&name)), "{log:?}");
    let command = ["cat".to_owned(), "/proc/keys".to_owned()].to_vec();
    let streams = coracle_runtime::Standard { stdout: true, ..Default::default() };
    let session = world.runtime.exec(coracle_runtime::ExecSpec { container: id, command, streams, ..Default::default() }).await.unwrap();
    let mut out = String::new();
    tokio::io::AsyncReadExt::read_to_string(&mut session.stdout.unwrap(), &mut out).await.unwrap();
    assert!(out.contains("_ses") && !out.contains(&name), "{out}");
    // SAFETY: numbers only.
    unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_UNLINK, key, SESSION) };
}

/// As an ephemeral container does.
pub async fn one_container_joins_anothers_processes() {
    let world = World::new().await;
    let sandbox = world.pod(|_| ()).await;
    let mut first = world.container(&sandbox, &["sh", "-c", "echo of the first > /marker; exec sleep 4321"]);
    first.security.read_only_root = false;
    let id = world.start(&first).await.unwrap();
    let mut second =
        world.container(&sandbox, &["sh", "-c", "ps -o pid,args | grep -v grep | grep 'sleep 4321'; cat /proc/1/root/marker; kill 1; kill -9 1"]);
    (second.joins, second.security.add) = (Some(id.clone()), vec!["SYS_PTRACE".into()]);
    let (_, _, lines) = world.finish(&second).await;
    assert_eq!(lines, ["stdout F     1 sleep 4321", "stdout F of the first"], "it sees them and their files");
    // Its own processes are not the first one's: their end is not its end.
    let state = world.runtime.list().await.unwrap()[0].containers.iter().find(|status| status.id == id).map(|status| status.state.clone());
    assert!(matches!(state, Some(coracle_runtime::State::Running { .. })), "{state:?}");
    world.runtime.stop_container(&id, std::time::Duration::ZERO).await.unwrap();
    let mut late = world.container(&sandbox, &["true"]);
    late.joins = Some(id);
    assert!(world.start(&late).await.unwrap_err().message.contains("does not run"));
}

/// `hostUsers: false`.
pub async fn users_are_the_pods_own() {
    use std::os::unix::fs::{MetadataExt, chown};
    const FIRST: u32 = 0x00c8_0000;
    const TMPFS: i64 = 0x0102_1994;
    let world = World::new().await;
    let volume = world.path("volume");
    fs::create_dir_all(&volume).unwrap();
    fs::write(volume.join("theirs"), "").unwrap();
    chown(volume.join("theirs"), Some(33), Some(33)).unwrap();
    for share_processes in [false, true] {
        let sandbox = world
            .pod(|sandbox| {
                sandbox.linux.users = Some(coracle_runtime::Users { first: FIRST, count: 65_536 });
                sandbox.linux.share_processes = share_processes;
            })
            .await;
        let script = "id -u; id -G; set -- $(cat /proc/self/uid_map); echo $1 $2 $3; stat -c %u /etc/passwd /volume /volume/theirs /dev/shm /etc/hosts /made; \
            touch /volume/own /dev/shm/x /tmp/x && chown 5 /tmp/x && stat -c %u /tmp/x; hostname other && hostname; mount -t tmpfs x /home && echo mounted; \
            echo x > /proc/sys/kernel/core_pattern || echo refused; echo over; sleep 1000";
        let mut spec = world.container(&sandbox, &["sh", "-c", script]);
        spec.mounts = vec![coracle_runtime::Mount { host_path: volume.clone(), container_path: "/volume".into(), ..Default::default() }];
        (spec.security.add, spec.working_dir) = (vec!["SYS_ADMIN".into()], Some("/made".into()));
        spec.security.supplemental_groups = vec![4321];
        let id = match world.start(&spec).await {
            // Before Linux 6.3, as in the guest, whose disk is memory: then it is refused by name.
            Err(why) if rustix::fs::statfs(&volume).unwrap().f_type == TMPFS => {
                let refusal = format!("map the ids of {}: its file system cannot give it to the pod's users (hostUsers: false)", volume.display());
                assert_eq!(why.message, refusal);
                return;
            }
            started => started.unwrap_or_else(|why| panic!("{}", why.message)),
        };
        until("its end", || lines(&spec.log_path).iter().any(|line| line.ends_with(" over"))).await;
        let log: Vec<String> = lines(&spec.log_path).iter().filter_map(|line| line.strip_prefix("stdout F ").map(str::to_owned)).collect();
        let first = format!("0 {FIRST} 65536");
        assert_eq!(
            log,
            ["0", "0 4321", &first, "0", "0", "33", "0", "0", "0", "5", "other", "mounted", "refused", "over"],
            "{:?}",
            lines(&spec.log_path)
        );
        assert_eq!(fs::metadata(volume.join("own")).unwrap().uid(), 0, "in a volume they are who they are to themselves");
        // On the machine it is nobody's.
        let group = coracle_runtime_oci::config::group(&spec, &sandbox);
        let tree = ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"].map(|tree| std::path::Path::new(tree).join(group.strip_prefix("/").unwrap()));
        let processes = tree.iter().find_map(|path| fs::read_to_string(path.join("cgroup.procs")).ok()).unwrap();
        for pid in processes.lines() {
            assert_eq!(fs::metadata(format!("/proc/{pid}")).unwrap().uid(), FIRST);
        }
        let command =
            ["sh".to_owned(), "-c".to_owned(), "id -G; cat /proc/self/uid_map; touch /root-file && stat -c %u /root-file".to_owned()].to_vec();
        let streams = coracle_runtime::Standard { stdout: true, ..Default::default() };
        let session = world.runtime.exec(coracle_runtime::ExecSpec { container: id, command, streams, ..Default::default() }).await.unwrap();
        let mut out = String::new();
        tokio::io::AsyncReadExt::read_to_string(&mut session.stdout.unwrap(), &mut out).await.unwrap();
        assert_eq!(out.split_whitespace().collect::<Vec<_>>(), ["0", "4321", "0", &FIRST.to_string(), "65536", "0"]);
        world.runtime.remove_sandbox(&sandbox.pod.uid).await.unwrap();
    }
}
