use crate::world::{World, shims, until};
use coracle_runtime::{Mount, Qos, Reclaim, Resources, Runtime};
use std::{fs, path::Path};

pub async fn memory_has_a_limit() {
    let world = World::new().await;
    let sandbox = world.pod(|_| ()).await;
    // tail keeps the line it reads, which never ends.
    let mut spec = world.container(&sandbox, &["tail", "/dev/zero"]);
    spec.resources.memory_limit = Some(24 << 20);
    let (code, reason, _) = world.finish(&spec).await;
    assert_eq!((code, reason.as_str()), (137, "OOMKilled"));
    assert_eq!(world.finish(&world.container(&sandbox, &["true"])).await.0, 0, "its neighbours do not notice");
}

/// One container is in a group of its own wherever there is a controller; of one that libcontainer cannot make, none is left.
pub async fn groups_are_the_containers_own() {
    let world = World::new().await;
    let groups = world.shell("cat /proc/self/cgroup", |_| ()).await;
    let controlled =
        groups.lines().filter_map(|line| line.split_once(':')?.1.split_once(':')).filter(|(names, _)| !names.is_empty() && !names.contains('='));
    let paths: Vec<&str> = controlled.map(|(_, path)| path).collect();
    assert!(unified() || paths.len() > 3, "{groups}");
    assert!(paths.iter().all(|path| path.starts_with("/coracle/besteffort/pod") && path.split('/').count() == 5), "{groups}");
    let sandbox = world.pod(|_| ()).await;
    let mut spec = world.container(&sandbox, &["true"]);
    let dir = world.path("dir");
    fs::create_dir_all(&dir).unwrap();
    spec.mounts = vec![Mount { host_path: dir, container_path: "/bin/data".into(), ..Mount::default() }];
    let why = world.start(&spec).await.expect_err("a directory is not mounted over a file");
    assert!(why.reason == "StartError" && why.message.contains("/bin/data") && !why.message.contains("cleanup"), "{why:?}");
    let group = coracle_runtime_oci::config::group(&spec, &sandbox);
    let pod = group.parent().unwrap();
    let of = |group: &Path| {
        let trees = fs::read_dir("/sys/fs/cgroup").unwrap().flatten().map(|entry| entry.path()).chain(["/sys/fs/cgroup".into()]);
        trees.filter(|tree| tree.join(group.strip_prefix("/").unwrap()).exists()).count()
    };
    assert!(of(pod) > 0 && of(&group) == 0, "{}", group.display());
}

pub async fn processes_have_a_limit() {
    let world = World::new().await;
    let sandbox = world.pod(|sandbox| sandbox.linux.pids_limit = Some(20)).await;
    let spec = world.container(&sandbox, &["sh", "-c", "for i in $(seq 1 60); do sleep 100 & done; echo done"]);
    let (_, _, lines) = world.finish(&spec).await;
    assert!(lines.iter().any(|line| line.contains("fork") || line.contains("unavailable")), "{lines:?}");
    assert!(!lines.iter().any(|line| line.ends_with(" done")), "{lines:?}");
}

pub async fn processor_time_has_a_limit() {
    let world = World::new().await;
    let sandbox = world.pod(|_| ()).await;
    let mut spec = world.container(&sandbox, &["sleep", "1000"]);
    (spec.resources.cpu_limit_millis, spec.resources.cpu_request_millis) = (Some(250), Some(100));
    world.start(&spec).await.unwrap();
    let group = coracle_runtime_oci::config::group(&spec, &sandbox);
    let read =
        |tree: &str, name: &str| fs::read_to_string(format!("/sys/fs/cgroup/{tree}{}/{name}", group.display())).unwrap_or_default().trim().to_owned();
    if unified() {
        assert_eq!(read("", "cpu.max"), "25000 100000");
    } else {
        assert_eq!((read("cpu", "cpu.cfs_quota_us"), read("cpu", "cpu.shares")), ("25000".into(), "102".into()));
    }
    let used = world.runtime.stats(&sandbox.pod.uid).await.unwrap();
    let stats = &used.containers;
    assert!(stats.iter().any(|(name, stats)| *name == spec.name && stats.memory_bytes > 0 && stats.cpu_nanos > 0), "{stats:?}");
    let whole = used.whole.as_ref().and_then(|whole| whole.group.as_ref()).expect("the pod's own group");
    assert!(
        whole.tasks > 0 && whole.usage_bytes > 0 && stats.iter().all(|(_, stats)| stats.written.as_ref().is_some_and(|dir| dir.is_dir())),
        "{used:?}"
    );
}

