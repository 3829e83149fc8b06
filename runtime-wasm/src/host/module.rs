//! A core module of preview 1: a process, run natively.
//!
//! Behind the preview-1 adapter a module would be a component like any other, but the adapter knows success and failure only: `exit(7)` becomes 1, and
//! jobs and restart policies live on exit codes. So core modules run on wasmtime-wasi's own preview 1. (It has no sockets beyond
//! ones that were handed in, so there is nothing to rewrite.)

use super::{
    Mouth, Ordered,
    command::{Ended, begin, yield_at_ticks},
    guest::Limits,
    log::{Stream, Writer},
    metered::Metered,
    shelf::{Code, Shelf},
    trouble,
};
use crate::wire::{Refusal, Said};
use std::{
    os::fd::AsRawFd,
    sync::{Arc, atomic::Ordering::Relaxed},
};
use tokio_util::sync::CancellationToken;
use wasmtime::{Engine, Linker, Store};
use wasmtime_wasi::{FsPerms, WasiCtxBuilder, p1::WasiP1Ctx};

/// The data of a store.
pub struct State {
    wasi: WasiP1Ctx,
    limits: Limits,
}

/// What a core module is granted.
pub fn linker(engine: &Engine) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p1::add_to_linker_async(&mut linker, |state: &mut State| &mut state.wasi)?;
    Ok(linker)
}

/// Starts the process; how it ends is said later.
pub fn start(shelf: &Arc<Shelf>, mouth: Mouth, ordered: Ordered, stop: CancellationToken) -> Result<(), Refusal> {
    let Ordered { start, pod, artifact, .. } = ordered;
    let (id, engine) = (start.spec.id(), shelf.engine());
    let code = shelf.load(&start.artifact, &artifact, true)?;
    let Code::Module(module) = &*code else { return Err(trouble("RunContainerError", format!("artifact of {id} is not a core module"))) };
    let failed = |error: wasmtime::Error| trouble("RunContainerError", format!("{id} cannot run: {error:#}"));
    let pre = linker(engine).and_then(|linker| linker.instantiate_pre(module)).map_err(failed)?;
    let mut builder = WasiCtxBuilder::new();
    builder.args(&pod.args).envs(&pod.env);
    builder.stdout(Writer::new(pod.log.clone(), Stream::Out, true)).stderr(Writer::new(pod.log.clone(), Stream::Err, true));
    for preopen in &pod.preopens {
        let perms = if preopen.read_only { FsPerms::ReadOnly } else { FsPerms::ReadWrite };
        let path = format!("/proc/self/fd/{}", preopen.dir.as_raw_fd());
        builder.preopened_dir(path, &preopen.path, perms).map_err(failed)?;
    }
    let limits = Limits::new(pod.account);
    let (account, denied) = (pod.account, limits.denied());
    let mut store = Store::new(engine, State { wasi: builder.build_p1(), limits });
    store.limiter(|state| &mut state.limits);
    yield_at_ticks(&mut store, account);
    let patience = start.spec.request_timeout;
    mouth.say(Said::Started(id.clone()));
    tokio::spawn(async move {
        let _keep = (code, pod);
        let run = Box::pin(async move {
            let instance = begin(patience, pre.instantiate_async(&mut store)).await?;
            let main = instance.get_typed_func::<(), ()>(&mut store, "_start")?;
            main.call_async(&mut store, ()).await
        });
        let ended = match stop.run_until_cancelled(Metered::new(run, account)).await {
            None => Ended::stopped(),
            Some(Ok(())) => Ended::exit(0),
            Some(Err(error)) => Ended::from_error(&error, denied.load(Relaxed), account.memory_limit()),
        };
        mouth.say(ended.said(id));
    });
    Ok(())
}
