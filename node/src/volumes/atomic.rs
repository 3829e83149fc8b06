//! A directory whose whole content changes in one step, as kubelet's AtomicWriter lays it out.
//!
//! `..2024_05_01_10_00_00.<n>/` holds the files, `..data` links to it and is replaced by rename, and every first path component of the
//! payload is a link into `..data`. A reader that holds `..data` open, or opens through it, sees all of the old or all of the new.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown, symlink},
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

/// Who may read the files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// The pod's processes have users of their own, and modes mean what they say.
    pub exact: bool,
    /// The group that they belong to (`fsGroup`), which may read them.
    pub group: Option<u32>,
}

/// Makes the directory hold exactly that payload; nothing is touched when it does already.
pub fn write(dir: &Path, payload: &Payload, access: Access) -> io::Result<()> {
    super::paths::make(dir, 0o755)?;
    let old = fs::read_link(dir.join(DATA)).ok();
    if let Some(old) = &old
        && same(&dir.join(old), payload, access)
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
        if access.group.is_some() {
            fchown(&handle, None, access.group)?;
        }
        handle.set_permissions(fs::Permissions::from_mode(bits(file, access)))?;
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

/// What the file is given. For a component `0400` means "the pod reads it", but files are the agent's and hosts another user's, so who may read means all: others on
/// the machine are kept out by the folder of all pods (0700), and a component never sees mode bits. For processes it is what is said, and the group reads too, as with kubelet.
fn bits(file: &File, access: Access) -> u32 {
    let mode = file.mode & 0o7777;
    match access {
        Access { exact: false, .. } if mode & 0o444 != 0 => mode | 0o444,
        Access { exact: true, group: Some(_) } => mode | 0o440,
        _ => mode,
    }
}

fn fresh_name() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let now = crate::pods::time::Time::now();
    let stamp = jiff::Timestamp::from_millisecond(now.0).unwrap_or_default();
    // Process id and counter make it unique; the time is for people who look.
    format!("..{}.{}_{}", stamp.strftime("%Y_%m_%d_%H_%M_%S"), std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

fn same(dir: &Path, payload: &Payload, access: Access) -> bool {
    let equal = payload.iter().all(|(path, file)| {
        let target = dir.join(path);
        let as_wanted = |m: fs::Metadata| m.permissions().mode() & 0o7777 == bits(file, access) && access.group.is_none_or(|group| m.gid() == group);
        fs::symlink_metadata(&target).is_ok_and(as_wanted) && fs::read(&target).is_ok_and(|content| content == file.content)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_mean_what_they_say_to_processes() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: giving files to a group needs root");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let payload = Payload::from([("key".into(), File { content: b"hush".to_vec(), mode: 0o400 })]);
        let look = |access: Access| {
            write(dir.path(), &payload, access).unwrap();
            let meta = fs::metadata(dir.path().join("key")).unwrap();
            (meta.mode() & 0o7777, meta.gid())
        };
        let own = look(Access::default()).1;
        assert_eq!(look(Access::default()), (0o444, own), "a component's host is another user");
        assert_eq!(look(Access { exact: true, group: None }), (0o400, own));
        assert_eq!(look(Access { exact: true, group: Some(4321) }), (0o440, 4321));
        let before = fs::read_link(dir.path().join(DATA)).unwrap();
        assert_eq!(look(Access { exact: true, group: Some(4321) }), (0o440, 4321));
        assert_eq!(fs::read_link(dir.path().join(DATA)).unwrap(), before, "nothing is written again");
    }
}
