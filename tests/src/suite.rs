//! One file of cases: libtest's command line and output over one shared cluster.

use crate::{Cluster, Mode, Result};
use libtest_mimic::{Arguments, Failed, Trial};
use std::{process::ExitCode, sync::Arc};

/// A case: its name and what it does to the cluster.
pub type Case = (&'static str, fn(&Cluster) -> Result);

/// A case with clusters of its own: its name and what it does.
pub type Alone = (&'static str, fn() -> Result);

/// Runs cases that have clusters of their own.
pub fn alone(cases: &'static [Alone]) -> ExitCode {
    let trials = cases.iter().map(|(name, run)| Trial::test(*name, move || run().map_err(|error| Failed::from(format!("{error:?}")))));
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
}

/// Starts one cluster, runs the cases beside each other, and takes the cluster down.
pub fn main(mode: Mode, cases: &'static [Case]) -> ExitCode {
    let arguments = Arguments::from_args();
    if arguments.list {
        libtest_mimic::run(&arguments, cases.iter().map(|(name, _)| Trial::test(*name, || Ok(()))).collect()).exit();
    }
    let cluster = match Cluster::start(mode) {
        Ok(cluster) => Arc::new(cluster),
        Err(error) => {
            eprintln!("the cluster did not start: {error:?}");
            return ExitCode::FAILURE;
        }
    };
    let trials = cases.iter().map(|(name, run)| {
        let cluster = cluster.clone();
        Trial::test(*name, move || run(&cluster).map_err(|error| Failed::from(format!("{error:?}"))))
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    if conclusion.has_failed() {
        eprintln!("── what the cluster printed\n{}", cluster.log());
    }
    match Arc::try_unwrap(cluster) {
        Ok(cluster) => {
            if let Err(error) = cluster.stop() {
                eprintln!("the cluster did not stop: {error:?}");
                return ExitCode::FAILURE;
            }
        }
        Err(_) => eprintln!("a case still holds the cluster"),
    }
    conclusion.exit_code()
}
