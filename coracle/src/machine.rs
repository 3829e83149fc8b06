//! What this machine and this user allow: privileges, limits, folders.

use anyhow::{Context, Result, anyhow, bail};
use nix::{
    fcntl::{Flock, FlockArg},
    sys::resource::{Resource, getrlimit, setrlimit},
};
use std::{
    fs::{self, File},
    io::{Read, Seek, Write},
    net::IpAddr,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

/// Whether we may configure the kernel's network.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// `/var/lib/coracle`, or below the user's home.
pub fn default_data_dir() -> PathBuf {
    if is_root() {
        return "/var/lib/coracle".into();
    }
    let data = std::env::var_os("XDG_DATA_HOME").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map_or_else(|| PathBuf::from("."), PathBuf::from);
    data.unwrap_or_else(|| home().join(".local/share")).join("coracle")
}

/// This machine's name.
pub fn hostname() -> String {
    let name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default().to_lowercase();
    if name.is_empty() { "node".into() } else { name }
}

/// Addresses at which others may reach this machine.
pub fn addresses() -> Vec<IpAddr> {
    let interfaces = nix::ifaddrs::getifaddrs().into_iter().flatten();
    let address = |interface: nix::ifaddrs::InterfaceAddress| {
        let address = interface.address?;
        let v6 = || address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip()));
        address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip())).or_else(v6)
    };
    let alone = |ip: &IpAddr| ip.is_loopback() || matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
    interfaces.filter_map(address).filter(|ip| !alone(ip)).collect()
}

/// With fewer descriptors than this a cluster does not even start well.
const FEWEST_FILES: u64 = 64;
/// With fewer, a handful of pods and clients may use them up.
const FEW_FILES: u64 = 1024;

/// Raises the soft limit of open files to the hard one; every pod and every connection is a descriptor. Too low a limit is refused, a low one is said.
pub fn raise_file_limit() -> Result<()> {
    let Ok((mut soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return Ok(()) };
    // The soft limit stays where this is refused; running out of it is reported where it happens.
    if soft < hard && setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok() {
        soft = hard;
    }
    let remedy = "raise it (ulimit -n 65536; LimitNOFILE= of a systemd unit)";
    if soft < FEWEST_FILES {
        bail!("the limit of open files is {soft}, and a cluster needs {FEWEST_FILES} at the very least: {remedy}");
    }
    if soft < FEW_FILES {
        println!("the limit of open files is {soft}, which is enough for a few pods and clients only: {remedy}");
    }
    Ok(())
}

/// The right to give this machine's network (its network namespace) to the pods of one cluster, held until it is dropped.
///
/// A second cluster would take the first one's rules away, whatever its directory and its ports.
pub struct NetworkLock(#[allow(dead_code, reason = "held")] Flock<File>);

impl NetworkLock {
    /// Takes it, or says who has it.
    pub fn take() -> Result<Self> {
        let namespace = File::open("/proc/self/ns/net").context("cannot look at this machine's network")?;
        let held = |_| {
            anyhow!(
                "another cluster has this machine's network for its pods; stop that one, or run this one as an ordinary user or in a network namespace of its own (ip netns)"
            )
        };
        Flock::lock(namespace, FlockArg::LockExclusiveNonblock).map(Self).map_err(held)
    }
}

/// The longest path of a data directory in which a socket may be as deep as `/run/wasm/control.sock` (sun_path holds 107 bytes and an end).
const LONGEST_PATH: usize = 107 - "/run/wasm/control.sock".len();

/// So often the lock of one that was killed is tried, with 10 ms between.
const FORKED: usize = 1000;

/// The right to use a data directory, held until it is dropped.
pub struct DataDir {
    /// Absolute path.
    pub path: PathBuf,
    _lock: Flock<File>,
}

/// Who wrote its process id into a lock.
fn holder(file: &mut File) -> String {
    let mut holder = String::new();
    let _ = file.rewind().and_then(|()| file.read_to_string(&mut holder));
    holder.trim().to_owned()
}

impl DataDir {
    /// Makes the directory if need be and locks it against a second cluster.
    pub fn lock(path: &Path) -> Result<Self> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(path)
            .with_context(|| format!("cannot make the data directory {}", path.display()))?;
        let path = path.canonicalize().with_context(|| format!("cannot use the data directory {}", path.display()))?;
        if path.as_os_str().len() > LONGEST_PATH {
            bail!(
                "the path of the data directory {} is too long: sockets are made in it, and the kernel allows {LONGEST_PATH} bytes here; give a shorter one with --data-dir",
                path.display()
            );
        }
        let name = path.join("lock");
        let file = fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&name);
        let mut file = file.with_context(|| format!("cannot write in the data directory {}; give another one with --data-dir", path.display()))?;
        for _ in 0..FORKED {
            file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(mut lock) => {
                    lock.set_len(0)?;
                    lock.rewind()?;
                    writeln!(lock, "{}", std::process::id())?;
                    return Ok(Self { path, _lock: lock });
                }
                Err((file, _)) => file,
            };
            // What one that was killed had just forked has its descriptors until it becomes another program.
            if Path::new("/proc").join(holder(&mut file)).exists() {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        bail!(
            "the data directory {} is in use by another coracle (process {}); stop that one, or give another directory with --data-dir",
            path.display(),
            holder(&mut file)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_of_one_that_was_killed_is_waited_for() {
        let dir = std::env::temp_dir().join(format!("coracle-lock-{}", std::process::id()));
        let first = DataDir::lock(&dir).unwrap();
        let why = DataDir::lock(&dir).err().unwrap().to_string();
        assert!(why.contains(&format!("in use by another coracle (process {})", std::process::id())), "{why}");
        // No process has a number as high as that.
        fs::write(dir.join("lock"), "4194305\n").unwrap();
        let late = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            drop(first);
        });
        drop(DataDir::lock(&dir).unwrap());
        late.join().unwrap();
        fs::remove_dir_all(&dir).unwrap();
    }
}
