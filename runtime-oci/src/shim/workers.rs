//! Workers: forks of the shim that start one container, or one program in a container, and go.

use super::{Shim, containers::Container, execs, pause::Pause, refusal};
use crate::{
    config,
    wire::{Answer, Answered, Exec},
    worker::{self, Outcome, exec, program},
};
use coracle_runtime::ContainerSpec;
use nix::{
    sys::{
        signal::{Signal, kill},
        socket::{ControlMessageOwned, MsgFlags, recvmsg},
    },
    unistd::{ForkResult, Pid, fork, getpid, pipe2},
};
use rustix::fs::OFlags;
use std::{
    fs::{self, File},
    io::{self, IoSliceMut, Read},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::net::UnixListener,
    },
    path::Path,
    time::{Duration, Instant},
};

/// A worker that is not done by then is killed.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a worker does.
enum Job {
    /// Makes a container; the socket that a terminal comes to; the pipe that words of a program come from.
    Container(Box<Container>, Option<UnixListener>, Option<OwnedFd>),
    /// Starts a program in the container of that name, unless nobody wants it any more.
    Exec { session: Option<u64>, container: String, timeout: Option<Duration> },
}

/// A worker under way.
pub struct Worker {
    pid: Pid,
    result: File,
    said: Vec<u8>,
    /// When it is too late.
    pub due: Instant,
    /// The request it answers.
    id: u64,
    job: Job,
}

impl Worker {
    /// Readable when it has said something.
    pub fn result(&self) -> BorrowedFd<'_> {
        self.result.as_fd()
    }

    /// Kills it.
    pub fn kill(&self) {
        _ = kill(self.pid, Signal::SIGKILL);
    }

    /// Nobody wants the program of that session, or of any: it never runs, or is killed.
    pub fn abandon(&mut self, whose: Option<u64>) {
        if let Job::Exec { session, .. } = &mut self.job
            && (whose.is_none() || *session == whose)
        {
            *session = None;
            self.kill();
        }
    }

    fn makes(&self, name: &str) -> bool {
        matches!(&self.job, Job::Container(container, ..) if container.spec.id() == name)
    }
}

fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(pipe2(nix::fcntl::OFlag::O_CLOEXEC)?)
}

impl Shim {
    /// Starts a container, for request `id`: of its image, or of a program of ours with its descriptors.
    pub(super) fn start(&mut self, id: u64, spec: ContainerSpec, program: Option<(String, Vec<OwnedFd>)>) {
        let name = spec.id();
        if let Some(happened) = self.containers.happened(&name) {
            // An agent asked for it that was killed meanwhile, and the one after it may not have heard what became of it.
            self.tell(&Answered::Event(happened));
            self.answer(id, Ok(Answer::Done));
        } else if let Some(worker) = self.workers.iter_mut().find(|worker| worker.makes(&name)) {
            // As before; the answer is this agent's.
            worker.id = id;
        } else if let Err(error) = self.work(id, spec, program) {
            self.answer(id, Err(refusal("RunContainerError", error.to_string())));
        }
    }

    fn work(&mut self, id: u64, spec: ContainerSpec, program: Option<(String, Vec<OwnedFd>)>) -> io::Result<()> {
        self.share_processes()?;
        let Some(sandbox) = self.sandbox.as_ref().filter(|_| self.removing.is_none()) else {
            return Err(io::Error::other(format!("container {} has no sandbox; run it first", spec.id())));
        };
        let (result, said) = pipe()?;
        rustix::fs::fcntl_setfl(&result, OFlags::NONBLOCK)?;
        let (container, listener, streams) = streams(&self.dir, spec)?;
        let target = container.spec.joins.as_ref().map(|id| self.containers.processes(id)).transpose()?;
        let processes = sandbox.processes.as_ref().map(Pause::namespace).or(target.as_ref());
        let hosted = match program {
            Some((subcommand, descriptors)) => {
                self.containers.make_room(&self.trees, &sandbox.spec, &container.spec)?;
                Some((subcommand, descriptors, pipe()?))
            }
            None => None,
        };
        let mut keep = vec![said.as_fd(), sandbox.mounts.as_fd()];
        keep.extend(processes.into_iter().chain(&sandbox.users).map(AsFd::as_fd));
        if let worker::Streams::Pipes(stdin, outputs) = &streams {
            keep.extend(stdin.iter().chain(outputs).map(AsFd::as_fd));
        }
        if let Some((_, descriptors, (hear, say))) = &hosted {
            keep.extend(descriptors.iter().chain([hear, say]).map(AsFd::as_fd));
        }
        let shim = getpid();
        // SAFETY: this process has one thread, so the child may do anything.
        match unsafe { fork() }? {
            ForkResult::Child => {
                let detached = worker::detach(shim, &keep);
                let order = worker::Order {
                    spec: &container.spec,
                    sandbox: &sandbox.spec,
                    dir: &self.dir,
                    mounts: &sandbox.mounts,
                    processes,
                    users: sandbox.users.as_ref(),
                    trees: &self.trees,
                    streams,
                };
                over(said, detached, |_| match hosted {
                    Some((subcommand, descriptors, (hear, say))) => {
                        let hosted = program::Hosted { subcommand: &subcommand, descriptors, words: (&hear, say) };
                        program::run(order, hosted)
                    }
                    None => worker::run(order),
                })
            }
            ForkResult::Parent { child } => {
                let words = hosted.map(|(_, _, (hear, _))| hear);
                self.working(child, result, id, Job::Container(Box::new(container), listener, words));
                Ok(())
            }
        }
    }

