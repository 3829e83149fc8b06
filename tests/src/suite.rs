//! One file of cases: libtest's command line and output, over one shared cluster or none.

use crate::{Cluster, Mode, Result};
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use std::{pin::Pin, process::ExitCode, sync::Arc};

/// A case: its name and what it does to the cluster.
pub type Case = (&'static str, fn(&Cluster) -> Result);

/// A case with clusters of its own: its name and what it does.
pub type Alone = (&'static str, fn() -> Result);

/// What a crate promises, as a case without a cluster: its name and what it does; it fails by a panic.
pub type Promise = (&'static str, fn() -> Pin<Box<dyn Future<Output = ()>>>);

/// Runs promises one after another, each on a runtime of its own. `lacking` says what they need and this machine has not: then none is run.
pub fn in_turn(promises: Vec<Promise>, lacking: Option<&'static str>) -> ExitCode {
    let mut arguments = Arguments::from_args();
    // They count this very program's processes and descriptors.
    arguments.test_threads = Some(1);
    if let Some(lacking) = lacking.filter(|_| !arguments.list) {
        println!("SKIPPED, ALL OF THEM: {lacking}.");
    }
    let trials = promises.into_iter().map(|(name, promise)| {
        Trial::ignorable_test(name, move || match lacking {
            Some(lacking) => Ok(Completion::ignored_with(lacking)),
            None => {
                let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
                runtime.block_on(promise());
                Ok(Completion::Completed)
            }
        })
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

/// Runs cases that have clusters of their own.
pub fn alone(cases: &'static [Alone]) -> ExitCode {
    run_alone(&Arguments::from_args(), cases)
}

/// Runs cases that have clusters of their own and wait for most of their time: more of them beside each other than there are cores.
pub fn waiting(cases: &'static [Alone]) -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(4);
    run_alone(&arguments, cases)
}

fn run_alone(arguments: &Arguments, cases: &'static [Alone]) -> ExitCode {
    let trials = cases.iter().map(|(name, run)| Trial::test(*name, move || run().map_err(|error| Failed::from(format!("{error:?}")))));
    libtest_mimic::run(arguments, trials.collect()).exit_code()
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
