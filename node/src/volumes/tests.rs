use super::*;
use crate::mirror::Key;
use async_trait::async_trait;
use base64::Engine;
use bytes::Bytes;
use serde_json::{Value, json};
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    sync::atomic::{AtomicUsize, Ordering},
};

struct Fixed(parking_lot::Mutex<Vec<(Key, Value)>>);

impl Objects for Fixed {
    fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Bytes> {
        let key = Key::new(resource, namespace, name);
        self.0.lock().iter().find(|(k, _)| *k == key).map(|(_, v)| Bytes::from(v.to_string()))
    }
    fn list(&self, _: &str, _: Option<&str>) -> Vec<(Key, Bytes)> {
        Vec::new()
    }
}

#[derive(Default)]
struct Issuer {
    asked: AtomicUsize,
    life: i64,
    issued: i64,
    down: bool,
}

#[async_trait]
impl Tokens for Issuer {
    async fn request(&self, _: &Pod, _: &TokenSource) -> Result<String, String> {
        if self.down {
            return Err("the link is down".into());
        }
        let n = self.asked.fetch_add(1, Ordering::SeqCst);
        let claims = json!({ "iat": self.issued, "exp": self.issued + self.life, "n": n }).to_string();
        Ok(format!("h.{}.s", base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(claims)))
    }
}

fn pod(volumes: Value) -> Pod {
    serde_json::from_value(json!({ "metadata": { "name": "p", "namespace": "ns", "labels": { "a": "b" } }, "spec": { "volumes": volumes } })).unwrap()
}

fn objects() -> Fixed {
    Fixed(parking_lot::Mutex::new(vec![
        (Key::new("configmaps", "ns", "c"), json!({ "data": { "x": "1", "y": "2" }, "binaryData": { "z": "AAE=" } })),
        (Key::new("secrets", "ns", "s"), json!({ "data": { "k": "c2VjcmV0" } })),
    ]))
}

#[tokio::test]
async fn files_modes_and_items() {
    let dir = tempfile::tempdir().unwrap();
    let pod = pod(json!([
        { "name": "all", "configMap": { "name": "c" } },
        { "name": "some", "secret": { "secretName": "s", "defaultMode": 0o400, "items": [{ "key": "k", "path": "a/b", "mode": 0o440 }] } },
        { "name": "gone", "configMap": { "name": "none", "optional": true } },
        { "name": "fields", "downwardAPI": { "items": [{ "path": "labels", "fieldRef": { "fieldPath": "metadata.labels" } }] } },
        { "name": "scratch", "emptyDir": {} },
    ]));
    let mounted = mount(&pod, dir.path(), &Facts::sample(), &objects(), &Issuer::default()).await.unwrap();
    assert_eq!(mounted, Mounted::default());
    let at = |path: &str| directory(dir.path()).join(path);
    assert_eq!(fs::read(at("all/x")).unwrap(), b"1");
    assert_eq!(fs::read(at("all/z")).unwrap(), [0, 1]);
    assert_eq!(fs::read(at("some/a/b")).unwrap(), b"secret");
    assert_eq!(fs::metadata(at("some/a/b")).unwrap().permissions().mode() & 0o777, 0o444, "hosts read it too");
    assert_eq!(fs::read(at("fields/labels")).unwrap(), b"a=\"b\"");
    assert_eq!(fs::metadata(at("scratch")).unwrap().permissions().mode() & 0o777, 0o777);
    assert!(at("gone").is_dir());
    fs::write(at("scratch/kept"), b"x").unwrap();
    leave(dir.path()).unwrap();
    mount(&pod, dir.path(), &Facts::sample(), &objects(), &Issuer::default()).await.unwrap();
    assert_eq!(fs::read(at("scratch/kept")).unwrap(), b"x");
    unmount(dir.path()).unwrap();
    assert!(!directory(dir.path()).exists());
}

