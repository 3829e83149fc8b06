//! A component that exports `wasi:cli/run`: a process.
//!
//! There are no signals in WebAssembly, so nothing could tell the guest to stop: stopping ends it at once, as SIGTERM ends a process
//! without a handler, and with that process's exit code, 143.

use super::{
    Mouth, Ordered,
    guest::Guest,
    metered::{Metered, throttle},
    shelf::{Code, Shelf},
    trouble,
};
use crate::{
    ledger::Account,
    wire::{Refusal, Said},
};
use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, SystemTime},
};
use tokio_util::sync::CancellationToken;
use wasmtime::{Store, UpdateDeadline};
use wasmtime_wasi::{I32Exit, p2::bindings::CommandPre};

/// How a process ended.
pub struct Ended {
    code: i32,
    reason: &'static str,
    message: String,
}

impl Ended {
    /// By itself, with this code.
    pub fn exit(code: i32) -> Self {
        Self { code, reason: if code == 0 { "Completed" } else { "Error" }, message: String::new() }
    }

    /// Because it was told to.
    pub fn stopped() -> Self {
        Self { code: 143, reason: "Error", message: String::new() }
    }

    /// By an error: an exit, a trap, or a trap for want of memory.
    pub fn from_error(error: &wasmtime::Error, out_of_memory: bool, limit: Option<u64>) -> Self {
        if let Some(I32Exit(code)) = error.downcast_ref() {
            return Self::exit(*code);
        }
        if error.is::<Stuck>() {
            return Self { code: 128, reason: "StartError", message: error.to_string() };
        }
        if out_of_memory {
            let message = match limit {
                Some(limit) => format!("memory could not grow beyond limits.memory ({limit} bytes), and the guest gave up"),
                None => "memory could not grow, and the guest gave up".to_owned(),
            };
            return Self { code: 137, reason: "OOMKilled", message };
        }
        // As of a process that aborts (128 + SIGABRT).
        let message = match error.downcast_ref::<wasmtime::Trap>() {
            Some(trap) => format!("the guest trapped: {trap}"),
            None => format!("{error:#}"),
        };
        Self { code: 134, reason: "Error", message }
    }

    /// Says so.
    pub fn said(self, container: String) -> Said {
        let Self { code, reason, message } = self;
        Said::Exited { container, code, reason: reason.to_owned(), message, finished: SystemTime::now() }
    }
}

/// A start function that does not come to its end.
#[derive(Debug, thiserror::Error)]
#[error(
    "the guest does not start: its start function ran for {0:?} and was not done; do such work in its main function, or raise limits.cpu if it has one"
)]
struct Stuck(Duration);

/// Bounds the making of an instance: before it is made nothing of it is a process yet, so this is no way to run for long.
pub async fn begin<T>(patience: Duration, instance: impl Future<Output = wasmtime::Result<T>>) -> wasmtime::Result<T> {
    match tokio::time::timeout(patience, instance).await {
        Ok(made) => made,
        Err(_) => Err(Stuck(patience).into()),
    }
}

/// Lets everybody else run at each tick of the epoch, and has the guest wait where it has used what it may.
pub fn yield_at_ticks<T: 'static>(store: &mut Store<T>, account: Account) {
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(move |_| Ok(UpdateDeadline::YieldCustom(1, Box::pin(rest(account)))));
}

async fn rest(account: Account) {
    // Tokio's own yield: it looks for I/O before it runs the guest again, which waking oneself does not. After it, what was used until now is counted.
    tokio::task::yield_now().await;
    throttle(account).await;
}

/// Starts the process; how it ends is said later.
pub fn start(shelf: &Arc<Shelf>, mouth: Mouth, ordered: Ordered, stop: CancellationToken) -> Result<(), Refusal> {
    let Ordered { start, pod, artifact, .. } = ordered;
    let id = start.spec.id();
    let code = shelf.load(&start.artifact, &artifact, false)?;
    let Code::Component(pre) = &*code else { return Err(trouble("RunContainerError", format!("artifact of {id} is not a component"))) };
    let pre = CommandPre::new(pre.clone()).map_err(|error| trouble("RunContainerError", format!("{id} cannot run: {error:#}")))?;
    let mut store = Store::new(shelf.engine(), Guest::new(pod.clone(), true));
    store.limiter(|guest| &mut guest.limits);
    yield_at_ticks(&mut store, pod.account);
    let (account, denied) = (pod.account, store.data().limits.denied());
    let patience = start.spec.request_timeout;
    mouth.say(Said::Started(id.clone()));
    tokio::spawn(async move {
        // The code must stay as long as an instance of it.
        let _code = code;
        let run = Box::pin(async move {
            let command = begin(patience, pre.instantiate_async(&mut store)).await?;
            let result = command.wasi_cli_run().call_run(&mut store).await?;
            Ok::<_, wasmtime::Error>(if result.is_ok() { 0 } else { 1 })
        });
        let ended = match stop.run_until_cancelled(Metered::new(run, account)).await {
            None => Ended::stopped(),
            Some(Ok(code)) => Ended::exit(code),
            Some(Err(error)) => Ended::from_error(&error, denied.load(Relaxed), account.memory_limit()),
        };
        mouth.say(ended.said(id));
    });
    Ok(())
}
