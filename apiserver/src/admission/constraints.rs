//! Which requests a policy or webhook is about: rules of resources and operations, and selectors (`MatchResources`, `RuleWithOperations`).

use super::attributes::{Attributes, Operation};
use coracle_api::registry::{Registry, Resource};
use coracle_api::selector::Selector;
use serde_json::Value;

/// One rule (`NamedRuleWithOperations`).
#[derive(Clone, Debug, Default)]
pub struct Rule {
    operations: Vec<String>,
    groups: Vec<String>,
    versions: Vec<String>,
    resources: Vec<String>,
    scope: String,
    names: Vec<String>,
}

/// `MatchResources`, or what a webhook says in the same words.
#[derive(Clone, Debug)]
pub struct Constraints {
    namespaces: Selector,
    objects: Selector,
    rules: Vec<Rule>,
    /// No rules mean everything, as for policies; to a webhook they mean nothing.
    open: bool,
    except: Vec<Rule>,
    /// `matchPolicy: Equivalent`: other versions of a resource count as well.
    equivalent: bool,
}

fn texts(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_string).collect()
}

fn any(list: &[String], wanted: &str) -> bool {
    list.iter().any(|one| one == "*" || one == wanted)
}

impl Rule {
    /// Reads a rule.
    pub fn of(value: &Value) -> Rule {
        Rule {
            operations: texts(&value["operations"]),
            groups: texts(&value["apiGroups"]),
            versions: texts(&value["apiVersions"]),
            resources: texts(&value["resources"]),
            scope: value["scope"].as_str().unwrap_or("*").to_string(),
            names: texts(&value["resourceNames"]),
        }
    }

    /// Groups, versions and resources that are named one by one; None where a wildcard stands. Resources without subresources.
    pub fn named(&self) -> Option<Vec<(&str, &str, &str)>> {
        if self.groups.iter().chain(&self.versions).any(|text| text.contains('*')) {
            return None;
        }
        let resources = self.resources.iter().filter(|text| !text.contains(['*', '/']));
        let each = |resource| self.groups.iter().flat_map(move |group| self.versions.iter().map(move |version| (&**group, &**version, resource)));
        Some(resources.flat_map(|resource| each(&**resource)).collect())
    }

    fn matches(&self, a: &Attributes<'_>, version: &str) -> bool {
        let scope = match &*self.scope {
            "Cluster" => a.namespace.is_empty() || a.is_namespace(),
            "Namespaced" => !a.namespace.is_empty() && !a.is_namespace(),
            _ => true,
        };
        let resource = |wanted: &String| {
            let (resource, subresource) = wanted.split_once('/').unwrap_or((wanted, ""));
            (resource == "*" || resource == &*a.row.plural) && (subresource == a.subresource || subresource == "*")
        };
        scope
            && any(&self.operations, a.operation.as_str())
            && any(&self.groups, &a.row.group)
            && any(&self.versions, version)
            && self.resources.iter().any(resource)
            && (self.names.is_empty() || self.names.iter().any(|name| name == a.name))
    }
}

impl Constraints {
    /// Reads `MatchResources`; null matches everything.
    ///
    /// # Errors
    /// A selector that cannot be read.
    pub fn of(value: &Value) -> Result<Constraints, String> {
        let rules = |field: &str| value[field].as_array().into_iter().flatten().map(Rule::of).collect();
        Self::with_rules(value, rules("resourceRules"), rules("excludeResourceRules"), true)
    }

    /// Of a webhook: its rules are `rules`, and it has no exceptions.
    ///
    /// # Errors
    /// A selector that cannot be read.
    pub fn of_webhook(value: &Value) -> Result<Constraints, String> {
        Self::with_rules(value, value["rules"].as_array().into_iter().flatten().map(Rule::of).collect(), Vec::new(), false)
    }

    fn with_rules(value: &Value, rules: Vec<Rule>, except: Vec<Rule>, open: bool) -> Result<Constraints, String> {
        let selector = |field: &str| match &value[field] {
            Value::Null => Ok(Selector::default()),
            selector => Selector::from_object(selector).map_err(|why| why.to_string()),
        };
        Ok(Constraints {
            namespaces: selector("namespaceSelector")?,
            objects: selector("objectSelector")?,
            open: open && rules.is_empty(),
            rules,
            except,
            equivalent: value["matchPolicy"].as_str() != Some("Exact"),
        })
    }

    /// The rules; none means every resource.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Whether a request is meant. `namespace` is the object of the namespace that the request is in, null if in none.
    pub fn matches(&self, a: &Attributes<'_>, namespace: &Value, registry: &Registry) -> bool {
        self.matched(a, namespace, registry).is_some()
    }

    /// The version of the resource in which a request is meant: its own, or an equivalent one that a rule names.
    pub fn matched(&self, a: &Attributes<'_>, namespace: &Value, registry: &Registry) -> Option<Box<str>> {
        if !self.selects_namespace(a, namespace) || !self.selects_object(a) || self.one_matches(&self.except, a, registry).is_some() {
            return None;
        }
        if self.open { Some(a.row.version.clone()) } else { self.one_matches(&self.rules, a, registry) }
    }

