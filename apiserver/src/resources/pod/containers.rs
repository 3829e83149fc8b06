//! Containers and init containers: names, images, ports, and where their volumes are mounted.

use super::{env, ephemeral, probes, requests, security, spec::unique, volumes::Volumes};
use crate::resources::rules::{At, Causes, syntax};
use coracle_api::names;
use serde_json::Value;
use std::collections::BTreeSet;

const MAX_RESTART_RULES: usize = 20;
const MAX_EXIT_CODES: usize = 255;

/// All containers of a pod.
pub fn validate(spec: &At<'_, '_>, volumes: &Volumes<'_>, causes: &mut Causes) {
    let containers = spec.field("containers");
    let grace = spec.field("terminationGracePeriodSeconds").int();
    if containers.is_empty() {
        containers.missing(causes, "");
    }
    let mut seen = BTreeSet::new();
    for container in containers.items() {
        common(&container, volumes, causes);
        unique(&mut seen, &container.field("name"), causes);
        probes::of_container(&container, grace, causes);
        restarts(&container, causes);
    }
    host_ports(&containers, causes);
    let inits = spec.field("initContainers");
    for container in inits.items() {
        common(&container, volumes, causes);
        unique(&mut seen, &container.field("name"), causes);
        restarts(&container, causes);
        if container.field("restartPolicy").text() == "Always" {
            probes::of_container(&container, grace, causes);
            continue;
        }
        for name in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
            let at = container.field(name);
            if at.is_set() {
                at.forbidden(causes, "may not be set for init containers without restartPolicy=Always");
            }
        }
    }
    for list in [&containers, &inits] {
        for container in list.items() {
            env::file_volumes(&container.field("env"), volumes, causes);
        }
    }
    ephemeral::validate(spec, volumes, &mut seen, causes);
}

pub(super) fn common(container: &At<'_, '_>, volumes: &Volumes<'_>, causes: &mut Causes) {
    let name = container.field("name");
    if name.required(causes, "") {
        name.syntax(causes, names::dns_label);
    }
    container.field("image").required(causes, "");
    container.field("terminationMessagePolicy").one_of(causes, &["File", "FallbackToLogsOnError"]);
    ports(&container.field("ports"), causes);
    env::variables(&container.field("env"), causes);
    env::sources(&container.field("envFrom"), causes);
    mounts(container, volumes, causes);
    devices(container, volumes, causes);
    container.field("imagePullPolicy").one_of(causes, &["Always", "IfNotPresent", "Never"]);
    requests::of_container(&container.field("resources"), causes);
    security::of_container(&container.field("securityContext"), causes);
}

/// A container's own restart policy, and its rules by exit code.
fn restarts(container: &At<'_, '_>, causes: &mut Causes) {
    let (policy, rules) = (container.field("restartPolicy"), container.field("restartPolicyRules"));
    if !policy.is_set() && !rules.is_empty() {
        policy.missing(causes, "must specify restartPolicy when restart rules are used");
    }
    policy.one_of(causes, &["Always", "Never", "OnFailure"]);
    if rules.len() > MAX_RESTART_RULES {
        rules.too_many(causes, MAX_RESTART_RULES);
    }
    for rule in rules.items() {
        let (action, codes) = (rule.field("action"), rule.field("exitCodes"));
        if !matches!(action.text(), "Restart" | "RestartAllContainers") {
            action.unsupported(causes, &["Restart", "RestartAllContainers"]);
        }
        if !codes.is_set() {
            codes.missing(causes, "must be specified");
            continue;
        }
        let (operator, values) = (codes.field("operator"), codes.field("values"));
        if !matches!(operator.text(), "In" | "NotIn") {
            operator.unsupported(causes, &["In", "NotIn"]);
        }
        if values.len() > MAX_EXIT_CODES {
            values.too_many(causes, MAX_EXIT_CODES);
        }
    }
}

fn ports(ports: &At<'_, '_>, causes: &mut Causes) {
    let mut seen = BTreeSet::new();
    for port in ports.items() {
        let name = port.field("name");
        if !name.is_empty() {
            let wrong = syntax::port_name(name.text());
            if wrong.is_empty() {
                unique(&mut seen, &name, causes);
            }
            for why in wrong {
                name.invalid(causes, &why);
            }
        }
        let own = port.field("containerPort");
        match own.int() {
            None | Some(0) => own.missing(causes, ""),
            Some(_) => own.port(causes),
        }
        let host = port.field("hostPort");
        if host.int().is_some_and(|number| number != 0) {
            host.port(causes);
        }
        port.field("protocol").one_of(causes, &["SCTP", "TCP", "UDP"]);
    }
}

