//! The first process of a PID namespace that a pod's containers share: it reaps, and nothing else. It ends with the shim, and all processes of the namespace with it.
//!
//! Containers see it, so there is nothing in it to be had: its root is empty and for reading, it is nobody, has no capability and no descriptor but the one it waits at, and the
//! kernel lets it make no system call but read and exit.
#![allow(unsafe_code, reason = "fork, and a signal's disposition")]

use super::sandbox::unshare;
use crate::worker::close_all_but;
use nix::{
    mount::{MntFlags, umount2},
    sys::{
        prctl,
        signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, sigaction, sigprocmask},
        wait::waitpid,
    },
    unistd::{ForkResult, Gid, Pid, Uid, chdir, fork, pipe2, pivot_root, setgroups, setresgid, setresuid},
};
use rustix::{
    mount::{MountFlags, MountPropagationFlags, mount, mount_change},
    process::{PidfdFlags, pidfd_open, pidfd_send_signal},
    thread::{CapabilitySet, CapabilitySets, UnshareFlags, remove_capability_from_bounding_set, set_capabilities},
};
use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsFd, OwnedFd},
};

/// Where its root is mounted before nothing else is left: it is there, and everybody gets to it.
const ROOT: &str = "/proc";
/// As other runtimes' pause programs are.
const NOBODY: u32 = 65_535;

/// The kernel's PF_EXITING.
const EXITING: u32 = 0x4;

/// It, and what it waits at. Held by descriptors, since its number may be given away after its end.
pub struct Pause {
    pid: Pid,
    process: OwnedFd,
    namespace: OwnedFd,
    _lifeline: OwnedFd,
}

impl Pause {
    /// Just started, and not waited for: the number is its own.
    fn hold(pid: Pid, lifeline: OwnedFd) -> io::Result<Self> {
        let number = rustix::process::Pid::from_raw(pid.as_raw()).ok_or(io::ErrorKind::InvalidData)?;
        let process = pidfd_open(number, PidfdFlags::empty())?;
        let namespace = File::open(format!("/proc/{pid}/ns/pid"))?.into();
        Ok(Self { pid, process, namespace, _lifeline: lifeline })
    }

    /// Whether it is that child of ours, which is being waited for.
    pub fn is(&self, pid: Pid) -> bool {
        self.pid == pid
    }

    /// It was killed; the namespace takes no process in any more, though it may last until all that was in it has been waited for.
    pub fn ending(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        // Behind the name, which may hold anything: state, four numbers, terminal's group, flags (proc_pid_stat(5)).
        let flags = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(6)?.parse::<u32>().ok());
        flags.is_none_or(|flags| flags & EXITING != 0)
    }

    /// The namespace whose first process it is.
    pub fn namespace(&self) -> &OwnedFd {
        &self.namespace
    }

    /// Ends it, and all processes of the namespace.
    pub fn end(self) {
        _ = pidfd_send_signal(&self.process, rustix::process::Signal::KILL);
    }
}

/// Starts it; `users` is the namespace that the processes' belongs to, if that is not the machine's.
///
/// # Errors
/// There is no room for another process or namespace.
pub fn start(users: Option<&OwnedFd>) -> io::Result<Pause> {
    let pipe = || pipe2(nix::fcntl::OFlag::O_CLOEXEC);
    let ((read, write), (lifeline, held)) = (pipe()?, pipe()?);
    // SAFETY: shims have one thread.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => {
            drop((write, lifeline));
            let mut text = String::new();
            File::from(read).read_to_string(&mut text)?;
            _ = waitpid(child, None);
            let pid = text
                .trim()
                .parse()
                .map(Pid::from_raw)
                .map_err(|_| io::Error::other(format!("the first process of the pod's PID namespace: {text}")))?;
            Pause::hold(pid, held)
        }
        ForkResult::Child => {
            drop(read);
            drop(held);
            // The next fork is the namespace's first process. It outlives this one, as the shim's child.
            let joined = users.map_or(Ok(()), |users| super::users::join(users.as_fd()));
            let made = joined.and_then(|()| unshare(UnshareFlags::NEWPID)).and_then(|()| {
                // SAFETY: one thread, as before.
                match unsafe { fork() }? {
                    ForkResult::Parent { child } => {
                        // What goes wrong is said by the child, which closes the pipe when all is well.
                        let mut said = File::from(write);
                        writeln!(said, "{child}")
                    }
                    ForkResult::Child => {
                        if let Err(error) = confine(&[&lifeline, &write]) {
                            _ = writeln!(File::from(write), "{error}");
                            return Err(error);
                        }
                        drop(write);
                        wait(&lifeline)
                    }
                }
            });
            // SAFETY: ends a forked process without running what the shim registered.
            unsafe { libc::_exit(i32::from(made.is_err())) }
        }
    }
}

fn confine(keep: &[&OwnedFd]) -> io::Result<()> {
    prctl::set_name(c"pause")?;
    prctl::set_dumpable(false)?;
    unshare(UnshareFlags::NEWNS)?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("pause", ROOT, "tmpfs", flags, Some(c"size=4k,nr_inodes=1,mode=555"))?;
    chdir(ROOT)?;
    // The old root is put over the new one, and is taken away from there: pivot_root(2).
    pivot_root(".", ".")?;
    umount2(".", MntFlags::MNT_DETACH)?;
    chdir("/")?;
    close_all_but(&keep.iter().map(AsFd::as_fd).collect::<Vec<_>>());
    // Not even the first three: they are the shim's log.
    for number in 0..3 {
        // SAFETY: nothing of ours uses them any more.
        _ = unsafe { libc::close(number) };
    }
    let ignore = SigAction::new(SigHandler::SigIgn, SaFlags::empty(), SigSet::empty());
    // SAFETY: ignoring runs no code; children whose end is ignored are reaped by the kernel.
    unsafe { sigaction(Signal::SIGCHLD, &ignore) }?;
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
    for capability in CapabilitySet::all().iter() {
        // Those that this kernel does not know cannot be removed, nor had.
        _ = remove_capability_from_bounding_set(capability);
    }
    setgroups(&[])?;
    let (uid, gid) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
    setresgid(gid, gid, gid)?;
    setresuid(uid, uid, uid)?;
    set_capabilities(
        None,
        CapabilitySets { effective: CapabilitySet::empty(), permitted: CapabilitySet::empty(), inheritable: CapabilitySet::empty() },
    )?;
    prctl::set_no_new_privs()?;
    prctl::set_dumpable(false)?;
    Ok(())
}

/// Until the shim, which alone holds the other end, is gone.
fn wait(lifeline: &OwnedFd) -> ! {
    // SAFETY: from here on only read and exit are possible.
    _ = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_STRICT) };
    let mut byte = [0];
    while !matches!(rustix::io::read(lifeline, &mut byte), Ok(0)) {}
    // SAFETY: the only way to end that strict mode has; _exit is another system call.
    unsafe { libc::syscall(libc::SYS_exit, 0) };
    unreachable!("it has ended")
}
