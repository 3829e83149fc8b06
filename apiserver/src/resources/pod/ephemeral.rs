//! Ephemeral containers: added to a running pod through their own subresource, and never taken away or changed again.

use super::{annotations::is_mirror, env, spec::unique, volumes::Volumes};
use crate::resources::{
    cells::list,
    rules::{At, Causes},
};
use serde_json::Value;
use std::collections::BTreeSet;

/// Fields of a container that an ephemeral one has too; the rest would make it part of the workload.
const FIELDS: &[&str] = &[
    "args",
    "command",
    "env",
    "envFrom",
    "image",
    "imagePullPolicy",
    "name",
    "resizePolicy",
    "securityContext",
    "stdin",
    "stdinOnce",
    "targetContainerName",
    "terminationMessagePath",
    "terminationMessagePolicy",
    "tty",
    "volumeDevices",
    "volumeMounts",
    "workingDir",
];

/// `spec.ephemeralContainers`; `seen` are the names of the other containers.
pub fn validate<'v>(spec: &At<'_, 'v>, volumes: &Volumes<'_>, seen: &mut BTreeSet<&'v str>, causes: &mut Causes) {
    const WHY: &str = "cannot be set for an Ephemeral Container";
    let others = seen.clone();
    for container in spec.field("ephemeralContainers").items() {
        super::containers::common(&container, volumes, causes);
        env::file_volumes(&container.field("env"), volumes, causes);
        let image = container.field("image");
        if image.text() != image.text().trim() {
            image.invalid(causes, "must not have leading or trailing whitespace");
        }
        unique(seen, &container.field("name"), causes);
        let target = container.field("targetContainerName");
        if !target.is_empty() && !others.contains(target.text()) {
            target.not_found(causes);
        }
        let empty = |value: &Value| value.is_null() || value.as_object().is_some_and(serde_json::Map::is_empty) || value == "";
        for (field, _) in
            container.value.as_object().into_iter().flatten().filter(|(field, value)| !FIELDS.contains(&field.as_str()) && !empty(value))
        {
            container.field(field).forbidden(causes, WHY);
        }
        for mount in container.field("volumeMounts").items() {
            for field in ["subPath", "subPathExpr"] {
                let at = mount.field(field);
                if !at.is_empty() {
                    at.forbidden(causes, WHY);
                }
            }
        }
    }
}

/// Before validation of a write of the subresource: nothing but the ephemeral containers, labels and annotations is taken from it.
pub fn keep_the_rest(old: &Value, new: &mut Value) {
    let containers = new["spec"]["ephemeralContainers"].clone();
    crate::pipeline::metadata::keep(old, new);
    new["spec"] = old["spec"].clone();
    new["status"] = old["status"].clone();
    if let Some(spec) = new["spec"].as_object_mut() {
        match containers {
            Value::Null => spec.remove("ephemeralContainers"),
            containers => spec.insert("ephemeralContainers".into(), containers),
        };
    }
}

/// Rules of a write of the subresource.
pub fn update(old: &Value, new: &Value, causes: &mut Causes) {
    let root = At::root(new);
    if is_mirror(old) {
        root.forbidden(causes, "static pods do not support ephemeral containers");
        return;
    }
    let spec = root.field("spec");
    super::spec::validate(&spec, super::spec::Of::Pod, causes);
    super::only_for_pods(&spec, causes);
    let at = spec.field("ephemeralContainers");
    for before in list(&old["spec"]["ephemeralContainers"]) {
        let name = before["name"].as_str().unwrap_or_default();
        match list(at.value).iter().find(|now| now["name"] == name) {
            None => at.forbidden(causes, &format!("existing ephemeral containers {name:?} may not be removed\n")),
            Some(now) if now != before => at.forbidden(causes, &format!("existing ephemeral containers {name:?} may not be changed\n")),
            Some(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::rules::lines;
    use serde_json::json;

    fn pod(ephemeral: Value) -> Value {
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a", "image": "x"}], "ephemeralContainers": ephemeral}})
    }

    fn wrong(old: Value, new: Value) -> Vec<String> {
        let mut causes = Vec::new();
        update(&pod(old), &pod(new), &mut causes);
        lines(&causes)
    }

    #[test]
    fn they_are_added_and_stay() {
        let one = json!([{"name": "d", "image": "x", "targetContainerName": "a"}]);
        assert_eq!(wrong(json!([]), one.clone()), Vec::<String>::new());
        assert_eq!(wrong(one.clone(), one.clone()), Vec::<String>::new());
        assert_eq!(wrong(one.clone(), json!([])), ["spec.ephemeralContainers: Forbidden: existing ephemeral containers \"d\" may not be removed\n"]);
        assert_eq!(
            wrong(one, json!([{"name": "d", "image": "y", "targetContainerName": "a"}])),
            ["spec.ephemeralContainers: Forbidden: existing ephemeral containers \"d\" may not be changed\n"]
        );
    }

    #[test]
    fn they_are_no_part_of_the_workload() {
        assert_eq!(
            wrong(
                json!([]),
                json!([{"name": "a", "image": "x", "targetContainerName": "z", "ports": [{"containerPort": 80}], "livenessProbe": {"exec": {}}, "resources": {}}])
            ),
            [
                "spec.ephemeralContainers[0].name: Duplicate value: \"a\"",
                "spec.ephemeralContainers[0].targetContainerName: Not found: \"z\"",
                "spec.ephemeralContainers[0].livenessProbe: Forbidden: cannot be set for an Ephemeral Container",
                "spec.ephemeralContainers[0].ports: Forbidden: cannot be set for an Ephemeral Container",
            ]
        );
    }
}
