//! `cargo xtask schema KUBERNETES-TREE`: rewrites the facts table in `schema/facts/` from a Kubernetes source tree.
//!
//! What a type looks like to a Kubernetes client is spread over three published sources, and each has what the others lack:
//! the struct tags of `staging/src/k8s.io/api/*/types.go` (JSON name, protobuf number, what is a pointer, what is left out when
//! zero, strategic-merge keys, embedding), the OpenAPI v3 documents (list types, map keys, atomic structs, defaults, required,
//! kinds), and `generated.proto` and the schema of the apply configurations, against which numbers and list keys are checked. Only facts are taken: names, numbers, types, markers;
//! no sentence of upstream's documentation is copied (descriptions come from the k8s-openapi crate).
//!
//! Rejected: reading the zero-value rules out of the protobuf files alone (every proto2 field is `optional`, so a pointer looks like
//! a value), and running Go's reflection (it would need a Go toolchain).
//!
//! The format is described in `schema/src/facts.rs`, which reads it.

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

mod apply;
mod gosource;
use gosource::{Decl, Package};

/// Where a Go package of API types lives and what OpenAPI calls it.
struct Source {
    /// Name of our file and prefix of references to it, such as `core.v1`.
    stem: String,
    /// Directory below the tree.
    dir: PathBuf,
    /// Go import path.
    import: String,
    /// Prefix of OpenAPI definitions, such as `io.k8s.api.core.v1`.
    openapi: String,
}

/// Rewrites `schema/facts` in the current directory from the Kubernetes source tree at `tree`, and compares what they encode with its examples.
pub fn run(tree: &Path) -> Result<()> {
    let sources = sources(tree)?;
    let definitions = definitions(tree)?;
    let mut packages: BTreeMap<String, Package> = BTreeMap::new();
    for source in &sources {
        let package = Package::read(&tree.join(&source.dir)).with_context(|| format!("reading Go types of {}", source.import))?;
        packages.insert(source.import.clone(), package);
    }
    let published = apply::Published::read(tree)?;
    let out = Path::new("schema/facts");
    ensure!(out.is_dir(), "schema/facts is not here: run from the root of the repository");
    let writer =
        Writer { stems: sources.iter().map(|s| (s.import.clone(), s.stem.clone())).collect(), packages: &packages, definitions: &definitions };
    let mut total = 0;
    for source in &sources {
        let text = writer.package(source)?;
        check_proto(tree, source, &text)?;
        published.check(source, &text)?;
        total += text.len();
        std::fs::write(out.join(&source.stem), text)?;
    }
    println!("{} packages, {} KB of facts", sources.len(), total / 1024);
    // With the new facts built in: upstream's examples of every kind are the last witness.
    let arguments = ["run", "--quiet", "-p", "coracle-schema", "--example", "upstream", "--"];
    let done = std::process::Command::new("cargo").args(arguments).arg(tree).status()?;
    ensure!(done.success(), "upstream's examples in protobuf are not what these facts make of them");
    Ok(())
}

/// Every package of a stable version (`v1`, `v2`), and the shared ones outside `k8s.io/api`.
fn sources(tree: &Path) -> Result<Vec<Source>> {
    let staging = Path::new("staging/src/k8s.io");
    let mut found = vec![
        Source::new("meta.v1", staging.join("apimachinery/pkg/apis/meta/v1"), "k8s.io/apimachinery/pkg/apis/meta/v1"),
        Source::new(
            "apiextensions.v1",
            staging.join("apiextensions-apiserver/pkg/apis/apiextensions/v1"),
            "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1",
        ),
        Source::new(
            "apiregistration.v1",
            staging.join("kube-aggregator/pkg/apis/apiregistration/v1"),
            "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1",
        ),
    ];
    let api = tree.join(staging).join("api");
    for group in std::fs::read_dir(&api).with_context(|| format!("{} is no Kubernetes source tree", tree.display()))? {
        let group = group?;
        if !group.file_type()?.is_dir() {
            continue;
        }
        for version in std::fs::read_dir(group.path())? {
            let (group, version) = (group.file_name().into_string(), version?.file_name().into_string());
            let (Ok(group), Ok(version)) = (group, version) else { continue };
            let stable = version.strip_prefix('v').is_some_and(|n| n.chars().all(|c| c.is_ascii_digit()));
            if stable {
                let path = format!("api/{group}/{version}");
                found.push(Source::new(&format!("{group}.{version}"), staging.join(&path), &format!("k8s.io/{path}")));
            }
        }
    }
    found.sort_by(|a, b| a.stem.cmp(&b.stem));
    Ok(found)
}

