//! Writes of a pod's status.

use crate::resources::{
    cells::list,
    rules::{At, Causes, syntax},
};
use coracle_api::names;
use serde_json::Value;
use std::{collections::BTreeSet, net::IpAddr};

/// What a status writer leaves out and may not take away.
pub fn keep(old: &Value, new: &mut Value) {
    if new["status"]["qosClass"].is_null() && !old["status"]["qosClass"].is_null() {
        new["status"]["qosClass"] = old["status"]["qosClass"].clone();
    }
    // Who owns a pod is not the status' business.
    match &old["metadata"]["ownerReferences"] {
        Value::Null => drop(new["metadata"].as_object_mut().and_then(|metadata| metadata.remove("ownerReferences"))),
        owners => new["metadata"]["ownerReferences"] = owners.clone(),
    }
    observed(&old["status"], &mut new["status"]);
    let mut before: Vec<&Value> = list(&old["status"]["conditions"]).iter().collect();
    for condition in new["status"].get_mut("conditions").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(at) = before.iter().position(|one| one["type"] == condition["type"]) {
            observed(before.remove(at), condition);
        }
    }
}

/// The generation that was looked at is not forgotten by writers that do not know the field.
fn observed(old: &Value, new: &mut Value) {
    const FIELD: &str = "observedGeneration";
    let before = old[FIELD].as_i64().filter(|before| *before != 0);
    if let Some(before) = before.filter(|_| new.is_object() && new[FIELD].as_i64().unwrap_or_default() == 0) {
        new[FIELD] = before.into();
    }
}

/// Rules of a status update.
pub fn validate(old: &Value, new: &Value, causes: &mut Causes) {
    let root = At::root(new);
    let status = root.field("status");
    for condition in status.field("conditions").items() {
        generation(&condition, causes);
        let kind = condition.field("type");
        if !matches!(kind.text(), "PodScheduled" | "Ready" | "Initialized") {
            condition.field("Type").with(kind.value).syntax(causes, names::qualified_name);
        }
    }
    let nominated = status.field("nominatedNodeName");
    if nominated.value != &old["status"]["nominatedNodeName"] {
        nominated.optional_syntax(causes, names::dns_subdomain);
        if old["spec"]["nodeName"].as_str().is_some_and(|name| !name.is_empty()) && !nominated.is_empty() {
            nominated.forbidden(causes, "may not be set on pods that are already bound to a node");
        }
    }
    generation(&status, causes);
    status.field("qosClass").immutable(causes, &old["status"]["qosClass"]);
    for containers in ["containers", "initContainers", "ephemeralContainers"] {
        let statuses = format!("{}Statuses", containers.strip_suffix('s').unwrap_or(containers));
        ended(old, &statuses, containers, &status.field(&statuses), causes);
    }
    claims(&status.field("resourceClaimStatuses"), &new["spec"], causes);
    addresses(&status.field("podIPs"), &old["status"]["podIPs"], causes);
    let hosts = status.field("hostIPs");
    if !hosts.is_empty() {
        let first = hosts.index(0);
        if first.field("ip").text() != status.field("hostIP").text() {
            first.field("ip").invalid(causes, "must be equal to `hostIP`");
        }
        addresses(&hosts, &old["status"]["hostIPs"], causes);
    }
    for (at, allocated) in list(status.field("ephemeralContainerStatuses").value).iter().enumerate() {
        if !list(&allocated["allocatedResourcesStatus"]).is_empty() {
            let (statuses, field) = (status.field("ephemeralContainerStatuses"), "allocatedResourcesStatus");
            statuses.index(at).field(field).forbidden(causes, "must not be specified in container status");
        }
    }
}

fn generation(at: &At<'_, '_>, causes: &mut Causes) {
    let observed = at.field("observedGeneration");
    if observed.int().is_some_and(|generation| generation < 0) {
        observed.invalid(causes, "must be a non-negative integer");
    }
}

/// A container that ended for good does not run again. (Init containers do, in a new sandbox, which upstream's rule about them forgets; whoever says so says as well that
/// they have been here before.)
fn ended(old: &Value, statuses: &str, containers: &str, now: &At<'_, '_>, causes: &mut Causes) {
    let spec = &old["spec"];
    let ephemeral = containers == "ephemeralContainers";
    if !ephemeral && ["initContainers", "containers"].iter().flat_map(|kind| list(&spec[*kind])).any(restarts_all) {
        return;
    }
    for (at, before) in list(&old["status"][statuses]).iter().enumerate() {
        let terminated = &before["state"]["terminated"];
        if !terminated.is_object() {
            continue;
        }
        let anew = |one: &Value| {
            let restarts = |status: &Value| status["restartCount"].as_i64().unwrap_or_default();
            containers == "initContainers" && (restarts(one) > restarts(before) || one["lastState"]["terminated"].is_object())
        };
        let runs = |one: &&Value| !one["state"]["terminated"].is_object() && !anew(one);
        let again = list(now.value).iter().filter(|one| one["name"] == before["name"]).any(|one| runs(&one));
        let code = terminated["exitCode"].as_i64().unwrap_or_default();
        let container = list(&spec[containers]).iter().find(|container| container["name"] == before["name"]);
        if again && (ephemeral || !container.is_some_and(|container| restarts(container, spec, code))) {
            now.index(at).field("state").forbidden(causes, "may not be transitioned to non-terminated state");
        }
    }
}

