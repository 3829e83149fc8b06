//! The binary: commands, configuration, wiring. No logic lives here.

mod agent;
mod image;
mod kubeconfig;
mod machine;
mod node;
mod ready;
mod settings;
mod up;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Kubernetes' API in one small binary, with WebAssembly components as pods.
#[derive(Parser)]
#[command(name = "coracle", version, about, args_override_self = true, after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
First steps:
  coracle up &                                        start a one-machine cluster; prints `ready` and where the kubeconfig is
  export KUBECONFIG=/var/lib/coracle/kubeconfig       the place it printed
  coracle image import hello.wasm --name hello:v1     make a component known, with no registry
  kubectl run hello --image=hello:v1 --port=8080      run it as a pod";

#[derive(Subcommand)]
enum Command {
    /// Start a one-machine cluster: control plane and node in the foreground, until Ctrl-C or SIGTERM.
    Up(Box<up::Options>),
    /// Images on this machine: import, push, list, remove.
    Image(image::Options),
    /// Print the version.
    #[command(after_help = "Example:\n  coracle version")]
    Version,
}

fn main() -> ExitCode {
    // The workloads' own processes are this binary too; they must come up before anything else is set up.
    let hidden = coracle_runtime_wasm::hidden_command(std::env::args_os()).or_else(|| coracle_runtime_oci::hidden_command(std::env::args_os()));
    if let Some(code) = hidden {
        return ExitCode::from(u8::try_from(code).unwrap_or(1));
    }
    let arguments = Arguments::parse();
    let done = match arguments.command {
        Command::Up(options) => up::run(*options),
        Command::Image(options) => image::run(options),
        Command::Version => {
            println!("coracle {} (Kubernetes API v1.36)", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", told(&error));
            ExitCode::FAILURE
        }
    }
}

/// An error with its causes, each said once: many errors name theirs themselves.
fn told(error: &anyhow::Error) -> String {
    error
        .chain()
        .map(ToString::to_string)
        .reduce(|said, cause| if said.contains(&cause) { said } else { format!("{said}: {cause}") })
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{Arguments, told};
    use clap::{Command, CommandFactory};

    #[test]
    fn causes_are_said_once() {
        let error = anyhow::anyhow!("no such file").context("cannot read a: no such file").context("cannot start");
        assert_eq!(told(&error), "cannot start: cannot read a: no such file");
    }

    #[test]
    fn flags_do_not_clash() {
        Arguments::command().debug_assert();
    }

    /// The lines of a help's examples that call this program, without what is said of them.
    fn examples(command: &Command) -> Vec<Vec<String>> {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let words = |line: &str| {
            line.split("   ")
                .next()
                .unwrap_or_default()
                .trim_end_matches(" &")
                .split_whitespace()
                .map(|word| word.trim_matches('\'').to_owned())
                .collect()
        };
        help.lines().filter_map(|line| line.strip_prefix("  ").filter(|line| line.starts_with("coracle "))).map(words).collect()
    }

    fn each(command: &Command, seen: &mut Vec<String>) {
        let (name, examples) = (command.get_name(), examples(command));
        assert!(!examples.is_empty(), "`{name} --help` shows no example");
        for words in examples {
            assert!(Arguments::command().try_get_matches_from(&words).is_ok(), "`{name} --help` shows what is refused: {words:?}");
        }
        seen.push(name.to_owned());
        command.get_subcommands().for_each(|command| each(command, seen));
    }

    #[test]
    fn every_command_teaches_with_examples_that_work() {
        let mut seen = Vec::new();
        each(&Arguments::command(), &mut seen);
        assert_eq!(seen, ["coracle", "up", "image", "import", "push", "list", "rm", "version"]);
    }
}
