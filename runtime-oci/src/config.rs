//! A container as the OCI runtime specification has it: pure, from the container's spec, its image and who it runs as.
//!
//! It is built as JSON, which is what the specification defines and what libcontainer reads; defaults are those of containerd, so that images behave as elsewhere.

pub mod capabilities;
pub mod devices;
pub mod seccomp;

use crate::{cgroup, image, user::User};
use coracle_runtime::{ContainerSpec, ImageConfig, Propagation, Reclaim, SandboxSpec};
use serde_json::{Value, json};
use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Of the kernel, not of the pod: hidden.
pub const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];
/// Of the kernel, not of the pod: not for writing.
pub const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// A path of this machine that the container sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bind {
    /// Here.
    pub source: PathBuf,
    /// There.
    pub target: String,
    /// Writes are refused.
    pub read_only: bool,
}

/// A device of this machine, for privileged containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its path, the same inside.
    pub path: PathBuf,
    /// Block or character.
    pub block: bool,
    /// Numbers.
    pub number: (u64, u64),
    /// Permissions, uid, gid.
    pub access: (u32, u32, u32),
}

/// What a container is made of.
pub struct Input<'a> {
    /// The container.
    pub spec: &'a ContainerSpec,
    /// Its pod.
    pub sandbox: &'a SandboxSpec,
    /// Who it runs as.
    pub user: &'a User,
    /// Where its root file system is mounted.
    pub root: &'a Path,
    /// The pod's own files and the container's volumes.
    pub binds: &'a [Bind],
    /// The machine's devices, for a privileged container.
    pub devices: &'a [Device],
    /// The PID namespace that the pod's containers share, if they do.
    pub processes: Option<&'a Path>,
    /// The pod's user namespace, if it has one.
    pub users: Option<&'a Path>,
    /// Its control group, below the root of the tree.
    pub group: &'a Path,
    /// What of that is to be limited by the library: sizes of huge pages that the group can be limited in. None where control groups are of version 1, and done already.
    pub unified: Option<&'a [u64]>,
    /// Capabilities that this process has itself and may give away.
    pub have: &'a HashSet<String>,
    /// The filter of system calls (`linux.seccomp`).
    pub seccomp: Option<Value>,
}

/// The control group of a container.
pub fn group(spec: &ContainerSpec, sandbox: &SandboxSpec) -> PathBuf {
    cgroup::of_pod(&sandbox.pod.uid, sandbox.linux.qos).join(name(spec))
}

/// A container's name in its pod's directory and control group.
pub fn name(spec: &ContainerSpec) -> String {
    format!("{}-{}", spec.name, spec.attempt)
}

/// `config.json`.
///
/// # Errors
/// The container has no command line.
pub fn config(input: &Input<'_>) -> Result<Value, String> {
    let Input { spec, user, .. } = input;
    let image = &spec.image.config;
    let security = &spec.security;
    let args = image::command_line(image, &spec.command, &spec.args)?;
    let cwd = match spec.working_dir.as_deref().filter(|dir| !dir.is_empty()).unwrap_or(&image.working_dir) {
        "" => "/",
        dir => dir,
    };
    let capabilities = capabilities::of(security, input.unified.is_some(), input.have);
    let mut process = json!({
        "terminal": spec.tty,
        "user": { "uid": user.uid, "gid": user.gid, "additionalGids": user.groups },
        "args": args,
        "env": environment(spec, image, user),
        "cwd": cwd,
        "capabilities": { "bounding": capabilities, "effective": capabilities, "permitted": capabilities, "inheritable": [], "ambient": [] },
    });
    // Present and false would have libcontainer load the filter after it gave up the right to.
    if security.allow_privilege_escalation == Some(false) {
        process["noNewPrivileges"] = json!(true);
    }
    Ok(json!({
        "ociVersion": "1.0.2",
        "root": { "path": input.root, "readonly": security.read_only_root },
        "process": process,
        "mounts": mounts(input),
        "linux": linux(input),
    }))
}

/// The image's variables, then the container's.
fn environment(spec: &ContainerSpec, image: &ImageConfig, user: &User) -> Vec<String> {
    let mut variables: Vec<(&str, &str)> = vec![("PATH", DEFAULT_PATH), ("HOME", user.home.as_deref().unwrap_or("/"))];
    if spec.tty {
        variables.push(("TERM", "xterm"));
    }
    for (name, value) in image.env.iter().chain(&spec.env) {
        match variables.iter_mut().find(|(known, _)| *known == name) {
            Some(entry) => entry.1 = value,
            None => variables.push((name, value)),
        }
    }
    // A name that is none would be no variable; the kernel's list ends strings with NUL.
    let sound = |(name, value): &(&str, &str)| !name.is_empty() && !name.contains(['=', '\0']) && !value.contains('\0');
    variables.into_iter().filter(sound).map(|(name, value)| format!("{name}={value}")).collect()
}

