//! The facts table: what Kubernetes' published sources say about every built-in type, read lazily, a type at a time.
//!
//! The table is text, one file a Go package in `schema/facts/`, written by `cargo xtask schema` and embedded in the binary (its
//! pages are file-backed and only those of packages in use are touched). A file reads:
//!
//! ```text
//! # io.k8s.api.apps.v1 k8s.io/api/apps/v1        OpenAPI prefix, Go import path
//! Deployment kind=apps/v1/Deployment             a type; marks: kind=GROUP/VERSION/KIND map=atomic unions=JSON
//!  @TypeMeta 0 meta.v1.TypeMeta                  embedded: Go name, protobuf number (0: fields are not on the wire), type
//!  spec 2 DeploymentSpec                         JSON name, protobuf number, type, marks
//! DeploymentSpec
//!  replicas 1 int32 *                            * pointer: zero is a value; without it zero is left out …
//!  selector 2 meta.v1.LabelSelector * ! req      … unless ! (no omitempty); 0 omitzero; req required by OpenAPI
//! ```
//!
//! Types: `string`, `bool`, `int32` …, `bytes`, `Quantity`, `Time` …; `[]T` list, `{}T` map from string; another struct by name, with
//! its file in front when it is another one; `string:RestartPolicy` and `(ResourceList){}Quantity` carry the Go name that error
//! messages show. Other marks: `list=map|set|atomic keys=a,b map=atomic|granular patch=merge,retainKeys mergeKey=name default=JSON enum=a,b` (`~` for a blank).
//!
//! Rejected: a binary form (unreadable in a diff, and the text is 95 KB), and one Rust `const` a type (relocations, and rebuilt code
//! for a new Kubernetes version).

use crate::types::{Embed, Field, Flags, Link, ListKind, Shape, Type};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// One embedded file.
struct Package {
    stem: &'static str,
    text: &'static str,
    index: OnceLock<Index>,
}

/// Where the types of a file are.
struct Index {
    openapi: &'static str,
    /// Type name → head line's marks and the field lines, sorted by name.
    types: Vec<(&'static str, &'static str, &'static str)>,
}

macro_rules! packages {
    ($($stem:literal),* $(,)?) => {
        static PACKAGES: [Package; 25] = [
            $(Package { stem: $stem, text: include_str!(concat!("../facts/", $stem)), index: OnceLock::new() }),*
        ];
    };
}

// Sorted; a test compares it with the directory.
packages![
    "admission.v1",
    "admissionregistration.v1",
    "apidiscovery.v2",
    "apiextensions.v1",
    "apiregistration.v1",
    "apps.v1",
    "authentication.v1",
    "authorization.v1",
    "autoscaling.v1",
    "autoscaling.v2",
    "batch.v1",
    "certificates.v1",
    "coordination.v1",
    "core.v1",
    "discovery.v1",
    "events.v1",
    "flowcontrol.v1",
    "meta.v1",
    "networking.v1",
    "node.v1",
    "policy.v1",
    "rbac.v1",
    "resource.v1",
    "scheduling.v1",
    "storage.v1",
];

impl Package {
    fn named(stem: &str) -> Option<&'static Package> {
        PACKAGES.binary_search_by(|p| p.stem.cmp(stem)).ok().and_then(|at| PACKAGES.get(at))
    }

    fn index(&self) -> &Index {
        self.index.get_or_init(|| {
            let openapi = self.text.strip_prefix("# ").and_then(|rest| rest.split(' ').next()).unwrap_or_default();
            let mut types = Vec::new();
            let mut rest = self.text.split_once('\n').map_or("", |(_, rest)| rest);
            while !rest.is_empty() {
                let (head, after) = rest.split_once('\n').unwrap_or((rest, ""));
                let (name, marks) = head.split_once(' ').unwrap_or((head, ""));
                let end = if after.starts_with(' ') { end_of_fields(after) } else { 0 };
                let (fields, next) = after.split_at(end);
                types.push((name, marks, fields));
                rest = next;
            }
            Index { openapi, types }
        })
    }
}

/// Offset behind the last of the field lines that `text` begins with.
fn end_of_fields(text: &str) -> usize {
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        if !line.starts_with(' ') {
            break;
        }
        at += line.len();
    }
    at
}

/// A built-in type by file and name (`core.v1.PodSpec`); made once and shared.
pub(crate) fn named(name: &str) -> Option<Arc<Type>> {
    static LOADED: Mutex<BTreeMap<Box<str>, Arc<Type>>> = Mutex::new(BTreeMap::new());
    if let Some(known) = LOADED.lock().unwrap_or_else(PoisonError::into_inner).get(name) {
        return Some(known.clone());
    }
    let (stem, short) = name.rsplit_once('.')?;
    let package = Package::named(stem)?;
    let index = package.index();
    let at = index.types.binary_search_by(|t| t.0.cmp(short)).ok()?;
    let (short, marks, fields) = *index.types.get(at)?;
    let made = Arc::new(parse_type(package, index, name, short, marks, fields));
    // Made outside the lock, since embedded types load others; of two racing makers the first one's stays.
    Some(LOADED.lock().unwrap_or_else(PoisonError::into_inner).entry(name.into()).or_insert(made).clone())
}

