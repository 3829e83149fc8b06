//! Numbers: medians, percentiles, and the two rows of a comparison.

use std::time::Duration;

/// Sorted samples.
pub struct Samples(Vec<Duration>);

impl Samples {
    /// Sorts them.
    pub fn new(mut samples: Vec<Duration>) -> Self {
        samples.sort_unstable();
        Self(samples)
    }

    /// The `p`-th percentile, 0 to 100; zero of no samples.
    pub fn percentile(&self, p: usize) -> Duration {
        let last = self.0.len().saturating_sub(1);
        self.0.get((last * p).div_ceil(100)).copied().unwrap_or_default()
    }
}

/// Milliseconds with three digits.
pub fn ms(time: Duration) -> String {
    format!("{:.3} ms", time.as_secs_f64() * 1e3)
}

/// A row: what, ours, the yardstick, and how many times faster ours is.
pub fn row(what: &str, ours: (f64, &str), theirs: (f64, &str), ratio: f64) {
    println!("{what:<44} {:>12.1} {:<8} {:>12.1} {:<8} ×{ratio:.2}", ours.0, ours.1, theirs.0, theirs.1);
}

/// A row beside what kube-apiserver 1.36 with etcd does: ours, theirs, how many times better ours is, and shall be.
pub fn versus(what: &str, ours: (f64, &str), theirs: (f64, &str), ratio: f64, least: u32) {
    println!("{what:<44} {:>12.1} {:<8} (kube-apiserver 1.36: {} {}, ×{ratio:.1}; shall be at least ×{least})", ours.0, ours.1, theirs.0, theirs.1);
}
