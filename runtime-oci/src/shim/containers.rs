//! The containers of a shim: their streams, their state, and how they are stopped.

use super::{clients::Clients, told::Told, words};
use crate::{
    cgroup::{self, Trees},
    config,
    wire::Happened,
};
use coracle_runtime::{
    ContainerSpec, ImageContent, SandboxSpec, State,
    log::{self, Lines, Stream},
    program::OWN_MEMORY,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rustix::process::{PidfdFlags, pidfd_open};
use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::{Duration, Instant, SystemTime},
};

/// Buffers read from a container that has ended before its pipes are closed: what the largest pipe holds that a program may make. Somebody else may hold them and write without end.
const LAST: usize = (1 << 20) / super::BUFFER + 1;

/// The number, among a container's streams, of what its process says of itself.
const TOLD: usize = 2;

/// Why it is over, as Kubernetes writes it.
pub fn reason(code: i32, oom_kills: u64) -> &'static str {
    match code {
        0 => "Completed",
        _ if oom_kills > 0 => "OOMKilled",
        _ => "Error",
    }
}

/// A pipe, and the line that has begun in it.
struct Output {
    pipe: Option<File>,
    lines: Lines,
}

/// The log file and what is known of its size.
struct Log {
    file: Option<File>,
    size: u64,
    /// The last line was not written, or a part of it alone.
    torn: bool,
}

impl Log {
    fn write(&mut self, spec: &ContainerSpec, stream: Stream, whole: bool, text: &[u8]) {
        if spec.log_max_bytes > 0 && self.size >= spec.log_max_bytes {
            match log::rotate(&spec.log_path, spec.log_max_bytes, spec.log_max_files) {
                Ok(file) => (self.file, self.size) = (Some(file), 0),
                Err(error) => eprintln!("coracle shim: rotate {}: {error}", spec.log_path.display()),
            }
        }
        let mut line = log::record(stream, whole, text);
        if self.torn {
            line.insert(0, b'\n');
        }
        // A full disk must not stop the container; the line is lost, and the next one begins anew.
        if let Some(file) = &mut self.file {
            self.torn = file.write_all(&line).is_err();
            self.size += if self.torn { 0 } else { line.len() as u64 };
        }
    }
}

/// One container.
pub struct Container {
    /// As it was given.
    pub spec: ContainerSpec,
    state: State,
    pid: Option<Pid>,
    /// The same process, whatever its number comes to mean.
    pidfd: Option<OwnedFd>,
    outputs: [Output; 2],
    /// The writing end of its standard input, or its terminal.
    input: Option<OwnedFd>,
    /// Somebody has held that.
    typed: bool,
    clients: Clients,
    /// What its process says of itself.
    pub told: Told,
    log: Log,
    /// Requests that wait for its end.
    waiting: Vec<u64>,
    kill_at: Option<Instant>,
}

impl Container {
    /// Before it runs; `pipes` are the reading ends of its standard output and error, `input` the writing end of its standard input.
    /// For a terminal there is none of them yet; see [`terminal`](Self::terminal).
    ///
    /// # Errors
    /// Its log cannot be opened.
    pub fn new(spec: ContainerSpec, pipes: [Option<OwnedFd>; 2], input: Option<OwnedFd>) -> io::Result<Self> {
        let file = log::open(&spec.log_path)?;
        let size = file.metadata()?.len();
        let outputs = pipes.map(|pipe| Output { pipe: pipe.map(File::from), lines: Lines::default() });
        let log = Log { file: Some(file), size, torn: false };
        let (clients, told) = (Clients::default(), Told::default());
        Ok(Self {
            spec,
            state: State::Created,
            pid: None,
            pidfd: None,
            outputs,
            input,
            typed: false,
            clients,
            told,
            log,
            waiting: Vec::new(),
            kill_at: None,
        })
    }

    /// Its streams are that terminal.
    ///
    /// # Errors
    /// There are no descriptors left.
    pub fn terminal(&mut self, terminal: OwnedFd) -> io::Result<()> {
        rustix::io::ioctl_fionbio(&terminal, true)?;
        self.input = Some(terminal.try_clone()?);
        if let Some(output) = self.outputs.first_mut() {
            output.pipe = Some(terminal.into());
        }
        Ok(())
    }

