//! Programs about files, for containers that are components: `tar`, `cat`, `ls` and `test`, over what is mounted in them.
//!
//! A component has no shell, and `kubectl cp` is `tar` run in the container. So these few are answered by the agent itself, with the forms that kubectl uses and what one looks around with;
//! there is nothing else of a component's that a program could work on. They see the mounts at their paths and nothing besides. Every name is opened beneath its mount (openat2),
//! so no link, the guest's own included, leads out; what is mounted read-only is not written. They are the component's user, so that its files are opened and made by whom it is.

mod archive;
mod tree;

use crate::{ContainerId, Error, ExecSpec, Identity, Mount, Session, exec};
use nix::unistd::{Gid, Uid, setfsgid, setfsuid};
use parking_lot::Mutex;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    pipe::PIPE_BUF,
    thread::set_thread_groups,
};
use std::{
    collections::BTreeMap,
    io::{self, PipeReader, PipeWriter, Read, Write, pipe},
    os::fd::{AsFd, OwnedFd},
    thread,
    time::{Duration, Instant},
};
use tokio::{
    net::unix::pipe::{Receiver, Sender},
    sync::oneshot,
};
use tree::Tree;

/// At once on this node, and in one container, so that one does not keep the others from theirs; more are refused.
const MOST: usize = 32;
const EACH: usize = 4;
/// Whatever it does, it is over by then.
const PATIENCE: Duration = Duration::from_secs(600);
/// It is over when nothing came, or nothing was taken, for so long.
const SILENCE: Duration = Duration::from_secs(60);
/// Bytes in, and bytes out.
const BYTES: u64 = 4 << 30;

/// How many run in each container.
static RUNNING: Mutex<BTreeMap<ContainerId, usize>> = Mutex::new(BTreeMap::new());

/// One that runs, in that container.
struct Place(ContainerId);

