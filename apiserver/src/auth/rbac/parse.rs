//! Reading the four kinds out of stored objects: only the fields that decide.

use super::rule::Rule;
use coracle_store::Key;
use serde::Deserialize;

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Role {
    #[serde(deserialize_with = "nullable")]
    pub rules: Vec<Rule>,
    pub aggregation_rule: Option<AggregationRule>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct AggregationRule {
    #[serde(deserialize_with = "nullable")]
    pub cluster_role_selectors: Vec<Selector>,
}

/// `metav1.LabelSelector`.
#[derive(Deserialize, Default, Clone)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Selector {
    match_labels: std::collections::BTreeMap<Box<str>, Box<str>>,
    match_expressions: Vec<Expression>,
}

#[derive(Deserialize, Clone)]
#[serde(rename_all = "camelCase")]
struct Expression {
    key: Box<str>,
    operator: Box<str>,
    #[serde(default)]
    values: Vec<Box<str>>,
}

impl Selector {
    /// An empty selector selects every role; an operator we do not know selects none.
    pub(super) fn selects(&self, labels: &[(Box<str>, Box<str>)]) -> bool {
        let value = |key: &str| labels.iter().find(|(k, _)| &**k == key).map(|(_, v)| v);
        self.match_labels.iter().all(|(k, v)| value(k) == Some(v))
            && self.match_expressions.iter().all(|e| match (&*e.operator, value(&e.key)) {
                ("In", Some(v)) => e.values.contains(v),
                ("NotIn", v) => v.is_none_or(|v| !e.values.contains(v)),
                ("Exists", v) => v.is_some(),
                ("DoesNotExist", v) => v.is_none(),
                _ => false,
            })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Binding {
    pub role_ref: RoleRef,
    #[serde(default, deserialize_with = "nullable")]
    pub subjects: Vec<Subject>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct RoleRef {
    pub kind: Box<str>,
    pub name: Box<str>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Subject {
    pub kind: Box<str>,
    pub name: Box<str>,
    pub namespace: Option<Box<str>>,
}

fn nullable<'de, D: serde::Deserializer<'de>, T: Deserialize<'de>>(d: D) -> Result<Vec<T>, D::Error> {
    Option::<Vec<T>>::deserialize(d).map(Option::unwrap_or_default)
}

/// What is stored has passed the schema; should it not read all the same, it grants nothing and says so in the log.
pub(super) fn read<T: for<'de> Deserialize<'de>>(key: &Key, json: &[u8]) -> Option<T> {
    serde_json::from_slice(json).map_err(|error| tracing::error!(?key, %error, "unreadable RBAC object grants nothing")).ok()
}

/// The `rules` of a role given as a value.
pub fn rules_of(role: &serde_json::Value) -> Vec<Rule> {
    role.get("rules").and_then(|r| Vec::<Rule>::deserialize(r).ok()).unwrap_or_default()
}