/// The type of a kind, and whether its group and version are fixed (meta kinds such as DeleteOptions go with every group).
pub(crate) fn of_kind(group: &str, version: &str, kind: &str) -> Option<(Arc<Type>, bool)> {
    let first = if group.is_empty() { "core" } else { group.split('.').next().unwrap_or_default() };
    let found = named(&format!("{first}.{version}.{kind}")).filter(|t| t.is_kind(group, version, kind));
    if let Some(found) = found {
        return Some((found, true));
    }
    let package = match kind {
        "DeleteOptions"
        | "Status"
        | "List"
        | "WatchEvent"
        | "PartialObjectMetadata"
        | "PartialObjectMetadataList"
        | "Patch"
        | "APIVersions"
        | "APIGroup"
        | "APIGroupList"
        | "APIResourceList" => "meta.v1",
        "APIGroupDiscoveryList" => "apidiscovery.v2",
        _ => return None,
    };
    named(&format!("{package}.{kind}")).map(|ty| (ty, false))
}

/// Names of all types of the table.
#[cfg(test)]
pub(crate) fn all() -> impl Iterator<Item = String> {
    PACKAGES.iter().flat_map(|p| p.index().types.iter().map(|t| format!("{}.{}", p.stem, t.0)))
}

fn mark<'a>(marks: &'a str, key: &str) -> Option<&'a str> {
    marks.split(' ').find_map(|m| m.strip_prefix(key)?.strip_prefix('='))
}

fn parse_type(package: &'static Package, index: &Index, full: &str, short: &'static str, marks: &'static str, lines: &'static str) -> Type {
    let mut fields = Vec::new();
    let mut embeds = Vec::new();
    for line in lines.lines() {
        let mut words = line.trim_start().splitn(4, ' ');
        let (Some(name), Some(number), Some(shape)) = (words.next(), words.next(), words.next()) else { continue };
        let marks = words.next().unwrap_or_default();
        let number = number.parse().unwrap_or(0);
        let Some(go) = name.strip_prefix('@') else {
            fields.push(parse_field(package, name, number, shape, marks));
            continue;
        };
        let target = qualified(package, shape);
        let Some(inner) = named(&target) else { continue };
        // TypeMeta's fields are in JSON only; they belong to every kind.
        let base = embeds.len();
        embeds.push(Embed { go: Cow::Borrowed(go), number, parent: 0 });
        for deeper in &inner.embeds {
            embeds.push(Embed { parent: 1 + base as u8 + if deeper.parent == 0 { 0 } else { deeper.parent }, ..deeper.clone() });
        }
        for field in &inner.fields {
            let embed = 1 + base as u8 + field.embed;
            fields.push(Field { embed, ..field.clone() });
        }
    }
    fields.sort_by(|a, b| a.json.cmp(&b.json));
    let kind = mark(marks, "kind").and_then(|k| {
        let mut parts = k.splitn(3, '/');
        Some((Cow::Borrowed(parts.next()?), Cow::Borrowed(parts.next()?), Cow::Borrowed(parts.next()?)))
    });
    Type {
        key: Cow::Owned(full.to_owned()),
        go: Cow::Borrowed(short),
        openapi: Cow::Owned(format!("{}.{short}", index.openapi)),
        kind,
        atomic: mark(marks, "map") == Some("atomic"),
        unions: mark(marks, "unions").map(Cow::Borrowed),
        fold: crate::fold::of(full),
        default: crate::defaults::of(full),
        fields: fields.into(),
        embeds: embeds.into(),
        layout: OnceLock::new(),
    }
}

fn parse_field(package: &Package, json: &'static str, number: u16, shape: &'static str, marks: &'static str) -> Field {
    let mut field = Field {
        json: Cow::Borrowed(json),
        number,
        shape: parse_shape(package, shape),
        flags: Flags::default(),
        embed: 0,
        list: ListKind::None,
        keys: Box::default(),
        merge_key: None,
        default: None,
        choices: None,
    };
    for word in marks.split(' ').filter(|w| !w.is_empty()) {
        match word.split_once('=') {
            None => match word {
                "*" => field.flags.pointer = true,
                "!" => field.flags.always = true,
                "0" => field.flags.omit_zero = true,
                "req" => field.flags.required = true,
                _ => {}
            },
            Some((key, value)) => match key {
                "list" => field.list = ListKind::of(value),
                "map" => {
                    field.flags.atomic = value == "atomic";
                    field.flags.granular = value == "granular";
                }
                "keys" => field.keys = value.split(',').map(Cow::Borrowed).collect(),
                "patch" => {
                    field.flags.patch_merge = value.split(',').any(|s| s == "merge");
                    field.flags.patch_replace = value.split(',').any(|s| s == "replace");
                    field.flags.patch_retain_keys = value.split(',').any(|s| s == "retainKeys");
                }
                "mergeKey" => field.merge_key = Some(Cow::Borrowed(value)),
                "default" => field.default = Some(Cow::Borrowed(value)),
                "enum" if value.contains('~') => field.choices = Some(Cow::Owned(value.replace('~', " "))),
                "enum" => field.choices = Some(Cow::Borrowed(value)),
                _ => {}
            },
        }
    }
    field
}

