//! A component's mounts as one tree: where names lead, and what is there. Names are the outside's; each is opened beneath its mount, in one system call.

use crate::Mount;
use rustix::{
    fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, fstat, mkdirat, openat2, statat, symlinkat, unlinkat},
    io::Errno,
};
use std::{
    collections::BTreeMap,
    fs::File,
    io,
    os::fd::{AsRawFd, OwnedFd},
    path::PathBuf,
};

/// Of one directory; more is refused.
const ENTRIES: usize = 100_000;

/// What something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// An ordinary file.
    File,
    /// A symbolic link.
    Link,
    /// Neither.
    Other,
}

/// Kind, permissions, bytes, time of the last change in seconds.
#[derive(Clone, Copy, Debug)]
pub struct Meta {
    /// Kind.
    pub kind: Kind,
    /// Permissions.
    pub mode: u32,
    /// Bytes.
    pub size: u64,
    /// Seconds since 1970.
    pub modified: u64,
}

impl Meta {
    fn of(stat: &Stat) -> Self {
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Kind::Directory,
            FileType::RegularFile => Kind::File,
            FileType::Symlink => Kind::Link,
            _ => Kind::Other,
        };
        let size = if kind == Kind::File { u64::try_from(stat.st_size).unwrap_or(0) } else { 0 };
        Self { kind, mode: stat.st_mode & 0o777, size, modified: u64::try_from(stat.st_mtime).unwrap_or(0) }
    }
}

struct Root {
    at: Vec<String>,
    dir: OwnedFd,
    read_only: bool,
}

/// See the module.
pub struct Tree(Vec<Root>);

/// The parts of a path; `..` goes no higher than the root.
fn parts(path: &str) -> Vec<String> {
    let mut parts = Vec::new();
    for part in path.split('/').filter(|part| !part.is_empty() && *part != ".") {
        if part == ".." {
            parts.pop();
        } else {
            parts.push(part.to_owned());
        }
    }
    parts
}

fn said(path: &str) -> impl Fn(Errno) -> io::Error + '_ {
    move |error| {
        let error = io::Error::from(error);
        io::Error::new(error.kind(), format!("{path}: {error}"))
    }
}

const BENEATH: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_MAGICLINKS);

impl Tree {
    /// Of these mounts, whose paths on this machine lead through no link.
    ///
    /// # Errors
    /// One is not there.
    pub fn new(mounts: &[Mount]) -> io::Result<Self> {
        let open = |mount: &Mount| {
            if !mount.layers.is_empty() {
                return Err(io::Error::other(format!("{}: the files of image volumes cannot be reached here", mount.container_path)));
            }
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let dir = openat2(CWD, &mount.host_path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS).map_err(said(&mount.container_path))?;
            Ok(Root { at: parts(&mount.container_path), dir, read_only: mount.read_only })
        };
        Ok(Self(mounts.iter().map(open).collect::<io::Result<_>>()?))
    }

