//! A real container image, made here: Debian's static busybox with a link for each of its programs.

use crate::{Output, Result};
use anyhow::Context;
use serde_json::{Value, json};
use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
};

/// Makes its root file system in `root`. It has users (`root`, `web`: 33), groups (`logs`: 4), and two files that are no programs: `/bin/data`, and `/bin/broken`, which may be executed.
///
/// # Errors
/// busybox-static is not installed, or those of the file system.
pub fn root(root: &Path) -> Result {
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
    let busybox = busybox.context("busybox is missing: apt-get install busybox-static")?;
    for dir in ["bin", "etc", "tmp", "proc", "sys", "dev", "home"] {
        fs::create_dir_all(root.join(dir))?;
    }
    fs::set_permissions(root.join("tmp"), PermissionsExt::from_mode(0o1777))?;
    fs::copy(busybox, root.join("bin/busybox"))?;
    for name in Output::of(Command::new(busybox).arg("--list"), "")?.ok()?.lines().filter(|name| *name != "busybox") {
        symlink("busybox", root.join("bin").join(name))?;
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nweb:x:33:33::/home:/bin/sh\n")?;
    fs::write(root.join("etc/group"), "root:x:0:\nweb:x:33:\nlogs:x:4:web\n")?;
    fs::write(root.join("bin/data"), "no program\n")?;
    fs::write(root.join("bin/broken"), "no program either\n")?;
    fs::set_permissions(root.join("bin/broken"), PermissionsExt::from_mode(0o755))?;
    Ok(())
}

/// The image in an archive of `docker save`'s format in `dir`, named `name`; `config` is its config's `config`, such as `{"Cmd": ["sh"]}`.
///
/// # Errors
/// As for [`root`].
pub fn archive(dir: &Path, name: &str, config: &Value) -> Result<PathBuf> {
    let files = dir.join("busybox-root");
    if !files.exists() {
        root(&files)?;
    }
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    crate::archive::of(dir, &files, name, json!({ "architecture": architecture, "os": "linux", "config": config }))
}
