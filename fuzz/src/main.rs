//! One target under libFuzzer: `cargo xtask fuzz TARGET`. The target is named by `CORACLE_FUZZ`, since libFuzzer has the command line.
#![no_main]

use std::sync::LazyLock;

static TARGET: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let name = std::env::var("CORACLE_FUZZ").unwrap_or_default();
    match coracle_fuzz::TARGETS.iter().find(|target| target.name == name) {
        Some(target) => target.run,
        None => {
            eprintln!("CORACLE_FUZZ={name:?} names no target; there are:");
            coracle_fuzz::TARGETS.iter().for_each(|target| eprintln!("  {}", target.name));
            std::process::exit(2)
        }
    }
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| (TARGET)(data));
