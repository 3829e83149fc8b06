//! The small parent: forks the hosts, replaces those that die, holds what they need meanwhile.
//!
//! It is started by the agent but belongs to no one: its own session, its parent may come and go. Agents connect to its socket, one at a time, the newest
//! wins. It has one thread and no async runtime, so it may fork without exec, which is worth much here: a forked host shares the binary's
//! relocated pages with it (megabytes for each process otherwise), the shared ledger is simply there, and a host starts in a
//! millisecond even after the binary on disk was replaced or deleted.
//!
//! It runs as the same unprivileged uid as its hosts and out of their reach (`confine`), opens nothing, and ends when its data directory is gone.
#![allow(unsafe_code, reason = "fork, and descriptors by number")]

pub mod state;

use crate::{
    agent, confine,
    host::{self, Birth},
    ledger::{Ledger, SLOTS},
    wire::{Answer, Answered, Ask, Happened, Order, Refusal, Reply, Request, Said},
};
use coracle_runtime::wire::socket::Link;
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        inotify::{AddWatchFlags, InitFlags, Inotify},
        prctl,
        signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask},
        signalfd::{SfdFlags, SignalFd},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{ForkResult, Pid, fork, setsid},
};
use state::{Command, Due, Supervision};
use std::{
    collections::VecDeque,
    io,
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

/// The name of the socket in the run directory.
pub const SOCKET: &str = "control.sock";
/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;
/// A host that lived shorter than this is not replaced at once.
const TOO_SHORT: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(500);
/// A host with more to be told than this does not listen: a few words for every container there can be.
const MAX_DUE: usize = 8 * SLOTS;

/// The command line of the hidden subcommand; stdin is the listening control socket.
pub struct Setup {
    /// The directory with the control socket: when that is removed, so is everything.
    pub run_dir: PathBuf,
    /// Number of host processes.
    pub hosts: usize,
    /// The key of the engine of this very binary, as who starts it knows it.
    pub engine: String,
    /// The control group to enter.
    pub group: Option<PathBuf>,
    /// User and group to become, if root.
    pub drop_to: Option<(u32, u32)>,
}

struct HostProcess {
    pid: Pid,
    link: Option<Link>,
    /// What it is to be told when its link has room.
    orders: VecDeque<Due>,
    born: Instant,
    due: Option<Instant>,
}

struct Supervisor {
    setup: Setup,
    control: OwnedFd,
    signals: SignalFd,
    gone: Inotify,
    ledger: &'static Ledger,
    state: Supervision<OwnedFd>,
    hosts: Vec<HostProcess>,
    agent: Option<Link>,
}

/// The process. Returns the exit code; in a forked host, that host's.
pub fn main(setup: Setup) -> i32 {
    match start(setup).and_then(Supervisor::run) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("coracle wasm supervisor: {error}");
            1
        }
    }
}

fn start(setup: Setup) -> io::Result<Supervisor> {
    // Not a group leader, since it was just spawned; if it is one nevertheless, that serves as well.
    _ = setsid();
    // It is started as /proc/self/exe, which would be its name.
    _ = prctl::set_name(c"coracle-wasm");
    _ = std::env::set_current_dir("/");
    confine::raise_descriptors();
    // Before the uid changes: it could not see the directory afterwards.
    let gone = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
    let events = AddWatchFlags::IN_DELETE | AddWatchFlags::IN_DELETE_SELF | AddWatchFlags::IN_MOVE_SELF | AddWatchFlags::IN_MOVED_FROM;
    gone.add_watch(&setup.run_dir, events)?;
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGCHLD);
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&mask), None)?;
    let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    // SAFETY: stdin is the listening socket the agent gave us; nothing else in this process uses descriptor 0.
    let control = unsafe { OwnedFd::from_raw_fd(0) };
    rustix::io::ioctl_fionbio(&control, true)?;
    // Once more, so that who connects is told our process id as the peer's, and not that of the agent who bound it.
    rustix::net::listen(&control, BACKLOG)?;
    let group = setup.group.as_deref().map_or(Ok(()), agent::group::enter).map_err(|error| error.to_string());
    confine::supervisor(setup.drop_to)?;
    let ledger: &'static Ledger = Box::leak(Box::new(Ledger::new(setup.hosts)?));
    let state = Supervision::new(setup.hosts, nix::unistd::getpid().as_raw(), setup.engine.clone(), group);
    Ok(Supervisor { setup, control, signals, gone, ledger, state, hosts: Vec::new(), agent: None })
}

