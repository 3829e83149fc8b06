//! Waiting for a condition with a bound: the only place of the tests that sleeps.

use crate::Result;
use std::time::{Duration, Instant};

/// Tries `probe` until it succeeds or `seconds` have passed; the last error is the answer then.
pub fn eventually<T>(what: &str, seconds: u64, mut probe: impl FnMut() -> Result<T>) -> Result<T> {
    let end = Instant::now() + Duration::from_secs(seconds);
    loop {
        match probe() {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() >= end => return Err(error.context(format!("not within {seconds} s: {what}"))),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}
