//! The runtime's own filter of system calls (`seccompProfile: RuntimeDefault`).
//!
//! A list of what is allowed, so that calls of kernels to come are not; everything else gets EPERM. What is left out is what reconfigures the machine,
//! makes namespaces, or is a large and rarely needed surface (bpf, userfaultfd, io_uring, keyrings, perf). Some of it comes with a capability that the
//! container was given by name. The set is that of Docker's and containerd's profiles, without io_uring.

use coracle_runtime::Security;
use serde_json::{Value, json};

/// Allowed to everyone, by what they are about. Names of both word sizes, since programs may be 32-bit ones.
const ALLOWED: [&str; 9] = [
    // Files and directories.
    "access chdir chmod chown chown32 close close_range copy_file_range creat dup dup2 dup3 faccessat faccessat2 fadvise64 fadvise64_64 fallocate
     fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl fcntl64 fdatasync flock fstat fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate
     ftruncate64 futimesat getcwd getdents getdents64 ioctl lchown lchown32 link linkat lseek _llseek lstat lstat64 mkdir mkdirat mknod mknodat
     name_to_handle_at newfstatat open openat openat2 read readahead readlink readlinkat readv pread64 preadv preadv2 pwrite64 pwritev pwritev2 rename
     renameat renameat2 rmdir sendfile sendfile64 splice stat stat64 statfs statfs64 statx symlink symlinkat sync sync_file_range syncfs tee truncate
     truncate64 umask unlink unlinkat utime utimensat utimensat_time64 utimes vmsplice write writev cachestat",
    "fgetxattr flistxattr fremovexattr fsetxattr getxattr lgetxattr listxattr llistxattr lremovexattr lsetxattr removexattr setxattr",
    // Waiting for something.
    "epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 fanotify_mark
     inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup
     io_submit _newselect pipe pipe2 poll ppoll ppoll_time64 pselect6 pselect6_time64 select signalfd signalfd4",
    // Memory.
    "brk madvise membarrier memfd_create memfd_secret mincore mlock mlock2 mlockall mmap mmap2 mprotect mremap msync munlock munlockall munmap
     pkey_alloc pkey_free pkey_mprotect process_mrelease remap_file_pages map_shadow_stack",
    // Processes, threads and who they are.
    "capget capset execve execveat exit exit_group fork futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake get_robust_list
     get_thread_area getcpu getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getpgid getpgrp getpid getppid getpriority
     getresgid getresgid32 getresuid getresuid32 getrlimit getrusage getsid gettid getuid getuid32 ioprio_get ioprio_set kill landlock_add_rule
     landlock_create_ruleset landlock_restrict_self pause pidfd_open pidfd_send_signal prctl prlimit64 process_vm_readv process_vm_writev ptrace
     restart_syscall rseq sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler
     sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield seccomp
     set_robust_list set_thread_area set_tid_address setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 setpgid
     setpriority setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 setrlimit setsid setuid setuid32 sysinfo
     times ugetrlimit uname vfork wait4 waitid waitpid",
    "rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64
     rt_tgsigqueueinfo sigaltstack sigprocmask sigreturn tgkill tkill",
    // Time (reading it; adjtimex changes it only with the capability).
    "adjtimex alarm clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64 clock_nanosleep
     clock_nanosleep_time64 getitimer gettimeofday nanosleep setitimer time timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64
     timer_settime timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64",
    // Sockets.
    "accept accept4 bind connect getpeername getsockname getsockopt listen recv recvfrom recvmmsg recvmmsg_time64 recvmsg send sendmmsg sendmsg
     sendto setsockopt shutdown socketcall socketpair",
    // Other ways to meet, and randomness.
    "getrandom ipc mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink msgctl msgget
     msgrcv msgsnd semctl semget semop semtimedop semtimedop_time64 shmat shmctl shmdt shmget",
];
/// Of one architecture.
#[cfg(target_arch = "x86_64")]
const OWN: &str = "arch_prctl modify_ldt";
/// Of one architecture.
#[cfg(not(target_arch = "x86_64"))]
const OWN: &str = "arm_fadvise64_64 arm_sync_file_range sync_file_range2 breakpoint cacheflush set_tls";
#[cfg(target_arch = "x86_64")]
const ARCHITECTURES: [&str; 3] = ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"];
#[cfg(not(target_arch = "x86_64"))]
const ARCHITECTURES: [&str; 2] = ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"];

