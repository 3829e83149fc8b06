//! A container's volumes: cloned where the machine mounts them, and put where the container's file system is put together.
//!
//! Each is opened once, following no link, and cloned by descriptor, so that its path is looked up but once, whatever it comes to mean meanwhile. (What is a link in it now was put
//! there by the pod: CVE-2017-1002101 and CVE-2021-25741.) They are cloned in the machine's own mounts, and not in a worker's copy: only there is a clone a peer of what it was
//! cloned from, which is what `mountPropagation: Bidirectional` asks for.
#![allow(unsafe_code, reason = "mount_setattr")]

use crate::{
    config::Bind,
    rootfs::{self, said},
};
use coracle_runtime::{Mount, Propagation};
use rustix::{
    fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, openat2},
    mount::{MountFlags, OpenTreeFlags, mount, open_tree},
};
use std::{
    fs::{self, File},
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::Path,
};

/// A clone of a volume's mounts, which belongs to nobody yet.
pub struct Tree {
    fd: OwnedFd,
    directory: bool,
}

/// Clones all of them, those of images left out. In the machine's mount namespace.
///
/// # Errors
/// One is not there, has become a link, or is not shared in the way that is asked for.
pub fn open(mounts: &[Mount], users: Option<&OwnedFd>) -> io::Result<Vec<Option<Tree>>> {
    mounts.iter().map(|mount| if mount.layers.is_empty() { clone(mount, users).map(Some) } else { Ok(None) }).collect()
}

/// Brings what is at `path` to `place`, with the ids of those users.
///
/// # Errors
/// It is not there, or its file system cannot be mapped.
pub fn attach_mapped(path: &Path, users: &OwnedFd, place: &Path) -> io::Result<()> {
    attach(&Mount { host_path: fs::canonicalize(path)?, ..Mount::default() }, Some(users), place)
}

/// Brings a volume to `place`, with the ids of those users.
///
/// # Errors
/// As for [`open`].
pub fn attach(volume: &Mount, users: Option<&OwnedFd>, place: &Path) -> io::Result<()> {
    rootfs::attach(&clone(volume, users)?.fd, place)
}

fn clone(volume: &Mount, users: Option<&OwnedFd>) -> io::Result<Tree> {
    let path = &volume.host_path;
    let fd = openat2(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS);
    let fd = fd.map_err(|error| said("open the volume", path, error))?;
    let directory = FileType::from_raw_mode(fstat(&fd)?.st_mode) == FileType::Directory;
    is_shared(volume, &fd)?;
    let tree = whole(&fd).map_err(|error| said("clone the volume", path, error))?;
    let attributes = |recursive_read_only: bool| libc::mount_attr {
        attr_set: if recursive_read_only { libc::MOUNT_ATTR_RDONLY } else { 0 },
        attr_clr: 0,
        propagation: match volume.propagation {
            Propagation::None => libc::MS_PRIVATE,
            Propagation::HostToContainer => libc::MS_SLAVE,
            Propagation::Bidirectional => 0,
        },
        userns_fd: 0,
    };
    if let Some(users) = users {
        let attributes = libc::mount_attr {
            attr_set: libc::MOUNT_ATTR_IDMAP,
            attr_clr: 0,
            propagation: 0,
            userns_fd: u64::try_from(users.as_raw_fd()).unwrap_or(0),
        };
        set(&tree, &attributes).map_err(|error| {
            let why = if error.raw_os_error() == Some(libc::EINVAL) {
                "its file system cannot give it to the pod's users (hostUsers: false)".to_owned()
            } else {
                error.to_string()
            };
            said("map the ids of", path, why)
        })?;
    }
    set(&tree, &attributes(volume.recursive_read_only)).map_err(|error| said("set the attributes of the volume", path, error))?;
    Ok(Tree { fd: tree, directory })
}

/// A clone of all that is mounted there and below.
fn whole(fd: &impl AsFd) -> io::Result<OwnedFd> {
    // AT_EMPTY_PATH and AT_RECURSIVE, which rustix has as OpenTreeFlags.
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH | OpenTreeFlags::AT_RECURSIVE;
    Ok(open_tree(fd, "", flags)?)
}

