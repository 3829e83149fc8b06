//! A node's worth of wasm runtime in a temporary folder, and what tests do with it.

use coracle_runtime::{ContainerSpec, ContainerStatus, Event, ImageConfig, ImageContent, LocalImage, PodRef, Port, Runtime, SandboxSpec, State};
use coracle_runtime_wasm::{Options, WasmRuntime, agent::group::Group};
use http_body_util::{BodyExt, Empty};
use sha2::{Digest, Sha256};
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};
use tempfile::TempDir;
use tokio::net::TcpStream;

/// Nothing a test waits for takes this long.
pub const PATIENCE: Duration = Duration::from_secs(30);

static NEXT: AtomicU32 = AtomicU32::new(1);

/// The runtime, its folder, and the events seen so far.
pub struct World {
    pub runtime: WasmRuntime,
    pub dir: Arc<TempDir>,
    options: Options,
    owner: bool,
    seen: parking_lot::Mutex<Vec<Event>>,
}

/// An address of this machine that no other pod has.
pub fn address() -> IpAddr {
    let number = NEXT.fetch_add(1, Relaxed);
    // Different runs of this program at once must not meet either.
    let run = std::process::id() % 200 + 20;
    let [_, _, high, low] = number.to_be_bytes();
    Ipv4Addr::new(127, run as u8, high, low).into()
}

pub fn options(dir: &Path) -> Options {
    let mut options = Options::new(dir.to_owned());
    options.hosts = 2;
    options
}

impl World {
    pub async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// With an agent that waits half a second for its supervisor.
    pub async fn impatient() -> Self {
        Self::with(|options| options.patience = Duration::from_millis(500)).await
    }

    pub async fn with(change: impl FnOnce(&mut Options)) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let mut options = options(dir.path());
        change(&mut options);
        let runtime = WasmRuntime::new(options.clone()).await.expect("a runtime");
        Self { runtime, dir: Arc::new(dir), options, owner: true, seen: Default::default() }
    }

    /// The agent dies (as far as the runtime can tell) and another one comes up in its place.
    pub async fn restart_agent(mut self) -> Self {
        self.owner = false;
        let (dir, options) = (self.dir.clone(), self.options.clone());
        drop(self);
        let runtime = WasmRuntime::new(options.clone()).await.expect("a runtime");
        Self { runtime, dir, options, owner: true, seen: Default::default() }
    }

    /// A file as an image.
    pub fn image(&self, name: &str, wasm: &[u8]) -> LocalImage {
        let path = self.dir.path().join(format!("{name}.wasm"));
        std::fs::write(&path, wasm).expect("a wasm file");
        let hex: String = Sha256::digest(wasm).iter().map(|byte| format!("{byte:02x}")).collect();
        let digest = format!("sha256:{hex}");
        LocalImage {
            reference: format!("{name}:1"),
            digest: digest.clone(),
            content: ImageContent::Wasm { path, digest },
            config: ImageConfig { env: vec![("FROM_IMAGE".to_owned(), "yes".to_owned())], ..Default::default() },
        }
    }

    pub fn built(&self, name: &str) -> LocalImage {
        self.image(name, &std::fs::read(coracle_tests::guest(name).expect("a guest")).expect("a guest"))
    }

    pub fn sandbox(&self) -> SandboxSpec {
        let ip = address();
        let uid = format!("uid-{ip}");
        let pod = PodRef { namespace: "default".to_owned(), name: "pod".to_owned(), uid: uid.clone() };
        SandboxSpec::new(pod, ip, self.dir.path().join("pods").join(uid))
    }

    pub fn container(&self, sandbox: &SandboxSpec, image: &LocalImage) -> ContainerSpec {
        ContainerSpec {
            log_path: sandbox.dir.join("main/0.log"),
            log_max_bytes: 10 << 20,
            log_max_files: 5,
            request_timeout: Duration::from_secs(10),
            ..ContainerSpec::new(sandbox.pod.uid.clone(), "main", image.clone())
        }
    }

    /// Runs a pod of one container; its sandbox and container id.
    pub async fn run(&self, image: &LocalImage, change: impl FnOnce(&mut ContainerSpec)) -> (SandboxSpec, String) {
        let sandbox = self.sandbox();
        self.runtime.run_sandbox(sandbox.clone()).await.expect("a sandbox");
        let mut spec = self.container(&sandbox, image);
        change(&mut spec);
        let id = self.runtime.create_container(spec).await.expect("a container");
        self.runtime.start_container(&id).await.expect("a started container");
        (sandbox, id)
    }

    /// Runs the probe with these arguments until it exits.
    pub async fn probe(&self, args: &[&str], change: impl FnOnce(&mut ContainerSpec)) -> (i32, String, String) {
        let image = self.built("probe");
        let run = self.run(&image, |spec| {
            spec.args = args.iter().map(|arg| (*arg).to_owned()).collect();
            change(spec);
        });
        let (sandbox, id) = run.await;
        let (code, reason, _) = self.exit(&id).await;
        (code, reason, self.log(&sandbox))
    }

    /// The next event that `wanted` takes.
    pub async fn event<T>(&self, what: &str, wanted: impl Fn(&Event) -> Option<T>) -> T {
        let search = async {
            if let Some(found) = self.seen.lock().iter().find_map(&wanted) {
                return found;
            }
            loop {
                let event = self.runtime.next_event().await;
                let found = wanted(&event);
                self.seen.lock().push(event);
                if let Some(found) = found {
                    return found;
                }
            }
        };
        match tokio::time::timeout(PATIENCE, search).await {
            Ok(found) => found,
            Err(_) => panic!("no {what} came; there were {:?}", self.seen.lock()),
        }
    }

    /// Waits for a container's end: code, reason, message.
    pub async fn exit(&self, id: &str) -> (i32, String, String) {
        self.event(&format!("exit of {id}"), |event| match event {
            Event::Container { status: ContainerStatus { id: of, state: State::Exited { code, reason, message, .. }, .. }, .. } if of == id => {
                Some((*code, reason.clone(), message.clone()))
            }
            _ => None,
        })
        .await
    }

    pub async fn notice(&self, reason: &str) -> String {
        self.event(&format!("notice {reason}"), |event| match event {
            Event::Notice { reason: of, message, .. } if of == reason => Some(message.clone()),
            _ => None,
        })
        .await
    }

    /// The log's texts, without times and tags.
    pub fn log(&self, sandbox: &SandboxSpec) -> String {
        let text = std::fs::read_to_string(sandbox.dir.join("main/0.log")).unwrap_or_default();
        text.lines().map(|line| line.splitn(4, ' ').nth(3).unwrap_or_default().to_owned() + "\n").collect()
    }

    pub async fn state(&self, id: &str) -> Option<State> {
        let list = self.runtime.list().await.expect("a list");
        list.into_iter().flat_map(|sandbox| sandbox.containers).find(|container| container.id == id).map(|container| container.state)
    }

    /// The supervisor's process, and its hosts.
    pub fn processes(&self) -> (i32, Vec<i32>) {
        let run_dir = self.dir.path().join("run/wasm");
        let (run_dir, all) = (run_dir.to_string_lossy().into_owned(), processes());
        let ours: Vec<_> = all.iter().filter(|(_, _, line)| line.contains(&run_dir)).cloned().collect();
        // Hosts are forked: they have the supervisor's command line, and it as their parent.
        let supervisor = ours.iter().find(|(_, parent, _)| !ours.iter().any(|(pid, ..)| pid == parent));
        let Some(pid) = supervisor.map(|(pid, ..)| *pid) else { return (0, Vec::new()) };
        (pid, all.into_iter().filter(|(_, parent, _)| *parent == pid).map(|(child, ..)| child).collect())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if !self.owner {
            return;
        }
        let (supervisor, _) = self.processes();
        if supervisor > 0 {
            // Ours: found by our own folder's name. Its hosts go with it.
            _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(supervisor), nix::sys::signal::Signal::SIGKILL);
        }
        if let Ok(group) = Group::make(&self.dir.path().join("run/wasm"), 2) {
            group.end();
        }
    }
}

