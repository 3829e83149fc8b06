//! What takes power away from the processes that run or compile other people's code.
//!
//! Whoever runs guests is an ordinary uid without capabilities, can gain none (`no_new_privs`), and may make only the system calls on a list:
//! no exec, no ptrace, no mount, no namespaces, no sockets but IP. A call that is not on it fails with EPERM rather than killing the process, which
//! would take other pods with it. Order matters: the uid first (it needs capabilities), the filter last.
//!
//! All of them share one uid, so each is kept from the others besides: none is dumpable, which makes its memory and its descriptors root's (ptrace(2)
//! and proc(5), whatever Yama says); signals, limits and owners of signals can be set for the process itself only; and where the kernel has Landlock,
//! each host is a domain of its own. Another uid for the supervisor would do less: it would need a capability to make hosts of theirs, and hosts
//! would still share one.
#![allow(unsafe_code, reason = "system calls that no crate wraps")]

mod root;

use coracle_runtime::Identity;
use landlock::{ABI, Access, AccessFs, CompatLevel, Compatible, Ruleset, RulesetAttr, Scope};
use nix::{
    sys::resource::{Resource, getrlimit, setrlimit},
    unistd::{Gid, Uid, setgroups, setresgid, setresuid},
};
use seccompiler::{BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch};
use std::{collections::BTreeMap, io};

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Becomes `to` (uid, gid) with no group besides and no capability; stays who it is when that is none. Out of reach of others of that uid either way.
pub fn drop_privileges(to: Option<(u32, u32)>) -> io::Result<()> {
    if let Some((uid, gid)) = to {
        assume(uid, gid, &[])?;
    }
    // SAFETY: prctl with integer arguments only.
    check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) })?;
    dumpable(false)
}

/// Another user, who is not root, for good.
fn assume(uid: u32, gid: u32, groups: &[u32]) -> io::Result<()> {
    let groups: Vec<Gid> = groups.iter().copied().map(Gid::from_raw).collect();
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    setgroups(&groups)?;
    setresgid(gid, gid, gid)?;
    // Leaving uid 0 clears the permitted, effective and ambient sets.
    setresuid(uid, uid, uid)?;
    Ok(())
}

/// May others of this uid read and write its memory? (Its own descriptors a process can always open again through `/proc/self/fd`.)
fn dumpable(yes: bool) -> io::Result<()> {
    // SAFETY: prctl with integer arguments only.
    check(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, libc::c_ulong::from(yes), 0, 0, 0) })
}

/// Ends this process with its parent, which must be `parent` now.
pub fn die_with_parent(parent: i32) -> io::Result<()> {
    // SAFETY: prctl with integer arguments only.
    check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) })?;
    // The parent may have died before the line above.
    if nix::unistd::getppid().as_raw() == parent { Ok(()) } else { Err(io::Error::other("the parent process is gone")) }
}

/// A Landlock domain of its own: no process outside it can be traced or signalled from inside. What files it may use, its descriptors say, so
/// only what no guest needs is forbidden there. Nothing where the kernel has no Landlock.
fn seclude() -> io::Result<()> {
    let ruleset = Ruleset::default().set_compatibility(CompatLevel::BestEffort);
    let ruleset = ruleset.handle_access(AccessFs::MakeBlock | AccessFs::MakeChar).and_then(|ruleset| ruleset.scope(Scope::from_all(ABI::V6)));
    let secluded = ruleset.and_then(Ruleset::create).and_then(|ruleset| ruleset.restrict_self());
    secluded.map(|_| ()).map_err(|error| io::Error::other(format!("landlock: {error}")))
}

/// As many descriptors as the hard limit allows.
pub fn raise_descriptors() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // Not being able to is no reason not to start.
        _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// All of a host's confinement; its parent is an unprivileged user already. `prepare` opens what a process may of itself only while it is dumpable.
pub fn host<T, E: From<io::Error>>(prepare: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    raise_descriptors();
    _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    drop_privileges(None)?;
    seclude()?;
    dumpable(true)?;
    let prepared = prepare();
    dumpable(false)?;
    apply(&[BASE, FILES, SOCKETS], Role::Host)?;
    prepared
}

/// All of the confinement of a host that was started as root, alone in a pod of processes: nothing of the machine's files is left, and it becomes somebody who is not root.
pub fn container<T, E: From<io::Error>>(whom: &Identity, prepare: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    root::leave()?;
    for capability in 0..64 {
        // Those that this kernel does not know cannot be removed, nor had.
        // SAFETY: prctl with integer arguments only.
        _ = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
    }
    assume(whom.uid, whom.gid, &whom.groups)?;
    host(prepare)
}

