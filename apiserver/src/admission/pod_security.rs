//! PodSecurity: the Pod Security Standards, enforced on pods and warned about on what makes pods, as the labels of their namespace say (KEP-2579; upstream's
//! `k8s.io/pod-security-admission`). There are no exemptions, and a namespace without labels is privileged.

mod level;
mod rules;
mod standard;

use super::{Plugin, audit, lookup};
use crate::resources::{Cx, cells::list};
use coracle_api::status::Status;
use coracle_store::{Key, Object};
use level::{At, Level, Policy};
use rules::Pod;
use serde_json::Value;
use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

/// The plugin.
pub struct PodSecurity;

/// Pods that are looked at when a namespace's level is raised.
const MOST_CHECKED: usize = 3000;

/// Writes of these cannot make a pod any less secure.
const IGNORED: [&str; 8] = ["attach", "binding", "eviction", "exec", "log", "portforward", "proxy", "status"];

impl Plugin for PodSecurity {
    fn name(&self) -> &'static str {
        "PodSecurity"
    }

    fn validate(&self, cx: &Cx<'_>, old: Option<&Value>, new: Option<&Value>) -> Result<(), Status> {
        let Some(new) = new else { return Ok(()) };
        match (&*cx.row().group, &*cx.row().plural) {
            ("", "namespaces") if cx.subresource().is_empty() => namespace(cx, old, new),
            ("", "pods") if !IGNORED.contains(&cx.subresource()) => {
                let policy = policy_of(cx);
                if policy.is_privileged() || old.is_some_and(|old| !is_significant(old, new)) {
                    return Ok(());
                }
                judge(cx, &policy, new, new, true)
            }
            ("", "replicationcontrollers") | ("apps", "replicasets" | "deployments" | "statefulsets" | "daemonsets") | ("batch", "jobs") => {
                template(cx, new, new.pointer("/spec/template"))
            }
            ("", "podtemplates") => template(cx, new, new.get("template")),
            ("batch", "cronjobs") => template(cx, new, new.pointer("/spec/jobTemplate/spec/template")),
            _ => Ok(()),
        }
    }
}

/// What the labels of the request's namespace ask for.
fn policy_of(cx: &Cx<'_>) -> Policy {
    let namespace = cx.snapshot.get(&Key::new("namespaces", "", cx.request.namespace.as_str()));
    let label = |name: &str| -> Option<String> {
        let labels = &namespace.as_ref()?.meta.labels;
        labels.iter().find(|(key, _)| **key == *name).map(|(_, value)| value.to_string())
    };
    Policy::of(label)
}

/// What makes pods is only warned about: its pods are judged by themselves.
fn template(cx: &Cx<'_>, new: &Value, template: Option<&Value>) -> Result<(), Status> {
    let policy = policy_of(cx);
    let silent = policy.wrong.is_empty() && policy.warn.level == Level::Privileged && policy.audit.level == Level::Privileged;
    match template {
        Some(template) if !silent && cx.subresource().is_empty() => judge(cx, &policy, new, template, false),
        _ => Ok(()),
    }
}

fn judge(cx: &Cx<'_>, policy: &Policy, object: &Value, pod: &Value, enforce: bool) -> Result<(), Status> {
    let pod = Pod { annotations: &pod["metadata"]["annotations"], spec: &pod["spec"] };
    if !policy.wrong.is_empty() {
        let why: Vec<String> = policy.wrong.iter().map(|cause| cause.line()).collect();
        audit(cx, "pod-security.kubernetes.io/error", &format!("Failed to parse policy: {}", why.join(", ")));
    }
    let found = |at: At| Some(standard::violations(at, &pod)).filter(|found| !found.is_empty()).map(|found| standard::detail(&found));
    if let Some(found) = found(policy.audit) {
        audit(cx, "pod-security.kubernetes.io/audit-violations", &format!("would violate PodSecurity \"{}\": {found}", policy.audit));
    }
    if enforce {
        audit(cx, "pod-security.kubernetes.io/enforce-policy", &policy.enforce.to_string());
        if let Some(found) = found(policy.enforce) {
            return Err(lookup::forbidden(cx, object, &format!("violates PodSecurity \"{}\": {found}", policy.enforce)));
        }
    }
    if let Some(found) = found(policy.warn) {
        cx.request.warnings.add(format!("would violate PodSecurity \"{}\": {found}", policy.warn));
    }
    Ok(())
}

