//! What the supervisor knows and decides, without doing anything: inputs in, commands out.
//!
//! Generic over what a descriptor is, so that the tests need no files. Every container that runs is here with all its descriptors: that is what makes a dead
//! host replaceable. Its listeners were never closed, connections wait in them, and the new host is told what the old one was.

use crate::{
    host::no_room,
    ledger::SLOTS,
    wire::{Answer, Answered, Ask, Happened, Kind, ListedSandbox, Order, Refusal, Reply, Said, Start, VERSION},
};
use coracle_runtime::{SandboxSpec, State};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::SocketAddr,
    sync::Arc,
    time::SystemTime,
};

/// Notices kept for an agent that is not there.
const NOTICES: usize = 256;

/// What is to be done.
#[derive(Debug)]
pub enum Command<F> {
    /// Send to a host.
    Order(usize, Box<Order>, Vec<Arc<F>>),
    /// Send to the agent, if it is there.
    Tell(Answered),
    /// A slot of the ledger starts anew.
    ClearSlot(usize),
    /// End the process and all hosts.
    Quit,
}

struct Container<F> {
    start: Start,
    slot: usize,
    state: State,
    /// Log, artifact, mounts.
    shared: Vec<Arc<F>>,
    /// For each port, for each host.
    listeners: Vec<Vec<Arc<F>>>,
    /// Hosts it runs in, or is to run in.
    hosts: BTreeSet<usize>,
    /// Hosts that have not said yet that it runs.
    starting: BTreeSet<usize>,
    /// Asked for by this request, which waits.
    start_reply: Option<u64>,
    stop_replies: Vec<u64>,
    stopping: bool,
    failure: Option<Refusal>,
}

struct Sandbox<F> {
    spec: SandboxSpec,
    containers: BTreeMap<String, Container<F>>,
    addresses: Vec<(SocketAddr, u16)>,
    /// For each address, for each host.
    listeners: Vec<Vec<Arc<F>>>,
    removing: Vec<u64>,
}

/// All of it.
pub struct Supervision<F> {
    hosts: usize,
    pid: i32,
    sandboxes: BTreeMap<String, Sandbox<F>>,
    /// Hosts that take orders. One that is being replaced is told everything when it comes up.
    up: BTreeSet<usize>,
    slots: BTreeSet<usize>,
    notices: VecDeque<Happened>,
    connected: bool,
}

fn refusal(reason: &str, message: String, fatal: bool) -> Refusal {
    Refusal { reason: reason.to_owned(), message, fatal }
}

fn reply<F>(id: u64, result: Result<Answer, Refusal>) -> Command<F> {
    Command::Tell(Answered::Reply(Reply { id, result }))
}

impl<F> Container<F> {
    fn running(&self) -> bool {
        matches!(self.state, State::Running { .. })
    }

    fn ended(&self) -> bool {
        matches!(self.state, State::Exited { .. })
    }

    fn order(&self, sandbox: &SandboxSpec, host: usize) -> Command<F> {
        let mut fds = self.shared.clone();
        fds.extend(self.listeners.iter().filter_map(|of_port| of_port.get(host).cloned()));
        let order = Order::Start { start: Box::new(self.start.clone()), sandbox: Box::new(sandbox.clone()), slot: self.slot };
        Command::Order(host, Box::new(order), fds)
    }

    /// Nothing of it runs any more: what it held is let go.
    fn exit(&mut self, code: i32, reason: &str, message: String, finished: SystemTime) -> Happened {
        let started = match &self.state {
            State::Running { started } => Some(*started),
            _ => None,
        };
        self.state = State::Exited { code, reason: reason.to_owned(), message, started, finished };
        self.hosts.clear();
        self.starting.clear();
        self.shared.clear();
        self.listeners.clear();
        Happened::State { container: self.start.spec.id(), state: self.state.clone() }
    }
}

impl<F> Supervision<F> {
    /// With this many hosts, all of them about to be forked by process `pid`.
    pub fn new(hosts: usize, pid: i32) -> Self {
        Self { hosts, pid, sandboxes: BTreeMap::new(), up: BTreeSet::new(), slots: (0..SLOTS).collect(), notices: VecDeque::new(), connected: false }
    }

