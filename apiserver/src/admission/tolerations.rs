//! DefaultTolerationSeconds: a pod stays five minutes on a node that is gone, unless it says otherwise. TaintNodesByCondition: a new node is not ready
//! until it says so; the node lifecycle controller takes the taint away.

use super::{Plugin, lookup};
use crate::resources::Cx;
use coracle_api::status::Status;
use serde_json::{Value, json};

/// The plugin for pods.
pub struct DefaultTolerationSeconds;
/// The plugin for nodes.
pub struct TaintNodesByCondition;

/// Taint of a node that is not ready.
pub const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const SECONDS: i64 = 300;

impl Plugin for DefaultTolerationSeconds {
    fn name(&self) -> &'static str {
        "DefaultTolerationSeconds"
    }
    fn mutate(&self, cx: &Cx<'_>, _old: Option<&Value>, new: &mut Value) -> Result<(), Status> {
        // On updates too: who sends the manifest again does not mean to take them away.
        if lookup::is_pod(cx) {
            tolerate(new);
        }
        Ok(())
    }
}

impl Plugin for TaintNodesByCondition {
    fn name(&self) -> &'static str {
        "TaintNodesByCondition"
    }
    fn mutate(&self, cx: &Cx<'_>, old: Option<&Value>, new: &mut Value) -> Result<(), Status> {
        if old.is_none() && &*cx.row().plural == "nodes" && cx.row().group.is_empty() {
            taint(new);
        }
        Ok(())
    }
}

fn tolerate(pod: &mut Value) {
    let Some(list) = lookup::list(&mut pod["spec"], "tolerations") else { return };
    for taint in [NOT_READY, UNREACHABLE] {
        let covers = |toleration: &Value| {
            let text = |name: &str| toleration[name].as_str().unwrap_or_default();
            (text("key") == taint || text("key").is_empty()) && matches!(text("effect"), "NoExecute" | "")
        };
        if !list.iter().any(covers) {
            list.push(json!({"key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": SECONDS}));
        }
    }
}

fn taint(node: &mut Value) {
    if let Some(taints) = lookup::list(&mut node["spec"], "taints")
        && !taints.iter().any(|taint| taint["key"] == NOT_READY && taint["effect"] == "NoSchedule")
    {
        taints.push(json!({"key": NOT_READY, "effect": "NoSchedule"}));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_outlast_a_node_for_five_minutes() {
        let mut pod = json!({"spec": {"tolerations": [{"key": NOT_READY, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}]}});
        tolerate(&mut pod);
        assert_eq!(
            pod["spec"]["tolerations"],
            json!([{"key": NOT_READY, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5},
                {"key": UNREACHABLE, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}])
        );
        let mut everything = json!({"spec": {"tolerations": [{"operator": "Exists"}]}});
        tolerate(&mut everything);
        assert_eq!(everything["spec"]["tolerations"], json!([{"operator": "Exists"}]));
    }

    #[test]
    fn a_new_node_is_not_ready_once() {
        let mut node = json!({"metadata": {"name": "n"}});
        taint(&mut node);
        taint(&mut node);
        assert_eq!(node["spec"]["taints"], json!([{"key": NOT_READY, "effect": "NoSchedule"}]));
    }
}
