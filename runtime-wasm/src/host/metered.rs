//! CPU time of a guest: what the thread used while the guest's future was polled.

use crate::ledger::Account;
use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

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
pub fn thread_nanos() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

impl<F: Future + Unpin> Future for Metered<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let before = thread_nanos();
        let result = Pin::new(&mut self.future).poll(cx);
        self.account.spend(thread_nanos().saturating_sub(before));
        result
    }
}
