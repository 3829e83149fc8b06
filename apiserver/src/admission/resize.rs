//! PodResizeValidator: a running pod is not resized to more than its node has, nor where nodes cannot do it (KEP-1287).

use super::{Plugin, lookup};
use crate::{quota::amounts, resources::Cx};
use coracle_api::{
    quantity::Quantity,
    status::{Cause, Status},
};
use serde_json::Value;

/// The plugin.
pub struct PodResizeValidator;

impl Plugin for PodResizeValidator {
    fn name(&self) -> &'static str {
        "PodResizeValidator"
    }
    fn validate(&self, cx: &Cx<'_>, old: Option<&Value>, new: Option<&Value>) -> Result<(), Status> {
        let (Some(old), Some(new)) = (old, new) else { return Ok(()) };
        let name = new["spec"]["nodeName"].as_str().unwrap_or_default();
        if (cx.row().id().as_str(), cx.subresource()) != ("pods", "resize") || name.is_empty() || old["spec"] == new["spec"] {
            return Ok(());
        }
        let Some(node) = lookup::object(cx, "nodes", "", name)? else {
            return Err(lookup::forbidden(cx, new, &format!("node {name:?} not found")));
        };
        match refuses(&node, name, &new["spec"]) {
            None => Ok(()),
            Some((reason, why)) => {
                let mut status = lookup::forbidden(cx, new, &why);
                if let Some(details) = &mut status.details {
                    details.causes.push(Cause { reason: reason.into(), ..Cause::default() });
                }
                Err(status)
            }
        }
    }
}

/// Why a node cannot hold a pod at its new size: a word and a sentence.
fn refuses(node: &Value, name: &str, spec: &Value) -> Option<(&'static str, String)> {
    if let Some(os) = node["metadata"]["labels"]["kubernetes.io/os"].as_str().filter(|os| *os != "linux") {
        return Some(("UnsupportedPlatform", format!("pod resize is only supported on linux nodes, node {name:?} is {os:?}")));
    }
    let mut asked = amounts::of_pod(spec, "requests");
    amounts::add(&mut asked, &amounts::of(&spec["overhead"]));
    let has = amounts::of(&node["status"]["allocatable"]);
    let short = |resource: &str, count: fn(&Quantity) -> i64| {
        let (asked, has) = (asked.get(resource)?, has.get(resource).copied().unwrap_or(Quantity::ZERO));
        (*asked > has).then(|| format!("{resource}, requested: {}, allocatable: {}", count(asked), count(&has)))
    };
    let missing: Vec<String> = [short("cpu", Quantity::millis), short("memory", Quantity::units)].into_iter().flatten().collect();
    (!missing.is_empty()).then(|| ("NodeCapacity", format!("node didn't have enough allocatable resources: {}", missing.join("; "))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_node_holds_what_it_has() {
        let mut node = json!({"metadata": {"labels": {"kubernetes.io/os": "linux"}}, "status": {"allocatable": {"cpu": "2", "memory": "1Gi"}}});
        let asks = |cpu: &str, memory: &str| json!({"containers": [{"resources": {"requests": {"cpu": cpu, "memory": memory}}}]});
        assert_eq!(refuses(&node, "n", &asks("2", "1Gi")), None);
        let why = "node didn't have enough allocatable resources: cpu, requested: 2001, allocatable: 2000; memory, requested: 1073741825, allocatable: 1073741824";
        assert_eq!(refuses(&node, "n", &asks("2001m", "1073741825")), Some(("NodeCapacity", why.into())));
        node["metadata"]["labels"]["kubernetes.io/os"] = json!("windows");
        assert_eq!(
            refuses(&node, "n", &asks("1", "1")),
            Some(("UnsupportedPlatform", "pod resize is only supported on linux nodes, node \"n\" is \"windows\"".into()))
        );
    }
}
