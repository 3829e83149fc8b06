//! Ownership case by case, after upstream's integration tests.

use super::{OneVersion, Reach, Writer};
use crate::{FieldValidation, Schema, Schemas};
use coracle_api::Status;
use serde_json::{Value, json};
use std::sync::Arc;

mod apply;
mod model;
mod writes;

/// An object and its history.
struct Story {
    schema: Arc<Schema>,
    live: Option<Value>,
    clock: u32,
    subresource: &'static str,
    reach: Reach<'static>,
}

impl Story {
    fn of(group: &str, kind: &str) -> Story {
        let schema = Schemas::builtin().get(group, "v1", kind).expect("a kind");
        Story { schema, live: None, clock: 0, subresource: "", reach: Reach::Without(&[]) }
    }

    fn now(&mut self) -> String {
        self.clock += 1;
        format!("2026-01-01T00:{:02}:{:02}Z", self.clock / 60, self.clock % 60)
    }

    fn finish(&self, object: &mut Value) {
        self.schema.canonicalize(object, FieldValidation::Ignore).expect("canonical");
        self.schema.default(object);
    }

    /// A create or update of the whole object; managed fields as they are sent.
    fn put(&mut self, manager: &str, mut object: Value) {
        let now = self.now();
        object["apiVersion"] = self.schema.api_version().into();
        object["kind"] = self.schema.kind().into();
        self.finish(&mut object);
        let writer = Writer { manager, subresource: self.subresource, now: &now, reach: self.reach, versions: &OneVersion };
        let list = self.schema.track(self.live.as_ref(), &object, &writer);
        super::put(&mut object, list);
        self.live = Some(object);
    }

    /// A merge patch.
    fn patch(&mut self, manager: &str, patch: Value) {
        let object = crate::json_merge_patch(self.live.as_ref().expect("an object"), &patch);
        self.put(manager, object);
    }

    fn apply(&mut self, manager: &str, config: Value) -> Result<(), Status> {
        self.try_apply(manager, config, false)
    }

    fn force(&mut self, manager: &str, config: Value) {
        self.try_apply(manager, config, true).expect("forced");
    }

    fn try_apply(&mut self, manager: &str, mut config: Value, force: bool) -> Result<(), Status> {
        let now = self.now();
        config["apiVersion"] = self.schema.api_version().into();
        config["kind"] = self.schema.kind().into();
        let writer = Writer { manager, subresource: self.subresource, now: &now, reach: self.reach, versions: &OneVersion };
        let mut object = self.schema.apply(self.live.as_ref(), &config, &writer, force)?;
        self.finish(&mut object);
        if let Some(live) = &self.live {
            super::keep_times(live, &mut object);
        }
        self.live = Some(object);
        Ok(())
    }

    fn at(&self, pointer: &str) -> &Value {
        static NULL: Value = Value::Null;
        self.live.as_ref().and_then(|live| live.pointer(pointer)).unwrap_or(&NULL)
    }

    /// Fields by `manager operation`, subresource in brackets.
    fn managed(&self) -> Value {
        let mut all = json!({});
        for entry in self.at("/metadata/managedFields").as_array().into_iter().flatten() {
            assert_eq!(entry["fieldsType"], "FieldsV1");
            let text = |key: &str| entry[key].as_str().unwrap_or_default();
            let name = match text("subresource") {
                "" => format!("{} {}", text("manager"), text("operation")),
                subresource => format!("{}[{subresource}] {}", text("manager"), text("operation")),
            };
            assert!(all.get(&name).is_none(), "{name} twice");
            all[name] = entry["fieldsV1"].clone();
        }
        all
    }

    /// `manager operation` in the order of the list.
    fn order(&self) -> Vec<String> {
        let list = self.at("/metadata/managedFields").as_array().into_iter().flatten();
        list.map(|entry| format!("{} {}", entry["manager"].as_str().unwrap(), entry["operation"].as_str().unwrap())).collect()
    }
}

fn data(data: Value) -> Value {
    json!({"metadata": {"name": "a"}, "data": data})
}

fn deployment(replicas: Value) -> Value {
    json!({"metadata": {"name": "d", "namespace": "default", "labels": {"app": "x"}},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "x"}},
            "template": {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80}]}]}}}})
}
