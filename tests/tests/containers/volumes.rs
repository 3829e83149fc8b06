//! What containers are given as directories and files, as users of Kubernetes ask for it.

use anyhow::{Context, ensure};
use coracle_tests::{Cluster, Result, eventually, has};
use serde_json::{Value, json};
use std::{
    fs,
    os::unix::{fs::FileTypeExt, net::UnixListener},
    path::{Path, PathBuf},
};

/// A pod of one container `main` that runs a shell script; each volume is mounted at `/<its name>`, and `mounts` besides.
fn pod(cluster: &Cluster, ns: &str, name: &str, script: &str, volumes: &[Value], mounts: &[Value]) -> Result {
    cluster.import_busybox()?;
    let own = volumes.iter().filter_map(|volume| volume["name"].as_str()).map(|name| json!({ "name": name, "mountPath": format!("/{name}") }));
    let mounts: Vec<Value> = own.chain(mounts.iter().cloned()).collect();
    let pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "namespace": ns, "labels": { "app": name } },
        "spec": { "restartPolicy": "Never", "terminationGracePeriodSeconds": 1, "volumes": volumes,
            "containers": [{ "name": "main", "image": "busybox:v1", "imagePullPolicy": "Never", "command": ["sh", "-c", script], "volumeMounts": mounts }] } });
    cluster.apply(&pod.to_string()).map(drop)
}

pub fn paths_of_the_machine_are_checked(cluster: &Cluster) -> Result {
    let ns = cluster.namespace("paths")?;
    let dir = cluster.dir().join("machine");
    fs::create_dir(&dir)?;
    fs::write(dir.join("file"), "")?;
    let _socket = UnixListener::bind(dir.join("socket"))?;
    let volume = |name: &str, path: &Path, kind: &str| json!({ "name": name, "hostPath": { "path": path, "type": kind } });
    let below = |name: &str| dir.join(name);
    let mut good = vec![
        volume("dir", &dir, "Directory"),
        volume("made", &below("made"), "DirectoryOrCreate"),
        volume("file", &below("file"), "File"),
        volume("new", &below("new"), "FileOrCreate"),
        volume("socket", &below("socket"), "Socket"),
        volume("null", Path::new("/dev/null"), "CharDevice"),
        json!({ "name": "any", "hostPath": { "path": below("any") } }),
    ];
    let mut script = "test -d /dir && test -d /made && test -f /file && test -f /new && test -S /socket && test -c /null && test -d /any".to_owned();
    // A machine without any has nothing to show there.
    let device = fs::read_dir("/dev")?.flatten().find(|entry| entry.file_type().is_ok_and(|kind| kind.is_block_device()));
    if let Some(device) = device {
        good.push(volume("block", &device.path(), "BlockDevice"));
        script += " && test -b /block";
    }
    pod(cluster, &ns, "good", &(script + " && echo from the pod > /file && mkdir /dir/below"), &good, &[])?;
    let bad = [
        ("Directory", "file", "a directory"),
        ("Directory", "none", "a directory"),
        ("DirectoryOrCreate", "file", "a directory"),
        ("File", ".", "a file"),
        ("File", "none", "a file"),
        ("FileOrCreate", ".", "a file"),
        ("Socket", "file", "a socket file"),
        ("CharDevice", "file", "a character device"),
        ("BlockDevice", "file", "a block device"),
    ];
    let name = |index: usize| format!("bad-{index}");
    for (index, (kind, path, _)) in bad.iter().enumerate() {
        pod(cluster, &ns, &name(index), "true", &[volume("v", &below(path), kind)], &[])?;
    }
    let ended = cluster.finished(&ns, "good")?;
    ensure!(ended["phase"] == "Succeeded", "{ended}");
    ensure!(fs::read_to_string(below("file"))? == "from the pod\n" && below("below").is_dir());
    for (index, (kind, path, wanted)) in bad.iter().enumerate() {
        let why = format!("MountVolume.SetUp failed for volume \"v\" : hostPath type check failed: {} is not {wanted}", below(path).display());
        eventually(&format!("why {kind} is refused"), 60, || has(&super::events(cluster, &ns, &name(index))?, &["FailedMount", &why]))?;
        let status = cluster.status(&ns, &name(index))?;
        ensure!(status["phase"] == "Pending" && status["containerStatuses"][0]["state"]["waiting"]["reason"] == "ContainerCreating", "{status}");
    }
    // What was not there may come.
    fs::create_dir(below("none"))?;
    ensure!(cluster.finished(&ns, &name(1))?["phase"] == "Succeeded");
    Ok(())
}

