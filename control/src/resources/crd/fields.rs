//! Rules of what a definition says about single fields of its objects: printer columns, scale paths, selectable fields.

use crate::resources::rules::{At, Causes};
use coracle_schema::structural::{Node, Structural};
use serde_json::Value;

/// Most fields that objects can be selected by.
const MAX_SELECTABLE: usize = 8;

/// A path such as `.spec.replicas`.
fn simple_path(path: &At<'_, '_>, causes: &mut Causes) -> bool {
    if path.text().starts_with('.') {
        return true;
    }
    path.invalid(causes, "must be a simple json path starting with .");
    false
}

/// `subresources`
pub(super) fn subresources(subresources: &At<'_, '_>, causes: &mut Causes) {
    let scale = subresources.field("scale");
    if !scale.is_set() {
        return;
    }
    for (field, below) in [("specReplicasPath", ".spec."), ("statusReplicasPath", ".status.")] {
        let path = scale.field(field);
        if path.required(causes, "") && simple_path(&path, causes) && !path.text().starts_with(below) {
            path.invalid(causes, &format!("should be a json path under {}", below.trim_end_matches('.')));
        }
    }
    let path = scale.field("labelSelectorPath");
    if !path.text().is_empty() && simple_path(&path, causes) && ![".spec.", ".status."].iter().any(|below| path.text().starts_with(below)) {
        path.invalid(causes, "should be a json path under either .spec or .status");
    }
}

/// `additionalPrinterColumns`
pub(super) fn columns(columns: &At<'_, '_>, causes: &mut Causes) {
    const TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
    const FORMATS: [&str; 9] = ["byte", "date", "date-time", "double", "float", "int32", "int64", "password", "binary"];
    for column in columns.items() {
        column.field("name").required(causes, "");
        let must = |words: &[&str]| {
            let mut words = words.to_vec();
            words.sort_unstable();
            format!("must be one of {}", words.join(","))
        };
        let kind = column.field("type");
        if kind.text().is_empty() {
            kind.missing(causes, &must(&TYPES));
        } else if !TYPES.contains(&kind.text()) {
            kind.invalid(causes, &must(&TYPES));
        }
        let format = column.field("format");
        if !format.text().is_empty() && !FORMATS.contains(&format.text()) {
            format.invalid(causes, &must(&FORMATS));
        }
        // The internal form's name of the field.
        let path = column.field("JSONPath");
        let path = path.with(&column.value["jsonPath"]);
        if path.required(causes, "") {
            simple_path(&path, causes);
        }
    }
}

/// `selectableFields`
pub(super) fn selectable(fields: &At<'_, '_>, schema: &Value, causes: &mut Causes) {
    let Ok(structural) = Structural::parse(schema) else { return };
    let mut seen = Vec::new();
    for field in fields.items() {
        let path = field.field("jsonPath");
        if !path.required(causes, "") {
            continue;
        }
        match field_path(path.text(), structural.root(), false) {
            Err(why) => path.invalid(causes, &format!("is an invalid path: {why}")),
            Ok((steps, node)) => {
                if steps.first().is_some_and(|step| step == "metadata") {
                    path.invalid(causes, "must not point to fields in metadata");
                }
                if !matches!(node.kind(), "string" | "boolean" | "integer") {
                    let why = "must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.";
                    path.invalid(causes, why);
                }
                if seen.contains(&steps) {
                    path.duplicate(causes);
                } else {
                    seen.push(steps);
                }
            }
        }
    }
    if seen.len() > MAX_SELECTABLE {
        fields.with(&Value::Array(vec![Value::Null; seen.len()])).too_many(causes, MAX_SELECTABLE);
    }
}

/// Reads a path like `.spec.list` or `.spec['a.b']` along a schema: its steps, and the schema of what it leads to (`cel.ValidFieldPath`).
pub(super) fn field_path<'n>(text: &str, root: &'n Node, brackets: bool) -> Result<(Vec<String>, &'n Node), String> {
    let (mut steps, mut node, mut rest) = (Vec::new(), root, text);
    while let Some(first) = rest.chars().next() {
        let name = match first {
            '[' if !brackets => return Err("array notation is not allowed".into()),
            '[' => {
                let inner = &rest[1..];
                let Some(quoted) = inner.strip_prefix('\'') else {
                    let token = inner.split(['.', '[', ']']).next().unwrap_or_default();
                    return Err(match inner {
                        "" => "unexpected end of JSON path".into(),
                        _ => format!("expected single quoted string but got {}", if token.is_empty() { &inner[..1] } else { token }),
                    });
                };
                let end = quoted.char_indices().find(|(at, c)| *c == '\'' && !quoted[..*at].ends_with('\\')).map(|(at, _)| at);
                let end = end.ok_or_else(|| format!("expected single quoted string but got {inner}"))?;
                let name = quoted[..end].replace("\\'", "'").replace("\\\\", "\\");
                match quoted.get(end + 1..).unwrap_or_default() {
                    "" => return Err("unexpected end of JSON path".into()),
                    after => rest = after.strip_prefix(']').ok_or_else(|| format!("expected ] but got {after}"))?,
                }
                name
            }
            '.' => {
                let inner = &rest[1..];
                let end = inner.find(['.', '[', ']']).unwrap_or(inner.len());
                let name = match (inner, end) {
                    ("", _) => return Err("unexpected end of JSON path".into()),
                    // A delimiter is a name too, which no field has.
                    (inner, 0) => &inner[..1],
                    (inner, end) => &inner[..end],
                };
                rest = &inner[name.len()..];
                name.to_owned()
            }
            _ => {
                let token = rest.split(['.', '[', ']']).next().unwrap_or_default();
                return Err(format!("expected [ or . but got: {token}"));
            }
        };
        node = node.step(&name).ok_or("does not refer to a valid field")?;
        steps.push(name);
    }
    Ok((steps, node))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn field_paths_follow_the_schema() {
        let schema = Structural::parse(&json!({"type": "object", "properties": {
            "spec": {"type": "object", "properties": {"a": {"type": "string"}, "b.c": {"type": "integer"}, "map": {"type": "object", "additionalProperties": {"type": "boolean"}}}},
        }}))
        .expect("structural");
        let find = |path: &str, brackets: bool| field_path(path, schema.root(), brackets).map(|(steps, node)| (steps.join("/"), node.kind()));
        assert_eq!(find(".spec.a", false), Ok(("spec/a".into(), "string")));
        assert_eq!(find(".spec['b.c']", true), Ok(("spec/b.c".into(), "integer")));
        assert_eq!(find(".spec.map.x", true), Ok(("spec/map/x".into(), "boolean")));
        for (path, brackets, why) in [
            (".spec['b.c']", false, "array notation is not allowed"),
            (".spec.x", true, "does not refer to a valid field"),
            (".spec.a.b", true, "does not refer to a valid field"),
            ("spec", true, "expected [ or . but got: spec"),
            (".", true, "unexpected end of JSON path"),
            (".spec[0]", true, "expected single quoted string but got 0"),
            (".spec['a'", true, "unexpected end of JSON path"),
        ] {
            assert_eq!(find(path, brackets), Err(why.to_owned()), "{path}");
        }
    }
}