/// All of the compiler's: bounded memory and CPU time, no network at all.
pub fn compiler(drop_to: Option<(u32, u32)>, memory: u64, cpu_seconds: u64) -> io::Result<()> {
    setrlimit(Resource::RLIMIT_AS, memory, memory)?;
    setrlimit(Resource::RLIMIT_CPU, cpu_seconds, cpu_seconds + 1)?;
    _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    drop_privileges(drop_to)?;
    seclude()?;
    apply(&[BASE], Role::Compiler)
}

/// All of the supervisor's: what hosts may, since they inherit it, and making and ending them.
pub fn supervisor(drop_to: Option<(u32, u32)>) -> io::Result<()> {
    drop_privileges(drop_to)?;
    apply(&[BASE, FILES, SOCKETS, CHILDREN], Role::Supervisor)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Supervisor,
    Host,
    Compiler,
}

/// Allows the calls of `lists`, and some with the arguments of the role; everything else fails with EPERM.
fn apply(lists: &[&[i64]], role: Role) -> io::Result<()> {
    let failed = |error: &dyn std::fmt::Display| io::Error::other(format!("seccomp filter: {error}"));
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = lists.iter().flat_map(|list| list.iter()).map(|call| (*call, Vec::new())).collect();
    for (call, argument, op, value) in arguments(role) {
        let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, op, value).map_err(|error| failed(&error))?;
        rules.entry(call).or_default().push(SeccompRule::new(vec![condition]).map_err(|error| failed(&error))?);
    }
    let arch: TargetArch = std::env::consts::ARCH.try_into().map_err(|error| failed(&error))?;
    let filter = SeccompFilter::new(rules, SeccompAction::Errno(libc::EPERM as u32), SeccompAction::Allow, arch).map_err(|error| failed(&error))?;
    // Where clone3 keeps its flags no filter can look, so the call is said not to exist (by a filter of its own, the action being one per filter),
    // and libc falls back to clone.
    let absent = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    let absent = SeccompFilter::new(absent, SeccompAction::Allow, SeccompAction::Errno(libc::ENOSYS as u32), arch).map_err(|error| failed(&error))?;
    for filter in [absent, filter] {
        let program: BpfProgram = filter.try_into().map_err(|error| failed(&error))?;
        seccompiler::apply_filter(&program).map_err(|error| failed(&error))?;
    }
    Ok(())
}

/// Calls that are allowed with some arguments only: the call, the argument's place, and what it must be. Any one row of a call suffices.
fn arguments(role: Role) -> Vec<(i64, u8, SeccompCmpOp, u64)> {
    use SeccompCmpOp::{Eq, MaskedEq};
    let is = |call: i64, argument: u8, values: &[u64]| values.iter().map(|value| (call, argument, Eq, *value)).collect::<Vec<_>>();
    let mut rows = Vec::new();
    // Threads, but neither processes, which could outlive the pods, nor namespaces: in one of its own a process has every capability.
    let (thread, namespaces) = (libc::CLONE_THREAD as u64, NAMESPACES as u64);
    rows.push(match role {
        Role::Supervisor => (libc::SYS_clone, 0, MaskedEq(namespaces), 0),
        Role::Host | Role::Compiler => (libc::SYS_clone, 0, MaskedEq(namespaces | thread), thread),
    });
    // Of itself only: a uid is enough to set another process's limits, and for signals, which owners of files get as well (F_SETOWN, FIOSETOWN).
    rows.extend(is(libc::SYS_prlimit64, 0, &[0]));
    rows.extend(is(libc::SYS_fcntl, 1, &FCNTLS.map(|command| command as u64)));
    rows.extend(is(libc::SYS_ioctl, 1, IOCTLS));
    match role {
        Role::Supervisor => {
            // What is its own process id here is another one's in its hosts: they narrow this to themselves.
            rows.push((libc::SYS_tgkill, 0, SeccompCmpOp::Ne, 0));
            rows.extend(is(libc::SYS_kill, 1, &[libc::SIGKILL as u64]));
        }
        Role::Host | Role::Compiler => rows.extend(is(libc::SYS_tgkill, 0, &[u64::from(std::process::id())])),
    }
    if role != Role::Compiler {
        rows.extend(is(libc::SYS_socket, 0, &[libc::AF_INET as u64, libc::AF_INET6 as u64]));
    }
    rows
}

