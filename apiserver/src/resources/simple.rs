//! Kinds that add little more than a table: ServiceAccount, Lease, RuntimeClass, PriorityClass, Role and ClusterRole.

use super::{
    Cx, Deletion, Hooks, age,
    cells::{self, AGE, Heading, NAME, text_or},
    rules::{At, Causes},
};
use coracle_api::{
    names,
    registry::Column,
    status::{Cause, Status},
};
use serde_json::Value;

/// A kind told by data: its table, what is prepared, and its rules.
pub struct Simple {
    headings: &'static [Heading],
    cells: fn(&Value) -> Vec<Value>,
    prepare: fn(Option<&Value>, &mut Value),
    validate: Rules,
    status: Rules,
    warnings: fn(&Value) -> Vec<String>,
    kept: fn(&Value) -> Option<&'static str>,
}

/// What may be wrong with a new object (`old` is None) or a changed one.
pub type Rules = fn(Option<&Value>, &Value, &mut Causes);

impl Simple {
    /// A table, and the rules of the object.
    pub const fn new(headings: &'static [Heading], cells: fn(&Value) -> Vec<Value>, validate: Rules) -> Self {
        Simple { headings, cells, prepare: |_, _| {}, validate, status: |_, _, _| {}, warnings: |_| Vec::new(), kept: |_| None }
    }
    /// Only name and age to show.
    pub const fn named(validate: Rules) -> Self {
        Self::new(&[NAME, AGE], name_and_age, validate)
    }
    /// A kind without a printer upstream: name and time of creation.
    pub const fn dated(validate: Rules) -> Self {
        Self::new(CREATED, created_at, validate)
    }
    /// What is set before the rules look at a write of the object; None is the old object of a create.
    pub const fn preparing(self, prepare: fn(Option<&Value>, &mut Value)) -> Self {
        Simple { prepare, ..self }
    }
    /// Rules of writes of its status.
    pub const fn with_status(self, status: Rules) -> Self {
        Simple { status, ..self }
    }
    /// Sentences for the writer of the object.
    pub const fn warning(self, warnings: fn(&Value) -> Vec<String>) -> Self {
        Simple { warnings, ..self }
    }
    /// Why nobody may delete an object, if so.
    pub const fn keeping(self, kept: fn(&Value) -> Option<&'static str>) -> Self {
        Simple { kept, ..self }
    }
}

impl Hooks for Simple {
    fn prepare_create(&self, _cx: &Cx<'_>, new: &mut Value) -> Result<(), Status> {
        (self.prepare)(None, new);
        Ok(())
    }
    fn prepare_update(&self, cx: &Cx<'_>, old: &Value, new: &mut Value) -> Result<(), Status> {
        if cx.subresource().is_empty() {
            (self.prepare)(Some(old), new);
        }
        Ok(())
    }
    fn validate(&self, cx: &Cx<'_>, old: Option<&Value>, new: &Value, causes: &mut Vec<Cause>) {
        match cx.subresource() {
            "status" => (self.status)(old, new, causes),
            _ => (self.validate)(old, new, causes),
        }
    }
    fn warnings(&self, cx: &Cx<'_>, _old: Option<&Value>, new: &Value) -> Vec<String> {
        if cx.subresource().is_empty() { (self.warnings)(new) } else { Vec::new() }
    }
    fn delete(&self, cx: &Cx<'_>, object: &mut Value, _grace: Option<i64>) -> Result<Deletion, Status> {
        match (self.kept)(object) {
            Some(why) => Err(Status::forbidden(&cx.row().group, &cx.row().plural, &cx.request.name, why)),
            None => Ok(Deletion::Now),
        }
    }
    fn columns(&self) -> Option<Vec<Column>> {
        Some(cells::columns(self.headings))
    }
    fn cells(&self, object: &Value) -> Vec<Value> {
        (self.cells)(object)
    }
}

fn name_and_age(object: &Value) -> Vec<Value> {
    vec![cells::name(object), age::of(object)]
}

/// `serviceaccounts`
pub const SERVICE_ACCOUNT: Simple = Simple::named(|_, _, _| {});

/// `leases.coordination.k8s.io`
pub const LEASE: Simple = Simple::new(
    &[NAME, ("Holder", "Who holds the lease."), AGE],
    |lease| vec![cells::name(lease), text_or(&lease["spec"]["holderIdentity"], "").into(), age::of(lease)],
    lease,
);

