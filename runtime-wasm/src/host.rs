//! A host process: one thread, one engine, and the containers it was ordered to run.
//!
//! Single-threaded because making and dropping instances scales negatively over the threads of one process (they share its memory map); so there is
//! one process a core, each with its own listener for every address, and the kernel spreads connections over them. It sees no file system and opens
//! no listener: whatever it uses came as a descriptor.

pub mod command;
pub mod epoch;
pub mod guest;
pub mod http;
pub mod log;
pub mod metered;
pub mod module;
pub mod outgoing;
pub mod proxy;
pub mod resolve;
pub mod shelf;
pub mod sockets;

use crate::{
    confine, engine,
    ledger::{Account, Ledger},
    wire::{Kind, Order, Refusal, Said, Start},
};
use coracle_runtime::{
    SandboxSpec,
    wire::socket::{AsyncLink, Link},
};
use guest::{Pod, Preopen};
use log::Log;
use parking_lot::Mutex;
use sockets::PodNet;
use std::{
    collections::HashMap,
    fs::File,
    net::{IpAddr, SocketAddr},
    os::fd::OwnedFd,
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// What a host is told at birth.
pub struct Birth {
    /// Which of the hosts it is.
    pub index: usize,
    /// To the supervisor.
    pub link: Link,
    /// Shared with everybody.
    pub ledger: &'static Ledger,
}

/// The process from fork to end. Returns the exit code.
pub fn main(birth: Birth) -> i32 {
    match live(birth) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("coracle wasm host: {error:#}");
            1
        }
    }
}

fn live(birth: Birth) -> wasmtime::Result<()> {
    let engine = confine::host(engine::host)?;
    epoch::start(&engine)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(8).build()?;
    runtime.block_on(serve(birth, engine))
}

/// The mouth of the host: what it says is queued and sent when the socket takes it.
#[derive(Clone, Default)]
pub struct Mouth(Arc<(Mutex<Vec<Said>>, Notify)>);

impl Mouth {
    /// Waits until something is said; takes all of it.
    pub async fn heard(&self) -> Vec<Said> {
        self.0.1.notified().await;
        std::mem::take(&mut *self.0.0.lock())
    }

    /// To the supervisor.
    pub fn say(&self, said: Said) {
        self.0.0.lock().push(said);
        self.0.1.notify_one();
    }

    /// Something worth an event on the pod.
    pub fn warn(&self, container: &str, reason: &str, message: String) {
        self.say(Said::Notice { container: container.to_owned(), warning: true, reason: reason.to_owned(), message });
    }
}

/// A container that runs here.
pub struct Running {
    /// Its id.
    pub id: String,
    /// Its log.
    pub log: Arc<Log>,
    /// Cancelled to stop it: listeners close.
    pub stop: CancellationToken,
    /// Cancelled when the time for stopping is over.
    pub kill: CancellationToken,
    /// The sandbox it belongs to.
    pub sandbox: String,
    /// How connections to one of its ports are served, once it runs.
    pub served: Option<Arc<http::Served>>,
}

/// A container just ordered, with its descriptors sorted out.
pub struct Ordered {
    /// What was ordered.
    pub start: Box<Start>,
    /// What its instances share.
    pub pod: Arc<Pod>,
    /// The compiled code.
    pub artifact: OwnedFd,
    /// For each of `start.ports`.
    pub listeners: Vec<OwnedFd>,
}

struct Host {
    index: usize,
    ledger: &'static Ledger,
    mouth: Mouth,
    shelf: Arc<shelf::Shelf>,
    running: HashMap<String, Running>,
    /// By sandbox: the additional listeners' end.
    listeners: HashMap<String, CancellationToken>,
}

async fn serve(birth: Birth, engine: wasmtime::Engine) -> wasmtime::Result<()> {
    let mouth = Mouth::default();
    mouth.say(Said::Up);
    let shelf = shelf::Shelf::new(&engine)?;
    let mut host = Host { index: birth.index, ledger: birth.ledger, mouth: mouth.clone(), shelf, running: HashMap::new(), listeners: HashMap::new() };
    let mut link = AsyncLink::new(birth.link)?;
    loop {
        tokio::select! {
            said = mouth.heard() => {
                for said in said {
                    if let Said::Exited { container, .. } | Said::Failed(container, _) = &said {
                        host.running.remove(container);
                    }
                    link.link().send(&said, Vec::new())?;
                }
                link.flush()?;
            }
            turned = link.turn() => {
                turned?;
                while let Some((order, fds)) = link.link().receive::<Order>()? {
                    host.obey(order, fds);
                }
                if link.link().closed() {
                    // The supervisor is gone and nobody would ever stop us.
                    return Ok(());
                }
            }
        }
    }
}

/// What came with fewer descriptors than were sent.
pub fn no_room(who: &str, what: &str) -> String {
    format!("{who} has no descriptors left for {what}; raise the limit (ulimit -n), or run fewer pods here")
}

/// A refusal that trying again may cure.
pub fn trouble(reason: &str, message: String) -> Refusal {
    Refusal { reason: reason.to_owned(), message, fatal: false }
}

