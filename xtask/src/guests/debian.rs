//! The wasm32-wasip2 standard library from Debian's packages, for machines that cannot reach rustup's servers.
//!
//! Debian's own build of rustc (the security suite's `rustc-web`, current and kept so for browsers) comes without wasm targets, but
//! with the library's sources: it is unpacked, not installed, given the linkers of rustup's toolchain and wasi-libc's start files, and
//! builds the library once. Rejected: patching rustup's toolchain (its rustc has no matching sources), and shipping a prebuilt library.

use crate::step;
use anyhow::{Context, Result, bail};
use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
};

/// The compiler and the sources of its library, from the machine's own suites.
const PACKAGES: &[&str] = &["rustc-web", "rust-web-src", "libstd-rust-web-dev"];
/// Start files and libc of wasip2; bookworm's knows wasip1 only.
const LIBC_SUITE: &str = "trixie";

/// Path of a rustc that compiles for wasm32-wasip2. Made at first use (some minutes), kept in the user's cache.
pub fn toolchain() -> Result<PathBuf> {
    let cache =
        std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")));
    let cache = cache.context("neither XDG_CACHE_HOME nor HOME is set")?.join("coracle/wasm-toolchain");
    let rustc = cache.join("tc/bin/rustc");
    if cache.join("complete").is_file() {
        return Ok(rustc);
    }
    let _ = fs::remove_dir_all(&cache);
    fs::create_dir_all(&cache)?;
    let root = cache.join("root");
    download(&cache, &root)?;
    wasi_libc(&cache, &root)?;
    shape(&cache, &root)?;
    standard_library(&cache, &root)?;
    fs::write(cache.join("complete"), "")?;
    Ok(rustc)
}

fn download(cache: &Path, root: &Path) -> Result<()> {
    let versioned = |command: &str, pattern: &str| -> Result<String> {
        let output = Command::new("apt-cache").args(["depends", command]).output().context("cannot run apt-cache (is this Debian?)")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let found = text.lines().filter_map(|line| line.trim().strip_prefix("Depends: ")).find(|name| name.starts_with(pattern));
        found.map(str::to_string).with_context(|| format!("{command} does not depend on any {pattern}*; run `apt-get update` first"))
    };
    let std = versioned("libstd-rust-web-dev", "libstd-rust-web-")?;
    let llvm = versioned(&std, "libllvm")?;
    let debs = cache.join("debs");
    fs::create_dir_all(&debs)?;
    let mut command = Command::new("apt-get");
    command.current_dir(&debs).arg("download").args(PACKAGES).args([&std, &llvm]);
    step::run("download Debian's rustc and its library's sources", &mut command)?;
    unpack(&debs, root)
}

fn unpack(debs: &Path, root: &Path) -> Result<()> {
    for deb in fs::read_dir(debs)? {
        let deb = deb?.path();
        step::run(&format!("unpack {}", deb.file_name().unwrap_or_default().to_string_lossy()), Command::new("dpkg").arg("-x").arg(&deb).arg(root))?;
        fs::remove_file(&deb)?;
    }
    Ok(())
}

/// wasi-libc of a newer suite, through an apt list of its own so that the machine's stays as it is.
fn wasi_libc(cache: &Path, root: &Path) -> Result<()> {
    let apt = cache.join("apt");
    for dir in ["lists/partial", "cache/archives/partial"] {
        fs::create_dir_all(apt.join(dir))?;
    }
    let mirror = mirror()?;
    let keyring = "/usr/share/keyrings/debian-archive-keyring.gpg";
    fs::write(apt.join("sources.list"), format!("deb [signed-by={keyring}] {mirror} {LIBC_SUITE} main\n"))?;
    let settings = [
        format!("Dir::Etc::sourcelist={}", apt.join("sources.list").display()),
        "Dir::Etc::sourceparts=-".to_string(),
        format!("Dir::State::lists={}", apt.join("lists").display()),
        format!("Dir::Cache={}", apt.join("cache").display()),
        "APT::Sandbox::User=root".to_string(),
    ];
    let with = |command: &mut Command| {
        for setting in &settings {
            command.arg("-o").arg(setting);
        }
    };
    let mut update = Command::new("apt-get");
    with(&mut update);
    step::run(&format!("read the package list of {LIBC_SUITE}"), update.arg("update"))?;
    let debs = cache.join("debs");
    let mut download = Command::new("apt-get");
    with(&mut download);
    step::run("download wasi-libc", download.current_dir(&debs).args(["download", "wasi-libc"]))?;
    unpack(&debs, root)
}

/// The address of the machine's Debian mirror, from its own apt sources.
fn mirror() -> Result<String> {
    let mut texts = vec![fs::read_to_string("/etc/apt/sources.list").unwrap_or_default()];
    for entry in fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten().flatten() {
        texts.push(fs::read_to_string(entry.path()).unwrap_or_default());
    }
    let words = texts.iter().flat_map(|text| text.split_whitespace());
    let found = words.filter(|word| word.contains("://")).find(|word| word.trim_end_matches('/').ends_with("/debian"));
    found.map(str::to_string).context("no Debian mirror among the machine's apt sources")
}

