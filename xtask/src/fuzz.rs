//! `cargo xtask fuzz TARGET`: one fuzz target under libFuzzer, guided by coverage, on the ordinary compiler.
//!
//! cargo-fuzz wants a nightly compiler for its sanitizers, which find what safe Rust does not do. The counters alone are stable:
//! `fuzz/rustc.sh` adds them to our own crates, so that dependencies are those of every other build.

use crate::{guests, packages, step};
use anyhow::{Result, bail};
use clap::Args;
use std::{fs, process::Command};

/// What to fuzz, and how long.
#[derive(Args)]
pub struct Options {
    /// The target, one of `fuzz/src/lib.rs`; a folder of `fuzz/corpus`. All in turn without one.
    target: Option<String>,
    /// How long each.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
}

/// libFuzzer is C++.
const COMPILER: &[packages::Need] = &[packages::Need { program: "c++", package: "g++" }];

/// Runs until the time is over or an input breaks something; that input is left in `target/fuzz`.
pub fn run(options: &Options) -> Result<()> {
    packages::ensure(COMPILER)?;
    let root = guests::root();
    let folders = fs::read_dir(root.join("fuzz/corpus"))?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let mut targets = folders.collect::<Result<Vec<String>>>()?;
    targets.sort();
    if let Some(only) = &options.target {
        if !targets.contains(only) {
            bail!("there is no target {only}; there are {}", targets.join(", "));
        }
        targets.retain(|target| target == only);
    }
    let mut build = Command::new("cargo");
    build.current_dir(&root).args(["build", "--profile", "ci", "--locked", "--workspace", "--features", "coracle-fuzz/libfuzzer", "--bin", "fuzz"]);
    build.env("RUSTC_WORKSPACE_WRAPPER", root.join("fuzz/rustc.sh")).env("CARGO_PROFILE_CI_OPT_LEVEL", "2");
    step::shown("build", &mut build)?;
    for target in targets {
        let found = guests::target_dir().join("fuzz").join(&target);
        fs::create_dir_all(&found)?;
        let mut fuzz = Command::new(guests::target_dir().join("ci/fuzz"));
        fuzz.env("CORACLE_FUZZ", &target).args(["-timeout=10", "-max_len=65536", "-use_value_profile=1", "-print_final_stats=1", "-verbosity=0"]);
        fuzz.arg(format!("-max_total_time={}", options.seconds)).arg(format!("-artifact_prefix={}-", found.display()));
        fuzz.arg(&found).arg(root.join("fuzz/corpus").join(&target));
        step::shown(&format!("fuzz {target}"), &mut fuzz)?;
    }
    Ok(())
}
