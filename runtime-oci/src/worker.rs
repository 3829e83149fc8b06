//! The fork of a shim that makes one container with libcontainer and goes: whatever hangs, is leaked or is changed for the whole process by that goes with it.
//!
//! It begins with a copy of the machine's mounts as they are now, in which the container's file system is put together; the copy goes with the worker, and what
//! the container uses of it lives in the container's own mount namespace. Nothing is ever mounted where the machine sees it.

pub mod exec;
mod payload;
pub mod program;

use crate::{
    cgroup::Trees,
    config::{self, Bind, Input},
    groups::Groups,
    rootfs, user, volumes,
};
use coracle_runtime::{ContainerSpec, ImageContent, SandboxSpec, Seccomp, Users};
use libcontainer::{container::builder::ContainerBuilder, oci_spec::runtime as oci_spec, rootfs::Mount, syscall::syscall::SyscallType};
use nix::{
    sys::{
        prctl,
        resource::{Resource, getrlimit, setrlimit},
        signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, kill, sigaction, sigprocmask},
        stat::{Mode, umask},
        wait::waitpid,
    },
    unistd::{Gid, Pid, pipe, setgroups},
};
use payload::Payload;
use rustix::{
    mount::{MountFlags, MountPropagationFlags, mount, mount_change},
    thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space},
};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File},
    io::{Read, Write},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    rc::Rc,
};

/// How long an error message may be that crosses from a container's first process.
const MESSAGE: u64 = 4096;

/// What may be told otherwise to a container, by a volume (lxcfs), as runc and libcontainer have it.
const TOLD: [&str; 10] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/slabinfo",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/sys/crypto/fips_enabled",
];

/// Descriptors that a program may have at first.
const OPEN_FILES: u64 = 1024;

/// What a worker is told.
pub struct Order<'a> {
    /// The container.
    pub spec: &'a ContainerSpec,
    /// Its pod.
    pub sandbox: &'a SandboxSpec,
    /// The shim's directory.
    pub dir: &'a Path,
    /// The machine's mount namespace.
    pub mounts: &'a OwnedFd,
    /// The PID namespace that containers share, if they do.
    pub processes: Option<&'a OwnedFd>,
    /// The pod's user namespace, if it has users of its own.
    pub users: Option<&'a OwnedFd>,
    /// The machine's control groups.
    pub trees: &'a Trees,
    /// The container's standard streams.
    pub streams: Streams,
}

/// A container's standard streams.
pub enum Streams {
    /// Input (none: /dev/null), output and error.
    Pipes(Option<OwnedFd>, [OwnedFd; 2]),
    /// A terminal, whose other end is sent to the socket at this path.
    Terminal(PathBuf),
}

/// What a worker says, its last word at its end.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Outcome {
    /// That process is to become the program of an exec, unless it cannot. Another word follows.
    Forked(i32),
    /// The program runs.
    Started(i32),
    /// It does not: reason (CamelCase) and message.
    Failed(String, String),
}

/// Says it; `said` is the pipe to the shim.
///
/// # Errors
/// The shim is gone.
pub fn say(said: &mut File, outcome: &Outcome) -> std::io::Result<()> {
    said.write_all(&serde_json::to_vec(outcome)?)
}

fn config_error(message: String) -> Outcome {
    Outcome::Failed("CreateContainerConfigError".into(), message)
}

fn create_error(message: impl ToString) -> Outcome {
    Outcome::Failed("CreateContainerError".into(), message.to_string())
}

/// In kubelet's and containerd's terms it was created and could not be started.
fn start_error(message: &str) -> Outcome {
    Outcome::Failed("StartError".into(), format!("unable to start container process: {message}"))
}

/// Where a container's files are in its shim's directory.
pub fn bundle(dir: &Path, spec: &ContainerSpec) -> PathBuf {
    dir.join("containers").join(config::name(spec))
}

/// Makes and starts the container. In a process with one thread that ends afterwards.
pub fn run(order: Order<'_>) -> Outcome {
    match make(order) {
        Ok(pid) => Outcome::Started(pid),
        Err(failed) => failed,
    }
}