/// Of all mounts of the tree.
fn set(tree: &OwnedFd, attributes: &libc::mount_attr) -> io::Result<()> {
    let (flags, size) = (libc::AT_EMPTY_PATH | libc::AT_RECURSIVE, size_of::<libc::mount_attr>());
    // SAFETY: the path is empty and ends with NUL, the struct lives as long as the call and its size is its own.
    match unsafe { libc::syscall(libc::SYS_mount_setattr, tree.as_raw_fd(), c"".as_ptr(), flags, std::ptr::from_ref(attributes), size) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// What is mounted there passes on what is mounted below it, as far as that is asked for. In containerd's words where it does not.
fn is_shared(volume: &Mount, fd: &OwnedFd) -> io::Result<()> {
    let (wanted, name): (&[&str], &str) = match volume.propagation {
        Propagation::None => return Ok(()),
        Propagation::HostToContainer => (&["shared:", "master:"], "shared or slave"),
        Propagation::Bidirectional => (&["shared:"], "shared"),
    };
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd()))?;
    let id = info.lines().find_map(|line| line.strip_prefix("mnt_id:")).map_or("", str::trim);
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let line = mounts.lines().find(|line| line.split(' ').next() == Some(id)).unwrap_or_default();
    // Number, parent, device, root, place, options, what is optional up to a dash (proc_pid_mountinfo(5)).
    let fields: Vec<&str> = line.split(' ').collect();
    if fields.iter().skip(6).take_while(|field| **field != "-").any(|field| wanted.iter().any(|kind| field.starts_with(kind))) {
        return Ok(());
    }
    let (path, place) = (volume.host_path.display(), fields.get(4).copied().unwrap_or_default());
    Err(io::Error::other(format!("path {path:?} is mounted on {place:?} but it is not a {name} mount")))
}

/// All volumes of a container, each at a place of its own below `dir`: `trees` as [`open`] gave them. In the worker's mounts.
///
/// # Errors
/// The kernel refuses one, or a path is not in its image.
pub fn place(mounts: &[Mount], trees: Vec<Option<Tree>>, dir: &Path, users: Option<&OwnedFd>) -> io::Result<Vec<Bind>> {
    fs::create_dir_all(dir)?;
    let one = |(number, (mount, tree)): (usize, (&Mount, Option<Tree>))| {
        let source = dir.join(number.to_string());
        let Tree { fd, directory } = match tree {
            Some(tree) => tree,
            None => image(mount, &dir.join(format!("{number}.image")), users)?,
        };
        if directory {
            fs::create_dir_all(&source)?;
        } else {
            File::create(&source)?;
        }
        rootfs::attach(&fd, &source)?;
        let read_only = mount.read_only || !mount.layers.is_empty();
        Ok(Bind { source, target: mount.container_path.clone(), read_only })
    };
    mounts.iter().zip(trees).enumerate().map(one).collect()
}

/// The content of an image (KEP-4639): nothing of it can be written, executed, or used as a device.
fn image(volume: &Mount, dir: &Path, users: Option<&OwnedFd>) -> io::Result<Tree> {
    let (root, empty) = (dir.join("root"), dir.join("empty"));
    for part in [&root, &empty] {
        fs::create_dir_all(part)?;
    }
    let layer = |path: &Path| {
        rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map_err(|error| said("open layer", path, error))
    };
    // Overlayfs wants two at least.
    let mapped = users.map(|users| rootfs::mapped(&volume.layers, users, &dir.join("layers"))).transpose()?;
    let layers: Vec<OwnedFd> =
        mapped.as_ref().unwrap_or(&volume.layers).iter().map(|path| layer(path)).chain([layer(&empty)]).collect::<io::Result<_>>()?;
    let names: Vec<String> = layers.iter().map(|fd| format!("/proc/self/fd/{}", fd.as_raw_fd())).collect();
    let data = std::ffi::CString::new(format!("lowerdir={}", names.join(":"))).map_err(io::Error::other)?;
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("overlay", &root, "overlay", flags, Some(data.as_c_str())).map_err(|error| said("mount the image's layers at", &root, error))?;
    let held = layer(&root)?;
    let path = volume.host_path.strip_prefix("/").unwrap_or(&volume.host_path);
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    // Its links lead within the image, as they would if it ran.
    let fd = openat2(&held, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS);
    let fd = fd.map_err(|error| said("open in the image", path, error))?;
    let directory = FileType::from_raw_mode(fstat(&fd)?.st_mode) == FileType::Directory;
    Ok(Tree { fd: whole(&fd)?, directory })
}
