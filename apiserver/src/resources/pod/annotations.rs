//! Annotations of a pod that mean something to Kubernetes: mirrors of static pods, what a deletion costs, and what older versions wrote for fields of today.

use crate::resources::{
    cells::list,
    rules::{At, Causes, syntax},
};
use serde_json::Value;

/// Annotation of pods that a node runs by itself.
pub const MIRROR: &str = "kubernetes.io/config.mirror";
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
const SECCOMP: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
const APPARMOR_CONTAINER: &str = "container.apparmor.security.beta.kubernetes.io/";

/// Whether a pod mirrors one that its node runs by itself.
pub fn is_mirror(pod: &Value) -> bool {
    pod["metadata"]["annotations"].get(MIRROR).is_some()
}

/// Rules of the annotations of a pod, or of a template, with this specification.
pub fn validate(annotations: &At<'_, '_>, spec: &Value, causes: &mut Causes) {
    let mirror = annotations.key(MIRROR);
    if mirror.is_set() && spec["nodeName"].as_str().is_none_or(str::is_empty) {
        mirror.invalid(causes, "must set spec.nodeName if mirror pod annotation is set");
    }
    let cost = annotations.key(DELETION_COST);
    if cost.is_set() && !is_cost(cost.text()) {
        cost.invalid(causes, "must be a 32bit integer");
    }
    for (key, at) in annotations.entries() {
        if key == SECCOMP || key.starts_with(SECCOMP_CONTAINER) {
            seccomp(&annotations.field(key), causes);
        }
        if let Some(container) = key.strip_prefix(APPARMOR_CONTAINER) {
            if !["initContainers", "containers", "ephemeralContainers"]
                .iter()
                .any(|kind| list(&spec[*kind]).iter().any(|one| one["name"] == *container))
            {
                at.invalid_value(causes, container, "container not found");
            }
            let profile = at.text();
            if !matches!(profile, "" | "runtime/default" | "unconfined") && !profile.starts_with("localhost/") {
                at.invalid(causes, &format!("invalid AppArmor profile name: {profile:?}"));
            }
        }
    }
}

/// A 32-bit number as it is written without superfluous signs and zeros.
fn is_cost(text: &str) -> bool {
    let first = text.as_bytes().first();
    (text == "0" || first.is_some_and(|first| matches!(first, b'-' | b'1'..=b'9'))) && text.parse::<i32>().is_ok()
}

fn seccomp(at: &At<'_, '_>, causes: &mut Causes) {
    match at.text() {
        "runtime/default" | "docker/default" | "unconfined" => {}
        profile => match profile.strip_prefix("localhost/") {
            Some(path) => at.with(&path.into()).syntax(causes, syntax::descending_path),
            None => at.invalid(causes, "must be a valid seccomp profile"),
        },
    }
}