/// Copies of descriptors and their flags.
const FCNTLS: [libc::c_int; 6] = [libc::F_DUPFD, libc::F_DUPFD_CLOEXEC, libc::F_GETFD, libc::F_SETFD, libc::F_GETFL, libc::F_SETFL];
/// Blocking or not, how much there is to read, is it a terminal, close on exec, and the pages that were written (`PAGEMAP_SCAN`).
const IOCTLS: &[u64] = &[libc::FIONBIO, libc::FIONREAD, libc::TCGETS, libc::FIOCLEX, 0xc060_6610];

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
    libc::SYS_clone3,
    libc::SYS_set_robust_list,
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
    libc::SYS_sysinfo,
    libc::SYS_membarrier,
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_close,
    libc::SYS_fstat,
    libc::SYS_lseek,
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

/// Making hosts, confining them further, and seeing them end.
const CHILDREN: &[i64] = &[
    libc::SYS_wait4,
    libc::SYS_getppid,
    libc::SYS_prctl,
    libc::SYS_seccomp,
    libc::SYS_landlock_create_ruleset,
    libc::SYS_landlock_add_rule,
    libc::SYS_landlock_restrict_self,
];

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
                let code = match drop_privileges(None).and_then(|()| apply(&[BASE, FILES, SOCKETS], Role::Host)) {
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
    fn threads_can_be_made_and_neither_processes_nor_namespaces() {
        assert_eq!(confined(|| std::thread::Builder::new().spawn(|| ()).map_or(-1, |_| 0)), 0);
        // SAFETY: as a fork, without memory shared; the child of the child leaves at once.
        let clone = |flags: libc::c_int| unsafe {
            let pid = libc::syscall(libc::SYS_clone, libc::c_long::from(flags | libc::SIGCHLD), 0, 0, 0, 0);
            if pid == 0 {
                libc::_exit(0);
            }
            pid
        };
        for flag in [0, libc::CLONE_NEWUSER, libc::CLONE_NEWUSER | libc::CLONE_NEWNET, libc::CLONE_NEWNS] {
            assert_eq!(confined(|| clone(flag)), libc::EPERM);
        }
        // SAFETY: the call is refused before it reads its arguments.
        assert_eq!(confined(|| unsafe { libc::syscall(libc::SYS_clone3, 0, 0) }), libc::ENOSYS);
        // SAFETY: integers only.
        assert_eq!(confined(|| unsafe { libc::syscall(libc::SYS_unshare, libc::CLONE_NEWUSER) }), libc::EPERM);
        // SAFETY: integers only.
        assert_eq!(confined(|| unsafe { libc::syscall(libc::SYS_socket, libc::AF_UNIX, libc::SOCK_STREAM, 0) }), libc::EPERM);
    }

    #[test]
    fn nothing_reaches_another_process() {
        let parent = libc::c_long::from(nix::unistd::getpid().as_raw());
        let call = |number: i64, arguments: [libc::c_long; 4]| {
            // SAFETY: refused before any of these is taken for an address, or harmless: signal 0, the process's own limits.
            confined(move || unsafe { libc::syscall(number, arguments[0], arguments[1], arguments[2], arguments[3]) })
        };
        for (number, arguments) in [
            (libc::SYS_kill, [parent, 0, 0, 0]),
            (libc::SYS_tgkill, [parent, parent, 0, 0]),
            (libc::SYS_tkill, [parent, 0, 0, 0]),
            (libc::SYS_rt_sigqueueinfo, [parent, 0, 0, 0]),
            (libc::SYS_pidfd_open, [parent, 0, 0, 0]),
            (libc::SYS_pidfd_getfd, [0, 0, 0, 0]),
            (libc::SYS_pidfd_send_signal, [0, 0, 0, 0]),
            (libc::SYS_ptrace, [libc::PTRACE_ATTACH as libc::c_long, parent, 0, 0]),
            (libc::SYS_process_vm_readv, [parent, 0, 0, 0]),
            (libc::SYS_process_vm_writev, [parent, 0, 0, 0]),
            (libc::SYS_prlimit64, [parent, libc::RLIMIT_NOFILE as libc::c_long, 0, 0]),
            (libc::SYS_setpriority, [libc::PRIO_PROCESS as libc::c_long, parent, 19, 0]),
            (libc::SYS_fcntl, [2, libc::F_SETOWN as libc::c_long, parent, 0]),
            (libc::SYS_ioctl, [2, 0x8901, 0, 0]),
        ] {
            assert_eq!(call(number, arguments), libc::EPERM, "system call {number}");
        }
        assert_eq!(call(libc::SYS_prlimit64, [0, libc::RLIMIT_NOFILE as libc::c_long, 0, 0]), 0);
        // SAFETY: signal 0 to itself.
        let own = || unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), libc::syscall(libc::SYS_gettid), 0) };
        assert_eq!(confined(own), 0);
    }
}
