//! One request, from when it came until it is done.

use super::{
    Level, Stage,
    policy::Kept,
    sink::{Line, Sink},
};
use crate::auth::User;
use coracle_api::time;
use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use std::{collections::BTreeMap, sync::Arc};

/// What was asked, as the path and method say it.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// Its name.
    pub id: String,
    /// Path and query.
    pub uri: String,
    /// The path alone.
    pub path: String,
    /// `get`, `list`, …; the method in lower case where no resource is named.
    pub verb: String,
    /// API group.
    pub group: String,
    /// API version.
    pub version: String,
    /// Plural; empty for other paths.
    pub resource: String,
    /// Subresource, or empty.
    pub subresource: String,
    /// Namespace, or empty.
    pub namespace: String,
    /// Name, or empty.
    pub name: String,
    /// The client, and who it says it speaks for, nearest last; nobody for what is asked within the server.
    pub from: Vec<String>,
    /// `User-Agent`
    pub agent: String,
}

#[derive(Default)]
struct Gathered {
    impersonated: Option<Value>,
    annotations: BTreeMap<String, String>,
    request: Option<Value>,
    response: Option<Value>,
    done: bool,
}

/// See the module. Dropped before it was finished, it says that the request broke off.
pub struct Record {
    kept: Kept,
    user: Value,
    asked: Asked,
    received: Timestamp,
    gathered: Mutex<Gathered>,
    sink: Sink,
}

/// `authentication.k8s.io/v1 UserInfo`
fn info(user: &User) -> Value {
    let mut info = json!({ "username": user.name });
    if !user.uid.is_empty() {
        info["uid"] = user.uid.as_str().into();
    }
    if !user.groups.is_empty() {
        info["groups"] = json!(user.groups);
    }
    if !user.extra.is_empty() {
        info["extra"] = user.extra.iter().map(|(key, values)| (key.clone(), json!(values))).collect::<Map<_, _>>().into();
    }
    info
}

impl Record {
    pub(super) fn new(kept: Kept, user: &User, asked: Asked, sink: Sink) -> Self {
        Self { kept, user: info(user), asked, received: Timestamp::now(), gathered: Mutex::default(), sink }
    }

    /// Whether what was sent is kept.
    pub fn wants_request(&self) -> bool {
        self.kept.level >= Level::Request
    }

    /// Whether what is answered is kept.
    pub fn wants_response(&self) -> bool {
        self.kept.level >= Level::RequestResponse
    }

    /// Notes something; what was said first stays.
    pub fn annotate(&self, key: &str, value: String) {
        self.gathered.lock().annotations.entry(key.to_owned()).or_insert(value);
    }

    pub(super) fn impersonated(&self, user: &User) {
        self.gathered.lock().impersonated = Some(info(user));
    }

    fn object(&self, bytes: &[u8]) -> Option<Value> {
        let object: Value = serde_json::from_slice(bytes).ok().or_else(|| serde_norway::from_slice(bytes).ok())?;
        self.shown(object)
    }

    fn shown(&self, mut object: Value) -> Option<Value> {
        if self.kept.omit_managed_fields {
            let lists = object.get_mut("items").and_then(Value::as_array_mut).into_iter().flatten().filter_map(|item| item.get_mut("metadata"));
            lists.filter_map(Value::as_object_mut).for_each(|metadata| drop(metadata.remove("managedFields")));
            if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
                metadata.remove("managedFields");
            }
        }
        Some(object).filter(Value::is_object)
    }

    /// Keeps what was sent, if it is an object in JSON or YAML.
    pub fn request(&self, body: &[u8]) {
        self.gathered.lock().request = if body.is_empty() { None } else { self.object(body) };
    }

    /// Keeps what was sent, if that is kept.
    pub fn request_value(&self, object: impl FnOnce() -> Value) {
        if self.wants_request() {
            self.gathered.lock().request = self.shown(object());
        }
    }

    /// Keeps what is answered, if it is an object in JSON or YAML.
    pub fn response(&self, body: &[u8]) {
        self.gathered.lock().response = self.object(body);
    }

    fn event(&self, stage: Stage, gathered: &Gathered, status: Option<Value>) -> Value {
        let asked = &self.asked;
        let mut event = json!({
            "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": self.kept.level.as_str(), "auditID": asked.id, "stage": stage.as_str(),
            "requestURI": asked.uri, "verb": asked.verb, "user": self.user,
            "requestReceivedTimestamp": time::micros(self.received), "stageTimestamp": time::micros(Timestamp::now()),
        });
        if !asked.from.is_empty() {
            event["sourceIPs"] = json!(asked.from);
        }
        if !asked.agent.is_empty() {
            event["userAgent"] = asked.agent.as_str().into();
        }
        if let Some(user) = &gathered.impersonated {
            event["impersonatedUser"] = user.clone();
        }
        if !asked.resource.is_empty() {
            let fields = [
                ("resource", &asked.resource),
                ("namespace", &asked.namespace),
                ("name", &asked.name),
                ("apiGroup", &asked.group),
                ("apiVersion", &asked.version),
                ("subresource", &asked.subresource),
            ];
            event["objectRef"] =
                fields.into_iter().filter(|(_, text)| !text.is_empty()).map(|(name, text)| (name.into(), json!(text))).collect::<Map<_, _>>().into();
        }
        if let Some(status) = status {
            event["responseStatus"] = status;
        }
        for (field, object) in [("requestObject", &gathered.request), ("responseObject", &gathered.response)] {
            if let Some(object) = object {
                event[field] = object.clone();
            }
        }
        if !gathered.annotations.is_empty() {
            event["annotations"] = json!(gathered.annotations);
        }
        event
    }

    /// Writes the request as it is at this moment, with the answer's `Status` if there is one.
    pub fn stage(&self, stage: Stage, status: Option<Value>) {
        let mut gathered = self.gathered.lock();
        if gathered.done {
            return;
        }
        gathered.done = matches!(stage, Stage::ResponseComplete | Stage::Panic);
        if !self.kept.omit.contains(&stage) {
            self.sink.write(Line::of(&self.event(stage, &gathered, status)));
        }
    }

    /// The request was answered with this code.
    pub fn complete(&self, code: u16) {
        self.stage(Stage::ResponseComplete, Some(json!({ "metadata": {}, "code": code })));
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let (stage, why, code) = match std::thread::panicking() {
            true => (Stage::Panic, "the server broke while it served the request", 500),
            false => (Stage::ResponseComplete, "the client went away before the answer", 499),
        };
        self.stage(stage, Some(json!({ "metadata": {}, "status": "Failure", "message": why, "code": code })));
    }
}

/// Held by the body of a long answer: the request is complete when it ends.
pub struct Until(pub Arc<Record>, pub u16);

impl Drop for Until {
    fn drop(&mut self) {
        self.0.complete(self.1);
    }
}
