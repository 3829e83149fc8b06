//! What processes of containers may do, and where they are, as pods ask for it.

use anyhow::{Context, ensure};
use coracle_tests::{Cluster, Result, eventually, has};
use serde_json::{Value, json};
use std::fs;

/// A pod of one container that runs a shell script to its end.
fn pod(cluster: &Cluster, ns: &str, name: &str, script: &str, container: Value, spec: Value) -> Result {
    cluster.import_busybox()?;
    let mut pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "namespace": ns }, "spec": spec });
    let mut main = json!({ "name": "main", "image": "busybox:v1", "imagePullPolicy": "Never", "command": ["sh", "-c", script] });
    main.as_object_mut().context("no object")?.extend(container.as_object().cloned().unwrap_or_default());
    for (field, value) in [("restartPolicy", json!("Never")), ("terminationGracePeriodSeconds", json!(1)), ("containers", json!([main]))] {
        pod["spec"][field] = value;
    }
    cluster.apply(&pod.to_string()).map(drop)
}

const STATUS: &str = "grep -E '^(Uid|Gid|Groups|CapEff|NoNewPrivs|Seccomp):' /proc/self/status";
/// `mkdir` and nothing else.
const PROFILE: &str = r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_AARCH64"],"syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO"}]}"#;

pub fn processes_may_what_their_context_says(cluster: &Cluster) -> Result {
    let ns = cluster.namespace("contexts")?;
    let profiles = cluster.data_dir().join("seccomp/tests");
    fs::create_dir_all(&profiles)?;
    fs::write(profiles.join("no-mkdir.json"), PROFILE)?;
    let context = |context: Value| json!({ "securityContext": context });
    let tight = json!({ "capabilities": { "drop": ["ALL"], "add": ["NET_BIND_SERVICE"] }, "allowPrivilegeEscalation": false,
        "seccompProfile": { "type": "RuntimeDefault" }, "readOnlyRootFilesystem": true });
    let local = |file: &str| context(json!({ "seccompProfile": { "type": "Localhost", "localhostProfile": file } }));
    let volumes = json!([{ "name": "v", "emptyDir": {} }]);
    let user =
        json!({ "volumes": volumes, "securityContext": { "runAsUser": 1000, "runAsGroup": 1001, "fsGroup": 1002, "supplementalGroups": [1003] } });
    let mount = json!({ "volumeMounts": [{ "name": "v", "mountPath": "/v" }] });
    let masked = "echo $(grep -c ' /proc/' /proc/self/mountinfo) masks; touch /proc/sys/kernel/domainname && echo writable";
    pod(cluster, &ns, "plain", &format!("{STATUS}; {masked}"), json!({}), json!({}))?;
    pod(cluster, &ns, "user", &format!("{STATUS}; touch /v/own; stat -c '%u:%g %a' /v /v/own"), mount, user)?;
    pod(cluster, &ns, "tight", &format!("{STATUS}; touch /file; unshare -U true"), context(tight), json!({}))?;
    let all = "mount -t tmpfs none /home && echo mounted; test -c /dev/kmsg && echo devices";
    pod(cluster, &ns, "powerful", &format!("{STATUS}; {masked}; {all}"), context(json!({ "privileged": true })), json!({}))?;
    pod(cluster, &ns, "local", "mkdir /tmp/dir || echo refused; exec sleep 1000", local("tests/no-mkdir.json"), json!({}))?;
    pod(cluster, &ns, "lost", "true", local("tests/none.json"), json!({}))?;
    let unmasked = context(json!({ "procMount": "Unmasked" }));
    let script = "awk '{ print $1, ($2 > 0) }' /proc/self/uid_map; id -u; grep -c ' /proc/' /proc/self/mountinfo; touch /v/own && stat -c %u /v/own";
    let mut own = json!({ "volumeMounts": [{ "name": "v", "mountPath": "/v" }] });
    own["securityContext"] = unmasked["securityContext"].clone();
    pod(cluster, &ns, "own-users", script, own, json!({ "volumes": volumes, "hostUsers": false }))?;
    let said = |name: &str| -> Result<String> {
        cluster.finished(&ns, name)?;
        // The kernel puts tabs between.
        Ok(cluster.logs(&ns, name)?.split_inclusive('\n').map(|line| line.replace('\t', " ")).collect())
    };
    let capabilities = |text: &str| -> Result<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix("CapEff: ")).context("no capabilities")?;
        Ok(u64::from_str_radix(line.trim(), 16)?)
    };
    /// What containerd gives, but for MKNOD, which has no bounds where devices cannot be kept back.
    const USUAL: u64 = 0xa004_25fb;
    const MKNOD: u64 = 1 << 27;
    const SYS_ADMIN: u64 = 1 << 21;
    let plain = said("plain")?;
    ensure!(capabilities(&plain)? & !MKNOD == USUAL, "{plain}");
    has(&plain, &["Uid: 0 0 0 0", "NoNewPrivs: 0", "Seccomp: 0"])?;
    ensure!(!plain.contains("writable") && !plain.contains("\n0 masks\n"), "{plain}");
    let user = said("user")?;
    has(
        &user,
        &[
            "Uid: 1000 1000 1000 1000",
            "Gid: 1001 1001 1001 1001",
            "Groups: 1001 1002 1003",
            "CapEff: 0000000000000000",
            "0:1002 2777\n1000:1002 644\n",
        ],
    )?;
    let tight = said("tight")?;
    has(
        &tight,
        &[
            "CapEff: 0000000000000400",
            "NoNewPrivs: 1",
            "Seccomp: 2",
            "Read-only file system",
            "unshare: unshare(0x10000000): Operation not permitted",
        ],
    )?;
    let powerful = said("powerful")?;
    ensure!(capabilities(&powerful)? & (SYS_ADMIN | MKNOD) == SYS_ADMIN | MKNOD, "{powerful}");
    has(&powerful, &["Seccomp: 0", "\n0 masks\n", "writable", "mounted", "devices"])?;
    cluster.ready(&ns, "local")?;
    eventually("what the profile refuses", 60, || has(&cluster.logs(&ns, "local")?, &["Operation not permitted", "refused"]))?;
    let exec = cluster.kubectl_in(&ns, &["exec", "local", "--", "mkdir", "/tmp/other"])?.err()?;
    has(&exec, &["Operation not permitted"])?;
    eventually("why it does not begin", 60, || {
        let state = cluster.status(&ns, "lost")?["containerStatuses"][0]["state"].clone();
        has(&state.to_string(), &["tests/none.json"])
    })?;
    let own = said("own-users")?;
    ensure!(own == "0 1\n0\n0\n0\n", "{own}");
    Ok(())
}

