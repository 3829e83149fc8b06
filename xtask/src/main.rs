//! The habits of this repository as code: `cargo xtask demo | test | deny | fuzz | guests | guest-v2 | clients | bench | schema`.

mod bench;
mod clients;
mod deny;
mod fuzz;
mod guest_v2;
mod guests;
mod packages;
mod schema;
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
    /// Run the container runtime's tests in a virtual machine that has control groups of version 2 alone.
    GuestV2(guest_v2::Options),
    /// Build and install the client libraries of other languages that the tests use, into target/clients.
    Clients,
    /// Check licences, sources and known vulnerabilities of all dependencies with cargo-deny, which is installed if need be.
    Deny,
    /// Look for inputs that break a parser; `fuzz/` holds the targets.
    Fuzz(fuzz::Options),
    /// Measure the release build beside a known yardstick.
    Bench {
        #[command(subcommand)]
        bench: bench::Bench,
    },
    /// Rewrite the facts table of `schema/facts` from a Kubernetes source tree.
    Schema {
        /// Root of the tree: holds `api/openapi-spec` and `staging/src/k8s.io`.
        tree: std::path::PathBuf,
    },
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().task {
        Task::Demo(options) => system::demo::run(&options),
        Task::Bench { bench } => bench::run(&bench),
        Task::Deny => deny::run(),
        Task::Fuzz(options) => fuzz::run(&options),
        Task::Test(options) => system::test::run(&options),
        Task::Guests { debian } => guests::build(debian).map(|dir| println!("{}", dir.display())),
        Task::GuestV2(options) => guest_v2::run(&options),
        Task::Clients => clients::build().map(|dir| println!("{}", dir.display())),
        Task::Schema { tree } => schema::run(&tree),
    }
}
