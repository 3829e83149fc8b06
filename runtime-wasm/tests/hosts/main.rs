//! The runtime with real processes: this very binary is supervisor, host and compiler, as the program is.
//!
//! No test harness of the usual kind, since `main` must look for the hidden subcommands before a thread exists. Tests run one after another; those that
//! need guests want them built (`cargo xtask guests`); `throughput` measures instead.

mod bench;
mod cases;
mod world;

use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some(code) = coracle_runtime_wasm::hidden_command(std::env::args_os()) {
        return ExitCode::from(u8::try_from(code).unwrap_or(1));
    }
    match std::env::args().nth(1).as_deref() {
        Some("throughput") => bench::run(),
        _ => coracle_tests::in_turn(cases::all(), None),
    }
}