    fn one_matches(&self, rules: &[Rule], a: &Attributes<'_>, registry: &Registry) -> Option<Box<str>> {
        if rules.iter().any(|rule| rule.matches(a, &a.row.version)) {
            return Some(a.row.version.clone());
        }
        if !self.equivalent || rules.is_empty() {
            return None;
        }
        // Earlier rules first.
        let others = other_versions(registry, a.row);
        rules.iter().find_map(|rule| others.iter().find(|version| rule.matches(a, version)).cloned())
    }

    /// Objects in no namespace are selected whatever the selector; a namespace by its own labels.
    fn selects_namespace(&self, a: &Attributes<'_>, namespace: &Value) -> bool {
        if self.namespaces.is_everything() {
            return true;
        }
        if a.is_namespace() {
            let object = if a.operation == Operation::Create { a.new } else { a.old.or(a.new) };
            return object.is_some_and(|object| self.namespaces.matches_labels(&object["metadata"]["labels"]));
        }
        a.namespace.is_empty() || self.namespaces.matches_labels(&namespace["metadata"]["labels"])
    }

    /// Selected if the object is, before or after.
    fn selects_object(&self, a: &Attributes<'_>) -> bool {
        self.objects.is_everything() || [a.old, a.new].into_iter().flatten().any(|object| self.objects.matches_labels(&object["metadata"]["labels"]))
    }
}

/// Versions besides its own under which the resource is served.
fn other_versions(registry: &Registry, row: &Resource) -> Vec<Box<str>> {
    registry
        .all()
        .into_iter()
        .filter(|other| other.group == row.group && other.plural == row.plural && other.version != row.version)
        .map(|other| other.version.clone())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::User;
    use serde_json::json;

    fn matches(constraints: Value, change: impl Fn(&mut Attributes<'_>)) -> bool {
        let registry = Registry::builtin();
        let row = registry.by_id("deployments.apps").expect("deployments");
        let (user, object) = (User::default(), json!({"metadata": {"name": "d", "labels": {"app": "web"}}}));
        let namespace = json!({"metadata": {"labels": {"env": "prod"}}});
        let mut a = Attributes {
            operation: Operation::Create,
            row: &row,
            kind: ("apps".into(), "v1".into(), "Deployment".into()),
            subresource: "",
            namespace: "default",
            name: "d",
            user: &user,
            dry_run: false,
            options: Value::Null,
            old: None,
            new: Some(&object),
        };
        change(&mut a);
        Constraints::of(&constraints).expect("readable").matches(&a, &namespace, &registry)
    }

    fn rule(resources: &str, operations: &str) -> Value {
        json!({"apiGroups": ["apps"], "apiVersions": ["v1"], "resources": [resources], "operations": [operations]})
    }

    #[test]
    fn rules_name_resources_and_operations() {
        let with = |rule: Value| matches(json!({"resourceRules": [rule]}), |_| ());
        assert!(with(rule("deployments", "CREATE")) && with(rule("*", "*")) && with(rule("*/*", "CREATE")) && with(rule("deployments/*", "*")));
        assert!(!with(rule("deployments", "UPDATE")) && !with(rule("deployments/scale", "*")) && !with(rule("pods", "*")));
        assert!(matches(json!({"resourceRules": [rule("*/scale", "*")]}), |a| a.subresource = "scale"));
        assert!(!matches(json!({"resourceRules": [rule("deployments", "*")]}), |a| a.subresource = "scale"));
        let mut named = rule("deployments", "*");
        named["resourceNames"] = json!(["e"]);
        assert!(!with(named.clone()));
        named["resourceNames"] = json!(["d", "e"]);
        assert!(with(named));
        let mut scoped = rule("deployments", "*");
        scoped["scope"] = json!("Cluster");
        assert!(!with(scoped.clone()));
        scoped["scope"] = json!("Namespaced");
        assert!(with(scoped));
    }

    #[test]
    fn exceptions_and_selectors_narrow() {
        let all = json!([rule("*", "*")]);
        assert!(!matches(json!({"resourceRules": all, "excludeResourceRules": [rule("deployments", "*")]}), |_| ()));
        let labelled = |field: &str, key: &str, value: &str| json!({"resourceRules": all, field: {"matchLabels": {key: value}}});
        assert!(matches(labelled("namespaceSelector", "env", "prod"), |_| ()) && !matches(labelled("namespaceSelector", "env", "test"), |_| ()));
        assert!(matches(labelled("objectSelector", "app", "web"), |_| ()) && !matches(labelled("objectSelector", "app", "db"), |_| ()));
        let old = json!({"metadata": {"labels": {"app": "db"}}});
        let other = json!({"metadata": {}});
        let registry = Registry::builtin();
        let row = registry.by_id("deployments.apps").expect("deployments");
        let user = User::default();
        let a = Attributes {
            operation: Operation::Update,
            row: &row,
            kind: Default::default(),
            subresource: "",
            namespace: "",
            name: "",
            user: &user,
            dry_run: false,
            options: Value::Null,
            old: Some(&old),
            new: Some(&other),
        };
        let constraints = Constraints::of(&labelled("objectSelector", "app", "db")).expect("readable");
        assert!(constraints.matches(&a, &Value::Null, &registry), "what it was counts");
    }

    #[test]
    fn named_resources() {
        let of = |value: Value| Rule::of(&value).named().map(|list| list.len());
        assert_eq!(of(rule("deployments", "*")), Some(1));
        assert_eq!(of(rule("*", "*")), Some(0));
        assert_eq!(of(json!({"apiGroups": ["*"], "apiVersions": ["v1"], "resources": ["pods"]})), None);
    }
}