    /// It runs, or has ended and was not waited for yet.
    pub fn started(&mut self, pid: Pid) {
        self.pid = Some(pid);
        let pid = rustix::process::Pid::from_raw(pid.as_raw());
        self.pidfd = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        self.state = State::Running { started: SystemTime::now() };
    }

    /// It is over; the requests that waited for that.
    pub fn ended(&mut self, code: i32, reason: &str) -> Vec<u64> {
        let started = if let State::Running { started } = self.state { Some(started) } else { None };
        let (mut reason, mut message) = (reason.to_owned(), words::of(&self.spec.termination, &self.spec.log_path, code));
        // Its own word counts but for what the kernel knows better; what it left to be read goes before what its host says.
        if let Some((said, why)) = self.told.end().filter(|_| reason != "OOMKilled") {
            reason = said;
            if message.is_empty() {
                message = why;
            }
        }
        self.state = State::Exited { code, reason, message, started, finished: SystemTime::now() };
        (self.pid, self.kill_at, self.log.file) = (None, None, None);
        (self.pidfd, self.input) = (None, None);
        std::mem::take(&mut self.waiting)
    }

    /// What to tell of it.
    pub fn happened(&self) -> Happened {
        Happened::State { container: self.spec.id(), state: self.state.clone() }
    }

    /// Reads once; whether there may be more.
    fn read(&mut self, which: usize, buffer: &mut [u8]) -> bool {
        if which == TOLD {
            return self.told.read(buffer);
        }
        let Some(output) = self.outputs.get_mut(which) else { return false };
        let Some(pipe) = &mut output.pipe else { return false };
        let stream = if which == 0 { Stream::Out } else { Stream::Err };
        let (spec, log) = (&self.spec, &mut self.log);
        match pipe.read(buffer) {
            Ok(0) => {}
            Ok(count) => {
                let bytes = buffer.get(..count).unwrap_or_default();
                output.lines.push(bytes, |whole, text| log.write(spec, stream, whole, text));
                self.clients.write(which, bytes);
                return true;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
            Err(_) => {}
        }
        output.pipe = None;
        output.lines.finish(|rest| log.write(spec, stream, false, rest));
        self.clients.end(which);
        false
    }

    /// The last of its output, when it has ended.
    pub fn drain(&mut self, buffer: &mut [u8]) {
        while self.told.read(buffer) {}
        for which in 0..2 {
            for _ in 0..LAST {
                if !self.read(which, buffer) {
                    break;
                }
            }
            if let Some(output) = self.outputs.get_mut(which) {
                output.pipe = None;
                let stream = if which == 0 { Stream::Out } else { Stream::Err };
                output.lines.finish(|rest| self.log.write(&self.spec, stream, false, rest));
            }
            self.clients.end(which);
        }
    }
}

/// All of them, ended ones included until they are removed; and the names of those for whose programs the pod has room.
#[derive(Default)]
pub struct Containers(Vec<Container>, BTreeSet<String>);

impl Containers {
    fn find(&mut self, id: &str) -> Option<&mut Container> {
        self.0.iter_mut().find(|container| container.spec.id() == id)
    }

    /// Takes one that runs.
    pub fn add(&mut self, container: Container) {
        self.0.push(container);
    }

    /// What to tell of one, if it is known.
    pub fn happened(&self, id: &str) -> Option<Happened> {
        self.0.iter().find(|container| container.spec.id() == id).map(Container::happened)
    }

    /// Whose process that is.
    pub fn by_pid(&mut self, pid: Pid) -> Option<&mut Container> {
        self.0.iter_mut().find(|container| container.pid == Some(pid))
    }

    /// Does one still run?
    pub fn alive(&self) -> bool {
        self.0.iter().any(|container| container.pid.is_some())
    }

    /// Every pipe that is open and may be read, by container and number.
    pub fn streams(&self) -> Vec<(String, usize)> {
        let open = |container: &Container| {
            let readable = |which: &usize| container.outputs[*which].pipe.is_some() && !container.clients.full(*which);
            let told = container.told.pipe().map(|_| TOLD);
            (0..2).filter(readable).chain(told).map(|which| (container.spec.id(), which)).collect::<Vec<_>>()
        };
        self.0.iter().flat_map(open).collect()
    }

