//! `cargo xtask deny`: what may be depended on. Not a part of `cargo xtask test`, because building cargo-deny takes minutes.

use crate::{guests, step};
use anyhow::Result;
use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// The cargo-deny that `deny.toml` is written for.
const VERSION: &str = "0.20.2";

/// Checks what can be checked here: without the network, known vulnerabilities by the copy of the database from last time, or not at all, which is said.
pub fn run() -> Result<()> {
    let tools = guests::target_dir().join("tools");
    let program = tools.join("bin/cargo-deny");
    if !installed(&program) {
        let mut install = Command::new("cargo");
        install.args(["install", "--quiet", "--locked", "--version", VERSION, "cargo-deny", "--root"]).arg(&tools);
        step::run(&format!("cargo-deny {VERSION}"), &mut install)?;
    }
    let deny = |arguments: &[&str]| {
        let mut command = Command::new(&program);
        command.current_dir(guests::root()).args(arguments);
        command
    };
    step::shown("licences and sources", &mut deny(&["--locked", "check", "bans", "licenses", "sources"]))?;
    if step::run("advisory database", &mut deny(&["fetch", "db"])).is_ok() {
        return step::shown("advisories", &mut deny(&["--locked", "check", "advisories"]));
    }
    if !has_copy() {
        println!("! advisories NOT checked: the database cannot be fetched, and there is no copy from an earlier time");
        return Ok(());
    }
    println!("! the advisory database cannot be fetched: judged by the copy from an earlier time");
    step::shown("advisories", &mut deny(&["--locked", "--offline", "check", "advisories"]))
}

/// Whether cargo-deny has fetched the database before.
fn has_copy() -> bool {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| Some(std::env::home_dir()?.join(".cargo")));
    let entries = home.and_then(|home| std::fs::read_dir(home.join("advisory-dbs")).ok());
    entries.is_some_and(|mut entries| entries.any(|entry| entry.is_ok_and(|entry| entry.path().is_dir())))
}

fn installed(program: &Path) -> bool {
    let version = Command::new(program).arg("--version").output();
    version.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).trim().ends_with(VERSION))
}
