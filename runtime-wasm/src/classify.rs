//! What a .wasm file is, and whether it can run here: one clear reason if not.
//!
//! The file's structure is walked before it is compiled, so that the usual mistakes (no wasm, a cut download, an import nobody
//! grants, a memory nobody has) are named without spending a minute of CPU on them.

use crate::{
    engine::MAX_MEMORY,
    host::{guest, module},
    wire::Kind,
};
use serde::{Deserialize, Serialize};
use wasmparser::{Encoding, ExternalKind, Parser, Payload};
use wasmtime::{Engine, Module, component::Component};

/// A file that can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// How it is run.
    pub kind: Kind,
    /// The sum of its memories when an instance starts, in bytes: a smaller `limits.memory` could never hold one.
    pub memory: u64,
}

const HANDLER: &str = "wasi:http/incoming-handler@0.2";
const RUN: &str = "wasi:cli/run@0.2";
const PREVIEW1: &str = "wasi_snapshot_preview1";

/// Looks at the file without compiling it.
pub fn look(wasm: &[u8]) -> Result<Verdict, String> {
    if wasm.is_empty() {
        return Err("the file is empty, not WebAssembly; was the image pushed before it was built?".to_owned());
    }
    if !wasm.starts_with(b"\0asm") {
        let hint = match wasm {
            [0x7f, b'E', b'L', b'F', ..] => " (it is a native program; build it with --target wasm32-wasip2)",
            [0x1f, 0x8b, ..] => " (it is gzip data)",
            [b'(', ..] => " (it looks like WebAssembly text; turn it into binary with `wasm-tools parse`)",
            _ => "",
        };
        return Err(format!("the file is not WebAssembly: it does not begin with \\0asm{hint}"));
    }
    let (mut exports, mut imports, mut memory, mut depth, mut component) = (Vec::new(), Vec::new(), 0_u64, 0_u32, false);
    let mut start = false;
    for payload in Parser::new(0).parse_all(wasm) {
        let broken = |error: wasmparser::BinaryReaderError| {
            if wasm.len() <= error.offset() || error.to_string().contains("unexpected end") {
                format!("the file is truncated WebAssembly: it ends at byte {} in the middle of something; push the image again", wasm.len())
            } else {
                format!("the file is not valid WebAssembly: {error}")
            }
        };
        match payload.map_err(broken)? {
            Payload::Version { encoding, .. } if depth == 0 => component = encoding == Encoding::Component,
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::MemorySection(section) => {
                for ty in section {
                    let ty = ty.map_err(broken)?;
                    let page = 1_u64 << ty.page_size_log2.unwrap_or(16).min(16);
                    memory = memory.saturating_add(ty.initial.saturating_mul(page));
                    if ty.memory64 {
                        return Err("the module has a 64-bit memory, which Coracle does not run; build it for wasm32".to_owned());
                    }
                    if ty.initial.saturating_mul(page) > MAX_MEMORY as u64 {
                        return Err(format!(
                            "an instance would begin with {} MiB of memory, more than the {} MiB that one can ever have; lower its initial memory",
                            ty.initial.saturating_mul(page) >> 20,
                            MAX_MEMORY >> 20
                        ));
                    }
                }
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                for export in section {
                    exports.push(export.map_err(broken)?.name.name.to_owned());
                }
            }
            Payload::ExportSection(section) if depth == 0 => {
                for export in section {
                    let export = export.map_err(broken)?;
                    start |= export.name == "_start" && export.kind == ExternalKind::Func;
                }
            }
            Payload::ComponentImportSection(section) if depth == 0 => {
                for import in section {
                    imports.push(import.map_err(broken)?.name.name.to_owned());
                }
            }
            Payload::ImportSection(section) if depth == 0 => {
                for import in section.into_imports() {
                    imports.push(import.map_err(broken)?.module.to_owned());
                }
            }
            _ => {}
        }
    }
    let kind = if component { of_component(&exports, &imports)? } else { of_module(start, &imports)? };
    Ok(Verdict { kind, memory })
}

fn of_component(exports: &[String], imports: &[String]) -> Result<Kind, String> {
    let has = |what: &str| exports.iter().any(|export| export.starts_with(what));
    let kind = if has(HANDLER) {
        Kind::Http
    } else if has(RUN) {
        Kind::Command
    } else if exports.iter().any(|export| export.starts_with("wasi:http/") || export.starts_with("wasi:cli/run")) {
        return Err(format!("the component exports {}, of a WASI version that Coracle does not run; build it for WASI 0.2", exports.join(", ")));
    } else {
        let what = if exports.is_empty() { "nothing".to_owned() } else { exports.join(", ") };
        return Err(format!(
            "the component exports {what}, but neither wasi:http/incoming-handler (to answer requests) nor wasi:cli/run (to be a process); build it as one of them"
        ));
    };
    match imports.iter().find(|import| !granted(import)) {
        None => Ok(kind),
        Some(import) => Err(format!(
            "the component imports {import}, which is not granted here; granted are wasi:cli, wasi:clocks, wasi:filesystem, wasi:http, wasi:io, wasi:random and wasi:sockets, all 0.2; build it without that import"
        )),
    }
}