/// What comes with a capability.
const WITH: [(&str, &str); 13] = [
    ("DAC_READ_SEARCH", "open_by_handle_at"),
    (
        "SYS_ADMIN",
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie mount mount_setattr move_mount open_tree perf_event_open
         quotactl quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare",
    ),
    ("SYS_BOOT", "reboot"),
    ("SYS_CHROOT", "chroot"),
    ("SYS_MODULE", "delete_module finit_module init_module"),
    ("SYS_PACCT", "acct"),
    ("SYS_PTRACE", "kcmp pidfd_getfd process_madvise"),
    ("SYS_RAWIO", "ioperm iopl"),
    ("SYS_TIME", "clock_settime clock_settime64 settimeofday stime"),
    ("SYS_TTY_CONFIG", "vhangup"),
    ("SYS_NICE", "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    ("SYSLOG", "syslog"),
    ("BPF", "bpf"),
];
/// CLONE_NEW… of every kind but time.
const NAMESPACES: u64 = 0x7e02_0000;
/// glibc falls back to clone, whose flags a filter can see.
const ENOSYS: u32 = 38;
/// Sockets between a virtual machine and its host know no network namespace.
const AF_VSOCK: u64 = 40;
/// Linux, 32-bit addresses, Linux without randomisation (and both), and the question.
const PERSONALITIES: [u64; 5] = [0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// `linux.seccomp` of the OCI runtime specification.
pub fn default(security: &Security) -> Value {
    let plain = |name: &str| name.to_ascii_uppercase().trim_start_matches("CAP_").to_owned();
    let given: Vec<String> = security.add.iter().map(|name| plain(name)).collect();
    let dropped: Vec<String> = security.drop.iter().map(|name| plain(name)).collect();
    let has = |name: &str| {
        let default = name == "SYS_CHROOT" && !dropped.iter().any(|gone| gone == "ALL");
        let all = given.iter().any(|all| all == "ALL");
        given.iter().any(|one| one == name) || (default || all) && !dropped.iter().any(|gone| gone == name)
    };
    let mut names: Vec<&str> = ALLOWED.iter().chain([&OWN]).flat_map(|list| list.split_whitespace()).collect();
    names.extend(WITH.iter().filter(|(capability, _)| has(capability)).flat_map(|(_, list)| list.split_whitespace()));
    names.sort_unstable();
    names.dedup();
    let when = |name: &str, op: &str, value: u64, two: Option<u64>| {
        let mut argument = json!({ "index": 0, "value": value, "op": op });
        if let Some(two) = two {
            argument["valueTwo"] = json!(two);
        }
        json!({ "names": [name], "action": "SCMP_ACT_ALLOW", "args": [argument] })
    };
    let mut rules = vec![json!({ "names": names, "action": "SCMP_ACT_ALLOW" }), when("socket", "SCMP_CMP_NE", AF_VSOCK, None)];
    rules.extend(PERSONALITIES.iter().map(|value| when("personality", "SCMP_CMP_EQ", *value, None)));
    if !has("SYS_ADMIN") {
        rules.push(when("clone", "SCMP_CMP_MASKED_EQ", NAMESPACES, Some(0)));
        rules.push(json!({ "names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS }));
    }
    json!({ "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1, "architectures": ARCHITECTURES, "syscalls": rules })
}

/// libcontainer 0.7 takes the mask of a masked comparison for its value and the other way round (the specification has the mask first); with both exchanged it
/// does what the profile says.
pub fn for_libcontainer(filter: &mut Value) {
    for rule in filter["syscalls"].as_array_mut().into_iter().flatten() {
        for argument in rule["args"].as_array_mut().into_iter().flatten().filter(|argument| argument["op"] == "SCMP_CMP_MASKED_EQ") {
            let (mask, value) = (argument["value"].take(), argument["valueTwo"].take());
            argument["value"] = if value.is_null() { json!(0) } else { value };
            argument["valueTwo"] = mask;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(security: &Security) -> Vec<String> {
        let filter = default(security);
        let _: libcontainer::oci_spec::runtime::LinuxSeccomp = serde_json::from_value(filter.clone()).expect("libcontainer reads it");
        serde_json::from_value(filter["syscalls"][0]["names"].clone()).unwrap()
    }

    #[test]
    fn masks_are_where_libcontainer_looks_for_them() {
        let mut filter =
            json!({ "syscalls": [{ "args": [{ "value": 6, "op": "SCMP_CMP_MASKED_EQ" }, { "value": 5, "op": "SCMP_CMP_EQ" }] }, { "names": [] }] });
        for_libcontainer(&mut filter);
        assert_eq!(
            filter["syscalls"][0]["args"],
            json!([{ "value": 0, "valueTwo": 6, "op": "SCMP_CMP_MASKED_EQ" }, { "value": 5, "op": "SCMP_CMP_EQ" }])
        );
    }

    #[test]
    fn calls_come_with_capabilities() {
        let list = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        let has = |add: &[&str], drop: &[&str], call: &str| {
            names(&Security { add: list(add), drop: list(drop), ..Security::default() }).contains(&call.to_owned())
        };
        assert!(has(&[], &[], "chroot") && !has(&[], &["ALL"], "chroot") && !has(&[], &["SYS_CHROOT"], "chroot"));
        assert!(!has(&[], &[], "mount") && has(&["SYS_ADMIN"], &["ALL"], "mount") && has(&["CAP_SYS_ADMIN"], &[], "unshare"));
        for never in ["io_uring_setup", "userfaultfd", "keyctl", "kexec_load", "swapon", "pivot_root"] {
            assert!(!has(&["ALL"], &[], never), "{never}");
        }
        assert!(!has(&[], &[], "clone") && !has(&[], &[], "socket"), "allowed by their arguments only");
    }
}
