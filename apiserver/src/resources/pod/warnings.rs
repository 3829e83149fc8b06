//! What is accepted and yet probably not meant: sentences for the client's Warning header, about a pod or a template.

use crate::resources::rules::{
    At,
    quantities::{quantity, shown},
    quote,
};
use coracle_api::names;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Node labels that have newer names.
const OLD_LABELS: &[(&str, &str)] = &[
    ("beta.kubernetes.io/arch", "deprecated since v1.14; use \"kubernetes.io/arch\" instead"),
    ("beta.kubernetes.io/os", "deprecated since v1.14; use \"kubernetes.io/os\" instead"),
    ("failure-domain.beta.kubernetes.io/region", "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead"),
    ("failure-domain.beta.kubernetes.io/zone", "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead"),
    ("beta.kubernetes.io/instance-type", "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead"),
    ("app.kubernetes.io/created-by", "deprecated since v1.9"),
    ("scheduler.alpha.kubernetes.io/preferAvoidPods", "deprecated since v1.22; use Taints and Tolerations instead"),
    ("node-role.kubernetes.io/master", "use \"node-role.kubernetes.io/control-plane\" instead"),
];

/// What is said of a label of nodes that has a newer name, or none.
pub fn node_label(key: &str) -> Option<&'static str> {
    OLD_LABELS.iter().find(|(old, _)| *old == key).map(|(_, why)| *why)
}

