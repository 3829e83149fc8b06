//! What containers and pods ask for and are held to.

use crate::resources::rules::{
    At, Causes,
    quantities::{is_extended, quantity, resource_name, shown, whole_if_counted},
};

/// `resources` of a container.
pub fn of_container(resources: &At<'_, '_>, causes: &mut Causes) {
    validate(resources, resource_name, causes);
}

/// `resources` of a pod: only what is shared among its containers.
pub fn of_pod(resources: &At<'_, '_>, causes: &mut Causes) {
    let name = |at: &At<'_, '_>, name: &str, causes: &mut Causes| {
        if !matches!(name, "cpu" | "memory") && !name.starts_with("hugepages-") {
            at.with(&name.into()).unsupported(causes, &["cpu", "hugepages-", "memory"]);
        }
    };
    validate(resources, name, causes);
}

/// `overhead` of a pod.
pub fn overhead(list: &At<'_, '_>, causes: &mut Causes) {
    for (name, at) in list.entries() {
        value(&at, name, resource_name, causes);
    }
}

fn value(at: &At<'_, '_>, name: &str, rule: fn(&At<'_, '_>, &str, &mut Causes), causes: &mut Causes) {
    rule(at, name, causes);
    whole_if_counted(at, name, causes);
}

/// Devices and huge pages cannot be promised twice.
fn may_overcommit(name: &str) -> bool {
    !is_extended(name) && !name.starts_with("hugepages-")
}

fn validate(resources: &At<'_, '_>, rule: fn(&At<'_, '_>, &str, &mut Causes), causes: &mut Causes) {
    let (limits, requests) = (resources.field("limits"), resources.field("requests"));
    for (name, at) in limits.entries() {
        value(&at, name, rule, causes);
    }
    for (name, at) in requests.entries() {
        value(&at, name, rule, causes);
        let limit = limits.key(name);
        let (Some(asked), Some(most)) = (quantity(&at), quantity(&limit)) else {
            if !limit.is_set() && !may_overcommit(name) {
                limits.missing(causes, "Limit must be set for non overcommitable resources");
            }
            continue;
        };
        if asked != most && !may_overcommit(name) {
            requests.invalid_value(causes, shown(&at), &format!("must be equal to {name} limit of {}", shown(&limit)));
        } else if asked > most {
            requests.invalid_value(causes, shown(&at), &format!("must be less than or equal to {name} limit of {}", shown(&limit)));
        }
    }
    let names = || limits.entries().chain(requests.entries()).map(|(name, _)| name);
    if names().any(|name| name.starts_with("hugepages-")) && !names().any(|name| matches!(name, "cpu" | "memory")) {
        resources.forbidden(causes, "HugePages require cpu or memory");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::rules::lines;
    use serde_json::{Value, json};

    fn wrong(resources: Value) -> Vec<String> {
        let mut causes = Vec::new();
        let whole = json!({"resources": resources});
        let root = At::root(&whole);
        of_container(&root.field("resources"), &mut causes);
        lines(&causes)
    }

    #[test]
    fn requests_stay_below_limits() {
        assert_eq!(wrong(json!({"limits": {"cpu": "1", "memory": "64Mi"}, "requests": {"cpu": "500m", "memory": "64Mi"}})), Vec::<String>::new());
        assert_eq!(
            wrong(json!({"limits": {"cpu": "1"}, "requests": {"cpu": "2"}})),
            ["resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1"]
        );
        assert_eq!(wrong(json!({"limits": {"cpu": "-1"}})), ["resources.limits[cpu]: Invalid value: \"-1\": must be greater than or equal to 0"]);
        assert_eq!(
            wrong(json!({"limits": {"disk": "1"}})),
            [
                "resources.limits[disk]: Invalid value: \"disk\": must be a standard resource type or fully qualified",
                "resources.limits[disk]: Invalid value: \"disk\": must be a standard resource for containers"
            ]
        );
        assert_eq!(
            wrong(json!({"limits": {"example.com/gpu": "1"}, "requests": {"example.com/gpu": "2"}})),
            ["resources.requests: Invalid value: \"2\": must be equal to example.com/gpu limit of 1"]
        );
        assert_eq!(
            wrong(json!({"limits": {"example.com/gpu": "500m"}})),
            ["resources.limits[example.com/gpu]: Invalid value: \"500m\": must be an integer"]
        );
        assert_eq!(
            wrong(json!({"requests": {"example.com/gpu": "1"}})),
            ["resources.limits: Required value: Limit must be set for non overcommitable resources"]
        );
        assert_eq!(wrong(json!({"limits": {"hugepages-2Mi": "2Mi"}})), ["resources: Forbidden: HugePages require cpu or memory"]);
    }
}
