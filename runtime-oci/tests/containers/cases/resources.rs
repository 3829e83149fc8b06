use crate::world::{World, shims, until};
use coracle_runtime::{Resources, Runtime};
use std::fs;

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
    if fs::metadata("/sys/fs/cgroup/cgroup.controllers").is_ok() {
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
        oom_score_adj: 0,
    };
    let sandbox = world.pod(|sandbox| sandbox.linux.resources = amounts(64, 500)).await;
    let mut spec = world.container(&sandbox, &["sleep", "1000"]);
    spec.resources = amounts(64, 500);
    let id = world.start(&spec).await.unwrap();
    let (pod, own) = (coracle_runtime_oci::cgroup::of_pod(&sandbox.pod.uid, sandbox.linux.qos), coracle_runtime_oci::config::group(&spec, &sandbox));
    let unified = fs::metadata("/sys/fs/cgroup/cgroup.controllers").is_ok();
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

pub async fn a_program_has_as_many_descriptors_as_elsewhere() {
    let world = World::new().await;
    assert_eq!(world.shell("ulimit -Sn; ulimit -Hn", |_| ()).await.lines().next(), Some("1024"));
}

pub async fn an_idle_shim_is_small() {
    let world = World::new().await;
    let sandbox = world.pod(|_| ()).await;
    world.start(&world.container(&sandbox, &["sleep", "1000"])).await.unwrap();
    until("a shim", || !shims(&sandbox).is_empty()).await;
    let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", shims(&sandbox)[0])).unwrap();
    let field = |name: &str| -> u64 { rollup.lines().find_map(|line| line.strip_prefix(name)?.trim().trim_end_matches(" kB").parse().ok()).unwrap() };
    let private = field("Private_Dirty:") + field("Private_Clean:");
    println!("an idle shim: {private} kB private, {} kB resident, {} kB proportional", field("Rss:"), field("Pss:"));
    assert!(private <= 1536, "{rollup}");
}