/// Who was ready in a poll.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Who {
    Signals,
    Gone,
    Control,
    Agent,
    Host(usize),
}

impl Supervisor {
    fn run(mut self) -> io::Result<i32> {
        for index in 0..self.setup.hosts {
            if let Some(code) = self.spawn(index)? {
                return Ok(code);
            }
        }
        loop {
            if let Some(code) = self.turn()? {
                return Ok(code);
            }
        }
    }

    /// Forks a host. In the child: its exit code, when it is over.
    fn spawn(&mut self, index: usize) -> io::Result<Option<i32>> {
        let (ours, theirs) = Link::pair()?;
        let me = nix::unistd::getpid().as_raw();
        // SAFETY: this process has a single thread, so the child may do anything.
        match unsafe { fork() }? {
            ForkResult::Child => {
                drop(ours);
                Ok(Some(self.become_host(index, theirs, me)))
            }
            ForkResult::Parent { child } => {
                let process = HostProcess { pid: child, link: Some(ours), orders: VecDeque::new(), born: Instant::now(), due: None };
                if index < self.hosts.len() {
                    self.hosts[index] = process;
                } else {
                    self.hosts.push(process);
                }
                Ok(None)
            }
        }
    }

    fn become_host(&mut self, index: usize, link: Link, parent: i32) -> i32 {
        // What belongs to the supervisor is let go: listeners of pods above all, which would otherwise outlive them here.
        self.hosts.clear();
        self.agent = None;
        self.state = Supervision::new(0, 0, String::new(), Ok(()));
        let keep = link.as_fd().as_raw_fd();
        for fd in [self.control.as_raw_fd(), self.signals.as_raw_fd(), self.gone.as_fd().as_raw_fd()] {
            debug_assert_ne!(fd, keep);
            // SAFETY: these are never used in the child again: `self` is left as it is and the process ends by `exit`.
            unsafe { libc::close(fd) };
        }
        _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
        let birth = Birth { index, link, ledger: self.ledger };
        let code = match confine::die_with_parent(parent) {
            Ok(()) => host::main(birth),
            Err(_) => 1,
        };
        std::process::exit(code)
    }

    /// Waits for something and deals with it.
    fn turn(&mut self) -> io::Result<Option<i32>> {
        let now = Instant::now();
        let due: Vec<usize> =
            self.hosts.iter().enumerate().filter(|(_, host)| host.due.is_some_and(|due| due <= now)).map(|(index, _)| index).collect();
        for index in due {
            match self.spawn(index) {
                Ok(Some(code)) => return Ok(Some(code)),
                Ok(None) => {}
                // Out of descriptors or processes: what runs goes on, and this host comes later.
                Err(error) => {
                    eprintln!("coracle wasm supervisor: host {index} cannot be started again yet: {error}");
                    self.hosts[index].due = Some(Instant::now() + PAUSE);
                }
            }
        }
        let mut whos = vec![Who::Signals, Who::Gone, Who::Control];
        let mut fds = vec![
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.gone.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.control.as_fd(), PollFlags::POLLIN),
        ];
        let wants = |link: &Link| if link.pending() { PollFlags::POLLIN | PollFlags::POLLOUT } else { PollFlags::POLLIN };
        if let Some(agent) = &self.agent {
            whos.push(Who::Agent);
            fds.push(PollFd::new(agent.as_fd(), wants(agent)));
        }
        for (index, host) in self.hosts.iter().enumerate() {
            if let Some(link) = &host.link {
                whos.push(Who::Host(index));
                fds.push(PollFd::new(link.as_fd(), wants(link)));
            }
        }
        let next = self.hosts.iter().filter_map(|host| host.due).min();
        let timeout = next.map_or(PollTimeout::NONE, |due| {
            let millis = due.saturating_duration_since(Instant::now()).as_millis() + 1;
            PollTimeout::from(u16::try_from(millis).unwrap_or(u16::MAX))
        });
        match poll(&mut fds, timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ready: Vec<Who> = whos.into_iter().zip(&fds).filter(|(_, fd)| fd.any().unwrap_or(true)).map(|(who, _)| who).collect();
        drop(fds);
        for who in ready {
            let quit = match who {
                Who::Signals => self.reap(),
                Who::Gone => self.look_at_directory()?,
                Who::Control => self.accept(),
                Who::Agent => self.hear_agent(),
                Who::Host(index) => self.hear_host(index),
            };
            if quit {
                return Ok(Some(0));
            }
        }
        Ok(None)
    }