/// Annotations that do nothing any more.
const OLD_ANNOTATIONS: &[(&str, &str)] = &[
    ("scheduler.alpha.kubernetes.io/critical-pod", "non-functional in v1.16+; use the \"priorityClassName\" field instead"),
    ("security.alpha.kubernetes.io/sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
    ("security.alpha.kubernetes.io/unsafe-sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
    ("seccomp.security.alpha.kubernetes.io/pod", "non-functional in v1.27+; use the \"seccompProfile\" field instead"),
];

/// Volume plugins that are gone.
const OLD_VOLUMES: &[(&str, &str)] = &[
    ("photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("gitRepo", "deprecated in v1.11, and disabled by default in v1.33+"),
    ("scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("flocker", "deprecated in v1.22, non-functional in v1.25+"),
    ("storageos", "deprecated in v1.22, non-functional in v1.25+"),
    ("quobyte", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("rbd", "deprecated in v1.28, non-functional in v1.31+"),
];

/// Of a pod that is new or whose specification changes.
pub fn of_pod(old: Option<&Value>, new: &Value) -> Vec<String> {
    let mut said = Vec::new();
    if old.is_some_and(|old| old["spec"] == new["spec"]) {
        return said;
    }
    if old.is_none() {
        hostname(new, "this is used in the Pod's hostname, which can result in surprising behavior", &mut said);
    }
    template(&At::root(new), &mut said);
    said
}

/// Of a workload that is new or whose template changes, and whose name goes into those of its pods.
pub fn of_workload(old: Option<&Value>, new: &Value) -> Vec<String> {
    let mut said = of_name(old, new);
    said.extend(of_template(&["spec", "template"], old, new));
    said
}

/// Of the name of a new workload, which goes into those of its pods.
pub fn of_name(old: Option<&Value>, new: &Value) -> Vec<String> {
    let mut said = Vec::new();
    if old.is_none() {
        hostname(new, "this is used in Pod names and hostnames, which can result in surprising behavior", &mut said);
    }
    said
}

/// Of the pod template at this path, if it is new or changes.
pub fn of_template(path: &[&str], old: Option<&Value>, new: &Value) -> Vec<String> {
    fn find(at: &At<'_, '_>, path: &[&str], old: Option<&Value>, said: &mut Vec<String>) {
        match path {
            [] if old == Some(at.value) => {}
            [] => template(at, said),
            [field, rest @ ..] => find(&at.field(field), rest, old.map(|old| &old[*field]), said),
        }
    }
    let mut said = Vec::new();
    find(&At::root(new), path, old, &mut said);
    said
}

fn hostname(object: &Value, why: &str, said: &mut Vec<String>) {
    let wrong = names::dns_label(object["metadata"]["name"].as_str().unwrap_or_default());
    if !wrong.is_empty() {
        said.push(format!("metadata.name: {why}; a DNS label is recommended: [{}]", wrong.join(" ")));
    }
}

fn template(at: &At<'_, '_>, said: &mut Vec<String>) {
    let (spec, metadata) = (at.field("spec"), at.field("metadata"));
    let mut say = |at: &At<'_, '_>, what: &str| said.push(format!("{}: {what}", at.path()));
    let selector = spec.field("nodeSelector");
    let annotations = metadata.field("annotations");
    for (map, old) in [(&selector, OLD_LABELS), (&annotations, OLD_ANNOTATIONS)] {
        for (key, what) in old {
            if map.value.get(*key).is_some() {
                say(&map.key(key), what);
            }
        }
    }
    for constraint in spec.field("topologySpreadConstraints").items() {
        let (key, selector) = (constraint.field("topologyKey"), constraint.field("labelSelector"));
        if let Some((old, what)) = OLD_LABELS.iter().find(|(old, _)| *old == key.text()) {
            say(&key, &format!("{old} is {what}"));
        }
        if !selector.is_set() {
            say(&selector, "a null labelSelector results in matching no pod");
        }
    }
    for volume in spec.field("volumes").items() {
        for (kind, what) in OLD_VOLUMES {
            let source = volume.field(kind);
            if source.is_set() {
                say(&source, what);
            }
        }
    }
    for (list, field, what) in [("hostAliases", "ip", "duplicate ip"), ("imagePullSecrets", "name", "duplicate name")] {
        let mut seen = BTreeSet::new();
        for item in spec.field(list).items() {
            let at = item.field(field);
            if list == "imagePullSecrets" && at.is_empty() {
                say(&at, "invalid empty name \"\"");
            } else if !seen.insert(at.text()) {
                say(&at, &format!("{what} {}", quote(at.text())));
            }
        }
    }
    let period = spec.field("terminationGracePeriodSeconds");
    if period.int().is_some_and(|seconds| seconds < 0) {
        say(&period, "must be >= 0; negative values are invalid and will be treated as 1");
    }
    containers(&spec, said);
    affinity(&spec.field("affinity"), said);
}

fn affinity(affinity: &At<'_, '_>, said: &mut Vec<String>) {
    for kind in ["podAffinity", "podAntiAffinity"] {
        let pods = affinity.field(kind);
        for (list, inner) in
            [("requiredDuringSchedulingIgnoredDuringExecution", None), ("preferredDuringSchedulingIgnoredDuringExecution", Some("podAffinityTerm"))]
        {
            for term in pods.field(list).items() {
                let within = inner.map(|inner| term.field(inner));
                let selector = within.as_ref().unwrap_or(&term).field("labelSelector");
                if !selector.is_set() {
                    said.push(format!("{}: a null labelSelector results in matching no pod", selector.path()));
                }
            }
        }
    }
}

fn containers(spec: &At<'_, '_>, said: &mut Vec<String>) {
    /// Places that name a port, each with its host port and host address.
    type Places<'a> = Vec<(String, i64, &'a str)>;
    // Where a port, and where a port's name, was seen before.
    let mut ports: BTreeMap<(i64, &str), Places<'_>> = BTreeMap::new();
    let mut port_names: BTreeMap<&str, String> = BTreeMap::new();
    let mut later = Vec::new();
    for list in ["initContainers", "containers"] {
        for container in spec.field(list).items() {
            fractions(&container.field("resources"), said);
            environment(&container.field("env"), said);
            for port in container.field("ports").items() {
                let path = port.path();
                let (host_port, host_ip) = (port.field("hostPort").int().unwrap_or_default(), port.field("hostIP").text());
                let key = (port.field("containerPort").int().unwrap_or_default(), port.field("protocol").value.as_str().unwrap_or("TCP"));
                let others = ports.entry(key).or_default();
                for (other, other_port, other_ip) in others.iter() {
                    if (host_port, host_ip) == (*other_port, *other_ip) {
                        said.push(format!("{path}: duplicate port definition with {other}"));
                    } else if host_port == 0 || *other_port == 0 {
                        said.push(format!("{path}: overlapping port definition with {other}"));
                    } else if host_port == *other_port && host_ip.is_empty() != other_ip.is_empty() {
                        said.push(format!("{path}: dangerously ambiguous port definition with {other}"));
                    }
                }
                others.push((path.clone(), host_port, host_ip));
                let name = port.field("name").text();
                match port_names.get(name) {
                    _ if name.is_empty() => {}
                    Some(other) => later.push(format!(
                        "{path}: duplicate port name {} with {other}, services and probes that select ports by name will use {other}",
                        quote(name)
                    )),
                    None => drop(port_names.insert(name, path)),
                }
            }
        }
    }
    said.append(&mut later);
}

fn fractions(resources: &At<'_, '_>, said: &mut Vec<String>) {
    for list in ["limits", "requests"] {
        let list = resources.field(list);
        for name in ["memory", "ephemeral-storage"] {
            let at = list.key(name);
            if quantity(&at).is_some_and(|amount| !amount.is_whole()) {
                said.push(format!("{}: fractional byte value {} is invalid, must be an integer", at.path(), quote(&shown(&at))));
            }
        }
    }
}

fn environment(env: &At<'_, '_>, said: &mut Vec<String>) {
    let mut seen = BTreeSet::new();
    for variable in env.items() {
        let (name, value) = (variable.field("name").text(), variable.field("value").text());
        if seen.insert(name) {
            continue;
        }
        let before = format!("$({name})");
        // One that is built from the one before is meant.
        if variable.field("valueFrom").is_set() || value == before || !value.contains(&before) {
            said.push(format!("{}: hides previous definition of {}, which may be dropped when using apply", variable.path(), quote(name)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_probably_not_meant_is_said() {
        let pod = json!({"metadata": {"name": "a.b"}, "spec": {
            "nodeSelector": {"beta.kubernetes.io/os": "linux"}, "terminationGracePeriodSeconds": -1, "imagePullSecrets": [{"name": "s"}, {"name": "s"}, {}],
            "containers": [{"name": "a", "env": [{"name": "A", "value": "1"}, {"name": "A", "value": "$(A)2"}, {"name": "A", "value": "3"}],
                "resources": {"limits": {"memory": "100m"}}, "ports": [{"containerPort": 80, "name": "http"}]},
                {"name": "b", "ports": [{"containerPort": 80, "name": "http"}, {"containerPort": 80, "hostPort": 80}]}],
            "affinity": {"podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "podAffinityTerm": {"topologyKey": "k"}}]}}}});
        assert_eq!(
            of_pod(None, &pod),
            [
                "metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; a DNS label is recommended: [a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')]",
                "spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use \"kubernetes.io/os\" instead",
                "spec.imagePullSecrets[1].name: duplicate name \"s\"",
                "spec.imagePullSecrets[2].name: invalid empty name \"\"",
                "spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1",
                "spec.containers[0].resources.limits[memory]: fractional byte value \"100m\" is invalid, must be an integer",
                "spec.containers[0].env[2]: hides previous definition of \"A\", which may be dropped when using apply",
                "spec.containers[1].ports[0]: duplicate port definition with spec.containers[0].ports[0]",
                "spec.containers[1].ports[1]: overlapping port definition with spec.containers[0].ports[0]",
                "spec.containers[1].ports[1]: overlapping port definition with spec.containers[1].ports[0]",
                "spec.containers[1].ports[0]: duplicate port name \"http\" with spec.containers[0].ports[0], services and probes that select ports by name will use spec.containers[0].ports[0]",
                "spec.affinity.podAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].podAffinityTerm.labelSelector: a null labelSelector results in matching no pod",
            ]
        );
        assert_eq!(of_pod(Some(&pod), &pod), Vec::<String>::new());
    }

    #[test]
    fn templates_are_looked_at_in_their_place() {
        let job = json!({"metadata": {"name": "pi"}, "spec": {"template": {"spec": {"volumes": [{"name": "v", "gitRepo": {}}]}}}});
        assert_eq!(of_workload(None, &job), ["spec.template.spec.volumes[0].gitRepo: deprecated in v1.11, and disabled by default in v1.33+"]);
    }
}
