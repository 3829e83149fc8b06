//! The first process of a PID namespace that a pod's containers share: it reaps, and nothing else. It ends with the shim, and all processes of the namespace with it.
#![allow(unsafe_code, reason = "fork, and a signal's disposition")]

use super::sandbox::unshare;
use nix::{
    sys::{
        prctl,
        signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, sigaction, sigprocmask},
        wait::waitpid,
    },
    unistd::{ForkResult, Pid, fork, pause, pipe},
};
use rustix::thread::UnshareFlags;
use std::{
    fs::File,
    io::{self, Read, Write},
};

/// Starts it; its process id as this process sees it.
///
/// # Errors
/// There is no room for another process or namespace.
pub fn start() -> io::Result<Pid> {
    let (read, write) = pipe()?;
    // Closed once the process between us is gone: only then are we the one whose end it must not outlive.
    let (ready, go) = pipe()?;
    // SAFETY: shims have one thread.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => {
            drop(write);
            let mut text = String::new();
            File::from(read).read_to_string(&mut text)?;
            _ = waitpid(child, None);
            drop(go);
            text.trim().parse().map(Pid::from_raw).map_err(|_| io::Error::other("no process could be made in a PID namespace of the pod's"))
        }
        ForkResult::Child => {
            drop(read);
            drop(go);
            // The next fork is the namespace's first process. It outlives this one, as the shim's child.
            let made = unshare(UnshareFlags::NEWPID).and_then(|()| {
                // SAFETY: one thread, as before.
                match unsafe { fork() }? {
                    ForkResult::Parent { child } => writeln!(File::from(write), "{child}"),
                    ForkResult::Child => {
                        drop(write);
                        _ = File::from(ready).read(&mut [0]);
                        reap()
                    }
                }
            });
            // SAFETY: ends a forked process without running what the shim registered.
            unsafe { libc::_exit(i32::from(made.is_err())) }
        }
    }
}

fn reap() -> ! {
    _ = prctl::set_name(c"pause");
    _ = prctl::set_pdeathsig(Signal::SIGKILL);
    let ignore = SigAction::new(SigHandler::SigIgn, SaFlags::empty(), SigSet::empty());
    // SAFETY: ignoring runs no code; children whose end is ignored are reaped by the kernel.
    _ = unsafe { sigaction(Signal::SIGCHLD, &ignore) };
    _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
    // SAFETY: nothing is used any more.
    _ = unsafe { libc::close_range(0, libc::c_uint::MAX, 0) };
    loop {
        pause();
    }
}
