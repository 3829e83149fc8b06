//! A directory whose whole content changes in one step, as kubelet's AtomicWriter lays it out.
//!
//! `..2024_05_01_10_00_00.<n>/` holds the files, `..data` links to it and is replaced by rename, and every first path component of the
//! payload is a link into `..data`. A reader that holds `..data` open, or opens through it, sees all of the old or all of the new.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

/// The link to the current content.
pub const DATA: &str = "..data";
const NEW_DATA: &str = "..data_tmp";

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Bytes.
    pub content: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
}

/// Files by clean relative path.
pub type Payload = BTreeMap<PathBuf, File>;

/// Makes the directory hold exactly that payload; nothing is touched when it does already.
pub fn write(dir: &Path, payload: &Payload) -> io::Result<()> {
    super::paths::make(dir, 0o755)?;
    let old = fs::read_link(dir.join(DATA)).ok();
    if let Some(old) = &old
        && same(&dir.join(old), payload)
    {
        return Ok(());
    }
    let fresh = fresh_name();
    let content = dir.join(&fresh);
    super::paths::make(&content, 0o755)?;
    for (path, file) in payload {
        let target = content.join(path);
        if let Some(parent) = target.parent() {
            super::paths::make(parent, 0o755)?;
        }
        let mut handle = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&target)?;
        io::Write::write_all(&mut handle, &file.content)?;
        // After the content, and past the umask.
        handle.set_permissions(fs::Permissions::from_mode(bits(file)))?;
    }
    let link = dir.join(NEW_DATA);
    match fs::remove_file(&link) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    symlink(&fresh, &link)?;
    fs::rename(&link, dir.join(DATA))?;
    let visible: BTreeSet<PathBuf> = payload.keys().filter_map(|p| p.components().next()).map(|c| PathBuf::from(c.as_os_str())).collect();
    for name in &visible {
        let link = dir.join(name);
        if fs::symlink_metadata(&link).is_err() {
            symlink(Path::new(DATA).join(name), &link)?;
        }
    }
    // What is no longer named goes, and every older content.
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = PathBuf::from(entry.file_name());
        let ours = name == Path::new(DATA) || name == Path::new(&fresh) || visible.contains(&name);
        if ours {
            continue;
        }
        if entry.file_type()?.is_dir() { fs::remove_dir_all(entry.path())? } else { fs::remove_file(entry.path())? }
    }
    Ok(())
}

/// What the file is given. `0400` means "the pod reads it", but files are the agent's and hosts another user's, so who may read means all: others on
/// the machine are kept out by the folder of all pods (0700), and a component never sees mode bits. (Files with an owner of their own wait for
/// a runtime whose pods have users.)
fn bits(file: &File) -> u32 {
    let mode = file.mode & 0o7777;
    if mode & 0o444 == 0 { mode } else { mode | 0o444 }
}

fn fresh_name() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let now = crate::pods::time::Time::now();
    let stamp = jiff::Timestamp::from_millisecond(now.0).unwrap_or_default();
    // Process id and counter make it unique; the time is for people who look.
    format!("..{}.{}_{}", stamp.strftime("%Y_%m_%d_%H_%M_%S"), std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

fn same(dir: &Path, payload: &Payload) -> bool {
    let equal = payload.iter().all(|(path, file)| {
        let target = dir.join(path);
        let mode = fs::symlink_metadata(&target).map(|m| m.permissions().mode() & 0o7777);
        mode.is_ok_and(|mode| mode == bits(file)) && fs::read(&target).is_ok_and(|content| content == file.content)
    });
    equal && count(dir).is_ok_and(|n| n == payload.len())
}

fn count(dir: &Path) -> io::Result<usize> {
    let mut files = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        files += if entry.file_type()?.is_dir() { count(&entry.path())? } else { 1 };
    }
    Ok(files)
}