fn make(order: Order<'_>) -> Result<i32, Outcome> {
    let Order { spec, sandbox, dir, .. } = order;
    reset();
    let ImageContent::Oci { layers } = &spec.image.content else {
        return Err(create_error("the image is a WebAssembly component; it cannot run as a process"));
    };
    let bundle = bundle(dir, spec);
    for part in ["upper", "work", "rootfs"] {
        fs::create_dir_all(bundle.join(part)).map_err(create_error)?;
    }
    let first = sandbox.linux.users.map_or(0, |users| users.first);
    rootfs::like_root(layers, &bundle.join("upper"), first).map_err(create_error)?;

    // The pod's shared memory is mounted in the shim's namespace only.
    let shm = if sandbox.linux.host_ipc { None } else { Some(rootfs::clone_mount(&dir.join("shm")).map_err(create_error)?) };
    move_into_link_name_space(order.mounts.as_fd(), Some(LinkNameSpaceType::Mount))
        .map_err(|error| create_error(format!("enter the machine's mounts: {error}")))?;
    let trees = volumes::open(&spec.mounts, order.users).map_err(|error| config_error(error.to_string()))?;
    copy_mounts().map_err(|error| create_error(format!("copy the machine's mounts: {error}")))?;
    // The root of other users does not get through the node's directories.
    let stage = if order.users.is_some() { rootfs::stage(dir).map_err(create_error)? } else { bundle.clone() };
    let root = stage.join("rootfs");
    fs::create_dir_all(&root).map_err(create_error)?;
    let mapped = order.users.map(|users| rootfs::mapped(layers, users, &stage.join("layers"))).transpose().map_err(create_error)?;
    rootfs::overlay(mapped.as_ref().unwrap_or(layers), &bundle.join("upper"), &bundle.join("work"), &root).map_err(create_error)?;
    let mut binds = own_files(dir, spec);
    if let Some(users) = order.users {
        for (number, bind) in binds.iter_mut().enumerate() {
            let place = stage.join(format!("file{number}"));
            File::create(&place).and_then(|_| volumes::attach_mapped(&bind.source, users, &place)).map_err(create_error)?;
            bind.source = place;
        }
    }
    let shm = match shm {
        Some(shm) => {
            let place = if order.users.is_some() { stage.join("shm") } else { dir.join("shm") };
            fs::create_dir_all(&place).map_err(create_error)?;
            rootfs::attach(&shm, &place).map_err(create_error)?;
            place
        }
        None => "/dev/shm".into(),
    };
    binds.push(Bind { source: shm, target: "/dev/shm".into(), read_only: false });
    let group = config::group(spec, sandbox);
    let groups = Groups::of(order.trees, &group);
    if let Some(groups) = &groups {
        groups.make(&spec.resources, &config::devices::rules(spec.security.privileged)).map_err(create_error)?;
        let place = stage.join("cgroup");
        groups.show(&place, spec.security.privileged).map_err(create_error)?;
        binds.push(Bind { source: place, target: "/sys/fs/cgroup".into(), read_only: !spec.security.privileged });
    }
    let volumes = volumes::place(&spec.mounts, trees, &stage.join("volumes"), order.users).map_err(|error| config_error(error.to_string()))?;
    binds.retain(|own| !volumes.iter().any(|volume| Path::new(&volume.target) == Path::new(&own.target)));
    binds.extend(volumes);

    let user = user::resolve(
        &spec.security,
        &spec.image.config.user,
        &user::database(&root, "/etc/passwd"),
        &user::database(&root, "/etc/group"),
        &spec.name,
    )
    .map_err(config_error)?;
    let capabilities = config::capabilities::own();
    // By descriptor: a path by process id may be another's by now.
    let processes = order.processes.map(|held| PathBuf::from(format!("/proc/self/fd/{}", held.as_raw_fd())));
    let users = order.users.map(|held| PathBuf::from(format!("/proc/self/fd/{}", held.as_raw_fd())));
    let privileged = spec.security.privileged;
    let (group, pages) = match &groups {
        Some(groups) => (groups.hand_over(&stage.join("group")).map_err(create_error)?, None),
        None => (group.clone(), Some(order.trees.page_sizes())),
    };
    let input = Input {
        spec,
        sandbox,
        user: &user,
        root: &root,
        binds: &binds,
        devices: &if privileged { rootfs::devices() } else { Vec::new() },
        processes: processes.as_deref(),
        users: users.as_deref(),
        group: &group,
        unified: pages.as_deref(),
        have: &capabilities,
        seccomp: if privileged { None } else { filter(&spec.security.seccomp, spec).map_err(config_error)? },
    };
    let mut config = config::config(&input).map_err(create_error)?;
    not_in_proc(&root, &config).map_err(create_error)?;
    // As runc does; what else is wrong with it is said when it is entered, but of this the library says nothing that could be understood.
    let cwd = config["process"]["cwd"].as_str().unwrap_or("/");
    if let Err(error) = working_directory(Path::new(cwd), &root, &binds, first)
        && error.kind() == std::io::ErrorKind::NotADirectory
    {
        return Err(start_error(&format!("chdir to cwd ({cwd:?}) set in config.json failed: not a directory")));
    }
    fs::write(bundle.join("config.json"), config.to_string()).map_err(create_error)?;
    // Lower than our own is refused without CAP_SYS_RESOURCE: it stays what it is then.
    _ = fs::write("/proc/self/oom_score_adj", spec.resources.oom_score_adj.to_string());
    // Ours, and so the container's. libcontainer would ask the container's /proc whether it may, before anybody has looked at what is mounted there.
    setgroups(&members(&user.groups, sandbox.linux.users).map_err(config_error)?).map_err(create_error)?;
    config["process"]["user"]["additionalGids"] = serde_json::Value::Null;
    start(spec, dir, &config, order.streams).map_err(|failed| match of_other_kind(&root, &binds) {
        // In runc's words; the library has none.
        Some(target) => start_error(&format!(
            "error mounting to rootfs at {target:?}: not a directory: Are you trying to mount a directory onto a file (or vice-versa)? Check what the volume is and what the image has there"
        )),
        None => failed,
    })
}

