//! The shim: the small process that a pod's containers are children of. It holds their standard streams, writes their logs, and knows how they ended.
//!
//! One thread, no async runtime, a fork of the [nursery](crate::nursery), in a session of its own. Agents connect to its socket, one at a time, the newest wins; without
//! any it goes on as before. It never calls libcontainer: each container is made by a fork of it (the worker), so nothing that hangs or
//! leaks there stays. What it knows is on disk too (`state.json`), for whoever cleans up after it when it is killed.
#![allow(unsafe_code, reason = "fork and _exit")]

pub mod clients;
pub mod containers;
pub mod execs;
pub mod pause;
pub mod sandbox;
mod told;
pub mod users;
mod words;
mod workers;

use crate::{
    cgroup::{self, Trees},
    wire::{Answer, Answered, Ask, Happened, Pod, Reply, Request, VERSION},
};
use containers::{Containers, reason};
use coracle_runtime::{
    SandboxSpec,
    wire::{Refusal, socket::Link},
};
use execs::Execs;
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        inotify::{AddWatchFlags, InitFlags, Inotify},
        prctl,
        signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, sigaction, sigprocmask},
        signalfd::{SfdFlags, SignalFd},
        wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid},
    },
    unistd::{Pid, setsid},
};
use pause::Pause;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use std::{
    fs, io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};
use workers::Worker;

/// The name of the socket in the shim's directory.
pub const SOCKET: &str = "shim.sock";
/// What the shim knows, as JSON of [`Pod`].
pub const STATE: &str = "state.json";
/// Read from a container at a time; all of them share the buffer.
const BUFFER: usize = 16 << 10;

struct Shim {
    dir: PathBuf,
    control: OwnedFd,
    signals: SignalFd,
    gone: Inotify,
    agent: Option<Link>,
    trees: Trees,
    sandbox: Option<Sandbox>,
    containers: Containers,
    workers: Vec<Worker>,
    execs: Execs,
    removing: Option<u64>,
    /// Something is known that is not written down yet.
    changed: bool,
    buffer: Vec<u8>,
}

struct Sandbox {
    spec: SandboxSpec,
    mounts: OwnedFd,
    /// Its user namespace, if it has users of its own.
    users: Option<OwnedFd>,
    /// The first process of the PID namespace that containers share, if they do.
    processes: Option<Pause>,
}

/// The process; `control` is the listening socket in `dir`. Returns its exit code.
pub fn main(dir: &Path, control: OwnedFd) -> i32 {
    match Shim::new(dir, control).and_then(Shim::run) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("coracle shim of {}: {error}", dir.display());
            1
        }
    }
}

