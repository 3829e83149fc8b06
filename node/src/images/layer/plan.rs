//! What is to be done for an entry of a layer, decided without a look at any file system: pure, and the only place where a name out of a tar becomes a path.
//!
//! The rules: a leading slash means the image's root, as for every other runtime (ko writes such names); `..` is refused wherever it stands; device nodes are left
//! out below `dev`, where the runtime mounts a `/dev` of its own so that nobody would ever see them, and refused elsewhere, where they have no use but an attack;
//! `.wh.` names are whiteouts (OCI image specification, "Whiteouts") and nothing else. Of extended attributes file capabilities and `user.` ones are kept; the rest
//! belongs to the machine (overlayfs' own above all). What depends on what is there already, such as a parent that is a link, `tree` decides.

use super::tar::{Entry, Kind};
use std::{
    ffi::OsStr,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
};

/// Directories within directories.
const DEPTH: usize = 256;
/// `NAME_MAX` and `PATH_MAX`, bytes.
const LENGTH: (usize, usize) = (255, 4095);
/// The largest value of an extended attribute (`XATTR_SIZE_MAX`), bytes.
const XATTR: usize = 64 << 10;

/// Why an entry is not unpacked, nor the image that it is in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// `..`.
    #[error("it leads out of the image")]
    Traversal,
    /// No name, or NUL in it.
    #[error("its name is none")]
    Name,
    /// Longer or deeper than file systems take.
    #[error("its name is too long or more than {DEPTH} directories deep")]
    Long,
    /// `.wh.` and nothing sensible after it, or something below a whiteout.
    #[error("it is no valid whiteout")]
    Whiteout,
    /// A device outside of `dev`.
    #[error("it is a device node outside of /dev")]
    Device,
    /// Neither file, directory nor link.
    #[error("it is of a kind (type flag {0}) that images do not have")]
    Kind(u8),
    /// The root directory is something else.
    #[error("it would replace the image's root directory")]
    Root,
    /// No uid or gid.
    #[error("its owner {0}:{1} is none")]
    Owner(i64, i64),
    /// Too many entries.
    #[error("the layers have more than the {0} entries that are allowed")]
    Entries(u64),
    /// Something that it lies in is a symbolic link.
    #[error("it lies beyond a symbolic link")]
    Symlinked,
    /// Something that it lies in is no directory.
    #[error("what it lies in is no directory")]
    NoDirectory,
    /// A hard link to what is not there, is a directory, or is itself.
    #[error("it is a hard link to what is no file of the same layer")]
    Link,
}

/// A path within an image: relative, of plain names only. Empty: the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inside(PathBuf);

impl Inside {
    fn new(name: &[u8]) -> Result<Self, Refused> {
        let mut path = Vec::new();
        let mut depth = 0;
        for part in name.split(|byte| *byte == b'/') {
            match part {
                b"" | b"." => continue,
                b".." => return Err(Refused::Traversal),
                _ => {}
            }
            depth += 1;
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(part);
            if part.len() > LENGTH.0 || path.len() > LENGTH.1 || depth > DEPTH {
                return Err(Refused::Long);
            }
        }
        if path.contains(&0) {
            return Err(Refused::Name);
        }
        Ok(Self(PathBuf::from(std::ffi::OsString::from_vec(path))))
    }

    /// The path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// What it lies in, and its name there; none for the root.
    pub fn split(&self) -> Option<(&Path, &OsStr)> {
        Some((self.0.parent()?, self.0.file_name()?))
    }
}

/// Owner, mode, time and attributes of what is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    /// The twelve bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Seconds since 1970, and nanoseconds.
    pub mtime: (i64, u32),
    /// Names and values.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Make a directory, or change one.
    Directory(Inside, Meta),
    /// Make a file of what follows.
    File(Inside, Meta),
    /// Make a symbolic link with that content, which is never followed here.
    Symlink(Inside, PathBuf, Meta),
    /// Make another name for a file of this layer.
    Hardlink(Inside, Inside),
    /// Make a named pipe.
    Fifo(Inside, Meta),
    /// Hide what layers below have there.
    Whiteout(Inside),
    /// Hide all that layers below have in that directory.
    Opaque(Inside),
    /// Nothing.
    Skip,
}

