//! Builds the WebAssembly guests from source.
//!
//! Where rustup can add `wasm32-wasip2`, that is all there is to it. Machines that reach their distribution's packages but not
//! rustup's servers get the target's standard library from Debian instead (`debian`), into a cache outside `target/`.

mod debian;

use crate::step;
use anyhow::{Context, Result, bail};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

const TARGET: &str = "wasm32-wasip2";

/// Cargo workspaces that hold guests, from the repository's root, and the components each one makes.
const SOURCES: &[(&str, &[&str])] = &[("examples/hello", &["hello"]), ("tests/guests", &["probe", "web"])];

/// Builds all guests and returns the folder that holds `NAME.wasm`; with the Debian toolchain if told so.
pub fn build(from_debian: bool) -> Result<PathBuf> {
    let root = root();
    let target = target_dir();
    let out = target.join("guests");
    fs::create_dir_all(&out).with_context(|| format!("cannot make {}", out.display()))?;
    let rustc = if from_debian { Some(debian::toolchain()?) } else { toolchain()? };
    for (folder, names) in SOURCES {
        let build = target.join("guests-build");
        let mut command = Command::new("cargo");
        command.current_dir(root.join(folder)).args(["build", "--release", "--locked", "--target", TARGET]).arg("--target-dir").arg(&build);
        // The workspace's own settings are for the host.
        command.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
        if let Some(rustc) = &rustc {
            command.env("RUSTC", rustc);
        }
        step::run(&format!("guests of {folder}"), &mut command)?;
        for name in *names {
            let made = build.join(TARGET).join("release").join(format!("{name}.wasm"));
            fs::copy(&made, out.join(format!("{name}.wasm"))).with_context(|| format!("cannot copy {}", made.display()))?;
        }
    }
    Ok(out)
}

/// The repository's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_path_buf).unwrap_or_default()
}

/// Where cargo puts what it builds.
pub fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// The compiler to use instead of the default one, where that one cannot have the target.
fn toolchain() -> Result<Option<PathBuf>> {
    if has_target() {
        return Ok(None);
    }
    let added = step::run(&format!("rustup target add {TARGET}"), Command::new("rustup").args(["target", "add", TARGET]));
    match added {
        Ok(()) if has_target() => Ok(None),
        _ => match debian::toolchain() {
            Ok(rustc) => Ok(Some(rustc)),
            Err(error) => bail!(
                "the target {TARGET} is missing and could not be had.\nrustup: {}\nDebian's packages: {error:#}\nremedy: run `rustup target add {TARGET}` where rustup's servers can be reached",
                added.err().map_or_else(|| "said it was there, yet it is not".to_string(), |error| format!("{error:#}"))
            ),
        },
    }
}

fn has_target() -> bool {
    let sysroot = Command::new("rustc").args(["--print", "sysroot"]).output();
    sysroot.is_ok_and(|output| {
        let dir = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()).join("lib/rustlib").join(TARGET).join("lib");
        fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some())
    })
}