impl Shim {
    fn new(dir: &Path, control: OwnedFd) -> io::Result<Self> {
        _ = setsid();
        _ = prctl::set_name(c"coracle-shim");
        // What is forked from here knows then: asking the processor leaves the virtual machine, where this is one.
        #[cfg(target_arch = "x86_64")]
        std::hint::black_box(std::arch::is_x86_feature_detected!("avx2"));
        std::env::set_current_dir("/")?;
        prctl::set_child_subreaper(true)?;
        let gone = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        // The directory itself is held by what is mounted below it: its end would be seen too late.
        gone.add_watch(dir, AddWatchFlags::IN_DELETE | AddWatchFlags::IN_DELETE_SELF | AddWatchFlags::IN_MOVE_SELF)?;
        let ignore = SigAction::new(SigHandler::SigIgn, SaFlags::empty(), SigSet::empty());
        for signal in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM, Signal::SIGPIPE] {
            // SAFETY: ignoring runs no code. What the pod outlives, its shim outlives; it ends when it is asked to, or killed.
            unsafe { sigaction(signal, &ignore) }?;
        }
        let mut mask = SigSet::empty();
        mask.add(Signal::SIGCHLD);
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&mask), None)?;
        let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        rustix::io::ioctl_fionbio(&control, true)?;
        Ok(Self {
            dir: dir.to_path_buf(),
            control,
            signals,
            gone,
            agent: None,
            trees: Trees::find()?,
            sandbox: None,
            containers: Containers::default(),
            workers: Vec::new(),
            execs: Execs::default(),
            removing: None,
            changed: false,
            buffer: vec![0; BUFFER],
        })
    }

    fn run(mut self) -> io::Result<()> {
        while !self.turn()? {}
        Ok(())
    }

    /// Waits for something, and sees to it. Whether everything is over.
    fn turn(&mut self) -> io::Result<bool> {
        let streams = self.containers.streams();
        let mut fds: Vec<PollFd<'_>> = vec![readable(self.signals.as_fd()), readable(self.gone.as_fd()), readable(self.control.as_fd())];
        let first_stream = fds.len();
        fds.extend(streams.iter().filter_map(|(id, which)| self.containers.stream(id, *which)).map(readable));
        fds.extend(self.workers.iter().map(|worker| readable(worker.result())));
        let waited = |wait: bool| if wait { PollFlags::POLLOUT } else { PollFlags::empty() };
        fds.extend(self.containers.clients().map(|(fd, wait)| PollFd::new(fd, waited(wait))));
        if let Some(agent) = &self.agent {
            fds.push(PollFd::new(agent.as_fd(), PollFlags::POLLIN | waited(agent.pending())));
        }
        let due = [self.containers.due(), self.execs.due(), self.workers.iter().map(|worker| worker.due).min()].into_iter().flatten().min();
        let wait = due.map_or(PollTimeout::NONE, |due| {
            let left = due.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
            PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
        });
        match poll(&mut fds, wait) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ready: Vec<bool> = fds.iter().map(|fd| fd.revents().is_some_and(|events| !events.is_empty())).collect();
        drop(fds);
        let is = |at: usize| ready.get(at).copied().unwrap_or(false);
        // Before anybody's end, so that the last lines are there when it is told.
        for (number, (id, which)) in streams.iter().enumerate() {
            if is(first_stream + number) {
                self.containers.read(id, *which, &mut self.buffer);
            }
        }
        for notice in self.containers.notices() {
            self.tell(&Answered::Event(notice));
        }
        self.containers.flush();
        if is(0) {
            self.reap()?;
        }
        self.finish_workers();
        if is(1) && self.gone.read_events().is_ok() && !self.dir.join(SOCKET).exists() {
            // Nobody could ever ask for this pod again.
            if let Some(sandbox) = &self.sandbox {
                _ = self.trees.end(&cgroup::of_pod(&sandbox.spec.pod.uid, sandbox.spec.linux.qos));
            }
            return Ok(true);
        }
        if is(2) {
            self.accept();
        }
        self.execs.enforce();
        self.containers.enforce(&self.trees, self.sandbox.as_ref().map(|sandbox| &sandbox.spec));
        self.listen();
        // Once, and after everybody has their answer.
        if std::mem::take(&mut self.changed) {
            self.save();
        }
        self.over()
    }

    /// Whether it was asked to end, and nothing runs any more.
    fn over(&mut self) -> io::Result<bool> {
        let Some(id) = self.removing else { return Ok(false) };
        if self.containers.alive() || !self.workers.is_empty() {
            return Ok(false);
        }
        if let Some(pause) = self.sandbox.as_mut().and_then(|sandbox| sandbox.processes.take()) {
            pause.end();
        }
        self.answer(id, Ok(Answer::Done));
        if let Some(agent) = &mut self.agent {
            // A dozen bytes: the socket takes them at once, or the agent is gone.
            _ = agent.flush();
        }
        Ok(true)
    }

    fn accept(&mut self) {
        use rustix::net::{SocketFlags, accept_with};
        let Ok(fd) = accept_with(&self.control, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) else { return };
        if let Some(mut before) = self.agent.replace(Link::new(fd)) {
            _ = before.send(&Answered::Event(Happened::Superseded), Vec::new());
            _ = before.flush();
        }
        self.abandon();
    }

    /// The agent has gone, and those who waited for what it was to run or to show with it.
    fn abandon(&mut self) {
        self.execs.abandon();
        for worker in &mut self.workers {
            worker.abandon(None);
        }
        self.containers.abandoned();
    }

    /// Takes what the agent asks.
    fn listen(&mut self) {
        let Some(agent) = &mut self.agent else { return };
        let mut asked = Vec::new();
        let broken = loop {
            match agent.fill() {
                Ok(()) if agent.closed() => break true,
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break false,
                Err(_) => break true,
            }
        };
        let unread = loop {
            match agent.receive::<Request>() {
                Ok(Some((request, fds))) => asked.push((request, fds)),
                Ok(None) => break false,
                Err(_) => break true,
            }
        };
        for (Request { id, ask }, fds) in asked {
            self.asked(id, ask, fds);
        }
        let stuck = match &mut self.agent {
            Some(agent) if agent.pending() => matches!(agent.flush(), Err(error) if error.kind() != io::ErrorKind::WouldBlock),
            _ => false,
        };
        if broken || unread || stuck {
            self.agent = None;
            self.abandon();
        }
    }

    fn tell(&mut self, message: &Answered) {
        if let Some(agent) = &mut self.agent
            && agent.send(message, Vec::new()).is_err()
        {
            self.agent = None;
        }
    }

    fn answer(&mut self, id: u64, result: Result<Answer, Refusal>) {
        self.tell(&Answered::Reply(Reply { id, result }));
    }

    fn attach(&mut self, id: u64, container: &str, streams: [bool; 3], fds: Vec<OwnedFd>) {
        let mut fds = fds.into_iter();
        let [stdin, stdout, stderr] = streams;
        let pipes = [stdout, stderr].map(|held| if held { fds.next() } else { None });
        match self.containers.attach(container, stdin, pipes) {
            Ok(input) => {
                let fds: Vec<Arc<OwnedFd>> = input.map(Arc::new).into_iter().collect();
                let reply = Answered::Reply(Reply { id, result: Ok::<_, Refusal>(Answer::Done) });
                if let Some(agent) = &mut self.agent
                    && agent.send::<Answered>(&reply, fds).is_err()
                {
                    self.agent = None;
                }
            }
            Err(error) => self.answer(id, Err(refusal("AttachError", error.to_string()))),
        }
    }

    fn asked(&mut self, id: u64, ask: Ask, fds: Vec<OwnedFd>) {
        match ask {
            Ask::Hello { .. } => self.answer(id, Ok(Answer::Hello { version: VERSION, pid: nix::unistd::getpid().as_raw() })),
            Ask::RunSandbox(spec) => {
                let done = self.run_sandbox(*spec);
                self.answer(id, done.map(|()| Answer::Done).map_err(|error| refusal("FailedCreatePodSandBox", error.to_string())));
            }
            Ask::Start(spec) => self.start(id, *spec, None),
            Ask::Program(spec, subcommand) => self.start(id, *spec, Some((subcommand, fds))),
            Ask::Stop(name, grace) => {
                if self.containers.stop(&name, id, Duration::from_millis(grace)) {
                    self.answer(id, Ok(Answer::Done));
                }
            }
            Ask::RemoveContainer(name) => {
                let done = if self.containers.remove(&name) {
                    Ok(Answer::Done)
                } else {
                    Err(refusal("RemoveContainerError", format!("container {name} still runs; stop it first")))
                };
                self.changed = true;
                self.answer(id, done);
            }
            Ask::Exec(exec) => self.exec(id, *exec, fds),
            Ask::EndExec(session) => {
                self.execs.end(session);
                for worker in &mut self.workers {
                    worker.abandon(Some(session));
                }
                self.answer(id, Ok(Answer::Done));
            }
            Ask::Attach { container, stdin, stdout, stderr } => self.attach(id, &container, [stdin, stdout, stderr], fds),
            Ask::CloseInput(name) => {
                self.containers.close_input(&name);
                self.answer(id, Ok(Answer::Done));
            }
            Ask::List => {
                let pod = self.pod().map(Box::new);
                self.answer(id, Ok(Answer::Pod(pod)));
            }
            Ask::Remove => {
                self.removing = Some(id);
                for worker in &self.workers {
                    worker.kill();
                }
                if let Some(sandbox) = &self.sandbox {
                    self.trees.kill(&cgroup::of_pod(&sandbox.spec.pod.uid, sandbox.spec.linux.qos));
                }
            }
        }
    }

    fn run_sandbox(&mut self, spec: SandboxSpec) -> io::Result<()> {
        if self.sandbox.is_some() {
            return Ok(());
        }
        let linux = &spec.linux;
        let group = cgroup::of_pod(&spec.pod.uid, linux.qos);
        self.trees.make(&group, &linux.resources, linux.pids_limit)?;
        let (mounts, users) = sandbox::enter(&spec, &self.dir)?;
        self.sandbox = Some(Sandbox { spec, mounts, users, processes: None });
        self.share_processes()?;
        self.save();
        Ok(())
    }

    /// Makes the PID namespace that containers share, if they do; anew when its first process was killed.
    fn share_processes(&mut self) -> io::Result<()> {
        if let Some(Sandbox { spec, processes, users, .. }) = &mut self.sandbox
            && spec.linux.share_processes
            && !spec.linux.host_pid
            && processes.as_ref().is_none_or(Pause::ending)
        {
            *processes = Some(pause::start(users.as_ref())?);
        }
        Ok(())
    }

    /// Waits for children that have ended. Each is looked at first and waited for when it is known whose it is, since its number is its own only until then: one that nobody
    /// knows was named by a worker that has ended too (or it would be that one's child), and all that it said is there.
    fn reap(&mut self) -> io::Result<()> {
        while self.signals.read_signal()?.is_some() {}
        loop {
            let (pid, code) = match waitid(Id::All, WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT) {
                Ok(WaitStatus::Exited(pid, code)) => (pid, code),
                Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, 128 + signal as i32),
                Ok(WaitStatus::StillAlive) | Err(nix::errno::Errno::ECHILD) => return Ok(()),
                Ok(_) | Err(nix::errno::Errno::EINTR) => continue,
                Err(error) => return Err(error.into()),
            };
            if !self.exited(pid, code) {
                self.finish_workers();
                self.exited(pid, code);
            }
            _ = waitpid(pid, Some(WaitPidFlag::WNOHANG));
        }
    }

    /// Whether it was a container's.
    fn exited(&mut self, pid: Pid, code: i32) -> bool {
        if let Some(happened) = self.execs.exited(pid, code) {
            if let Some(happened) = happened {
                self.tell(&Answered::Event(happened));
            }
            return true;
        }
        let Some(sandbox) = &mut self.sandbox else { return false };
        if sandbox.processes.as_ref().is_some_and(|pause| pause.is(pid)) {
            sandbox.processes = None;
            return true;
        }
        let Some(container) = self.containers.by_pid(pid) else { return false };
        let group = crate::config::group(&container.spec, &sandbox.spec);
        // In a PID namespace of its own everything has ended with it already; elsewhere it has not.
        if sandbox.spec.linux.host_pid || sandbox.spec.linux.share_processes {
            self.trees.kill(&group);
        }
        container.drain(&mut self.buffer);
        let waiting = container.ended(code, reason(code, self.trees.oom_kills(&group)));
        let happened = container.happened();
        self.changed = true;
        self.tell(&Answered::Event(happened));
        for id in waiting {
            self.answer(id, Ok(Answer::Done));
        }
        true
    }

    fn pod(&self) -> Option<Pod> {
        self.sandbox.as_ref().map(|sandbox| Pod { spec: sandbox.spec.clone(), containers: self.containers.list() })
    }

    /// Writes what is known, all or nothing.
    fn save(&self) {
        let Some(pod) = self.pod() else { return };
        let (path, next) = (self.dir.join(STATE), self.dir.join("state.json.next"));
        let written = serde_json::to_vec(&pod).map_err(io::Error::from).and_then(|text| fs::write(&next, text)).and_then(|()| replace(&next, &path));
        if let Err(error) = written {
            eprintln!("coracle shim: write {}: {error}", path.display());
        }
    }
}

/// Puts a file in another's place. A plain rename over a file has ext4 write the new one out first, for the sake of machines that lose their power: no container survives that.
fn replace(next: &Path, path: &Path) -> io::Result<()> {
    match renameat_with(CWD, next, CWD, path, RenameFlags::EXCHANGE) {
        Ok(()) => fs::remove_file(next),
        // The first of its name, or a file system that cannot.
        Err(_) => fs::rename(next, path),
    }
}

fn readable(fd: BorrowedFd<'_>) -> PollFd<'_> {
    PollFd::new(fd, PollFlags::POLLIN)
}

fn refusal(reason: &str, message: String) -> Refusal {
    Refusal { reason: reason.into(), message, fatal: false }
}