fn host_ports(containers: &At<'_, '_>, causes: &mut Causes) {
    let mut seen = BTreeSet::new();
    for container in containers.items() {
        for port in container.field("ports").items() {
            let host = port.field("hostPort");
            let number = host.int().unwrap_or_default();
            let key = format!("{}/{}/{number}", port.field("protocol").value.as_str().unwrap_or("TCP"), port.field("hostIP").text());
            if number != 0 && !seen.insert(key.clone()) {
                host.duplicate_value(causes, key);
            }
        }
    }
}

fn pairs<'v>(container: &At<'_, 'v>, list: &str, path: &str) -> Vec<(&'v str, &'v str)> {
    let items = container.value[list].as_array().into_iter().flatten();
    items.map(|item| (item["name"].as_str().unwrap_or_default(), item[path].as_str().unwrap_or_default())).collect()
}

fn mounts(container: &At<'_, '_>, volumes: &Volumes<'_>, causes: &mut Causes) {
    let devices = pairs(container, "volumeDevices", "devicePath");
    let privileged = container.value["securityContext"]["privileged"] == true;
    let mut seen = BTreeSet::new();
    let mounts = container.field("volumeMounts");
    for mount in mounts.items() {
        let (name, path) = (mount.field("name"), mount.field("mountPath"));
        name.required(causes, "");
        if !volumes.has(name.text()) {
            name.with(&Value::from(name.text())).not_found(causes);
        }
        path.required(causes, "");
        if !seen.insert(path.text()) {
            path.invalid(causes, "must be unique");
        }
        if devices.iter().any(|(device, _)| *device == name.text()) {
            name.invalid(causes, "must not already exist in volumeDevices");
        }
        if devices.iter().any(|(_, device)| *device == path.text()) {
            path.invalid(causes, "must not already exist as a path in volumeDevices");
        }
        let (sub, expression) = (mount.field("subPath"), mount.field("subPathExpr"));
        // Upstream names these places without the index.
        mounts.field("subPath").with(sub.value).optional_syntax(causes, syntax::descending_path);
        if !expression.is_empty() {
            if !sub.is_empty() {
                expression.invalid(causes, "subPathExpr and subPath are mutually exclusive");
            }
            mounts.field("subPathExpr").with(expression.value).syntax(causes, syntax::descending_path);
        }
        let propagation = mounts.field("mountPropagation").with(mount.field("mountPropagation").value);
        propagation.one_of(causes, &["Bidirectional", "HostToContainer", "None"]);
        if propagation.text() == "Bidirectional" && !privileged {
            propagation.forbidden(causes, "Bidirectional mount propagation is available only to privileged containers");
        }
        recursive(&mounts, &mount, causes);
    }
}

fn recursive(mounts: &At<'_, '_>, mount: &At<'_, '_>, causes: &mut Causes) {
    let at = mounts.field("recursiveReadOnly").with(mount.field("recursiveReadOnly").value);
    at.one_of(causes, &["Disabled", "Enabled", "IfPossible"]);
    if matches!(at.text(), "Enabled" | "IfPossible") {
        if !mount.field("readOnly").is_true() {
            at.forbidden(causes, "may only be specified when readOnly is true");
        }
        if !matches!(mount.field("mountPropagation").text(), "" | "None") {
            at.forbidden(causes, "may only be specified when mountPropagation is None or not specified");
        }
    }
}

