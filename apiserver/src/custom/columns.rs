//! Printer columns: the cells of a custom resource's table (`registry/customresource/tableconvertor`).

use super::jsonpath::Path;
use crate::resources::age;
use coracle_api::registry::Column;
use serde::Deserialize;
use serde_json::Value;

/// `additionalPrinterColumns[]`
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Definition {
    name: Box<str>,
    r#type: Box<str>,
    #[serde(default)]
    format: Box<str>,
    #[serde(default)]
    description: Box<str>,
    #[serde(default)]
    priority: i32,
    #[serde(default)]
    json_path: Box<str>,
}

/// A column and where its cell comes from.
pub(super) struct Printer {
    pub column: Column,
    path: Option<Path>,
}

/// The name, then what the definition asks for, or the age.
pub(super) fn of(definitions: &[Definition]) -> Vec<Printer> {
    let column = |name: &str, kind: &str, format: &str, description: &str| Column {
        name: name.into(),
        kind: kind.into(),
        format: format.into(),
        priority: 0,
        description: description.into(),
    };
    let mut printers = vec![Printer {
        column: column("Name", "string", "name", "Name of the object, unique within its namespace."),
        path: Path::parse(".metadata.name").ok(),
    }];
    if definitions.is_empty() {
        let column = column("Age", "date", "", "Time since the object was created.");
        printers.push(Printer { column, path: Path::parse(".metadata.creationTimestamp").ok() });
    }
    for definition in definitions {
        let Ok(path) = Path::parse(&definition.json_path) else {
            // As upstream: what comes before it is shown, nothing else.
            return printers;
        };
        let description = match &*definition.description {
            "" => format!("Custom resource definition column (in JSONPath format): {}", definition.json_path).into(),
            text => text.into(),
        };
        let column = Column {
            name: definition.name.clone(),
            kind: definition.r#type.clone(),
            format: definition.format.clone(),
            priority: definition.priority,
            description,
        };
        printers.push(Printer { column, path: Some(path) });
    }
    printers
}

impl Printer {
    /// The cell of an object; null where there is nothing, or something of another type. A date is a moment.
    pub fn cell(&self, object: &Value) -> Value {
        let found = self.path.as_ref().map(|path| path.find(object)).unwrap_or_default();
        let Some(value) = found.first() else { return Value::Null };
        match (&*self.column.kind, &**value) {
            ("string", Value::Null) => "<no value>".into(),
            ("string", Value::String(text)) => text.as_str().into(),
            ("string", value) => value.to_string().into(),
            ("integer", Value::Number(number)) => {
                number.as_i64().or_else(|| number.as_f64().map(|float| float as i64)).map_or(Value::Null, Value::from)
            }
            ("number", Value::Number(_)) | ("boolean", Value::Bool(_)) => value.clone().into_owned(),
            ("date", Value::String(text)) => match age::moment(text) {
                moment if moment == age::UNKNOWN => "<invalid>".into(),
                moment => moment.into(),
            },
            _ => Value::Null,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn cells_have_the_types_of_their_columns() {
        let definitions: Vec<Definition> = serde_json::from_value(json!([
            {"name": "Replicas", "type": "integer", "jsonPath": ".spec.replicas"},
            {"name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].status", "priority": 1},
            {"name": "All", "type": "string", "jsonPath": ".spec"},
            {"name": "On", "type": "boolean", "jsonPath": ".spec.on"},
            {"name": "Since", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
            {"name": "Bad", "type": "date", "jsonPath": ".spec.bad"},
            {"name": "None", "type": "integer", "jsonPath": ".spec.bad"},
        ]))
        .expect("columns");
        let printers = of(&definitions);
        let object = json!({
            "metadata": {"name": "a", "creationTimestamp": "2026-01-02T03:04:00Z"},
            "spec": {"replicas": 3, "on": true, "bad": "x"},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]},
        });
        let cells: Vec<Value> = printers.iter().map(|printer| printer.cell(&object)).collect();
        let shown = crate::resources::cells::golden(&cells, "2026-01-02T03:04:05Z");
        assert_eq!(shown, r#"a | 3 | True | {"bad":"x","on":true,"replicas":3} | true | 5s | <invalid> | null"#);
        assert_eq!(printers[2].column.priority, 1);
        assert_eq!(of(&[]).iter().map(|p| &*p.column.name).collect::<Vec<_>>(), ["Name", "Age"]);
    }
}
