//! Security contexts of pods and containers: what contradicts itself. (What is allowed is admission's business.)

use crate::resources::rules::{At, Causes};
use serde_json::Value;
use std::collections::BTreeSet;

const MAX_ID: i64 = i32::MAX as i64;

/// `securityContext` of a container.
pub fn of_container(context: &At<'_, '_>, causes: &mut Causes) {
    context.field("runAsUser").range(causes, 0, MAX_ID);
    context.field("runAsGroup").range(causes, 0, MAX_ID);
    context.field("procMount").one_of(causes, &["Default", "Unmasked"]);
    seccomp(&context.field("seccompProfile"), causes);
    app_armor(&context.field("appArmorProfile"), causes);
    if context.value["allowPrivilegeEscalation"] == Value::Bool(false) {
        if context.field("privileged").is_true() {
            context.invalid(causes, "cannot set `allowPrivilegeEscalation` to false and `privileged` to true");
        }
        let capabilities = context.field("capabilities");
        if capabilities.field("add").items().any(|capability| capability.text() == "CAP_SYS_ADMIN") {
            context.invalid(causes, "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN");
        }
    }
}

/// `securityContext` of a pod, and the switches that share the node's namespaces.
pub fn of_pod(spec: &At<'_, '_>, causes: &mut Causes) {
    let context = spec.field("securityContext");
    for name in ["fsGroup", "runAsUser", "runAsGroup"] {
        context.field(name).range(causes, 0, MAX_ID);
    }
    for group in context.field("supplementalGroups").items() {
        group.range(causes, 0, MAX_ID);
    }
    context.field("fsGroupChangePolicy").one_of(causes, &["Always", "OnRootMismatch"]);
    context.field("supplementalGroupsPolicy").one_of(causes, &["Merge", "Strict"]);
    let shared = spec.field("shareProcessNamespace");
    if shared.is_true() && spec.field("hostPID").is_true() {
        shared.invalid(causes, "ShareProcessNamespace and HostPID cannot both be enabled");
    }
    sysctls(&context, causes);
    seccomp(&context.field("seccompProfile"), causes);
    app_armor(&context.field("appArmorProfile"), causes);
    if spec.value["hostUsers"] == Value::Bool(false) {
        for (name, shown) in [("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")] {
            if spec.field(name).is_true() {
                spec.field(shown).forbidden(causes, "when `hostUsers` is false");
            }
        }
    } else {
        // Its root would be the machine's, with all of the machine's /proc before it.
        for list in ["containers", "initContainers", "ephemeralContainers"] {
            for container in spec.field(list).items() {
                let context = container.field("securityContext");
                let mount = context.field("procMount");
                if mount.text() == "Unmasked" {
                    mount.invalid(causes, "`hostUsers` must be false to use `Unmasked`");
                }
            }
        }
    }
}

/// Kernel parameters by name; which of them a node allows is the node's business.
fn sysctls(context: &At<'_, '_>, causes: &mut Causes) {
    let mut seen = BTreeSet::new();
    for sysctl in context.field("sysctls").items() {
        let name = sysctl.field("name");
        if name.text().is_empty() {
            name.missing(causes, "");
        } else if !is_sysctl(name.text()) {
            name.invalid(
                causes,
                r"must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$",
            );
        } else if !seen.insert(name.text()) {
            name.duplicate(causes);
        }
    }
}

/// Segments between dots or slashes that begin and end with a letter or digit.
fn is_sysctl(name: &str) -> bool {
    let plain = |c: Option<u8>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    let segment = |segment: &str| {
        let inner = segment.bytes().all(|c| plain(Some(c)) || matches!(c, b'-' | b'_'));
        inner && plain(segment.bytes().next()) && plain(segment.bytes().last())
    };
    name.len() <= 253 && name.split(['.', '/']).all(segment)
}

/// Profiles of both kinds: a type, and a name exactly when the type is `Localhost`.
fn profile(at: &At<'_, '_>, causes: &mut Causes) -> bool {
    if !at.is_set() {
        return false;
    }
    let (kind, local) = (at.field("type"), at.field("localhostProfile"));
    if kind.text() == "Localhost" {
        local.required(causes, "must be set when seccomp type is Localhost");
    } else if local.is_set() {
        local.invalid(causes, "can only be set when seccomp type is Localhost");
    }
    true
}

