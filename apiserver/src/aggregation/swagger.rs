//! OpenAPI v2 documents of several servers made one (`kube-openapi/pkg/aggregator`). Pure.
//!
//! Of a remote server's document only the paths of its group version are taken, and the definitions that they need. A path or definition of an earlier document is never replaced:
//! a definition of the same name that says something else is taken under another name. The first document, which is large and this server's own, is not read but for its keys.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, value::RawValue};
use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};

const DEFINITIONS: &str = "#/definitions/";
const PARAMETERS: &str = "#/parameters/";
const KINDS: &str = "x-kubernetes-group-version-kind";

/// What is taken of a document.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Part {
    /// By path.
    pub paths: Map<String, Value>,
    /// By name.
    pub definitions: Map<String, Value>,
    /// By name.
    pub parameters: Map<String, Value>,
}

/// Calls `each` with every reference in a value.
fn references<'v>(value: &'v Value, each: &mut impl FnMut(&'v str)) {
    match value {
        Value::Object(map) => {
            if let Some(Value::String(to)) = map.get("$ref") {
                each(to);
            }
            map.values().for_each(|value| references(value, each));
        }
        Value::Array(items) => items.iter().for_each(|value| references(value, each)),
        _ => {}
    }
}

/// Gives references that begin so their new names.
fn rename(value: &mut Value, prefix: &str, names: &BTreeMap<String, String>) {
    match value {
        Value::Object(map) => {
            if let Some(Value::String(to)) = map.get_mut("$ref")
                && let Some(new) = to.strip_prefix(prefix).and_then(|name| names.get(name))
            {
                *to = format!("{prefix}{new}");
            }
            map.values_mut().for_each(|value| rename(value, prefix, names));
        }
        Value::Array(items) => items.iter_mut().for_each(|value| rename(value, prefix, names)),
        _ => {}
    }
}

impl Part {
    /// Reads a document and takes what is below a path.
    ///
    /// # Errors
    /// What is wrong with the document.
    pub fn below(document: &[u8], prefix: &str) -> Result<Self, String> {
        let mut part: Self = serde_json::from_slice(document).map_err(|error| error.to_string())?;
        part.keep(|path| path.starts_with(prefix));
        Ok(part)
    }

    /// The definitions that paths need, themselves or by others.
    fn used(&self) -> BTreeSet<String> {
        let mut used = BTreeSet::new();
        let mut todo: Vec<&str> = Vec::new();
        self.paths.values().chain(self.parameters.values()).for_each(|value| references(value, &mut |to| todo.push(to)));
        while let Some(to) = todo.pop() {
            let Some(name) = to.strip_prefix(DEFINITIONS) else { continue };
            if used.insert(name.to_owned())
                && let Some(definition) = self.definitions.get(name)
            {
                references(definition, &mut |to| todo.push(to));
            }
        }
        used
    }

    /// Keeps these paths, and forgets the definitions that only others needed.
    fn keep(&mut self, wanted: impl Fn(&str) -> bool) {
        if self.paths.keys().all(|path| wanted(path)) {
            return;
        }
        let before = self.used();
        self.paths.retain(|path, _| wanted(path));
        let after = self.used();
        self.definitions.retain(|name, _| after.contains(name) || !before.contains(name));
    }

    /// Gives definitions and what refers to them other names.
    fn renamed(&mut self, prefix: &str, names: &BTreeMap<String, String>) {
        if names.is_empty() {
            return;
        }
        let own = if prefix == DEFINITIONS { &mut self.definitions } else { &mut self.parameters };
        *own = std::mem::take(own).into_iter().map(|(name, value)| (names.get(&name).cloned().unwrap_or(name), value)).collect();
        for map in [&mut self.paths, &mut self.definitions, &mut self.parameters] {
            map.values_mut().for_each(|value| rename(value, prefix, names));
        }
    }
}

/// Values by name, unread.
type Raw = BTreeMap<String, Box<RawValue>>;

