//! The runtime with real containers: this very binary is nursery, shim and worker, as the program is.
//!
//! No test harness of the usual kind, since `main` must look for the hidden subcommand before a thread exists. Tests run one after another, as root, with
//! Debian's busybox-static for an image; `bench` measures a start beside crun.

mod bench;
mod cases;
mod world;

use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some(code) = coracle_runtime_oci::hidden_command(std::env::args_os()) {
        return ExitCode::from(u8::try_from(code).unwrap_or(1));
    }
    match std::env::args().nth(1).as_deref() {
        Some("bench") => bench::run(),
        _ => coracle_tests::in_turn(cases::all(), world::lacking()),
    }
}
