//! Pods of both kinds: components beside real containers, in one pod. As with the tests of containers, this very binary is every process.

mod cases;
#[path = "../containers/world.rs"]
#[allow(dead_code, reason = "shared with the tests of containers")]
mod world;

use std::{panic::AssertUnwindSafe, process::ExitCode, time::Instant};

fn main() -> ExitCode {
    let hidden = coracle_runtime_wasm::hidden_command(std::env::args_os()).or_else(|| coracle_runtime_oci::hidden_command(std::env::args_os()));
    if let Some(code) = hidden {
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
