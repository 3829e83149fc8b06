//! Paths that came from outside, made safe, and directories with a mode.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Component, Path, PathBuf},
};

/// A volume's or container's name as one path component.
pub fn name(name: &str) -> Result<&str, String> {
    let plain = !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\0']);
    if plain { Ok(name) } else { Err(format!("{name:?} is no name for a directory")) }
}

/// A relative path without `..`, whose first component does not begin with two dots (those are the atomic writer's own).
pub fn relative(path: &str) -> Result<PathBuf, String> {
    let wrong = || format!("path {path:?} must be relative, without '..', and not begin with '..'");
    if path.is_empty() || path.starts_with("..") || path.contains('\0') {
        return Err(wrong());
    }
    let mut clean = PathBuf::new();
    for component in Path::new(path).components() {
        match component {
            Component::Normal(part) => clean.push(part),
            Component::CurDir => {}
            _ => return Err(wrong()),
        }
    }
    if clean.as_os_str().is_empty() { Err(wrong()) } else { Ok(clean) }
}

/// A directory with that mode, whatever the umask; parents get 0755.
pub fn make(path: &Path, mode: u32) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o755).create(path)?;
    if fs::metadata(path)?.permissions().mode() & 0o7777 != mode {
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    }
    Ok(())
}

/// What `subPath` means within a volume: the resolved place, which must lie inside. A directory is made when nothing is there.
pub fn sub_path(volume: &Path, sub: &str) -> Result<PathBuf, String> {
    let wrong = |why: String| format!("subPath {sub:?}: {why}");
    let relative = relative(sub).map_err(wrong)?;
    let root = fs::canonicalize(volume).map_err(|e| wrong(e.to_string()))?;
    let mut at = root.clone();
    // One component at a time, each resolved before the next is made: a link that leads out is met before anything is made behind it.
    for part in relative.components() {
        let next = at.join(part);
        at = match fs::canonicalize(&next) {
            Ok(real) => real,
            Err(error) if error.kind() == io::ErrorKind::NotFound && fs::symlink_metadata(&next).is_err() => {
                make(&next, 0o777).map_err(|e| wrong(e.to_string()))?;
                next
            }
            Err(error) => return Err(wrong(error.to_string())),
        };
        if !at.starts_with(&root) {
            return Err(wrong("it leads out of the volume".into()));
        }
    }
    Ok(at)
}
