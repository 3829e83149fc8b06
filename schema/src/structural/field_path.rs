//! Paths along a schema.

use super::Node;

/// Reads a path like `.spec.list` or `.spec['a.b']` along a schema: as errors show it, and the schema of what it leads to (`cel.ValidFieldPath`).
///
/// # Errors
/// Why it is none.
pub fn field_path<'n>(text: &str, root: &'n Node, brackets: bool) -> Result<(String, &'n Node), String> {
    let (mut normal, mut node, mut rest) = (String::new(), root, text);
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
        match (normal.as_str(), node.properties.is_empty()) {
            (_, true) => normal.push_str(&format!("[{name}]")),
            ("", false) => normal.push_str(&name),
            (_, false) => normal.push_str(&format!(".{name}")),
        }
        node = node.step(&name).ok_or("does not refer to a valid field")?;
    }
    Ok((normal, node))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::structural::Structural;
    use serde_json::json;

    #[test]
    fn field_paths_follow_the_schema() {
        let schema = Structural::parse(&json!({"type": "object", "properties": {
            "spec": {"type": "object", "properties": {"a": {"type": "string"}, "b.c": {"type": "integer"}, "map": {"type": "object", "additionalProperties": {"type": "boolean"}}}},
        }}))
        .expect("structural");
        let find = |path: &str, brackets: bool| field_path(path, schema.root(), brackets).map(|(normal, node)| (normal, node.kind()));
        assert_eq!(find(".spec.a", false), Ok(("spec.a".into(), "string")));
        assert_eq!(find(".spec['b.c']", true), Ok(("spec.b.c".into(), "integer")));
        assert_eq!(find(".spec.map.x", true), Ok(("spec.map[x]".into(), "boolean")));
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
