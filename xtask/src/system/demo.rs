//! `cargo xtask demo`: from a clone to a function that answers.

use anyhow::Result;
use clap::Args;

/// Where the demo lives.
#[derive(Args)]
pub struct Options {}

/// Starts the cluster.
pub fn run(_options: &Options) -> Result<()> {
    Ok(())
}
