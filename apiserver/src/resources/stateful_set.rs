//! StatefulSet: numbered pods, their claims, and what of a set may change.

use super::{
    Cx, Hooks, age,
    cells::{self, AGE, CONTAINERS, Heading, IMAGES, NAME, count},
    pod::{template, warnings},
    rules::{At, Causes, labels::workload_selector, percent},
    workload::{always_restarted, counts, replicas},
};
use coracle_api::{names, registry::Column, status::Cause};
use serde_json::{Value, json};

/// Hooks of `statefulsets.apps`.
pub struct StatefulSet;

const HEADINGS: &[Heading] = &[NAME, ("Ready", "How many of its pods are ready, of how many."), AGE, CONTAINERS, IMAGES];

impl Hooks for StatefulSet {
    fn validate(&self, cx: &Cx<'_>, old: Option<&Value>, new: &Value, causes: &mut Vec<Cause>) {
        match cx.subresource() {
            "status" => status(old, new, causes),
            _ => validate(old, new, causes),
        }
    }
    fn warnings(&self, cx: &Cx<'_>, old: Option<&Value>, new: &Value) -> Vec<String> {
        if !cx.subresource().is_empty() {
            return Vec::new();
        }
        let mut said = warnings::of_template(&["spec", "template"], old, new);
        if new["spec"]["revisionHistoryLimit"].as_i64().is_some_and(|limit| limit < 0) {
            said.push("spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended".into());
        }
        said
    }
    fn columns(&self) -> Option<Vec<Column>> {
        Some(cells::columns(HEADINGS))
    }
    fn cells(&self, object: &Value) -> Vec<Value> {
        let (spec, status) = (&object["spec"], &object["status"]);
        let [containers, images, _] = cells::workload(spec);
        vec![cells::name(object), format!("{}/{}", count(&status["readyReplicas"]), replicas(spec)).into(), age::of(object), containers, images]
    }
}

/// What an update may change.
const MUTABLE: &[&str] =
    &["replicas", "ordinals", "template", "updateStrategy", "revisionHistoryLimit", "persistentVolumeClaimRetentionPolicy", "minReadySeconds"];

pub(super) fn validate(old: Option<&Value>, new: &Value, causes: &mut Causes) {
    let root = At::root(new);
    let mut before = Causes::new();
    if let Some(old) = old {
        spec(&At::root(old).field("spec"), true, true, &mut before);
    }
    spec(&root.field("spec"), old.is_some(), before.is_empty(), causes);
    if let Some(old) = old {
        let fixed = |object: &Value| {
            let mut spec = object["spec"].clone();
            if let Some(spec) = spec.as_object_mut() {
                spec.retain(|name, _| !MUTABLE.contains(&name.as_str()));
            }
            spec
        };
        if fixed(old) != fixed(new) {
            root.field("spec").forbidden(
                causes,
                "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden",
            );
        }
    }
}

