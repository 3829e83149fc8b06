//! Aggregated ClusterRoles: the rules of the roles that the selectors of `aggregationRule` find, written into the role (Kubernetes'
//! clusterrole-aggregation-controller). What a user may do does not wait for it, since the authorizer unites rules itself; it is for those who read the object.

use super::{
    Context,
    action::{Action, perform},
    queue::Next,
    runner::{Controller, Event},
};
use async_trait::async_trait;
use coracle_api::Status;
use coracle_apiserver::view::{parse, selector::LabelSelector};
use coracle_store::{Key, Object, Snapshot};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

const ROLES: &str = "clusterroles.rbac.authorization.k8s.io";

/// See the module.
pub struct Aggregation {
    context: Context,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Role<'a> {
    rules: Option<Vec<Value>>,
    #[serde(borrow)]
    aggregation_rule: Option<AggregationRule<'a>>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct AggregationRule<'a> {
    #[serde(borrow)]
    cluster_role_selectors: Vec<LabelSelector<'a>>,
}

impl Aggregation {
    /// Acts as `clusterrole-aggregation-controller`.
    pub fn new(context: &Context) -> Self {
        Self { context: context.acting_as("clusterrole-aggregation-controller") }
    }
}

/// All aggregated roles are one key: a change of any role may concern each of them.
fn everything() -> Key {
    Key::new(ROLES, "", "")
}

/// The patch of a role whose rules are not those of the roles it selects; `all` are sorted by name. A role does not select itself.
fn decide(own: &Object, all: &[Arc<Object>]) -> Result<Option<Action>, Status> {
    let role: Role<'_> = parse(own)?;
    let Some(aggregation) = role.aggregation_rule else { return Ok(None) };
    let mut wanted: Vec<Value> = Vec::new();
    for selector in &aggregation.cluster_role_selectors {
        for other in all.iter().filter(|other| other.key != own.key && selector.matches(&*other.meta.labels)) {
            for rule in parse::<Role<'_>>(other)?.rules.unwrap_or_default() {
                if !wanted.contains(&rule) {
                    wanted.push(rule);
                }
            }
        }
    }
    if role.rules.unwrap_or_default() == wanted {
        return Ok(None);
    }
    let metadata = json!({ "resourceVersion": own.revision.to_string() });
    Ok(Some(Action::Patch { key: own.key.clone(), subresource: "", patch: json!({ "metadata": metadata, "rules": wanted }) }))
}

#[async_trait]
impl Controller for Aggregation {
    fn name(&self) -> &'static str {
        "clusterrole-aggregation-controller"
    }

    fn route(&self, event: &Event<'_>, keys: &mut Vec<Key>) {
        if event.resource == ROLES {
            keys.push(everything());
        }
    }

    fn all(&self, _: &Snapshot, keys: &mut Vec<Key>) {
        keys.push(everything());
    }

    async fn reconcile(&self, _: &Key) -> Result<Next, Status> {
        let snapshot = self.context.client.store().snapshot();
        let roles: Vec<Arc<Object>> = snapshot.range(ROLES, None, None).cloned().collect();
        let mut failed = None;
        for role in &roles {
            let done = match decide(role, &roles) {
                Ok(action) => perform(&self.context.client, None, action.into_iter().collect()).await,
                Err(why) => Err(why),
            };
            // One that cannot be written does not keep the others from it.
            failed = failed.or(done.err());
        }
        failed.map_or(Ok(Next::Idle), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_apiserver::fixture::object;

    fn role(name: &str, labels: Value, rules: &[&str], selects: &[&str]) -> Arc<Object> {
        let rules: Vec<Value> = rules.iter().map(|resource| json!({"apiGroups": [""], "resources": [resource], "verbs": ["get"]})).collect();
        let mut json = json!({"metadata": {"name": name, "labels": labels}, "rules": rules});
        if !selects.is_empty() {
            let selectors: Vec<Value> = selects.iter().map(|label| json!({"matchLabels": {*label: "true"}})).collect();
            json["aggregationRule"] = json!({"clusterRoleSelectors": selectors});
        }
        object(ROLES, 7, json)
    }

    fn resources(own: &Arc<Object>, all: &[Arc<Object>]) -> Option<Vec<String>> {
        match decide(own, all).unwrap()? {
            Action::Patch { patch, .. } => {
                assert_eq!(patch["metadata"]["resourceVersion"], "7");
                let name = |rule: &Value| rule["resources"][0].as_str().unwrap_or_default().to_owned();
                Some(patch["rules"].as_array().into_iter().flatten().map(name).collect())
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_rules_of_selected_roles_are_written_once_each() {
        let (a, b) =
            (role("a", json!({"x": "true"}), &["pods", "nodes"], &[]), role("b", json!({"x": "true", "y": "true"}), &["pods", "secrets"], &[]));
        let other = role("c", json!({"x": "false"}), &["events"], &[]);
        let all = |own: &Arc<Object>| [a.clone(), b.clone(), other.clone(), own.clone()];
        // It carries the label itself, and has rules of its own that nobody selects.
        let own = role("u", json!({"x": "true"}), &["leases"], &["x", "y"]);
        assert_eq!(resources(&own, &all(&own)).unwrap(), ["pods", "nodes", "secrets"]);
        let done = role("u", json!({}), &["pods", "nodes", "secrets"], &["x", "y"]);
        assert_eq!(resources(&done, &all(&done)), None);
        let nothing = role("u", json!({}), &["pods"], &["z"]);
        assert_eq!(resources(&nothing, &all(&nothing)).unwrap(), Vec::<String>::new());
        assert_eq!(resources(&a, &all(&own)), None, "not aggregated");
    }
}
