//! What the supervisor knows and decides, without doing anything: inputs in, commands out.
//!
//! Generic over what a descriptor is, so that the tests need no files. Every container that runs is here with all its descriptors: that is what makes a dead
//! host replaceable. Its listeners were never closed, connections wait in them, and the new host is told what the old one was.

mod hosts;
mod resize;

use crate::{
    host::no_room,
    ledger::SLOTS,
    wire::{Answer, Answered, Ask, Happened, Kind, Listed, ListedContainer, Order, PAGE, Page, Refusal, Reply, Start, VERSION},
};
use coracle_runtime::{Resources, SandboxSpec, State};
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
pub enum Command {
    /// Send to a host, after what it is to be told already: [`Supervision::order`] says it in full.
    Tell(usize, Due),
    /// Send to the agent, if it is there.
    Answer(Answered),
    /// A slot of the ledger starts anew.
    ClearSlot(usize),
    /// What a slot's container may have.
    Allot(usize, Resources),
    /// End the process and all hosts.
    Quit,
}

/// What a host is to be told, by name. Orders may be megabytes, and many of them wait for a host that was just replaced: they are made when there is room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Due {
    /// The container of this id.
    Start(String),
    /// The container of this id, with this many milliseconds.
    Stop(String, u64),
    /// The additional listeners of this sandbox.
    Listeners(String),
    /// The log of the container of this id.
    Log(String),
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
    engine: String,
    group: Result<(), String>,
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

fn reply(id: u64, result: Result<Answer, Refusal>) -> Command {
    Command::Answer(Answered::Reply(Reply { id, result }))
}

/// To each of these hosts.
fn each<'a>(hosts: impl IntoIterator<Item = &'a usize>, due: &Due) -> Vec<Command> {
    hosts.into_iter().map(|host| Command::Tell(*host, due.clone())).collect()
}

impl<F> Container<F> {
    fn running(&self) -> bool {
        matches!(self.state, State::Running { .. })
    }

    fn ended(&self) -> bool {
        matches!(self.state, State::Exited { .. })
    }

