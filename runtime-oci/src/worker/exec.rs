//! A program in a container that runs already (`exec`): the fork of a shim that joins the container and becomes the program.
//!
//! It is put together from libcontainer's parts and not by its tenant builder, which leaves the seccomp filter out (0.7), looks the container up by a process id
//! that may be another's by then, and writes files for each call. Everything about the process is what the container's first process was given (`config.json`):
//! user, groups, capabilities, filter, `no_new_privs`, environment, working directory.
//!
//! The order is runc's: descriptors are marked for closing before anything of the container is looked at but its namespaces (CVE-2024-21626), the process cannot be looked into
//! (it is not dumpable) until the program is executed (CVE-2019-5736), and the working directory is entered with the user's rights where root's do not suffice.
#![allow(unsafe_code, reason = "fork and _exit")]

use super::{Outcome, payload};
use crate::cgroup::Trees;
use libcontainer::{
    capabilities,
    oci_spec::runtime::{Process, Spec},
    seccomp,
    syscall::{Syscall, syscall::create_syscall},
    tty,
};
use nix::{
    sys::prctl,
    unistd::{ForkResult, Gid, Uid, chdir, dup2_stderr, dup2_stdin, dup2_stdout, fork, getcwd, pipe2, setgroups, setresgid, setresuid, setsid},
};
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};
use std::{
    fs::File,
    io::{Read, Write},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::Path,
};

/// What a program in a container is made of.
pub struct Order<'a> {
    /// The container's first process.
    pub init: &'a OwnedFd,
    /// Its number, as this process sees it.
    pub pid: i32,
    /// Its users are its own.
    pub users: bool,
    /// Where the container's `config.json` is.
    pub bundle: &'a Path,
    /// The machine's control groups.
    pub trees: &'a Trees,
    /// The container's.
    pub group: &'a Path,
    /// The kernel's out-of-memory killer's score.
    pub oom_score_adj: i32,
    /// Program and arguments.
    pub command: &'a [String],
    /// Its streams.
    pub streams: Streams,
}

/// What a program's standard streams are.
pub enum Streams {
    /// Input, output, error; /dev/null where there is none.
    Pipes([Option<OwnedFd>; 3]),
    /// A terminal, whose other end is sent to this socket.
    Terminal(OwnedFd),
}

impl Streams {
    /// All that they are made of.
    pub fn fds(&self) -> Vec<BorrowedFd<'_>> {
        match self {
            Self::Terminal(socket) => vec![socket.as_fd()],
            Self::Pipes(pipes) => pipes.iter().flatten().map(AsFd::as_fd).collect(),
        }
    }
}

/// Starts it. In a process with one thread that ends afterwards. What is to become the program is named to `said` before it goes on, so that the shim can end it whatever becomes
/// of this process; and it ends by itself when this process was killed before that.
pub fn run(order: Order<'_>, said: &mut File) -> Outcome {
    match start(order, said) {
        Ok(pid) => Outcome::Started(pid),
        Err(why) => Outcome::Failed("ExecError".into(), format!("unable to start container process: {why}")),
    }
}

fn said(what: &str) -> impl Fn(&dyn std::fmt::Display) -> String + '_ {
    move |error| format!("{what}: {error}")
}

fn start(order: Order<'_>, said_to: &mut File) -> Result<i32, String> {
    super::reset();
    let spec = Spec::load(order.bundle.join("config.json")).map_err(|error| said("read the container's configuration")(&error))?;
    let null = File::options().read(true).write(true).open("/dev/null").map_err(|error| said("/dev/null")(&error))?;
    let pipe = || pipe2(nix::fcntl::OFlag::O_CLOEXEC).map_err(|error| said("pipe")(&error));
    let ((read, write), (leave, known)) = (pipe()?, pipe()?);
    _ = std::fs::write("/proc/self/oom_score_adj", order.oom_score_adj.to_string());
    order.trees.join(order.group, order.pid).map_err(|error| said("enter the container's control group")(&error))?;
    // All at once, by a descriptor that cannot come to mean another process.
    let users = if order.users { ThreadNameSpaceType::USER } else { ThreadNameSpaceType::empty() };
    let namespaces = users
        | ThreadNameSpaceType::MOUNT
        | ThreadNameSpaceType::PROCESS_ID
        | ThreadNameSpaceType::NETWORK
        | ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION
        | ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME
        | ThreadNameSpaceType::CONTROL_GROUP;
    move_into_thread_name_spaces(order.init.as_fd(), namespaces).map_err(|error| said("join the container, which has ended or is ending")(&error))?;
    // The PID namespace takes in children only.
    // SAFETY: this process has one thread.
    match unsafe { fork() }.map_err(|error| said("fork")(&error))? {
        ForkResult::Parent { child } => {
            drop((write, leave));
            super::say(said_to, &Outcome::Forked(child.as_raw())).map_err(|error| said("tell the shim")(&error))?;
            File::from(known).write_all(&[1]).map_err(|error| said("let the program go on")(&error))?;
            let mut why = String::new();
            // Ends when the program is executed, since the pipe closes then.
            _ = File::from(read).take(super::MESSAGE).read_to_string(&mut why);
            if why.is_empty() { Ok(child.as_raw()) } else { Err(why) }
        }
        ForkResult::Child => {
            drop((read, known));
            // What the shim waits at is this process's parent's alone: its end is that one's.
            super::close_all_but(&[&[write.as_fd(), leave.as_fd(), null.as_fd()], order.streams.fds().as_slice()].concat());
            if matches!(File::from(leave).read(&mut [0]), Ok(1)) {
                let why = become_program(&spec, order.command, order.streams, &null, order.users);
                _ = File::from(write).write_all(why.as_bytes());
            }
            // SAFETY: ends the fork without running what the shim registered.
            unsafe { libc::_exit(127) }
        }
    }
}