/// Whether two definitions say the same but for the kinds that they are of.
fn same(a: &Value, b: &Value) -> bool {
    let (Value::Object(a), Value::Object(b)) = (a, b) else { return a == b };
    let rest = |map: &Map<String, Value>| map.len() - usize::from(map.contains_key(KINDS));
    rest(a) == rest(b) && a.iter().all(|(key, value)| key == KINDS || b.get(key) == Some(value))
}

/// New names for what another document has under the same name and says otherwise.
fn conflicts(ours: &Raw, theirs: &Map<String, Value>) -> BTreeMap<String, String> {
    let says = |name: &str, value: &Value| ours.get(name).map(|raw| serde_json::from_str::<Value>(raw.get()).is_ok_and(|its| same(&its, value)));
    let mut names = BTreeMap::new();
    let mut taken = BTreeSet::new();
    for (name, value) in theirs {
        if says(name, value) != Some(false) {
            continue;
        }
        let free = |new: &String| match says(new, value) {
            Some(same) => same,
            None => !taken.contains(new) && !theirs.contains_key(new),
        };
        if let Some(new) = (2..).map(|nth| format!("{name}_v{nth}")).find(free) {
            taken.insert(new.clone());
            names.insert(name.clone(), new);
        }
    }
    names
}

/// The kinds of two definitions that are the same otherwise, in order; None if ours has all of them.
fn kinds(ours: &Value, theirs: &Value) -> Option<Value> {
    let name = |kind: &Value| ["group", "version", "kind"].map(|field| kind[field].as_str().unwrap_or_default().to_owned());
    let mut all: Vec<Value> = ours[KINDS].as_array().cloned().unwrap_or_default();
    let before = all.len();
    for kind in theirs[KINDS].as_array().into_iter().flatten() {
        if !all.iter().any(|its| name(its) == name(kind)) {
            all.push(kind.clone());
        }
    }
    all.sort_by_key(name);
    (all.len() > before).then_some(Value::Array(all))
}

fn raw(value: &impl Serialize) -> Result<Box<RawValue>, String> {
    serde_json::value::to_raw_value(value).map_err(|error| error.to_string())
}

fn read(document: &Raw, field: &str) -> Result<Raw, String> {
    match document.get(field) {
        Some(text) => serde_json::from_str(text.get()).map_err(|error| error.to_string()),
        None => Ok(Raw::new()),
    }
}

