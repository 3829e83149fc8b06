//! Ways out of a container that other runtimes have had, tried for real. (CVE-2019-5736 and CVE-2024-21626 are tried in `isolation` and `exec`, CVE-2017-1002101 and
//! CVE-2021-25741 in `volumes`.)

use crate::world::{World, lines};
use coracle_runtime::Mount;
use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

/// What a container would have the machine do.
const PATTERN: &str = "/proc/sys/kernel/core_pattern";

fn volume(world: &World, name: &str) -> PathBuf {
    let path = world.path(name);
    fs::create_dir_all(&path).unwrap();
    path
}

fn mount(host_path: &Path, container_path: &str) -> Mount {
    Mount { host_path: host_path.into(), container_path: container_path.into(), ..Mount::default() }
}

/// Runs it if it can be started: what it printed.
async fn attempt(world: &World, mounts: Vec<Mount>, tty: bool, script: &str) -> Option<Vec<String>> {
    let sandbox = world.pod(|_| ()).await;
    let mut spec = world.container(&sandbox, &["sh", "-c", script]);
    (spec.mounts, spec.tty) = (mounts, tty);
    world.start(&spec).await.ok()?;
    world.exit(&spec.id()).await;
    Some(lines(&spec.log_path))
}

/// Tries to write to all that is masked or for reading, and says what it could read of the masked.
const GRASP: &str = "for f in /proc/acpi /proc/kcore /proc/keys /proc/timer_list /proc/sched_debug /proc/interrupts /proc/sys/kernel/core_pattern /proc/sysrq-trigger /dev/null /dev/console; do \
    [ -d $f ] || echo '|/bin/false escaped' > $f; done 2>/dev/null; \
    mount -o remount,rw /proc/sys 2>/dev/null; umount /proc/keys 2>/dev/null; echo read $(cat /proc/keys /proc/timer_list 2>/dev/null | wc -c)";

/// CVE-2025-31133: what is masked is covered with the container's own /dev/null, which the container has made something else.
pub async fn what_covers_is_not_the_containers_to_choose() {
    let world = World::new().await;
    let before = fs::read_to_string(PATTERN).unwrap();
    assert!(fs::read("/proc/keys").is_ok_and(|text| !text.is_empty()), "there is something to be hidden");
    // As it should be, so that the others prove something.
    assert_eq!(attempt(&world, Vec::new(), false, GRASP).await.unwrap(), ["stdout F read 0"]);
    for (number, target) in [PATTERN, "/proc/sysrq-trigger", "../proc/sys/kernel/core_pattern", "/etc/passwd", "/none"].into_iter().enumerate() {
        let dev = volume(&world, &format!("dev-{number}"));
        symlink(target, dev.join("null")).unwrap();
        if let Some(log) = attempt(&world, vec![mount(&dev, "/dev")], false, GRASP).await {
            assert!(log.iter().any(|line| line == "stdout F read 0"), "{target}: {log:?}");
        }
        assert_eq!(fs::read_to_string(PATTERN).unwrap(), before, "{target}");
    }
    // A file that only looks like it.
    let dev = volume(&world, "dev-file");
    fs::write(dev.join("null"), "").unwrap();
    if let Some(log) = attempt(&world, vec![mount(&dev, "/dev")], false, GRASP).await {
        assert!(log.iter().any(|line| line == "stdout F read 0"), "{log:?}");
    }
    // The same out of the image, below the runtime's own /dev.
    fs::create_dir_all(world.path("layer/dev")).unwrap();
    symlink(PATTERN, world.path("layer/dev/null")).unwrap();
    assert_eq!(attempt(&world, Vec::new(), false, GRASP).await.unwrap(), ["stdout F read 0"]);
    assert_eq!(fs::read_to_string(PATTERN).unwrap(), before);
}

/// CVE-2025-52565: the terminal is mounted at /dev/console, which leads elsewhere.
pub async fn a_terminal_is_put_nowhere_else() {
    let world = World::new().await;
    let before = fs::read_to_string(PATTERN).unwrap();
    for (number, (name, target)) in
        [("console", PATTERN), ("console", "/proc/sysrq-trigger"), ("console", "../proc/self/attr/exec"), ("pts", "/proc/sys"), ("ptmx", PATTERN)]
            .into_iter()
            .enumerate()
    {
        let dev = volume(&world, &format!("dev-{number}"));
        symlink(target, dev.join(name)).unwrap();
        let script = format!("{GRASP}; cat {PATTERN}");
        if let Some(log) = attempt(&world, vec![mount(&dev, "/dev")], true, &script).await {
            let text = log.join("\n");
            assert!(text.contains("read 0") && text.contains(before.trim()), "{name} -> {target}: {text}");
        }
        assert_eq!(fs::read_to_string(PATTERN).unwrap(), before, "{name} -> {target}");
    }
}