pub fn secrets_are_files(cluster: &Cluster) -> Result {
    let ns = cluster.namespace("secrets")?;
    let kubectl = |words: &[&str]| cluster.kubectl_in(&ns, words)?.ok();
    kubectl(&["create", "secret", "generic", "keys", "--from-literal=a=alpha", "--from-literal=b=beta"])?;
    kubectl(&["create", "configmap", "settings", "--from-literal=color=blue"])?;
    let projected = json!([
        { "secret": { "name": "keys", "items": [{ "key": "b", "path": "in/b" }] } },
        { "configMap": { "name": "settings", "items": [{ "key": "color", "path": "in/color", "mode": 0o600 }] } },
        { "downwardAPI": { "items": [{ "path": "labels", "fieldRef": { "fieldPath": "metadata.labels" } }] } },
        { "serviceAccountToken": { "audience": "vault", "path": "token" } },
    ]);
    let volumes = [
        json!({ "name": "all", "secret": { "secretName": "keys", "defaultMode": 0o400 } }),
        json!({ "name": "some", "secret": { "secretName": "keys", "items": [{ "key": "a", "path": "deep/alpha", "mode": 0o440 }, { "key": "b", "path": "b" }] } }),
        json!({ "name": "none", "secret": { "secretName": "nothing", "optional": true } }),
        json!({ "name": "parts", "projected": { "sources": projected, "defaultMode": 0o444 } }),
    ];
    let fixed = json!({ "name": "all", "mountPath": "/etc/fixed", "subPath": "a" });
    pod(cluster, &ns, "reader", "exec sleep 1000", &volumes, &[fixed])?;
    cluster.ready(&ns, "reader")?;
    let sh = |script: &str| cluster.kubectl_in(&ns, &["exec", "reader", "--", "sh", "-c", script]);
    let modes = sh("cd /; stat -Lc '%a %s %n' all/a all/b some/deep/alpha some/b parts/in/b parts/in/color parts/labels")?.ok()?;
    ensure!(
        modes == "400 5 all/a\n400 4 all/b\n440 5 some/deep/alpha\n644 4 some/b\n444 4 parts/in/b\n600 4 parts/in/color\n444 12 parts/labels\n",
        "{modes}"
    );
    let text = sh("cd /; cat all/a some/deep/alpha parts/in/b parts/in/color parts/labels etc/fixed; ls none; ls some")?.ok()?;
    ensure!(text == "alphaalphabetablueapp=\"reader\"alphab\ndeep\n", "{text}");
    ensure!(sh("cat /parts/token")?.ok()?.split('.').count() == 3);
    has(&sh("echo no > /all/a")?.err()?, &["Read-only file system"])?;
    kubectl(&["patch", "secret", "keys", "-p", r#"{"stringData":{"a":"gamma","c":"new"}}"#])?;
    kubectl(&["label", "pod", "reader", "app=other", "--overwrite"])?;
    kubectl(&["create", "secret", "generic", "nothing", "--from-literal=late=come"])?;
    eventually("the updates", 60, || {
        let text = sh("cd /; cat all/a all/c some/deep/alpha parts/labels none/late; ls some; cat etc/fixed")?.ok()?;
        ensure!(text == "gammanewgammaapp=\"other\"comeb\ndeep\nalpha", "{text}");
        Ok(())
    })?;
    // One that has to be there is waited for.
    pod(cluster, &ns, "early", "cat /late/key; echo", &[json!({ "name": "late", "secret": { "secretName": "late" } })], &[])?;
    let why = "MountVolume.SetUp failed for volume \"late\" : secret \"late\" not found";
    eventually("why it waits", 60, || has(&super::events(cluster, &ns, "early")?, &["FailedMount", why]))?;
    kubectl(&["create", "secret", "generic", "late", "--from-literal=key=here"])?;
    cluster.finished(&ns, "early")?;
    ensure!(cluster.logs(&ns, "early")? == "here\n");
    Ok(())
}

pub fn images_are_volumes(cluster: &Cluster) -> Result {
    let ns = cluster.namespace("artifacts")?;
    let volume = |image: &str| json!({ "name": "image", "image": { "reference": image, "pullPolicy": "Never" } });
    let part = json!({ "name": "image", "mountPath": "/part", "subPath": "etc" });
    pod(cluster, &ns, "reader", "head -n 1 /image/etc/passwd; ls /part; touch /image/new", &[volume("busybox:v1")], &[part])?;
    pod(cluster, &ns, "none", "true", &[volume("nothing:v1")], &[])?;
    let ended = cluster.finished(&ns, "reader")?;
    let text = cluster.logs(&ns, "reader")?;
    ensure!(text.starts_with("root:x:0:0::/root:/bin/sh\ngroup\npasswd\n") && text.contains("Read-only file system"), "{text}");
    ensure!(ended["phase"] == "Failed", "{ended}");
    eventually("why it waits", 60, || {
        let status = cluster.status(&ns, "none")?;
        let waiting = &status["containerStatuses"][0]["state"]["waiting"];
        ensure!(waiting["reason"] == "ErrImageNeverPull", "{status}");
        has(waiting["message"].as_str().context("no message")?, &["nothing:v1"])
    })
}

/// A directory of the machine that is a mount of its own, which others may be peers of; unmounted when dropped.
struct Shared<'a>(&'a Cluster, PathBuf);

impl<'a> Shared<'a> {
    fn new(cluster: &'a Cluster) -> Result<Self> {
        let dir = cluster.dir().join("shared");
        fs::create_dir(&dir)?;
        let shared = Self(cluster, dir);
        shared.run("mount", &["-t", "tmpfs", "none"], &shared.1)?;
        shared.run("mount", &["--make-rshared"], &shared.1)?;
        Ok(shared)
    }

    fn run(&self, program: &str, words: &[&str], at: &Path) -> Result {
        self.0.host.run(program, &[words, &[&at.to_string_lossy()]].concat())?.ok().map(drop)
    }
}

impl Drop for Shared<'_> {
    fn drop(&mut self) {
        _ = self.run("umount", &["-R", "-l"], &self.1);
    }
}