/// Rules of a change, whichever subresource makes it. What makes a pod a mirror is said when it is made, and stays: nodes leave mirrors alone.
pub fn update(old: &Value, new: &Value, causes: &mut Causes) {
    let (before, root) = (&old["metadata"]["annotations"], At::root(new));
    let metadata = root.field("metadata");
    let now = metadata.field("annotations");
    if before == now.value {
        return;
    }
    for (key, _) in At::root(before).entries().filter(|(key, at)| now.value.get(*key) != Some(at.value)) {
        let at = now.key(key);
        if key.starts_with(APPARMOR_CONTAINER) {
            at.forbidden(causes, "may not remove or update AppArmor annotations");
        }
        if key == MIRROR {
            at.forbidden(causes, "may not remove or update mirror pod annotation");
        }
    }
    for (key, at) in now.entries().filter(|(key, _)| before.get(*key).is_none()) {
        if key.starts_with(APPARMOR_CONTAINER) {
            at.forbidden(causes, "may not add AppArmor annotations");
        }
        if key == MIRROR {
            at.forbidden(causes, "may not add mirror pod annotation");
        }
    }
    // What was wrong before the rule may stay.
    let mut fresh = Causes::new();
    validate(&now, &new["spec"], &mut fresh);
    let mut old_mistakes = Causes::new();
    validate(&now.with(before), &new["spec"], &mut old_mistakes);
    causes.extend(fresh.into_iter().filter(|cause| !old_mistakes.contains(cause)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::rules::lines;
    use serde_json::json;

    fn wrong(annotations: Value, spec: Value) -> Vec<String> {
        let mut causes = Causes::new();
        validate(&At::root(&json!({"annotations": annotations})).field("annotations"), &spec, &mut causes);
        lines(&causes)
    }

    #[test]
    fn mirrors_are_on_a_node() {
        let spec = json!({"nodeName": "n1"});
        assert_eq!(wrong(json!({MIRROR: "h"}), spec), Vec::<String>::new());
        assert_eq!(
            wrong(json!({MIRROR: "h"}), json!({})),
            [format!("annotations[{MIRROR}]: Invalid value: \"h\": must set spec.nodeName if mirror pod annotation is set")]
        );
    }

    #[test]
    fn a_cost_is_a_number() {
        for good in ["0", "-5", "2147483647"] {
            assert_eq!(wrong(json!({DELETION_COST: good}), json!({})), Vec::<String>::new(), "{good}");
        }
        for bad in ["", "+1", "01", "1.5", "2147483648", "cheap"] {
            let line = format!("annotations[{DELETION_COST}]: Invalid value: {bad:?}: must be a 32bit integer");
            assert_eq!(wrong(json!({DELETION_COST: bad}), json!({})), [line]);
        }
    }

    #[test]
    fn profiles_of_old_are_checked() {
        let spec = json!({"containers": [{"name": "a"}]});
        let good =
            json!({SECCOMP: "runtime/default", format!("{SECCOMP_CONTAINER}a"): "localhost/p", format!("{APPARMOR_CONTAINER}a"): "localhost/p"});
        assert_eq!(wrong(good, spec.clone()), Vec::<String>::new());
        let bad = json!({SECCOMP: "none", format!("{SECCOMP_CONTAINER}a"): "localhost/../p", format!("{APPARMOR_CONTAINER}b"): "p"});
        let mut found = wrong(bad, spec);
        found.sort();
        assert_eq!(
            found,
            [
                format!("annotations.{SECCOMP_CONTAINER}a: Invalid value: \"../p\": must not contain '..'"),
                format!("annotations.{SECCOMP}: Invalid value: \"none\": must be a valid seccomp profile"),
                format!("annotations[{APPARMOR_CONTAINER}b]: Invalid value: \"b\": container not found"),
                format!("annotations[{APPARMOR_CONTAINER}b]: Invalid value: \"p\": invalid AppArmor profile name: \"p\""),
            ]
        );
    }

    fn changed(old: Value, new: Value) -> Vec<String> {
        let pod = |annotations| json!({"metadata": {"annotations": annotations}, "spec": {"nodeName": "n1", "containers": [{"name": "a"}]}});
        let mut causes = Causes::new();
        update(&pod(old), &pod(new), &mut causes);
        lines(&causes)
    }

    #[test]
    fn mirrors_stay_what_they_are() {
        let at = |rule: &str| vec![format!("metadata.annotations[{MIRROR}]: Forbidden: may not {rule} mirror pod annotation")];
        assert_eq!(changed(json!({}), json!({})), Vec::<String>::new());
        assert_eq!(changed(json!({MIRROR: "h"}), json!({MIRROR: "h", "a": "b"})), Vec::<String>::new());
        assert_eq!(changed(json!({}), json!({MIRROR: "h"})), at("add"));
        assert_eq!(changed(Value::Null, json!({MIRROR: "h"})), at("add"));
        assert_eq!(changed(json!({MIRROR: "h"}), json!({})), at("remove or update"));
        assert_eq!(changed(json!({MIRROR: "h"}), json!({MIRROR: "i"})), at("remove or update"));
    }

    #[test]
    fn old_mistakes_may_stay() {
        let cost = |text: &str| json!({DELETION_COST: text});
        let mut more = cost("cheap");
        more["a"] = "b".into();
        assert_eq!(changed(cost("cheap"), more), Vec::<String>::new());
        assert_eq!(changed(cost("1"), cost("cheap")).len(), 1);
        let key = format!("{APPARMOR_CONTAINER}a");
        assert_eq!(
            changed(json!({&key: "unconfined"}), json!({&key: "runtime/default"})),
            [format!("metadata.annotations[{key}]: Forbidden: may not remove or update AppArmor annotations")]
        );
        assert_eq!(
            changed(json!({}), json!({&key: "unconfined"})),
            [format!("metadata.annotations[{key}]: Forbidden: may not add AppArmor annotations")]
        );
    }
}