impl Host {
    fn obey(&mut self, order: Order, fds: Vec<OwnedFd>) {
        match order {
            Order::Start { start, sandbox, slot } => {
                let id = start.spec.id();
                if let Err(refusal) = self.start(start, &sandbox, slot, fds) {
                    self.mouth.say(Said::Failed(id, refusal));
                }
            }
            Order::Stop(id, grace) => match self.running.get(&id) {
                Some(running) => {
                    running.stop.cancel();
                    let kill = running.kill.clone();
                    tokio::spawn(async move {
                        tokio::time::sleep(Duration::from_millis(grace)).await;
                        kill.cancel();
                    });
                }
                None => self.mouth.say(Said::Exited {
                    container: id,
                    code: 0,
                    reason: "Completed".to_owned(),
                    message: String::new(),
                    finished: SystemTime::now(),
                }),
            },
            Order::Listeners(sandbox, ip, addresses) => self.listen(sandbox, ip, addresses, fds),
            Order::Log(id) => {
                if let (Some(running), Some(fd)) = (self.running.get(&id), fds.into_iter().next()) {
                    running.log.replace(File::from(fd));
                }
            }
        }
    }

    /// Replaces a sandbox's additional listeners. What is not served by this very host (a process runs in one host only) is carried on to the pod's
    /// address, because connections to a listener nobody accepts from would hang.
    fn listen(&mut self, sandbox: String, ip: IpAddr, addresses: Vec<(SocketAddr, u16)>, fds: Vec<OwnedFd>) {
        if let Some(before) = self.listeners.remove(&sandbox) {
            before.cancel();
        }
        let stop = CancellationToken::new();
        if fds.len() < addresses.len() {
            eprintln!("coracle wasm host: {}", no_room("it", &format!("the Services of sandbox {sandbox}")));
        }
        for ((_, port), fd) in addresses.into_iter().zip(fds) {
            let mut served = self.running.values().filter(|running| running.sandbox == sandbox).filter_map(|running| running.served.as_ref());
            let result = match served.find(|served| served.ports.contains(&port)) {
                Some(served) => served.listen(fd, stop.clone()),
                None => proxy::listen(fd, PodNet::new(ip), port, stop.clone()),
            };
            if let Err(error) = result {
                eprintln!("coracle wasm host: a Service listener of sandbox {sandbox} could not be used: {error}");
            }
        }
        self.listeners.insert(sandbox, stop);
    }

    fn start(&mut self, start: Box<Start>, sandbox: &SandboxSpec, slot: usize, fds: Vec<OwnedFd>) -> Result<(), Refusal> {
        let id = start.spec.id();
        let short = || trouble("RunContainerError", no_room("a wasm host process", &format!("container {id}")));
        let mut fds = fds.into_iter();
        let log = File::from(fds.next().ok_or_else(short)?);
        let artifact = fds.next().ok_or_else(short)?;
        let mut preopens = Vec::with_capacity(start.spec.mounts.len());
        for mount in &start.spec.mounts {
            let dir = Arc::new(File::from(fds.next().ok_or_else(short)?));
            preopens.push(Preopen { dir, path: mount.container_path.clone(), read_only: mount.read_only });
        }
        let listeners: Vec<OwnedFd> = fds.collect();
        if listeners.len() != start.ports.len() {
            return Err(short());
        }
        let (mouth, name) = (self.mouth.clone(), id.clone());
        let log = Log::new(log, start.spec.log_max_bytes, move || mouth.say(Said::LogFull(name.clone())));
        let account = Account::new(self.ledger, self.index, slot);
        let pod = pod(&start, sandbox, PodNet::new(sandbox.ip), preopens, log.clone(), account);
        let (stop, kill) = (CancellationToken::new(), CancellationToken::new());
        let mut running = Running { id: id.clone(), log, stop: stop.clone(), kill: kill.clone(), sandbox: start.spec.sandbox.clone(), served: None };
        running.served = run(&self.shelf, self.mouth.clone(), Ordered { start, pod, artifact, listeners }, stop, kill)?;
        self.running.insert(id, running);
        Ok(())
    }
}

/// What all instances of a container share.
pub fn pod(start: &Start, sandbox: &SandboxSpec, net: PodNet, preopens: Vec<Preopen>, log: Arc<Log>, account: Account) -> Arc<Pod> {
    let spec = &start.spec;
    let mut env = spec.image.config.env.clone();
    env.retain(|(name, _)| !spec.env.iter().any(|(other, _)| other == name));
    env.extend(spec.env.iter().cloned());
    Arc::new(Pod {
        env,
        args: arguments(start),
        cwd: spec.working_dir.clone(),
        preopens,
        net,
        sockets: net.context(),
        resolver: resolve::Resolver::new(sandbox.dns.clone(), net),
        log,
        account,
    })
}

/// Starts a container; what becomes of it is said later. How its ports are served, if it serves any.
pub fn run(
    shelf: &Arc<shelf::Shelf>,
    mouth: Mouth,
    ordered: Ordered,
    stop: CancellationToken,
    kill: CancellationToken,
) -> Result<Option<Arc<http::Served>>, Refusal> {
    match ordered.start.kind {
        Kind::Http => http::start(shelf, mouth, ordered, stop, kill).map(Some),
        Kind::Command => command::start(shelf, mouth, ordered, stop).map(|()| None),
        Kind::Module => module::start(shelf, mouth, ordered, stop).map(|()| None),
    }
}

/// `argv` as Kubernetes puts it together of the container's words and the image's; what would begin with nothing begins with the container's name.
fn arguments(start: &Start) -> Vec<String> {
    let (spec, image) = (&start.spec, &start.spec.image.config);
    if !spec.command.is_empty() {
        return [&spec.command[..], &spec.args].concat();
    }
    let rest = if spec.args.is_empty() { &image.cmd } else { &spec.args };
    match image.entrypoint.is_empty() && (rest.is_empty() || !spec.args.is_empty()) {
        true => [std::slice::from_ref(&spec.name), rest].concat(),
        false => [&image.entrypoint[..], rest].concat(),
    }
}