    fn find(&mut self, id: &str) -> Option<(&SandboxSpec, &mut Container<F>)> {
        let sandbox = self.sandboxes.get_mut(id.split('/').next().unwrap_or_default())?;
        let container = sandbox.containers.get_mut(id)?;
        Some((&sandbox.spec, container))
    }

    /// The row of a container in the ledger.
    pub fn slots_of(&self, sandbox: &str) -> Vec<(String, usize)> {
        let containers = self.sandboxes.get(sandbox).into_iter().flat_map(|sandbox| sandbox.containers.values());
        containers.filter(|container| !container.ended()).map(|container| (container.start.spec.name.clone(), container.slot)).collect()
    }

    /// An agent has connected (or gone).
    pub fn agent(&mut self, connected: bool) -> Vec<Command<F>> {
        self.connected = connected;
        if !connected {
            return Vec::new();
        }
        let mut commands: Vec<Command<F>> = self.notices.drain(..).map(|notice| Command::Tell(Answered::Event(notice))).collect();
        // A rotation asked for in vain is asked for again when the host sees the new file; states are listed.
        commands.retain(|command| !matches!(command, Command::Tell(Answered::Event(Happened::State { .. }))));
        commands
    }

    fn tell(&mut self, happened: Happened) -> Option<Command<F>> {
        if self.connected {
            return Some(Command::Tell(Answered::Event(happened)));
        }
        if !matches!(happened, Happened::State { .. }) {
            if self.notices.len() >= NOTICES {
                self.notices.pop_front();
            }
            self.notices.push_back(happened);
        }
        None
    }

    /// The agent asks. (`Stats` is the shell's: it reads the ledger.)
    pub fn ask(&mut self, id: u64, ask: Ask, fds: Vec<Arc<F>>) -> Vec<Command<F>> {
        match ask {
            Ask::Hello { .. } => vec![reply(id, Ok(Answer::Hello { version: VERSION, hosts: self.hosts, pid: self.pid }))],
            Ask::RunSandbox(spec) => {
                let key = spec.pod.uid.clone();
                self.sandboxes.entry(key).or_insert_with(|| Sandbox {
                    spec: *spec,
                    containers: BTreeMap::new(),
                    addresses: Vec::new(),
                    listeners: Vec::new(),
                    removing: Vec::new(),
                });
                vec![reply(id, Ok(Answer::Done))]
            }
            Ask::RemoveSandbox(key) => self.remove_sandbox(id, &key),
            Ask::Start(start) => self.start(id, *start, fds).unwrap_or_else(|refusal| vec![reply(id, Err(refusal))]),
            Ask::Stop(container, grace) => self.stop(id, &container, grace),
            Ask::RemoveContainer(container) => self.remove_container(id, &container),
            Ask::List => {
                let list = self.sandboxes.values().map(|sandbox| ListedSandbox {
                    spec: sandbox.spec.clone(),
                    containers: sandbox.containers.values().map(|container| (container.start.spec.clone(), container.state.clone())).collect(),
                });
                vec![reply(id, Ok(Answer::List(list.collect())))]
            }
            Ask::Listeners(key, addresses) => self.set_listeners(id, &key, addresses, fds),
            Ask::Log(container) => {
                let Some((_, container)) = self.find(&container) else { return vec![reply(id, Ok(Answer::Done))] };
                if let (Some(log), Some(fd)) = (container.shared.first_mut(), fds.into_iter().next()) {
                    *log = fd;
                }
                let name = container.start.spec.id();
                let log = container.shared.first().cloned();
                let hosts: Vec<usize> = container.hosts.iter().copied().collect();
                let orders = hosts
                    .into_iter()
                    .filter(|host| self.up.contains(host))
                    .map(|host| Command::Order(host, Box::new(Order::Log(name.clone())), log.iter().cloned().collect()));
                let mut commands: Vec<Command<F>> = orders.collect();
                commands.push(reply(id, Ok(Answer::Done)));
                commands
            }
            Ask::Stats(_) => vec![reply(id, Ok(Answer::Stats(Vec::new())))],
            Ask::Shutdown => vec![Command::Quit],
        }
    }

