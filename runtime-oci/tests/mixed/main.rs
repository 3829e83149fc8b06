//! Pods of both kinds: components beside real containers, in one pod. As with the tests of containers, this very binary is every process.

mod cases;
#[path = "../containers/world.rs"]
#[allow(dead_code, reason = "shared with the tests of containers")]
mod world;

use std::process::ExitCode;

fn main() -> ExitCode {
    let hidden = coracle_runtime_wasm::hidden_command(std::env::args_os()).or_else(|| coracle_runtime_oci::hidden_command(std::env::args_os()));
    match hidden {
        Some(code) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        None => coracle_tests::in_turn(cases::all(), world::lacking()),
    }
}
