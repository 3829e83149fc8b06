//! Paths that came from outside, made safe, and directories with a mode.

use rustix::{
    fs::{Mode, OFlags, ResolveFlags, fchmod, mkdirat, open, openat, openat2},
    io::Errno,
};
use std::{
    ffi::OsStr,
    fs,
    io::{self, Read},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::{DirBuilderExt, PermissionsExt},
    },
    path::{Component, Path, PathBuf},
};

/// How a path in a volume is followed.
const BENEATH: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_MAGICLINKS);

/// A volume's or container's name as one path component.
pub fn name(name: &str) -> Result<&str, String> {
    let plain = !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\0']);
    if plain { Ok(name) } else { Err(format!("{name:?} is no name for a directory")) }
}

/// A relative path without `..`, whose first component does not begin with two dots (those are the atomic writer's own).
pub fn relative(path: &str) -> Result<PathBuf, String> {
    let wrong = || format!("path {path:?} must be relative, without '..', and not begin with '..'");
    if path.is_empty() || path.starts_with("..") || path.contains('\0') {
        return Err(wrong());
    }
    let mut clean = PathBuf::new();
    for component in Path::new(path).components() {
        match component {
            Component::Normal(part) => clean.push(part),
            Component::CurDir => {}
            _ => return Err(wrong()),
        }
    }
    if clean.as_os_str().is_empty() { Err(wrong()) } else { Ok(clean) }
}

/// The same for a path that may be empty: the root then.
///
/// # Errors
/// As for [`relative`].
pub fn relative_or_root(path: &str) -> Result<PathBuf, String> {
    if path.is_empty() { Ok(PathBuf::from("/")) } else { relative(path) }
}

/// A directory with that mode, whatever the umask; parents get 0755.
pub fn make(path: &Path, mode: u32) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o755).create(path)?;
    if fs::metadata(path)?.permissions().mode() & 0o7777 != mode {
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    }
    Ok(())
}

/// What `subPath` means within a volume: the resolved place, which must lie inside. A directory is made when nothing is there.
///
/// A container that runs already may turn any part of the volume into a link meanwhile, so nothing is looked at by path twice: every step is
/// taken from the volume's own descriptor, and the kernel refuses a link that leads out (`RESOLVE_BENEATH`). The place that comes back has
/// no links in it; who opens it later follows none.
pub fn sub_path(volume: &Path, sub: &str) -> Result<PathBuf, String> {
    let wrong = |why: &dyn std::fmt::Display| format!("subPath {sub:?}: {why}");
    let relative = relative(sub).map_err(|why| wrong(&why))?;
    let root = open(volume, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map_err(|e| wrong(&e))?;
    let (mut at, mut walked) = (None, PathBuf::new());
    for part in relative.components() {
        walked.push(part);
        let parent = at.as_ref().unwrap_or(&root);
        at = Some(step(&root, parent, &walked, part.as_os_str()).map_err(|error| match error {
            Errno::XDEV => wrong(&"it leads out of the volume"),
            error => wrong(&error),
        })?);
    }
    let place = fs::read_link(format!("/proc/self/fd/{}", at.as_ref().unwrap_or(&root).as_raw_fd())).map_err(|e| wrong(&e))?;
    Ok(place)
}

/// What an ordinary file in a volume holds, which containers may change or make a link meanwhile: no link leads out.
///
/// # Errors
/// There is none, or it has more than `most` bytes.
pub fn read(volume: &Path, path: &str, most: u64) -> io::Result<Vec<u8>> {
    let root = open(volume, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let path = relative(path).map_err(io::Error::other)?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = openat2(&root, path, flags, Mode::empty(), BENEATH).map_err(|error| match error {
        Errno::XDEV => io::Error::other("it leads out of the volume"),
        error => error.into(),
    })?;
    let file = fs::File::from(file);
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no ordinary file"));
    }
    let mut bytes = Vec::new();
    if file.take(most + 1).read_to_end(&mut bytes)? as u64 > most {
        return Err(io::Error::other(format!("it is longer than {most} bytes")));
    }
    Ok(bytes)
}

/// What is at `walked`; `part` is its last component, in `parent`, where a directory is made if there is nothing.
fn step(root: &OwnedFd, parent: &OwnedFd, walked: &Path, part: &OsStr) -> Result<OwnedFd, Errno> {
    match openat2(root, walked, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), BENEATH) {
        Err(Errno::NOENT) => {}
        other => return other,
    }
    mkdirat(parent, part, Mode::from_raw_mode(0o777))?;
    let made = openat(parent, part, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    // Past the umask.
    fchmod(&made, Mode::from_raw_mode(0o777))?;
    Ok(made)
}