fn devices(container: &At<'_, '_>, volumes: &Volumes<'_>, causes: &mut Causes) {
    let mounts = pairs(container, "volumeMounts", "mountPath");
    let (mut names, mut paths) = (BTreeSet::new(), BTreeSet::new());
    for device in container.field("volumeDevices").items() {
        let (name, path) = (device.field("name"), device.field("devicePath"));
        name.required(causes, "");
        if !names.insert(name.text()) {
            name.invalid(causes, "must be unique");
        }
        match volumes.source(name.text()) {
            None => name.with(&Value::from(name.text())).not_found(causes),
            Some("persistentVolumeClaim" | "ephemeral") => {}
            Some(_) => name.invalid(causes, "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode"),
        }
        path.required(causes, "");
        if !paths.insert(path.text()) {
            path.invalid(causes, "must be unique");
        }
        if !syntax::no_backsteps(path.text()).is_empty() {
            path.invalid(causes, "can not contain backsteps ('..')");
        }
        if mounts.iter().any(|(mount, _)| *mount == name.text()) {
            name.invalid(causes, "must not already exist in volumeMounts");
        }
        if mounts.iter().any(|(_, mount)| *mount == path.text()) {
            path.invalid(causes, "must not already exist as a path in volumeMounts");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::volumes;
    use super::*;
    use crate::resources::rules::lines;
    use serde_json::json;

    fn wrong(spec: Value) -> Vec<String> {
        let mut causes = Vec::new();
        let root = At::root(&spec);
        let volumes = volumes::validate(&root.field("volumes"), &mut causes);
        validate(&root, &volumes, &mut causes);
        lines(&causes)
    }

    #[test]
    fn names_and_images() {
        assert_eq!(
            wrong(json!({"containers": [{"name": "A", "image": "x"}, {"name": "b"}, {"image": "x"}, {"name": "b", "image": "x"}]})),
            [
                "containers[0].name: Invalid value: \"A\": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
                "containers[1].image: Required value",
                "containers[2].name: Required value",
                "containers[3].name: Duplicate value: \"b\"",
            ]
        );
        assert_eq!(
            wrong(json!({"containers": [{"name": "a", "image": "x"}], "initContainers": [{"name": "a", "image": "x", "livenessProbe": {}}]})),
            [
                "initContainers[0].name: Duplicate value: \"a\"",
                "initContainers[0].livenessProbe: Forbidden: may not be set for init containers without restartPolicy=Always",
            ]
        );
    }

    #[test]
    fn containers_may_restart_by_rules() {
        let with = |fields: Value| {
            let mut container = fields;
            container["name"] = "a".into();
            container["image"] = "x".into();
            wrong(json!({"containers": [container]}))
        };
        let codes = json!({"operator": "In", "values": [42]});
        assert_eq!(with(json!({"restartPolicy": "Never", "restartPolicyRules": [{"action": "Restart", "exitCodes": codes}]})), Vec::<String>::new());
        assert_eq!(
            with(json!({"restartPolicyRules": [{"action": "Stop", "exitCodes": {"operator": "Is"}}, {"action": "Restart"}]})),
            [
                "containers[0].restartPolicy: Required value: must specify restartPolicy when restart rules are used",
                "containers[0].restartPolicyRules[0].action: Unsupported value: \"Stop\": supported values: \"Restart\", \"RestartAllContainers\"",
                "containers[0].restartPolicyRules[0].exitCodes.operator: Unsupported value: \"Is\": supported values: \"In\", \"NotIn\"",
                "containers[0].restartPolicyRules[1].exitCodes: Required value: must be specified",
            ]
        );
        let many = vec![json!({"action": "Restart", "exitCodes": {"operator": "In", "values": vec![1; 256]}}); 21];
        let found = with(json!({"restartPolicy": "Never", "restartPolicyRules": many}));
        assert_eq!(found.len(), 22);
        assert_eq!(found[0], "containers[0].restartPolicyRules: Too many: 21: must have at most 20 items");
        assert_eq!(found[1], "containers[0].restartPolicyRules[0].exitCodes.values: Too many: 256: must have at most 255 items");
    }

    #[test]
    fn ports_are_checked() {
        let ports = json!([{"containerPort": 0}, {"containerPort": 70000}, {"containerPort": 80, "name": "WEB"}, {"containerPort": 81, "hostPort": 8080}, {"containerPort": 82, "hostPort": 8080}, {"containerPort": 1, "protocol": "tcp"}]);
        assert_eq!(
            wrong(json!({"containers": [{"name": "a", "image": "x", "ports": ports}]})),
            [
                "containers[0].ports[0].containerPort: Required value",
                "containers[0].ports[1].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
                "containers[0].ports[2].name: Invalid value: \"WEB\": must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",
                "containers[0].ports[2].name: Invalid value: \"WEB\": must contain at least one letter (a-z)",
                "containers[0].ports[5].protocol: Unsupported value: \"tcp\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
                "containers[0].ports[4].hostPort: Duplicate value: \"TCP//8080\"",
            ]
        );
    }

    #[test]
    fn mounts_name_volumes() {
        let mounts = json!([{"name": "v", "mountPath": "/a"}, {"name": "w", "mountPath": "/a"}, {"name": "v", "mountPath": "/b", "subPath": "../x"}]);
        assert_eq!(
            wrong(json!({"volumes": [{"name": "v", "emptyDir": {}}], "containers": [{"name": "a", "image": "x", "volumeMounts": mounts}]})),
            [
                "containers[0].volumeMounts[1].name: Not found: \"w\"",
                "containers[0].volumeMounts[1].mountPath: Invalid value: \"/a\": must be unique",
                "containers[0].volumeMounts.subPath: Invalid value: \"../x\": must not contain '..'",
            ]
        );
    }
}
