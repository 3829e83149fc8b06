//! Builds and installs the client libraries that the tests speak to the API with, from `tests/clients` into `target/clients`.
//!
//! Each is a folder of a language with its pinned libraries: cargo, pip and npm bring them once; they come again when the pins change.

use crate::{
    guests::{root, target_dir},
    packages, step,
};
use anyhow::{Context, Result};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Builds and installs all of them and returns the folder that holds `rust`, `python` and `javascript`.
pub fn build() -> Result<PathBuf> {
    packages::ensure(packages::CLIENTS)?;
    let out = target_dir().join("clients");
    let mut cargo = Command::new("cargo");
    cargo.current_dir(source("rust")).args(["build", "--locked", "--target-dir"]).arg(out.join("rust"));
    step::run("client library for Rust", &mut cargo)?;
    once(&out, "python", "requirements.txt", |dir| {
        step::run("Python environment", Command::new("python3").args(["-m", "venv", "--clear"]).arg(dir))?;
        let mut pip = Command::new(dir.join("bin/pip"));
        pip.args(["install", "--quiet", "--disable-pip-version-check", "--no-deps", "-r"]).arg(source("python").join("requirements.txt"));
        step::run("client library for Python", &mut pip)
    })?;
    once(&out, "javascript", "package-lock.json", |dir| {
        fs::create_dir_all(dir)?;
        for file in ["package.json", "package-lock.json"] {
            copy(&source("javascript").join(file), &dir.join(file))?;
        }
        let mut npm = Command::new("npm");
        npm.current_dir(dir).args(["ci", "--silent", "--ignore-scripts", "--no-audit", "--no-fund"]);
        step::run("client library for JavaScript", &mut npm)
    })?;
    // The scripts lie beside what they import.
    for name in ["python", "javascript"] {
        for entry in fs::read_dir(source(name))? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "py" || extension == "mjs") {
                copy(&path, &out.join(name).join(path.file_name().unwrap_or_default()))?;
            }
        }
    }
    Ok(out)
}

/// Installs `name` unless what is there was installed by the same `pins`.
fn once(out: &Path, name: &str, pins: &str, install: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let (wanted, dir) = (fs::read(source(name).join(pins))?, out.join(name));
    let mark = dir.join("installed");
    if fs::read(&mark).is_ok_and(|found| found == wanted) {
        return Ok(());
    }
    install(&dir)?;
    Ok(fs::write(mark, wanted)?)
}

fn source(name: &str) -> PathBuf {
    root().join("tests/clients").join(name)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    Ok(())
}
