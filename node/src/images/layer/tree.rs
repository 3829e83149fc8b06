//! A layer's tree on disk, as overlayfs wants its lower directories: whiteouts are character devices 0:0, opaque directories have `trusted.overlay.opaque`.
//!
//! Everything is done relative to descriptors of directories, and those are opened beneath the root without following a link ([`openat2`]), so that no name in a tar
//! leads out of the tree, whatever has been unpacked before. Directories that the layer does not mention, though something lies in them, are made like those of
//! the layers below: what is on top decides the mode and owner of what is merged.

use super::plan::{Inside, Meta, Op, Refused};
use rustix::{
    fs::{
        AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags, chmodat, chownat, fchmod,
        fchown, fgetxattr, fsetxattr, fstat, futimens, linkat, makedev, mkdirat, mknodat, open, openat, openat2, statat, symlinkat, unlinkat,
        utimensat,
    },
    io::Errno,
};
use std::{
    ffi::OsStr,
    fs::File,
    io::{self, Read},
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
};

const OPAQUE: &str = "trusted.overlay.opaque";
const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const BENEATH: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS).union(ResolveFlags::NO_XDEV);

/// Why an operation was not done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The image is at fault.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The machine is, or the stream.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<Errno> for Error {
    fn from(errno: Errno) -> Self {
        Self::Io(errno.into())
    }
}

/// The directory that the last entry lies in. Most often the next one does as well.
struct Parent {
    path: PathBuf,
    directory: OwnedFd,
    /// Put back when it is left, since what is made in it changes it.
    times: Timestamps,
}

/// A tree that is being made.
pub struct Tree<'a> {
    root: OwnedFd,
    lowers: &'a [OwnedFd],
    parent: Option<Parent>,
}

/// Opens a directory by an ordinary path.
pub fn directory(path: &Path) -> io::Result<OwnedFd> {
    Ok(openat(CWD, path, DIRECTORY, Mode::empty())?)
}

/// Whether nothing of the layers below is seen at all: the whole layer is opaque, which overlayfs does not look for at the root.
pub fn opaque(path: &Path) -> bool {
    let mut value = [0; 1];
    directory(path).is_ok_and(|directory| fgetxattr(&directory, OPAQUE, &mut value[..]) == Ok(1) && value == *b"y")
}

impl<'a> Tree<'a> {
    /// In an empty directory, over those layers (the topmost first).
    pub fn new(root: OwnedFd, lowers: &'a [OwnedFd]) -> Result<Self, Error> {
        match lowers.first() {
            Some(lower) => like(&root, &fstat(lower)?)?,
            None => fchmod(&root, Mode::from_raw_mode(0o755))?,
        }
        Ok(Self { root, lowers, parent: None })
    }

    /// Does it; `content` is a file's.
    pub fn apply(&mut self, op: &Op, content: &mut dyn Read) -> Result<(), Error> {
        match op {
            Op::Skip => Ok(()),
            Op::Directory(at, meta) => self.make_directory(at, meta),
            Op::Opaque(at) => {
                let directory = self.ensure(at.path())?;
                Ok(fsetxattr(&directory, OPAQUE, b"y", XattrFlags::empty())?)
            }
            Op::Whiteout(at) => self.whiteout(at),
            Op::File(at, meta) => {
                let (parent, name) = self.enter(at)?;
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let create = |parent: &OwnedFd| openat(parent, name, flags, Mode::RUSR | Mode::WUSR);
                let file = match create(parent) {
                    Err(Errno::EXIST) => {
                        self.remove(at)?;
                        create(self.enter(at)?.0)?
                    }
                    file => file?,
                };
                let mut file = File::from(file);
                io::copy(content, &mut file)?;
                set(&file, meta)
            }
            Op::Symlink(at, target, meta) => self.node(at, meta, |parent, name| symlinkat(target, parent, name), true),
            Op::Fifo(at, meta) => self.node(at, meta, |parent, name| mknodat(parent, name, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0), false),
            Op::Hardlink(at, target) => self.link(at, target),
        }
    }

    /// The last thing.
    pub fn finish(mut self) -> Result<OwnedFd, Error> {
        self.leave()?;
        Ok(self.root)
    }

