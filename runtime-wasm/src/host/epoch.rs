//! Who ticks the epoch: a timer on the CPU time of this process.
//!
//! A guest in a loop holds the only thread, so the tick must come from outside it. A ticking thread would wake up for nothing on an idle node, or
//! have to be woken at every request. `ITIMER_PROF` counts down only while the process uses the CPU, so an idle host is never disturbed, and
//! the handler is one atomic addition.
#![allow(unsafe_code, reason = "a signal handler")]

use std::{io, sync::OnceLock, time::Duration};
use wasmtime::Engine;

/// CPU time between two ticks. The kernel rounds up to its own tick (1 to 10 ms).
pub const TICK: Duration = Duration::from_millis(2);

static ENGINE: OnceLock<Engine> = OnceLock::new();

extern "C" fn tick(_: libc::c_int) {
    // Async-signal-safe: an atomic load and an atomic addition.
    if let Some(engine) = ENGINE.get() {
        engine.increment_epoch();
    }
}

/// From now on this engine's epoch advances while the process uses the CPU. Once a process.
pub fn start(engine: &Engine) -> io::Result<()> {
    _ = ENGINE.set(engine.clone());
    // SAFETY: zeroed is a valid sigaction; the handler is async-signal-safe and may run on any stack (SA_ONSTACK: on a guest's small one it would
    // otherwise eat into it).
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = tick as extern "C" fn(libc::c_int) as usize;
        action.sa_flags = libc::SA_RESTART | libc::SA_ONSTACK;
        if libc::sigaction(libc::SIGPROF, &action, std::ptr::null_mut()) != 0 {
            return Err(io::Error::last_os_error());
        }
        let every = libc::timeval { tv_sec: 0, tv_usec: TICK.as_micros() as libc::suseconds_t };
        let timer = libc::itimerval { it_interval: every, it_value: every };
        if libc::setitimer(libc::ITIMER_PROF, &timer, std::ptr::null_mut()) != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}
