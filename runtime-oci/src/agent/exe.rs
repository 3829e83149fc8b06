//! The binary as the nursery is started from it: what runs there cannot be written through `/proc/<pid>/exe`.
//!
//! Like runc: a read-only overlay mount of the binary's directory that is mounted nowhere, which costs nothing and shares the page cache; else a sealed copy in
//! memory. One for all shims, since they are forks.

use rustix::{
    fs::{MemfdFlags, Mode, OFlags, SealFlags, fcntl_add_seals, memfd_create, openat},
    mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen},
};
use std::{
    fs::{self, File},
    io,
    os::{fd::OwnedFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
};

/// Opens it; `exe` is the binary, `empty` a directory of ours for overlayfs's second layer.
///
/// # Errors
/// It cannot be read.
pub fn open(exe: &Path, empty: &Path) -> io::Result<OwnedFd> {
    match overlay(exe, empty) {
        Ok(fd) => Ok(fd),
        Err(error) => {
            tracing::debug!(%error, "no read-only view of the binary; a copy in memory is used");
            copy(exe)
        }
    }
}

fn overlay(exe: &Path, empty: &Path) -> io::Result<OwnedFd> {
    let (Some(dir), Some(name)) = (exe.parent(), exe.file_name()) else { return Err(io::Error::other("the binary has no directory")) };
    let fs = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let layers = format!("{}:{}", dir.display(), empty.display());
    fsconfig_set_string(&fs, "lowerdir", layers)?;
    fsconfig_create(&fs)?;
    let mount = fsmount(
        &fs,
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOSUID,
    )?;
    let fd = openat(&mount, name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    // An update may have put another file there; the shims are to be what the agent is.
    let (there, here) = (rustix::fs::fstat(&fd)?, fs::metadata(exe_of_this_process(exe))?);
    if (u64::try_from(there.st_size).ok(), there.st_mtime) != (Some(here.size()), here.mtime()) {
        return Err(io::Error::other("the binary was replaced on disk"));
    }
    Ok(fd)
}

/// Itself, where it is the one that runs.
fn exe_of_this_process(exe: &Path) -> &Path {
    let own = Path::new("/proc/self/exe");
    match (fs::read_link(own), exe.to_path_buf()) {
        // A file that was replaced or removed is called so.
        (Ok(link), exe) if link == exe || link == with_suffix(&exe) => own,
        _ => exe,
    }
}

fn with_suffix(exe: &Path) -> PathBuf {
    let mut name = exe.as_os_str().to_owned();
    name.push(" (deleted)");
    name.into()
}

fn copy(exe: &Path) -> io::Result<OwnedFd> {
    let exe = exe_of_this_process(exe);
    let fd = memfd_create("coracle", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut file = File::from(fd);
    io::copy(&mut File::open(exe)?, &mut file)?;
    fcntl_add_seals(&file, SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE)?;
    Ok(file.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{io::Read, os::fd::AsRawFd};

    #[test]
    fn a_copy_cannot_be_changed() {
        let dir = tempfile::tempdir().unwrap();
        let exe = dir.path().join("exe");
        fs::write(&exe, "the program").unwrap();
        let fd = copy(&exe).unwrap();
        let again = format!("/proc/self/fd/{}", fd.as_raw_fd());
        let mut text = String::new();
        File::open(&again).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "the program");
        let write = File::options().write(true).open(&again).and_then(|mut file| io::Write::write_all(&mut file, b"other"));
        assert!(write.is_err());
    }

    #[test]
    fn a_view_cannot_be_changed_either() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("SKIPPED: mounting needs root");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let (exe, empty) = (dir.path().join("bin/exe"), dir.path().join("empty"));
        fs::create_dir_all(&empty).unwrap();
        fs::create_dir_all(exe.parent().unwrap()).unwrap();
        fs::write(&exe, "the program").unwrap();
        let fd = overlay(&exe, &empty).unwrap();
        let again = format!("/proc/self/fd/{}", fd.as_raw_fd());
        assert_eq!(fs::read_to_string(&again).unwrap(), "the program");
        assert!(File::options().write(true).open(&again).is_err());
    }
}
