//! What a node's silence and conditions mean: conditions that become Unknown, and the taints that follow from conditions.

use crate::{controllers::action::Action, view::View};
use coracle_apiserver::view::{Condition, Text, condition, stamp};
use coracle_store::Key;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;

/// A narrow view of `core/v1 Node`.
pub type Node<'a> = View<'a, Spec<'a>, Report<'a>>;
/// The part of a node's spec looked at here.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Spec<'a> {
    /// Cordoned.
    pub unschedulable: bool,
    /// Taints.
    #[serde(borrow)]
    pub taints: Vec<Taint<'a>>,
}
/// The part of a node's status looked at here.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Report<'a> {
    /// Conditions.
    #[serde(borrow)]
    pub conditions: Vec<Condition<'a>>,
}
/// `core/v1 Taint`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct Taint<'a> {
    /// Key.
    #[serde(borrow)]
    pub key: Text<'a>,
    /// Value.
    pub value: Text<'a>,
    /// `NoSchedule`, `PreferNoSchedule`, `NoExecute`.
    pub effect: Text<'a>,
    /// When it was added.
    pub time_added: Text<'a>,
}

impl Taint<'_> {
    /// The taint as it is written.
    pub fn to_json(&self) -> Value {
        let mut json = json!({ "key": self.key, "effect": self.effect });
        if !self.value.is_empty() {
            json["value"] = json!(self.value);
        }
        if !self.time_added.is_empty() {
            json["timeAdded"] = json!(self.time_added);
        }
        json
    }
}

impl Node<'_> {
    /// The last time the node itself said how it is.
    pub fn heartbeat(&self) -> &str {
        condition(&self.status.conditions, "Ready").map_or("", |c| &c.last_heartbeat_time)
    }
}

/// What is to be done about a node.
#[derive(Debug, PartialEq)]
pub struct Verdict {
    /// Writes and events.
    pub actions: Vec<Action>,
    /// It just stopped being ready: its pods are not ready either.
    pub doubt_pods: bool,
    /// When its silence may have become too long.
    pub again: Option<Duration>,
}

/// Taints that this controller puts and takes; all others are left alone.
const OURS: [&str; 7] = [
    "node.kubernetes.io/not-ready",
    "node.kubernetes.io/unreachable",
    "node.kubernetes.io/memory-pressure",
    "node.kubernetes.io/disk-pressure",
    "node.kubernetes.io/pid-pressure",
    "node.kubernetes.io/network-unavailable",
    "node.kubernetes.io/unschedulable",
];