    fn make_directory(&mut self, at: &Inside, meta: &Meta) -> Result<(), Error> {
        // Its own times are those to put back from now on.
        if self.parent.as_ref().is_some_and(|parent| parent.path == at.path()) {
            self.leave()?;
        }
        let Some((_, name)) = at.split() else { return set(&self.root, meta) };
        let parent = self.enter(at)?.0;
        let directory = match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => openat(parent, name, DIRECTORY, Mode::empty())?,
            Ok(stat) => {
                let hides = whiteout(&stat);
                unlinkat(parent, name, AtFlags::empty())?;
                made(parent, name, hides)?
            }
            Err(Errno::NOENT) => made(parent, name, false)?,
            Err(why) => return Err(why.into()),
        };
        set(&directory, meta)
    }

    fn whiteout(&mut self, at: &Inside) -> Result<(), Error> {
        let (parent, name) = self.enter(at)?;
        match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            // What this layer brings itself is not meant.
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                let directory = openat(parent, name, DIRECTORY, Mode::empty())?;
                Ok(fsetxattr(&directory, OPAQUE, b"y", XattrFlags::empty())?)
            }
            Ok(_) => Ok(()),
            Err(Errno::NOENT) => Ok(mknodat(parent, name, FileType::CharacterDevice, Mode::empty(), makedev(0, 0))?),
            Err(why) => Err(why.into()),
        }
    }

    fn node(&mut self, at: &Inside, meta: &Meta, make: impl Fn(&OwnedFd, &OsStr) -> rustix::io::Result<()>, link: bool) -> Result<(), Error> {
        let (mut parent, name) = self.enter(at)?;
        match make(parent, name) {
            Err(Errno::EXIST) => {
                self.remove(at)?;
                parent = self.enter(at)?.0;
                make(parent, name)?;
            }
            done => done?,
        }
        chownat(parent, name, Some(Uid::from_raw(meta.uid)), Some(Gid::from_raw(meta.gid)), AtFlags::SYMLINK_NOFOLLOW)?;
        if !link {
            chmodat(parent, name, Mode::from_raw_mode(meta.mode), AtFlags::empty())?;
        }
        Ok(utimensat(parent, name, &times(meta.mtime), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    fn link(&mut self, at: &Inside, target: &Inside) -> Result<(), Error> {
        let (of, named) = target.split().ok_or(Refused::Link)?;
        let of = match beneath(&self.root, of) {
            Err(Errno::NOENT) => return Err(Refused::Link.into()),
            found => found.map_err(astray)?,
        };
        let file = match statat(&of, named, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Err(Refused::Link.into()),
            stat => stat?,
        };
        if !matches!(FileType::from_raw_mode(file.st_mode), FileType::RegularFile | FileType::Symlink | FileType::Fifo) {
            return Err(Refused::Link.into());
        }
        let make = |parent: &OwnedFd, name: &OsStr| linkat(&of, named, parent, name, AtFlags::empty());
        let (parent, name) = self.enter(at)?;
        match make(parent, name) {
            Err(Errno::EXIST) => {
                self.remove(at)?;
                match make(self.enter(at)?.0, name) {
                    // It lay in what it is to replace.
                    Err(Errno::NOENT) => Err(Refused::Link.into()),
                    done => Ok(done?),
                }
            }
            done => Ok(done?),
        }
    }

    /// The directory that it lies in, and its name there.
    fn enter<'p>(&mut self, at: &'p Inside) -> Result<(&OwnedFd, &'p OsStr), Error> {
        let (path, name) = at.split().ok_or(Refused::Root)?;
        if self.parent.as_ref().is_none_or(|parent| parent.path != path) {
            self.leave()?;
            let directory = self.ensure(path)?;
            let times = of(&fstat(&directory)?);
            self.parent = Some(Parent { path: path.into(), directory, times });
        }
        match &self.parent {
            Some(parent) => Ok((&parent.directory, name)),
            None => Err(Refused::NoDirectory.into()),
        }
    }

    fn leave(&mut self) -> Result<(), Error> {
        match self.parent.take() {
            Some(parent) => Ok(futimens(&parent.directory, &parent.times)?),
            None => Ok(()),
        }
    }

    /// The directory at `path`, made where it is missing.
    fn ensure(&self, path: &Path) -> Result<OwnedFd, Error> {
        match beneath(&self.root, path) {
            Ok(directory) => return Ok(directory),
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            Err(why) => return Err(astray(why)),
        }
        let (Some(above), Some(name)) = (path.parent(), path.file_name()) else { return Err(Refused::NoDirectory.into()) };
        let parent = self.ensure(above)?;
        let before = of(&fstat(&parent)?);
        let hides = match statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if whiteout(&stat) => {
                unlinkat(&parent, name, AtFlags::empty())?;
                true
            }
            Ok(_) => return Err(Refused::NoDirectory.into()),
            Err(Errno::NOENT) => false,
            Err(why) => return Err(why.into()),
        };
        let below = if hides { None } else { self.below(path)? };
        let directory = made(&parent, name, hides)?;
        match below {
            Some(stat) => like(&directory, &stat)?,
            None => {
                fchmod(&directory, Mode::from_raw_mode(0o755))?;
                futimens(&directory, &times((0, 0)))?;
            }
        }
        futimens(&parent, &before)?;
        Ok(directory)
    }

    /// The directory of that path in the layers below, if they have one.
    fn below(&self, path: &Path) -> Result<Option<Stat>, Error> {
        for lower in self.lowers {
            match beneath(lower, path) {
                Ok(directory) => return Ok(Some(fstat(&directory)?)),
                Err(Errno::NOENT) => {}
                // Hidden from here on, or a file.
                Err(Errno::NOTDIR) => return Ok(None),
                Err(why) => return Err(astray(why)),
            }
        }
        Ok(None)
    }

    /// Takes away what is at `at`, a directory with all that it holds.
    fn remove(&mut self, at: &Inside) -> Result<(), Error> {
        let (parent, name) = self.enter(at)?;
        match unlinkat(parent, name, AtFlags::empty()) {
            Err(Errno::ISDIR) => {}
            done => return Ok(done?),
        }
        // The standard library goes down by descriptors too.
        Ok(std::fs::remove_dir_all(Path::new(&format!("/proc/self/fd/{}", parent.as_raw_fd())).join(name))?)
    }
}

