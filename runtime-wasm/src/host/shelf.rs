//! Compiled code in this process: loaded when first needed, shared by the containers that run the same artifact, dropped with the last of them.

use super::guest::{self, Guest};
use crate::wire::Refusal;
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    os::fd::{AsRawFd, OwnedFd},
    sync::{Arc, Weak},
};
use wasmtime::{
    Engine, Module,
    component::{Component, InstancePre, Linker},
};

/// Something loaded.
pub enum Code {
    /// A component, linked.
    Component(InstancePre<Guest>),
    /// A core module.
    Module(Module),
}

/// All of it.
pub struct Shelf {
    engine: Engine,
    linker: Linker<Guest>,
    loaded: Mutex<HashMap<String, Weak<Code>>>,
}

impl Shelf {
    /// Empty.
    pub fn new(engine: &Engine) -> wasmtime::Result<Arc<Self>> {
        Ok(Arc::new(Self { engine: engine.clone(), linker: guest::linker(engine)?, loaded: Mutex::default() }))
    }

    /// The engine of this process.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The code of an artifact: mapped from its descriptor unless it is here already.
    pub fn load(&self, key: &str, artifact: &OwnedFd, module: bool) -> Result<Arc<Code>, Refusal> {
        let mut loaded = self.loaded.lock();
        if let Some(code) = loaded.get(key).and_then(Weak::upgrade) {
            return Ok(code);
        }
        loaded.retain(|_, code| code.strong_count() > 0);
        let path = format!("/proc/self/fd/{}", artifact.as_raw_fd());
        let code = map(&self.engine, &self.linker, &path, module).map_err(|error| {
            super::trouble(
                "RunContainerError",
                format!("the compiled artifact {key} could not be loaded: {error:#}; remove it from the artifact cache to have it compiled again"),
            )
        })?;
        let code = Arc::new(code);
        loaded.insert(key.to_owned(), Arc::downgrade(&code));
        Ok(code)
    }
}

#[allow(unsafe_code, reason = "compiled code is mapped, not checked")]
fn map(engine: &Engine, linker: &Linker<Guest>, path: &str, module: bool) -> wasmtime::Result<Code> {
    if module {
        // SAFETY: artifacts are written by our compiler process only, into a directory only the agent can write, and renamed into place when whole.
        return Ok(Code::Module(unsafe { Module::deserialize_file(engine, path)? }));
    }
    // SAFETY: as above.
    let component = unsafe { Component::deserialize_file(engine, path)? };
    Ok(Code::Component(linker.instantiate_pre(&component)?))
}
