//! Flags of the node, under kubelet's names.

use anyhow::{Context, Result, ensure};
use clap::Args;
use coracle_node::{
    eviction::{Config, Graces, Reclaims, Thresholds, Transition},
    images::collect::Policy,
    machine::Reserve,
};
use std::path::PathBuf;

/// Flags of the node.
#[derive(Args)]
#[group(id = "node")]
pub struct Flags {
    /// A directory (or one file) with manifests of pods that this node runs whatever the API says; the API shows them by mirror pods.
    #[arg(long, value_name = "PATH")]
    pub pod_manifest_path: Option<PathBuf>,
    /// How little memory, disk, inodes or process ids may be left before the node is under pressure: SIGNAL<AMOUNT, with commas between.
    #[arg(long, value_name = "THRESHOLDS", env = "CORACLE_EVICTION_HARD", default_value_t)]
    eviction_hard: Thresholds,
    /// The same, acted on only after a grace (--eviction-soft-grace-period), which pods then have to stop, too.
    #[arg(long, value_name = "THRESHOLDS")]
    eviction_soft: Option<Thresholds>,
    /// How long a soft threshold may be met, such as memory.available=1m30s.
    #[arg(long, value_name = "SIGNAL=TIME")]
    eviction_soft_grace_period: Option<Graces>,
    /// Seconds that a pod has at most to stop when a soft threshold is met.
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    eviction_max_pod_grace_period: i64,
    /// How much more than its threshold is to be freed once a signal was below it, such as nodefs.available=1Gi.
    #[arg(long, value_name = "SIGNAL=AMOUNT")]
    eviction_minimum_reclaim: Option<Reclaims>,
    /// How long the node tells of a pressure after it was last seen.
    #[arg(long, value_name = "TIME", default_value = "5m")]
    eviction_pressure_transition_period: Transition,
    /// What pods cannot have because the machine's other programs need it, such as cpu=500m,memory=1Gi,ephemeral-storage=1Gi.
    #[arg(long, value_name = "RESOURCE=QUANTITY", default_value_t, hide_default_value = true)]
    pub system_reserved: Reserve,
    /// What pods cannot have because coracle itself needs it.
    #[arg(long, value_name = "RESOURCE=QUANTITY", default_value_t = Reserve::of_agent())]
    pub kube_reserved: Reserve,
    /// Memory that pods ask for stays theirs, and containers that use much more are slowed down before they meet their limit (memory QoS; control groups of version 2 alone).
    #[arg(long)]
    pub memory_qos: bool,
    /// Processes and threads that a pod of containers may have; -1: as many as the machine has.
    #[arg(long, value_name = "NUMBER", default_value_t = 16_384, allow_negative_numbers = true, value_parser = clap::value_parser!(i64).range(-1..))]
    pod_max_pids: i64,
    /// Percent of the disk in use at which images that no pod needs are removed; 100: never.
    #[arg(long, value_name = "PERCENT", default_value_t = Policy::default().high, value_parser = clap::value_parser!(u64).range(0..=100))]
    image_gc_high_threshold: u64,
    /// Percent down to which they are.
    #[arg(long, value_name = "PERCENT", default_value_t = Policy::default().low, value_parser = clap::value_parser!(u64).range(0..=100))]
    image_gc_low_threshold: u64,
}

impl Flags {
    /// Processes and threads of a pod.
    pub fn pod_max_pids(&self) -> Option<u64> {
        // As kubelet has it, nothing is no limit either.
        u64::try_from(self.pod_max_pids).ok().filter(|most| *most > 0)
    }

    /// When pods are evicted.
    pub fn eviction(&self) -> Result<Config> {
        let config = Config {
            hard: self.eviction_hard.clone(),
            soft: self.eviction_soft.clone(),
            soft_grace: self.eviction_soft_grace_period.clone().unwrap_or_default(),
            minimum_reclaim: self.eviction_minimum_reclaim.clone(),
            transition: self.eviction_pressure_transition_period,
            max_pod_grace_seconds: self.eviction_max_pod_grace_period,
        };
        config.check().context("--eviction-soft-grace-period")?;
        Ok(config)
    }

    /// When images are removed.
    pub fn image_gc(&self) -> Result<Policy> {
        let (high, low) = (self.image_gc_high_threshold, self.image_gc_low_threshold);
        ensure!(low < high, "--image-gc-low-threshold {low} must be below --image-gc-high-threshold {high}");
        Ok(Policy { high, low, ..Policy::default() })
    }
}