fn mounts(input: &Input<'_>) -> Vec<Value> {
    let privileged = input.spec.security.privileged;
    let kernel = |rw: bool| if rw { "rw" } else { "ro" };
    let mount = |target: &str, kind: &str, source: &str, options: &[&str]| json!({ "destination": target, "type": kind, "source": source, "options": options });
    let mut mounts = vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount("/dev/pts", "devpts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
        mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", kernel(privileged)]),
        mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", kernel(privileged)]),
    ];
    // What is mounted over another mount comes after it.
    let mut binds: Vec<&Bind> = input.binds.iter().collect();
    binds.sort_by_key(|bind| Path::new(&bind.target).components().count());
    mounts.retain(|mount| !binds.iter().any(|bind| mount["destination"] == bind.target.as_str()));
    mounts.extend(binds.into_iter().map(|bind| {
        json!({ "destination": bind.target, "type": "bind", "source": bind.source, "options": ["rbind", "rprivate", kernel(!bind.read_only)] })
    }));
    mounts
}

fn linux(input: &Input<'_>) -> Value {
    let Input { spec, sandbox, .. } = input;
    let security = &spec.security;
    // Network, IPC and host name are those of the shim, which is in the pod's.
    let mut namespaces = vec![json!({ "type": "mount" })];
    match input.processes {
        _ if sandbox.linux.host_pid => {}
        Some(path) => namespaces.push(json!({ "type": "pid", "path": path })),
        None => namespaces.push(json!({ "type": "pid" })),
    }
    if let Some(path) = input.users {
        namespaces.push(json!({ "type": "user", "path": path }));
    }
    if input.unified.is_some() && !security.privileged {
        namespaces.push(json!({ "type": "cgroup" }));
    }
    let mut linux = json!({ "namespaces": namespaces, "cgroupsPath": input.group });
    if let Some(pages) = input.unified {
        linux["resources"] = limits(spec, pages);
    }
    if !security.privileged && !security.unmasked_proc {
        linux["maskedPaths"] = json!(MASKED);
        linux["readonlyPaths"] = json!(READ_ONLY);
    }
    if security.privileged {
        linux["devices"] = input.devices.iter().map(device).collect();
    }
    if spec.mounts.iter().any(|mount| mount.propagation == Propagation::Bidirectional) {
        // Otherwise libcontainer has nothing go out of the container.
        linux["rootfsPropagation"] = json!("shared");
    }
    if let Some(filter) = &input.seccomp {
        linux["seccomp"] = filter.clone();
    }
    linux
}

fn device(device: &Device) -> Value {
    let ((major, minor), (mode, uid, gid)) = (device.number, device.access);
    json!({
        "path": device.path, "type": if device.block { "b" } else { "c" },
        "major": major, "minor": minor, "fileMode": mode, "uid": uid, "gid": gid,
    })
}

/// What its control group of version 2 is limited in.
fn limits(spec: &ContainerSpec, pages: &[u64]) -> Value {
    let resources = &spec.resources;
    let rules: Vec<Value> = devices::rules(spec.security.privileged).iter().map(devices::Rule::json).collect();
    let mut limits = json!({ "devices": rules, "cpu": { "shares": cgroup::shares(resources.cpu_request_millis) } });
    if let Some(millis) = resources.cpu_limit_millis {
        limits["cpu"]["period"] = json!(cgroup::PERIOD);
        limits["cpu"]["quota"] = json!(cgroup::quota(millis));
    }
    if let Some(bytes) = resources.memory_limit {
        limits["memory"] = json!({ "limit": bytes });
    }
    if !pages.is_empty() {
        // What is not asked for cannot be had.
        let limit = |size: &u64| json!({ "pageSize": cgroup::pages::name(*size), "limit": resources.huge_pages.get(size).copied().unwrap_or(0) });
        limits["hugepageLimits"] = pages.iter().map(limit).collect();
    }
    if resources.reclaim != Reclaim::default() {
        let Reclaim { min, low, high } = resources.reclaim;
        let high = high.map_or_else(|| "max".to_owned(), |bytes| bytes.to_string());
        limits["unified"] = json!({ "memory.min": min.to_string(), "memory.low": low.to_string(), "memory.high": high });
    }
    limits
}

#[cfg(test)]
mod tests;