pub fn volumes_are_mounted_as_they_are_asked_to(cluster: &Cluster) -> Result {
    let ns = cluster.namespace("mounts")?;
    let shared = Shared::new(cluster)?;
    let (late, own) = (shared.1.join("late"), shared.1.join("own"));
    fs::create_dir(&late)?;
    fs::create_dir(&own)?;
    let scratch = json!({ "name": "memory", "emptyDir": { "medium": "Memory", "sizeLimit": "1Mi" } });
    let disk = json!({ "name": "disk", "emptyDir": {} });
    let part = json!({ "name": "disk", "mountPath": "/part", "subPath": "a/b" });
    let closed = json!({ "name": "disk", "mountPath": "/closed", "readOnly": true, "recursiveReadOnly": "Enabled" });
    let script = "grep -c ' /memory tmpfs ' /proc/mounts; dd if=/dev/zero of=/memory/file bs=64k count=32 2>&1 | grep -o 'No space left on device'; stat -c %s /memory/file; \
                  echo text > /part/file; cat /disk/a/b/file /closed/a/b/file; touch /closed/file 2>&1 | grep -o 'Read-only file system'";
    pod(cluster, &ns, "several", script, &[scratch, disk], &[part, closed])?;
    let machine = json!({ "name": "machine", "hostPath": { "path": shared.1 } });
    let mut beside = Vec::new();
    for (name, propagation, privileged, script) in [
        ("sees", "HostToContainer", false, "until test -e /shared/late/file; do sleep 0.1; done; cat /shared/late/file"),
        ("gives", "Bidirectional", true, "mount -t tmpfs none /shared/own; echo given > /shared/own/file; exec sleep 1000"),
    ] {
        beside.push(json!({ "name": name, "image": "busybox:v1", "imagePullPolicy": "Never", "command": ["sh", "-c", script],
            "securityContext": { "privileged": privileged },
            "volumeMounts": [{ "name": "machine", "mountPath": "/shared", "mountPropagation": propagation }] }));
    }
    let spec = json!({ "restartPolicy": "Never", "terminationGracePeriodSeconds": 1, "volumes": [machine], "containers": beside });
    cluster.apply(&json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "peers", "namespace": ns }, "spec": spec }).to_string())?;
    cluster.finished(&ns, "several")?;
    let text = cluster.logs(&ns, "several")?;
    ensure!(text == "1\nNo space left on device\n1048576\ntext\ntext\nRead-only file system\n", "{text}");
    let status = cluster.status(&ns, "several")?;
    has(&status["containerStatuses"][0]["volumeMounts"].to_string(), &["\"recursiveReadOnly\":\"Enabled\""])?;
    eventually("what a container mounted", 60, || {
        ensure!(fs::read_to_string(own.join("file"))? == "given\n");
        Ok(())
    })?;
    shared.run("mount", &["-t", "tmpfs", "none"], &late)?;
    fs::write(late.join("file"), "come\n")?;
    eventually("what the machine mounted", 60, || {
        ensure!(cluster.kubectl_in(&ns, &["logs", "peers", "-c", "sees"])?.ok()? == "come\n");
        Ok(())
    })?;
    cluster.kubectl_in(&ns, &["delete", "pod", "peers", "--timeout=30s"])?.ok().map(drop)
}

