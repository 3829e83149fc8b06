//! Containers that misbehave: the node and their neighbours do not notice, and they go when they are told to.

use crate::world::{World, left, lines, shims, until};
use coracle_runtime::{Mount, Runtime};
use std::{fs, path::Path, time::Duration};

/// Processes of a control group and those below, by the first hierarchy that has it.
fn processes(group: &Path) -> Vec<String> {
    let below = group.strip_prefix("/").unwrap();
    let tree = ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"].into_iter().map(|tree| Path::new(tree).join(below)).find(|path| path.exists());
    let text = tree.map(|path| fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default()).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn number(group: &Path, file: &str, key: &str) -> Option<u64> {
    let below = group.strip_prefix("/").unwrap();
    let trees = ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"].into_iter().map(|tree| Path::new(tree).join(below).join(file));
    trees.filter_map(|path| fs::read_to_string(path).ok()).find_map(|text| text.lines().find_map(|line| line.strip_prefix(key)?.trim().parse().ok()))
}

/// Those that it has not waited for included.
fn children(pid: &str) -> Vec<String> {
    fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default().split_whitespace().map(str::to_owned).collect()
}

pub async fn a_bomb_of_forks_is_its_pods_alone() {
    let world = World::new().await;
    let bomb = world.pod(|sandbox| sandbox.linux.pids_limit = Some(100)).await;
    // A shell that cannot fork ends; the first process stays.
    let spec = world.container(&bomb, &["sh", "-c", "bomb() { bomb & bomb & sleep 1000; }; (while :; do bomb; done) & exec sleep 1000"]);
    world.start(&spec).await.unwrap();
    let group = coracle_runtime_oci::config::group(&spec, &bomb);
    let refused = |group: &Path| number(group, "pids.events", "max ").is_some_and(|count| count > 0);
    until("its limit", || refused(&group) || group.parent().is_some_and(refused)).await;
    assert!(processes(&group).len() <= 100);
    let other = world.pod(|_| ()).await;
    assert_eq!(world.finish(&world.container(&other, &["true"])).await.0, 0, "another pod has room");
    world.runtime.stop_container(&spec.id(), Duration::ZERO).await.unwrap();
    world.runtime.remove_sandbox(&bomb.pod.uid).await.unwrap();
    until("nothing left", || left(&bomb).is_empty()).await;
}

pub async fn what_nobody_waits_for_goes_with_its_container() {
    let world = World::new().await;
    let sandbox = world.pod(|sandbox| sandbox.linux.pids_limit = Some(200)).await;
    // sleep waits for nobody; what lost its parent is its child from then on.
    let spec = world.container(
        &sandbox,
        &["sh", "-c", "i=0; while [ $i -lt 20 ]; do (sleep 0.5 & sleep 0.5 & exec sleep 0.5) & i=$((i+1)); done; exec sleep 1000"],
    );
    let id = world.start(&spec).await.unwrap();
    let group = coracle_runtime_oci::config::group(&spec, &sandbox);
    let first = || {
        processes(&group)
            .into_iter()
            .find(|pid| fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.split('\0').eq(["sleep", "1000", ""])))
    };
    until("its dead children", || first().is_some_and(|pid| children(&pid).len() >= 20)).await;
    assert_eq!(world.finish(&world.container(&sandbox, &["true"])).await.0, 0, "its pod goes on");
    world.runtime.stop_container(&id, Duration::ZERO).await.unwrap();
    until("none of them", || processes(&group).is_empty()).await;
    assert_eq!(children(&shims(&sandbox)[0].to_string()), [""; 0], "the shim has waited for all that was its own");
}

pub async fn a_log_without_end_takes_no_more_than_it_may() {
    let world = World::new().await;
    let sandbox = world.pod(|_| ()).await;
    let mut endless = world.container(&sandbox, &["yes", "a line that comes again and again"]);
    (endless.log_max_bytes, endless.log_max_files) = (50_000, 3);
    let dir = sandbox.dir.join("endless");
    fs::create_dir_all(&dir).unwrap();
    endless.log_path = dir.join("0.log");
    world.start(&endless).await.unwrap();
    let size = || fs::read_dir(&dir).into_iter().flatten().flatten().filter_map(|entry| entry.metadata().ok()).map(|meta| meta.len()).sum::<u64>();
    use std::os::unix::fs::MetadataExt;
    let oldest = || fs::metadata(dir.join("0.log.2")).map(|meta| meta.ino()).ok();
    for round in 0..5 {
        let before = oldest();
        until("another file", || oldest().is_some() && oldest() != before).await;
        assert!(size() <= 4 * 51_000 + (64 << 10), "round {round}: {}", size());
    }
    // Its neighbour's lines are written meanwhile.
    let neighbour = world.container(&sandbox, &["echo", "heard"]);
    world.finish(&neighbour).await;
    assert_eq!(lines(&neighbour.log_path), ["stdout F heard"]);
    world.runtime.stop_container(&endless.id(), Duration::ZERO).await.unwrap();
    assert_eq!(world.exit(&endless.id()).await.0, 137);
}

pub async fn a_log_on_a_full_disk_goes_on_when_there_is_room() {
    let disk = tempfile::tempdir().unwrap();
    let flags = rustix::mount::MountFlags::empty();
    rustix::mount::mount("log", disk.path(), "tmpfs", flags, Some(c"size=512k")).unwrap();
    fs::write(disk.path().join("filler"), vec![0; 448 << 10]).unwrap();
    let world = World::new().await;
    let sandbox = world.pod(|_| ()).await;
    // More than the disk and a pipe hold together, and less than it holds without the filler.
    let says = "awk 'BEGIN { for (i = 0; i < 4000; i++) print \"a line that has a number, which is\", i }'";
    let script = format!("{says}; touch /signs/full; until test -f /signs/room; do sleep 0.05; done; echo room again");
    let mut spec = world.container(&sandbox, &["sh", "-c", &script]);
    let signs = sandbox.dir.join("signs");
    fs::create_dir_all(&signs).unwrap();
    spec.mounts.push(Mount { host_path: signs.clone(), container_path: "/signs".into(), ..Mount::default() });
    spec.log_path = disk.path().join("0.log");
    let id = world.start(&spec).await.unwrap();
    until("it has said all", || signs.join("full").exists()).await;
    fs::remove_file(disk.path().join("filler")).unwrap();
    fs::write(signs.join("room"), "").unwrap();
    assert_eq!(world.exit(&id).await.0, 0);
    let log = fs::read_to_string(&spec.log_path).unwrap();
    rustix::mount::unmount(disk.path(), rustix::mount::UnmountFlags::DETACH).unwrap();
    assert!((100..4000).contains(&log.lines().count()) && log.ends_with(" stdout F room again\n"), "{log}");
    let merged = log.lines().find(|line| line.matches(" stdout F ").count() > 1);
    assert_eq!(merged, None, "every line begins anew");
}
