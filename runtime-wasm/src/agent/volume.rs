//! Volumes as hosts get them: descriptors of directories, of mounts of their own.
//!
//! What else is in a pod may make device nodes in a volume that it shares, and a host is not in that container's control group: so devices and set-user-id
//! programs mean nothing there.
#![allow(unsafe_code, reason = "mount_setattr")]

use super::failed;
use coracle_runtime::{Error, Mount};
use rustix::{
    fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2},
    io::Errno,
    mount::{OpenTreeFlags, open_tree},
};
use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
    sync::Arc,
};

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Follows no link: the path was resolved when it was checked, and what is one now was put there by a guest that writes the volume.
///
/// # Errors
/// It is not there, or no directory of this machine.
pub(super) fn open(mount: &Mount) -> Result<Arc<OwnedFd>, Error> {
    if !mount.layers.is_empty() {
        return Err(no_image(mount));
    }
    let opened = openat2(CWD, &mount.host_path, DIRECTORY, Mode::empty(), ResolveFlags::NO_SYMLINKS).map_err(io::Error::from);
    let apart = opened.and_then(|dir| apart(&dir).map(|apart| apart.unwrap_or(dir)));
    apart.map(Arc::new).map_err(|error| failed("opening volume", &mount.host_path, &error))
}

/// What a component cannot have: see [`open`].
pub(super) fn no_image(mount: &Mount) -> Error {
    Error::fatal(
        "CreateContainerConfigError",
        format!("{} is an image volume, which WebAssembly components cannot have; use a configMap or an emptyDir", mount.container_path),
    )
}

/// The directory in a clone of what is mounted there, without devices; none for an ordinary user, who cannot have made any.
fn apart(dir: &OwnedFd) -> io::Result<Option<OwnedFd>> {
    // AT_EMPTY_PATH and AT_RECURSIVE, which rustix has as OpenTreeFlags.
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH | OpenTreeFlags::AT_RECURSIVE;
    let tree = match open_tree(dir, "", flags) {
        Err(Errno::PERM) if !rustix::process::geteuid().is_root() => return Ok(None),
        tree => tree?,
    };
    let attributes = libc::mount_attr { attr_set: libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOSUID, attr_clr: 0, propagation: 0, userns_fd: 0 };
    let (flags, size) = (libc::AT_EMPTY_PATH | libc::AT_RECURSIVE, size_of::<libc::mount_attr>());
    // SAFETY: the path is empty and ends with NUL, the struct lives as long as the call and its size is its own.
    if unsafe { libc::syscall(libc::SYS_mount_setattr, tree.as_raw_fd(), c"".as_ptr(), flags, std::ptr::from_ref(&attributes), size) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // The clone's own descriptor is a place, not a directory that can be read.
    Ok(Some(openat(&tree, ".", DIRECTORY, Mode::empty())?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::stat::{Mode as Bits, SFlag, makedev, mknodat};
    use std::fs;

    #[test]
    fn devices_in_a_volume_mean_nothing() {
        if !rustix::process::geteuid().is_root() {
            return eprintln!("skipped: needs root");
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap();
        fs::write(path.join("file"), "x").unwrap();
        let null = path.join("null");
        if let Err(error) = mknodat(nix::fcntl::AT_FDCWD, &null, SFlag::S_IFCHR, Bits::from_bits_truncate(0o666), makedev(1, 3)) {
            return eprintln!("skipped: no device can be made here: {error}");
        }
        assert!(fs::File::open(&null).is_ok());
        let volume = open(&Mount { host_path: path, container_path: "/v".into(), ..Mount::default() }).unwrap();
        let open = |name: &str| rustix::fs::openat(&*volume, name, OFlags::RDONLY, Mode::empty());
        assert_eq!(open("null").unwrap_err(), Errno::ACCESS);
        assert!(open("file").is_ok() && rustix::fs::Dir::read_from(&*volume).unwrap().count() >= 2);
    }

    #[test]
    fn an_image_is_no_directory_of_this_machine() {
        let mount = Mount { host_path: "/".into(), container_path: "/v".into(), layers: vec!["/layer".into()], ..Mount::default() };
        assert!(open(&mount).unwrap_err().message.contains("image volume"));
    }
}
