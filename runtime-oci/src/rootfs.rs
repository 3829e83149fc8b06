//! A container's file system: its image's layers under a writable one, and its volumes, in a mount namespace that goes with the container.
//!
//! Everything is done through descriptors, so that no path is looked up twice: layers are named to overlayfs as `/proc/self/fd/…` (which also keeps a hundred of
//! them within the one page that mount(2) takes), volumes are cloned from what was opened without following a link.

use crate::config::Device;
use rustix::{
    fs::{CWD, Mode, OFlags, ResolveFlags, mkdirat, open, openat2, readlinkat},
    io::Errno,
    mount::{MountFlags, MoveMountFlags, OpenTreeFlags, mount, move_mount, open_tree},
};
use std::{
    collections::VecDeque,
    ffi::OsString,
    fs, io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::{
            ffi::OsStringExt,
            fs::{FileTypeExt, MetadataExt},
        },
    },
    path::{Component, Path, PathBuf},
};

/// Links that are followed in one path, as by the kernel.
const LINKS: u32 = 40;

pub(crate) fn said(what: &str, path: &Path, error: impl std::fmt::Display) -> io::Error {
    io::Error::other(format!("{what} {}: {error}", path.display()))
}

/// Mounts `layers` (topmost first) under `upper` at `target`.
///
/// # Errors
/// A layer is not there, or overlayfs refuses them.
pub fn overlay(layers: &[PathBuf], upper: &Path, work: &Path, target: &Path) -> io::Result<()> {
    let dir =
        |path: &Path| open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map_err(|error| said("open layer", path, error));
    let name = |fd: &OwnedFd| format!("/proc/self/fd/{}", fd.as_raw_fd());
    let lower: Vec<OwnedFd> = layers.iter().map(|path| dir(path)).collect::<io::Result<_>>()?;
    let names: Vec<String> = lower.iter().map(name).collect();
    let (upper, work) = (dir(upper)?, dir(work)?);
    let data = format!("lowerdir={},upperdir={},workdir={}", names.join(":"), name(&upper), name(&work));
    let data = std::ffi::CString::new(data).map_err(io::Error::other)?;
    mount("overlay", target, "overlay", MountFlags::empty(), Some(data.as_c_str()))
        .map_err(|error| said("mount the image's layers at", target, error))
}

/// Gives the writable layer the mode and owner that the topmost one has, since they become those of the root directory. `first` is the machine's number of the
/// container's user 0.
///
/// # Errors
/// There is no layer.
pub fn like_root(layers: &[PathBuf], upper: &Path, first: u32) -> io::Result<()> {
    let top = layers.first().ok_or_else(|| io::Error::other("the image has no layers"))?;
    let meta = fs::metadata(top).map_err(|error| said("look at layer", top, error))?;
    std::os::unix::fs::chown(upper, Some(first.saturating_add(meta.uid())), Some(first.saturating_add(meta.gid())))?;
    fs::set_permissions(upper, meta.permissions())
}

/// Makes the directory `path` of the container, as its links lead within it; nothing when something is there already. It is `owner`'s.
///
/// # Errors
/// A part of it is no directory.
pub fn make_directory(root: &Path, path: &Path, owner: u32) -> io::Result<()> {
    let root = open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let enter = |path: &Path| openat2(&root, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty(), resolve);
    let (mut at, mut parent) = (PathBuf::from("."), enter(Path::new("."))?);
    for part in path.components() {
        let Component::Normal(name) = part else { continue };
        at.push(name);
        parent = match enter(&at) {
            Err(Errno::NOENT) => {
                mkdirat(&parent, name, Mode::from_raw_mode(0o755))?;
                let made = enter(&at)?;
                if owner != 0 {
                    let (uid, gid) = (rustix::fs::Uid::from_raw(owner), rustix::fs::Gid::from_raw(owner));
                    rustix::fs::chownat(&made, "", Some(uid), Some(gid), rustix::fs::AtFlags::EMPTY_PATH)?;
                }
                made
            }
            found => found?,
        };
    }
    Ok(())
}

