//! Fuzz targets: a function for every parser of bytes from outside, that feeds it and asserts what must hold of any input.
//!
//! "Does not panic" is the least of it: what is read is written and read again, two readers of the same thing are compared, and what a
//! result promises (bounds, depth, a digest) is looked at. `corpus/TARGET/` holds small inputs to begin with, and every input that
//! ever broke something. Every test run replays them, and mutations of them that are the same each time (`tests/replay.rs`);
//! `cargo xtask fuzz TARGET` goes on from there with libFuzzer, guided by coverage. A new parser gets a target here.

mod admission;
mod bodies;
mod cel;
mod custom;
mod identity;
mod images;
mod link;
pub mod mutate;
mod patches;
mod requests;
mod scalars;
mod selectors;
mod spdy;
mod store;
mod wasm;

/// One target.
#[derive(Clone, Copy)]
pub struct Target {
    /// Names its folder in the corpus too.
    pub name: &'static str,
    /// Panics when something does not hold.
    pub run: fn(&[u8]),
    /// How many mutations a test run tries; those of slow targets are fewer.
    pub mutations: u32,
}

macro_rules! targets {
    ($($module:ident::$name:ident $mutations:literal,)*) => {
        /// All of them.
        pub const TARGETS: &[Target] = &[$(Target { name: stringify!($name), run: $module::$name, mutations: $mutations }),*];
    };
}

targets! {
    link::frames 2_000,
    link::messages 4_000,
    spdy::spdy_frames 1_000,
    store::records 4_000,
    store::log_segments 4_000,
    wasm::control_socket 500,
    wasm::modules 2_000,
    wasm::name_answers 2_000,
    bodies::json_bodies 400,
    bodies::yaml_bodies 200,
    bodies::protobuf_bodies 400,
    cel::expressions 300,
    patches::patches 400,
    selectors::label_selectors 4_000,
    selectors::field_selectors 4_000,
    scalars::quantities 4_000,
    scalars::times 4_000,
    scalars::names 2_000,
    images::manifests 2_000,
    images::layers 300,
    images::entries 4_000,
    images::pull_secrets 2_000,
    images::references 2_000,
    identity::certificates 2_000,
    identity::tokens 500,
    requests::paths 4_000,
    requests::queries 2_000,
    custom::structural_schemas 2_000,
    custom::json_paths 2_000,
    custom::schedules 2_000,
    admission::webhook_answers 2_000,
}

/// Bytes as text, for parsers that only ever see text.
fn text(data: &[u8]) -> Option<&str> {
    std::str::from_utf8(data).ok()
}