/// Where a directory would be mounted over a file, or a file over a directory.
fn of_other_kind<'a>(root: &Path, binds: &'a [Bind]) -> Option<&'a str> {
    let differs = |bind: &&Bind| {
        let (below, rest) = whose(Path::new(&bind.target), binds.iter().filter(|other| other.target != bind.target))
            .map_or((root, Path::new(&bind.target)), |(bind, rest)| (&bind.source, rest));
        let there = rootfs::place(below, rest).and_then(|place| fs::symlink_metadata(below.join(place.strip_prefix("/").unwrap_or(&place))));
        there.is_ok_and(|there| fs::metadata(&bind.source).is_ok_and(|own| own.is_dir() != there.is_dir()))
    };
    binds.iter().find(differs).map(|bind| bind.target.as_str())
}

/// The volume that a path is in, and the path below it.
fn whose<'a, 'p>(path: &'p Path, binds: impl Iterator<Item = &'a Bind>) -> Option<(&'a Bind, &'p Path)> {
    let above = binds.filter_map(|bind| Some((bind, path.strip_prefix(&bind.target).ok()?)));
    above.max_by_key(|(bind, _)| Path::new(&bind.target).components().count())
}

/// The groups as the machine numbers them.
fn members(groups: &[u32], users: Option<Users>) -> Result<Vec<Gid>, String> {
    let number = |gid: &u32| match users {
        None => Ok(Gid::from_raw(*gid)),
        Some(users) if *gid < users.count => Ok(Gid::from_raw(users.first + gid)),
        Some(users) => Err(format!("group {gid} is beyond the pod's own users and groups, which are {}", users.count)),
    };
    groups.iter().map(number).collect()
}

/// First thing in a fork of the shim, whose process id is `shim`: it ends with the shim, cannot be looked into, and holds nothing of the shim's but `keep`. What it forks in turn
/// becomes a container's process, which is seen by others before it executes its program.
///
/// # Errors
/// The shim is gone already, or the kernel refuses.
pub fn detach(shim: Pid, keep: &[BorrowedFd<'_>]) -> std::io::Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    if nix::unistd::getppid() != shim {
        return Err(nix::errno::Errno::ESRCH.into());
    }
    prctl::set_dumpable(false)?;
    close_all_but(keep);
    own_keyring()
}

/// A session keyring of its own, without a name by which another could join it: what the machine's processes keep in theirs is nobody's in a container.
#[allow(unsafe_code, reason = "keyctl")]
fn own_keyring() -> std::io::Result<()> {
    let no_name: *const libc::c_char = std::ptr::null();
    // SAFETY: a null name is one of the call's two forms; no memory of ours is involved.
    let done = unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, no_name) };
    let error = std::io::Error::last_os_error();
    // A kernel without keyrings has none to hand on.
    if done >= 0 || error.raw_os_error() == Some(libc::ENOSYS) { Ok(()) } else { Err(error) }
}