pub(super) fn lease(_old: Option<&Value>, new: &Value, causes: &mut Causes) {
    let root = At::root(new);
    let spec = root.field("spec");
    spec.field("leaseDurationSeconds").positive(causes);
    spec.field("leaseTransitions").non_negative(causes);
}

/// `runtimeclasses.node.k8s.io`
pub const RUNTIME_CLASS: Simple = Simple::new(
    &[NAME, ("Handler", "Which runtime of the node runs the pods of this class."), AGE],
    |class| vec![cells::name(class), text_or(&class["handler"], "").into(), age::of(class)],
    runtime_class,
);

pub(super) fn runtime_class(old: Option<&Value>, new: &Value, causes: &mut Causes) {
    let root = At::root(new);
    let handler = root.field("handler");
    match old {
        Some(old) => handler.immutable(causes, &old["handler"]),
        None => handler.syntax(causes, names::dns_label),
    }
    let overhead = root.field("overhead");
    super::rules::quantities::resource_list(&overhead.field("podFixed"), causes);
    let scheduling = root.field("scheduling");
    super::rules::labels::label_map(&scheduling.field("nodeSelector"), causes);
    super::pod::scheduling::tolerations(&scheduling.field("tolerations"), causes);
}

/// `priorityclasses.scheduling.k8s.io`
pub const PRIORITY_CLASS: Simple = Simple::new(
    &[
        NAME,
        ("#Value", "Priority of the pods of this class; higher comes first."),
        ("?Global-Default", "Whether pods without a class get this one."),
        AGE,
        ("PreemptionPolicy", "Whether its pods may push others out."),
    ],
    |class| {
        vec![
            cells::name(class),
            cells::count(&class["value"]).into(),
            (class["globalDefault"] == true).into(),
            age::of(class),
            text_or(&class["preemptionPolicy"], "").into(),
        ]
    },
    priority_class,
)
.keeping(|class| is_system(class).then_some("this is a system priority class and cannot be deleted"));