fn rules(container: &Value) -> &[Value] {
    list(&container["restartPolicyRules"])
}

fn restarts_all(container: &Value) -> bool {
    rules(container).iter().any(|rule| rule["action"] == "RestartAllContainers")
}

/// Whether a container that ended so is started again: by its rules, its own policy, its pod's.
fn restarts(container: &Value, spec: &Value, code: i64) -> bool {
    let own = container["restartPolicy"].as_str();
    if own.is_some() {
        let matching = rules(container).iter().find(|rule| {
            let among = list(&rule["exitCodes"]["values"]).iter().any(|value| value.as_i64() == Some(code));
            match rule["exitCodes"]["operator"].as_str() {
                Some("In") => among,
                Some("NotIn") => !among,
                _ => false,
            }
        });
        if matching.is_some_and(|rule| matches!(rule["action"].as_str(), Some("Restart" | "RestartAllContainers"))) {
            return true;
        }
    }
    match own.or(spec["restartPolicy"].as_str()) {
        Some("Never") => false,
        Some("OnFailure") => code != 0,
        _ => true,
    }
}

/// `status.resourceClaimStatuses`: each about one of the pod's claims.
fn claims(statuses: &At<'_, '_>, spec: &Value, causes: &mut Causes) {
    let mut seen = BTreeSet::new();
    for status in statuses.items() {
        let name = status.field("name");
        if !list(&spec["resourceClaims"]).iter().any(|claim| claim["name"] == name.text()) {
            name.invalid(causes, "must match the name of an entry in `spec.resourceClaims`");
        }
        if !seen.insert(name.text()) {
            name.duplicate(causes);
        }
        let claim = status.field("resourceClaimName");
        if claim.is_set() {
            claim.syntax(causes, names::dns_subdomain);
        }
    }
}