    fn working(&mut self, pid: Pid, result: OwnedFd, id: u64, job: Job) {
        self.workers.push(Worker { pid, result: File::from(result), said: Vec::new(), due: Instant::now() + PATIENCE, id, job });
    }

    /// Starts a program in a container, for request `id`.
    pub(super) fn exec(&mut self, id: u64, exec: Exec, fds: Vec<OwnedFd>) {
        if let Err(error) = self.enter(id, exec, fds) {
            self.answer(id, Err(refusal("ExecError", error.to_string())));
        }
    }

    fn enter(&mut self, id: u64, exec: Exec, fds: Vec<OwnedFd>) -> io::Result<()> {
        let Exec { session, container, command, streams, tty, timeout } = exec;
        let wanted = if tty { 1 } else { streams.iter().filter(|held| **held).count() };
        if fds.len() != wanted {
            return Err(io::Error::other("there are no descriptors left for the program's streams"));
        }
        let starting = self.workers.iter().filter(|worker| matches!(worker.job, Job::Exec { .. })).count();
        if self.execs.count() + starting >= execs::MOST {
            return Err(io::Error::other(format!("{} programs are being run in containers of this pod already", execs::MOST)));
        }
        let running = self.sandbox.as_ref().filter(|_| self.removing.is_none()).zip(self.containers.running(&container));
        let Some((sandbox, (spec, init, pid))) = running else { return Err(io::Error::other(format!("container {container} does not run"))) };
        let mut fds = fds.into_iter();
        let streams = match tty {
            true => exec::Streams::Terminal(fds.next().ok_or_else(|| io::Error::other("a terminal without a socket"))?),
            false => exec::Streams::Pipes(streams.map(|held| if held { fds.next() } else { None })),
        };
        let (result, said) = pipe()?;
        rustix::fs::fcntl_setfl(&result, OFlags::NONBLOCK)?;
        let keep = [&[said.as_fd(), init.as_fd()], streams.fds().as_slice()].concat();
        let shim = getpid();
        // SAFETY: this process has one thread, so the child may do anything.
        match unsafe { fork() }? {
            ForkResult::Child => {
                let detached = worker::detach(shim, &keep);
                let (bundle, group) = (worker::bundle(&self.dir, spec), config::group(spec, &sandbox.spec));
                let order = exec::Order {
                    init,
                    pid: pid.as_raw(),
                    users: sandbox.users.is_some(),
                    bundle: &bundle,
                    trees: &self.trees,
                    group: &group,
                    oom_score_adj: spec.resources.oom_score_adj,
                    command: &command,
                    streams,
                };
                over(said, detached, |said| exec::run(order, said))
            }
            ForkResult::Parent { child } => {
                let timeout = timeout.map(Duration::from_millis);
                self.working(child, result, id, Job::Exec { session: Some(session), container, timeout });
                Ok(())
            }
        }
    }

    /// Workers that have said something, or were too slow.
    pub(super) fn finish_workers(&mut self) {
        let mut at = 0;
        while let Some(worker) = self.workers.get_mut(at) {
            let late = worker.due <= Instant::now();
            if late {
                // What it has forked may hang as well, and hold the pipe; what is in a container's group goes with it.
                worker.kill();
            }
            let ended = match worker.result.read_to_end(&mut worker.said) {
                Ok(_) => true,
                Err(error) => late || error.kind() != io::ErrorKind::WouldBlock,
            };
            if ended {
                let worker = self.workers.swap_remove(at);
                self.made(worker);
            } else {
                at += 1;
            }
        }
    }

