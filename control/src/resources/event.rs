//! Event: its row, and the rules that tie it to the object it is about.

use super::{
    Cx, Hooks, age,
    cells::{self, Heading, count, text_or},
    rules::{At, Causes},
};
use coracle_api::{registry::Column, status::Cause};
use serde_json::Value;

/// Hooks of `events`.
pub struct Event;

const HEADINGS: &[Heading] = &[
    ("Last Seen", "When it happened last."),
    ("Type", "Normal or Warning."),
    ("Reason", "One word for why."),
    ("Object", "What it is about."),
    ("+Subobject", "The part of the object it is about."),
    ("+Source", "Who reported it."),
    ("Message", "What happened."),
    ("+First Seen", "When it happened first."),
    ("+Count", "How often it happened."),
    ("+Name", "Name of the event itself."),
];

impl Hooks for Event {
    fn validate(&self, _cx: &Cx<'_>, _old: Option<&Value>, new: &Value, causes: &mut Vec<Cause>) {
        validate(new, causes);
    }
    fn columns(&self) -> Option<Vec<Column>> {
        Some(cells::columns(HEADINGS))
    }
    fn cells(&self, object: &Value) -> Vec<Value> {
        row(object)
    }
}

fn row(event: &Value) -> Vec<Value> {
    let time = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(age::moment);
    let unknown = || age::UNKNOWN.to_string();
    let first = time(&event["firstTimestamp"]).or_else(|| time(&event["eventTime"])).unwrap_or_else(unknown);
    let series = &event["series"];
    let (last, times) = match series.is_object() {
        true => (time(&series["lastObservedTime"]).unwrap_or_else(unknown), count(&series["count"])),
        false => (time(&event["lastTimestamp"]).unwrap_or_else(|| first.clone()), count(&event["count"]).max(1)),
    };
    let about = &event["involvedObject"];
    let kind = text_or(&about["kind"], "").to_lowercase();
    let object = match about["name"].as_str() {
        Some(name) if !name.is_empty() => format!("{kind}/{name}"),
        _ => kind,
    };
    let source = &event["source"];
    let component = text_or(&source["component"], &text_or(&event["reportingComponent"], ""));
    let host = text_or(&source["host"], &text_or(&event["reportingInstance"], ""));
    vec![
        last.into(),
        text_or(&event["type"], "").into(),
        text_or(&event["reason"], "").into(),
        object.into(),
        text_or(&about["fieldPath"], "").into(),
        if host.is_empty() { component.into() } else { format!("{component}, {host}").into() },
        event["message"].as_str().unwrap_or_default().trim().into(),
        first.into(),
        times.into(),
        cells::name(event),
    ]
}

pub(super) fn validate(new: &Value, causes: &mut Causes) {
    let root = At::root(new);
    let about = root.field("involvedObject");
    let (own, of) = (new["metadata"]["namespace"].as_str().unwrap_or_default(), about.field("namespace").text());
    // Events about cluster-scoped objects are kept in the default namespace.
    if own != of && !(of.is_empty() && matches!(own, "default" | "kube-system")) {
        about.field("namespace").invalid(causes, "does not match event.namespace");
    }
    // Events of the newer form, which always carry a time, are held to more.
    if root.field("eventTime").is_set() {
        root.field("reportingComponent").with(&new["reportingComponent"]).required(causes, "");
        root.field("reportingInstance").required(causes, "");
        root.field("action").required(causes, "");
        root.field("reason").required(causes, "");
        root.field("type").one_of(causes, &["Normal", "Warning"]);
        let message = root.field("message");
        if message.len() > 1024 {
            message.invalid_value(causes, "", "can have at most 1024 characters");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::rules::lines;
    use serde_json::json;

    #[test]
    fn rows_read_as_kubectl_prints_them() {
        let event = json!({"metadata": {"name": "web.1"}, "involvedObject": {"kind": "Pod", "name": "web", "namespace": "default", "fieldPath": "spec.containers{a}"},
            "type": "Warning", "reason": "BackOff", "message": "Back-off restarting\n", "count": 4, "source": {"component": "kubelet", "host": "n1"},
            "firstTimestamp": "2026-01-02T03:00:00Z", "lastTimestamp": "2026-01-02T03:04:00Z"});
        assert_eq!(row(&event).len(), HEADINGS.len());
        assert_eq!(
            cells::golden(&row(&event), "2026-01-02T03:04:05Z"),
            "5s | Warning | BackOff | pod/web | spec.containers{a} | kubelet, n1 | Back-off restarting | 4m5s | 4 | web.1"
        );
        let event = json!({"metadata": {"name": "e"}, "eventTime": "2026-01-02T03:04:00.000000Z", "reportingComponent": "scheduler"});
        assert_eq!(cells::golden(&row(&event), "2026-01-02T03:04:05Z"), "5s |  |  |  |  | scheduler |  | 5s | 1 | e");
    }

    #[test]
    fn an_event_lives_beside_what_it_is_about() {
        let mut causes = Vec::new();
        validate(&json!({"metadata": {"namespace": "a"}, "involvedObject": {"namespace": "b"}}), &mut causes);
        assert_eq!(lines(&causes), ["involvedObject.namespace: Invalid value: \"b\": does not match event.namespace"]);
        let mut causes = Vec::new();
        validate(&json!({"metadata": {"namespace": "default"}, "involvedObject": {"kind": "Node"}}), &mut causes);
        assert_eq!(lines(&causes), Vec::<String>::new());
    }
}