/// Addresses, at most one of each family; those that were there before may be written as they were.
fn addresses(all: &At<'_, '_>, before: &Value, causes: &mut Causes) {
    for at in all.items() {
        let ip = &at.value["ip"];
        if !list(before).iter().any(|one| one["ip"] == *ip) {
            at.with(ip).syntax(causes, syntax::ip);
        }
    }
    let of_family = |four: bool| {
        let ips = list(all.value).iter().filter_map(|one| one["ip"].as_str()?.parse::<IpAddr>().ok());
        ips.filter(|ip| ip.is_ipv4() == four).count()
    };
    if all.len() > 1 && (of_family(true), of_family(false)) != (1, 1) {
        all.invalid(causes, "may specify no more than one IP for each IP family");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::rules::lines;
    use serde_json::json;

    fn wrong(old: &Value, status: Value) -> Vec<String> {
        let mut new = old.clone();
        new["status"] = status;
        keep(old, &mut new);
        let mut causes = Vec::new();
        validate(old, &new, &mut causes);
        lines(&causes)
    }

    #[test]
    fn a_status_write_keeps_what_is_fixed() {
        let old = json!({"metadata": {"ownerReferences": [{"uid": "u"}]}, "status": {"qosClass": "Burstable", "observedGeneration": 3,
            "conditions": [{"type": "Ready", "observedGeneration": 2}, {"type": "Ready", "observedGeneration": 1}, {"type": "Initialized"}]}});
        let mut new = json!({"metadata": {}, "status": {"conditions": [{"type": "Initialized"}, {"type": "Ready"}, {"type": "Ready"},
            {"type": "Ready"}, {"type": "x", "observedGeneration": 7}]}});
        keep(&old, &mut new);
        assert_eq!((&new["metadata"], &new["status"]["qosClass"]), (&old["metadata"], &json!("Burstable")));
        assert_eq!(new["status"]["observedGeneration"], 3);
        let observed: Vec<_> = list(&new["status"]["conditions"]).iter().map(|one| one["observedGeneration"].as_i64()).collect();
        assert_eq!(observed, [None, Some(2), Some(1), None, Some(7)]);
        // Owners are not given either.
        let mut new = json!({"metadata": {"ownerReferences": [{"uid": "u"}]}});
        keep(&json!({}), &mut new);
        assert_eq!(new["metadata"], json!({}));
    }

    #[test]
    fn a_status_has_rules() {
        let old =
            json!({"spec": {"nodeName": "n1", "resourceClaims": [{"name": "gpu"}]}, "status": {"qosClass": "Burstable", "podIPs": [{"ip": "old"}]}});
        let status = json!({"nominatedNodeName": "n2", "observedGeneration": -1, "conditions": [{"type": "Ready"}, {"type": "a b", "observedGeneration": -2}],
            "resourceClaimStatuses": [{"name": "gpu", "resourceClaimName": "p-gpu-x"}, {"name": "gpu"}, {"name": "disk", "resourceClaimName": "P"}],
            "podIPs": [{"ip": "old"}, {"ip": "10.0.0.256"}], "hostIP": "10.0.0.1", "hostIPs": [{"ip": "10.0.0.2"}]});
        let found: Vec<String> = wrong(&old, status).iter().map(|line| line.split(": ").take(2).collect::<Vec<_>>().join(": ")).collect();
        assert_eq!(
            found,
            [
                "status.conditions[1].observedGeneration: Invalid value",
                "status.conditions[1].Type: Invalid value",
                "status.nominatedNodeName: Forbidden",
                "status.observedGeneration: Invalid value",
                "status.resourceClaimStatuses[1].name: Duplicate value",
                "status.resourceClaimStatuses[2].name: Invalid value",
                "status.resourceClaimStatuses[2].resourceClaimName: Invalid value",
                "status.podIPs[1]: Invalid value",
                "status.podIPs: Invalid value",
                "status.hostIPs[0].ip: Invalid value",
            ]
        );
        let both = json!({"podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}], "hostIP": "10.0.0.2", "hostIPs": [{"ip": "10.0.0.2"}]});
        assert_eq!(wrong(&old, both), Vec::<String>::new());
    }

    #[test]
    fn what_ended_for_good_stays_ended() {
        let running = json!([{"name": "a", "state": {"running": {}}}]);
        let again = |policy: &str, code: i64, container: Value| {
            let mut container = container;
            container["name"] = "a".into();
            let old = json!({"spec": {"restartPolicy": policy, "containers": [container]},
                "status": {"containerStatuses": [{"name": "a", "state": {"terminated": {"exitCode": code}}}]}});
            let found = wrong(&old, json!({"containerStatuses": running}));
            let line = "status.containerStatuses[0].state: Forbidden: may not be transitioned to non-terminated state";
            assert!(found.is_empty() || found == [line], "{found:?}");
            found.is_empty()
        };
        assert!(again("Always", 0, json!({})));
        assert!(!again("OnFailure", 0, json!({})));
        assert!(again("OnFailure", 1, json!({})));
        assert!(!again("Never", 1, json!({})));
        assert!(again("Never", 0, json!({"restartPolicy": "Always"})));
        assert!(!again("Always", 0, json!({"restartPolicy": "OnFailure"})));
        let rule = |operator: &str, action: &str| json!({"restartPolicy": "Never", "restartPolicyRules": [{"action": action, "exitCodes": {"operator": operator, "values": [42]}}]});
        assert!(again("Never", 42, rule("In", "Restart")) && !again("Never", 1, rule("In", "Restart")));
        assert!(!again("Never", 42, rule("NotIn", "Restart")) && again("Never", 1, rule("NotIn", "Restart")));
        assert!(again("Never", 1, rule("In", "RestartAllContainers")), "any container may be started again");
        let init = |policy: &str, code: i64, now: Value| {
            let old = json!({"spec": {"restartPolicy": policy, "initContainers": [{"name": "i"}]},
                "status": {"initContainerStatuses": [{"name": "i", "restartCount": 0, "state": {"terminated": {"exitCode": code}}}]}});
            wrong(&old, json!({"initContainerStatuses": [now]}))
        };
        let runs = || json!({"name": "i", "restartCount": 0, "state": {"running": {}}});
        let line = "status.initContainerStatuses[0].state: Forbidden: may not be transitioned to non-terminated state";
        assert_eq!(init("Never", 1, runs()), [line]);
        assert_eq!(init("OnFailure", 0, runs()), [line]);
        assert_eq!(init("Always", 1, runs()), Vec::<String>::new());
        let new_sandbox = json!({"name": "i", "restartCount": 0, "state": {"waiting": {}}, "lastState": {"terminated": {"exitCode": 0}}});
        assert_eq!(init("OnFailure", 0, new_sandbox), Vec::<String>::new());
        assert_eq!(init("Never", 0, json!({"name": "i", "restartCount": 1, "state": {"running": {}}})), Vec::<String>::new());
        let old = json!({"spec": {}, "status": {"ephemeralContainerStatuses": [{"name": "d", "state": {"terminated": {"exitCode": 1}}}]}});
        let status = json!({"ephemeralContainerStatuses": [{"name": "d", "state": {"running": {}}}]});
        assert_eq!(wrong(&old, status), ["status.ephemeralContainerStatuses[0].state: Forbidden: may not be transitioned to non-terminated state"]);
    }
}
