//! Writes of a pod's status.

use crate::resources::rules::{At, Causes};
use coracle_api::names;
use serde_json::Value;

/// What a status writer leaves out and may not take away.
pub fn keep(old: &Value, new: &mut Value) {
    if new["status"]["qosClass"].is_null() && !old["status"]["qosClass"].is_null() {
        new["status"]["qosClass"] = old["status"]["qosClass"].clone();
    }
}

/// Rules of a status update.
pub fn validate(old: &Value, new: &Value, causes: &mut Causes) {
    let root = At::root(new);
    let status = root.field("status");
    for condition in status.field("conditions").items() {
        condition.field("type").syntax(causes, names::qualified_name);
    }
    let nominated = status.field("nominatedNodeName");
    if nominated.value != &old["status"]["nominatedNodeName"] {
        nominated.optional_syntax(causes, names::dns_subdomain);
        if old["spec"]["nodeName"].as_str().is_some_and(|name| !name.is_empty()) && !nominated.is_empty() {
            nominated.forbidden(causes, "may not be set on pods that are already bound to a node");
        }
    }
    status.field("qosClass").immutable(causes, &old["status"]["qosClass"]);
    ended(old, &status, causes);
}

/// A container that ended for good does not run again.
fn ended(old: &Value, status: &At<'_, '_>, causes: &mut Causes) {
    let policy = old["spec"]["restartPolicy"].as_str().unwrap_or("Always");
    if policy == "Always" {
        return;
    }
    let now = status.field("containerStatuses");
    for before in old["status"]["containerStatuses"].as_array().into_iter().flatten() {
        let code = before["state"]["terminated"]["exitCode"].as_i64();
        if !code.is_some_and(|code| policy == "Never" || code == 0) {
            continue;
        }
        let again = now.items().find(|at| at.field("name").value == &before["name"]).filter(|at| !at.value["state"]["terminated"].is_object());
        if let Some(at) = again {
            // A container may have a policy of its own.
            let spec = old["spec"]["containers"].as_array().into_iter().flatten().find(|container| container["name"] == before["name"]);
            if spec.is_some_and(|container| container["restartPolicy"].is_string()) {
                continue;
            }
            at.field("state").forbidden(causes, "may not be transitioned to non-terminated state");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::rules::lines;
    use serde_json::json;

    #[test]
    fn a_status_write_keeps_what_is_fixed() {
        let old = json!({"spec": {"nodeName": "n1", "restartPolicy": "Never", "containers": [{"name": "a"}]}, "status": {"qosClass": "Burstable",
            "containerStatuses": [{"name": "a", "state": {"terminated": {"exitCode": 1}}}]}});
        let mut new = old.clone();
        new["status"] = json!({"nominatedNodeName": "n2", "containerStatuses": [{"name": "a", "state": {"running": {}}}]});
        keep(&old, &mut new);
        assert_eq!(new["status"]["qosClass"], "Burstable");
        let mut causes = Vec::new();
        validate(&old, &new, &mut causes);
        assert_eq!(
            lines(&causes),
            [
                "status.nominatedNodeName: Forbidden: may not be set on pods that are already bound to a node",
                "status.containerStatuses[0].state: Forbidden: may not be transitioned to non-terminated state",
            ]
        );
    }
}
