//! A stand-in for the crate of this name, for openraft alone (`[patch.crates-io]` in the workspace).
//!
//! base2histogram 0.2.3 computes lookup tables for all sixteen of its resolutions at first use: 27 MB that stay resident, nearly half of what a whole idle
//! cluster may take, and 60 ms of every start. openraft uses one resolution, to count batch sizes that nobody reads unless its `runtime-stats` feature is on.
//! This one has the part of the interface that openraft uses, at a resolution of powers of two. Drop it when a release makes its tables on demand.

use std::fmt;
use std::marker::PhantomData;

/// Bit lengths of a u64, zero included.
const BUCKETS: usize = 65;

/// Counts values by their bit length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram<T = ()> {
    counts: Box<[u64; BUCKETS]>,
    of: PhantomData<T>,
}

impl<T> Histogram<T> {
    /// One without values.
    pub fn new() -> Self {
        Self { counts: Box::new([0; BUCKETS]), of: PhantomData }
    }

    /// Counts a value.
    pub fn record(&mut self, value: u64) {
        self.record_n(value, 1);
    }

    /// Counts a value `n` times.
    pub fn record_n(&mut self, value: u64, n: u64) {
        if let Some(count) = self.counts.get_mut((u64::BITS - value.leading_zeros()) as usize) {
            *count = count.saturating_add(n);
        }
    }

    /// How many values were counted.
    pub fn total(&self) -> u64 {
        self.counts.iter().fold(0, |sum, n| sum.saturating_add(*n))
    }

    /// The smallest value a value at this rank (0 ..= 1000, in thousandths) can have.
    fn rank(&self, thousandths: u64) -> u64 {
        let want = (u128::from(self.total()) * u128::from(thousandths)).div_ceil(1000).max(1);
        let mut seen = 0u128;
        for (bits, count) in self.counts.iter().enumerate() {
            seen += u128::from(*count);
            if seen >= want {
                return if bits == 0 { 0 } else { 1 << (bits - 1) };
            }
        }
        0
    }

    /// Percentiles, each rounded down to a power of two.
    pub fn percentile_stats(&self) -> PercentileStats {
        PercentileStats {
            samples: self.total(),
            p0_1: self.rank(1),
            p1: self.rank(10),
            p5: self.rank(50),
            p10: self.rank(100),
            p50: self.rank(500),
            p90: self.rank(900),
            p99: self.rank(990),
            p99_9: self.rank(999),
        }
    }
}

impl<T> Default for Histogram<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// Percentiles of a histogram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub struct PercentileStats {
    pub samples: u64,
    pub p0_1: u64,
    pub p1: u64,
    pub p5: u64,
    pub p10: u64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p99_9: u64,
}

impl fmt::Display for PercentileStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} samples, p1 {}, p50 {}, p90 {}, p99 {}, p99.9 {}", self.samples, self.p1, self.p50, self.p90, self.p99, self.p99_9)
    }
}

/// Several named histograms, printed one a line.
#[derive(Debug, Clone, Default)]
pub struct AsciiChart(Vec<(String, Histogram)>);

impl AsciiChart {
    /// One without histograms.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a histogram.
    #[allow(clippy::should_implement_trait, reason = "the name openraft calls")]
    pub fn add(mut self, name: impl Into<String>, histogram: Histogram) -> Self {
        self.0.push((name.into(), histogram));
        self
    }
}

impl fmt::Display for AsciiChart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(name, histogram)| writeln!(f, "{name}: {}", histogram.percentile_stats()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_powers_of_two() {
        let mut histogram = Histogram::<()>::new();
        assert_eq!(histogram.percentile_stats().p50, 0);
        (0..90).for_each(|_| histogram.record(5));
        (0..10).for_each(|_| histogram.record(u64::MAX));
        let stats = histogram.percentile_stats();
        assert_eq!((stats.samples, stats.p1, stats.p50, stats.p90, stats.p99), (100, 4, 4, 4, 1 << 63));
    }
}