    /// Pipes to those who are attached, and whether they are waited for.
    pub fn clients(&self) -> impl Iterator<Item = (BorrowedFd<'_>, bool)> {
        self.0.iter().flat_map(|container| container.clients.watched())
    }

    /// Writes what those who are attached take.
    pub fn flush(&mut self) {
        for container in &mut self.0 {
            container.clients.flush();
            // What has ended was waited for by those only who had not read all of it.
            for which in 0..2 {
                if container.outputs[which].pipe.is_none() {
                    container.clients.end(which);
                }
            }
        }
    }

    /// Attaches a client: pipes for output and error. Gives its standard input or terminal, if there is one and it is wanted.
    ///
    /// # Errors
    /// It does not run, or has too many clients.
    pub fn attach(&mut self, id: &str, stdin: bool, pipes: [Option<OwnedFd>; 2]) -> io::Result<Option<OwnedFd>> {
        let container = self.find(id).filter(|container| container.pid.is_some());
        let container = container.ok_or_else(|| io::Error::other(format!("container {id} does not run")))?;
        if pipes.iter().any(Option::is_some) {
            container.clients.add(pipes)?;
        }
        let input = container.input.as_ref().filter(|_| stdin).map(OwnedFd::try_clone).transpose()?;
        container.typed |= input.is_some();
        Ok(input)
    }

    /// Ends its standard input. A terminal has no end.
    pub fn close_input(&mut self, id: &str) {
        if let Some(container) = self.find(id).filter(|container| !container.spec.tty) {
            container.input = None;
        }
    }

    /// The agent is gone, and with it who was attached. Input that ends with its first attachment has ended.
    pub fn abandoned(&mut self) {
        for container in &mut self.0 {
            container.clients.clear();
            if container.typed && container.spec.stdin_once && !container.spec.tty {
                container.input = None;
            }
        }
    }

    /// A container that runs, and its first process.
    pub fn running(&self, id: &str) -> Option<(&ContainerSpec, &OwnedFd, Pid)> {
        let container = self.0.iter().find(|container| container.spec.id() == id)?;
        Some((&container.spec, container.pidfd.as_ref()?, container.pid?))
    }

    /// The PID namespace of a container that runs.
    ///
    /// # Errors
    /// It does not, or is a component, whose host has no namespace of its own for them.
    pub fn processes(&self, id: &str) -> io::Result<OwnedFd> {
        let (spec, _, pid) =
            self.running(id).ok_or_else(|| io::Error::other(format!("container {id}, whose processes are to be seen, does not run")))?;
        if matches!(spec.image.content, ImageContent::Wasm { .. }) {
            return Err(io::Error::other(format!("container {id}, whose processes are to be seen, is a WebAssembly component, which has none")));
        }
        // Not waited for yet, so that the number is its own.
        Ok(File::open(format!("/proc/{pid}/ns/pid"))?.into())
    }

    /// A pipe to wait for.
    pub fn stream(&self, id: &str, which: usize) -> Option<BorrowedFd<'_>> {
        let container = self.0.iter().find(|container| container.spec.id() == id)?;
        if which == TOLD {
            return container.told.pipe();
        }
        container.outputs.get(which)?.pipe.as_ref().map(AsFd::as_fd)
    }

    /// Reads what a container wrote, once, so that one that writes without end does not keep the others waiting.
    pub fn read(&mut self, id: &str, which: usize, buffer: &mut [u8]) {
        if let Some(container) = self.find(id) {
            container.read(which, buffer);
        }
    }

    /// What processes of containers want to have passed on.
    pub fn notices(&mut self) -> Vec<Happened> {
        let of = |container: &mut Container| {
            let id = container.spec.id();
            let notice = move |(warning, reason, message)| Happened::Notice { container: id.clone(), warning, reason, message };
            container.told.notices().into_iter().map(notice).collect::<Vec<_>>()
        };
        self.0.iter_mut().flat_map(of).collect()
    }

    /// Asks one to stop, for request `request`. Whether it is over already.
    pub fn stop(&mut self, id: &str, request: u64, grace: Duration) -> bool {
        let Some(container) = self.find(id) else { return true };
        let Some(pid) = container.pid else { return true };
        container.waiting.push(request);
        let deadline = Instant::now() + grace;
        // A later request may only shorten what an earlier one gave. Without any grace it is killed at once.
        if container.kill_at.is_none() && !grace.is_zero() {
            signal(pid, stop_signal(&container.spec.image.config.stop_signal));
        }
        container.kill_at = Some(container.kill_at.map_or(deadline, |before| before.min(deadline)));
        false
    }