/// Closes every descriptor but the standard ones and these. In a fork that ends by `_exit` or by executing a program: what owned them is never dropped.
#[allow(unsafe_code, reason = "descriptors by number")]
pub fn close_all_but(keep: &[BorrowedFd<'_>]) {
    let mut numbers: Vec<_> = keep.iter().map(|fd| fd.as_raw_fd()).filter(|number| *number > 2).collect();
    numbers.sort_unstable();
    let mut next = 3;
    for number in numbers.into_iter().chain([i32::MAX]) {
        if next < number {
            // SAFETY: see above.
            _ = unsafe { libc::close_range(next.unsigned_abs(), (number - 1).unsigned_abs(), 0) };
        }
        next = number.saturating_add(1);
    }
}

/// Nothing is mounted over what tells the truth about the container, and what is written to when it is made (CVE-2019-16884, CVE-2025-52881): libcontainer 0.7 asks that of its own proc alone.
fn not_in_proc(root: &Path, config: &serde_json::Value) -> Result<(), String> {
    let mounts: Vec<oci_spec::Mount> = serde_json::from_value(config["mounts"].clone()).map_err(|error| error.to_string())?;
    for mut mount in mounts.into_iter().filter(|mount| mount.typ().as_deref() == Some("bind")) {
        // It looks at names alone, and the image may have links.
        let place = rootfs::place(root, mount.destination()).map_err(|error| error.to_string())?;
        mount.set_destination(place);
        Mount::new().check_proc_mount(root, &mount).map_err(|error| chain(&error))?;
    }
    Ok(())
}

/// Where something is mounted at or below a container's /proc that is neither the kernel's nor there to hide something, by the container's own mounts (proc_pid_mountinfo(5)).
///
/// Asked when they are all made and nothing of the container runs: a target's path may lead through a link in another volume, which can be put there at any time before.
fn over_proc(mounts: &str) -> Option<&str> {
    mounts.lines().find_map(|line| {
        let (mount, system) = line.split_once(" - ")?;
        let (place, kind) = (mount.split(' ').nth(4)?, system.split(' ').next()?);
        let fine = match place {
            "/proc" => kind == "proc",
            _ if !Path::new(place).starts_with("/proc") => true,
            _ if config::READ_ONLY.contains(&place) => kind == "proc",
            _ => config::MASKED.contains(&place) || TOLD.contains(&place),
        };
        (!fine).then_some(place)
    })
}

/// As for any program that has just been started: the container inherits this.
#[allow(unsafe_code, reason = "sigaction")]
fn reset() {
    // As containerd gives it: programs that close or look at all they may have open do not do so a million times, others raise it.
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        _ = setrlimit(Resource::RLIMIT_NOFILE, hard.min(OPEN_FILES), hard);
    }
    // libcontainer leaves them as they are where there are none to set.
    _ = setgroups(&[]);
    _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    for signal in Signal::iterator().filter(|signal| !matches!(signal, Signal::SIGKILL | Signal::SIGSTOP)) {
        // SAFETY: the default disposition runs no code of ours.
        _ = unsafe { sigaction(signal, &default) };
    }
    umask(Mode::from_bits_truncate(0o022));
}

/// A copy of the mounts that this process sees. What is mounted there later comes in, nothing of ours goes out.
fn copy_mounts() -> std::io::Result<()> {
    crate::shim::sandbox::unshare(UnshareFlags::NEWNS)?;
    mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?;
    Ok(())
}

/// Where libcontainer finds its configuration, and writes down what only this process reads again: in memory, since a disk would be waited for at each of its rewrites. Goes with the
/// copy of the mounts.
fn notes(dir: &Path) -> std::io::Result<PathBuf> {
    let place = dir.join("libcontainer");
    fs::create_dir_all(&place)?;
    mount("libcontainer", &place, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC, Some(c"mode=755,size=1m"))?;
    Ok(place)
}

/// /etc/hosts and so on, which the agent wrote.
fn own_files(dir: &Path, spec: &ContainerSpec) -> Vec<Bind> {
    let file = |name: &str| Bind { source: dir.join("etc").join(name), target: format!("/etc/{name}"), read_only: spec.security.read_only_root };
    ["hosts", "hostname", "resolv.conf"].into_iter().map(file).collect()
}

fn filter(profile: &Seccomp, spec: &ContainerSpec) -> Result<Option<serde_json::Value>, String> {
    let mut filter = match profile {
        Seccomp::Unconfined => return Ok(None),
        Seccomp::RuntimeDefault => config::seccomp::default(&spec.security),
        Seccomp::Localhost(path) => {
            let text = fs::read(path).map_err(|error| format!("seccomp profile {}: {error}", path.display()))?;
            serde_json::from_slice(&text).map_err(|error| format!("seccomp profile {}: {error}", path.display()))?
        }
    };
    config::seccomp::for_libcontainer(&mut filter);
    Ok(Some(filter))
}