/// `exists`: names that can no longer be changed are tolerated. `whole`: the template is looked at; not, if it was wrong before.
fn spec(spec: &At<'_, '_>, exists: bool, whole: bool, causes: &mut Causes) {
    let policy = spec.field("podManagementPolicy");
    match policy.text() {
        "" => policy.missing(causes, ""),
        "OrderedReady" | "Parallel" => {}
        _ => policy.invalid(causes, "must be 'OrderedReady' or 'Parallel'"),
    }
    let strategy = spec.field("updateStrategy");
    let rolling = strategy.field("rollingUpdate");
    match strategy.field("type").text() {
        "" => strategy.missing(causes, ""),
        "OnDelete" if rolling.is_set() => rolling.invalid(causes, "only allowed for updateStrategy 'RollingUpdate'"),
        "OnDelete" => {}
        "RollingUpdate" => {
            rolling.field("partition").non_negative(causes);
            let unavailable = rolling.field("maxUnavailable");
            if unavailable.is_set() {
                percent::int_or_percent(&unavailable, causes);
                if percent::is_zero(&unavailable) {
                    unavailable.invalid(causes, "cannot be 0");
                }
                percent::not_more_than_all(&unavailable, causes);
            }
        }
        _ => strategy.invalid(causes, "must be 'RollingUpdate' or 'OnDelete'"),
    }
    let retention = spec.field("persistentVolumeClaimRetentionPolicy");
    if retention.is_set() {
        for name in ["whenDeleted", "whenScaled"] {
            let policy = retention.field(name);
            if !matches!(policy.text(), "Retain" | "Delete") {
                policy.unsupported(causes, &["Retain", "Delete"]);
            }
        }
    }
    spec.field("replicas").non_negative(causes);
    spec.field("minReadySeconds").non_negative(causes);
    let ordinals = spec.field("ordinals");
    ordinals.field("start").non_negative(causes);
    if !exists {
        spec.field("serviceName").optional_syntax(causes, names::dns_label);
    }
    workload_selector(spec, "statefulset", causes);
    let pods = spec.field("template");
    if whole {
        template::validate(None, &pods.with(&as_made(spec.value)), causes);
    }
    always_restarted(&pods, "StatefulSet", causes);
}

/// The template as pods are made from it: the controller sets names, and volumes for claims.
fn as_made(spec: &Value) -> Value {
    let mut template = spec["template"].clone();
    let claims = cells::list(&spec["volumeClaimTemplates"]);
    if let Some(pod) = template.get_mut("spec").and_then(Value::as_object_mut) {
        pod.remove("hostname");
        pod.remove("subdomain");
        if !claims.is_empty() {
            let own = pod.get("volumes").and_then(Value::as_array).cloned().unwrap_or_default();
            let named = |volume: &Value| claims.iter().any(|claim| claim["metadata"]["name"] == volume["name"]);
            let made = claims.iter().map(|claim| {
                let name = &claim["metadata"]["name"];
                json!({"name": name, "persistentVolumeClaim": {"claimName": name}})
            });
            let volumes = made.chain(own.into_iter().filter(|volume| !named(volume))).collect();
            pod.insert("volumes".into(), volumes);
        }
    }
    template
}

