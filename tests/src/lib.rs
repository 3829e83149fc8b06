//! Whole-system tests: the real binary and the real kubectl, one cluster a file, hosts as network namespaces.
//!
//! Every test file is a program of its own ([`main`]) that starts one [`Cluster`], runs its cases against it beside each other, and
//! takes everything down again, also when a case fails. A case is a function of the cluster; it fails by an error. Tests of a runtime, whose program is
//! every process it starts, are run by [`in_turn`].

pub mod archive;
pub mod busybox;
mod cluster;
mod host;
mod pods;
mod process;
mod registry;
mod suite;
mod wait;

pub use cluster::{Cluster, Mode};
pub use host::{Host, is_root};
pub use process::{Background, Output};
pub use registry::Registry;
pub use suite::{Alone, Case, Promise, alone, in_turn, main, waiting};
pub use wait::eventually;

use std::path::PathBuf;

/// What a case returns.
pub type Result<T = ()> = anyhow::Result<T>;

/// All of the parts are in the text.
pub fn has(text: &str, parts: &[&str]) -> Result {
    for part in parts {
        anyhow::ensure!(text.contains(part), "{part:?} is missing in:\n{text}");
    }
    Ok(())
}

/// A component built by `cargo xtask guests`: `hello`, `web` or `probe`.
pub fn guest(name: &str) -> Result<PathBuf> {
    let dir = match std::env::var_os("CORACLE_GUESTS") {
        Some(dir) => PathBuf::from(dir),
        None => target_dir()?.join("guests"),
    };
    let path = dir.join(format!("{name}.wasm"));
    anyhow::ensure!(path.is_file(), "{} is missing: run `cargo xtask guests`", path.display());
    Ok(path)
}

/// The folder of a language's client library, as `cargo xtask clients` makes it: `rust`, `python` or `javascript`.
pub fn client(language: &str) -> Result<PathBuf> {
    let dir = target_dir()?.join("clients").join(language);
    anyhow::ensure!(dir.is_dir(), "{} is missing: run `cargo xtask clients`", dir.display());
    Ok(dir)
}

/// The binary under test: `CORACLE_BIN`, else the one beside this test in cargo's target folder.
pub fn binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("CORACLE_BIN") {
        return Ok(path.into());
    }
    let path = target_dir()?.join("ci").join("coracle");
    anyhow::ensure!(path.is_file(), "{} is missing: run `cargo build --profile ci -p coracle`", path.display());
    Ok(path)
}

/// `target`, from `target/ci/deps/<this test>`.
fn target_dir() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    own.ancestors().nth(3).map(PathBuf::from).ok_or_else(|| anyhow::anyhow!("{} lies in no target folder", own.display()))
}
