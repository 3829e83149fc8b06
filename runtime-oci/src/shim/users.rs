//! A user namespace of the pod's own, and the namespaces that belong to it: who is root there may do with them what the machine's root may with the machine's.
//!
//! The shim does not live in it, since it has to do with the machine; a child that goes again makes them, and the shim holds them.
#![allow(unsafe_code, reason = "fork and _exit")]

use super::sandbox::unshare;
use coracle_runtime::Users;
use nix::{
    sys::wait::waitpid,
    unistd::{ForkResult, Gid, Uid, fork, pipe2, setresgid, setresuid},
};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};
use std::{
    fs::{self, File},
    io::{self, Read, Write},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

/// Makes the user namespace and moves this process into others (network, IPC, host name, as `flags` say) that belong to it. Returns the user namespace.
///
/// # Errors
/// The kernel refuses, as where user namespaces are switched off.
pub fn make(users: Users, flags: UnshareFlags) -> io::Result<OwnedFd> {
    let pipe = || pipe2(nix::fcntl::OFlag::O_CLOEXEC);
    let ((said, say), (go, known)) = (pipe()?, pipe()?);
    // SAFETY: shims have one thread.
    let child = match unsafe { fork() }? {
        ForkResult::Parent { child } => child,
        ForkResult::Child => {
            drop((said, known));
            let (mut say, mut go) = (File::from(say), File::from(go));
            let mut one = [0];
            let made = unshare(UnshareFlags::NEWUSER)
                .and_then(|()| say.write_all(&[1]))
                .and_then(|()| go.read_exact(&mut one))
                .and_then(|()| become_root())
                .and_then(|()| unshare(flags))
                .and_then(|()| say.write_all(&[1]))
                .and_then(|()| go.read_exact(&mut one));
            // SAFETY: ends the fork without running what the shim registered.
            unsafe { libc::_exit(i32::from(made.is_err())) }
        }
    };
    drop((say, go));
    let (mut said, mut known) = (File::from(said), File::from(known));
    let mut one = [0];
    let mut held = || -> io::Result<OwnedFd> {
        let wrong = |what: &'static str| move |error: io::Error| io::Error::new(error.kind(), format!("{what} of the pod's own: {error}"));
        said.read_exact(&mut one).map_err(wrong("users"))?;
        let map = format!("0 {} {}", users.first, users.count);
        for name in ["uid_map", "gid_map"] {
            fs::write(format!("/proc/{child}/{name}"), &map).map_err(wrong("users"))?;
        }
        known.write_all(&[1])?;
        said.read_exact(&mut one).map_err(wrong("namespaces"))?;
        for (flag, name, kind) in [
            (UnshareFlags::NEWNET, "net", LinkNameSpaceType::Network),
            (UnshareFlags::NEWUTS, "uts", LinkNameSpaceType::HostNameAndNISDomainName),
            (UnshareFlags::NEWIPC, "ipc", LinkNameSpaceType::InterProcessCommunication),
        ] {
            if flags.contains(flag) {
                move_into_link_name_space(File::open(format!("/proc/{child}/ns/{name}"))?.as_fd(), Some(kind))?;
            }
        }
        Ok(File::open(format!("/proc/{child}/ns/user"))?.into())
    };
    let held = held();
    // It reads the end, and goes.
    drop(known);
    _ = waitpid(child, None);
    held
}

/// Joins it as its root. In a fork: there is no way back.
///
/// # Errors
/// The kernel refuses.
pub fn join(users: BorrowedFd<'_>) -> io::Result<()> {
    move_into_link_name_space(users, Some(LinkNameSpaceType::User))?;
    become_root()
}

/// Is root from here on, in the user namespace that this process is in.
///
/// # Errors
/// It may not.
pub fn become_root() -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(0), Gid::from_raw(0));
    nix::unistd::setgroups(&[])?;
    setresgid(gid, gid, gid)?;
    Ok(setresuid(uid, uid, uid)?)
}
