use crate::world::{World, lines, until};
use coracle_runtime::{Mount, Propagation};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount as mount_at, mount_change, unmount};
use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

fn mount(host_path: PathBuf, container_path: &str, read_only: bool) -> Mount {
    Mount { host_path, container_path: container_path.into(), read_only, ..Mount::default() }
}

pub async fn volumes_are_seen_and_kept_read_only() {
    let world = World::new().await;
    let (shared, fixed) = (world.path("volumes/shared"), world.path("volumes/fixed"));
    for dir in [&shared, &fixed] {
        fs::create_dir_all(dir).unwrap();
    }
    fs::write(fixed.join("file"), "content\n").unwrap();
    let out = world
        .shell("cat /fixed/file /etc/one /etc/hosts; touch /fixed/new; echo written > /deep/er/new; cat /deep/er/new", |spec| {
            spec.mounts = vec![
                mount(shared.clone(), "/deep/er", false),
                mount(fixed.clone(), "/fixed", true),
                mount(fixed.join("file"), "/etc/one", true),
                mount(fixed.join("file"), "/etc/hosts", true),
            ];
        })
        .await;
    let lines: Vec<&str> = out.lines().filter(|line| !line.contains("touch")).collect();
    assert_eq!(lines, ["content", "content", "content", "written"], "{out}");
    assert!(out.contains("Read-only file system"), "{out}");
    assert_eq!(fs::read_to_string(shared.join("new")).unwrap(), "written\n");
}

pub async fn a_working_directory_is_made_in_a_volume() {
    let world = World::new().await;
    let volume = world.path("volumes/v");
    fs::create_dir_all(&volume).unwrap();
    let out = world
        .shell("pwd; touch here", |spec| {
            spec.working_dir = Some("/data/deep/er".into());
            spec.mounts = vec![mount(volume.clone(), "/data", false)];
        })
        .await;
    assert_eq!(out, "/data/deep/er");
    assert!(volume.join("deep/er/here").exists());
}

/// CVE-2017-1002101 and CVE-2021-25741: what was a directory when it was checked is a link by now.
pub async fn a_link_in_a_volume_is_not_followed() {
    let world = World::new().await;
    let volume = world.path("volumes/v");
    fs::create_dir_all(&volume).unwrap();
    symlink("/", volume.join("sub")).unwrap();
    let sandbox = world.pod(|_| ()).await;
    for path in ["sub", "sub/etc", "sub/etc/shadow"] {
        let mut spec = world.container(&sandbox, &["ls", "/mnt"]);
        spec.mounts = vec![mount(volume.join(path), "/mnt", true)];
        let why = world.start(&spec).await.unwrap_err();
        assert_eq!(why.reason, "CreateContainerConfigError", "{}", why.message);
    }
    // A link in the image, where the volume is to be seen, leads to the image's own root.
    symlink("/outside", world.path("layer/inside")).unwrap();
    fs::create_dir_all(world.path("layer/outside")).unwrap();
    let outside = std::path::Path::new("/outside");
    let before = outside.exists();
    let out = world.shell("touch /inside/x; ls /outside", |spec| spec.mounts = vec![mount(volume.clone(), "/inside", false)]).await;
    assert!(out.contains('x') && volume.join("x").exists(), "{out}");
    assert_eq!(outside.exists(), before);
}

pub async fn what_a_container_writes_stays_its_own() {
    let world = World::new().await;
    let script = "echo changed > /etc/passwd; touch /tmp/x; ls /tmp | wc -l";
    assert_eq!(world.shell(script, |_| ()).await, "1");
    assert_eq!(world.shell(script, |_| ()).await, "1");
    assert!(fs::read_to_string(world.path("layer/etc/passwd")).unwrap().starts_with("root"));
}

/// A tmpfs of the machine's, gone at the end with what is mounted below it.
struct Memory(PathBuf);

impl Memory {
    fn new(path: PathBuf) -> Self {
        fs::create_dir_all(&path).unwrap();
        mount_at("test", &path, "tmpfs", MountFlags::empty(), None).unwrap();
        Self(path)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        _ = unmount(&self.0, UnmountFlags::DETACH);
    }
}

