//! What takes power away from the processes that run or compile other people's code.
//!
//! Whoever runs guests is an ordinary uid without capabilities, can gain none (`no_new_privs`), and may make only the system calls on a list:
//! no exec, no ptrace, no mount, no namespaces, no sockets but IP. A call that is not on it fails with EPERM rather than killing the process, which
//! would take other pods with it. Order matters: the uid first (it needs capabilities), the filter last.
#![allow(unsafe_code, reason = "system calls that no crate wraps")]

use nix::{
    sys::resource::{Resource, getrlimit, setrlimit},
    unistd::{Gid, Uid, setgroups, setresgid, setresuid},
};
use seccompiler::{BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch};
use std::{collections::BTreeMap, io};

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Becomes `uid`, `gid` with no group besides and no capability. Nothing when `to` is none.
pub fn drop_privileges(to: Option<(u32, u32)>) -> io::Result<()> {
    if let Some((uid, gid)) = to {
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        setgroups(&[])?;
        setresgid(gid, gid, gid)?;
        // Leaving uid 0 clears the permitted, effective and ambient sets.
        setresuid(uid, uid, uid)?;
    }
    // SAFETY: prctl with integer arguments only.
    unsafe {
        check(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
        // Changing uid made /proc/self root's; the pool needs its own pagemap, and descriptors are opened again through /proc/self/fd.
        check(libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0))?;
    }
    Ok(())
}

/// Ends this process with its parent, which must be `parent` now.
pub fn die_with_parent(parent: i32) -> io::Result<()> {
    // SAFETY: prctl with integer arguments only.
    check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) })?;
    // The parent may have died before the line above.
    if nix::unistd::getppid().as_raw() == parent { Ok(()) } else { Err(io::Error::other("the parent process is gone")) }
}

/// As many descriptors as the hard limit allows.
pub fn raise_descriptors() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // Not being able to is no reason not to start.
        _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// All of a host's confinement; its parent is an unprivileged user already.
pub fn host() -> io::Result<()> {
    raise_descriptors();
    _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    drop_privileges(None)?;
    apply(HOST, true)
}

/// All of the compiler's: bounded memory and CPU time, no network at all.
pub fn compiler(drop_to: Option<(u32, u32)>, memory: u64, cpu_seconds: u64) -> io::Result<()> {
    setrlimit(Resource::RLIMIT_AS, memory, memory)?;
    setrlimit(Resource::RLIMIT_CPU, cpu_seconds, cpu_seconds + 1)?;
    _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    drop_privileges(drop_to)?;
    apply(COMPILER, false)
}

/// Allows the calls of `lists`, and sockets of IP and Unix families if `network`; everything else fails with EPERM.
fn apply(lists: &[&[i64]], network: bool) -> io::Result<()> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = lists.iter().flat_map(|list| list.iter()).map(|call| (*call, Vec::new())).collect();
    let failed = |error: &dyn std::fmt::Display| io::Error::other(format!("seccomp filter: {error}"));
    if network {
        let family = |family: libc::c_int| {
            let is = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, family as u64).map_err(|error| failed(&error))?;
            SeccompRule::new(vec![is]).map_err(|error| failed(&error))
        };
        rules.insert(libc::SYS_socket, vec![family(libc::AF_INET)?, family(libc::AF_INET6)?]);
    }
    // Threads, but no namespaces: in one of its own a process has every capability. Where clone3 keeps its flags no filter can look, so the call is
    // said not to exist (by a filter of its own, the action being one per filter), and libc falls back to clone.
    let no_namespace =
        SeccompCondition::new(0, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(NAMESPACES as u64), 0).map_err(|error| failed(&error))?;
    rules.insert(libc::SYS_clone, vec![SeccompRule::new(vec![no_namespace]).map_err(|error| failed(&error))?]);
    let arch: TargetArch = std::env::consts::ARCH.try_into().map_err(|error| failed(&error))?;
    let filter = SeccompFilter::new(rules, SeccompAction::Errno(libc::EPERM as u32), SeccompAction::Allow, arch).map_err(|error| failed(&error))?;
    let absent = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    let absent = SeccompFilter::new(absent, SeccompAction::Allow, SeccompAction::Errno(libc::ENOSYS as u32), arch).map_err(|error| failed(&error))?;
    for filter in [absent, filter] {
        let program: BpfProgram = filter.try_into().map_err(|error| failed(&error))?;
        seccompiler::apply_filter(&program).map_err(|error| failed(&error))?;
    }
    Ok(())
}

/// What clone must not be asked for. (`CLONE_NEWTIME` shares its bit with the exit signal and only clone3 takes it.)
const NAMESPACES: libc::c_int = libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET;