/// Returns only when it failed.
fn become_program(spec: &Spec, command: &[String], streams: Streams, null: &File, users: bool) -> String {
    let terminal = matches!(streams, Streams::Terminal(_));
    match settle(spec, streams, null, users) {
        Ok(process) => payload::execute(command, &environment(&process, terminal)),
        Err(why) => why,
    }
}

/// The container's own variables; a terminal has a type.
fn environment(process: &Process, terminal: bool) -> Vec<String> {
    let mut list = process.env().clone().unwrap_or_default();
    if terminal && !list.iter().any(|variable| variable.starts_with("TERM=")) {
        list.push("TERM=xterm".into());
    }
    list
}

/// Becomes what the container's first process was when it was about to execute its program.
fn settle(spec: &Spec, streams: Streams, null: &File, users: bool) -> Result<Process, String> {
    let process = spec.process().clone().ok_or("the container's configuration has no process")?;
    let syscall = create_syscall();
    let syscall: &dyn Syscall = syscall.as_ref();
    setsid().map_err(|error| said("setsid")(&error))?;
    if users {
        // Until now it was nobody there.
        crate::shim::users::become_root().map_err(|error| said("become root of the container's users")(&error))?;
        prctl::set_dumpable(false).map_err(|error| said("hide")(&error))?;
    }
    match streams {
        Streams::Terminal(socket) => {
            // From the container's own devpts, checked to be one. The function closes the number.
            let number = socket.as_raw_fd();
            std::mem::forget(socket);
            tty::setup_console(syscall, number, false).map_err(|error| said("set up the terminal")(&error))?;
        }
        Streams::Pipes([stdin, stdout, stderr]) => {
            let or_null =
                |stream: Option<OwnedFd>| stream.map_or_else(|| null.try_clone().map(OwnedFd::from), Ok).map_err(|error| said("streams")(&error));
            let duplicated = dup2_stdin(or_null(stdin)?).and_then(|()| dup2_stdout(or_null(stdout).map_err(|_| nix::errno::Errno::EMFILE)?));
            duplicated
                .and_then(|()| dup2_stderr(or_null(stderr).map_err(|_| nix::errno::Errno::EMFILE)?))
                .map_err(|error| said("streams")(&error))?;
        }
    }
    syscall.close_range(0).map_err(|error| said("close what is the shim's")(&error))?;
    let nnp = process.no_new_privileges();
    if nnp == Some(true) {
        prctl::set_no_new_privs().map_err(|error| said("no_new_privs")(&error))?;
    }
    // As root first, who may go where the user may not; then as the user, who may go where root may not (a FUSE mount, a root-squashed export).
    let entered = chdir(process.cwd()).is_ok();
    let user = process.user();
    let groups: Vec<Gid> = user.additional_gids().iter().flatten().map(|gid| Gid::from_raw(*gid)).collect();
    setgroups(&groups).map_err(|error| said("set groups")(&error))?;
    // Capabilities are given up further down, when the filter is loaded.
    prctl::set_keepcaps(true).map_err(|error| said("keep capabilities")(&error))?;
    let (uid, gid) = (Uid::from_raw(user.uid()), Gid::from_raw(user.gid()));
    setresgid(gid, gid, gid).and_then(|()| setresuid(uid, uid, uid)).map_err(|error| said("set the user")(&error))?;
    prctl::set_keepcaps(false).map_err(|error| said("keep capabilities")(&error))?;
    capabilities::reset_effective(syscall).map_err(|error| said("capabilities")(&error))?;
    let filter = spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
    let load = || -> Result<(), String> {
        match filter.map(seccomp::initialize_seccomp).transpose().map_err(|error| said("load the filter of system calls")(&error))?.flatten() {
            // Nobody would answer the program's calls.
            Some(_) => Err("a filter that asks another process for its decisions is not supported".into()),
            None => Ok(()),
        }
    };
    // Without no_new_privs it takes a capability.
    if nnp.is_none() {
        load()?;
    }
    if let Some(list) = process.capabilities() {
        capabilities::drop_privileges(list, syscall).map_err(|error| said("capabilities")(&error))?;
    }
    if !entered {
        chdir(process.cwd()).map_err(|error| format!("chdir to cwd ({:?}): {}", process.cwd().display().to_string(), payload::word(error)))?;
    }
    // What is not below the container's root has no absolute path here.
    match getcwd() {
        Ok(path) if path.is_absolute() => {}
        _ => return Err("current working directory is outside of container mount namespace root".into()),
    }
    if nnp.is_some() {
        load()?;
    }
    Ok(process)
}
