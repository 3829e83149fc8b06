//! `cargo xtask test`: what CI runs, in the order that fails soonest.

use crate::{clients, guests, packages, step};
use anyhow::Result;
use clap::Args;
use std::process::Command;

/// What to test.
#[derive(Args)]
pub struct Options {
    /// Only this crate or folder of tests, such as `store`, `schema` or `tests`.
    #[arg(long, value_name = "CRATE")]
    only: Option<String>,
    /// Words for the test runner, such as a test's name.
    #[arg(trailing_var_arg = true)]
    filter: Vec<String>,
}

/// Runs everything, or what was asked for.
pub fn run(options: &Options) -> Result<()> {
    packages::ensure(packages::BUILD)?;
    packages::ensure(packages::SYSTEM)?;
    packages::ensure(packages::KUBECTL)?;
    packages::ensure(packages::TESTS)?;
    let cargo = |arguments: &[&str]| {
        let mut command = Command::new("cargo");
        command.current_dir(guests::root()).args(arguments);
        command
    };
    if options.only.is_none() {
        step::shown("format", &mut cargo(&["fmt", "--all", "--check"]))?;
        step::shown("format of the client", &mut cargo(&["fmt", "--check", "--manifest-path", "tests/clients/rust/Cargo.toml"]))?;
        step::shown("lints", &mut cargo(&["clippy", "--profile", "ci", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
        let mut docs = cargo(&["doc", "--profile", "ci", "--locked", "--workspace", "--no-deps"]);
        step::shown("docs", docs.env("RUSTDOCFLAGS", "-D warnings"))?;
    }
    let components = guests::build(false)?;
    if matches!(options.only.as_deref(), None | Some("tests")) {
        clients::build()?;
    }
    step::shown("build", &mut cargo(&["build", "--profile", "ci", "--locked", "--workspace", "--bins", "--tests"]))?;
    let mut tests = cargo(&["test", "--profile", "ci", "--locked", "--no-fail-fast"]);
    match options.only.as_deref() {
        None => tests.arg("--workspace"),
        Some(name @ ("coracle" | "xtask")) => tests.args(["-p", name]),
        Some(name) => tests.arg("-p").arg(format!("coracle-{}", name.trim_end_matches('/'))),
    };
    tests.arg("--").args(&options.filter).env("CORACLE_GUESTS", components);
    step::shown("test", &mut tests)?;
    if options.only.is_none() && options.filter.is_empty() {
        demo(cargo(&["xtask", "demo", "--check"]))?;
    }
    Ok(())
}

/// What a newcomer types first still works. As root in a network namespace of its own, as every test cluster.
fn demo(command: Command) -> Result<()> {
    if !packages::is_root() {
        return step::shown("demo", &mut { command });
    }
    let name = format!("coracle-demo-{}", std::process::id());
    let ip = |words: &[&str]| step::run(&format!("ip {}", words.join(" ")), Command::new("ip").args(words));
    ip(&["netns", "add", &name])?;
    let mut inside = Command::new("nsenter");
    inside.arg(format!("--net=/run/netns/{name}")).arg(command.get_program()).args(command.get_args());
    // How full the machine's disk is is no matter of the test's.
    inside.env("CORACLE_EVICTION_HARD", "memory.available<50Mi");
    if let Some(dir) = command.get_current_dir() {
        inside.current_dir(dir);
    }
    let done = ip(&["-n", &name, "link", "set", "lo", "up"]).and_then(|()| step::shown("demo", &mut inside));
    ip(&["netns", "delete", &name])?;
    done
}
