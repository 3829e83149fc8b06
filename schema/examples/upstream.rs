//! Compares what the facts make of upstream's own examples of every kind with what upstream makes of them: `staging/src/k8s.io/api/testdata/HEAD/*.{json,pb}` of
//! the Kubernetes source tree that is named. They are not part of this repository; `cargo xtask schema` runs this after it wrote the facts.

use coracle_schema::{FieldValidation, Schemas, protobuf};
use serde_json::Value;
use std::{
    io,
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Fewer were not all of them.
const LEAST: usize = 60;

/// The JSON files, sorted.
fn examples(tree: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(tree.join("staging/src/k8s.io/api/testdata/HEAD"))?;
    let mut files: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
    files.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    files.sort();
    Ok(files)
}

/// What is wrong with one example; None if its kind is not served.
fn compare(schemas: &Schemas, path: &Path) -> io::Result<Option<Vec<String>>> {
    let text = std::fs::read(path)?;
    let json: Value = serde_json::from_slice(&text)?;
    let (api_version, kind) = (json["apiVersion"].as_str().unwrap_or_default(), json["kind"].as_str().unwrap_or_default());
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let (Some(schema), Some(ours)) = (schemas.get(group, version, kind), protobuf::of_value(&json)) else { return Ok(None) };
    let published = std::fs::read(path.with_extension("pb"))?;
    let mut wrong = Vec::new();
    if *ours != *published {
        let at = ours.iter().zip(&published).take_while(|(a, b)| a == b).count();
        let around = |bytes: &[u8]| bytes.get(at.saturating_sub(24)..(at + 24).min(bytes.len())).unwrap_or_default().escape_ascii().to_string();
        wrong.push(format!("differs at {at}: {} instead of {}", around(&ours), around(&published)));
    }
    let read = schema.decode_protobuf(&published, FieldValidation::Strict).map(|(value, _)| value);
    let canonical = schema.decode(&text, FieldValidation::Ignore).map(|(value, _)| value);
    if read.is_err() || read.as_ref().ok() != canonical.as_ref().ok() {
        wrong.push(format!("read as {read:?} instead of {canonical:?}"));
    }
    Ok(Some(wrong))
}

fn run(tree: &Path) -> io::Result<bool> {
    let schemas = Schemas::builtin();
    let (mut seen, mut failed) = (0, 0);
    for path in examples(tree)? {
        let Some(wrong) = compare(&schemas, &path)? else { continue };
        seen += 1;
        failed += usize::from(!wrong.is_empty());
        wrong.iter().for_each(|why| println!("{}: {why}", path.display()));
    }
    println!("{seen} examples, {failed} wrong");
    Ok(failed == 0 && seen >= LEAST)
}

fn main() -> ExitCode {
    let Some(tree) = std::env::args_os().nth(1) else {
        eprintln!("usage: upstream KUBERNETES-TREE");
        return ExitCode::from(2);
    };
    match run(Path::new(&tree)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{}: {error}", tree.display());
            ExitCode::FAILURE
        }
    }
}
