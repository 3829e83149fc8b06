//! `meta.k8s.io/v1 Table` and `PartialObjectMetadata`: what `kubectl get` reads.
//!
//! Cells are computed once per stored object and kept with it; only ages, which change by themselves, are made when a row is sent.

use crate::{pipeline::Core, resources::Hooks};
use bytes::Bytes;
use coracle_api::registry::{Column, Resource};
use coracle_store::Object;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};
use std::sync::Arc;

/// Slot of the cells among an object's encodings.
const CELLS: usize = 0;

/// `includeObject` of the query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Include {
    /// Only cells.
    None,
    /// `PartialObjectMetadata`, the default.
    Metadata,
    /// The whole object.
    Object,
}

impl Include {
    /// From the query; unknown words mean the default.
    pub fn of(text: Option<&str>) -> Self {
        match text {
            Some("None") => Self::None,
            Some("Object") => Self::Object,
            _ => Self::Metadata,
        }
    }
}

/// Makes the rows of one resource.
pub struct Tables {
    hooks: Arc<dyn Hooks>,
    columns: Vec<Column>,
    include: Include,
    now: Timestamp,
}

fn column(name: &str, kind: &str, format: &str, description: &str) -> Column {
    Column { name: name.into(), kind: kind.into(), format: format.into(), priority: 0, description: description.into() }
}

fn columns_of(hooks: &dyn Hooks, row: &Resource) -> Vec<Column> {
    if let Some(columns) = hooks.columns() {
        return columns;
    }
    if !row.columns.is_empty() {
        return row.columns.clone();
    }
    vec![
        column("Name", "string", "name", "Name of the object, unique within its namespace and kind."),
        column("Age", "date", "", "Time since the object was created."),
    ]
}

impl Tables {
    /// For a row of the registry.
    pub fn new(core: &Core, row: &Resource, include: Include) -> Self {
        let hooks = core.hooks.get(&row.id()).clone();
        let columns = columns_of(&*hooks, row);
        Self { hooks, columns, include, now: Timestamp::now() }
    }

    /// `columnDefinitions`
    pub fn definitions(&self) -> Value {
        self.columns
            .iter()
            .map(|c| {
                // Clients show dates as the strings they are sent.
                let kind = if &*c.kind == "date" { "string" } else { &*c.kind };
                json!({"name": c.name, "type": kind, "format": c.format, "description": c.description, "priority": c.priority})
            })
            .collect()
    }

    /// One row as JSON text.
    pub fn row(&self, object: &Object) -> String {
        let cells = object.encoding(CELLS, || {
            let value: Value = serde_json::from_slice(&object.json).unwrap_or_default();
            let mut cells = self.hooks.cells(&value);
            cells.resize(self.columns.len(), Value::Null);
            Bytes::from(Value::Array(cells).to_string())
        });
        let mut cells: Vec<Value> = serde_json::from_slice(&cells).unwrap_or_default();
        for (cell, column) in cells.iter_mut().zip(&self.columns) {
            if let Value::Object(timed) = &*cell {
                let age = age(timed.get("age").unwrap_or(&Value::Null), self.now);
                *cell = Value::String(timed.get("format").and_then(Value::as_str).unwrap_or("{}").replace("{}", &age));
            } else if &*column.kind == "date" {
                *cell = Value::String(age(cell, self.now));
            }
        }
        let shown = match self.include {
            Include::None => "null".to_string(),
            Include::Metadata => partial(&object.json),
            Include::Object => String::from_utf8_lossy(&object.json).into_owned(),
        };
        format!("{{\"cells\":{},\"object\":{shown}}}", Value::Array(cells))
    }

    /// A table around rows.
    pub fn around(definitions: &Value, metadata: &Value, rows: &str) -> String {
        format!(
            "{{\"kind\":\"Table\",\"apiVersion\":\"meta.k8s.io/v1\",\"metadata\":{metadata},\"columnDefinitions\":{definitions},\"rows\":[{rows}]}}"
        )
    }

    /// Ages are told from this moment on.
    pub fn set_now(&mut self, now: Timestamp) {
        self.now = now;
    }
}

/// `PartialObjectMetadata` of stored bytes, the metadata as it is.
pub fn partial(json: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Borrowed<'a> {
        #[serde(borrow)]
        metadata: &'a RawValue,
    }
    let metadata = serde_json::from_slice::<Borrowed<'_>>(json).map_or("{}", |object| object.metadata.get());
    format!("{{\"kind\":\"PartialObjectMetadata\",\"apiVersion\":\"meta.k8s.io/v1\",\"metadata\":{metadata}}}")
}

/// A timestamp cell as its age; what is no timestamp is `<unknown>`.
fn age(cell: &Value, now: Timestamp) -> String {
    match cell.as_str().and_then(|text| text.parse::<Timestamp>().ok()) {
        Some(at) => human(now.duration_since(at).as_secs()),
        None => "<unknown>".into(),
    }
}

/// A duration in seconds as `kubectl` shows it: two figures at most (`k8s.io/apimachinery/pkg/util/duration.HumanDuration`).
pub fn human(seconds: i64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let two = |large: i64, unit: &str, small: i64, small_unit: &str| {
        if small == 0 { format!("{large}{unit}") } else { format!("{large}{unit}{small}{small_unit}") }
    };
    match seconds {
        ..-1 => "<invalid>".into(),
        -1..0 => "0s".into(),
        0..120 => format!("{seconds}s"),
        120..600 => two(minutes, "m", seconds % 60, "s"),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => two(hours, "h", minutes % 60, "m"),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => two(days, "d", hours % 24, "h"),
        691_200..63_072_000 => format!("{days}d"),
        63_072_000..252_288_000 => two(days / 365, "y", days % 365, "d"),
        _ => format!("{}y", days / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_read_as_kubectl_prints_them() {
        for (seconds, text) in [
            (-5, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (125, "2m5s"),
            (599, "9m59s"),
            (3_600, "60m"),
            (10_860, "3h1m"),
            (86_400, "24h"),
            (176_400, "2d1h"),
            (864_000, "10d"),
            (63_158_400, "2y1d"),
            (315_360_000, "10y"),
        ] {
            assert_eq!(human(seconds), text);
        }
        let now: Timestamp = "2026-01-01T00:01:00Z".parse().expect("valid");
        assert_eq!(age(&json!("2026-01-01T00:00:00Z"), now), "60s");
        assert_eq!(age(&Value::Null, now), "<unknown>");
    }

    #[test]
    fn partial_metadata_is_the_stored_text() {
        let text = partial(br#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a","labels":{"x":"y"}},"spec":{"metadata":1}}"#);
        assert_eq!(text, r#"{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":{"name":"a","labels":{"x":"y"}}}"#);
    }
}