impl Source {
    fn new(stem: &str, dir: PathBuf, import: &str) -> Self {
        Self { stem: stem.into(), dir, import: import.into(), openapi: format!("io.{}", import.replacen("k8s.io", "k8s", 1).replace('/', ".")) }
    }
}

/// All definitions of the published OpenAPI v3 documents.
fn definitions(tree: &Path) -> Result<HashMap<String, Value>> {
    let mut all = HashMap::new();
    let dir = tree.join("api/openapi-spec/v3");
    for file in std::fs::read_dir(&dir).with_context(|| format!("no published OpenAPI in {}", dir.display()))? {
        let path = file?.path();
        let mut document: Value = serde_json::from_slice(&std::fs::read(&path)?).with_context(|| format!("parsing {}", path.display()))?;
        if let Some(Value::Object(schemas)) = document.pointer_mut("/components/schemas").map(Value::take) {
            all.extend(schemas);
        }
    }
    ensure!(!all.is_empty(), "{} holds no definitions", dir.display());
    Ok(all)
}

struct Writer<'a> {
    /// Go import path → our stem.
    stems: HashMap<String, String>,
    packages: &'a BTreeMap<String, Package>,
    definitions: &'a HashMap<String, Value>,
}

impl Writer<'_> {
    fn package(&self, source: &Source) -> Result<String> {
        let package = &self.packages[&source.import];
        let mut text = format!("# {} {}\n", source.openapi, source.import);
        for (name, decl) in &package.decls {
            let Decl::Struct(fields) = decl else { continue };
            if special(&source.import, name).is_some() {
                continue;
            }
            let definition = self.definitions.get(&format!("{}.{name}", source.openapi));
            // A struct that is only ever embedded has no definition: its fields are described where they are inlined.
            let described = definition.or_else(|| self.embedder(source, package, name));
            let known = definition.is_some() || fields.iter().any(|f| f.number > 0);
            // Structs that no client ever sees (helpers of upstream's own code) have neither a definition nor protobuf numbers.
            if !known {
                continue;
            }
            text.push_str(name);
            if let Some(definition) = definition {
                type_marks(definition, &mut text)?;
            }
            text.push('\n');
            for field in fields {
                self.field(source, package, field, described, &mut text).with_context(|| format!("{}.{name}.{}", source.stem, field.go))?;
            }
        }
        Ok(text)
    }

    fn embedder(&self, source: &Source, package: &Package, name: &str) -> Option<&Value> {
        let embeds = |decl: &Decl| matches!(decl, Decl::Struct(fields) if fields.iter().any(|f| f.inline && f.expr == name));
        let (outer, _) = package.decls.iter().find(|(_, decl)| embeds(decl))?;
        self.definitions.get(&format!("{}.{outer}", source.openapi))
    }

    fn field(&self, source: &Source, package: &Package, field: &gosource::Field, definition: Option<&Value>, text: &mut String) -> Result<()> {
        let mut expr = field.expr.as_str();
        let pointer = expr.starts_with('*');
        expr = expr.trim_start_matches('*');
        let mut named = BTreeSet::new();
        let shape = self.shape(&source.import, &source.stem, package, expr, &mut named)?;
        if field.inline {
            writeln!(text, " @{} {} {shape}", field.go, field.number)?;
            return Ok(());
        }
        write!(text, " {} {} {shape}", field.json, field.number)?;
        if pointer {
            text.push_str(" *");
        }
        if !field.omitempty {
            text.push_str(" !");
        }
        if field.omitzero {
            text.push_str(" 0");
        }
        if let Some(definition) = definition {
            field_marks(definition, field, pointer, text)?;
        }
        if let Some(values) = self.choices(&source.import, package, expr) {
            let values: Vec<String> = values.iter().map(|v| v.replace(' ', "~")).collect();
            write!(text, " enum={}", values.join(","))?;
        }
        if !field.patch_strategy.is_empty() {
            write!(text, " patch={}", field.patch_strategy)?;
        }
        if !field.patch_merge_key.is_empty() {
            write!(text, " mergeKey={}", field.patch_merge_key)?;
        }
        text.push('\n');
        Ok(())
    }

    /// The values of a `+enum` type, or of the elements of a list or map of such.
    fn choices(&self, import: &str, package: &Package, expr: &str) -> Option<&BTreeSet<String>> {
        let name = expr.rsplit([']', '*']).next()?;
        let (path, name) = match name.split_once('.') {
            Some((alias, name)) => (package.imports.get(alias)?.as_str(), name),
            None => (import, name),
        };
        let home = self.packages.get(path)?;
        home.constants.get(name).filter(|_| home.enums.contains(name))
    }

    /// Our spelling of a Go type expression: `[]T` list, `{}T` map by string, `core.v1.Pod` struct, `string:Name` a named scalar,
    /// `(Name)…` a named list or map.
    fn shape(&self, import: &str, home: &str, package: &Package, expr: &str, seen: &mut BTreeSet<String>) -> Result<String> {
        let expr = expr.trim_start_matches('*');
        if expr == "[]byte" {
            return Ok("bytes".into());
        }
        if let Some(element) = expr.strip_prefix("[]") {
            return Ok(format!("[]{}", self.shape(import, home, package, element, seen)?));
        }
        if let Some(rest) = expr.strip_prefix("map[") {
            let (_, element) = rest.split_once(']').context("map without a key type")?;
            return Ok(format!("{{}}{}", self.shape(import, home, package, element, seen)?));
        }
        if let "string" | "bool" | "int32" | "int64" | "uint32" | "uint64" | "float64" | "float32" | "int" | "uint8" = expr {
            return Ok(expr.into());
        }
        let (path, name) = match expr.split_once('.') {
            Some((alias, name)) => (package.imports.get(alias).with_context(|| format!("unknown import {alias}"))?.as_str(), name),
            None => (import, expr),
        };
        if let Some(known) = special(path, name) {
            return Ok(known.into());
        }
        let last = path.rsplit('/').next().unwrap_or(path);
        let other = self.packages.get(path).with_context(|| format!("type {path}.{name} is outside the table"))?;
        match other.decls.get(name).with_context(|| format!("no declaration of {path}.{name}"))? {
            Decl::Struct(_) => {
                let stem = &self.stems[path];
                Ok(if stem == home { name.into() } else { format!("{stem}.{name}") })
            }
            Decl::Alias(target) => {
                ensure!(seen.insert(format!("{path}.{name}")), "type {path}.{name} refers to itself");
                let shape = self.shape(path, home, other, target, seen)?;
                seen.remove(&format!("{path}.{name}"));
                let own = home.rsplit('.').next() == Some(last);
                let label = if own { name.to_string() } else { format!("{last}.{name}") };
                Ok(match shape.as_bytes().first() {
                    Some(b'[' | b'{') => format!("({label}){shape}"),
                    _ if shape.contains(':') || shape.contains('.') => shape,
                    _ => format!("{shape}:{label}"),
                })
            }
        }
    }
}

