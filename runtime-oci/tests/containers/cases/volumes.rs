use crate::world::World;
use coracle_runtime::Mount;
use std::{fs, os::unix::fs::symlink};

fn mount(host_path: std::path::PathBuf, container_path: &str, read_only: bool) -> Mount {
    Mount { host_path, container_path: container_path.into(), read_only }
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
