//! Environment variables: names, and where their values come from.

use super::volumes::Volumes;
use crate::resources::rules::{
    At, Causes,
    quantities::{quantity, shown},
    syntax,
};
use coracle_api::names;
use serde_json::Value;

/// Fields of the pod that a variable may take.
const ENV_FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

/// Fields of the pod that a file of a downward API volume may take.
pub const FILE_FIELDS: &[&str] = &["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];

const RESOURCES: &[&str] =
    &["limits.cpu", "limits.ephemeral-storage", "limits.memory", "requests.cpu", "requests.ephemeral-storage", "requests.memory"];

/// `env`
pub fn variables(list: &At<'_, '_>, causes: &mut Causes) {
    for variable in list.items() {
        let name = variable.field("name");
        if name.required(causes, "") {
            name.syntax(causes, syntax::env_name);
        }
        let from = variable.field("valueFrom");
        if from.is_set() {
            value_from(&variable, &from, causes);
        }
    }
}

fn value_from(variable: &At<'_, '_>, from: &At<'_, '_>, causes: &mut Causes) {
    let mut sources = 0;
    for name in ["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef"] {
        let at = from.field(name);
        if !at.is_set() {
            continue;
        }
        sources += 1;
        match name {
            "fieldRef" => field_ref(&at, ENV_FIELDS, causes),
            "resourceFieldRef" => resource_ref(&at, false, causes),
            "fileKeyRef" => file_key(&at, causes),
            _ => key_ref(&at, causes),
        }
    }
    let why = match sources {
        0 => "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
        _ if !variable.field("value").is_empty() => "may not be specified when `value` is not empty",
        1 => return,
        _ => "may not have more than one field specified at a time",
    };
    from.invalid_value(causes, "", why);
}

/// `fieldRef` of a variable or of a file.
pub fn field_ref(at: &At<'_, '_>, allowed: &[&str], causes: &mut Causes) {
    let path = at.field("fieldPath");
    if !path.required(causes, "") {
        return;
    }
    let text = path.text();
    if let Some((field, key)) = text.strip_suffix("']").and_then(|text| text.split_once("['")) {
        match field {
            "metadata.annotations" => {
                for why in names::qualified_name(&key.to_lowercase()) {
                    at.invalid_value(causes, key.to_lowercase(), &why);
                }
            }
            "metadata.labels" => {
                for why in names::qualified_name(key) {
                    at.invalid_value(causes, key, &why);
                }
            }
            field => path.invalid_value(causes, text, &format!("error converting fieldPath: field label does not support subscript: {field}")),
        }
        return;
    }
    const KNOWN: &[&str] = &["spec.restartPolicy", "spec.schedulerName", "status.phase", "metadata.annotations", "metadata.labels"];
    if !allowed.contains(&text) {
        if ENV_FIELDS.contains(&text) || KNOWN.contains(&text) {
            path.unsupported(causes, allowed);
        } else {
            path.invalid(causes, &format!("error converting fieldPath: field label not supported: {text}"));
        }
    }
}

/// `resourceFieldRef` of a variable or of a file, where the container must be named.
pub fn resource_ref(at: &At<'_, '_>, in_volume: bool, causes: &mut Causes) {
    let resource = at.field("resource");
    let name = resource.text();
    if in_volume && at.field("containerName").is_empty() {
        at.field("containerName").missing(causes, "");
    } else if resource.required(causes, "")
        && !RESOURCES.contains(&name)
        && !name.starts_with("requests.hugepages-")
        && !name.starts_with("limits.hugepages-")
    {
        resource.unsupported(causes, RESOURCES);
    }
    let divisor = at.field("divisor");
    if quantity(&divisor).is_none_or(|divisor| divisor.is_zero()) {
        return;
    }
    const UNITS: &[&str] = &["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];
    let units = "1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei";
    let given = shown(&divisor);
    let (good, why) = match name.split_once('.').map_or("", |(_, resource)| resource) {
        "cpu" => (matches!(given.as_str(), "1" | "1m"), "only divisor's values 1m and 1 are supported with the cpu resource".to_string()),
        "memory" => (UNITS.contains(&given.as_str()), format!("only divisor's values {units} are supported with the memory resource")),
        "ephemeral-storage" => {
            (UNITS.contains(&given.as_str()), format!("only divisor's values {units} are supported with the local ephemeral storage resource"))
        }
        _ => return,
    };
    if !good {
        divisor.invalid_value(causes, name, &why);
    }
}

fn key_ref(at: &At<'_, '_>, causes: &mut Causes) {
    at.field("name").with(&Value::from(at.field("name").text())).syntax(causes, names::dns_subdomain);
    let key = at.field("key");
    if key.required(causes, "") {
        key.syntax(causes, syntax::config_key);
    }
}

fn file_key(at: &At<'_, '_>, causes: &mut Causes) {
    for (name, rule) in [("key", syntax::env_name as fn(&str) -> Vec<String>), ("volumeName", names::dns_label), ("path", syntax::no_backsteps)] {
        let at = at.field(name);
        if at.required(causes, "") {
            at.syntax(causes, rule);
        }
    }
}

/// Variables read from files need a volume that containers can write.
pub fn file_volumes(list: &At<'_, '_>, volumes: &Volumes<'_>, causes: &mut Causes) {
    for variable in list.items() {
        let from = variable.field("valueFrom");
        let file = from.field("fileKeyRef");
        let name = file.field("volumeName");
        if name.is_empty() {
            continue;
        }
        match volumes.source(name.text()) {
            None => name.not_found(causes),
            Some("emptyDir") => {}
            Some(_) => name.invalid(causes, "referenced volume must be of type emptyDir"),
        }
    }
}

/// `envFrom`
pub fn sources(list: &At<'_, '_>, causes: &mut Causes) {
    for source in list.items() {
        source.field("prefix").optional_syntax(causes, syntax::env_name);
        let mut given = 0;
        for name in ["configMapRef", "secretRef"] {
            let at = source.field(name);
            if at.is_set() {
                given += 1;
                let name = at.field("name");
                if name.required(causes, "") {
                    name.syntax(causes, names::dns_subdomain);
                }
            }
        }
        match given {
            0 => list.invalid_value(causes, "", "must specify one of: `configMapRef` or `secretRef`"),
            1 => {}
            _ => list.invalid_value(causes, "", "may not have more than one field specified at a time"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::rules::lines;
    use serde_json::json;

    #[test]
    fn values_come_from_one_place() {
        let list = json!({"env": [
            {"name": "A=B", "value": "x"},
            {"value": "x"},
            {"name": "C", "valueFrom": {}},
            {"name": "D", "value": "x", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "E", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
            {"name": "F", "valueFrom": {"fieldRef": {"fieldPath": "spec.restartPolicy"}}},
            {"name": "G", "valueFrom": {"fieldRef": {"fieldPath": "spec.nope"}}},
            {"name": "H", "valueFrom": {"secretKeyRef": {"name": "s"}}},
            {"name": "I", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "2"}}}]});
        let mut causes = Vec::new();
        let root = At::root(&list);
        variables(&root.field("env"), &mut causes);
        assert_eq!(
            lines(&causes),
            [
                "env[0].name: Invalid value: \"A=B\": a valid environment variable name must consist only of printable ASCII characters other than '='",
                "env[1].name: Required value",
                "env[2].valueFrom: Invalid value: \"\": must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
                "env[3].valueFrom: Invalid value: \"\": may not be specified when `value` is not empty",
                "env[5].valueFrom.fieldRef.fieldPath: Unsupported value: \"spec.restartPolicy\": supported values: \"metadata.name\", \"metadata.namespace\", \"metadata.uid\", \"spec.nodeName\", \"spec.serviceAccountName\", \"status.hostIP\", \"status.hostIPs\", \"status.podIP\", \"status.podIPs\"",
                "env[6].valueFrom.fieldRef.fieldPath: Invalid value: \"spec.nope\": error converting fieldPath: field label not supported: spec.nope",
                "env[7].valueFrom.secretKeyRef.key: Required value",
                "env[8].valueFrom.resourceFieldRef.divisor: Invalid value: \"limits.cpu\": only divisor's values 1m and 1 are supported with the cpu resource",
            ]
        );
    }

    #[test]
    fn whole_sources() {
        let list = json!({"envFrom": [{"prefix": "P="}, {"configMapRef": {}}]});
        let mut causes = Vec::new();
        let root = At::root(&list);
        sources(&root.field("envFrom"), &mut causes);
        assert_eq!(
            lines(&causes),
            [
                "envFrom[0].prefix: Invalid value: \"P=\": a valid environment variable name must consist only of printable ASCII characters other than '='",
                "envFrom: Invalid value: \"\": must specify one of: `configMapRef` or `secretRef`",
                "envFrom[1].configMapRef.name: Required value",
            ]
        );
    }
}
