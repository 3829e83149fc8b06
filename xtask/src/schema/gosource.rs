//! As much of Go's syntax as type declarations of API packages use: structs of one field a line, named types, imports.

use anyhow::{Context, Result};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

/// The declarations of one package.
#[derive(Default)]
pub struct Package {
    /// Import alias → import path, over all files (API packages use one alias for one path).
    pub imports: HashMap<String, String>,
    /// Types by name.
    pub decls: BTreeMap<String, Decl>,
    /// String types marked `+enum`, and the constants of string types.
    pub enums: BTreeSet<String>,
    pub constants: BTreeMap<String, BTreeSet<String>>,
}

/// One type.
pub enum Decl {
    /// A struct with its serialized fields.
    Struct(Vec<Field>),
    /// Any other named type: its right-hand side.
    Alias(String),
}

/// One field of a struct.
pub struct Field {
    /// Go name; of an embedded field, its type's name.
    pub go: String,
    /// Type expression as written.
    pub expr: String,
    /// Name in JSON; empty when inlined.
    pub json: String,
    /// Left out of JSON when zero.
    pub omitempty: bool,
    /// Left out of JSON when its `IsZero` says so.
    pub omitzero: bool,
    /// Embedded: its fields are ours in JSON, a nested message in protobuf.
    pub inline: bool,
    /// Protobuf number, 0 where there is none.
    pub number: u32,
    /// `patchStrategy` tag.
    pub patch_strategy: String,
    /// `patchMergeKey` tag.
    pub patch_merge_key: String,
}

impl Package {
    /// Reads the handwritten files of a package directory.
    pub fn read(dir: &Path) -> Result<Package> {
        let mut package = Package::default();
        let mut files: Vec<_> = std::fs::read_dir(dir).with_context(|| format!("{}", dir.display()))?.collect::<std::io::Result<Vec<_>>>()?;
        files.sort_by_key(std::fs::DirEntry::file_name);
        for file in files {
            let name = file.file_name().to_string_lossy().into_owned();
            let generated = name.starts_with("zz_") || name.contains("generated") || name.ends_with("_test.go");
            if name.ends_with(".go") && !generated {
                package.file(&std::fs::read_to_string(file.path())?).with_context(|| name.clone())?;
            }
        }
        Ok(package)
    }

    fn file(&mut self, text: &str) -> Result<()> {
        let mut lines = text.lines();
        let mut importing = false;
        let mut marked = false;
        while let Some(line) = lines.next() {
            let bare = strip_comment(line);
            if bare.trim().is_empty() {
                // Markers stand in the comment right above a declaration.
                marked = line.contains("//") && (marked || line.contains("+enum"));
                continue;
            }
            let marked = std::mem::take(&mut marked);
            self.constant(bare.trim_start_matches("const ").trim());
            if bare.starts_with("import (") {
                importing = true;
            } else if importing && bare.trim() == ")" {
                importing = false;
            } else if importing || bare.starts_with("import ") {
                self.import(bare.trim().trim_start_matches("import "));
            } else if let Some(rest) = bare.strip_prefix("type ") {
                let Some((name, right)) = rest.trim().split_once(' ') else { continue };
                let right = right.trim().trim_start_matches("= ").trim();
                if marked {
                    self.enums.insert(name.into());
                }
                if let Some(body) = right.strip_prefix("struct") {
                    let fields = if body.trim() == "{" { fields(&mut lines)? } else { Vec::new() };
                    self.decls.insert(name.into(), Decl::Struct(fields));
                } else if !right.starts_with("interface") && !right.starts_with("func") {
                    self.decls.insert(name.into(), Decl::Alias(right.into()));
                }
            }
        }
        Ok(())
    }

    /// Notes `Name Type = "value"`.
    fn constant(&mut self, line: &str) {
        let Some((left, value)) = line.split_once(" = \"") else { return };
        let mut words = left.split_whitespace();
        if let (Some(_), Some(of), None, Some((value, ""))) = (words.next(), words.next(), words.next(), value.split_once('"')) {
            self.constants.entry(of.into()).or_default().insert(value.into());
        }
    }

    fn import(&mut self, line: &str) {
        let Some((alias, path)) = line.split_once('"') else { return };
        let path = path.trim_end_matches('"');
        let alias = if alias.trim().is_empty() { path.rsplit('/').next().unwrap_or(path) } else { alias.trim() };
        self.imports.insert(alias.into(), path.into());
    }
}

fn strip_comment(line: &str) -> &str {
    // `//` inside a tag or string only occurs after a quote; comments of declarations come without one before them.
    match line.find("//") {
        Some(at) if !line[..at].contains(['"', '`']) => &line[..at],
        _ => line,
    }
}

fn fields<'a>(lines: &mut impl Iterator<Item = &'a str>) -> Result<Vec<Field>> {
    let mut fields = Vec::new();
    for line in lines.by_ref() {
        let bare = strip_comment(line).trim();
        if bare == "}" {
            return Ok(fields);
        }
        let (head, tag) = match bare.split_once('`') {
            Some((head, tag)) => (head.trim(), tag.split('`').next().unwrap_or_default()),
            None => (bare, ""),
        };
        let (json, protobuf) = (tag_value(tag, "json"), tag_value(tag, "protobuf"));
        if head.is_empty() || json.as_deref() == Some("-") {
            continue;
        }
        let (go, expr) = match head.split_once(char::is_whitespace) {
            Some((go, expr)) => (go.to_string(), expr.trim().to_string()),
            None => (head.rsplit('.').next().unwrap_or(head).trim_start_matches('*').to_string(), head.to_string()),
        };
        let Some(json) = json else { continue };
        let mut options = json.split(',');
        let name = options.next().unwrap_or_default().to_string();
        let options: Vec<&str> = options.collect();
        fields.push(Field {
            go,
            expr,
            inline: name.is_empty(),
            json: name,
            omitempty: options.contains(&"omitempty"),
            omitzero: options.contains(&"omitzero"),
            number: protobuf.as_deref().and_then(|p| p.split(',').nth(1)).and_then(|n| n.parse().ok()).unwrap_or(0),
            patch_strategy: tag_value(tag, "patchStrategy").unwrap_or_default(),
            patch_merge_key: tag_value(tag, "patchMergeKey").unwrap_or_default(),
        });
    }
    anyhow::bail!("struct without an end")
}

fn tag_value(tag: &str, key: &str) -> Option<String> {
    let (_, rest) = tag.split_once(&format!("{key}:\""))?;
    Some(rest.split('"').next().unwrap_or_default().to_string())
}