fn qualified(package: &Package, name: &str) -> String {
    if name.contains('.') { name.to_owned() } else { format!("{}.{name}", package.stem) }
}

fn parse_shape(package: &Package, text: &'static str) -> Shape {
    if let Some(rest) = text.strip_prefix('(')
        && let Some((go, rest)) = rest.split_once(')')
    {
        return match parse_shape(package, rest) {
            Shape::List(_, element) => Shape::List(Cow::Borrowed(go), element),
            Shape::Map(_, element) => Shape::Map(Cow::Borrowed(go), element),
            other => other,
        };
    }
    if let Some(element) = text.strip_prefix("[]") {
        return Shape::List(Cow::Borrowed(""), Box::new(parse_shape(package, element)));
    }
    if let Some(element) = text.strip_prefix("{}") {
        return Shape::Map(Cow::Borrowed(""), Box::new(parse_shape(package, element)));
    }
    let (base, go) = text.split_once(':').unwrap_or((text, ""));
    let go = Cow::Borrowed(go);
    match base {
        "string" => Shape::String(go),
        "bool" => Shape::Bool(go),
        "int32" => Shape::Int { bits: 32, signed: true, go },
        "int64" | "int" => Shape::Int { bits: 64, signed: true, go },
        "uint8" => Shape::Int { bits: 8, signed: false, go },
        "uint32" => Shape::Int { bits: 32, signed: false, go },
        "uint64" => Shape::Int { bits: 64, signed: false, go },
        "float64" | "float32" => Shape::Float,
        "bytes" => Shape::Bytes,
        "Quantity" => Shape::Quantity,
        "Time" => Shape::Time,
        "MicroTime" => Shape::MicroTime,
        "Duration" => Shape::Duration,
        "IntOrString" => Shape::IntOrString,
        "RawExtension" | "Object" | "FieldsV1" | "JSON" | "JSONSchemaPropsOrArray" | "JSONSchemaPropsOrBool" | "JSONSchemaPropsOrStringArray" => {
            Shape::Any(Cow::Borrowed(base))
        }
        name => Shape::Struct(Link::new(qualified(package, name))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_packages_is_the_directory() {
        let mut files: Vec<String> = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/facts"))
            .unwrap()
            .map(|f| f.unwrap().file_name().into_string().unwrap())
            .collect();
        files.sort();
        assert_eq!(files, PACKAGES.iter().map(|p| p.stem).collect::<Vec<_>>());
    }

    #[test]
    fn every_type_loads_and_every_reference_resolves() {
        fn resolve(shape: &Shape) {
            match shape {
                Shape::Struct(link) => assert!(!link.get().go.is_empty()),
                Shape::List(_, element) | Shape::Map(_, element) => resolve(element),
                _ => {}
            }
        }
        let mut count = 0;
        for name in all() {
            let ty = named(&name).unwrap();
            count += ty.fields.len();
            for field in &ty.fields {
                resolve(&field.shape);
                if let Some(key) = &field.merge_key {
                    let Shape::List(_, element) = &field.shape else { panic!("{name}.{}: merge key on no list", field.json) };
                    let Shape::Struct(link) = &**element else { panic!("{name}.{}: merge key on scalars", field.json) };
                    assert!(link.get().field(key).is_some(), "{name}.{}: no merge key {key}", field.json);
                }
                if let Some(default) = &field.default {
                    serde_json::from_str::<serde_json::Value>(default).unwrap();
                }
            }
        }
        assert!(count > 2500, "{count}");
    }

    #[test]
    fn facts_known_by_heart() {
        let spec = named("core.v1.PodSpec").unwrap();
        let volumes = spec.field("volumes").unwrap();
        assert!(volumes.flags.patch_merge && volumes.flags.patch_retain_keys && volumes.merge_key.as_deref() == Some("name"));
        let ports = named("core.v1.Container").unwrap();
        let ports = ports.field("ports").unwrap();
        assert_eq!((ports.number, ports.keys.len(), ports.list), (6, 2, ListKind::Map));
        let probe = named("core.v1.Probe").unwrap();
        let http = probe.field("httpGet").unwrap();
        assert_eq!(probe.embed_path(http), ["ProbeHandler"]);
        assert_eq!(probe.openapi, "io.k8s.api.core.v1.Probe");
        assert!(named("core.v1.LocalObjectReference").unwrap().atomic);
        assert_eq!(spec.field("restartPolicy").unwrap().choices.as_deref(), Some("Always,Never,OnFailure"));
        assert!(of_kind("apps", "v1", "Deployment").is_some() && of_kind("apps", "v1", "DeploymentSpec").is_none());
        assert!(of_kind("rbac.authorization.k8s.io", "v1", "Role").is_some() && of_kind("rbac", "v1", "Role").is_none());
        assert!(of_kind("policy", "v1", "DeleteOptions").is_some_and(|(_, fixed)| !fixed));
    }
}
