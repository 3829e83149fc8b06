//! The runtime with real containers: this very binary is nursery, shim and worker, as the program is.
//!
//! No test harness of the usual kind, since `main` must look for the hidden subcommand before a thread exists. Tests run one after another, as root, with
//! Debian's busybox-static for an image. Arguments that are no options filter by name; `bench` measures a start beside crun.

mod bench;
mod cases;
mod world;

use std::{panic::AssertUnwindSafe, process::ExitCode, time::Instant};

fn main() -> ExitCode {
    if let Some(code) = coracle_runtime_oci::hidden_command(std::env::args_os()) {
        return ExitCode::from(u8::try_from(code).unwrap_or(1));
    }
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    if std::env::args().any(|arg| arg == "--list") {
        for (name, _) in cases::all() {
            println!("{name}: test");
        }
        return ExitCode::SUCCESS;
    }
    if !nix::unistd::geteuid().is_root() {
        println!("SKIPPED, ALL OF THEM: containers need root, and this user is not. Nothing about containers was tested.");
        return ExitCode::SUCCESS;
    }
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a tokio runtime");
    if wanted.first().is_some_and(|name| name == "bench") {
        runtime().block_on(bench::run());
        return ExitCode::SUCCESS;
    }
    let mut failed = Vec::new();
    for (name, case) in cases::all().iter().filter(|(name, _)| wanted.is_empty() || wanted.iter().any(|part| name.contains(part.as_str()))) {
        let began = Instant::now();
        let result = std::panic::catch_unwind(AssertUnwindSafe(|| runtime().block_on(case())));
        println!("test {name} ... {} ({:?})", if result.is_ok() { "ok" } else { "FAILED" }, began.elapsed());
        if result.is_err() {
            failed.push(*name);
        }
    }
    if failed.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("failed: {}", failed.join(", "));
    ExitCode::FAILURE
}