#[tokio::test]
async fn memory_is_a_tmpfs_of_the_smallest_limit_or_said_to_be_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    let volume = |name: &str, limit: &str| json!({ "name": name, "emptyDir": { "medium": "Memory", "sizeLimit": limit } });
    let mut pod = pod(json!([volume("small", "1Mi"), volume("large", "1Pi"), { "name": "disk", "emptyDir": { "sizeLimit": "2Mi" } }]));
    pod.spec.containers = vec![serde_json::from_value(json!({ "resources": { "limits": { "memory": "8Mi" } } })).unwrap(); 2];
    let mounted = mount(&pod, dir.path(), &Facts::sample(), &objects(), &Issuer::default()).await.unwrap();
    let named = |mounted: &Mounted| mounted.limits.iter().map(|limit| limit.name.clone()).collect::<Vec<_>>();
    if !rustix::process::geteuid().is_root() || !mounted.on_disk.is_empty() {
        // An ordinary user: on disk, and held to the limit there.
        assert_eq!(mounted.on_disk, ["small", "large"]);
        assert_eq!(named(&mounted), ["small", "large", "disk"]);
        return;
    }
    assert_eq!(named(&mounted), ["disk"], "a tmpfs sees to its size itself");
    let size = |name: &str| rustix::fs::statvfs(directory(dir.path()).join(name)).map(|fs| fs.f_blocks * fs.f_frsize).unwrap();
    assert_eq!((size("small"), size("large")), (1 << 20, 16 << 20));
    fs::write(directory(dir.path()).join("small/x"), b"x").unwrap();
    // Writing the volumes again finds them.
    mount(&pod, dir.path(), &Facts::sample(), &objects(), &Issuer::default()).await.unwrap();
    assert!(directory(dir.path()).join("small/x").exists());
    unmount(dir.path()).unwrap();
    assert!(!directory(dir.path()).exists());
}

#[tokio::test]
async fn an_update_changes_everything_at_once_and_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let pod = pod(json!([{ "name": "v", "configMap": { "name": "c" } }]));
    let objects = objects();
    mount(&pod, dir.path(), &Facts::sample(), &objects, &Issuer::default()).await.unwrap();
    let volume = directory(dir.path()).join("v");
    let before = fs::read_link(volume.join(atomic::DATA)).unwrap();
    mount(&pod, dir.path(), &Facts::sample(), &objects, &Issuer::default()).await.unwrap();
    assert_eq!(fs::read_link(volume.join(atomic::DATA)).unwrap(), before, "nothing changed, nothing written");

    // A reader that holds the old directory goes on reading the old content until it looks again.
    let held = fs::canonicalize(volume.join(atomic::DATA)).unwrap();
    let held_file = fs::File::open(held.join("x")).unwrap();
    objects.0.lock()[0].1 = json!({ "data": { "x": "new", "w": "3" } });
    mount(&pod, dir.path(), &Facts::sample(), &objects, &Issuer::default()).await.unwrap();
    assert_eq!(std::io::read_to_string(held_file).unwrap(), "1");
    assert_eq!(fs::read(volume.join("x")).unwrap(), b"new");
    let mut names: Vec<String> = fs::read_dir(&volume).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names.len(), 4, "{names:?}");
    assert_eq!(&names[2..], ["w", "x"]);
    assert!(fs::symlink_metadata(volume.join("y")).is_err());
}

#[tokio::test]
async fn what_is_missing_unsupported_or_unsafe_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    for (volume, want) in [
        (json!({ "name": "v", "configMap": { "name": "none" } }), "volume \"v\" : configmap \"none\" not found"),
        (json!({ "name": "v", "secret": { "secretName": "none" } }), "secret \"none\" not found"),
        (json!({ "name": "v", "configMap": { "name": "c", "items": [{ "key": "q", "path": "q" }] } }), "non-existent configmap key: q"),
        (json!({ "name": "v", "hostPath": { "path": "/etc" } }), "volumes of type hostPath are for containers"),
        (json!({ "name": "v", "configMap": { "name": "c", "items": [{ "key": "x", "path": "../../etc/x" }] } }), "must be relative"),
        (json!({ "name": "../v", "emptyDir": {} }), "is no name for a directory"),
    ] {
        let error = mount(&pod(json!([volume])), dir.path(), &Facts::sample(), &objects(), &Issuer::default()).await.unwrap_err().to_string();
        assert!(error.contains(want), "{error}");
    }
}