pub async fn mounts_come_and_go_as_they_are_asked_to() {
    let world = World::new().await;
    let machine = Memory::new(world.path("shared"));
    mount_change(&machine.0, MountPropagationFlags::SHARED).unwrap();
    for part in ["late", "own"] {
        fs::create_dir(machine.0.join(part)).unwrap();
    }
    let sandbox = world.pod(|_| ()).await;
    let script = "until [ -e /down/late/file ]; do sleep 0.02; done; echo there: $(ls /none/late /both/late); \
        mount -t tmpfs own /none/own; mount -t tmpfs own /down/own; touch /none/own/none /down/own/down; echo; \
        mount -t tmpfs own /both/own && touch /both/own/both; echo made; sleep 1000";
    let mut spec = world.container(&sandbox, &["sh", "-c", script]);
    spec.security.privileged = true;
    let with = |path: &str, propagation| Mount { propagation, ..mount(machine.0.clone(), path, false) };
    spec.mounts = vec![with("/none", Propagation::None), with("/down", Propagation::HostToContainer), with("/both", Propagation::Bidirectional)];
    world.start(&spec).await.unwrap();
    let late = Memory::new(machine.0.join("late"));
    fs::write(late.0.join("file"), "").unwrap();
    until("its mounts", || lines(&spec.log_path).last().is_some_and(|line| line.ends_with("made"))).await;
    let log = lines(&spec.log_path);
    assert!(log.contains(&"stdout F there: /both/late: file /none/late:".to_owned()), "{log:?}");
    let own: Vec<_> = fs::read_dir(machine.0.join("own")).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(own, ["both"], "what the machine sees of its mounts");
    _ = unmount(machine.0.join("own"), UnmountFlags::DETACH);
}

pub async fn what_is_not_shared_is_said() {
    let world = World::new().await;
    let private = Memory::new(world.path("private"));
    mount_change(&private.0, MountPropagationFlags::PRIVATE).unwrap();
    let sandbox = world.pod(|_| ()).await;
    for (propagation, kind) in [(Propagation::HostToContainer, "shared or slave"), (Propagation::Bidirectional, "shared")] {
        let mut spec = world.container(&sandbox, &["true"]);
        spec.mounts = vec![Mount { propagation, ..mount(private.0.clone(), "/mnt", false) }];
        let why = world.start(&spec).await.unwrap_err();
        let place = private.0.display().to_string();
        assert_eq!(why.message, format!("path {place:?} is mounted on {place:?} but it is not a {kind} mount"));
    }
}

pub async fn read_only_means_all_below_where_asked_for() {
    let world = World::new().await;
    let volume = world.path("volumes/v");
    let below = Memory::new(volume.join("below"));
    let script = "touch /v/x; touch /v/below/x && echo written; true";
    let with = |recursive_read_only| Mount { recursive_read_only, ..mount(volume.clone(), "/v", true) };
    assert!(world.shell(script, |spec| spec.mounts = vec![with(false)]).await.contains("written"));
    assert!(below.0.join("x").exists());
    let out = world.shell(script, |spec| spec.mounts = vec![with(true)]).await;
    assert!(!out.contains("written") && out.matches("Read-only file system").count() == 2, "{out}");
}

pub async fn an_image_is_a_volume() {
    let world = World::new().await;
    let (above, below) = (world.path("above"), world.path("below"));
    for (dir, file) in [(&above, "one"), (&below, "two")] {
        fs::create_dir_all(dir.join("files")).unwrap();
        fs::write(dir.join("files").join(file), format!("{file}\n")).unwrap();
    }
    fs::copy(world.path("layer/bin/busybox"), below.join("files/program")).unwrap();
    symlink("/files", above.join("link")).unwrap();
    let layers = vec![above, below];
    let with = |path: &str, at: &str| Mount { layers: layers.clone(), ..mount(path.into(), at, true) };
    let script =
        "cat /whole/files/one /whole/files/two /part/two /file; touch /whole/x || echo refused; /whole/files/program true || echo no program";
    let out = world.shell(script, |spec| spec.mounts = vec![with("/", "/whole"), with("link", "/part"), with("files/one", "/file")]).await;
    assert!(out.starts_with("one\ntwo\ntwo\none\n") && out.contains("refused") && out.contains("no program"), "{out}");
    let sandbox = world.pod(|_| ()).await;
    for path in ["none", "../../../../../etc/machine-id"] {
        let mut spec = world.container(&sandbox, &["true"]);
        spec.mounts = vec![with(path, "/v")];
        let why = world.start(&spec).await.unwrap_err();
        assert_eq!(why.reason, "CreateContainerConfigError", "{}", why.message);
    }
    assert!(!Path::new("/link").exists());
}