impl Place {
    fn take(container: &ContainerId) -> Result<Self, Error> {
        let mut running = RUNNING.lock();
        let busy =
            |most: usize, whose: &str| Err(Error::again("ExecError", format!("{most} programs are at work on files of {whose} already; try again")));
        if running.get(container).is_some_and(|count| *count >= EACH) {
            return busy(EACH, &format!("container {container}"));
        }
        if running.values().sum::<usize>() >= MOST {
            return busy(MOST, "components");
        }
        *running.entry(container.clone()).or_default() += 1;
        Ok(Self(container.clone()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut running = RUNNING.lock();
        if let Some(count) = running.get_mut(&self.0) {
            *count -= 1;
        }
        running.retain(|_, count| *count > 0);
    }
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Program {
    /// An archive of these on standard output.
    Pack(Vec<String>),
    /// The archive on standard input, below that directory.
    Unpack(String),
    Cat(Vec<String>),
    /// Names, one a line; with mode, size and kind.
    List {
        path: String,
        long: bool,
    },
    /// `-e`, `-f` or `-d`.
    Test(char, String),
}

/// The command, if it is one of these.
fn parse(command: &[String]) -> Option<Program> {
    let words: Vec<&str> = command.iter().map(String::as_str).collect();
    let own = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
    let plain = |words: &[&str]| !words.is_empty() && words.iter().all(|word| !word.starts_with('-'));
    match words.as_slice() {
        ["cat", paths @ ..] if plain(paths) => Some(Program::Cat(own(paths))),
        ["ls"] => Some(Program::List { path: "/".into(), long: false }),
        ["ls", path] if plain(&[path]) => Some(Program::List { path: (*path).into(), long: false }),
        ["ls", "-l" | "-la" | "-al", path] if plain(&[path]) => Some(Program::List { path: (*path).into(), long: true }),
        ["ls", "-l" | "-la" | "-al"] => Some(Program::List { path: "/".into(), long: true }),
        ["test", which @ ("-d" | "-e" | "-f"), path] => Some(Program::Test(which.chars().nth(1)?, (*path).into())),
        ["tar", rest @ ..] => {
            let mut rest: Vec<&str> = rest.iter().copied().filter(|word| !matches!(*word, "--no-same-permissions" | "--no-same-owner")).collect();
            if rest.len() < 2 || rest.remove(1) != "-" {
                return None;
            }
            let flags = rest.remove(0).trim_start_matches('-').to_owned();
            match (flags.as_str(), rest.as_slice()) {
                ("cf", paths) if plain(paths) => Some(Program::Pack(own(paths))),
                ("xf" | "xmf", []) => Some(Program::Unpack("/".into())),
                ("xf" | "xmf", ["-C", dir]) => Some(Program::Unpack((*dir).into())),
                _ => None,
            }
        }
        _ => None,
    }
}

/// Runs it over a container's mounts, as `whom` (none: as whoever runs this).
///
/// # Errors
/// It is none of these programs, or too many run.
pub fn run(spec: ExecSpec, mounts: Vec<Mount>, whom: Option<Identity>) -> Result<Session, Error> {
    let Some(program) = parse(&spec.command) else { return Err(exec::no_programs(&spec.container)) };
    let place = Place::take(&spec.container)?;
    let wrong = |error: io::Error| Error::again("ExecError", format!("container {}: {error}", spec.container));
    let ((input, stdin), (stdout, output), (stderr, errors)) = (pipe().map_err(wrong)?, pipe().map_err(wrong)?, pipe().map_err(wrong)?);
    let (ended, exit) = oneshot::channel();
    // A thread of its own, which ends as whom it has become.
    let work = thread::Builder::new().name("files".into()).spawn(move || {
        let code = perform(&program, &mounts, whom.as_ref(), input, output, errors);
        drop(place);
        _ = ended.send(code);
    });
    work.map_err(wrong)?;
    let reader = |held: bool, pipe: PipeReader| held.then(|| Receiver::from_owned_fd(OwnedFd::from(pipe))).transpose();
    let (stdout, stderr) = (reader(spec.streams.stdout, stdout).map_err(wrong)?, reader(spec.streams.stderr, stderr).map_err(wrong)?);
    let stdin = spec.streams.stdin.then(|| Sender::from_owned_fd(OwnedFd::from(stdin))).transpose().map_err(wrong)?;
    let name = spec.container;
    Ok(Session {
        stdin: stdin.map(|stdin| Box::new(stdin) as _),
        stdout: stdout.map(|stdout| Box::new(stdout) as _),
        stderr: stderr.map(|stderr| Box::new(stderr) as _),
        resize: None,
        exit: Box::pin(async move { exit.await.map_err(|_| Error::again("ExecError", format!("container {name}: the program was lost"))) }),
    })
}

/// From here on this thread is somebody else to every file it opens or makes, and has root's power over none. It stays itself to other processes, so that no other of that user gets at it.
fn become_of_files(whom: &Identity) -> io::Result<()> {
    let groups: Vec<_> = whom.groups.iter().copied().map(rustix::fs::Gid::from_raw).collect();
    set_thread_groups(&groups)?;
    let (uid, gid) = (Uid::from_raw(whom.uid), Gid::from_raw(whom.gid));
    // They tell who one was before, and nothing else.
    for _ in 0..2 {
        if (setfsgid(gid), setfsuid(uid)) == (gid, uid) {
            return Ok(());
        }
    }
    Err(io::ErrorKind::PermissionDenied.into())
}

fn perform(program: &Program, mounts: &[Mount], whom: Option<&Identity>, input: PipeReader, output: PipeWriter, mut errors: PipeWriter) -> i32 {
    let until = Instant::now() + PATIENCE;
    let (mut input, mut output) = (Bounded::new(input, until), Bounded::new(output, until));
    // The volumes themselves are where only the node gets to.
    let tree = Tree::new(mounts).and_then(|tree| whom.map_or(Ok(()), become_of_files).map(|()| tree));
    let done = tree.and_then(|tree| match program {
        Program::Pack(paths) => archive::pack(&tree, paths, &mut output),
        Program::Unpack(dir) => archive::unpack(&tree, dir, &mut input),
        Program::Cat(paths) => paths.iter().try_for_each(|path| io::copy(&mut tree.read(path)?, &mut output).map(drop)),
        Program::List { path, long } => list(&tree, path, *long, &mut output),
        Program::Test(which, path) => test(&tree, *which, path),
    });
    match (program, done) {
        (_, Ok(())) => 0,
        (Program::Test(..), Err(_)) => 1,
        (program, Err(error)) => {
            let name = match program {
                Program::Pack(_) | Program::Unpack(_) => "tar",
                Program::Cat(_) => "cat",
                _ => "ls",
            };
            // Nobody listens: then nobody needs to know.
            _ = writeln!(errors, "{name}: {error}");
            if name == "tar" { 2 } else { 1 }
        }
    }
}

fn list(tree: &Tree, path: &str, long: bool, output: &mut impl Write) -> io::Result<()> {
    let mut text = String::new();
    for (name, meta) in tree.list(path)? {
        if long {
            let kind = match meta.kind {
                tree::Kind::Directory => 'd',
                tree::Kind::File => '-',
                tree::Kind::Link => 'l',
                tree::Kind::Other => '?',
            };
            text.push_str(&format!("{kind} {:04o} {:>12} ", meta.mode, meta.size));
        }
        text.push_str(&name);
        text.push('\n');
    }
    output.write_all(text.as_bytes())
}

fn test(tree: &Tree, which: char, path: &str) -> io::Result<()> {
    let kind = tree.look(path)?.kind;
    let holds = match which {
        'd' => kind == tree::Kind::Directory,
        'f' => kind == tree::Kind::File,
        _ => true,
    };
    if holds { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
}

/// A pipe with an end in bytes and time, whoever is at its other end.
struct Bounded<T> {
    inner: T,
    left: u64,
    until: Instant,
    silence: Duration,
}

impl<T: AsFd> Bounded<T> {
    fn new(inner: T, until: Instant) -> Self {
        Self { inner, left: BYTES, until, silence: SILENCE }
    }

    /// Waits until it can be read or written.
    fn ready(&self, flags: PollFlags) -> io::Result<()> {
        let left = self.until.saturating_duration_since(Instant::now());
        let wait = left.min(self.silence);
        let time = Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: wait.subsec_nanos().into() };
        match rustix::io::retry_on_intr(|| poll(&mut [PollFd::new(&self.inner, flags)], Some(&time)))? {
            0 if wait < left => Err(io::Error::other(format!("nothing came, or was taken, for {} s", SILENCE.as_secs()))),
            _ if Instant::now() >= self.until => Err(io::Error::other(format!("not done after {} s", PATIENCE.as_secs()))),
            _ => Ok(()),
        }
    }

    fn spend(&mut self, bytes: usize) -> io::Result<()> {
        let left = self.left.checked_sub(bytes as u64);
        self.left = left.ok_or_else(|| io::Error::other(format!("more than {} GiB", BYTES >> 30)))?;
        Ok(())
    }
}

impl<T: Read + AsFd> Read for Bounded<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.ready(PollFlags::IN)?;
        let count = self.inner.read(buffer)?;
        self.spend(count)?;
        Ok(count)
    }
}

impl<T: Write + AsFd> Write for Bounded<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.ready(PollFlags::OUT)?;
        // A pipe that is ready takes so many without waiting.
        let count = self.inner.write(&bytes[..bytes.len().min(PIPE_BUF)])?;
        self.spend(count)?;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests;