/// Where `path` of the container is, as its links lead within it, those included that lead to what is not there yet.
///
/// # Errors
/// The root is not there, or links lead in a circle.
pub fn place(root: &Path, path: &Path) -> io::Result<PathBuf> {
    let held = open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let mut rest: VecDeque<OsString> = path.components().map(|part| part.as_os_str().to_owned()).collect();
    let (mut at, mut links) = (PathBuf::from("/"), 0);
    while let Some(part) = rest.pop_front() {
        match Path::new(&part).components().next() {
            Some(Component::RootDir) => at = PathBuf::from("/"),
            Some(Component::ParentDir) => _ = at.pop(),
            Some(Component::Normal(name)) => {
                // No link is left in `at`, so that this looks at the name alone.
                let next = at.join(name);
                let fd = openat2(&held, &next, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty(), resolve);
                let target = fd.ok().and_then(|fd| readlinkat(&fd, "", Vec::new()).ok());
                let Some(target) = target else {
                    at = next;
                    continue;
                };
                links += 1;
                if links > LINKS {
                    return Err(said("follow links of", path, "too many of them"));
                }
                let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
                for part in target.components().rev() {
                    rest.push_front(part.as_os_str().to_owned());
                }
            }
            _ => {}
        }
    }
    Ok(at)
}

/// A place that everybody gets to, in the worker's own mounts; what it hides there is not `needed`.
///
/// # Errors
/// The kernel refuses.
pub fn stage(needed: &Path) -> io::Result<PathBuf> {
    let free = |place: &&str| Path::new(place).is_dir() && !needed.starts_with(place);
    let place = ["/mnt", "/media", "/tmp"].into_iter().find(free).map(PathBuf::from);
    let place = place.ok_or_else(|| io::Error::other("neither /mnt nor /media nor /tmp is there to put a container together in"))?;
    mount("stage", &place, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, Some(c"mode=755")).map_err(|error| said("mount at", &place, error))?;
    Ok(place)
}

/// The layers with the ids of those users, each at a place of its own below `dir`.
///
/// # Errors
/// Their file system cannot be mapped.
pub fn mapped(layers: &[PathBuf], users: &OwnedFd, dir: &Path) -> io::Result<Vec<PathBuf>> {
    let one = |(number, layer): (usize, &PathBuf)| {
        let place = dir.join(number.to_string());
        fs::create_dir_all(&place)?;
        crate::volumes::attach_mapped(layer, users, &place).map(|()| place)
    };
    layers.iter().enumerate().map(one).collect()
}

/// A copy of the mount at `path`, belonging to nobody yet.
///
/// # Errors
/// It is no mount, or we may not.
pub fn clone_mount(path: &Path) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    open_tree(CWD, path, flags).map_err(|error| said("clone the mount", path, error))
}

/// Puts a mount that belongs to nobody at `target`.
///
/// # Errors
/// The kernel refuses.
pub fn attach(tree: &OwnedFd, target: &Path) -> io::Result<()> {
    move_mount(tree.as_fd(), "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).map_err(|error| said("mount at", target, error))
}

/// The machine's devices, for a privileged container: what is below /dev but what every container has of its own.
pub fn devices() -> Vec<Device> {
    let mut found = Vec::new();
    walk(Path::new("/dev"), &mut found);
    found
}

fn walk(dir: &Path, found: &mut Vec<Device>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let (Ok(kind), Ok(meta)) = (entry.file_type(), entry.metadata()) else { continue };
        if kind.is_dir() && !["pts", "shm", "fd", "mqueue", ".udev"].iter().any(|own| name == *own) {
            walk(&path, found);
        } else if (kind.is_block_device() || kind.is_char_device()) && path != Path::new("/dev/console") {
            let number = (u64::from(rustix::fs::major(meta.rdev())), u64::from(rustix::fs::minor(meta.rdev())));
            found.push(Device { path, block: kind.is_block_device(), number, access: (meta.mode() & 0o7777, meta.uid(), meta.gid()) });
        }
    }
}
