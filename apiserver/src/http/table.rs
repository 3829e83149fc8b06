//! `meta.k8s.io/v1 Table` and `PartialObjectMetadata`: what `kubectl get` reads.
//!
//! Cells are computed once per stored object and kept with it; only ages, which change by themselves, are made when a row is sent.

use crate::{
    pipeline::Core,
    resources::{Form, Hooks, age},
};
use bytes::Bytes;
use coracle_api::{
    registry::{Column, Resource},
    status::Status,
};
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
    /// From the query.
    ///
    /// # Errors
    /// 400 for another word.
    pub fn of(text: Option<&str>) -> Result<Self, Status> {
        match text {
            None | Some("" | "Metadata") => Ok(Self::Metadata),
            Some("None") => Ok(Self::None),
            Some("Object") => Ok(Self::Object),
            Some(other) => Err(Status::bad_request(format!(
                "Unable to convert to Table as requested: includeObject: Invalid value: \"{other}\": must be 'Metadata', 'Object', 'None', or empty"
            ))),
        }
    }
}

/// Makes the rows of one resource.
pub struct Tables {
    hooks: Arc<dyn Hooks>,
    /// For rows whose objects are stored in another form, which is the one that cells are made of.
    form: Option<&'static Form>,
    columns: Vec<Column>,
    /// Cells are kept with their objects.
    kept: bool,
    include: Include,
    /// `apiVersion` of the table.
    meta: &'static str,
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
        column("Age", "string", "", "Time since the object was created."),
    ]
}

impl Tables {
    /// For a row of the registry, in a version of `meta.k8s.io`.
    pub fn new(core: &Core, row: &Resource, include: Include, meta: &'static str) -> Self {
        let hooks = core.hooks_of(row);
        let columns = columns_of(&*hooks, row);
        let form = core.form_of(row);
        Self { hooks, form, columns, kept: row.custom.is_none(), include, meta, now: Timestamp::now() }
    }

    /// `columnDefinitions`
    pub fn definitions(&self) -> Value {
        self.columns
            .iter()
            .map(|c| json!({"name": c.name, "type": c.kind, "format": c.format, "description": c.description, "priority": c.priority}))
            .collect()
    }

    /// How many columns there are.
    pub fn columns(&self) -> usize {
        self.columns.len()
    }

    /// One row as JSON text.
    pub fn row(&self, object: &Object) -> String {
        let made = || {
            let value: Value = serde_json::from_slice(&object.json).unwrap_or_default();
            Bytes::from(Value::Array(self.cells(&value)).to_string())
        };
        // Columns of a custom kind change with its definition, and differ by version.
        let cells = if self.kept { object.encoding(CELLS, made) } else { made() };
        self.shown(serde_json::from_slice(&cells).unwrap_or_default(), &object.json)
    }

    /// The row of an object that is not stored, given as a value and as text.
    pub fn row_of(&self, value: &Value, json: &[u8]) -> String {
        self.shown(self.cells(value), json)
    }

    fn cells(&self, value: &Value) -> Vec<Value> {
        let mut cells = match self.form {
            Some(form) => {
                let mut stored = value.clone();
                (form.store)(&mut stored);
                self.hooks.cells(&stored)
            }
            None => self.hooks.cells(value),
        };
        cells.resize(self.columns.len(), Value::Null);
        cells
    }

    fn shown(&self, mut cells: Vec<Value>, json: &[u8]) -> String {
        for cell in &mut cells {
            if let Some(aged) = cell.as_str().and_then(|text| age::render(text, self.now)) {
                *cell = Value::String(aged);
            }
        }
        let shown = match self.include {
            Include::None => "null".to_string(),
            Include::Metadata => partial(json, self.meta),
            Include::Object => String::from_utf8_lossy(json).into_owned(),
        };
        format!("{{\"cells\":{},\"object\":{shown}}}", Value::Array(cells))
    }

    /// A table around rows.
    pub fn around(&self, definitions: &Value, metadata: &Value, rows: &str) -> String {
        format!("{}{rows}]}}", self.head(definitions, metadata))
    }

    /// What stands before the rows of a table; `]}` stands after them.
    pub fn head(&self, definitions: &Value, metadata: &Value) -> String {
        let meta = self.meta;
        format!("{{\"kind\":\"Table\",\"apiVersion\":\"{meta}\",\"metadata\":{metadata},\"columnDefinitions\":{definitions},\"rows\":[")
    }

    /// Ages are told from this moment on.
    pub fn set_now(&mut self, now: Timestamp) {
        self.now = now;
    }
}

/// `PartialObjectMetadata` of stored bytes, the metadata as it is; `meta` is its apiVersion.
pub fn partial(json: &[u8], meta: &str) -> String {
    #[derive(Deserialize)]
    struct Borrowed<'a> {
        #[serde(borrow)]
        metadata: &'a RawValue,
    }
    let metadata = serde_json::from_slice::<Borrowed<'_>>(json).map_or("{}", |object| object.metadata.get());
    format!("{{\"kind\":\"PartialObjectMetadata\",\"apiVersion\":\"{meta}\",\"metadata\":{metadata}}}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partial_metadata_is_the_stored_text() {
        let text = partial(br#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a","labels":{"x":"y"}},"spec":{"metadata":1}}"#, "meta.k8s.io/v1");
        assert_eq!(text, r#"{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":{"name":"a","labels":{"x":"y"}}}"#);
    }
}
