//! Trees that others have filled are removed with room that does not depend on them.
//!
//! What goes down a tree by recursion (std's `remove_dir_all`) takes a stack frame and a descriptor a level, and whoever ran in the tree chose how deep it is: some ten
//! thousand levels end the process. Here a directory that is not empty is moved up to the top, and is looked at there.

use rustix::{
    fd::OwnedFd,
    fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, openat, renameat, unlinkat},
    io::Errno,
};
use std::{
    ffi::{CStr, CString},
    hash::{BuildHasher, RandomState},
    io,
    path::Path,
};

/// Removes a directory with all that is in it; follows no link. One that is not there is removed already. Blocks.
///
/// # Errors
/// The file system's; what is left can be removed by another call.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    let top = match open(CWD, path) {
        Ok(top) => top,
        Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    // Nobody inside can have made names that these meet.
    let mark = RandomState::new().hash_one(path);
    let mut moved = 0u64;
    loop {
        let entries = entries(&top)?;
        if entries.is_empty() {
            return Ok(unlinkat(CWD, path, AtFlags::REMOVEDIR)?);
        }
        for (name, directory) in entries {
            if gone(&top, &name, directory)? {
                continue;
            }
            let inner = open(&top, &name)?;
            for (child, directory) in self::entries(&inner)? {
                if !gone(&inner, &child, directory)? {
                    moved += 1;
                    renameat(&inner, &child, &top, format!(".{mark:016x}-{moved}"))?;
                }
            }
            gone(&top, &name, true)?;
        }
    }
}

fn open(at: impl rustix::fd::AsFd, name: impl rustix::path::Arg) -> Result<OwnedFd, Errno> {
    openat(at, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// Removes an entry, unless it is a directory with something in it.
fn gone(at: &OwnedFd, name: &CStr, directory: bool) -> io::Result<bool> {
    let removed = match unlinkat(at, name, if directory { AtFlags::REMOVEDIR } else { AtFlags::empty() }) {
        // It was taken for the other.
        Err(Errno::NOTDIR) => unlinkat(at, name, AtFlags::empty()),
        Err(Errno::ISDIR | Errno::PERM) if !directory => unlinkat(at, name, AtFlags::REMOVEDIR),
        other => other,
    };
    match removed {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The first names in a directory, and which are directories.
fn entries(at: &OwnedFd) -> io::Result<Vec<(CString, bool)>> {
    /// More come with the next look.
    const AT_ONCE: usize = 4096;
    let mut names = Vec::new();
    for entry in Dir::read_from(at)? {
        let entry = entry?;
        if entry.file_name() != c"." && entry.file_name() != c".." {
            names.push((entry.file_name().to_owned(), entry.file_type() == FileType::Directory));
        }
        if names.len() == AT_ONCE {
            break;
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::mkdirat;
    use std::fs;

    #[test]
    fn no_depth_is_too_deep() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir(&tree).unwrap();
        let mut at = open(CWD, &tree).unwrap();
        for _ in 0..20_000 {
            mkdirat(&at, c"d", Mode::RWXU).unwrap();
            at = open(&at, c"d").unwrap();
        }
        drop(at);
        remove_tree(&tree).unwrap();
        assert!(!tree.exists());
        remove_tree(&tree).unwrap();
    }

    #[test]
    fn many_entries_go_and_no_link_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (tree, other) = (dir.path().join("tree"), dir.path().join("other"));
        fs::create_dir_all(other.join("kept")).unwrap();
        fs::write(other.join("kept/file"), "x").unwrap();
        fs::create_dir_all(tree.join("a/b/c")).unwrap();
        for n in 0..5_000 {
            fs::write(tree.join("a/b").join(n.to_string()), "").unwrap();
            fs::create_dir(tree.join("a").join(format!("d{n}"))).unwrap();
        }
        std::os::unix::fs::symlink(&other, tree.join("link")).unwrap();
        std::os::unix::fs::symlink(other.join("kept"), tree.join("a/b/c/link")).unwrap();
        remove_tree(&tree).unwrap();
        assert!(!tree.exists() && other.join("kept/file").exists());
        std::os::unix::fs::symlink(&other, &tree).unwrap();
        assert!(remove_tree(&tree).is_err() && other.join("kept/file").exists(), "a link is no tree");
    }
}