/// Labels must be readable; who raises the level is told which pods would no longer be let in.
fn namespace(cx: &Cx<'_>, old: Option<&Value>, new: &Value) -> Result<(), Status> {
    let of = |namespace: &Value| Policy::of(|name| namespace["metadata"]["labels"][name].as_str().map(str::to_string));
    let policy = of(new);
    let before = old.map(of);
    if !policy.wrong.is_empty() && before.as_ref().is_none_or(|before| before.wrong != policy.wrong) {
        let name = new["metadata"]["name"].as_str().unwrap_or_default();
        return Err(Status::invalid("", "Namespace", name, policy.wrong));
    }
    let Some(before) = before else { return Ok(()) };
    let (now, was) = (policy.enforce, before.enforce);
    if now == was || now.level == Level::Privileged || (now.version == was.version && now.level <= was.level) {
        return Ok(());
    }
    let name = cx.request.name.as_str();
    let pods: Vec<Arc<Object>> = cx.snapshot.range("pods", Some(name), None).cloned().collect();
    warnings(name, now, &pods).into_iter().for_each(|warning| cx.request.warnings.add(warning));
    Ok(())
}

/// One sentence for each way in which pods would be refused.
fn warnings(namespace: &str, enforce: At, pods: &[Arc<Object>]) -> Vec<String> {
    let read: Vec<Value> = pods.iter().filter_map(|pod| serde_json::from_slice(&pod.json).ok()).collect();
    // Of the pods of one controller the first stands for the others.
    let mut controllers = HashSet::new();
    let (first, more): (Vec<&Value>, Vec<&Value>) = read.iter().partition(|pod| {
        let owner = list(&pod["metadata"]["ownerReferences"]).iter().find(|owner| owner["controller"] == true);
        owner.is_none_or(|owner| controllers.insert(owner["uid"].as_str().unwrap_or_default()))
    });
    let mut found: BTreeMap<String, (&str, usize)> = BTreeMap::new();
    for pod in first.into_iter().chain(more).take(MOST_CHECKED) {
        let violations = standard::violations(enforce, &Pod { annotations: &pod["metadata"]["annotations"], spec: &pod["spec"] });
        if violations.is_empty() {
            continue;
        }
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        let entry = found.entry(standard::reason(&violations)).or_insert((name, 0));
        *entry = (entry.0.min(name), entry.1 + 1);
    }
    let mut told = Vec::new();
    if read.len() > MOST_CHECKED {
        told.push(format!("new PodSecurity enforce level only checked against the first {MOST_CHECKED} of {} existing pods", read.len()));
    }
    if !found.is_empty() {
        told.push(format!("existing pods in namespace \"{namespace}\" violate the new PodSecurity enforce level \"{enforce}\""));
    }
    let mut lines: Vec<String> = found
        .into_iter()
        .map(|(reason, (name, count))| match count {
            1 => format!("{name}: {reason}"),
            2 => format!("{name} (and 1 other pod): {reason}"),
            count => format!("{name} (and {} other pods): {reason}", count - 1),
        })
        .collect();
    lines.sort();
    told.extend(lines);
    told
}

/// Whether an update of a pod changes what is judged: which containers it has, and their images.
fn is_significant(old: &Value, new: &Value) -> bool {
    let changed = |name: &str| {
        let (old, new) = (list(&old["spec"][name]), list(&new["spec"][name]));
        old.len() != new.len() || old.iter().zip(new).any(|(old, new)| old["image"] != new["image"])
    };
    let before = list(&old["spec"]["ephemeralContainers"]);
    changed("containers")
        || changed("initContainers")
        || list(&new["spec"]["ephemeralContainers"])
            .iter()
            .any(|new| !before.iter().any(|old| old["name"] == new["name"] && old["image"] == new["image"]))
}

#[cfg(test)]
mod tests;