/// Types with a JSON form of their own.
fn special(path: &str, name: &str) -> Option<&'static str> {
    Some(match (path, name) {
        ("k8s.io/apimachinery/pkg/api/resource", "Quantity") => "Quantity",
        ("k8s.io/apimachinery/pkg/util/intstr", "IntOrString") => "IntOrString",
        ("k8s.io/apimachinery/pkg/runtime", "RawExtension") => "RawExtension",
        ("k8s.io/apimachinery/pkg/runtime", "Object") => "Object",
        ("k8s.io/apimachinery/pkg/types", "UID") => "string:types.UID",
        ("k8s.io/apimachinery/pkg/types", "NodeName") => "string:types.NodeName",
        ("k8s.io/apimachinery/pkg/types", _) => "string",
        ("k8s.io/apimachinery/pkg/apis/meta/v1", "Time") => "Time",
        ("k8s.io/apimachinery/pkg/apis/meta/v1", "MicroTime") => "MicroTime",
        ("k8s.io/apimachinery/pkg/apis/meta/v1", "Duration") => "Duration",
        ("k8s.io/apimachinery/pkg/apis/meta/v1", "FieldsV1") => "FieldsV1",
        ("k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1", n) => match n {
            "JSON" => "JSON",
            "JSONSchemaPropsOrArray" => "JSONSchemaPropsOrArray",
            "JSONSchemaPropsOrBool" => "JSONSchemaPropsOrBool",
            "JSONSchemaPropsOrStringArray" => "JSONSchemaPropsOrStringArray",
            _ => return None,
        },
        _ => return None,
    })
}

