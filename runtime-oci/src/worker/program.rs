//! A container whose process is a hidden subcommand of this binary ([`coracle_runtime::program`]): the fork of a shim that starts it and goes.
//!
//! The program is the file that this process is, whatever became of the one on disk. What else it is (who, and confined how) is its own business: nothing of it comes from an image.
#![allow(unsafe_code, reason = "fork, descriptors by number")]

use super::{Order, Outcome, Streams, create_error, reset};
use crate::{config, shim::sandbox::unshare};
use coracle_runtime::program::{GIVEN, ORDER, WORDS, Word, Words, of_group};
use nix::{
    sys::signal::{Signal, kill},
    sys::wait::waitpid,
    unistd::{ForkResult, Pid, execve, fork, setsid},
};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};
use std::{
    ffi::CString,
    fs::{self, File},
    io::{self, Read},
    os::fd::{AsFd, AsRawFd, OwnedFd},
};

/// What is started, besides what any worker is told.
pub struct Hosted<'a> {
    /// The command line.
    pub subcommand: &'a str,
    /// What it is given: the order, and the rest.
    pub descriptors: Vec<OwnedFd>,
    /// Both ends of the pipe for its words.
    pub words: (&'a OwnedFd, OwnedFd),
}

/// Starts it. In a process with one thread that ends afterwards.
pub fn run(order: Order<'_>, hosted: Hosted<'_>) -> Outcome {
    match start(order, hosted) {
        Ok(outcome) => outcome,
        Err(error) => create_error(error),
    }
}

fn start(order: Order<'_>, hosted: Hosted<'_>) -> io::Result<Outcome> {
    let Order { spec, sandbox, processes, streams, trees, .. } = order;
    let Hosted { subcommand, descriptors, words: (hear, say) } = hosted;
    reset();
    let group = config::group(spec, sandbox);
    trees.make(&group, &of_group(spec.resources.clone()), None)?;
    trees.enter(&group)?;
    // Lower than our own is refused without CAP_SYS_RESOURCE: it stays what it is then.
    _ = fs::write("/proc/self/oom_score_adj", spec.resources.oom_score_adj.to_string());
    match processes {
        Some(held) => move_into_link_name_space(held.as_fd(), Some(LinkNameSpaceType::ProcessID))?,
        // What it forks next is the first process there.
        None => unshare(UnshareFlags::NEWPID)?,
    }
    let Streams::Pipes(_, [stdout, stderr]) = streams else { return Err(io::Error::other("a component has no terminal")) };
    let mut descriptors = descriptors.into_iter();
    let first = descriptors.next().ok_or_else(|| io::Error::other("there are no descriptors left for the container"))?;
    let mut wanted = vec![(ORDER, first), (1, stdout), (2, stderr), (WORDS, say)];
    wanted.extend((GIVEN..).zip(descriptors));
    let line = CString::new(subcommand)?;
    // SAFETY: this process has one thread.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => {
            drop(wanted);
            listen(child, hear)
        }
        ForkResult::Child => {
            let why = match setsid().map_err(io::Error::from).and_then(|_| place(wanted)) {
                Ok(()) => io::Error::from(execve(c"/proc/self/exe", &[c"coracle", &line], &[] as &[&std::ffi::CStr]).unwrap_err()),
                Err(error) => error,
            };
            eprintln!("coracle shim: become {subcommand}: {why}");
            // SAFETY: ends the fork without running what the shim registered.
            unsafe { libc::_exit(127) }
        }
    }
}

/// Gives descriptors their numbers; they stay open over the program's start.
fn place(wanted: Vec<(i32, OwnedFd)>) -> io::Result<()> {
    let beyond = i32::try_from(wanted.len()).unwrap_or(i32::MAX).saturating_add(GIVEN);
    // First out of each other's way.
    let moved: Vec<(i32, OwnedFd)> =
        wanted.iter().map(|(number, fd)| Ok((*number, rustix::io::fcntl_dupfd_cloexec(fd, beyond)?))).collect::<io::Result<_>>()?;
    for (number, fd) in &moved {
        // SAFETY: integers only. What was open under that number belonged to this fork, which only executes a program from here on.
        if unsafe { libc::dup2(fd.as_raw_fd(), *number) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    std::mem::forget(wanted);
    Ok(())
}

/// Waits for its first word.
fn listen(child: Pid, hear: &OwnedFd) -> io::Result<Outcome> {
    let (mut hear, mut words) = (File::from(hear.try_clone()?), Words::default());
    let mut byte = [0];
    // One byte at a time: what comes after the first line is for the shim.
    while hear.read(&mut byte)? > 0 {
        match words.push(&byte).pop() {
            Some(Word::Started) => return Ok(Outcome::Started(child.as_raw())),
            Some(Word::Failed(refusal)) => {
                _ = waitpid(child, None);
                return Ok(Outcome::Failed(refusal.reason, refusal.message));
            }
            _ => {}
        }
    }
    _ = kill(child, Signal::SIGKILL);
    _ = waitpid(child, None);
    Ok(Outcome::Failed("RunContainerError".into(), "the container's host process ended before it ran; see shim.log of the pod".into()))
}