fn seccomp(at: &At<'_, '_>, causes: &mut Causes) {
    if profile(at, causes) {
        at.field("type").required_one_of(causes, &["Localhost", "RuntimeDefault", "Unconfined"]);
    }
}

fn app_armor(at: &At<'_, '_>, causes: &mut Causes) {
    if !at.is_set() {
        return;
    }
    let (kind, local) = (at.field("type"), at.field("localhostProfile"));
    match kind.text() {
        "Localhost" => drop(local.required(causes, "must be set when AppArmor type is Localhost")),
        "RuntimeDefault" | "Unconfined" if local.is_set() => local.invalid(causes, "can only be set when AppArmor type is Localhost"),
        "RuntimeDefault" | "Unconfined" => {}
        "" => kind.missing(causes, "type is required when appArmorProfile is set"),
        _ => kind.unsupported(causes, &["Localhost", "RuntimeDefault", "Unconfined"]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::rules::lines;
    use serde_json::json;

    #[test]
    fn sysctls_have_names() {
        let of = |name: &str| json!({"name": name, "value": "1"});
        let names = ["foo-", "kernel.shmmax", "safe-and-unsafe", "bar..", "net/ipv4/ip_forward", "kernel.shmmax", "", "A"];
        let mut causes = Vec::new();
        of_pod(&At::root(&json!({"securityContext": {"sysctls": names.map(of)}})), &mut causes);
        let wrong = r"must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
        assert_eq!(
            lines(&causes),
            [
                format!("securityContext.sysctls[0].name: Invalid value: \"foo-\": {wrong}"),
                format!("securityContext.sysctls[3].name: Invalid value: \"bar..\": {wrong}"),
                "securityContext.sysctls[5].name: Duplicate value: \"kernel.shmmax\"".to_owned(),
                "securityContext.sysctls[6].name: Required value".to_owned(),
                format!("securityContext.sysctls[7].name: Invalid value: \"A\": {wrong}"),
            ]
        );
    }

    #[test]
    fn all_of_proc_is_for_users_of_their_own() {
        let wrong = |host: Value| {
            let one = |mount: &str| json!({"securityContext": {"procMount": mount}});
            let mut causes = Vec::new();
            of_pod(
                &At::root(&json!({"hostUsers": host, "containers": [one("Default"), one("Unmasked")], "initContainers": [one("Unmasked")]})),
                &mut causes,
            );
            lines(&causes)
        };
        let refused = ["containers[1]", "initContainers[0]"]
            .map(|at| format!("{at}.securityContext.procMount: Invalid value: \"Unmasked\": `hostUsers` must be false to use `Unmasked`"));
        assert_eq!((wrong(json!(true)), wrong(Value::Null), wrong(json!(false))), (refused.to_vec(), refused.to_vec(), Vec::new()));
    }

    #[test]
    fn contradictions_are_refused() {
        let mut causes = Vec::new();
        of_container(&At::root(&json!({"runAsUser": -1, "seccompProfile": {"type": "X"}, "appArmorProfile": {"type": "Localhost"}})), &mut causes);
        assert_eq!(
            lines(&causes),
            [
                "runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive",
                "seccompProfile.type: Unsupported value: \"X\": supported values: \"Localhost\", \"RuntimeDefault\", \"Unconfined\"",
                "appArmorProfile.localhostProfile: Required value: must be set when AppArmor type is Localhost",
            ]
        );
        let mut causes = Vec::new();
        of_pod(
            &At::root(&json!({"hostUsers": false, "hostPID": true, "shareProcessNamespace": true, "securityContext": {"fsGroup": -1}})),
            &mut causes,
        );
        assert_eq!(
            lines(&causes),
            [
                "securityContext.fsGroup: Invalid value: -1: must be between 0 and 2147483647, inclusive",
                "shareProcessNamespace: Invalid value: true: ShareProcessNamespace and HostPID cannot both be enabled",
                "HostPID: Forbidden: when `hostUsers` is false",
            ]
        );
    }
}