    /// The mount that a path is in, and its name there.
    fn find(&self, path: &str) -> io::Result<(&Root, PathBuf)> {
        let parts = parts(path);
        let root = self.0.iter().filter(|root| parts.starts_with(&root.at)).max_by_key(|root| root.at.len());
        let root = root.ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, format!("{path}: nothing is mounted there; a component has the files of its volumes only"))
        })?;
        let below: PathBuf = std::iter::once(".").chain(parts.iter().skip(root.at.len()).map(String::as_str)).collect();
        Ok((root, below))
    }

    fn writable(&self, path: &str) -> io::Result<(&Root, PathBuf)> {
        let found = self.find(path)?;
        if found.0.read_only {
            return Err(io::Error::new(io::ErrorKind::ReadOnlyFilesystem, format!("{path}: mounted read-only")));
        }
        Ok(found)
    }

    fn open(&self, path: &str, flags: OFlags) -> io::Result<OwnedFd> {
        let (root, below) = self.find(path)?;
        openat2(&root.dir, below, flags | OFlags::CLOEXEC, Mode::empty(), BENEATH).map_err(said(path))
    }

    /// What is at a path, through links.
    ///
    /// # Errors
    /// Nothing is.
    pub fn look(&self, path: &str) -> io::Result<Meta> {
        match self.open(path, OFlags::PATH) {
            Ok(fd) => Ok(Meta::of(&fstat(&fd).map_err(said(path))?)),
            // What is above the mounts is there as far as they are.
            Err(_) if self.above(path).next().is_some() => Ok(Meta { kind: Kind::Directory, mode: 0o755, size: 0, modified: 0 }),
            Err(error) => Err(error),
        }
    }

    /// The next names towards mounts below a path.
    fn above(&self, path: &str) -> impl Iterator<Item = String> {
        let parts = parts(path);
        self.0.iter().filter_map(move |root| if root.at.starts_with(&parts) { root.at.get(parts.len()).cloned() } else { None })
    }

    /// An ordinary file, to read.
    ///
    /// # Errors
    /// It is none.
    pub fn read(&self, path: &str) -> io::Result<File> {
        // Looked at before it is opened: opening a device may do something.
        let place = self.open(path, OFlags::PATH)?;
        match Meta::of(&fstat(&place).map_err(said(path))?).kind {
            Kind::File => File::open(format!("/proc/self/fd/{}", place.as_raw_fd())),
            Kind::Directory => Err(io::Error::new(io::ErrorKind::IsADirectory, format!("{path}: Is a directory"))),
            _ => Err(io::Error::other(format!("{path}: not an ordinary file"))),
        }
    }

    /// What is in a directory, by name; of links, the links.
    ///
    /// # Errors
    /// It is none, or has too much in it.
    pub fn list(&self, path: &str) -> io::Result<BTreeMap<String, Meta>> {
        let mut found: BTreeMap<String, Meta> =
            self.above(path).map(|name| (name, Meta { kind: Kind::Directory, mode: 0o755, size: 0, modified: 0 })).collect();
        let dir = match self.open(path, OFlags::RDONLY | OFlags::DIRECTORY) {
            Ok(dir) => dir,
            Err(_) if !found.is_empty() => return Ok(found),
            Err(error) => return Err(error),
        };
        for entry in Dir::read_from(&dir).map_err(said(path))? {
            let entry = entry.map_err(said(path))?;
            // What is no text has no name in an archive either.
            let Ok(name) = entry.file_name().to_str().map(str::to_owned) else { continue };
            if name == "." || name == ".." {
                continue;
            }
            match statat(&dir, &*name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => _ = found.entry(name).or_insert_with(|| Meta::of(&stat)),
                // It went meanwhile.
                Err(Errno::NOENT) => {}
                Err(error) => return Err(said(path)(error)),
            }
            if found.len() > ENTRIES {
                return Err(io::Error::other(format!("{path}: more than {ENTRIES} entries")));
            }
        }
        Ok(found)
    }

    /// Where a link leads, as it says.
    ///
    /// # Errors
    /// It is none.
    pub fn link(&self, path: &str) -> io::Result<PathBuf> {
        use std::{ffi::OsString, os::unix::ffi::OsStringExt};
        let (parent, name) = self.parent(path, false)?;
        let target = rustix::fs::readlinkat(&parent, name, Vec::new()).map_err(said(path))?;
        Ok(OsString::from_vec(target.into_bytes()).into())
    }

    /// The directory that something is in, made if `make`, and its name there.
    fn parent(&self, path: &str, make: bool) -> io::Result<(OwnedFd, String)> {
        let parts = parts(path);
        let Some((name, above)) = parts.split_last() else { return Err(io::Error::other(format!("{path}: no name"))) };
        let above = format!("/{}", above.join("/"));
        if make {
            self.directory(&above)?;
        }
        Ok((self.open(&above, OFlags::PATH | OFlags::DIRECTORY)?, name.clone()))
    }

    /// Makes a directory and those above it, if they are not there.
    ///
    /// # Errors
    /// Something else is, or it may not be written.
    pub fn directory(&self, path: &str) -> io::Result<()> {
        if let Ok(meta) = self.look(path)
            && meta.kind == Kind::Directory
        {
            return Ok(());
        }
        let (root, _) = self.writable(path)?;
        let parts = parts(path);
        for end in root.at.len() + 1..=parts.len() {
            let at = format!("/{}", parts.get(..end).unwrap_or_default().join("/"));
            if self.look(&at).is_ok() {
                continue;
            }
            let (parent, name) = self.parent(&at, false)?;
            mkdirat(&parent, &*name, Mode::from_raw_mode(0o755)).map_err(said(&at))?;
        }
        Ok(())
    }

    /// A new file in the place of whatever has that name; directories stay.
    ///
    /// # Errors
    /// It may not be written.
    pub fn create(&self, path: &str, mode: u32) -> io::Result<File> {
        self.writable(path)?;
        let (parent, name) = self.parent(path, true)?;
        clear(&parent, &name, path)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat2(&parent, &*name, flags, Mode::from_raw_mode(mode & 0o777), BENEATH).map_err(said(path))?;
        Ok(file.into())
    }

    /// A new link.
    ///
    /// # Errors
    /// It may not be written.
    pub fn symlink(&self, path: &str, target: &std::path::Path) -> io::Result<()> {
        self.writable(path)?;
        let (parent, name) = self.parent(path, true)?;
        clear(&parent, &name, path)?;
        symlinkat(target, &parent, &*name).map_err(said(path))
    }
}

fn clear(parent: &OwnedFd, name: &str, path: &str) -> io::Result<()> {
    match unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(said(path)(error)),
    }
}