/// Memory, threads, time, signals of oneself.
const BASE: &[i64] = &[
    libc::SYS_brk,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_mincore,
    libc::SYS_futex,
    libc::SYS_clone,
    libc::SYS_clone3,
    libc::SYS_set_robust_list,
    libc::SYS_get_robust_list,
    libc::SYS_rseq,
    libc::SYS_set_tid_address,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_tgkill,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_setitimer,
    libc::SYS_restart_syscall,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_getrandom,
    libc::SYS_uname,
    libc::SYS_getrusage,
    libc::SYS_prlimit64,
    libc::SYS_sysinfo,
    libc::SYS_membarrier,
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_close,
    libc::SYS_fstat,
    libc::SYS_lseek,
    libc::SYS_ioctl,
    libc::SYS_fcntl,
    libc::SYS_dup,
    libc::SYS_openat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_readlinkat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_readlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_open,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_stat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_access,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_arch_prctl,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_ppoll,
];

/// Files below a directory that came as a descriptor.
const FILES: &[i64] = &[
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_preadv,
    libc::SYS_pwritev,
    libc::SYS_preadv2,
    libc::SYS_pwritev2,
    libc::SYS_openat2,
    libc::SYS_mkdirat,
    libc::SYS_unlinkat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_linkat,
    libc::SYS_symlinkat,
    libc::SYS_getdents64,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_fadvise64,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_utimensat,
    libc::SYS_fchmod,
    libc::SYS_fstatfs,
    libc::SYS_statfs,
    libc::SYS_copy_file_range,
    libc::SYS_sendfile,
];

/// Sockets (their making is filtered by family) and waiting for them.
const SOCKETS: &[i64] = &[
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_accept4,
    libc::SYS_connect,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_sendto,
    libc::SYS_recvfrom,
    libc::SYS_sendmsg,
    libc::SYS_recvmsg,
    libc::SYS_sendmmsg,
    libc::SYS_recvmmsg,
    libc::SYS_shutdown,
    libc::SYS_socketpair,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
    libc::SYS_eventfd2,
    libc::SYS_pipe2,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
];

const HOST: &[&[i64]] = &[BASE, FILES, SOCKETS];
const COMPILER: &[&[i64]] = &[BASE];

#[cfg(test)]
mod tests {
    use super::*;
    use nix::{
        sys::wait::{WaitStatus, waitpid},
        unistd::{ForkResult, fork},
    };

    /// What a confined process gets for a raw call: 0, or the error, told by its exit code.
    fn confined(call: impl Fn() -> libc::c_long) -> i32 {
        // SAFETY: the child confines itself (allocating, which fork leaves usable), makes one system call and leaves without running anything else.
        match unsafe { fork() }.unwrap() {
            ForkResult::Child => {
                let code = match drop_privileges(None).and_then(|()| apply(HOST, true)) {
                    Ok(()) if call() >= 0 => 0,
                    Ok(()) => io::Error::last_os_error().raw_os_error().unwrap_or(255),
                    Err(_) => 254,
                };
                // SAFETY: ends the child at once.
                unsafe { libc::_exit(code) }
            }
            ForkResult::Parent { child } => match waitpid(child, None).unwrap() {
                WaitStatus::Exited(_, code) => code,
                other => panic!("{other:?}"),
            },
        }
    }

    #[test]
    fn threads_can_be_made_and_namespaces_cannot() {
        // SAFETY: as a fork, without memory shared; the child of the child leaves at once.
        let clone = |flags: libc::c_int| unsafe {
            let pid = libc::syscall(libc::SYS_clone, libc::c_long::from(flags | libc::SIGCHLD), 0, 0, 0, 0);
            if pid == 0 {
                libc::_exit(0);
            }
            pid
        };
        assert_eq!(confined(|| clone(0)), 0);
        for flag in [libc::CLONE_NEWUSER, libc::CLONE_NEWUSER | libc::CLONE_NEWNET, libc::CLONE_NEWNS] {
            assert_eq!(confined(|| clone(flag)), libc::EPERM);
        }
        // SAFETY: the call is refused before it reads its arguments.
        assert_eq!(confined(|| unsafe { libc::syscall(libc::SYS_clone3, 0, 0) }), libc::ENOSYS);
        // SAFETY: integers only.
        assert_eq!(confined(|| unsafe { libc::syscall(libc::SYS_unshare, libc::CLONE_NEWUSER) }), libc::EPERM);
        // SAFETY: integers only.
        assert_eq!(confined(|| unsafe { libc::syscall(libc::SYS_socket, libc::AF_UNIX, libc::SOCK_STREAM, 0) }), libc::EPERM);
    }
}
