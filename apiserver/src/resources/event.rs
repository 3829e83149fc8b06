//! Event: its row, its two forms (`v1`, as it is stored, and `events.k8s.io/v1`), and the rules that tie it to the object it is about.

use super::{
    Cx, Form, Hooks, age,
    cells::{self, Heading, count, text_or},
    rules::{At, Causes},
};
use coracle_api::{names, registry::Column, status::Cause};
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
    fn forms(&self) -> &'static [Form] {
        FORMS
    }
    fn validate(&self, cx: &Cx<'_>, old: Option<&Value>, new: &Value, causes: &mut Vec<Cause>) {
        validate(cx.row().api_version() == NEWER, old, new, causes);
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

/// Fields that have another name in `events.k8s.io`, and the one they are stored under.
const RENAMED: [(&str, &str); 7] = [
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("reportingController", "reportingComponent"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
];

fn rename(event: &mut Value, from: impl Fn(&(&'static str, &'static str)) -> (&'static str, &'static str)) {
    let Some(event) = event.as_object_mut() else { return };
    for (from, to) in RENAMED.iter().map(from) {
        if let Some(value) = event.remove(from) {
            event.insert(to.into(), value);
        }
    }
}

/// The form of `events.k8s.io`.
const NEWER: &str = "events.k8s.io/v1";
const FORMS: &[Form] = &[Form {
    api_version: NEWER,
    store: |event| rename(event, |(newer, stored)| (newer, stored)),
    show: |event| rename(event, |(newer, stored)| (stored, newer)),
}];

/// Rules of an event as it is stored; `newer` for one that came in the newer form, which is held to more.
pub(super) fn validate(newer: bool, old: Option<&Value>, new: &Value, causes: &mut Causes) {
    let root = At::root(new);
    about_its_object(newer, &root, causes);
    if !newer {
        return;
    }
    let series = root.field("series");
    if series.is_set() && old.is_none_or(|old| old["series"] != new["series"]) {
        if series.field("count").int().unwrap_or(0) < 2 {
            series.field("count").invalid_value(causes, "", "should be at least 2");
        }
        series.field("lastObservedTime").required(causes, "");
    }
    match old {
        None => as_new(&root, causes),
        Some(old) => {
            for field in [
                "involvedObject",
                "reason",
                "message",
                "source",
                "firstTimestamp",
                "lastTimestamp",
                "count",
                "type",
                "eventTime",
                "action",
                "related",
            ] {
                root.field(field).immutable(causes, &old[field]);
            }
            root.field("reportingController").with(&new["reportingComponent"]).immutable(causes, &old["reportingComponent"]);
            root.field("reportingInstance").immutable(causes, &old["reportingInstance"]);
        }
    }
}

/// What every event is held to: it lives beside its object, and one that carries a time says who saw what.
fn about_its_object(newer: bool, root: &At<'_, '_>, causes: &mut Causes) {
    let about = root.field("involvedObject");
    let namespace = about.field("namespace");
    let metadata = root.field("metadata");
    let own = metadata.field("namespace").text();
    let timed = root.field("eventTime").is_set();
    // Events about cluster-scoped objects are kept in the default namespace.
    let astray = match (namespace.text(), timed) {
        ("", false) => !matches!(own, "" | "default"),
        ("", true) => !matches!(own, "default" | "kube-system"),
        (of, false) => own != of,
        (_, true) => false,
    };
    if astray {
        namespace.invalid(causes, "does not match event.namespace");
    }
    if !timed {
        return;
    }
    let controller = root.field(if newer { "reportingController" } else { "reportingComponent" }).with(root.field("reportingComponent").value);
    controller.required(causes, "");
    controller.syntax(causes, names::qualified_name);
    for (field, most, required) in [("reportingInstance", 128, true), ("action", 128, true), ("reason", 128, true), ("message", 1024, false)] {
        let at = root.field(field);
        if required {
            at.required(causes, "");
        }
        if at.len() > most {
            at.invalid_value(causes, "", &format!("can have at most {most} characters"));
        }
    }
}

/// What a new event of the newer form is held to besides: nothing of the older one.
fn as_new(root: &At<'_, '_>, causes: &mut Causes) {
    root.field("eventTime").required(causes, "");
    let kind = root.field("type");
    if !matches!(kind.text(), "Normal" | "Warning") {
        kind.invalid_value(causes, "", &format!("has invalid value: {}", kind.text()));
    }
    let source = root.field("source");
    let sourced = !source.field("component").is_empty() || !source.field("host").is_empty();
    let counted = root.field("count").int().unwrap_or(0) != 0;
    for (field, set) in [
        ("firstTimestamp", root.field("firstTimestamp").is_set()),
        ("lastTimestamp", root.field("lastTimestamp").is_set()),
        ("count", counted),
        ("source", sourced),
    ] {
        if set {
            root.field(field).invalid_value(causes, "", "needs to be unset");
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

    fn wrong(newer: bool, old: Option<Value>, new: Value) -> Vec<String> {
        let mut causes = Vec::new();
        validate(newer, old.as_ref(), &new, &mut causes);
        lines(&causes)
    }

    #[test]
    fn an_event_lives_beside_what_it_is_about() {
        let astray = wrong(false, None, json!({"metadata": {"namespace": "a"}, "involvedObject": {"namespace": "b"}}));
        assert_eq!(astray, ["involvedObject.namespace: Invalid value: \"b\": does not match event.namespace"]);
        assert_eq!(wrong(false, None, json!({"metadata": {"namespace": "default"}, "involvedObject": {"kind": "Node"}})), Vec::<String>::new());
        assert_eq!(wrong(false, None, json!({"metadata": {"namespace": "kube-system"}, "involvedObject": {"kind": "Node"}})).len(), 1);
    }

    fn newer() -> Value {
        json!({
            "metadata": {"namespace": "default"}, "involvedObject": {"namespace": "default"}, "eventTime": "2026-01-02T03:04:00.000000Z",
            "reportingComponent": "example.com/c", "reportingInstance": "c-1", "action": "Do", "reason": "Test", "type": "Normal",
        })
    }

    #[test]
    fn the_newer_form_is_strict() {
        assert_eq!(wrong(true, None, newer()), Vec::<String>::new());
        let empty = wrong(true, None, json!({"metadata": {"namespace": "default"}, "count": 1, "source": {"host": "h"}, "series": {"count": 1}}));
        assert_eq!(
            empty,
            [
                "series.count: Invalid value: \"\": should be at least 2",
                "series.lastObservedTime: Required value",
                "eventTime: Required value",
                "type: Invalid value: \"\": has invalid value: ",
                "count: Invalid value: \"\": needs to be unset",
                "source: Invalid value: \"\": needs to be unset",
            ]
        );
        let mut unsigned = newer();
        unsigned["reportingComponent"] = "".into();
        assert_eq!(wrong(true, None, unsigned.clone())[0], "reportingController: Required value");
        assert_eq!(wrong(false, None, unsigned)[0], "reportingComponent: Required value");
        let mut other = newer();
        other["action"] = "Other".into();
        other["series"] = json!({"count": 2, "lastObservedTime": "2026-01-02T03:05:00.000000Z"});
        assert_eq!(wrong(true, Some(newer()), other.clone()), ["action: Invalid value: \"Other\": field is immutable"]);
        assert_eq!(wrong(false, Some(newer()), other), Vec::<String>::new(), "the older form lets one change all");
    }

    #[test]
    fn forms_name_the_same_fields_differently() {
        let newer = json!({"regarding": {"name": "a"}, "note": "n", "reportingController": "c", "deprecatedCount": 3, "action": "x"});
        let stored = json!({"involvedObject": {"name": "a"}, "message": "n", "reportingComponent": "c", "count": 3, "action": "x"});
        let mut value = newer.clone();
        (FORMS[0].store)(&mut value);
        assert_eq!(value, stored);
        (FORMS[0].show)(&mut value);
        assert_eq!(value, newer);
    }
}