    /// True when the data directory is gone.
    fn look_at_directory(&mut self) -> io::Result<bool> {
        let events = match self.gone.read_events() {
            Ok(events) => events,
            Err(nix::errno::Errno::EAGAIN) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        let gone = events.iter().any(|event| {
            let directory = AddWatchFlags::IN_DELETE_SELF | AddWatchFlags::IN_MOVE_SELF | AddWatchFlags::IN_IGNORED | AddWatchFlags::IN_UNMOUNT;
            event.mask.intersects(directory) || event.name.as_deref() == Some(SOCKET.as_ref())
        });
        Ok(gone)
    }

    fn accept(&mut self) -> bool {
        use rustix::net::{SocketFlags, accept_with};
        if let Ok(fd) = accept_with(&self.control, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
            // The directory is the agent's alone, so whoever connects is the agent: a newer one, if there was one already.
            if let Some(mut before) = self.agent.replace(Link::new(fd)) {
                _ = before.send(&Answered::Event(Happened::Superseded), Vec::new()).and_then(|()| before.flush());
            }
            let commands = self.state.agent(true);
            return self.obey(commands);
        }
        false
    }

    fn lose_agent(&mut self) {
        self.agent = None;
        self.state.agent(false);
    }

    fn hear_agent(&mut self) -> bool {
        loop {
            let Some(agent) = &mut self.agent else { return false };
            let more = match agent.flush() {
                Ok(()) => Ok(()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
                Err(error) => Err(error),
            }
            .and_then(|()| agent.fill());
            match more {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Err(_) => {
                    self.lose_agent();
                    return false;
                }
            }
            let closed = agent.closed();
            loop {
                let Some(agent) = &mut self.agent else { return false };
                match agent.receive::<Request>() {
                    Ok(Some((request, fds))) => {
                        let fds = fds.into_iter().map(Arc::new).collect();
                        let commands = match request.ask {
                            Ask::Stats(sandbox) => vec![self.stats(request.id, &sandbox)],
                            Ask::Resize(wanted) => self.state.resize(request.id, wanted, |slot| self.ledger.memory(slot)),
                            ask => self.state.ask(request.id, ask, fds),
                        };
                        if self.obey(commands) {
                            return true;
                        }
                    }
                    Ok(None) => break,
                    Err(error) => {
                        eprintln!("coracle wasm supervisor: an agent was not understood: {error}");
                        self.lose_agent();
                        return false;
                    }
                }
            }
            if closed {
                self.lose_agent();
                return false;
            }
        }
    }

    fn stats(&self, id: u64, sandbox: &str) -> Command {
        let slots = self.state.slots_of(sandbox).into_iter();
        let stats = slots.map(|(name, slot)| (name, self.ledger.cpu_nanos(slot), self.ledger.memory(slot))).collect();
        Command::Answer(Answered::Reply(Reply { id, result: Ok(Answer::Stats(stats)) }))
    }

    fn hear_host(&mut self, index: usize) -> bool {
        loop {
            if self.feed(index) {
                return true;
            }
            let Some(link) = self.hosts.get_mut(index).and_then(|host| host.link.as_mut()) else { return false };
            match link.fill() {
                Ok(()) if link.closed() => {
                    // Its end is dealt with when it is reaped.
                    self.hosts[index].link = None;
                    return false;
                }
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Err(_) => {
                    self.condemn(index);
                    return false;
                }
            }
            loop {
                let Some(link) = self.hosts.get_mut(index).and_then(|host| host.link.as_mut()) else { return false };
                match link.receive::<Said>() {
                    Ok(Some((said, _))) => {
                        let commands = self.state.said(index, said);
                        if self.obey(commands) {
                            return true;
                        }
                    }
                    Ok(None) => break,
                    Err(_) => {
                        self.condemn(index);
                        return false;
                    }
                }
            }
        }
    }

    /// A host that talks nonsense or does not listen is ended, and so replaced.
    fn condemn(&mut self, index: usize) {
        if let Some(host) = self.hosts.get_mut(index) {
            host.link = None;
            _ = kill(host.pid, Signal::SIGKILL);
        }
    }

    fn reap(&mut self) -> bool {
        while let Ok(Some(_)) = self.signals.read_signal() {}
        loop {
            let status = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) | Err(_) => return false,
                Ok(status) => status,
            };
            let how = match status {
                WaitStatus::Exited(_, code) => format!("exit code {code}"),
                WaitStatus::Signaled(_, signal, _) => format!("signal {signal}"),
                _ => continue,
            };
            let Some(index) = self.hosts.iter().position(|host| Some(host.pid) == status.pid()) else { continue };
            // What it said last still counts.
            if self.hear_host(index) {
                return true;
            }
            let host = &mut self.hosts[index];
            host.link = None;
            let lived = host.born.elapsed();
            host.due = Some(Instant::now() + if lived < TOO_SHORT { PAUSE } else { Duration::ZERO });
            eprintln!("coracle wasm supervisor: host {index} ended after {lived:?}: {how}");
            self.ledger.bury(index);
            let commands = self.state.host_died(index, &how);
            if self.obey(commands) {
                return true;
            }
        }
    }

