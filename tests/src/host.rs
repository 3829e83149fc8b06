//! A host: a network namespace of its own, so that clusters run beside each other and nothing touches the machine's network.

use crate::{Output, Result};
use rustix::thread::LinkNameSpaceType;
use std::{
    fs,
    net::{TcpListener, UdpSocket},
    os::fd::AsFd,
    path::Path,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

const PREFIX: &str = "coracle-test-";

/// A network namespace with its loopback up; gone when dropped. Without root it is the machine itself.
pub struct Host {
    name: Option<String>,
}

impl Host {
    /// Makes one, and removes those that tests which were killed left behind.
    pub fn new() -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        if !is_root() {
            return Ok(Self { name: None });
        }
        sweep();
        let name = format!("{PREFIX}{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        Output::of(Command::new("ip").args(["netns", "add", &name]), "")?.ok()?;
        let host = Self { name: Some(name) };
        host.run("ip", &["link", "set", "lo", "up"])?.ok()?;
        Ok(host)
    }

    /// A command that will run on this host.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        match &self.name {
            None => Command::new(program),
            Some(name) => {
                // `ip netns exec` would mount /sys anew, without the control groups that containers need.
                let mut command = Command::new("nsenter");
                command.arg(format!("--net=/run/netns/{name}")).arg(program);
                command
            }
        }
    }

    /// Runs a program on this host to its end.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Result<Output> {
        Output::of(self.command(program).args(arguments), "")
    }

    /// The body of a GET, or an error that names the code; five seconds at most.
    pub fn get(&self, url: &str) -> Result<String> {
        let output = self.run("curl", &["-sS", "-m", "5", "-w", "\n%{http_code}", url])?.ok()?;
        let (body, code) = output.rsplit_once('\n').unwrap_or(("", "000"));
        anyhow::ensure!(code.starts_with('2'), "GET {url}: {code} {body}");
        Ok(body.to_string())
    }

    /// Listens as a program of this host that is none of the cluster's.
    pub fn listen(&self, address: &str) -> Result<TcpListener> {
        self.inside(|| TcpListener::bind(address))
    }

    /// The same for datagrams.
    pub fn datagrams(&self, address: &str) -> Result<UdpSocket> {
        self.inside(|| UdpSocket::bind(address))
    }

    /// On a thread of its own, since the namespace is the thread's.
    fn inside<T: Send>(&self, make: impl FnOnce() -> std::io::Result<T> + Send) -> Result<T> {
        let made = std::thread::scope(|scope| {
            let thread = scope.spawn(|| -> Result<T> {
                if let Some(name) = &self.name {
                    let namespace = fs::File::open(Path::new("/run/netns").join(name))?;
                    rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
                }
                Ok(make()?)
            });
            thread.join()
        });
        made.unwrap_or_else(|_| Err(anyhow::anyhow!("the thread in the namespace panicked")))
    }

    /// Its name, if it is a namespace.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            let _ = Output::of(Command::new("ip").args(["netns", "del", name]), "");
        }
    }
}

/// Whether the tests run as root.
pub fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|meta| std::os::unix::fs::MetadataExt::uid(&meta) == 0)
}

fn sweep() {
    for entry in fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            let _ = Output::of(Command::new("ip").args(["netns", "del", &name]), "");
        }
    }
}
