//! Flags that few need: those of Kubernetes' own servers, under their names.

use anyhow::{Context, Result, anyhow};
use clap::Args;
use coracle_control::{Settings, scheduler::profile};
use std::path::PathBuf;

/// Flags of the control plane.
#[derive(Args)]
pub struct Flags {
    /// A KubeSchedulerConfiguration with profiles: which plugins place the pods of which schedulerName.
    #[arg(long, value_name = "FILE")]
    scheduler_config: Option<PathBuf>,
}

impl Flags {
    /// What the flags say; files are read.
    pub fn settings(&self) -> Result<Settings> {
        let mut settings = Settings::default();
        if let Some(path) = &self.scheduler_config {
            let text = std::fs::read_to_string(path).with_context(|| format!("cannot read --scheduler-config {}", path.display()))?;
            settings.profiles = profile::read(&text).map_err(|error| anyhow!("--scheduler-config {}: {error}", path.display()))?;
        }
        Ok(settings)
    }
}