/// The taints that conditions and cordon call for.
fn wanted(conditions: &[Condition<'_>], unschedulable: bool) -> Vec<(&'static str, &'static str)> {
    let mut taints = Vec::new();
    match condition(conditions, "Ready").map(|c| &*c.status) {
        Some("False") => taints.extend([("node.kubernetes.io/not-ready", "NoSchedule"), ("node.kubernetes.io/not-ready", "NoExecute")]),
        Some("Unknown") => taints.extend([("node.kubernetes.io/unreachable", "NoSchedule"), ("node.kubernetes.io/unreachable", "NoExecute")]),
        _ => {}
    }
    for (kind, taint) in [
        ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
        ("DiskPressure", "node.kubernetes.io/disk-pressure"),
        ("PIDPressure", "node.kubernetes.io/pid-pressure"),
        ("NetworkUnavailable", "node.kubernetes.io/network-unavailable"),
    ] {
        if condition(conditions, kind).is_some_and(Condition::is_true) {
            taints.push((taint, "NoSchedule"));
        }
    }
    if unschedulable {
        taints.push(("node.kubernetes.io/unschedulable", "NoSchedule"));
    }
    taints
}

/// Conditions that a node reports about itself; after too long a silence they are Unknown.
const REPORTED: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

/// What a node that has been silent too long last said of itself is not known any more.
fn doubt(conditions: &mut Vec<Condition<'_>>, node: &Node<'_>, now: Timestamp) {
    for kind in REPORTED {
        match conditions.iter_mut().find(|c| *c.kind == *kind) {
            Some(old) if old.status == "Unknown" => {}
            Some(old) => {
                old.status = "Unknown".into();
                old.reason = "NodeStatusUnknown".into();
                old.message = "Kubelet stopped posting node status.".into();
                old.last_transition_time = stamp(now).into();
            }
            None => conditions.push(Condition {
                kind: kind.into(),
                status: "Unknown".into(),
                reason: "NodeStatusNeverUpdated".into(),
                message: "Kubelet never posted node status.".into(),
                last_heartbeat_time: node.metadata.creation_timestamp.to_string().into(),
                last_transition_time: stamp(now).into(),
                ..Condition::default()
            }),
        }
    }
}

/// Brings our taints in line with what is known of the node; None if they are.
fn taint(key: &Key, node: &Node<'_>, now: Timestamp) -> Option<Action> {
    let wanted = wanted(&node.status.conditions, node.spec.unschedulable);
    let is_wanted = |taint: &&Taint<'_>| !OURS.contains(&&*taint.key) || wanted.iter().any(|(k, e)| *taint.key == **k && *taint.effect == **e);
    let mut taints: Vec<Value> = node.spec.taints.iter().filter(is_wanted).map(Taint::to_json).collect();
    let kept = taints.len();
    for (key, effect) in &wanted {
        if !node.spec.taints.iter().any(|taint| *taint.key == **key && *taint.effect == **effect) {
            taints.push(json!({ "key": key, "effect": effect, "timeAdded": stamp(now) }));
        }
    }
    if kept == node.spec.taints.len() && taints.len() == kept {
        return None;
    }
    let taints = if taints.is_empty() { Value::Null } else { Value::Array(taints) };
    Some(Action::Patch { key: key.clone(), subresource: "", patch: json!({ "metadata": as_read(node), "spec": { "taints": taints } }) })
}

/// Metadata of a patch of the node as it was read.
fn as_read(node: &Node<'_>) -> Value {
    json!({ "uid": node.metadata.uid, "resourceVersion": node.metadata.resource_version })
}

/// Judges a node that has been silent for so long.
pub fn decide(key: &Key, node: &Node<'_>, silence: Duration, grace: Duration, now: Timestamp) -> Verdict {
    let mut actions = Vec::new();
    let mut conditions = node.status.conditions.clone();
    let silent = silence >= grace;
    if silent {
        doubt(&mut conditions, node, now);
    }
    let changed = conditions != node.status.conditions;
    if changed {
        let list: Vec<Value> = conditions.iter().map(Condition::to_json).collect();
        let patch = json!({ "metadata": as_read(node), "status": { "conditions": list } });
        actions.push(Action::Patch { key: key.clone(), subresource: "status", patch });
    }
    let ready = |conditions: &[Condition<'_>]| condition(conditions, "Ready").map(|c| c.status.to_string());
    let tainted = node.spec.taints.iter().any(|t| t.effect == "NoExecute" && (OURS[0] == &*t.key || OURS[1] == &*t.key));
    let fell = match ready(&node.status.conditions).as_deref() {
        Some("True") => ready(&conditions).as_deref() != Some("True"),
        Some("False") => !tainted,
        _ => false,
    };
    if fell {
        actions.push(Action::Event { kind: "Normal", reason: "NodeNotReady", message: format!("Node {} status is now: NodeNotReady", key.name) });
    }
    // Taints follow in the pass that a change of conditions brings: the revision that they depend on has moved on.
    if !changed {
        actions.extend(taint(key, node, now));
    }
    let again = (!silent).then(|| grace - silence + Duration::from_millis(10));
    Verdict { actions, doubt_pods: fell, again }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(40);

    fn judge(json: &str, silence: u64) -> Verdict {
        let node: Node<'_> = serde_json::from_str(json).expect("node");
        decide(&Key::new("nodes", "", "n1"), &node, Duration::from_secs(silence), GRACE, "2026-01-01T00:00:00Z".parse().expect("time"))
    }
    fn taints(verdict: &Verdict) -> Vec<String> {
        let patch = verdict.actions.iter().find_map(|action| match action {
            Action::Patch { subresource: "", patch, .. } => Some(patch),
            _ => None,
        });
        let list = patch.map(|p| p["spec"]["taints"].clone()).unwrap_or_default();
        list.as_array().into_iter().flatten().map(|t| format!("{}:{}", t["key"].as_str().unwrap_or(""), t["effect"].as_str().unwrap_or(""))).collect()
    }

    #[test]
    fn a_silent_node_is_unknown_and_unreachable() {
        let ready = r#"{"status":{"conditions":[{"type":"Ready","status":"True"},{"type":"DiskPressure","status":"False"}]}}"#;
        assert_eq!(judge(ready, 10), Verdict { actions: Vec::new(), doubt_pods: false, again: Some(Duration::from_millis(30_010)) });
        let verdict = judge(ready, 40);
        assert!(verdict.doubt_pods && verdict.again.is_none());
        let Action::Patch { subresource: "status", patch, .. } = &verdict.actions[0] else { panic!("{verdict:?}") };
        assert_eq!(patch["status"]["conditions"][0]["reason"], "NodeStatusUnknown");
        assert_eq!(patch["status"]["conditions"][2]["reason"], "NodeStatusNeverUpdated");
        let patched = json!({ "status": patch["status"] }).to_string();
        let verdict = judge(&patched, 41);
        assert_eq!(taints(&verdict), ["node.kubernetes.io/unreachable:NoSchedule", "node.kubernetes.io/unreachable:NoExecute"]);
        assert_eq!(verdict.actions.len(), 1, "told once");
    }

    #[test]
    fn taints_follow_conditions_and_leave_others_alone() {
        let verdict = judge(
            r#"{"spec":{"unschedulable":true,"taints":[{"key":"mine","effect":"NoSchedule"}]},
            "status":{"conditions":[{"type":"Ready","status":"False"},{"type":"MemoryPressure","status":"True"}]}}"#,
            0,
        );
        assert_eq!(
            taints(&verdict),
            [
                "mine:NoSchedule",
                "node.kubernetes.io/not-ready:NoSchedule",
                "node.kubernetes.io/not-ready:NoExecute",
                "node.kubernetes.io/memory-pressure:NoSchedule",
                "node.kubernetes.io/unschedulable:NoSchedule"
            ]
        );
        let back = judge(
            r#"{"spec":{"taints":[{"key":"mine","effect":"NoSchedule"},{"key":"node.kubernetes.io/not-ready","effect":"NoExecute"}]},
            "status":{"conditions":[{"type":"Ready","status":"True"}]}}"#,
            0,
        );
        assert_eq!(taints(&back), ["mine:NoSchedule"]);
        assert!(!back.doubt_pods);
        let settled =
            judge(r#"{"spec":{"taints":[{"key":"mine","effect":"NoSchedule"}]},"status":{"conditions":[{"type":"Ready","status":"True"}]}}"#, 0);
        assert!(settled.actions.is_empty());
    }
}
