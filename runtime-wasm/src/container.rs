//! A host for one container, in a pod of processes: the [`Program`](coracle_runtime::Program) that the pod's shim runs for a component.
//!
//! It is in the pod's network, IPC and host-name namespaces and in the container's control group when it starts, the first of a PID namespace of its own, and does the rest itself: it listens
//! where the container has ports, leaves the machine's files for an empty root, gives up being root, and confines itself as every host does. What the shim is to a process it is to this one: standard output and error are the log, SIGTERM stops it, the exit code
//! is the container's.
//!
//! A start of the binary rather than a fork of the shim: a shim has the environments of all containers of its pod in its memory, and a guest's host should not.
#![allow(unsafe_code, reason = "descriptors by number")]

use crate::{
    agent::listen,
    confine, engine,
    host::{self, Mouth, Ordered, epoch, guest::Preopen, log::Log, shelf::Shelf, sockets::PodNet, trouble},
    ledger::{Account, Ledger},
    wire::{Refusal, Said, Start},
};
use coracle_runtime::{
    ContainerSpec, Identity, Resources, SandboxSpec,
    cgroup::Limit,
    program::{GIVEN, ORDER, RESIZED, WORDS, Word, of_container},
};
use serde::{Deserialize, Serialize};
use std::{
    fs::File,
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::fd::{FromRawFd, OwnedFd},
    sync::Arc,
};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// What is run.
#[derive(Debug, Serialize, Deserialize)]
pub struct Order {
    /// The container.
    pub start: Start,
    /// Its pod.
    pub sandbox: SandboxSpec,
}

/// The descriptors that came: the order, the artifact, a directory for each mount.
struct Given {
    order: Order,
    artifact: OwnedFd,
    volumes: Vec<OwnedFd>,
}

fn take(number: i32) -> OwnedFd {
    // SAFETY: the first lines of `main` are the only ones to call this, once for each number, before anything else in this process opens or holds a descriptor.
    unsafe { OwnedFd::from_raw_fd(number) }
}

/// The process. Returns its exit code.
pub fn main() -> i32 {
    let mut words = File::from(take(WORDS));
    let mut say = |word: Word| _ = words.write_all(&word.line());
    match given().and_then(|given| run(given, &mut say)) {
        Ok(code) => code,
        Err(refusal) => {
            say(Word::Failed(refusal));
            1
        }
    }
}

fn failed(what: &str) -> impl Fn(&dyn std::fmt::Display) -> Refusal + '_ {
    move |error| trouble("RunContainerError", format!("the container's host process: {what}: {error}"))
}

fn given() -> Result<Given, Refusal> {
    let mut text = String::new();
    File::from(take(ORDER)).read_to_string(&mut text).map_err(|error| failed("read its order")(&error))?;
    let order: Order = serde_json::from_str(&text).map_err(|error| failed("read its order")(&error))?;
    let volumes = (GIVEN + 1..).take(order.start.spec.mounts.len()).map(take).collect();
    // The first three stay what they are in any program.
    let null = File::options().read(true).open("/dev/null").map_err(|error| failed("open /dev/null")(&error))?;
    debug_assert_eq!(std::os::fd::AsRawFd::as_raw_fd(&null), ORDER, "the lowest number that is free");
    std::mem::forget(null);
    Ok(Given { order, artifact: take(GIVEN), volumes })
}

/// Where a component listens: everywhere in the pod's own network (containers beside it know it as localhost), and at the pod's address on the machine's.
fn listening_ip(sandbox: &SandboxSpec) -> IpAddr {
    if sandbox.linux.host_network { sandbox.ip } else { Ipv4Addr::UNSPECIFIED.into() }
}

fn run(given: Given, say: &mut impl FnMut(Word)) -> Result<i32, Refusal> {
    let Given { order: Order { start, sandbox }, artifact, volumes } = given;
    let spec: &ContainerSpec = &start.spec;
    let mut listeners = Vec::new();
    for port in &start.ports {
        let socket = listen::alone(SocketAddr::new(listening_ip(&sandbox), *port));
        listeners.push(socket.map_err(|why| trouble("RunContainerError", why))?);
    }
    // Read when it changes; where there are no groups it never does.
    let limit = Limit::own().ok();
    let engine = confine::container(&Identity::of(&spec.security), engine::host);
    let engine = engine.map_err(|error: wasmtime::Error| failed("give up its power")(&format!("{error:#}")))?;
    epoch::start(&engine).map_err(|error| failed("start its timer")(&error))?;
    let ledger: &'static Ledger = Box::leak(Box::new(Ledger::new(1).map_err(|error| failed("make its ledger")(&error))?));
    // Its CPU is its group's business.
    let bounded = |memory_limit| Resources { memory_limit, ..Resources::default() };
    ledger.allot(0, &bounded(spec.resources.memory_limit));
    let preopens = spec.mounts.iter().zip(volumes).map(|(mount, dir)| Preopen {
        dir: Arc::new(File::from(dir)),
        path: mount.container_path.clone(),
        read_only: mount.read_only,
    });
    let log = Log::standard(File::from(take(1)), File::from(take(2)));
    let pod = host::pod(&start, &sandbox, PodNet::of_namespace(sandbox.ip), preopens.collect(), log, Account::new(ledger, 0, 0));
    let ordered = Ordered { start: Box::new(start), pod, artifact, listeners };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(8).build();
    let resized = move || {
        if let Some(Ok(memory)) = limit.as_ref().map(Limit::now) {
            ledger.allot(0, &bounded(of_container(memory)));
        }
    };
    runtime.map_err(|error| failed("begin")(&error))?.block_on(serve(&engine, ordered, resized, say))
}

/// Runs the container to its end. `resized`: its group has other limits.
async fn serve(engine: &wasmtime::Engine, ordered: Ordered, resized: impl Fn(), say: &mut impl FnMut(Word)) -> Result<i32, Refusal> {
    let shelf = Shelf::new(engine).map_err(|error| failed("begin")(&format!("{error:#}")))?;
    let listen = |kind| signal(kind).map_err(|error| failed("listen for signals")(&error));
    let (mut terminate, mut resize) = (listen(SignalKind::terminate())?, listen(SignalKind::from_raw(RESIZED.as_raw()))?);
    let (stop, mouth) = (CancellationToken::new(), Mouth::default());
    // Whoever stops it kills it when its grace is over.
    host::run(&shelf, mouth.clone(), ordered, stop.clone(), CancellationToken::new())?;
    loop {
        tokio::select! {
            _ = terminate.recv() => stop.cancel(),
            _ = resize.recv() => resized(),
            said = mouth.heard() => {
                for said in said {
                    match said {
                        Said::Started(_) => say(Word::Started),
                        Said::Failed(_, refusal) => return Err(refusal),
                        Said::Notice { warning, reason, message, .. } => say(Word::Notice { warning, reason, message }),
                        Said::Exited { code, reason, message, .. } => {
                            say(Word::Ended { reason, message });
                            return Ok(code);
                        }
                        Said::Up | Said::LogFull(_) => {}
                    }
                }
            }
        }
    }
}
