//! Sessions in which nothing is said are ended some day (kubelet's `streamingConnectionIdleTimeout`).

use parking_lot::Mutex;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// When something was last said.
pub struct Idle {
    last: Mutex<Instant>,
    limit: Duration,
}

impl Idle {
    /// Now; `limit` later it is enough.
    pub fn new(limit: Duration) -> Self {
        Self { last: Mutex::new(Instant::now()), limit }
    }

    /// Something was said.
    pub fn said(&self) {
        *self.last.lock() = Instant::now();
    }

    /// Ends when nothing was said for that long.
    pub async fn enough(&self) {
        loop {
            let due = *self.last.lock() + self.limit;
            if due <= Instant::now() {
                return;
            }
            sleep_until(due).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[tokio::test]
    async fn a_word_begins_the_time_anew() {
        let limit = Duration::from_secs(60);
        let idle = Idle { last: Mutex::new(Instant::now().checked_sub(limit).unwrap()), limit };
        assert_eq!(idle.enough().now_or_never(), Some(()));
        idle.said();
        assert_eq!(idle.enough().now_or_never(), None);
    }
}
