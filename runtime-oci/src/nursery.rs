//! The shims' parent: one process of the agent's that forks a shim for each pod.
//!
//! A fork of a small process costs a third of a millisecond, where starting the binary again costs several, and shares what the start has written to (relocations alone are more than a megabyte);
//! and it is the program that the agent is, whatever has become of the file on disk. It belongs to the agent and ends with it; the shims do not.
//!
//! It was itself started through a read-only view of the binary (`agent::exe`), so that nothing a container does with `/proc/<pid>/exe` of a worker reaches the file
//! (CVE-2019-5736).
#![allow(unsafe_code, reason = "fork, and descriptors by number")]

use crate::shim;
use coracle_runtime::wire::socket::Link;
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        prctl,
        signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction},
    },
    unistd::{ForkResult, dup2_stderr, dup2_stdin, dup2_stdout, fork, setsid},
};
use serde::{Deserialize, Serialize};
use std::{
    fs::File,
    io,
    os::fd::{AsFd, FromRawFd, OwnedFd},
    path::PathBuf,
};

/// A shim is wanted. Descriptors: its listening socket, the file for what it complains about.
#[derive(Debug, Serialize, Deserialize)]
pub struct Birth {
    /// Its directory.
    pub dir: PathBuf,
}

/// The process; stdin is the connection to the agent. Returns the exit code; in a forked shim, that shim's.
pub fn main() -> i32 {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("coracle shims: {error}");
            1
        }
    }
}

fn run() -> io::Result<i32> {
    // What ends the agent's terminal session must not end the shims.
    _ = setsid();
    _ = prctl::set_name(c"coracle-shims");
    let null = File::options().read(true).write(true).open("/dev/null")?;
    // SAFETY: stdin is the connection that the agent gave us; nothing else uses descriptor 0, which is taken by /dev/null once we have it elsewhere.
    let inherited = unsafe { OwnedFd::from_raw_fd(0) };
    let mut link = Link::new(rustix::io::fcntl_dupfd_cloexec(&inherited, 3)?);
    std::mem::forget(inherited);
    rustix::io::ioctl_fionbio(&link, true)?;
    dup2_stdin(&null)?;
    // Children are not waited for: a shim's end is seen by the agent, at its socket.
    let ignore = SigAction::new(SigHandler::SigIgn, SaFlags::empty(), SigSet::empty());
    // SAFETY: ignoring runs no code.
    unsafe { sigaction(Signal::SIGCHLD, &ignore) }?;
    loop {
        match link.fill() {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let mut fds = [PollFd::new(link.as_fd(), PollFlags::POLLIN)];
                match poll(&mut fds, PollTimeout::NONE) {
                    Ok(_) | Err(nix::errno::Errno::EINTR) => continue,
                    Err(error) => return Err(error.into()),
                }
            }
            Err(error) => return Err(error),
        }
        while let Some((Birth { dir }, fds)) = link.receive::<Birth>()? {
            // Fewer came than were sent: out of descriptors. The agent sees that nobody answers.
            let Ok([control, log]) = <[OwnedFd; 2]>::try_from(fds) else { continue };
            // SAFETY: this process has one thread, so the child may do anything.
            if let ForkResult::Child = unsafe { fork() }? {
                drop(link);
                dup2_stdout(&log)?;
                dup2_stderr(&log)?;
                let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
                // SAFETY: the default disposition runs no code of ours.
                unsafe { sigaction(Signal::SIGCHLD, &default) }?;
                return Ok(shim::main(&dir, control));
            }
        }
        if link.closed() {
            return Ok(0);
        }
    }
}