/// Priorities that users may give; what is above belongs to the system's own two classes.
pub const MAX_USER_PRIORITY: i64 = 1_000_000_000;
/// The system's classes and their priorities.
pub const SYSTEM_CLASSES: &[(&str, i64)] = &[("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000)];

fn is_system(class: &Value) -> bool {
    SYSTEM_CLASSES.iter().any(|(name, _)| class["metadata"]["name"] == **name)
}

pub(super) fn priority_class(old: Option<&Value>, new: &Value, causes: &mut Causes) {
    let root = At::root(new);
    let (metadata, value) = (root.field("metadata"), root.field("value"));
    let name = metadata.field("name");
    if let Some(old) = old {
        if value.value != &old["value"] {
            value.forbidden(causes, "may not be changed in an update.");
        }
        let policy = root.field("preemptionPolicy");
        policy.immutable(causes, &old["preemptionPolicy"]);
        return;
    }
    if name.text().starts_with("system-") {
        let known =
            SYSTEM_CLASSES.iter().any(|(system, priority)| *system == name.text() && value.int() == Some(*priority) && new["globalDefault"] != true);
        if !known {
            name.forbidden(
                causes,
                &format!(
                    "priority class names with 'system-' prefix are reserved for system use only. error: {} is not a known system priority class",
                    name.text()
                ),
            );
        }
    } else if value.int().is_some_and(|priority| priority > MAX_USER_PRIORITY) {
        value.forbidden(causes, &format!("maximum allowed value of a user defined priority is {MAX_USER_PRIORITY}"));
    }
    root.field("preemptionPolicy").one_of(causes, &["PreemptLowerPriority", "Never"]);
}

/// What kinds without a printer of their own show.
pub(super) const CREATED: &[Heading] = &[NAME, ("Created At", "When the object was created.")];

/// `roles` and `clusterroles`: upstream gives them no printer, so the table has the default columns.
pub const ROLE: Simple = Simple::dated(role);
/// `clusterroles`
pub const CLUSTER_ROLE: Simple = Simple::dated(cluster_role);

pub(super) fn created_at(object: &Value) -> Vec<Value> {
    vec![cells::name(object), object["metadata"]["creationTimestamp"].clone()]
}

pub(super) fn role(_old: Option<&Value>, new: &Value, causes: &mut Causes) {
    rules(new, true, causes);
}

pub(super) fn cluster_role(_old: Option<&Value>, new: &Value, causes: &mut Causes) {
    rules(new, false, causes);
    let root = At::root(new);
    let aggregation = root.field("aggregationRule");
    if aggregation.is_set() {
        let selectors = aggregation.field("clusterRoleSelectors");
        selectors.required(causes, "at least one clusterRoleSelector required if aggregationRule is non-nil");
        for selector in selectors.items() {
            super::rules::labels::selector(&selector, causes);
        }
    }
}

fn rules(new: &Value, namespaced: bool, causes: &mut Causes) {
    let root = At::root(new);
    for rule in root.field("rules").items() {
        rule.field("verbs").required(causes, "verbs must contain at least one value");
        let urls = rule.field("nonResourceURLs");
        if !urls.is_empty() {
            if namespaced {
                urls.invalid(causes, "namespaced rules cannot apply to non-resource URLs");
            }
            if !rule.field("apiGroups").is_empty() || !rule.field("resources").is_empty() || !rule.field("resourceNames").is_empty() {
                urls.invalid(causes, "rules cannot apply to both regular resources and non-resource URLs");
            }
            continue;
        }
        rule.field("apiGroups").required(causes, "resource rules must supply at least one api group");
        rule.field("resources").required(causes, "resource rules must supply at least one resource");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::rules::lines;
    use serde_json::json;

    fn wrong(kind: &Simple, old: Option<Value>, new: Value) -> Vec<String> {
        let mut causes = Vec::new();
        (kind.validate)(old.as_ref(), &new, &mut causes);
        lines(&causes)
    }

    #[test]
    fn rules_of_small_kinds() {
        assert_eq!(
            wrong(&LEASE, None, json!({"spec": {"leaseDurationSeconds": 0}})),
            ["spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0"]
        );
        assert_eq!(
            wrong(&RUNTIME_CLASS, Some(json!({"handler": "a"})), json!({"handler": "b"})),
            ["handler: Invalid value: \"b\": field is immutable"]
        );
        assert_eq!(
            wrong(&PRIORITY_CLASS, None, json!({"metadata": {"name": "a"}, "value": 1_000_000_001})),
            ["value: Forbidden: maximum allowed value of a user defined priority is 1000000000"]
        );
        assert_eq!(wrong(&PRIORITY_CLASS, None, json!({"metadata": {"name": "system-node-critical"}, "value": 2_000_001_000})), Vec::<String>::new());
        assert_eq!(wrong(&PRIORITY_CLASS, Some(json!({"value": 1})), json!({"value": 2})), ["value: Forbidden: may not be changed in an update."]);
        assert_eq!(
            wrong(&ROLE, None, json!({"rules": [{"verbs": ["get"]}, {"verbs": [], "nonResourceURLs": ["/a"]}]})),
            [
                "rules[0].apiGroups: Required value: resource rules must supply at least one api group",
                "rules[0].resources: Required value: resource rules must supply at least one resource",
                "rules[1].verbs: Required value: verbs must contain at least one value",
                "rules[1].nonResourceURLs: Invalid value: [\"/a\"]: namespaced rules cannot apply to non-resource URLs",
            ]
        );
        assert_eq!(wrong(&CLUSTER_ROLE, None, json!({"rules": [{"verbs": ["get"], "nonResourceURLs": ["/a"]}]})), Vec::<String>::new());
    }

    #[test]
    fn only_the_systems_priority_classes_stay() {
        let kept = |name: &str| (PRIORITY_CLASS.kept)(&json!({"metadata": {"name": name}}));
        for (name, _) in SYSTEM_CLASSES {
            assert_eq!(kept(name), Some("this is a system priority class and cannot be deleted"));
        }
        assert_eq!((kept("high"), kept("")), (None, None));
        assert_eq!((LEASE.kept)(&json!({"metadata": {"name": "system-node-critical"}})), None);
    }

    #[test]
    fn rows_have_a_cell_a_column() {
        for kind in [SERVICE_ACCOUNT, LEASE, RUNTIME_CLASS, PRIORITY_CLASS, ROLE] {
            assert_eq!((kind.cells)(&json!({})).len(), kind.headings.len());
        }
        let class = json!({"metadata": {"name": "high", "creationTimestamp": "2026-01-02T03:04:00Z"}, "value": 7, "preemptionPolicy": "Never"});
        assert_eq!(cells::golden(&PRIORITY_CLASS.cells(&class), "2026-01-02T03:04:05Z"), "high | 7 | false | 5s | Never");
    }
}