    /// Kills those whose grace is over.
    pub fn enforce(&mut self, trees: &Trees, sandbox: Option<&SandboxSpec>) {
        for container in &mut self.0 {
            if let (Some(pid), Some(due), Some(sandbox)) = (container.pid, container.kill_at, sandbox)
                && due <= Instant::now()
            {
                _ = kill(pid, Signal::SIGKILL);
                trees.kill(&config::group(&container.spec, sandbox));
                // Once more if that did not do it: a process that could not be seen yet.
                container.kill_at = Some(Instant::now() + Duration::from_secs(1));
            }
        }
    }

    /// When [`enforce`](Self::enforce) has something to do.
    pub fn due(&self) -> Option<Instant> {
        self.0.iter().flat_map(|container| container.kill_at.into_iter().chain(container.clients.due())).min()
    }

    /// Forgets one; whether it could, since it does not run.
    pub fn remove(&mut self, id: &str) -> bool {
        if self.find(id).is_some_and(|container| container.pid.is_some()) {
            return false;
        }
        self.0.retain(|container| container.spec.id() != id);
        true
    }

    /// Widens the pod's limit of memory, if it has one, by what a program of ours takes itself that was not here before. (The limit may be another one by now than the pod began with.)
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn make_room(&mut self, trees: &Trees, sandbox: &SandboxSpec, next: &ContainerSpec) -> io::Result<()> {
        if !self.1.contains(&next.name) {
            trees.widen(&cgroup::of_pod(&sandbox.pod.uid, sandbox.linux.qos), OWN_MEMORY)?;
            self.1.insert(next.name.clone());
        }
        Ok(())
    }

    /// For the agent and the disk.
    pub fn list(&self) -> Vec<(ContainerSpec, State, Option<i32>)> {
        self.0.iter().map(|container| (container.spec.clone(), container.state.clone(), container.pid.map(Pid::as_raw))).collect()
    }
}

/// The first of the signals that have a meaning only among those who agree on one; glibc keeps the two before it to itself.
const FIRST_OF_OWN: i32 = 34;
const LAST_OF_OWN: i32 = 64;

/// What asks a container to end: its image's `StopSignal` (a name with or without SIG, `RTMIN+n`, `RTMAX-n`, or a number), else SIGTERM.
fn stop_signal(name: &str) -> i32 {
    let name = name.to_ascii_uppercase();
    let plain = name.strip_prefix("SIG").unwrap_or(&name);
    let own = || {
        let offset = |rest: &str, sign: char| if rest.is_empty() { Some(0) } else { rest.strip_prefix(sign)?.parse::<i32>().ok() };
        let from_first = plain.strip_prefix("RTMIN").and_then(|rest| Some(FIRST_OF_OWN + offset(rest, '+')?));
        from_first.or_else(|| plain.strip_prefix("RTMAX").and_then(|rest| Some(LAST_OF_OWN - offset(rest, '-')?)))
    };
    let known = || format!("SIG{plain}").parse::<Signal>().ok().map(|signal| signal as i32);
    let number = plain.parse::<i32>().ok().or_else(own).or_else(known);
    number.filter(|number| (1..=LAST_OF_OWN).contains(number)).unwrap_or(Signal::SIGTERM as i32)
}

/// Sends any signal, those of no name included, to a child that has not been waited for.
fn signal(pid: Pid, number: i32) {
    // SAFETY: no memory is involved.
    _ = unsafe { libc::kill(pid.as_raw(), number) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_kubernetes_own() {
        assert_eq!(
            [reason(0, 0), reason(0, 1), reason(137, 1), reason(137, 0), reason(1, 0)],
            ["Completed", "Completed", "OOMKilled", "Error", "Error"]
        );
    }
    #[test]
    fn signals_have_names_and_numbers() {
        let numbers = ["", "SIGQUIT", "quit", "3", "SIGRTMIN+3", "RTMIN", "RTMAX-1", "37", "0", "-5", "99", "RTMIN+", "nonsense"].map(stop_signal);
        assert_eq!(numbers, [15, 3, 3, 3, 37, 34, 63, 37, 15, 15, 15, 15, 15]);
    }
}