pub async fn limits_change_while_it_runs() {
    let world = World::new().await;
    let amounts = |mib: u64, millis: u64| Resources {
        memory_limit: Some(mib << 20),
        cpu_limit_millis: Some(millis),
        cpu_request_millis: Some(millis),
        ..Resources::default()
    };
    let sandbox = world.pod(|sandbox| sandbox.linux.resources = amounts(64, 500)).await;
    let mut spec = world.container(&sandbox, &["sleep", "1000"]);
    spec.resources = amounts(64, 500);
    let id = world.start(&spec).await.unwrap();
    let (pod, own) = (coracle_runtime_oci::cgroup::of_pod(&sandbox.pod.uid, sandbox.linux.qos), coracle_runtime_oci::config::group(&spec, &sandbox));
    let unified = unified();
    let read = |group: &std::path::Path| {
        let file = |tree: &str, name: &str| fs::read_to_string(format!("/sys/fs/cgroup/{tree}{}/{name}", group.display())).unwrap().trim().to_owned();
        if unified {
            (file("", "memory.max"), file("", "cpu.max"))
        } else {
            (file("memory", "memory.limit_in_bytes"), file("cpu", "cpu.cfs_quota_us"))
        }
    };
    let want = |mib: u64, quota: u64| ((mib << 20).to_string(), if unified { format!("{quota} 100000") } else { quota.to_string() });
    let uid = &sandbox.pod.uid;
    for (mib, millis) in [(256, 2000), (48, 250), (128, 250), (48, 1000)] {
        world.runtime.resize(uid, amounts(mib, millis), vec![(id.clone(), amounts(mib, millis))]).await.unwrap();
        for group in [&pod, &own] {
            assert_eq!(read(group), want(mib, millis * 100), "{}", group.display());
        }
    }
    // Nobody is killed for it: what is used stays allowed.
    let why = world.runtime.resize(uid, amounts(48, 1000), vec![(id.clone(), Resources { memory_limit: Some(4096), ..amounts(48, 1000) })]).await;
    let why = why.unwrap_err().message;
    assert!(
        why.starts_with(&format!("cannot decrease memory limits: attempting to set container {:?} memory limit (4096) below", spec.name)),
        "{why}"
    );
    assert_eq!(read(&own), want(48, 100_000));
    let list = world.runtime.list().await.unwrap();
    assert!(matches!(list[0].containers[0].state, coracle_runtime::State::Running { .. }), "it has run all the time");
}

/// Whether control groups are of version 2, as in the guest of `cargo xtask guest-v2`.
fn unified() -> bool {
    fs::metadata("/sys/fs/cgroup/cgroup.controllers").is_ok()
}

/// What a file of a group says, of version 2.
fn said(group: &Path, name: &str) -> String {
    let path = format!("/sys/fs/cgroup{}/{name}", group.display());
    fs::read_to_string(&path).unwrap_or_else(|why| panic!("{path}: {why}")).trim().to_owned()
}

pub async fn huge_pages_are_those_that_are_asked_for() {
    const PAGE: u64 = 2 << 20;
    let pages = fs::read_to_string("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages").map_or(0, |text| text.trim().parse().unwrap_or(0));
    if !unified() || pages < 8 {
        println!("left out: huge pages are not counted by group, or there are none (/proc/sys/vm/nr_hugepages)");
        return;
    }
    let world = World::new().await;
    let huge = world.path("huge");
    fs::create_dir(&huge).unwrap();
    nix::mount::mount(Some("nodev"), &huge, Some("hugetlbfs"), nix::mount::MsFlags::empty(), Some("pagesize=2M")).unwrap();
    let sandbox = world.pod(|sandbox| sandbox.linux.resources.huge_pages = [(PAGE, 3 * PAGE)].into()).await;
    let take = |name: &str, pages: u64| format!("fallocate -l {} /huge/{name} && echo {name} || echo no {name}", pages * PAGE);
    let script = [take("two", 2), take("three", 1), take("four", 1)].join("; ");
    let mut spec = world.container(&sandbox, &["sh", "-c", &script]);
    spec.mounts = vec![Mount { host_path: huge.clone(), container_path: "/huge".into(), ..Mount::default() }];
    let mut nothing = spec.clone();
    (nothing.name, nothing.log_path) = ("none".into(), nothing.log_path.with_file_name("none.log"));
    spec.resources.huge_pages = [(PAGE, 2 * PAGE)].into();
    let words = |lines: Vec<String>| -> Vec<String> {
        lines.iter().filter_map(|line| line.split_once(" F ").filter(|(from, _)| *from == "stdout").map(|(_, text)| text.to_owned())).collect()
    };
    assert_eq!(words(world.finish(&spec).await.2), ["two", "no three", "no four"], "as many as the container may have");
    for name in ["two", "three", "four"] {
        _ = fs::remove_file(huge.join(name));
    }
    assert_eq!(words(world.finish(&nothing).await.2), ["no two", "no three", "no four"], "who asks for none has none");
    let group = coracle_runtime_oci::cgroup::of_pod(&sandbox.pod.uid, sandbox.linux.qos);
    assert_eq!([said(&group, "hugetlb.2MB.max"), said(&group, "hugetlb.2MB.rsvd.max")], [3 * PAGE, 3 * PAGE].map(|bytes| bytes.to_string()));
    nix::mount::umount(&huge).unwrap();
}