    fn order(&self, sandbox: &SandboxSpec, host: usize) -> (Order, Vec<Arc<F>>) {
        let mut fds = self.shared.clone();
        fds.extend(self.listeners.iter().filter_map(|of_port| of_port.get(host).cloned()));
        (Order::Start { start: Box::new(self.start.clone()), sandbox: Box::new(sandbox.clone()), slot: self.slot }, fds)
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
    /// With this many hosts, all of them about to be forked by process `pid`, the key of their engine, and whether they are in their control group.
    pub fn new(hosts: usize, pid: i32, engine: String, group: Result<(), String>) -> Self {
        Self {
            hosts,
            pid,
            engine,
            group,
            sandboxes: BTreeMap::new(),
            up: BTreeSet::new(),
            slots: (0..SLOTS).collect(),
            notices: VecDeque::new(),
            connected: false,
        }
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
    pub fn agent(&mut self, connected: bool) -> Vec<Command> {
        self.connected = connected;
        if !connected {
            return Vec::new();
        }
        // States are not among them: they are listed.
        self.notices.drain(..).map(|notice| Command::Answer(Answered::Event(notice))).collect()
    }

    fn tell(&mut self, happened: Happened) -> Option<Command> {
        if self.connected {
            return Some(Command::Answer(Answered::Event(happened)));
        }
        // A full log is said again and again: once is enough.
        let said = |id: &String| self.notices.iter().any(|notice| matches!(notice, Happened::LogFull(said) if said == id));
        if !matches!(&happened, Happened::State { .. }) && !matches!(&happened, Happened::LogFull(id) if said(id)) {
            if self.notices.len() >= NOTICES {
                self.notices.pop_front();
            }
            self.notices.push_back(happened);
        }
        None
    }

    /// The agent asks. (`Stats` is the shell's: it reads the ledger. So does [`resize`](Self::resize).)
    pub fn ask(&mut self, id: u64, ask: Ask, fds: Vec<Arc<F>>) -> Vec<Command> {
        match ask {
            Ask::Hello { .. } => {
                let (engine, group) = (self.engine.clone(), self.group.clone());
                vec![reply(id, Ok(Answer::Hello { version: VERSION, hosts: self.hosts, pid: self.pid, engine, group }))]
            }
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
            Ask::List(after) => vec![reply(id, Ok(Answer::List(self.page(after.as_deref()))))],
            Ask::Listeners(key, addresses) => self.set_listeners(id, &key, addresses, fds),
            Ask::Log(container) => {
                let Some((_, container)) = self.find(&container) else { return vec![reply(id, Ok(Answer::Done))] };
                if let (Some(log), Some(fd)) = (container.shared.first_mut(), fds.into_iter().next()) {
                    *log = fd;
                }
                let due = Due::Log(container.start.spec.id());
                let hosts = container.hosts.clone();
                let mut commands = each(hosts.intersection(&self.up), &due);
                commands.push(reply(id, Ok(Answer::Done)));
                commands
            }
            Ask::Resize(_) => vec![reply(id, Err(refusal("ResizeError", "what is used is not known".to_owned(), false)))],
            Ask::Stats(_) => vec![reply(id, Ok(Answer::Stats(Vec::new())))],
            Ask::Shutdown => vec![Command::Quit],
        }
    }

    fn start(&mut self, id: u64, start: Start, mut fds: Vec<Arc<F>>) -> Result<Vec<Command>, Refusal> {
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
        let mut commands = vec![Command::ClearSlot(slot), Command::Allot(slot, container.start.spec.resources.clone())];
        commands.extend(each(on.intersection(&self.up), &Due::Start(name.clone())));
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

    fn stop(&mut self, id: u64, name: &str, grace: u64) -> Vec<Command> {
        let Some((_, container)) = self.find(name) else { return vec![reply(id, Ok(Answer::Done))] };
        if container.ended() {
            return vec![reply(id, Ok(Answer::Done))];
        }
        container.stop_replies.push(id);
        self.end(name, grace)
    }

    /// Has it stopped wherever it runs. In a host that is not up it does not run at all.
    fn end(&mut self, name: &str, grace: u64) -> Vec<Command> {
        let up = self.up.clone();
        let Some((_, container)) = self.find(name) else { return Vec::new() };
        container.stopping = true;
        container.hosts.retain(|host| up.contains(host));
        if container.hosts.is_empty() {
            return self.over(name, 0, "Completed", String::new(), SystemTime::now());
        }
        each(&container.hosts, &Due::Stop(name.to_owned(), grace))
    }

    fn remove_container(&mut self, id: u64, name: &str) -> Vec<Command> {
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

    fn remove_sandbox(&mut self, id: u64, key: &str) -> Vec<Command> {
        let Some(sandbox) = self.sandboxes.get_mut(key) else { return vec![reply(id, Ok(Answer::Done))] };
        sandbox.removing.push(id);
        let mut commands = Vec::new();
        if !sandbox.addresses.is_empty() {
            sandbox.addresses.clear();
            sandbox.listeners.clear();
            commands.extend(each(&self.up, &Due::Listeners(key.to_owned())));
        }
        let running: Vec<String> = sandbox.containers.iter().filter(|(_, container)| !container.ended()).map(|(name, _)| name.clone()).collect();
        for name in running {
            commands.extend(self.end(&name, 0));
        }
        commands.extend(self.bury(key));
        commands
    }

    /// Forgets a sandbox that is to go once nothing runs in it.
    fn bury(&mut self, key: &str) -> Vec<Command> {
        let Some(sandbox) = self.sandboxes.get(key) else { return Vec::new() };
        if sandbox.removing.is_empty() || sandbox.containers.values().any(|container| !container.ended()) {
            return Vec::new();
        }
        let Some(sandbox) = self.sandboxes.remove(key) else { return Vec::new() };
        self.slots.extend(sandbox.containers.values().map(|container| container.slot));
        sandbox.removing.into_iter().map(|id| reply(id, Ok(Answer::Done))).collect()
    }

    fn set_listeners(&mut self, id: u64, key: &str, addresses: Vec<(SocketAddr, u16)>, fds: Vec<Arc<F>>) -> Vec<Command> {
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
        let mut commands = each(&self.up, &Due::Listeners(key.to_owned()));
        commands.push(reply(id, Ok(Answer::Done)));
        commands
    }

    /// What is due to a host, in full, as things are now. None: there is nothing to be told any more.
    pub fn order(&self, host: usize, due: Due) -> Option<(Order, Vec<Arc<F>>)> {
        let find = |name: &str| {
            let sandbox = self.sandboxes.get(name.split('/').next()?)?;
            Some((sandbox, sandbox.containers.get(name)?))
        };
        match due {
            Due::Start(name) => {
                let (sandbox, container) = find(&name).filter(|(_, container)| !container.ended() && container.hosts.contains(&host))?;
                Some(container.order(&sandbox.spec, host))
            }
            Due::Stop(name, grace) => Some((Order::Stop(name, grace), Vec::new())),
            Due::Listeners(key) => {
                let sandbox = self.sandboxes.get(&key)?;
                let fds = sandbox.listeners.iter().filter_map(|of_address| of_address.get(host).cloned()).collect();
                Some((Order::Listeners(key, sandbox.spec.ip, sandbox.addresses.clone()), fds))
            }
            Due::Log(name) => {
                let (_, container) = find(&name)?;
                Some((Order::Log(name), container.shared.first().cloned().into_iter().collect()))
            }
        }
    }

    /// The part of the list that comes after an id: a sandbox's or a container's.
    fn page(&self, after: Option<&str>) -> Page {
        let mut page = Page::default();
        let mut size = 0;
        let from = after.and_then(|after| after.split('/').next()).unwrap_or_default();
        let behind = |key: &str, id: &str| key == from && after.is_some_and(|after| id <= after);
        for (key, sandbox) in self.sandboxes.range(from.to_owned()..) {
            let itself = (key, Listed::Sandbox(Box::new(sandbox.spec.clone())));
            let containers = sandbox
                .containers
                .iter()
                .map(|(name, container)| (name, Listed::Container(Box::new(ListedContainer::new(&container.start.spec, container.state.clone())))));
            for (id, item) in std::iter::once(itself).chain(containers) {
                if behind(key, id) {
                    continue;
                }
                size += serde_json::to_vec(&item).map_or(0, |json| json.len());
                page.items.push(item);
                if size >= PAGE {
                    page.next = Some(id.clone());
                    return page;
                }
            }
        }
        page
    }
}

#[cfg(test)]
pub(crate) mod tests;