fn type_marks(definition: &Value, text: &mut String) -> Result<()> {
    if let Some(Value::Array(kinds)) = definition.get("x-kubernetes-group-version-kind") {
        // DeleteOptions and WatchEvent are registered in every group; those are no kinds of objects.
        if let [kind] = kinds.as_slice() {
            let part = |key: &str| kind.get(key).and_then(Value::as_str).unwrap_or_default();
            write!(text, " kind={}/{}/{}", part("group"), part("version"), part("kind"))?;
        }
    }
    if let Some(Value::String(atomic)) = definition.get("x-kubernetes-map-type") {
        write!(text, " map={atomic}")?;
    }
    if let Some(unions) = definition.get("x-kubernetes-unions") {
        write!(text, " unions={unions}")?;
    }
    Ok(())
}

fn field_marks(definition: &Value, field: &gosource::Field, pointer: bool, text: &mut String) -> Result<()> {
    let json = field.json.as_str();
    if definition.get("required").and_then(Value::as_array).is_some_and(|r| r.iter().any(|n| n == json)) {
        text.push_str(" req");
    }
    let Some(property) = definition.get("properties").and_then(|p| p.get(json)) else {
        return Ok(());
    };
    for (key, mark) in [("x-kubernetes-list-type", "list"), ("x-kubernetes-map-type", "map")] {
        if let Some(Value::String(value)) = property.get(key) {
            write!(text, " {mark}={value}")?;
        }
    }
    if let Some(Value::Array(keys)) = property.get("x-kubernetes-list-map-keys") {
        let keys: Vec<&str> = keys.iter().filter_map(Value::as_str).collect();
        write!(text, " keys={}", keys.join(","))?;
    }
    if let Some(default) = property.get("default") {
        // `{}`, and the zero of a plain value that is always written, say nothing that the Go type does not; they are derived when
        // documents are made.
        let zero = *default == "" || *default == 0 || *default == false;
        let derived = matches!(default, Value::Object(o) if o.is_empty()) || (zero && !pointer && !field.omitempty);
        if !derived {
            let default = default.to_string();
            ensure!(!default.contains(' '), "default with a space: {default}");
            write!(text, " default={default}")?;
        }
    }
    Ok(())
}

/// Every number of our table must be the number of that message in `generated.proto`, and the other way round.
fn check_proto(tree: &Path, source: &Source, facts: &str) -> Result<()> {
    let path = tree.join(&source.dir).join("generated.proto");
    let proto = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let mut published: BTreeMap<&str, BTreeSet<u32>> = BTreeMap::new();
    let mut message = "";
    for line in proto.lines() {
        let line = line.trim();
        if let Some(name) = line.strip_prefix("message ") {
            message = name.trim_end_matches(['{', ' ']);
            published.entry(message).or_default();
        } else if !line.starts_with("//")
            && let Some((left, number)) = line.trim_end_matches(';').rsplit_once(" = ")
            && left.contains(' ')
            && let Ok(number) = number.parse()
        {
            published.entry(message).or_default().insert(number);
        }
    }
    let mut ours: BTreeMap<&str, BTreeSet<u32>> = BTreeMap::new();
    let mut current = "";
    for line in facts.lines().skip(1) {
        match line.strip_prefix(' ') {
            None => current = line.split(' ').next().unwrap_or_default(),
            Some(field) => {
                let number: u32 = field.split(' ').nth(1).unwrap_or_default().parse()?;
                let numbers = ours.entry(current).or_default();
                if number > 0 {
                    ensure!(numbers.insert(number), "{}.{current}: number {number} twice", source.stem);
                }
            }
        }
    }
    for (name, numbers) in &ours {
        if let Some(theirs) = published.get(name)
            && theirs != numbers
        {
            bail!("{}.{name}: protobuf numbers {numbers:?}, published {theirs:?}", source.stem);
        }
    }
    Ok(())
}
