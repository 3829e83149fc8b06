//! What the tables of several kinds share: how columns are declared, and cells that read the same everywhere.

use coracle_api::{registry::Column, selector::Selector};
use serde_json::Value;

/// A column: heading, one sentence. Prefix `+` shows it only with `-o wide`, prefix `#` makes it a number, prefix `?` a yes or no.
pub type Heading = (&'static str, &'static str);

/// The first column of nearly every table.
pub const NAME: Heading = ("Name", "Name of the object, unique within its namespace.");
/// Time since creation.
pub const AGE: Heading = ("Age", "Time since the object was created.");
/// Columns of workloads, wide.
pub const CONTAINERS: Heading = ("+Containers", "Names of the containers in the pod template.");
/// Columns of workloads, wide.
pub const IMAGES: Heading = ("+Images", "Images of the containers in the pod template.");
/// Columns of workloads, wide.
pub const SELECTOR: Heading = ("+Selector", "Which pods belong to it, by their labels.");

/// Column definitions from headings.
pub fn columns(headings: &[Heading]) -> Vec<Column> {
    headings
        .iter()
        .map(|(heading, description)| {
            let name = heading.trim_start_matches(['+', '#', '?']);
            Column {
                name: name.into(),
                kind: match heading.trim_start_matches('+').chars().next() {
                    Some('#') => "integer".into(),
                    Some('?') => "boolean".into(),
                    _ => "string".into(),
                },
                format: if name == "Name" { "name".into() } else { "".into() },
                priority: i32::from(heading.starts_with('+')),
                description: (*description).into(),
            }
        })
        .collect()
}

/// The name cell.
pub fn name(object: &Value) -> Value {
    object["metadata"]["name"].clone()
}

/// Text, or a stand-in where there is none.
pub fn text_or(value: &Value, otherwise: &str) -> String {
    match value.as_str() {
        Some(text) if !text.is_empty() => text.into(),
        _ => otherwise.into(),
    }
}

/// A count, 0 where there is none.
pub fn count(value: &Value) -> i64 {
    value.as_i64().unwrap_or_default()
}

/// The members of a list, none if it is absent.
pub fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// `a,b` of one text field over a list of objects.
pub fn joined(items: &Value, field: &str) -> String {
    list(items).iter().map(|item| item[field].as_str().unwrap_or_default()).collect::<Vec<_>>().join(",")
}

/// `k=v,k2=v2`, or `<none>`.
pub fn labels(map: &Value) -> String {
    let pairs: Vec<String> =
        map.as_object().into_iter().flatten().map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect();
    if pairs.is_empty() { "<none>".into() } else { pairs.join(",") }
}

/// A label selector object in the query form, or `<none>`.
pub fn selector(selector: &Value) -> String {
    match Selector::from_object(selector) {
        Ok(selector) if selector.terms().is_empty() => "<none>".into(),
        Ok(selector) => selector.to_string(),
        Err(_) => "<error>".into(),
    }
}

/// The three wide cells of a workload: containers, images, selector.
pub fn workload(spec: &Value) -> [Value; 3] {
    let containers = &spec["template"]["spec"]["containers"];
    [joined(containers, "name").into(), joined(containers, "image").into(), selector(&spec["selector"]).into()]
}

/// At most three members, then `+ N more...`; `<unset>` if there are none.
pub fn first_three(list: &[String]) -> String {
    match list.len() {
        0 => "<unset>".into(),
        1..=3 => list.join(","),
        more => format!("{} + {} more...", list[..3].join(","), more - 3),
    }
}

/// The status (`True`, `False`, `Unknown`) of a condition in `status.conditions`.
pub fn condition<'a>(conditions: &'a Value, kind: &str) -> Option<&'a str> {
    list(conditions).iter().find(|condition| condition["type"] == kind).map(|condition| condition["status"].as_str().unwrap_or_default())
}

/// Whether a condition is `True`.
pub fn is_true(conditions: &Value, kind: &str) -> bool {
    condition(conditions, kind) == Some("True")
}

/// Cells as text with their moments rendered at a fixed time, for golden rows.
#[cfg(test)]
pub fn golden(cells: &[Value], now: &str) -> String {
    let now = now.parse().expect("time");
    let shown = |cell: &Value| match cell {
        Value::String(text) => super::age::render(text, now).unwrap_or_else(|| text.clone()),
        other => other.to_string(),
    };
    cells.iter().map(shown).collect::<Vec<_>>().join(" | ")
}