pub fn pods_are_where_they_ask_to_be(cluster: &Cluster) -> Result {
    let ns = cluster.namespace("places")?;
    let spaces = "for space in net ipc pid; do readlink /proc/self/ns/$space; done";
    pod(cluster, &ns, "apart", spaces, json!({}), json!({}))?;
    let host = json!({ "hostNetwork": true, "hostPID": true, "hostIPC": true });
    pod(cluster, &ns, "machine", &format!("{spaces}; test -d /proc/{} && echo there", cluster.pid()?), json!({}), host)?;
    let named = json!({ "hostname": "left", "subdomain": "shelf", "hostAliases": [{ "ip": "192.0.2.9", "hostnames": ["other", "another"] }] });
    pod(cluster, &ns, "named", "hostname; hostname -f; cat /etc/hosts", json!({}), named)?;
    let sysctl = |name: &str, value: &str| json!({ "securityContext": { "sysctls": [{ "name": name, "value": value }] } });
    let port = "net.ipv4.ip_unprivileged_port_start";
    pod(cluster, &ns, "tuned", "cat /proc/sys/net/ipv4/ip_unprivileged_port_start", json!({}), sysctl(port, "81"))?;
    pod(cluster, &ns, "unsafe", "true", json!({}), sysctl("kernel.msgmax", "65536"))?;
    pod(cluster, &ns, "guarded", "true", json!({ "securityContext": { "appArmorProfile": { "type": "RuntimeDefault" } } }), json!({}))?;
    let said = |name: &str| -> Result<String> {
        cluster.finished(&ns, name)?;
        cluster.logs(&ns, name)
    };
    let machine = cluster.host.run("readlink", &["/proc/self/ns/net", "/proc/self/ns/ipc", "/proc/self/ns/pid"])?.ok()?;
    let apart = said("apart")?;
    ensure!(apart.lines().count() == 3 && apart.lines().all(|space| !machine.contains(space)), "{apart}{machine}");
    ensure!(said("machine")? == format!("{machine}there\n"), "{}{machine}", said("machine")?);
    let status = cluster.status(&ns, "machine")?;
    ensure!(status["podIP"] == status["hostIP"], "{status}");
    let named = said("named")?;
    let ip = cluster.status(&ns, "named")?["podIP"].as_str().unwrap_or_default().to_owned();
    ensure!(named.starts_with(&format!("left\nleft.shelf.{ns}.svc.cluster.local\n")), "{named}");
    has(&named, &[&format!("{ip}\tleft.shelf.{ns}.svc.cluster.local\tleft\n"), "192.0.2.9\tother\tanother\n"])?;
    ensure!(said("tuned")? == "81\n");
    let refused = cluster.finished(&ns, "unsafe")?;
    ensure!(refused["phase"] == "Failed" && refused["reason"] == "SysctlForbidden", "{refused}");
    has(refused["message"].as_str().unwrap_or_default(), &["Pod was rejected: forbidden sysctl: \"kernel.msgmax\" not allowlisted"])?;
    let refused = cluster.finished(&ns, "guarded")?;
    ensure!(refused["phase"] == "Failed" && refused["reason"] == "AppArmor", "{refused}");
    has(refused["message"].as_str().unwrap_or_default(), &["Pod was rejected: Cannot enforce AppArmor"])
}