fn status(old: Option<&Value>, new: &Value, causes: &mut Causes) {
    let all = ["replicas", "readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas", "observedGeneration", "collisionCount"];
    counts(old, new, &all, &all[1..5], causes);
    let root = At::root(new);
    let status = root.field("status");
    let available = status.field("availableReplicas");
    if count(available.value) > count(&new["status"]["readyReplicas"]) {
        available.invalid(causes, "cannot be greater than status.readyReplicas");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::rules::lines;

    fn good() -> Value {
        json!({"metadata": {"name": "web", "creationTimestamp": "2026-01-02T03:04:00Z"}, "spec": {"replicas": 3, "serviceName": "web",
            "podManagementPolicy": "OrderedReady", "selector": {"matchLabels": {"app": "web"}},
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"]}}],
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "a", "image": "x:1",
                "volumeMounts": [{"name": "data", "mountPath": "/data"}]}]}}},
            "status": {"replicas": 3, "readyReplicas": 2}})
    }

    fn wrong(old: Option<&Value>, change: impl FnOnce(&mut Value)) -> Vec<String> {
        let mut new = good();
        change(&mut new);
        let mut causes = Vec::new();
        validate(old, &new, &mut causes);
        lines(&causes)
    }

    #[test]
    fn rules() {
        assert_eq!(wrong(None, |_| {}), Vec::<String>::new(), "a mount may name a claim template");
        type Case = (fn(&mut Value), &'static str);
        let cases: &[Case] = &[
            (
                |s| s["spec"]["podManagementPolicy"] = "Random".into(),
                "spec.podManagementPolicy: Invalid value: \"Random\": must be 'OrderedReady' or 'Parallel'",
            ),
            (
                |s| s["spec"]["updateStrategy"] = json!({"type": "OnDelete", "rollingUpdate": {"partition": 1}}),
                "spec.updateStrategy.rollingUpdate: Invalid value: {\"partition\":1}: only allowed for updateStrategy 'RollingUpdate'",
            ),
            (
                |s| s["spec"]["updateStrategy"]["rollingUpdate"]["maxUnavailable"] = "0%".into(),
                "spec.updateStrategy.rollingUpdate.maxUnavailable: Invalid value: \"0%\": cannot be 0",
            ),
            (
                |s| s["spec"]["updateStrategy"]["rollingUpdate"]["maxUnavailable"] = "101%".into(),
                "spec.updateStrategy.rollingUpdate.maxUnavailable: Invalid value: \"101%\": must not be greater than 100%",
            ),
            (
                |s| s["spec"]["persistentVolumeClaimRetentionPolicy"] = json!({"whenDeleted": "Keep", "whenScaled": "Delete"}),
                "spec.persistentVolumeClaimRetentionPolicy.whenDeleted: Unsupported value: \"Keep\": supported values: \"Retain\", \"Delete\"",
            ),
            (|s| s["spec"]["ordinals"] = json!({"start": -1}), "spec.ordinals.start: Invalid value: -1: must be greater than or equal to 0"),
            (
                |s| s["spec"]["template"]["spec"]["activeDeadlineSeconds"] = 1.into(),
                "spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in StatefulSet is not Supported",
            ),
            (
                |s| s["spec"]["template"]["metadata"]["labels"] = json!({"app": "db"}),
                "spec.template.metadata.labels: Invalid value: {\"app\":\"db\"}: `selector` does not match template `labels`",
            ),
        ];
        for (change, want) in cases {
            assert_eq!(wrong(None, change), [*want]);
        }
        assert_eq!(wrong(None, |s| s["spec"]["serviceName"] = "A_".into()).len(), 1);
    }

    #[test]
    fn little_of_a_set_may_change() {
        let old = good();
        let want = "spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";
        assert_eq!(wrong(Some(&old), |s| s["spec"]["serviceName"] = "other".into()), [want]);
        assert_eq!(wrong(Some(&old), |s| s["spec"]["volumeClaimTemplates"] = json!([])).last().map(String::as_str), Some(want));
        for name in MUTABLE {
            let value = match *name {
                "template" => json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "a", "image": "x:2"}]}}),
                "updateStrategy" => json!({"type": "OnDelete"}),
                "persistentVolumeClaimRetentionPolicy" => json!({"whenDeleted": "Delete", "whenScaled": "Delete"}),
                "ordinals" => json!({"start": 1}),
                _ => json!(7),
            };
            assert_eq!(wrong(Some(&old), |s| s["spec"][*name] = value), Vec::<String>::new(), "{name}");
        }
        let mut broken = good();
        broken["spec"]["template"]["spec"]["containers"] = json!([]);
        assert_eq!(wrong(Some(&broken), |s| s["spec"]["template"]["spec"]["containers"] = json!([])), Vec::<String>::new(), "it was wrong before");
    }

    #[test]
    fn a_status_adds_up() {
        let mut causes = Vec::new();
        let old = json!({"status": {"collisionCount": 2}});
        status(Some(&old), &json!({"status": {"replicas": 1, "currentReplicas": 2, "availableReplicas": 1, "collisionCount": 1}}), &mut causes);
        assert_eq!(
            lines(&causes),
            [
                "status.currentReplicas: Invalid value: 2: cannot be greater than status.replicas",
                "status.collisionCount: Invalid value: 1: cannot be decremented",
                "status.availableReplicas: Invalid value: 1: cannot be greater than status.readyReplicas",
            ]
        );
    }

    #[test]
    fn rows_read_as_kubectl_prints_them() {
        assert_eq!(cells::golden(&StatefulSet.cells(&good()), "2026-01-02T03:04:05Z"), "web | 2/3 | 5s | a | x:1");
    }
}
