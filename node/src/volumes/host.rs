//! hostPath: a path of the machine, looked at (and made where that is asked for) as kubelet does.

use crate::pods::spec::HostPath;
use std::{
    fs::{self, File, Metadata},
    io,
    os::unix::fs::FileTypeExt,
    path::Path,
};

/// Sees to it that what `type` asks for is there.
///
/// # Errors
/// It is not, in kubelet's words.
pub fn check(source: &HostPath) -> Result<(), String> {
    let path = Path::new(&source.path);
    let refused = |what: &str| Err(format!("hostPath type check failed: {} is not {what}", source.path));
    let found: Option<Metadata> = match fs::metadata(path) {
        Ok(meta) => Some(meta),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(format!("hostPath type check failed: {}: {error}", source.path)),
    };
    let is = |test: fn(&Metadata) -> bool| found.as_ref().is_some_and(test);
    match source.kind.as_str() {
        // Nothing is checked; the runtime's error would be less clear than ours, and it would not make the path either.
        "" if found.is_none() => fs::create_dir_all(path).map_err(|error| format!("make {}: {error}", source.path)),
        "DirectoryOrCreate" if found.is_none() => super::paths::make(path, 0o755).map_err(|error| format!("make {}: {error}", source.path)),
        "FileOrCreate" if found.is_none() => File::create(path).map(|_| ()).map_err(|error| format!("make {}: {error}", source.path)),
        "DirectoryOrCreate" | "Directory" if !is(Metadata::is_dir) => refused("a directory"),
        "FileOrCreate" | "File" if !is(Metadata::is_file) => refused("a file"),
        "Socket" if !is(|meta| meta.file_type().is_socket()) => refused("a socket file"),
        "CharDevice" if !is(|meta| meta.file_type().is_char_device()) => refused("a character device"),
        "BlockDevice" if !is(|meta| meta.file_type().is_block_device()) => refused("a block device"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_checked_and_made() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        let check = |name: &str, kind: &str| check(&HostPath { path: path(name), kind: kind.into() });
        fs::write(path("file"), "").unwrap();
        assert!(
            check("file", "").is_ok()
                && check("file", "File").is_ok()
                && check("made", "DirectoryOrCreate").is_ok()
                && check("new", "FileOrCreate").is_ok()
        );
        assert!(Path::new(&path("made")).is_dir() && Path::new(&path("new")).is_file());
        assert_eq!(check("file", "Directory").unwrap_err(), format!("hostPath type check failed: {} is not a directory", path("file")));
        for (name, kind, words) in [
            ("none", "Directory", "a directory"),
            ("none", "File", "a file"),
            ("file", "Socket", "a socket file"),
            ("file", "CharDevice", "a character device"),
        ] {
            assert!(check(name, kind).unwrap_err().ends_with(words), "{kind}");
        }
    }
}