    fn start(&mut self, id: u64, start: Start, mut fds: Vec<Arc<F>>) -> Result<Vec<Command<F>>, Refusal> {
        let name = start.spec.id();
        let load = self.load();
        let hosts = self.hosts;
        let sandbox = self
            .sandboxes
            .get_mut(&start.spec.sandbox)
            .ok_or_else(|| refusal("RunContainerError", format!("container {name} has no sandbox {}; run it first", start.spec.sandbox), false))?;
        if let Some(container) = sandbox.containers.get_mut(&name) {
            if !container.starting.is_empty() {
                container.start_reply = Some(id);
                return Ok(Vec::new());
            }
            return Ok(vec![reply(id, Ok(Answer::Done))]);
        }
        let taken = |port: &&u16| sandbox.containers.values().any(|other| !other.ended() && other.start.ports.contains(port));
        if let Some(port) = start.ports.iter().find(taken) {
            let message = format!("port {port} is used by another container of this pod; declare a different containerPort");
            return Err(refusal("RunContainerError", message, true));
        }
        let shared = 2 + start.spec.mounts.len();
        if fds.len() != shared + start.ports.len() * hosts {
            return Err(refusal("RunContainerError", no_room("the wasm supervisor", &format!("container {name}")), false));
        }
        let slot = self.slots.pop_first().ok_or_else(|| {
            refusal("RunContainerError", format!("this node runs {SLOTS} wasm containers, which is the limit; use another node"), false)
        })?;
        let listeners: Vec<Arc<F>> = fds.split_off(shared);
        let on: BTreeSet<usize> = match start.kind {
            Kind::Http => (0..hosts).collect(),
            Kind::Command | Kind::Module => load.into_iter().min().map(|(_, host)| host).into_iter().collect(),
        };
        let container = Container {
            slot,
            state: State::Created,
            shared: fds,
            listeners: listeners.chunks(hosts.max(1)).map(<[_]>::to_vec).collect(),
            hosts: on.clone(),
            starting: on.clone(),
            start_reply: Some(id),
            stop_replies: Vec::new(),
            stopping: false,
            failure: None,
            start,
        };
        let mut commands = vec![Command::ClearSlot(slot)];
        commands.extend(on.into_iter().filter(|host| self.up.contains(host)).map(|host| container.order(&sandbox.spec, host)));
        sandbox.containers.insert(name, container);
        Ok(commands)
    }

    /// Processes a host runs, and the host.
    fn load(&self) -> Vec<(usize, usize)> {
        let mut load: Vec<(usize, usize)> = (0..self.hosts).map(|host| (0, host)).collect();
        for container in self.sandboxes.values().flat_map(|sandbox| sandbox.containers.values()) {
            if container.start.kind != Kind::Http {
                for host in &container.hosts {
                    if let Some((count, _)) = load.get_mut(*host) {
                        *count += 1;
                    }
                }
            }
        }
        load
    }

    fn stop(&mut self, id: u64, name: &str, grace: u64) -> Vec<Command<F>> {
        let Some((_, container)) = self.find(name) else { return vec![reply(id, Ok(Answer::Done))] };
        if container.ended() {
            return vec![reply(id, Ok(Answer::Done))];
        }
        container.stop_replies.push(id);
        self.end(name, grace)
    }

    /// Has it stopped wherever it runs. In a host that is not up it does not run at all.
    fn end(&mut self, name: &str, grace: u64) -> Vec<Command<F>> {
        let up = self.up.clone();
        let Some((_, container)) = self.find(name) else { return Vec::new() };
        container.stopping = true;
        container.hosts.retain(|host| up.contains(host));
        if container.hosts.is_empty() {
            return self.over(name, 0, "Completed", String::new(), SystemTime::now());
        }
        let hosts = container.hosts.iter();
        hosts.map(|host| Command::Order(*host, Box::new(Order::Stop(name.to_owned(), grace)), Vec::new())).collect()
    }

    fn remove_container(&mut self, id: u64, name: &str) -> Vec<Command<F>> {
        let key = name.split('/').next().unwrap_or_default();
        let Some(sandbox) = self.sandboxes.get_mut(key) else { return vec![reply(id, Ok(Answer::Done))] };
        match sandbox.containers.get(name) {
            Some(container) if !container.ended() => {
                vec![reply(id, Err(refusal("RemoveContainerError", format!("container {name} still runs; stop it first"), false)))]
            }
            Some(container) => {
                self.slots.insert(container.slot);
                sandbox.containers.remove(name);
                vec![reply(id, Ok(Answer::Done))]
            }
            None => vec![reply(id, Ok(Answer::Done))],
        }
    }