/// Counts the entries of all layers of an image.
#[derive(Clone, Debug)]
pub struct Count {
    allowed: u64,
    seen: u64,
}

impl Count {
    /// So many are allowed.
    pub fn new(allowed: u64) -> Self {
        Self { allowed, seen: 0 }
    }
}

/// See the module.
pub fn plan(entry: &Entry, count: &mut Count) -> Result<Op, Refused> {
    count.seen += 1;
    if count.seen > count.allowed {
        return Err(Refused::Entries(count.allowed));
    }
    let at = Inside::new(&entry.path)?;
    let Some((parent, name)) = at.split() else {
        return match entry.kind {
            Kind::Directory if !entry.path.is_empty() => Ok(Op::Directory(at, meta(entry)?)),
            _ if entry.path.is_empty() => Err(Refused::Name),
            _ => Err(Refused::Root),
        };
    };
    // aufs keeps its own notes in `.wh..wh.` names; Docker once wrote them into layers.
    let aufs = |name: &OsStr| name.as_bytes().starts_with(b".wh..wh.");
    if parent.iter().any(aufs) {
        return Ok(Op::Skip);
    }
    if parent.iter().any(|name| name.as_bytes().starts_with(b".wh.")) {
        return Err(Refused::Whiteout);
    }
    if name == ".wh..wh..opq" {
        return Ok(Op::Opaque(Inside(parent.into())));
    }
    if aufs(name) {
        return Ok(Op::Skip);
    }
    if let Some(hidden) = name.as_bytes().strip_prefix(b".wh.") {
        return match hidden {
            b"" | b"." | b".." => Err(Refused::Whiteout),
            _ => Ok(Op::Whiteout(Inside(parent.join(OsStr::from_bytes(hidden))))),
        };
    }
    match entry.kind {
        Kind::File => Ok(Op::File(at, meta(entry)?)),
        Kind::Directory => Ok(Op::Directory(at, meta(entry)?)),
        Kind::Fifo => Ok(Op::Fifo(at, meta(entry)?)),
        Kind::Symlink if entry.link.is_empty() || entry.link.contains(&0) => Err(Refused::Name),
        Kind::Symlink if entry.link.len() > LENGTH.1 => Err(Refused::Long),
        Kind::Symlink => {
            let target = PathBuf::from(OsStr::from_bytes(&entry.link));
            Ok(Op::Symlink(at, target, meta(entry)?))
        }
        Kind::Hardlink => {
            let target = Inside::new(&entry.link)?;
            // Whiteouts are devices where they are unpacked, and no name leads to them.
            let odd = target == at || target.split().is_none() || target.path().iter().any(|name| name.as_bytes().starts_with(b".wh."));
            if odd { Err(Refused::Link) } else { Ok(Op::Hardlink(at, target)) }
        }
        Kind::Device if at.path().starts_with("dev") => Ok(Op::Skip),
        Kind::Device => Err(Refused::Device),
        Kind::Other(flag) => Err(Refused::Kind(flag)),
    }
}

fn meta(entry: &Entry) -> Result<Meta, Refused> {
    // The last one means "leave it" to chown.
    let id = |id: i64| u32::try_from(id).ok().filter(|id| *id != u32::MAX);
    let (Some(uid), Some(gid)) = (id(entry.uid), id(entry.gid)) else { return Err(Refused::Owner(entry.uid, entry.gid)) };
    let kept = |(name, value): &&(Vec<u8>, Vec<u8>)| {
        let user = name.starts_with(b"user.") && !name.starts_with(b"user.overlay.");
        (user || name == b"security.capability") && name.len() <= LENGTH.0 && value.len() <= XATTR && !name.contains(&0)
    };
    Ok(Meta { mode: (entry.mode & 0o7777) as u32, uid, gid, mtime: entry.mtime, xattrs: entry.xattrs.iter().filter(kept).cloned().collect() })
}