/// Is the interface one of WASI 0.2? Whether it has just that function is left to the linker.
fn granted(import: &str) -> bool {
    const PACKAGES: &[&str] = &["wasi:cli/", "wasi:clocks/", "wasi:filesystem/", "wasi:http/", "wasi:io/", "wasi:random/", "wasi:sockets/"];
    PACKAGES.iter().any(|package| import.starts_with(package)) && import.split_once('@').is_some_and(|(_, version)| version.starts_with("0.2."))
}

fn of_module(start: bool, imports: &[String]) -> Result<Kind, String> {
    if let Some(import) = imports.iter().find(|import| *import != PREVIEW1) {
        return Err(format!("the core module imports from {import:?}; only {PREVIEW1} is granted to core modules; build it as a component"));
    }
    if !start {
        return Err("the core module has no _start function, so there is nothing to run; build it as a command, or as a component".to_owned());
    }
    Ok(Kind::Module)
}

/// Compiles what [`look`] found good, and links it as a host will.
pub fn compile(engine: &Engine, wasm: &[u8], kind: Kind) -> Result<Vec<u8>, String> {
    let invalid = |error: wasmtime::Error| format!("the file is not valid WebAssembly: {error:#}");
    let unlinked = |error: wasmtime::Error| format!("an import is not granted here: {error:#}; build it for WASI 0.2");
    if kind == Kind::Module {
        let compiled = Module::new(engine, wasm).map_err(invalid)?;
        module::linker(engine).and_then(|linker| linker.instantiate_pre(&compiled)).map_err(unlinked)?;
        return compiled.serialize().map_err(|error| format!("the artifact could not be made: {error:#}"));
    }
    let compiled = Component::new(engine, wasm).map_err(invalid)?;
    guest::linker(engine).and_then(|linker| linker.instantiate_pre(&compiled)).map_err(unlinked)?;
    compiled.serialize().map_err(|error| format!("the artifact could not be made: {error:#}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why(wasm: &[u8]) -> String {
        look(wasm).unwrap_err()
    }

    fn wat(text: &str) -> Vec<u8> {
        wat::parse_str(text).unwrap()
    }

    #[test]
    fn what_cannot_run_is_refused_with_its_reason() {
        assert!(why(b"").contains("empty"));
        assert!(why(b"\x7fELF...").contains("native program"));
        assert!(why(b"hello").contains("not WebAssembly"));
        let module = wat(r#"(module (memory 1) (func (export "_start")) (data (i32.const 0) "hello, hello, hello"))"#);
        assert!(why(&module[..module.len() - 5]).contains("truncated"), "{}", why(&module[..module.len() - 5]));
        assert!(why(&wat(r#"(module (import "env" "f" (func)) (func (export "_start")))"#)).contains("\"env\""));
        assert!(why(&wat("(module (memory 1))")).contains("_start"));
        assert!(why(&wat(r#"(module (memory 65536) (func (export "_start")))"#)).contains("4096 MiB"));
        assert!(why(&wat(r#"(module (memory i64 1) (func (export "_start")))"#)).contains("64-bit"));
        assert!(why(&wat("(component)")).contains("exports nothing"));
        let keyvalue =
            wat(r#"(component (import "wasi:keyvalue/store@0.2.0" (instance $i)) (instance $run) (export "wasi:cli/run@0.2.0" (instance $run)))"#);
        assert!(why(&keyvalue).contains("imports wasi:keyvalue/store@0.2.0"));
        let new = wat(r#"(component (instance $run) (export "wasi:cli/run@0.3.0" (instance $run)))"#);
        assert!(why(&new).contains("WASI 0.2"));
    }

    #[test]
    fn kinds_and_memory_are_seen() {
        let module = wat(r#"(module (memory 3) (func (export "_start")))"#);
        assert_eq!(look(&module), Ok(Verdict { kind: Kind::Module, memory: 3 << 16 }));
        let http = wat(r#"(component (core module (memory 2)) (instance $i) (export "wasi:http/incoming-handler@0.2.3" (instance $i)))"#);
        assert_eq!(look(&http), Ok(Verdict { kind: Kind::Http, memory: 2 << 16 }));
    }
}
