//! The ready line: what was started, and how long each stage took.

use std::{
    fmt,
    time::{Duration, Instant},
};

/// Stages of a start, in order.
pub struct Stages {
    begun: Instant,
    last: Instant,
    done: Vec<(&'static str, Duration)>,
}

impl Stages {
    /// Begins now.
    pub fn begin() -> Self {
        let now = Instant::now();
        Self { begun: now, last: now, done: Vec::new() }
    }

    /// The stage `name` ended now.
    pub fn done(&mut self, name: &'static str) {
        let now = Instant::now();
        self.done.push((name, now - self.last));
        self.last = now;
    }
}

impl fmt::Display for Stages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ready in {:.2} s (", self.begun.elapsed().as_secs_f32())?;
        for (index, (name, time)) in self.done.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{name} {:.2} s", time.as_secs_f32())?;
        }
        f.write_str(")")
    }
}
