//! Images in archives of `docker save`'s format, made with tar.

use crate::{Output, Result};
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// An archive in `dir` of the image `name`: its one layer holds what is in `root`, its config is `config` and that layer.
///
/// # Errors
/// tar's, and those of the file system.
pub fn of(dir: &Path, root: &Path, name: &str, mut config: Value) -> Result<PathBuf> {
    let stem = name.replace(['/', ':'], "-");
    let (parts, archive) = (dir.join(format!("{stem}-parts")), dir.join(format!("{stem}.tar")));
    fs::create_dir_all(&parts)?;
    let tar = |to: &Path, from: &Path| {
        Output::of(Command::new("tar").arg("--owner=0").arg("--group=0").arg("-cf").arg(to).arg("-C").arg(from).arg("."), "")?.ok()
    };
    tar(&parts.join("layer.tar"), root)?;
    let sum = Output::of(Command::new("sha256sum").arg(parts.join("layer.tar")), "")?.ok()?;
    let sum = sum.split_whitespace().next().unwrap_or_default();
    config["rootfs"] = json!({ "type": "layers", "diff_ids": [format!("sha256:{sum}")] });
    fs::write(parts.join("config.json"), config.to_string())?;
    fs::write(parts.join("manifest.json"), json!([{ "Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"] }]).to_string())?;
    tar(&archive, &parts)?;
    Ok(archive)
}