    fn made(&mut self, worker: Worker) {
        let Worker { said, id, job, .. } = worker;
        let outcome = serde_json::Deserializer::from_slice(&said).into_iter::<Outcome>().map_while(Result::ok).last();
        match job {
            Job::Container(mut container, listener, words) => {
                let hung = "the process that makes the container ended or hung; see shim.log of the pod";
                let outcome = outcome.unwrap_or_else(|| Outcome::Failed("RunContainerError".into(), hung.into()));
                if let Some(Err(error)) = words.map(|words| container.told.listen(words)) {
                    eprintln!("coracle shim: hear what {} says: {error}", container.spec.id());
                }
                self.made_container(id, *container, listener.as_ref(), outcome);
            }
            Job::Exec { session, container, timeout } => {
                let hung = format!("the process that enters container {container} ended or hung; see shim.log of the pod");
                match outcome {
                    Some(Outcome::Started(pid)) => {
                        self.execs.add(session, Pid::from_raw(pid), timeout);
                        self.answer(id, Ok(Answer::Done));
                    }
                    Some(Outcome::Failed(reason, message)) => self.answer(id, Err(refusal(&reason, message))),
                    // The worker is dead, and what it has forked must not become a program that nobody knows of.
                    Some(Outcome::Forked(pid)) => {
                        self.execs.add(None, Pid::from_raw(pid), None);
                        self.answer(id, Err(refusal("ExecError", hung)));
                    }
                    None => self.answer(id, Err(refusal("ExecError", hung))),
                }
            }
        }
    }

    fn made_container(&mut self, id: u64, mut container: Container, listener: Option<&UnixListener>, outcome: Outcome) {
        let terminal = match (&outcome, listener) {
            (Outcome::Started(_), Some(listener)) => terminal(listener).and_then(|terminal| container.terminal(terminal)),
            _ => Ok(()),
        };
        let outcome = match (outcome, terminal) {
            (Outcome::Started(_), Err(error)) => Outcome::Failed("RunContainerError".into(), format!("the container's terminal: {error}")),
            (outcome, _) => outcome,
        };
        match outcome {
            Outcome::Started(pid) | Outcome::Forked(pid) => {
                container.started(Pid::from_raw(pid));
                if let Some(sandbox) = &self.sandbox {
                    self.trees.die_together(&config::group(&container.spec, &sandbox.spec));
                }
                self.tell(&Answered::Event(container.happened()));
                self.containers.add(container);
                self.answer(id, Ok(Answer::Done));
            }
            Outcome::Failed(reason, message) => {
                // Its group may hold what libcontainer left when it was killed.
                if let Some(sandbox) = &self.sandbox {
                    _ = self.trees.end(&config::group(&container.spec, &sandbox.spec));
                }
                self.answer(id, Err(refusal(&reason, message)));
            }
        }
        self.changed = true;
    }
}

/// The last of a worker: says what came of it.
fn over(said: OwnedFd, detached: io::Result<()>, run: impl FnOnce(&mut File) -> Outcome) -> ! {
    let mut said = File::from(said);
    let outcome = match detached {
        Ok(()) => run(&mut said),
        Err(error) => Outcome::Failed("RunContainerError".into(), error.to_string()),
    };
    _ = worker::say(&mut said, &outcome);
    // The shim need not wait until this process's memory is taken apart.
    drop(said);
    // SAFETY: ends the fork without running what the shim registered.
    unsafe { libc::_exit(0) }
}

/// A container's streams: the shim's ends, in the container that is to be, and its own.
fn streams(dir: &Path, spec: ContainerSpec) -> io::Result<(Container, Option<UnixListener>, worker::Streams)> {
    if spec.tty {
        let bundle = worker::bundle(dir, &spec);
        fs::create_dir_all(&bundle)?;
        let path = bundle.join("console.sock");
        _ = fs::remove_file(&path);
        let held = File::open(&bundle)?;
        // A socket's address takes 107 bytes, however long the directory's name is.
        let listener = UnixListener::bind(format!("/proc/self/fd/{}/console.sock", held.as_raw_fd()))?;
        listener.set_nonblocking(true)?;
        return Ok((Container::new(spec, [None, None], None)?, Some(listener), worker::Streams::Terminal(path)));
    }
    let ((out, stdout), (err, stderr)) = (pipe()?, pipe()?);
    for fd in [&out, &err] {
        rustix::fs::fcntl_setfl(fd, OFlags::NONBLOCK)?;
    }
    let (stdin, input) = match spec.stdin {
        true => pipe().map(|(stdin, input)| (Some(stdin), Some(input)))?,
        false => (None, None),
    };
    Ok((Container::new(spec, [Some(out), Some(err)], input)?, None, worker::Streams::Pipes(stdin, [stdout, stderr])))
}

/// The terminal that a container's first process has sent.
fn terminal(listener: &UnixListener) -> io::Result<OwnedFd> {
    let (stream, _) = listener.accept()?;
    // What was sent is there, since its sender has gone on since.
    stream.set_nonblocking(true)?;
    let mut space = nix::cmsg_space!([i32; 1]);
    let mut byte = [0; 64];
    let mut bytes = [IoSliceMut::new(&mut byte)];
    let message = recvmsg::<()>(stream.as_raw_fd(), &mut bytes, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(fds) = control
            && let Some(fd) = fds.first()
        {
            // SAFETY: the kernel has just made it for us; there was room for one only.
            return Ok(unsafe { OwnedFd::from_raw_fd(*fd) });
        }
    }
    Err(io::Error::other("none was sent"))
}
