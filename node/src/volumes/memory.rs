//! emptyDir with `medium: Memory` or `HugePages`: a tmpfs or hugetlbfs of its own, which only root can mount.
//!
//! It is a mount of the machine, so it stays while no agent runs and is found again; what no pod owns is unmounted before its directory is removed.

use crate::pods::{spec::Pod, work::linux::page_size as of_resource};
use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
};
use std::{collections::BTreeSet, fs, io, os::unix::fs::MetadataExt, path::Path};

const TMPFS_MAGIC: i64 = 0x0102_1994;
const HUGETLBFS_MAGIC: i64 = 0x9584_58f6;

/// What a volume is made of.
#[derive(Clone, Copy, Debug)]
pub enum Medium {
    /// So many bytes at most.
    Memory {
        /// Bytes.
        bytes: u64,
    },
    /// Huge pages, as many as its users may have.
    HugePages {
        /// Bytes of each.
        page: u64,
    },
}

/// The size of a volume's pages, bytes: what its medium (`HugePages-2Mi`) says, or that of all the pod's huge pages.
///
/// # Errors
/// No container asks for such pages, or they ask for several sizes and the medium names none; in upstream's words.
pub fn page_size(medium: &str, pod: &Pod) -> Result<u64, String> {
    let lists = pod.spec.containers.iter().chain(&pod.spec.init_containers).map(|container| &container.resources.requests);
    let asked: BTreeSet<u64> =
        lists.chain([&pod.spec.resources.requests]).flat_map(|list| list.keys()).filter_map(|name| of_resource(name)).collect();
    let wanted = of_resource(&medium.replace("HugePages-", "hugepages-"));
    let mut sizes = asked.into_iter().filter(|size| wanted.is_none_or(|wanted| wanted == *size));
    match (sizes.next(), sizes.next()) {
        (Some(size), None) => Ok(size),
        (Some(_), Some(_)) => Err(format!("medium: {medium} can't be used if container requests multiple huge page sizes")),
        (None, _) => Err(format!("medium {medium}: hugePages storage requested, but there is no resource request for huge pages")),
    }
}

/// Mounts it at the directory `path`, unless it is there. False when this user may not mount.
pub fn set_up(path: &Path, medium: Medium) -> io::Result<bool> {
    let (kind, magic, options) = match medium {
        Medium::Memory { bytes } => ("tmpfs", TMPFS_MAGIC, format!("size={bytes},mode=0777")),
        Medium::HugePages { page } => ("hugetlbfs", HUGETLBFS_MAGIC, format!("pagesize={page},mode=0777")),
    };
    if is_mount(path)? && rustix::fs::statfs(path)?.f_type == magic {
        return Ok(true);
    }
    let mount = |more: &str| {
        let options = format!("{options}{more}");
        mount(Some(kind), path, Some(kind), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some(options.as_str()))
    };
    // What is to stay in memory is not swapped out (Linux 6.3).
    match mount(",noswap").or_else(|error| if error == Errno::EINVAL { mount("") } else { Err(error) }) {
        Ok(()) => Ok(true),
        Err(Errno::EPERM | Errno::EACCES) => Ok(false),
        Err(error) => Err(error.into()),
    }
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
        let medium = Medium::Memory { bytes: 1 << 20 };
        if !set_up(&volume, medium).unwrap() {
            eprintln!("no right to mount: not tested");
            return;
        }
        fs::write(volume.join("kept"), b"x").unwrap();
        assert!(set_up(&volume, medium).unwrap());
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

    #[test]
    fn huge_pages_are_a_file_system_of_their_own() {
        let dir = tempfile::tempdir().unwrap();
        let (volumes, volume) = (dir.path().join("volumes"), dir.path().join("volumes/huge"));
        fs::create_dir_all(&volume).unwrap();
        let sizes = coracle_runtime::cgroup::pages::sizes();
        let Some(page) = sizes.into_iter().min().filter(|page| set_up(&volume, Medium::HugePages { page: *page }).unwrap()) else {
            eprintln!("no huge pages, or no right to mount: not tested");
            return;
        };
        assert!(set_up(&volume, Medium::HugePages { page }).unwrap());
        let there = rustix::fs::statfs(&volume).unwrap();
        assert_eq!((there.f_type, u64::try_from(there.f_bsize).unwrap()), (HUGETLBFS_MAGIC, page));
        tear_down(&volumes).unwrap();
        assert!(!is_mount(&volume).unwrap(), "found again, not mounted over");
    }

    #[test]
    fn the_size_of_pages_is_what_containers_ask_for() {
        let size = |medium: &str, requests: serde_json::Value| {
            let pod: Pod =
                serde_json::from_value(serde_json::json!({ "spec": { "containers": [{}, { "resources": { "requests": requests } }] } })).unwrap();
            page_size(medium, &pod)
        };
        let (one, two) = (serde_json::json!({ "hugepages-2Mi": "2Mi" }), serde_json::json!({ "hugepages-2Mi": "2Mi", "hugepages-1Gi": "1Gi" }));
        assert_eq!(size("HugePages", one.clone()), Ok(2 << 20));
        assert_eq!(size("HugePages-1Gi", two.clone()), Ok(1 << 30));
        assert!(size("HugePages", two).unwrap_err().ends_with("multiple huge page sizes"));
        for (medium, requests) in [("HugePages-1Gi", one), ("HugePages", serde_json::json!({ "memory": "1Gi" }))] {
            let why = format!("medium {medium}: hugePages storage requested, but there is no resource request for huge pages");
            assert_eq!(size(medium, requests), Err(why));
        }
    }
}
