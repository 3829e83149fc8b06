//! Flow schemas and their priority levels (upstream's API server looks after them itself): a schema says whether its level is there, and the
//! mandatory objects come back when they are deleted.

use super::{
    Context,
    action::{Action, provide},
    queue::Next,
    runner::{Controller, Event, every},
};
use async_trait::async_trait;
use coracle_api::Status;
use coracle_apiserver::{
    resources::flow_control::standard,
    view::{Condition, Text, condition, parse, stamp},
};
use coracle_store::{Key, Snapshot};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

const SCHEMAS: &str = "flowschemas.flowcontrol.apiserver.k8s.io";
const LEVELS: &str = "prioritylevelconfigurations.flowcontrol.apiserver.k8s.io";

/// See the module.
pub struct FlowSchemas {
    context: Context,
}

impl FlowSchemas {
    /// Acting as the API server itself.
    pub fn new(context: &Context) -> Self {
        Self { context: context.clone() }
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Schema<'a> {
    #[serde(borrow)]
    spec: Spec<'a>,
    status: SchemaStatus<'a>,
}
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Spec<'a> {
    #[serde(borrow)]
    priority_level_configuration: Level<'a>,
}
#[derive(Deserialize, Default)]
#[serde(default)]
struct Level<'a> {
    #[serde(borrow)]
    name: Text<'a>,
}
#[derive(Deserialize, Default)]
#[serde(default)]
struct SchemaStatus<'a> {
    #[serde(borrow)]
    conditions: Vec<Condition<'a>>,
}

/// The condition that tells whether the level is there, if it is not told already.
fn decide(key: &Key, schema: &Schema<'_>, there: bool, now: Timestamp) -> Option<Action> {
    let (status, reason) = if there { ("False", "Found") } else { ("True", "NotFound") };
    let level = &schema.spec.priority_level_configuration.name;
    let message = match there {
        true => format!("This FlowSchema references the PriorityLevelConfiguration object named {:?} and it exists", &**level),
        false => format!("This FlowSchema references the PriorityLevelConfiguration object named {:?} but there is no such object", &**level),
    };
    let is = condition(&schema.status.conditions, "Dangling");
    if is.is_some_and(|is| is.status == status && is.reason == reason && *is.message == *message) {
        return None;
    }
    let mut conditions: Vec<Value> = schema.status.conditions.iter().filter(|c| c.kind != "Dangling").map(Condition::to_json).collect();
    conditions.push(json!({"type": "Dangling", "status": status, "reason": reason, "message": message, "lastTransitionTime": stamp(now)}));
    Some(Action::Patch { key: key.clone(), subresource: "status", patch: json!({"status": {"conditions": conditions}}) })
}

/// The mandatory object of a key.
fn mandatory(key: &Key) -> Option<(&'static str, Value)> {
    let (resource, all) = match &*key.resource {
        SCHEMAS => (SCHEMAS, standard::mandatory_schemas()),
        _ => (LEVELS, standard::mandatory_levels()),
    };
    all.into_iter().find(|object| object["metadata"]["name"] == *key.name).map(|object| (resource, object))
}

#[async_trait]
impl Controller for FlowSchemas {
    fn name(&self) -> &'static str {
        "flow-schemas"
    }

    fn concurrency(&self) -> usize {
        2
    }

    fn route(&self, event: &Event<'_>, keys: &mut Vec<Key>) {
        match event.resource {
            SCHEMAS => keys.extend(event.key().cloned()),
            LEVELS => {
                keys.extend(event.key().cloned());
                if event.prev.is_none() || event.new.is_none() {
                    every(event.snapshot, SCHEMAS, keys);
                }
            }
            _ => {}
        }
    }

    fn all(&self, snapshot: &Snapshot, keys: &mut Vec<Key>) {
        every(snapshot, SCHEMAS, keys);
    }

    async fn reconcile(&self, key: &Key) -> Result<Next, Status> {
        let client = &self.context.client;
        let snapshot = client.store().snapshot();
        let action = match (snapshot.get(key), &*key.resource) {
            (None, _) => mandatory(key).map(|(resource, object)| Action::Create { resource, object }),
            (Some(object), SCHEMAS) => {
                let schema: Schema<'_> = parse(&object)?;
                let level = Key::new(LEVELS, "", &*schema.spec.priority_level_configuration.name);
                decide(key, &schema, snapshot.get(&level).is_some(), self.context.now())
            }
            _ => None,
        };
        provide(client, action).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_apiserver::view::parse_bytes;

    #[test]
    fn a_schema_says_whether_its_level_is_there() {
        let key = Key::new(SCHEMAS, "", "s");
        let now = "2026-01-02T03:04:05Z".parse().expect("time");
        let decided = |json: &str, there: bool| decide(&key, &parse_bytes(json.as_bytes()).expect("schema"), there, now);
        let new = r#"{"spec":{"priorityLevelConfiguration":{"name":"l"}}}"#;
        let Some(Action::Patch { patch, .. }) = decided(new, false) else { panic!("a patch") };
        assert_eq!(patch["status"]["conditions"][0]["status"], "True");
        assert_eq!(
            patch["status"]["conditions"][0]["message"],
            "This FlowSchema references the PriorityLevelConfiguration object named \"l\" but there is no such object"
        );
        let told = json!({"spec": {"priorityLevelConfiguration": {"name": "l"}}, "status": patch["status"]}).to_string();
        assert_eq!(decided(&told, false), None);
        assert!(decided(&told, true).is_some());
    }

    #[test]
    fn mandatory_objects_come_back() {
        assert_eq!(mandatory(&Key::new(SCHEMAS, "", "catch-all")).map(|(resource, _)| resource), Some(SCHEMAS));
        assert_eq!(mandatory(&Key::new(LEVELS, "", "exempt")).map(|(resource, _)| resource), Some(LEVELS));
        assert!(mandatory(&Key::new(LEVELS, "", "system")).is_none());
    }
}
