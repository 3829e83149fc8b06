//! The file for a container's last words (`terminationMessagePath`): made before it starts, mounted into it, read when it has ended.

use crate::{pods::spec::Container, volumes};
use coracle_runtime::{Mount, Termination, remove::remove_tree};
use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// There is no file.
pub fn nowhere(container: &Container) -> Termination {
    Termination { message: None, fallback_to_logs: container.termination_message_policy == "FallbackToLogsOnError" }
}

/// Makes the file below the pod's directory `dir`, and says where it is mounted. A component can be given directories only: it gets one with nothing else in it, at the path's parent,
/// unless it has a volume there itself.
///
/// # Errors
/// Those of the file system.
pub fn place(container: &Container, dir: &Path, attempt: u32, component: bool, mounts: &mut Vec<Mount>) -> Result<Termination, String> {
    let Termination { fallback_to_logs, .. } = nowhere(container);
    let path = Path::new("/").join(&container.termination_message_path);
    let (Some(above), Some(name)) = (path.parent(), path.file_name()) else { return Ok(nowhere(container)) };
    if component && mounts.iter().any(|mount| Path::new(&mount.container_path) == above) {
        return Ok(nowhere(container));
    }
    let dir = dir.join("containers").join(volumes::paths::name(&container.name)?);
    let whole = dir.join(attempt.to_string());
    let file = if component { whole.join(name) } else { whole.clone() };
    make(&file).map_err(|why| format!("make {}: {why}", file.display()))?;
    if let Some(before) = attempt.checked_sub(2) {
        _ = remove_tree(&dir.join(before.to_string()));
    }
    let found = |path: &Path| -> Result<PathBuf, String> { fs::canonicalize(path).map_err(|why| format!("{}: {why}", path.display())) };
    let container_path = if component { above } else { &path }.display().to_string();
    mounts.push(Mount { host_path: found(&whole)?, container_path, read_only: false, ..Default::default() });
    Ok(Termination { message: Some(found(&file)?), fallback_to_logs })
}

fn make(file: &Path) -> io::Result<()> {
    volumes::paths::make(file.parent().unwrap_or(file), 0o755)?;
    fs::write(file, "")?;
    // Whoever the container's user is.
    fs::set_permissions(file, fs::Permissions::from_mode(0o666))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_gets_the_file_and_a_component_a_directory_of_its_own_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let of = |path: &str, component: bool, volumes: &[&str]| {
            let container = Container { name: "c".into(), termination_message_path: path.into(), ..Container::default() };
            let volume = |path: &&str| Mount { host_path: "/v".into(), container_path: (*path).into(), read_only: false, ..Default::default() };
            let mut mounts: Vec<Mount> = volumes.iter().map(volume).collect();
            let file = place(&container, dir.path(), u32::from(component), component, &mut mounts).unwrap().message;
            (file, mounts.into_iter().skip(volumes.len()).map(|mount| (mount.container_path, mount.host_path)).next())
        };
        let (file, mount) = of("/dev/termination-log", false, &[]);
        assert_eq!(mount, Some(("/dev/termination-log".into(), file.unwrap())));
        let (file, mount) = of("/dev/termination-log", true, &["/data"]);
        let file = file.unwrap();
        assert_eq!(mount, Some(("/dev".into(), file.parent().unwrap().to_owned())));
        assert_eq!(fs::read_dir(file.parent().unwrap()).unwrap().count(), 1, "nothing else is in it");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o666);
        assert_eq!(of("/data/message", true, &["/data"]), (None, None));
        for none in ["", "/"] {
            assert_eq!(of(none, true, &[]), (None, None), "{none:?}");
        }
    }
}