/// Pid, parent and command line of every process.
fn processes() -> Vec<(i32, i32, String)> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let mut fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        // A zombie is no process.
        if fields.next() == Some("Z") {
            continue;
        }
        let parent = fields.next().and_then(|field| field.parse().ok()).unwrap_or(0);
        all.push((pid, parent, String::from_utf8_lossy(&line).replace('\0', " ")));
    }
    all
}

pub fn alive(pid: i32) -> bool {
    processes().iter().any(|(other, ..)| *other == pid)
}

/// Waits until `done`, looking again whenever some time has passed.
pub async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let end = tokio::time::Instant::now() + PATIENCE;
    while !done().await {
        assert!(tokio::time::Instant::now() < end, "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// GET; status and body.
pub async fn get(ip: IpAddr, port: u16, path: &str) -> Result<(u16, String), String> {
    let talk = async {
        let stream = TcpStream::connect(SocketAddr::new(ip, port)).await.map_err(|error| error.to_string())?;
        let io = hyper_util::rt::TokioIo::new(stream);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.map_err(|error| error.to_string())?;
        tokio::spawn(connection);
        let request = http::Request::get(path).header("host", "pod").body(Empty::<bytes::Bytes>::new()).map_err(|error| error.to_string())?;
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.map_err(|error| error.to_string())?.to_bytes();
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    };
    tokio::time::timeout(PATIENCE, talk).await.unwrap_or_else(|_| Err("nothing came".to_owned()))
}

pub fn port(number: u16) -> Port {
    Port { name: None, port: number, protocol: "TCP".to_owned() }
}

/// The first line a server says.
pub async fn line(address: SocketAddr) -> String {
    let talk = async {
        let stream = TcpStream::connect(address).await.expect("a connection");
        let mut line = String::new();
        tokio::io::AsyncBufReadExt::read_line(&mut tokio::io::BufReader::new(stream), &mut line).await.expect("a line");
        line
    };
    tokio::time::timeout(PATIENCE, talk).await.expect("a line in time")
}

/// A DNS server on an address of its own that knows one name in the cluster's domain; its address, and the short name.
pub async fn dns(answer: IpAddr) -> (SocketAddr, &'static str) {
    let socket = tokio::net::UdpSocket::bind((address(), 0)).await.expect("a port");
    let server = socket.local_addr().expect("its address");
    let IpAddr::V4(answer) = answer else { panic!("an IPv4 address") };
    tokio::spawn(async move {
        let mut buffer = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            let query = &buffer[..length];
            let known = query.windows(7).any(|part| part == b"\x06server") && query.windows(12).any(|part| part == b"\x07default\x03svc");
            // Asked for an address of version 4?
            let wanted = query[length - 4..] == [0, 1, 0, 1];
            let mut reply = query.to_vec();
            reply[2..4].copy_from_slice(if known { &[0x81, 0x80] } else { &[0x81, 0x83] });
            if known && wanted {
                reply[6..8].copy_from_slice(&[0, 1]);
                reply.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4]);
                reply.extend_from_slice(&answer.octets());
            }
            _ = socket.send_to(&reply, from).await;
        }
    });
    (server, "server")
}
