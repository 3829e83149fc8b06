//! `kubectl get` and `kubectl get -o wide` of every kind, letter by letter.
//!
//! What kubectl prints of the objects of `tables/objects.yaml` is in `tables/expected.txt`, as upstream's printers (`pkg/printers/internalversion/printers.go`)
//! have it.

#[path = "tables/golden.rs"]
#[allow(dead_code, reason = "shared with the tests of descriptions")]
mod golden;
#[path = "tables/objects.rs"]
mod objects;

use anyhow::ensure;
use coracle_tests::{Case, Cluster, Mode, Result, main as suite};
use golden::Golden;
use std::{fmt::Write as _, process::ExitCode};

const CASES: &[Case] = &[("every_kind_is_printed_as_upstream_prints_it", every_kind_is_printed_as_upstream_prints_it)];

fn main() -> ExitCode {
    suite(Mode::Whole, CASES)
}

/// Times of the clock become `##s` and `<time>`, as wide as they were to kubectl: everything here is younger than a hundred seconds.
fn without_times(text: &str) -> String {
    let mut out = String::new();
    for line in text.lines() {
        let mut rest = line;
        let mut shown = String::new();
        while !rest.is_empty() {
            let end = rest.find(' ').unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            let spaces = after.len() - after.trim_start_matches(' ').len();
            let seconds = word.strip_suffix('s').filter(|digits| (1..=2).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit()));
            match seconds {
                // The padding makes up for the second digit.
                Some(digits) => _ = write!(shown, "##s{}", " ".repeat(if spaces > 0 { spaces + digits.len() - 2 } else { 0 })),
                None if word.len() == 20 && word.ends_with('Z') && word.starts_with("20") => _ = write!(shown, "<time>{}", &after[..spaces]),
                None => shown.extend([word, &after[..spaces]]),
            }
            rest = &after[spaces..];
        }
        out.extend([shown.trim_end(), "\n"]);
    }
    out
}

fn every_kind_is_printed_as_upstream_prints_it(cluster: &Cluster) -> Result {
    let mut golden = Golden::open("tables/expected.txt")?;
    for resource in objects::make(cluster)? {
        for wide in ["", " -o wide"] {
            let command = format!("-n tables get {resource} -l {}{wide}", objects::OURS);
            let output = cluster.kubectl(&command.split(' ').collect::<Vec<_>>())?;
            ensure!(output.code == 0 && !output.stdout.is_empty(), "{resource} is in no object of tables/objects.yaml: {output:?}");
            golden.compare(&format!("kubectl get {resource}{wide}"), &without_times(&output.stdout))?;
        }
    }
    golden.close()
}