/// Opens a directory beneath another, through no link.
fn beneath(root: &OwnedFd, path: &Path) -> rustix::io::Result<OwnedFd> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    // With NOFOLLOW a link at the end would look like a file.
    openat2(root, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty(), BENEATH)
}

fn astray(why: Errno) -> Error {
    match why {
        Errno::LOOP | Errno::XDEV => Refused::Symlinked.into(),
        Errno::NOTDIR => Refused::NoDirectory.into(),
        why => why.into(),
    }
}

fn made(parent: &OwnedFd, name: &OsStr, hides: bool) -> Result<OwnedFd, Error> {
    mkdirat(parent, name, Mode::RWXU)?;
    let directory = openat(parent, name, DIRECTORY, Mode::empty())?;
    if hides {
        fsetxattr(&directory, OPAQUE, b"y", XattrFlags::empty())?;
    }
    Ok(directory)
}

fn whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == makedev(0, 0)
}

/// Owner first: a change of it takes set-uid and capabilities away.
fn set(file: &impl std::os::fd::AsFd, meta: &Meta) -> Result<(), Error> {
    fchown(file, Some(Uid::from_raw(meta.uid)), Some(Gid::from_raw(meta.gid)))?;
    fchmod(file, Mode::from_raw_mode(meta.mode))?;
    for (name, value) in &meta.xattrs {
        match fsetxattr(file, OsStr::new(<OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(name)), value, XattrFlags::empty()) {
            // A file system without them: as other runtimes do.
            Ok(()) | Err(Errno::OPNOTSUPP) => {}
            Err(why) => return Err(why.into()),
        }
    }
    Ok(futimens(file, &times(meta.mtime))?)
}

fn like(directory: &OwnedFd, stat: &Stat) -> Result<(), Error> {
    fchown(directory, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    fchmod(directory, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    Ok(futimens(directory, &of(stat))?)
}

fn times((seconds, nanos): (i64, u32)) -> Timestamps {
    let omit = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT as _ };
    Timestamps { last_access: omit, last_modification: Timespec { tv_sec: seconds, tv_nsec: nanos.into() } }
}

fn of(stat: &Stat) -> Timestamps {
    times((stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or_default()))
}

/// Writes all that is in memory of that file system to its disk.
pub fn sync(path: &Path) -> io::Result<()> {
    Ok(rustix::fs::syncfs(open(path, DIRECTORY, Mode::empty())?)?)
}