    /// Tells a host what it is to be told, as far as there is room on its link. True: quit.
    fn feed(&mut self, index: usize) -> bool {
        loop {
            let Some(HostProcess { link: Some(link), orders, .. }) = self.hosts.get_mut(index) else { return false };
            match link.flush() {
                // What does not go now goes when the socket has room, and a broken one is dealt with when its host is reaped.
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {}
                Err(_) => {
                    self.condemn(index);
                    return false;
                }
                Ok(()) => {}
            }
            if !link.has_room() {
                return false;
            }
            let Some(due) = orders.pop_front() else { return false };
            let Some((order, fds)) = self.state.order(index, due) else { continue };
            let Err(error) = link.send(&order, fds) else { continue };
            if error.kind() != io::ErrorKind::InvalidInput {
                self.condemn(index);
                return false;
            }
            // One order that cannot be sent is its container's trouble, not that of all others in this host.
            eprintln!("coracle wasm supervisor: host {index}: {error}");
            if let Order::Start { start, .. } = order {
                let refusal = Refusal { reason: "RunContainerError".to_owned(), message: error.to_string(), fatal: true };
                let commands = self.state.said(index, Said::Failed(start.spec.id(), refusal));
                if self.obey(commands) {
                    return true;
                }
            }
        }
    }

    /// Does what was decided. True: quit.
    fn obey(&mut self, commands: Vec<Command>) -> bool {
        for command in commands {
            match command {
                Command::Tell(index, due) => {
                    // Without a link it is being replaced, and will be told when it is up.
                    let Some(host) = self.hosts.get_mut(index).filter(|host| host.link.is_some()) else { continue };
                    host.orders.push_back(due);
                    if host.orders.len() > MAX_DUE {
                        self.condemn(index);
                    } else if self.feed(index) {
                        return true;
                    }
                }
                Command::Answer(answered) => {
                    let Some(agent) = &mut self.agent else { continue };
                    let sent = agent.send(&answered, Vec::new()).and_then(|()| agent.flush());
                    if sent.is_err_and(|error| error.kind() != io::ErrorKind::WouldBlock) {
                        self.lose_agent();
                    }
                }
                Command::ClearSlot(slot) => self.ledger.clear(slot),
                Command::Allot(slot, resources) => self.ledger.allot(slot, &resources),
                Command::Quit => return true,
            }
        }
        false
    }
}