/// A sysroot of links: Debian's compiler, rustup's linkers.
fn shape(cache: &Path, root: &Path) -> Result<()> {
    let tc = cache.join("tc");
    fs::create_dir_all(tc.join("bin"))?;
    fs::create_dir_all(tc.join("lib/rustlib"))?;
    let real = ["usr/bin/rustc", "usr/lib/rust-web/bin/rustc"].iter().map(|path| root.join(path)).find(|path| path.is_file());
    let real = real.context("Debian's package holds no rustc where it used to be")?;
    let multiarch = root.join("usr/lib/x86_64-linux-gnu");
    let web = root.join("usr/lib/rust-web/lib");
    let own = tc.join("bin/rustc.real");
    fs::copy(&real, &own)?;
    for dir in [&multiarch, &web] {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let name = entry.file_name();
            if name.to_string_lossy().contains(".so") {
                let _ = symlink(entry.path(), tc.join("lib").join(name));
            }
        }
    }
    for lib in [web.join("rustlib"), root.join("usr/lib/rustlib")] {
        for entry in fs::read_dir(lib).into_iter().flatten().flatten() {
            if entry.file_name() != "x86_64-unknown-linux-gnu" {
                let _ = symlink(entry.path(), tc.join("lib/rustlib").join(entry.file_name()));
            }
        }
    }
    let host = tc.join("lib/rustlib/x86_64-unknown-linux-gnu");
    fs::create_dir_all(&host)?;
    for lib in [web.join("rustlib"), root.join("usr/lib/rustlib")] {
        let libs = lib.join("x86_64-unknown-linux-gnu/lib");
        if libs.is_dir() {
            let _ = symlink(libs, host.join("lib"));
        }
    }
    let sysroot = Command::new("rustc").args(["--print", "sysroot"]).output().context("cannot run rustc")?;
    let rustup = PathBuf::from(String::from_utf8_lossy(&sysroot.stdout).trim()).join("lib/rustlib/x86_64-unknown-linux-gnu/bin");
    symlink(&rustup, host.join("bin"))?;
    for linker in ["rust-lld", "gcc-ld", "wasm-component-ld"] {
        if !rustup.join(linker).exists() {
            bail!("rustup's toolchain has no {linker} in {}", rustup.display());
        }
    }
    let wrapper = tc.join("bin/rustc");
    let script = format!(
        "#!/bin/sh\nexport LD_LIBRARY_PATH='{lib}':'{multiarch}'\nexport PATH='{bin}':\"$PATH\"\nexec '{own}' --sysroot '{tc}' \"$@\"\n",
        lib = tc.join("lib").display(),
        multiarch = multiarch.display(),
        bin = rustup.display(),
        own = own.display(),
        tc = tc.display()
    );
    fs::write(&wrapper, script)?;
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// Builds std for the target once, from the package's sources.
fn standard_library(cache: &Path, root: &Path) -> Result<()> {
    let source = fs::read_dir(root.join("usr/src"))?.flatten().map(|entry| entry.path()).find(|path| path.join("library/std").is_dir());
    let source = source.context("no library sources in rust-web-src")?;
    let place = cache.join("tc/lib/rustlib/src/rust");
    fs::create_dir_all(&place)?;
    let _ = symlink(source.join("library"), place.join("library"));
    let seed = cache.join("seed");
    fs::create_dir_all(seed.join("src"))?;
    fs::write(seed.join("Cargo.toml"), "[package]\nname = \"seed\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n[workspace]\n")?;
    fs::write(seed.join("src/lib.rs"), "")?;
    let target = cache.join("tc/lib/rustlib").join(super::TARGET);
    let contained = target.join("lib/self-contained");
    fs::create_dir_all(&contained)?;
    let wasi = ["usr/lib/wasm32-wasip2", "usr/lib/wasm32-wasi"].iter().map(|path| root.join(path)).find(|path| path.join("libc.a").is_file());
    let wasi = wasi.context("wasi-libc holds no wasip2 libc.a")?;
    for file in ["crt1-command.o", "crt1-reactor.o", "libc.a"] {
        fs::copy(wasi.join(file), contained.join(file)).with_context(|| format!("wasi-libc holds no {file}"))?;
    }
    let mut command = Command::new("cargo");
    command.current_dir(&seed).args(["build", "--release", "--target", super::TARGET, "-Zbuild-std=std,panic_abort,panic_unwind,test"]);
    command.env("RUSTFLAGS", "-Cembed-bitcode=yes").env("RUSTC_BOOTSTRAP", "1").env("RUSTC", cache.join("tc/bin/rustc"));
    command.env("CARGO_TARGET_DIR", seed.join("target"));
    step::run("build the standard library for wasm32-wasip2", &mut command)?;
    for entry in fs::read_dir(seed.join("target").join(super::TARGET).join("release/deps"))?.flatten() {
        let name = entry.file_name();
        if name.to_string_lossy().ends_with(".rlib") && !name.to_string_lossy().starts_with("libseed") {
            fs::copy(entry.path(), target.join("lib").join(name))?;
        }
    }
    Ok(())
}