/// CVE-2025-52881: what the runtime writes to /proc of the container goes where the container wants it.
pub async fn what_is_written_to_proc_is_written_there() {
    let world = World::new().await;
    let before = fs::read_to_string(PATTERN).unwrap();
    let fake = volume(&world, "proc");
    fs::create_dir_all(fake.join("self/attr")).unwrap();
    fs::create_dir_all(fake.join("sys/net")).unwrap();
    symlink(PATTERN, fake.join("self/attr/exec")).unwrap();
    symlink("/proc/sysrq-trigger", fake.join("self/oom_score_adj")).unwrap();
    for (link, target) in [("to-proc", "/proc"), ("to-self", "to-proc/self")] {
        symlink(target, world.path("layer").join(link)).unwrap();
    }
    for place in
        ["/proc", "/proc/self/attr", "/proc/sys", "/proc/sys/kernel", "/tmp/../proc/self", "/proc/1", "/to-proc", "/to-proc/1", "/to-self/attr"]
    {
        assert_eq!(attempt(&world, vec![mount(&fake, place)], false, "true").await, None, "nothing is mounted over {place}");
    }
    // Through links in another volume, which was mounted before: only when all is mounted it is seen where a volume is.
    let outer = volume(&world, "outer");
    fs::create_dir(outer.join("inside")).unwrap();
    for (link, target) in [("way", "/proc"), ("up", "../proc/self"), ("again", "way/sys"), ("own", "inside")] {
        symlink(target, outer.join(link)).unwrap();
    }
    let sandbox = world.pod(|_| ()).await;
    for place in ["/outer/way", "/outer/way/sys", "/outer/up/attr", "/outer/again/kernel"] {
        let mut spec = world.container(&sandbox, &["true"]);
        spec.mounts = vec![mount(&fake, place), mount(&outer, "/outer")];
        let why = world.start(&spec).await.unwrap_err();
        assert!(why.message.contains("nothing is mounted over /proc"), "{place}: {why}");
    }
    let mounts = vec![mount(&outer, "/outer"), mount(&fake, "/outer/own/fake")];
    assert!(attempt(&world, mounts, false, "ls /outer/inside/fake").await.unwrap().contains(&"stdout F self".to_owned()), "other links are links");
    // Out of the image: /proc is a link, and so is what it leads to.
    _ = fs::remove_dir_all(world.path("layer/proc"));
    symlink("/tmp", world.path("layer/proc")).unwrap();
    if let Some(log) = attempt(&world, Vec::new(), false, GRASP).await {
        assert!(log.iter().any(|line| line == "stdout F read 0"), "{log:?}");
    }
    assert_eq!(fs::read_to_string(PATTERN).unwrap(), before);
}

/// A volume or a working directory beside a link that leads out of the root, in every place that the runtime looks one up.
pub async fn no_link_of_the_image_leads_out() {
    let world = World::new().await;
    let outside = volume(&world, "outside");
    fs::write(outside.join("secret"), "of the machine\n").unwrap();
    let up = format!("../../../../../../../../../..{}", outside.display());
    for (number, target) in [up, outside.display().to_string()].into_iter().enumerate() {
        let link = world.path(&format!("layer/link{number}"));
        symlink(&target, &link).unwrap();
        let own = volume(&world, &format!("own{number}"));
        let place = format!("/link{number}/made");
        let sandbox = world.pod(|_| ()).await;
        let mut spec = world.container(&sandbox, &["sh", "-c", &format!("touch /link{number}/made/file; cat /link{number}/secret; pwd")]);
        (spec.mounts, spec.working_dir) = (vec![mount(&own, &place)], Some(format!("/link{number}/work")));
        if world.start(&spec).await.is_ok() {
            world.exit(&spec.id()).await;
            assert!(!lines(&spec.log_path).iter().any(|line| line.contains("of the machine")), "{:?}", lines(&spec.log_path));
        }
        let names: Vec<_> = fs::read_dir(&outside).unwrap().flatten().map(|entry| entry.file_name()).collect();
        assert_eq!(names, ["secret"], "nothing was made there");
    }
}
