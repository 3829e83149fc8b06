//! Upstream's own examples of every kind in all its encodings, `staging/src/k8s.io/api/testdata/HEAD/*.{json,pb}` of a Kubernetes
//! source tree. They are not part of this repository: `KUBERNETES_TREE=… cargo test -p coracle-schema -- --ignored upstream`, which
//! `cargo xtask schema` runs after it wrote the facts.

use super::envelope;
use crate::{FieldValidation, Schemas, facts};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// The examples' directory, JSON files sorted.
fn examples() -> Vec<PathBuf> {
    let tree = std::env::var("KUBERNETES_TREE").expect("KUBERNETES_TREE names a Kubernetes source tree");
    let dir = Path::new(&tree).join("staging/src/k8s.io/api/testdata/HEAD");
    let mut files: Vec<PathBuf> = std::fs::read_dir(&dir)
        .unwrap_or_else(|error| panic!("{}: {error}", dir.display()))
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "json"))
        .collect();
    files.sort();
    files
}

#[test]
#[ignore = "needs a Kubernetes source tree in KUBERNETES_TREE"]
fn upstream_examples_are_read_and_written_byte_for_byte() {
    let schemas = Schemas::builtin();
    let (mut seen, mut failed) = (0, Vec::new());
    for path in examples() {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let json: Map<String, Value> = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let text = |key: &str| json.get(key).and_then(Value::as_str).unwrap_or_default();
        let (group, version) = text("apiVersion").split_once('/').unwrap_or(("", text("apiVersion")));
        let found = facts::of_kind(group, version, text("kind"));
        let (Some((ty, _)), Some(schema)) = (found, schemas.get(group, version, text("kind"))) else { continue };
        let published = std::fs::read(path.with_extension("pb")).unwrap();
        seen += 1;
        let ours = envelope::seal(text("apiVersion"), text("kind"), &super::encode(&ty, &json));
        if ours != published {
            let at = ours.iter().zip(&published).take_while(|(a, b)| a == b).count();
            let around = |bytes: &[u8]| bytes.get(at.saturating_sub(24)..(at + 24).min(bytes.len())).unwrap_or_default().escape_ascii().to_string();
            failed.push(format!("{name}: differs at {at}: {} instead of {}", around(&ours), around(&published)));
        }
        let read = schema.decode_protobuf(&published, FieldValidation::Strict).map(|(value, _)| value);
        let (canonical, _) = schema.decode(&std::fs::read(&path).unwrap(), FieldValidation::Ignore).unwrap();
        if read.as_ref().ok() != Some(&canonical) {
            failed.push(format!("{name}: read as {read:?} instead of {canonical}"));
        }
    }
    assert!(failed.is_empty(), "{} of {seen}:\n{}", failed.len(), failed.join("\n"));
    assert!(seen > 60, "{seen}");
}
