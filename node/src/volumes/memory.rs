//! emptyDir with `medium: Memory`: a tmpfs of its own, which only root can mount.
//!
//! It is a mount of the machine, so it stays while no agent runs and is found again; what no pod owns is unmounted before its directory is removed.

use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
};
use std::{fs, io, os::unix::fs::MetadataExt, path::Path};

const TMPFS_MAGIC: i64 = 0x0102_1994;

/// Mounts it at the directory `path`, of at most `bytes`, unless it is there. False when this user may not mount.
pub fn set_up(path: &Path, bytes: u64) -> io::Result<bool> {
    if mounted(path)? {
        return Ok(true);
    }
    let mount = |more: &str| {
        let options = format!("size={bytes},mode=0777{more}");
        mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some(options.as_str()))
    };
    // What is to stay in memory is not swapped out (Linux 6.3).
    match mount(",noswap").or_else(|error| if error == Errno::EINVAL { mount("") } else { Err(error) }) {
        Ok(()) => Ok(true),
        Err(Errno::EPERM | Errno::EACCES) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Is something else mounted on this directory, of the kind that [`set_up`] mounts?
fn mounted(path: &Path) -> io::Result<bool> {
    let statfs = rustix::fs::statfs(path)?;
    Ok(is_mount(path)? && statfs.f_type == TMPFS_MAGIC)
}

fn is_mount(path: &Path) -> io::Result<bool> {
    let parent = path.parent().ok_or_else(|| io::Error::other("a volume is not the root directory"))?;
    Ok(fs::symlink_metadata(path)?.dev() != fs::symlink_metadata(parent)?.dev())
}

/// Unmounts whatever is mounted on the entries of `volumes`; what is still in use goes with its last user.
pub fn tear_down(volumes: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(volumes) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        // More than once where an agent that was killed in between mounted twice.
        while is_mount(&path)? {
            umount2(&path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tmpfs_is_mounted_once_bounded_and_goes_with_its_pod() {
        let dir = tempfile::tempdir().unwrap();
        let (volumes, volume) = (dir.path().join("volumes"), dir.path().join("volumes/fast"));
        fs::create_dir_all(&volume).unwrap();
        fs::create_dir_all(volumes.join("plain")).unwrap();
        if !set_up(&volume, 1 << 20).unwrap() {
            eprintln!("no right to mount: not tested");
            return;
        }
        fs::write(volume.join("kept"), b"x").unwrap();
        assert!(set_up(&volume, 1 << 20).unwrap());
        assert_eq!(fs::read(volume.join("kept")).unwrap(), b"x", "found again, not mounted over");
        assert_eq!(fs::metadata(&volume).unwrap().mode() & 0o777, 0o777);
        let error = fs::write(volume.join("large"), vec![1; 2 << 20]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        let held = fs::File::open(volume.join("kept")).unwrap();
        tear_down(&volumes).unwrap();
        assert!(!volume.join("kept").exists() && volumes.join("plain").exists());
        drop(held);
        tear_down(&dir.path().join("none")).unwrap();
        fs::remove_dir_all(&volumes).unwrap();
    }
}
