//! Where a pod may run.

use serde::Deserialize;
use serde_json::Value;

/// `Toleration`, as far as taints without a value go.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Toleration {
    /// Empty: every taint, with `Exists`.
    pub key: String,
    /// `Equal` (also when empty) or `Exists`.
    pub operator: String,
    /// For `Equal`.
    pub value: String,
    /// Empty: every effect.
    pub effect: String,
}

impl Toleration {
    /// It bears the taint of that key, without a value.
    pub fn bears(&self, key: &str, effect: &str) -> bool {
        let operator = match self.operator.as_str() {
            "Exists" => true,
            "" | "Equal" => self.value.is_empty() && !self.key.is_empty(),
            _ => false,
        };
        operator && (self.effect.is_empty() || self.effect == effect) && (self.key.is_empty() || self.key == key)
    }
}

/// `Affinity`, what a node looks at.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Affinity {
    /// Node affinity.
    pub node_affinity: NodeAffinity,
}

/// `NodeAffinity`, what must hold.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct NodeAffinity {
    /// Required terms, any of which suffices.
    #[serde(rename = "requiredDuringSchedulingIgnoredDuringExecution")]
    pub required: Option<NodeSelector>,
}

/// `NodeSelector`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct NodeSelector {
    /// Any of these.
    pub node_selector_terms: Vec<NodeTerm>,
}

/// `NodeSelectorTerm`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct NodeTerm {
    /// About labels.
    pub match_expressions: Value,
    /// About the name.
    pub match_fields: Value,
}
