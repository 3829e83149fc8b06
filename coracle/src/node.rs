//! Flags of the node, under kubelet's names.

use anyhow::{Result, ensure};
use clap::Args;
use coracle_node::{eviction::Thresholds, images::collect::Policy};

/// Flags of the node.
#[derive(Args)]
#[group(id = "node")]
pub struct Flags {
    /// How little memory, disk, inodes or process ids may be left before the node is under pressure: SIGNAL<AMOUNT, with commas between.
    #[arg(long, value_name = "THRESHOLDS", env = "CORACLE_EVICTION_HARD", default_value_t)]
    pub eviction_hard: Thresholds,
    /// Percent of the disk in use at which images that no pod needs are removed; 100: never.
    #[arg(long, value_name = "PERCENT", default_value_t = Policy::default().high, value_parser = clap::value_parser!(u64).range(0..=100))]
    image_gc_high_threshold: u64,
    /// Percent down to which they are.
    #[arg(long, value_name = "PERCENT", default_value_t = Policy::default().low, value_parser = clap::value_parser!(u64).range(0..=100))]
    image_gc_low_threshold: u64,
}

impl Flags {
    /// When images are removed.
    pub fn image_gc(&self) -> Result<Policy> {
        let (high, low) = (self.image_gc_high_threshold, self.image_gc_low_threshold);
        ensure!(low < high, "--image-gc-low-threshold {low} must be below --image-gc-high-threshold {high}");
        Ok(Policy { high, low, ..Policy::default() })
    }
}
