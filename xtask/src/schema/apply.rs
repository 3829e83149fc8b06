//! The schema that upstream generates for apply configurations (`applyconfigurations/internal/internal.go`, YAML in a Go string): a
//! second witness of how lists are merged, against which the facts from OpenAPI are checked.

use super::Source;
use anyhow::{Context, Result, ensure};
use std::collections::HashMap;
use std::path::Path;

/// How a list is merged: `associative` with keys is a map, without keys a set.
#[derive(Default, Debug, PartialEq)]
struct Merge {
    relationship: String,
    keys: Vec<String>,
}

/// Lists by `type.field`, with OpenAPI's names of types.
pub struct Published {
    lists: HashMap<String, Merge>,
}

impl Published {
    /// Reads the schema of a Kubernetes tree.
    pub fn read(tree: &Path) -> Result<Published> {
        let path = tree.join("staging/src/k8s.io/client-go/applyconfigurations/internal/internal.go");
        let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        let mut lists: HashMap<String, Merge> = HashMap::new();
        let (mut ty, mut field) = ("", "");
        for line in text.lines() {
            if let Some(name) = line.strip_prefix("- name: ") {
                (ty, field) = (name, "");
            } else if let Some(name) = line.strip_prefix("    - name: ") {
                field = name;
            } else if let Some(relationship) = line.strip_prefix("          elementRelationship: ") {
                lists.entry(format!("{ty}.{field}")).or_default().relationship = relationship.into();
            } else if let Some(key) = line.strip_prefix("          - ") {
                lists.entry(format!("{ty}.{field}")).or_default().keys.push(key.into());
            }
        }
        ensure!(lists.len() > 100, "{} holds only {} lists: its form has changed", path.display(), lists.len());
        Ok(Published { lists })
    }

    /// The lists of a file of facts must merge as published here, where they are.
    pub fn check(&self, source: &Source, facts: &str) -> Result<()> {
        let mut ty = "";
        for line in facts.lines().skip(1) {
            let Some(field) = line.strip_prefix(' ') else {
                ty = line.split(' ').next().unwrap_or_default();
                continue;
            };
            let words: Vec<&str> = field.split(' ').collect();
            let [name, _, shape, marks @ ..] = words.as_slice() else { continue };
            let list = shape.split_once(')').map_or(*shape, |(_, rest)| rest).starts_with("[]");
            let Some(published) = self.lists.get(&format!("{}.{ty}.{name}", source.openapi)).filter(|_| list) else { continue };
            let mark = |key: &str| marks.iter().find_map(|m| m.strip_prefix(key)).unwrap_or_default();
            let ours = Merge {
                relationship: if matches!(mark("list="), "map" | "set") { "associative" } else { "atomic" }.into(),
                keys: mark("keys=").split(',').filter(|k| !k.is_empty()).map(String::from).collect(),
            };
            ensure!(ours == *published, "{}.{ty}.{name}: {ours:?}, published for apply {published:?}", source.stem);
        }
        Ok(())
    }
}
