//! The habits of this repository as code: `cargo xtask demo | test | guests `.

mod guests;
mod packages;

mod step;
mod system;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Build, try, test and measure Coracle")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Start a one-machine cluster with a function in it, and print curl and kubectl lines that work right now.
    Demo(system::demo::Options),
    /// Everything CI checks: format, lints, unit, property and whole-system tests.
    Test(system::test::Options),
    /// Build the WebAssembly guests (examples and the tests' own) into target/guests.
    Guests {
        /// Take the target's standard library from Debian's packages even where rustup has it.
        #[arg(long)]
        debian: bool,
    },
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().task {
        Task::Demo(options) => system::demo::run(&options),
        Task::Test(options) => system::test::run(&options),
        Task::Guests { debian } => guests::build(debian).map(|dir| println!("{}", dir.display())),
    }
}
