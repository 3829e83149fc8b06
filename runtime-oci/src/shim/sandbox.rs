//! A pod's namespaces, which are the shim's own: it moves into them, and everything it forks is there already. No pause program is needed to hold them.

use coracle_runtime::SandboxSpec;
use rustix::{
    fs::{Mode, OFlags, open},
    mount::{MountFlags, MountPropagationFlags, mount, mount_change},
    thread::UnshareFlags,
};
use std::{
    collections::BTreeMap,
    fs, io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

/// The pod's shared memory is as large as Docker's and containerd's.
const SHM: &str = "mode=1777,size=65536k";

/// `unshare(2)`.
///
/// # Errors
/// We may not, or there are too many namespaces.
#[allow(unsafe_code, reason = "unshare may leave other threads with descriptors that are not theirs")]
pub fn unshare(flags: UnshareFlags) -> io::Result<()> {
    // SAFETY: shims and workers have one thread, and FILES is not among the flags.
    Ok(unsafe { rustix::thread::unshare_unsafe(flags) }?)
}

/// Moves this process into namespaces of the pod's own; returns the machine's mount namespace, and the pod's user namespace if it has one.
///
/// # Errors
/// The kernel refuses a namespace, the host name or a parameter.
pub fn enter(spec: &SandboxSpec, dir: &Path) -> io::Result<(OwnedFd, Option<OwnedFd>)> {
    let linux = &spec.linux;
    let machine = open("/proc/self/ns/mnt", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut flags = UnshareFlags::empty();
    flags.set(UnshareFlags::NEWNET | UnshareFlags::NEWUTS, !linux.host_network);
    flags.set(UnshareFlags::NEWIPC, !linux.host_ipc);
    let users = match linux.users {
        Some(range) => {
            unshare(UnshareFlags::NEWNS)?;
            Some(super::users::make(range, flags)?)
        }
        None => unshare(flags | UnshareFlags::NEWNS).map(|()| None)?,
    };
    mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?;
    if !linux.host_network {
        nix::unistd::sethostname(&spec.hostname)?;
    }
    if !linux.host_ipc {
        let shm = dir.join("shm");
        fs::create_dir_all(&shm)?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        let root = linux.users.map_or(0, |users| users.first);
        let options = std::ffi::CString::new(format!("{SHM},uid={root},gid={root}")).map_err(io::Error::other)?;
        mount("shm", &shm, "tmpfs", flags, Some(options.as_c_str()))?;
    }
    let mut parameters = BTreeMap::new();
    if !linux.host_network {
        // As containerd has it: in a pod of its own, a low port and an echo request are nobody's privilege.
        parameters.insert("net.ipv4.ip_unprivileged_port_start".to_owned(), "0".to_owned());
        parameters.insert("net.ipv4.ping_group_range".to_owned(), "0 2147483647".to_owned());
        // A pod must not say to the others on its bridge that it is the way to everywhere (CVE-2020-10749).
        for which in ["all", "default"] {
            parameters.insert(format!("net.ipv6.conf.{which}.accept_ra"), "0".to_owned());
        }
    }
    parameters.extend(linux.sysctls.clone());
    for (name, value) in parameters {
        let path = parameter(&name, linux.host_network, linux.host_ipc).map_err(io::Error::other)?;
        let asked = linux.sysctls.contains_key(&name);
        if let Err(error) = fs::write(&path, &value)
            && asked
        {
            return Err(io::Error::new(error.kind(), format!("sysctl {name}={value:?}: {error}")));
        }
    }
    Ok((machine, users))
}

/// The file of a kernel parameter that belongs to a namespace of the pod; any other is the machine's.
fn parameter(name: &str, host_network: bool, host_ipc: bool) -> Result<PathBuf, String> {
    let ipc = name == "kernel.sem" || ["kernel.shm", "kernel.msg", "fs.mqueue."].iter().any(|prefix| name.starts_with(prefix));
    let net = name.starts_with("net.");
    let own = if net { !host_network } else { ipc && !host_ipc };
    if !own {
        return Err(format!("sysctl {name:?} does not belong to a namespace of the pod's own"));
    }
    // Dots and slashes change places, as sysctl(8) has it (net/ipv4/conf/eth0.1 is net.ipv4.conf.eth0/1).
    let path: String = name
        .chars()
        .map(|c| {
            if c == '.' {
                '/'
            } else if c == '/' {
                '.'
            } else {
                c
            }
        })
        .collect();
    if path.split('/').any(|part| part.is_empty() || part == "..") {
        return Err(format!("sysctl {name:?} is no name of a kernel parameter"));
    }
    Ok(Path::new("/proc/sys").join(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_of_the_machine_are_refused() {
        let path = |name: &str| parameter(name, false, false).ok();
        assert_eq!(path("net.ipv4.tcp_syncookies").as_deref(), Some(Path::new("/proc/sys/net/ipv4/tcp_syncookies")));
        assert_eq!(path("net.ipv4.conf.eth0/1.x").as_deref(), Some(Path::new("/proc/sys/net/ipv4/conf/eth0.1/x")));
        assert!(path("kernel.shm_rmid_forced").is_some());
        for wrong in ["kernel.panic", "vm.swappiness", "net....kernel.panic", "net.//.kernel", "fs.file-max", ""] {
            assert_eq!(path(wrong), None, "{wrong}");
        }
        assert!(parameter("net.core.somaxconn", true, false).is_err());
        assert!(parameter("kernel.sem", false, true).is_err());
    }
}