#[tokio::test]
async fn tokens_are_renewed_at_four_fifths_of_their_life_and_kept_while_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    let now = Time::now().0 / 1000;
    let pod = pod(json!([{ "name": "t", "projected": { "sources": [
        { "serviceAccountToken": { "path": "token", "expirationSeconds": 3600 } }, { "configMap": { "name": "c", "items": [{ "key": "x", "path": "ca.crt" }] } }] } }]));
    let token = || fs::read_to_string(directory(dir.path()).join("t/token")).unwrap();
    let young = Issuer { life: 1000, issued: now - 100, ..Issuer::default() };
    let due = mount(&pod, dir.path(), &Facts::sample(), &objects(), &young).await.unwrap().renewal.unwrap();
    assert_eq!(due.at, Time((now - 100 + 800) * 1000));
    let first = token();
    mount(&pod, dir.path(), &Facts::sample(), &objects(), &young).await.unwrap();
    assert_eq!((token(), young.asked.load(Ordering::SeqCst)), (first, 1), "a young token is kept");

    let dir = tempfile::tempdir().unwrap();
    let token = || fs::read_to_string(directory(dir.path()).join("t/token")).unwrap();
    let aged = Issuer { life: 1000, issued: now - 900, ..Issuer::default() };
    mount(&pod, dir.path(), &Facts::sample(), &objects(), &aged).await.unwrap();
    let first = token();
    let cut_off = Issuer { down: true, ..Issuer::default() };
    let due = mount(&pod, dir.path(), &Facts::sample(), &objects(), &cut_off).await.unwrap().renewal.unwrap();
    assert!(!due.reached(Time::now()));
    assert_eq!(token(), first);
    mount(&pod, dir.path(), &Facts::sample(), &objects(), &aged).await.unwrap();
    assert_ne!(token(), first);

    let dir = tempfile::tempdir().unwrap();
    let error = mount(&pod, dir.path(), &Facts::sample(), &objects(), &cut_off).await.unwrap_err().to_string();
    assert!(error.contains("failed to fetch token: the link is down"), "{error}");
}

#[test]
fn a_sub_path_stays_inside() {
    let dir = tempfile::tempdir().unwrap();
    let volume = dir.path().join("v");
    fs::create_dir(&volume).unwrap();
    fs::write(volume.join("file"), "x").unwrap();
    std::os::unix::fs::symlink("..", volume.join("up")).unwrap();
    std::os::unix::fs::symlink("/etc", volume.join("abs")).unwrap();
    let root = fs::canonicalize(&volume).unwrap();
    assert_eq!(paths::sub_path(&volume, "file").unwrap(), root.join("file"));
    assert_eq!(paths::sub_path(&volume, "new/dir").unwrap(), root.join("new/dir"));
    for bad in ["../x", "up/v", "abs", "abs/passwd", "/etc", "up/new"] {
        assert!(paths::sub_path(&volume, bad).is_err(), "{bad}");
    }
    assert!(!dir.path().join("new").exists(), "nothing was made outside");
}

/// A container of the pod swaps a directory and a link that leads out while `subPath` of another one is resolved.
#[test]
fn a_sub_path_that_changes_under_ones_feet_stays_inside() {
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
    let dir = tempfile::tempdir().unwrap();
    let (volume, outside) = (dir.path().join("v"), dir.path().join("outside"));
    for path in [&volume, &outside] {
        paths::make(path, 0o755).unwrap();
    }
    let root = fs::canonicalize(&volume).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Relaxed) {
                let _ = std::os::unix::fs::symlink(&outside, volume.join("x"));
                let _ = fs::remove_file(volume.join("x"));
                let _ = fs::remove_dir(volume.join("x"));
            }
        });
        for _ in 0..20_000 {
            if let Ok(place) = paths::sub_path(&volume, "x") {
                assert!(place.starts_with(&root), "{}", place.display());
            }
        }
        done.store(true, Relaxed);
    });
    assert_eq!(fs::metadata(&outside).unwrap().permissions().mode() & 0o777, 0o755, "nothing outside was changed");
}