/// Makes a container's working directory, where it will be: in a volume, if one is mounted at or above it.
fn working_directory(cwd: &Path, root: &Path, binds: &[Bind], owner: u32) -> std::io::Result<()> {
    match whose(cwd, binds.iter()) {
        Some((bind, _)) if bind.read_only => Ok(()),
        // What is in a volume is mapped by the mount.
        Some((bind, rest)) => rootfs::make_directory(&bind.source, rest, owner),
        None => rootfs::make_directory(root, cwd, owner),
    }
}

/// Error and all its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

fn start(spec: &ContainerSpec, dir: &Path, config: &serde_json::Value, streams: Streams) -> Result<i32, Outcome> {
    let (error, word) = pipe().map(|(read, write)| (File::from(read), write)).map_err(create_error)?;
    let notes = notes(dir).map_err(create_error)?;
    fs::write(notes.join("config.json"), config.to_string()).map_err(create_error)?;
    let payload = Payload(Rc::new(word));
    let builder = ContainerBuilder::new(config::name(spec), SyscallType::default())
        .with_executor(payload)
        .with_root_path(&notes)
        .map_err(|error| start_error(&chain(&error)))?;
    let builder = match streams {
        Streams::Terminal(socket) => builder.with_console_socket(Some(socket)),
        Streams::Pipes(stdin, [stdout, stderr]) => {
            let stdin = stdin.map_or_else(|| File::open("/dev/null").map(OwnedFd::from), Ok).map_err(create_error)?;
            builder.with_stdin(stdin).with_stdout(stdout).with_stderr(stderr)
        }
    };
    let made = builder.as_init(&notes).with_systemd(false).with_detach(true).build();
    // The builder is gone, and our end of the word's pipe with it.
    let mut container = made.map_err(|error| start_error(&chain(&error)))?;
    let pid = container.pid().ok_or_else(|| start_error("libcontainer gave no process id"))?.as_raw();
    let whole = fs::read_to_string(format!("/proc/{pid}/mountinfo")).map_err(|error| error.to_string()).and_then(|mounts| match over_proc(&mounts) {
        Some(place) => Err(format!("a volume would be mounted at {place}; nothing is mounted over /proc")),
        None => Ok(()),
    });
    let started = whole.and_then(|()| container.start().map_err(|error| chain(&error))).and_then(|()| {
        // Ends when the program is executed, since the pipe closes then.
        let mut text = String::new();
        match (&error).take(MESSAGE).read_to_string(&mut text) {
            Ok(0) => Ok(()),
            Ok(_) => Err(text),
            Err(error) => Err(error.to_string()),
        }
    });
    started.map(|()| pid).map_err(|why| {
        _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        _ = waitpid(Pid::from_raw(pid), None);
        start_error(&why)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_of_users_of_their_own_are_among_these() {
        let users = Some(Users { first: 65536, count: 1000 });
        assert_eq!(members(&[4, 70_000], None), Ok(vec![Gid::from_raw(4), Gid::from_raw(70_000)]));
        assert_eq!(members(&[0, 999], users), Ok(vec![Gid::from_raw(65536), Gid::from_raw(66535)]));
        assert!(members(&[999, 1000], users).unwrap_err().contains("group 1000 is beyond"));
    }

    #[test]
    fn what_covers_proc_is_found_among_a_containers_mounts() {
        let line = |place: &str, kind: &str| format!("36 35 98:0 /root {place} rw,noatime master:1 - {kind} source rw\n");
        let good = [
            ("/", "overlay"),
            ("/proc", "proc"),
            ("/proc/sys", "proc"),
            ("/proc/keys", "tmpfs"),
            ("/processes", "ext4"),
            ("/proc/cpuinfo", "fuse.lxcfs"),
        ];
        let all = |list: &[(&str, &str)]| list.iter().map(|(place, kind)| line(place, kind)).collect::<String>();
        assert_eq!(over_proc(&all(&good)), None);
        for bad in [("/proc", "ext4"), ("/proc/sys", "tmpfs"), ("/proc/1/attr", "ext4"), ("/proc/sys/kernel", "proc"), ("/proc/self", "tmpfs")] {
            assert_eq!(over_proc(&all(&[&good[..], &[bad]].concat())), Some(bad.0));
        }
    }
}
