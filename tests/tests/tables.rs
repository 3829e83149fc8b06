//! `kubectl get` and `kubectl get -o wide` of every kind, letter by letter.
//!
//! The objects of `tables/objects.yaml` are made by no controller and changed by none; what kubectl prints of them is in `tables/expected.txt`, as upstream's
//! printers (`pkg/printers/internalversion/printers.go`) have it. `CORACLE_GOLDEN=write` writes that file anew; read the difference before it is kept.

use anyhow::{Context, ensure};
use coracle_tests::{Case, Cluster, Mode, Result, main as suite};
use std::{fmt::Write as _, fs, path::Path, process::ExitCode};

const CASES: &[Case] = &[("every_kind_is_printed_as_upstream_prints_it", every_kind_is_printed_as_upstream_prints_it)];
const OBJECTS: &str = include_str!("tables/objects.yaml");
const EXPECTED: &str = include_str!("tables/expected.txt");

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
    cluster.kubectl_with(&["create", "-f", "-"], OBJECTS)?.ok()?;
    let volume = r#"{"status":{"phase":"Available"}}"#;
    cluster.kubectl(&["patch", "pv", "disk", "--subresource=status", "--type=merge", "-p", volume])?.ok()?;
    let service = r#"{"status":{"loadBalancer":{"ingress":[{"ip":"203.0.113.1","ipMode":"VIP"},{"hostname":"lb.example.com"}]}}}"#;
    cluster.kubectl(&["-n", "tables", "patch", "service", "balanced", "--subresource=status", "--type=merge", "-p", service])?.ok()?;
    cluster.kubectl(&["wait", "--for=condition=Established", "crd/boats.example.com", "--timeout=30s"])?.ok()?;
    let boat = "apiVersion: example.com/v1\nkind: Boat\nmetadata: {name: coracle, namespace: tables, labels: {table: 'yes'}}\nspec: {oars: 1, length: 1.5m}\n";
    cluster.apply(boat)?;
    cluster.kubectl(&["label", "apiservice", "v1.apps", "table=yes"])?.ok()?;
    let names = cluster.kubectl(&["api-resources", "--verbs=create,list", "-o", "name"])?.ok()?;
    let mut shown = String::new();
    // What controllers make carries the labels of what it is made for.
    let ours = "table=yes,!kubernetes.io/service-name,!endpoints.kubernetes.io/managed-by,!endpointslice.kubernetes.io/managed-by";
    for resource in names.lines().filter(|name| !name.is_empty()) {
        for wide in ["", " -o wide"] {
            let command = format!("-n tables get {resource} -l {ours}{wide}");
            let output = cluster.kubectl(&command.split(' ').collect::<Vec<_>>())?;
            ensure!(output.code == 0 && !output.stdout.is_empty(), "{resource} is in no object of tables/objects.yaml: {output:?}");
            _ = write!(shown, "$ kubectl get {resource}{wide}\n{}\n", without_times(&output.stdout));
        }
    }
    if std::env::var("CORACLE_GOLDEN").is_ok_and(|what| what == "write") {
        fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tables/expected.txt"), &shown)?;
    }
    let mut wanted = EXPECTED.split("$ ");
    for part in shown.split("$ ") {
        let wanted = wanted.next().context("there is more than was expected")?;
        ensure!(part == wanted, "wanted\n{wanted}\nand got\n{part}");
    }
    ensure!(wanted.next().is_none(), "there is less than was expected");
    Ok(())
}
