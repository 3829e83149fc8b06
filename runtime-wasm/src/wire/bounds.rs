//! How large what a pod says of itself may be, so that every message made of it fits the control socket.
//!
//! Arguments and environment are bounded as Linux bounds a program's (execve(2)): what starts as a process elsewhere starts here.

use coracle_runtime::{
    ContainerSpec, Error, Resources, SandboxSpec,
    wire::socket::{MAX_BODY, MAX_WAITING_FDS},
};
use serde::Serialize;

/// Of one argument or variable, with the byte that ends it: Linux' `MAX_ARG_STRLEN`.
const STRING: usize = 128 << 10;
/// Of all arguments and variables of a container and its image, with a pointer to each: a quarter of a stack of 8 MiB.
const STRINGS: usize = 2 << 20;
/// Of a container in JSON, where a byte becomes six at worst.
const CONTAINER: usize = 14 << 20;
/// Of a sandbox in JSON.
const SANDBOX: usize = 1 << 20;
/// What else is in an order: names, and each of at most 65,535 ports.
const REST: usize = 512 << 10;

// An order carries a container and its sandbox.
const _: () = assert!(CONTAINER + SANDBOX + REST <= MAX_BODY && 6 * STRINGS < CONTAINER);

fn json<T: Serialize>(value: &T) -> usize {
    serde_json::to_vec(value).map_or(usize::MAX, |json| json.len())
}

/// Refuses a container that is too large, by name, with size, limit and remedy.
pub fn container(spec: &ContainerSpec) -> Result<(), Error> {
    let name = &spec.name;
    let refuse = |message: String| Err(Error::fatal("CreateContainerConfigError", message));
    let image = &spec.image.config;
    let variables = image.env.iter().chain(&spec.env).map(|(name, value)| (name.as_str(), name.len() + 1 + value.len() + 1));
    let words = [&spec.command, &spec.args, &image.entrypoint, &image.cmd].into_iter().flatten().map(|word| ("", word.len() + 1));
    let mut all = 0;
    for (variable, size) in variables.chain(words) {
        if size > STRING {
            let what = if variable.is_empty() { "an argument".to_owned() } else { format!("environment variable {:.100}", variable) };
            return refuse(format!(
                "{what} of container {name} has {size} bytes, the limit is {STRING} (as for a program on Linux); mount it as a file, from a ConfigMap or Secret volume"
            ));
        }
        all += size + size_of::<usize>();
    }
    if all > STRINGS {
        return refuse(format!(
            "the arguments and environment of container {name} have {all} bytes, the image's included, the limit is {STRINGS} (as for a program on Linux); \
             mount what is large as files, from a ConfigMap or Secret volume"
        ));
    }
    let size = json(spec);
    if size > CONTAINER {
        return refuse(format!(
            "container {name} has {size} bytes with its image's configuration, the limit is {CONTAINER}; give it, or the image, fewer and shorter mounts, ports and labels"
        ));
    }
    Ok(())
}

/// Refuses a container whose descriptors could not be passed on at once.
pub fn descriptors(spec: &ContainerSpec, count: usize) -> Result<(), Error> {
    if count > MAX_WAITING_FDS {
        let message = format!(
            "container {} needs {count} descriptors for its mounts and its ports (one a port and host process), the limit is {MAX_WAITING_FDS}; declare fewer ports",
            spec.name
        );
        return Err(Error::fatal("CreateContainerConfigError", message));
    }
    Ok(())
}

/// Refuses limits with which no instance could be made that begins with so many bytes of memory.
///
/// # Errors
/// Says so.
pub fn beginning(memory: u64, resources: &Resources) -> Result<(), String> {
    match resources.memory_limit.filter(|limit| memory > *limit) {
        Some(limit) => Err(format!("an instance begins with {memory} bytes of memory, more than limits.memory ({limit}); raise the limit")),
        None => Ok(()),
    }
}

/// A sandbox without what nothing here reads; refuses one that is too large even so.
pub fn sandbox(mut spec: SandboxSpec) -> Result<SandboxSpec, Error> {
    spec.labels.clear();
    spec.annotations.clear();
    let size = json(&spec);
    if size > SANDBOX {
        let message = format!("the sandbox has {size} bytes, the limit is {SANDBOX}; shorten the pod's dnsConfig");
        return Err(Error::fatal("CreatePodSandboxError", message));
    }
    Ok(spec)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        supervisor::state::tests as given,
        wire::{Kind, Order},
    };

    fn with_env(env: Vec<(String, String)>) -> ContainerSpec {
        let mut spec = given::start("web", Kind::Http).spec;
        spec.env = env;
        spec
    }

    #[test]
    fn what_linux_would_not_start_is_refused_with_size_and_limit() {
        let full = STRING - "NAME=".len() - 1;
        assert!(container(&with_env(vec![("NAME".into(), "x".repeat(full))])).is_ok());
        let error = container(&with_env(vec![("NAME".into(), "x".repeat(full + 1))])).unwrap_err();
        assert_eq!((error.reason.as_str(), error.fatal), ("CreateContainerConfigError", true));
        for part in ["NAME", "container web", "131073", "131072", "mount it"] {
            assert!(error.message.contains(part), "{part}: {error}");
        }
        let many: Vec<_> = (0..16).map(|n| (format!("N{n:03}"), "x".repeat(full))).collect();
        let error = container(&with_env(many.clone())).unwrap_err();
        assert!(error.message.contains("container web") && error.message.contains("2097152"), "{error}");
        assert!(container(&with_env(many[..15].to_vec())).is_ok());
        let mut words = with_env(Vec::new());
        words.image.config.cmd = vec!["x".repeat(STRING)];
        assert!(container(&words).unwrap_err().message.contains("an argument of container web"));
    }

    #[test]
    fn every_order_within_bounds_can_be_sent() {
        // Bytes that JSON writes as six.
        let full = "\u{1}".repeat(STRING - "NAME=".len() - 1);
        let spec = with_env((0..15).map(|n| (format!("N{n:03}"), full.clone())).collect());
        container(&spec).unwrap();
        let mut pod = given::sandbox();
        pod.annotations.insert("large".into(), "\u{1}".repeat(256 << 10));
        pod.dns.options = vec!["x".repeat(SANDBOX - 4096)];
        let pod = sandbox(pod).unwrap();
        let mut start = given::start("web", Kind::Http);
        start.spec = spec;
        start.ports = (0..=u16::MAX).collect();
        let order = Order::Start { start: Box::new(start), sandbox: Box::new(pod), slot: usize::MAX };
        assert!(json(&order) > 8 << 20, "the test is about large ones");
        let (mut link, _other) = coracle_runtime::wire::socket::Link::pair().unwrap();
        link.send(&order, Vec::new()).unwrap();
    }

    #[test]
    fn what_is_large_in_other_ways_is_refused_too() {
        let mut labels = with_env(Vec::new());
        labels.image.config.labels.insert("a".into(), "x".repeat(CONTAINER));
        assert!(container(&labels).unwrap_err().message.contains("labels"));
        assert!(descriptors(&labels, MAX_WAITING_FDS).is_ok());
        assert!(descriptors(&labels, MAX_WAITING_FDS + 1).unwrap_err().message.contains("fewer ports"));
        let mut pod = given::sandbox();
        pod.dns.options = vec!["x".repeat(SANDBOX)];
        assert!(sandbox(pod).unwrap_err().message.contains("dnsConfig"));
    }
}