/// A document with what was taken of others, the more important one first.
///
/// # Errors
/// The document is none.
pub fn merged(document: &[u8], parts: &[Part]) -> Result<Vec<u8>, String> {
    let wrong = |error: serde_json::Error| error.to_string();
    let mut whole: Raw = serde_json::from_slice(document).map_err(wrong)?;
    let (mut paths, mut definitions, mut parameters) = (read(&whole, "paths")?, read(&whole, "definitions")?, read(&whole, "parameters")?);
    for part in parts {
        let mut part = part.clone();
        part.keep(|path| !paths.contains_key(path));
        if part.paths.is_empty() {
            continue;
        }
        part.renamed(DEFINITIONS, &conflicts(&definitions, &part.definitions));
        part.renamed(PARAMETERS, &conflicts(&parameters, &part.parameters));
        for (name, definition) in part.definitions {
            let ours = definitions.get(&name).map(|raw| serde_json::from_str::<Value>(raw.get())).transpose().map_err(wrong)?;
            let new = match ours {
                None => Some(definition),
                Some(ours) => kinds(&ours, &definition).map(|kinds| {
                    let mut ours = ours;
                    ours[KINDS] = kinds;
                    ours
                }),
            };
            if let Some(new) = new {
                definitions.insert(name, raw(&new)?);
            }
        }
        for (into, from) in [(&mut parameters, part.parameters), (&mut paths, part.paths)] {
            for (name, value) in from {
                if let Entry::Vacant(place) = into.entry(name) {
                    place.insert(raw(&value)?);
                }
            }
        }
    }
    for (field, map) in [("paths", paths), ("definitions", definitions), ("parameters", parameters)] {
        if !map.is_empty() {
            whole.insert(field.into(), raw(&map)?);
        }
    }
    serde_json::to_vec(&whole).map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn refer(name: &str) -> Value {
        json!({"$ref": format!("#/definitions/{name}")})
    }

    fn theirs() -> Value {
        json!({
            "swagger": "2.0",
            "paths": {
                "/apis/w/v1/flunders": {"get": {"schema": refer("w.Flunder")}},
                "/apis/w/v2/flunders": {"get": {"schema": refer("w2.Flunder")}},
                "/api/v1/pods": {"get": {"schema": refer("w2.Flunder")}},
            },
            "definitions": {
                "w.Flunder": {"properties": {"metadata": refer("Meta"), "time": refer("Time")}},
                "w2.Flunder": {"properties": {"only": refer("Second")}},
                "Second": {}, "Nobody": {}, "Meta": {"description": "theirs"}, "Time": {"type": "string", KINDS: [{"group": "w", "version": "v1", "kind": "Time"}]},
            },
        })
    }

    fn part() -> Part {
        Part::below(theirs().to_string().as_bytes(), "/apis/w/v1/").expect("a document")
    }

    #[test]
    fn only_what_belongs_to_a_group_version_is_taken() {
        let part = part();
        assert_eq!(part.paths.keys().collect::<Vec<_>>(), ["/apis/w/v1/flunders"]);
        assert_eq!(part.definitions.keys().collect::<Vec<_>>(), ["Meta", "Nobody", "Time", "w.Flunder"], "what nobody needed before stays");
        assert!(Part::below(b"7", "/").is_err() && Part::below(b"{\"paths\": 1}", "/").is_err());
    }

    #[test]
    fn what_says_something_else_has_another_name() {
        let ours = json!({
            "swagger": "2.0", "info": {"title": "Kubernetes"},
            "paths": {"/api/v1/pods": {"get": {}}},
            "definitions": {"Meta": {"description": "ours"}, "Time": {"type": "string", KINDS: [{"group": "", "version": "v1", "kind": "Time"}]}},
        });
        let all = merged(ours.to_string().as_bytes(), &[part(), part()]).expect("merged");
        let all: Value = serde_json::from_slice(&all).expect("JSON");
        assert_eq!((&all["info"]["title"], &all["paths"]["/api/v1/pods"]), (&json!("Kubernetes"), &json!({"get": {}})));
        assert_eq!(all["paths"]["/apis/w/v1/flunders"]["get"]["schema"], refer("w.Flunder"));
        assert_eq!(all["definitions"]["w.Flunder"]["properties"], json!({"metadata": refer("Meta_v2"), "time": refer("Time")}));
        assert_eq!((&all["definitions"]["Meta"]["description"], &all["definitions"]["Meta_v2"]["description"]), (&json!("ours"), &json!("theirs")));
        assert_eq!(all["definitions"]["Time"][KINDS].as_array().map(Vec::len), Some(2), "the same definition is of the kinds of both");
        // A third server with the same definition as the second shares it.
        let mut third = part();
        third.paths = [("/apis/x/v1/things".to_owned(), json!({"get": refer("Meta")}))].into_iter().collect();
        let all = merged(ours.to_string().as_bytes(), &[part(), third]).expect("merged");
        let all: Value = serde_json::from_slice(&all).expect("JSON");
        assert_eq!(all["paths"]["/apis/x/v1/things"]["get"], refer("Meta_v2"));
        assert!(all["definitions"].get("Meta_v3").is_none());
    }

    #[test]
    fn a_path_is_the_first_servers() {
        let ours = json!({"paths": {"/apis/w/v1/flunders": {"ours": true}}, "definitions": {}});
        let all: Value = serde_json::from_slice(&merged(ours.to_string().as_bytes(), &[part()]).expect("merged")).expect("JSON");
        assert_eq!(
            all,
            json!({"paths": {"/apis/w/v1/flunders": {"ours": true}}})
                .as_object()
                .map(|map| {
                    let mut map = map.clone();
                    map.insert("definitions".into(), json!({}));
                    Value::Object(map)
                })
                .unwrap_or_default()
        );
    }
}