    fn remove_sandbox(&mut self, id: u64, key: &str) -> Vec<Command<F>> {
        let Some(sandbox) = self.sandboxes.get_mut(key) else { return vec![reply(id, Ok(Answer::Done))] };
        sandbox.removing.push(id);
        let mut commands = Vec::new();
        if !sandbox.addresses.is_empty() {
            sandbox.addresses.clear();
            sandbox.listeners.clear();
            commands.extend(self.up.iter().map(|host| sandbox.listen(key, *host)));
        }
        let running: Vec<String> = sandbox.containers.iter().filter(|(_, container)| !container.ended()).map(|(name, _)| name.clone()).collect();
        for name in running {
            commands.extend(self.end(&name, 0));
        }
        commands.extend(self.bury(key));
        commands
    }

    /// Forgets a sandbox that is to go once nothing runs in it.
    fn bury(&mut self, key: &str) -> Vec<Command<F>> {
        let Some(sandbox) = self.sandboxes.get(key) else { return Vec::new() };
        if sandbox.removing.is_empty() || sandbox.containers.values().any(|container| !container.ended()) {
            return Vec::new();
        }
        let Some(sandbox) = self.sandboxes.remove(key) else { return Vec::new() };
        self.slots.extend(sandbox.containers.values().map(|container| container.slot));
        sandbox.removing.into_iter().map(|id| reply(id, Ok(Answer::Done))).collect()
    }

    fn set_listeners(&mut self, id: u64, key: &str, addresses: Vec<(SocketAddr, u16)>, fds: Vec<Arc<F>>) -> Vec<Command<F>> {
        let hosts = self.hosts.max(1);
        let Some(sandbox) = self.sandboxes.get_mut(key) else {
            return vec![reply(id, Err(refusal("ServiceListenError", format!("there is no sandbox {key}; run it first"), false)))];
        };
        if fds.len() != addresses.len() * hosts {
            let message = no_room("the wasm supervisor", &format!("the Services of sandbox {key}"));
            return vec![reply(id, Err(refusal("ServiceListenError", message, false)))];
        }
        sandbox.addresses = addresses;
        sandbox.listeners = fds.chunks(hosts).map(<[_]>::to_vec).collect();
        let mut commands: Vec<Command<F>> = self.up.iter().map(|host| sandbox.listen(key, *host)).collect();
        commands.push(reply(id, Ok(Answer::Done)));
        commands
    }

    /// A host says something.
    pub fn said(&mut self, host: usize, said: Said) -> Vec<Command<F>> {
        match said {
            Said::Up => self.host_up(host),
            Said::Started(name) => self.started(host, &name),
            Said::Failed(name, refusal) => self.failed(host, &name, refusal),
            Said::Exited { container, code, reason, message, finished } => self.exited(host, &container, code, &reason, message, finished),
            Said::Notice { container, warning, reason, message } => {
                self.tell(Happened::Notice { container, warning, reason, message }).into_iter().collect()
            }
            Said::LogFull(container) => self.tell(Happened::LogFull(container)).into_iter().collect(),
        }
    }

    /// A host that has just come up is told everything it is to run.
    fn host_up(&mut self, host: usize) -> Vec<Command<F>> {
        let mut commands = Vec::new();
        self.up.insert(host);
        for (key, sandbox) in &self.sandboxes {
            for container in sandbox.containers.values().filter(|container| !container.ended() && container.hosts.contains(&host)) {
                commands.push(container.order(&sandbox.spec, host));
            }
            if !sandbox.addresses.is_empty() {
                commands.push(sandbox.listen(key, host));
            }
        }
        commands
    }

    fn started(&mut self, host: usize, name: &str) -> Vec<Command<F>> {
        let Some((_, container)) = self.find(name) else { return Vec::new() };
        container.starting.remove(&host);
        let key = container.start.spec.sandbox.clone();
        if !container.starting.is_empty() || container.state != State::Created {
            return Vec::new();
        }
        container.state = State::Running { started: SystemTime::now() };
        let waiting = container.start_reply.take();
        let happened = Happened::State { container: name.to_owned(), state: container.state.clone() };
        let mut commands: Vec<Command<F>> = self.tell(happened).into_iter().collect();
        commands.extend(waiting.map(|id| reply(id, Ok(Answer::Done))));
        // Its ports can now stand behind the sandbox's other addresses.
        if let Some(sandbox) = self.sandboxes.get(&key).filter(|sandbox| !sandbox.addresses.is_empty()) {
            commands.extend(self.up.iter().map(|host| sandbox.listen(&key, *host)));
        }
        commands
    }

