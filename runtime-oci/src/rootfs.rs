//! A container's file system: its image's layers under a writable one, and its volumes, in a mount namespace that goes with the container.
//!
//! Everything is done through descriptors, so that no path is looked up twice: layers are named to overlayfs as `/proc/self/fd/…` (which also keeps a hundred of
//! them within the one page that mount(2) takes), volumes are cloned from what was opened without following a link.

use crate::config::{Bind, Device};
use coracle_runtime::Mount;
use rustix::{
    fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, mkdirat, open, openat2},
    io::Errno,
    mount::{MountFlags, MoveMountFlags, OpenTreeFlags, mount, move_mount, open_tree},
};
use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::fs::{FileTypeExt, MetadataExt},
    },
    path::{Component, Path, PathBuf},
};

fn said(what: &str, path: &Path, error: impl std::fmt::Display) -> io::Error {
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

/// Gives the writable layer the mode and owner that the topmost one has, since they become those of the root directory.
///
/// # Errors
/// There is no layer.
pub fn like_root(layers: &[PathBuf], upper: &Path) -> io::Result<()> {
    let top = layers.first().ok_or_else(|| io::Error::other("the image has no layers"))?;
    let meta = fs::metadata(top).map_err(|error| said("look at layer", top, error))?;
    std::os::unix::fs::chown(upper, Some(meta.uid()), Some(meta.gid()))?;
    fs::set_permissions(upper, meta.permissions())
}

/// Makes the directory `path` of the container, as its links lead within it; nothing when something is there already.
///
/// # Errors
/// A part of it is no directory.
pub fn make_directory(root: &Path, path: &Path) -> io::Result<()> {
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
                enter(&at)?
            }
            found => found?,
        };
    }
    Ok(())
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

/// Brings a volume to `target`, whatever its path comes to mean meanwhile: opened once, following no link. (What is a link in it now was put there by the
/// pod, CVE-2017-1002101 and CVE-2021-25741.)
///
/// # Errors
/// It is not there, or has become a link.
pub fn stage(volume: &Mount, target: &Path) -> io::Result<()> {
    let path = &volume.host_path;
    let fd = openat2(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS);
    let fd = fd.map_err(|error| said("open the volume", path, error))?;
    let directory = FileType::from_raw_mode(fstat(&fd)?.st_mode) == FileType::Directory;
    if directory {
        fs::create_dir_all(target)?;
    } else {
        File::create(target)?;
    }
    // AT_EMPTY_PATH and AT_RECURSIVE, which rustix has as OpenTreeFlags.
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH | OpenTreeFlags::AT_RECURSIVE;
    let tree = open_tree(&fd, "", flags).map_err(|error| said("clone the volume", path, error))?;
    attach(&tree, target)
}

/// All volumes of a container, each at a place of its own below `dir`.
///
/// # Errors
/// See [`stage`].
pub fn volumes(mounts: &[Mount], dir: &Path) -> io::Result<Vec<Bind>> {
    fs::create_dir_all(dir)?;
    let one = |(number, mount): (usize, &Mount)| {
        let source = dir.join(number.to_string());
        stage(mount, &source)?;
        Ok(Bind { source, target: mount.container_path.clone(), read_only: mount.read_only })
    };
    mounts.iter().enumerate().map(one).collect()
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