pub async fn memory_stays_and_who_has_most_is_slowed() {
    const MIB: u64 = 1 << 20;
    if !unified() {
        println!("left out: version 1 of control groups keeps no memory");
        return;
    }
    let world = World::new().await;
    let kept = |min: u64, high: Option<u64>| Resources { reclaim: Reclaim { min: min * MIB, low: 0, high }, ..Resources::default() };
    let sandbox = world
        .pod(|sandbox| {
            sandbox.linux.qos = Qos::Guaranteed;
            sandbox.linux.resources = kept(8, None);
        })
        .await;
    // A little more than it may have for nothing: what is slowed takes long.
    let mut spec = world.container(&sandbox, &["sh", "-c", "dd if=/dev/zero of=/dev/shm/much bs=64k count=136; exec sleep 1000"]);
    spec.resources = kept(4, Some(8 * MIB));
    let id = world.start(&spec).await.unwrap();
    let (pod, own) = (coracle_runtime_oci::cgroup::of_pod(&sandbox.pod.uid, Qos::Guaranteed), coracle_runtime_oci::config::group(&spec, &sandbox));
    let mib = |count: u64| (count * MIB).to_string();
    assert_eq!([said(&own, "memory.min"), said(&own, "memory.high")], [mib(4), mib(8)]);
    assert_eq!([said(&pod, "memory.min"), said(&pod, "memory.high")], [mib(8), "max".into()]);
    // Those above have what those below are to keep.
    assert!(said(Path::new(coracle_runtime_oci::cgroup::BASE), "memory.min").parse::<u64>().unwrap() >= 8 * MIB);
    let slowed = || said(&own, "memory.events").lines().any(|line| line.strip_prefix("high ").is_some_and(|times| times != "0"));
    until("it is slowed down", slowed).await;
    let list = world.runtime.list().await.unwrap();
    assert!(matches!(list[0].containers[0].state, coracle_runtime::State::Running { .. }), "and not killed");
    world.runtime.resize(&sandbox.pod.uid, kept(6, None), vec![(id, kept(2, Some(32 * MIB)))]).await.unwrap();
    assert_eq!([said(&own, "memory.min"), said(&own, "memory.high"), said(&pod, "memory.min")], [mib(2), mib(32), mib(6)]);
}

pub async fn a_program_has_as_many_descriptors_as_elsewhere() {
    let world = World::new().await;
    assert_eq!(world.shell("ulimit -Sn; ulimit -Hn", |_| ()).await.lines().next(), Some("1024"));
}

pub async fn an_idle_shim_is_small() {
    let world = World::new().await;
    // Two, so that what they have of the program in common is nobody's own.
    let (other, sandbox) = (world.pod(|_| ()).await, world.pod(|_| ()).await);
    for sandbox in [&other, &sandbox] {
        world.start(&world.container(sandbox, &["sleep", "1000"])).await.unwrap();
        until("a shim", || !shims(sandbox).is_empty()).await;
    }
    let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", shims(&sandbox)[0])).unwrap();
    let field = |name: &str| -> u64 { rollup.lines().find_map(|line| line.strip_prefix(name)?.trim().trim_end_matches(" kB").parse().ok()).unwrap() };
    let private = field("Private_Dirty:") + field("Private_Clean:");
    println!("an idle shim: {private} kB private, {} kB resident, {} kB proportional", field("Rss:"), field("Pss:"));
    assert!(private <= 1536, "{rollup}");
}