    fn failed(&mut self, host: usize, name: &str, refusal: Refusal) -> Vec<Command<F>> {
        let Some((_, container)) = self.find(name) else { return Vec::new() };
        container.hosts.remove(&host);
        container.starting.remove(&host);
        container.failure.get_or_insert(refusal);
        if container.hosts.is_empty() {
            return self.over(name, 128, "StartError", String::new(), SystemTime::now());
        }
        if container.stopping { Vec::new() } else { self.end(name, 0) }
    }

    fn exited(&mut self, host: usize, name: &str, code: i32, reason: &str, message: String, finished: SystemTime) -> Vec<Command<F>> {
        let Some((_, container)) = self.find(name) else { return Vec::new() };
        container.hosts.remove(&host);
        container.starting.remove(&host);
        if !container.hosts.is_empty() {
            return Vec::new();
        }
        self.over(name, code, reason, message, finished)
    }

    /// The last of it has ended.
    fn over(&mut self, name: &str, code: i32, reason: &str, message: String, finished: SystemTime) -> Vec<Command<F>> {
        let Some((_, container)) = self.find(name) else { return Vec::new() };
        let key = container.start.spec.sandbox.clone();
        let waiting = container.start_reply.take();
        let stopped = std::mem::take(&mut container.stop_replies);
        let mut commands = Vec::new();
        match (container.failure.take(), waiting) {
            (Some(failure), Some(id)) if container.state == State::Created => {
                // It never ran: the starter is told, and nothing is left of it, so that it can be tried again.
                commands.push(reply(id, Err(failure)));
                let slot = container.slot;
                if let Some(sandbox) = self.sandboxes.get_mut(&key) {
                    sandbox.containers.remove(name);
                }
                self.slots.insert(slot);
            }
            (failure, waiting) => {
                let (reason, message) = match failure {
                    Some(failure) => (failure.reason, failure.message),
                    None => (reason.to_owned(), message),
                };
                let happened = container.exit(code, &reason, message, finished);
                commands.extend(self.tell(happened));
                commands.extend(waiting.map(|id| reply(id, Ok(Answer::Done))));
            }
        }
        commands.extend(stopped.into_iter().map(|id| reply(id, Ok(Answer::Done))));
        commands.extend(self.bury(&key));
        commands
    }

    /// A host has died and will be replaced. Processes in it are over; what serves requests waits for the new one.
    pub fn host_died(&mut self, host: usize, how: &str) -> Vec<Command<F>> {
        self.up.remove(&host);
        let mut over = Vec::new();
        for container in self.sandboxes.values_mut().flat_map(|sandbox| sandbox.containers.values_mut()) {
            if container.hosts.contains(&host) && (container.start.kind != Kind::Http || container.stopping) {
                container.hosts.remove(&host);
                container.starting.remove(&host);
                if container.hosts.is_empty() {
                    over.push((container.start.spec.id(), container.stopping, container.running()));
                }
            }
        }
        let mut commands = Vec::new();
        for (name, stopping, running) in over {
            let message = format!("the host process it ran in ended: {how}");
            if !running && let Some((_, container)) = self.find(&name) {
                container.failure.get_or_insert(refusal("StartError", message.clone(), false));
            }
            let (code, message) = if stopping { (0, String::new()) } else { (137, message) };
            commands.extend(self.over(&name, code, if code == 0 { "Completed" } else { "Error" }, message, SystemTime::now()));
        }
        commands
    }
}

impl<F> Sandbox<F> {
    fn listen(&self, key: &str, host: usize) -> Command<F> {
        let fds = self.listeners.iter().filter_map(|of_address| of_address.get(host).cloned()).collect();
        Command::Order(host, Box::new(Order::Listeners(key.to_owned(), self.spec.ip, self.addresses.clone())), fds)
    }
}

#[cfg(test)]
mod tests;
