//! CPU time of a guest: what its thread used while the guest's future was polled.
//!
//! The thread's own clock is a system call, and a request to a small function is over in less time than two of those are worth. A host has one
//! thread and a poll never sleeps, so a short poll used as much CPU as time went by; only a long one may have been interrupted for others.

use crate::ledger::Account;
use std::{
    cell::Cell,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

/// The scheduler's slices are longer.
const SHORT: Duration = Duration::from_micros(200);

thread_local! {
    /// What the thread had used when it was asked last.
    static USED: Cell<u64> = const { Cell::new(0) };
}

/// A future whose CPU time goes to an account.
pub struct Metered<F> {
    future: F,
    account: Account,
}

impl<F> Metered<F> {
    /// Meters `future`.
    pub fn new(future: F, account: Account) -> Self {
        Self { future, account }
    }
}

/// CPU time of this thread.
fn thread_nanos() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Waits while the container has used as much of the CPU as `limits.cpu` lets it.
pub async fn throttle(account: Account) {
    while let Some(debt) = account.in_debt() {
        tokio::time::sleep(debt).await;
    }
}

impl<F: Future + Unpin> Future for Metered<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let begun = Instant::now();
        let result = Pin::new(&mut self.future).poll(cx);
        let passed = begun.elapsed();
        let mut nanos = u64::try_from(passed.as_nanos()).unwrap_or(u64::MAX);
        if passed > SHORT {
            // No more than the thread used since it was asked last, which is right while long polls follow each other: when it matters.
            let now = thread_nanos();
            nanos = nanos.min(now.saturating_sub(USED.replace(now)));
        }
        self.account.spend(nanos);
        result
    }
}
