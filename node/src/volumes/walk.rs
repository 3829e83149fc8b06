//! How much a directory tree holds, counted as `du` does: allocated blocks, hard links once, nothing beyond links.

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, openat, statat};
use std::{
    collections::HashSet,
    ffi::CString,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    rc::Rc,
};

/// Directories within directories; each level is held open.
const DEPTH: usize = 256;

/// Why a tree was not measured.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Somebody does not want it measured.
    #[error("its directories are nested more than {DEPTH} deep")]
    Deep,
    /// It cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What a tree holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// Allocated bytes.
    pub bytes: u64,
    /// Files and directories, the root itself included.
    pub inodes: u64,
}

impl Used {
    /// Both together.
    pub fn plus(self, other: Self) -> Self {
        Self { bytes: self.bytes.saturating_add(other.bytes), inodes: self.inodes.saturating_add(other.inodes) }
    }
}

/// What is below `root`. `enter` is called with each directory before it is read.
pub fn usage(root: &Path, enter: &mut dyn FnMut(BorrowedFd<'_>)) -> Result<Used, Error> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = |at: BorrowedFd<'_>, name: &std::ffi::CStr| openat(at, name, flags, Mode::empty());
    let root = Rc::new(openat(CWD, root, flags, Mode::empty()).map_err(io::Error::from)?);
    let mut linked = HashSet::new();
    let mut total = Used { bytes: 0, inodes: 1 };
    // Directories yet to be read: within which, by what name, how deep. By name, so that only those on the way down are open.
    let mut waiting: Vec<(Rc<OwnedFd>, CString, usize)> = vec![(root, c".".into(), 0)];
    while let Some((parent, name, depth)) = waiting.pop() {
        let directory = match open(parent.as_fd(), &name) {
            Ok(directory) => Rc::new(directory),
            // Gone, or something else by now.
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP) => continue,
            Err(error) => return Err(io::Error::from(error).into()),
        };
        drop(parent);
        enter(directory.as_fd());
        let entries = Dir::read_from(&*directory).map_err(io::Error::from)?;
        for entry in entries {
            let entry = entry.map_err(io::Error::from)?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let Ok(stat) = statat(&*directory, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                if depth >= DEPTH {
                    return Err(Error::Deep);
                }
                waiting.push((directory.clone(), name.into(), depth + 1));
            } else if stat.st_nlink > 1 && !linked.insert((stat.st_dev, stat.st_ino)) {
                continue;
            }
            total = total.plus(Used { bytes: u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512), inodes: 1 });
        }
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::symlink};

    #[test]
    fn counts_what_is_there_once() {
        let dir = tempfile::tempdir().unwrap();
        let (root, big) = (dir.path().join("volume"), vec![1; 1 << 20]);
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::write(dir.path().join("elsewhere"), &big).unwrap();
        fs::write(root.join("a/b/big"), &big).unwrap();
        fs::hard_link(root.join("a/b/big"), root.join("again")).unwrap();
        symlink(dir.path(), root.join("a/up")).unwrap();
        symlink(dir.path().join("elsewhere"), root.join("link")).unwrap();
        fs::File::create(root.join("sparse")).unwrap().set_len(1 << 30).unwrap();
        let mut entered = 0;
        let used = usage(&root, &mut |_| entered += 1).unwrap();
        assert_eq!(entered, 3);
        assert!((1 << 20..1 << 20 | 64 << 10).contains(&used.bytes), "{used:?}");
        assert_eq!(used.inodes, 7, "itself, two directories, a file of two names, two links, a sparse file");
        assert!(usage(&dir.path().join("none"), &mut |_| {}).is_err());
    }

    #[test]
    fn a_tree_without_end_is_said_to_be_one() {
        let dir = tempfile::tempdir().unwrap();
        let path: std::path::PathBuf = std::iter::repeat_n("d", DEPTH + 2).collect();
        fs::create_dir_all(dir.path().join(path)).unwrap();
        assert!(matches!(usage(dir.path(), &mut |_| {}), Err(Error::Deep)));
    }
}