/// In volumes and in the container's own files (the node looks every ten seconds).
pub fn who_writes_too_much_is_evicted(cluster: &Cluster) -> Result {
    let ns = cluster.namespace("hoards")?;
    cluster.import_busybox()?;
    let much = "dd if=/dev/zero of=$DIR/file bs=1M count=4; exec sleep 1000";
    let volume = json!({ "name": "v", "emptyDir": { "sizeLimit": "1Mi" } });
    pod(cluster, &ns, "volume", &much.replace("$DIR", "/v"), &[volume], &[])?;
    let spec = json!({ "terminationGracePeriodSeconds": 1, "containers": [{ "name": "main", "image": "busybox:v1", "imagePullPolicy": "Never",
        "command": ["sh", "-c", much.replace("$DIR", "/tmp")], "resources": { "limits": { "ephemeral-storage": "1Mi" } } }] });
    cluster.apply(&json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "files", "namespace": ns }, "spec": spec }).to_string())?;
    for (name, why) in [
        ("volume", "Usage of EmptyDir volume \"v\" exceeds the limit \"1Mi\". "),
        ("files", "Pod ephemeral local storage usage exceeds the total limit of containers 1Mi. "),
    ] {
        let status = cluster.finished(&ns, name)?;
        ensure!(status["containerStatuses"][0]["state"]["terminated"].is_object(), "an end is told when nothing runs any more: {status}");
        ensure!(
            status["phase"] == "Failed" && status["reason"] == "Evicted" && status["message"].as_str().is_some_and(|text| text.contains(why)),
            "{status}"
        );
        has(&super::events(cluster, &ns, name)?, &["Evicted", why.trim_end()])?;
    }
    Ok(())
}
