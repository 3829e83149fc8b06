//! The mandatory and the suggested objects, as upstream names and fills them.

use serde_json::{Value, json};

const API: &str = "flowcontrol.apiserver.k8s.io/v1";
/// Whether a newer version may change what is suggested.
pub const AUTO_UPDATE: &str = "apf.kubernetes.io/autoupdate-spec";

/// Of whom and what, in short.
enum Rule {
    /// Everything.
    All,
    /// These verbs on these paths.
    Paths(&'static str, &'static str),
    /// verbs, group, resources, cluster scope too
    On(&'static str, &'static str, &'static str, bool),
}
use Rule::{All, On, Paths};

/// name, priority level, precedence, what makes a flow, subjects (`g:` group, `u:` user, `s:` service accounts of kube-system), rules
type Schema = (&'static str, &'static str, u32, &'static str, &'static [&'static str], &'static [Rule]);

const EVERYBODY: &[&str] = &["g:system:unauthenticated", "g:system:authenticated"];
const NODES: &[&str] = &["g:system:nodes"];

const MANDATORY: &[Schema] =
    &[("exempt", "exempt", 1, "", &["g:system:masters"], &[All]), ("catch-all", "catch-all", 10_000, "ByUser", EVERYBODY, &[All])];

const SUGGESTED: &[Schema] = &[
    ("probes", "exempt", 2, "", EVERYBODY, &[Paths("get", "/healthz /readyz /livez")]),
    (
        "system-leader-election",
        "leader-election",
        100,
        "ByUser",
        &["u:system:kube-controller-manager", "u:system:kube-scheduler", "s:*"],
        &[On("get create update", "coordination.k8s.io", "leases", false)],
    ),
    (
        "system-node-high",
        "node-high",
        400,
        "ByUser",
        NODES,
        &[On("*", "", "nodes nodes/status", true), On("*", "coordination.k8s.io", "leases", false)],
    ),
    ("system-nodes", "system", 500, "ByUser", NODES, &[All]),
    ("kube-controller-manager", "workload-high", 800, "ByNamespace", &["u:system:kube-controller-manager"], &[All]),
    ("kube-scheduler", "workload-high", 800, "ByNamespace", &["u:system:kube-scheduler"], &[All]),
    ("kube-system-service-accounts", "workload-high", 900, "ByNamespace", &["s:*"], &[All]),
    ("service-accounts", "workload-low", 9000, "ByUser", &["g:system:serviceaccounts"], &[All]),
    ("global-default", "global-default", 9900, "ByUser", EVERYBODY, &[All]),
];

/// name, shares, percent that may be lent, queues and hand size
const LEVELS: &[(&str, u32, u32, (u32, u32))] = &[
    ("system", 30, 33, (64, 6)),
    ("node-high", 40, 25, (64, 6)),
    ("leader-election", 10, 0, (16, 4)),
    ("workload-high", 40, 50, (128, 6)),
    ("workload-low", 100, 90, (128, 6)),
    ("global-default", 20, 50, (128, 6)),
];

fn words(text: &str) -> Vec<&str> {
    text.split(' ').collect()
}

fn object(kind: &str, name: &str, spec: Value) -> Value {
    json!({"apiVersion": API, "kind": kind, "metadata": {"name": name, "annotations": {AUTO_UPDATE: "true"}}, "spec": spec, "status": {}})
}

fn subject(text: &&str) -> Value {
    match text.split_once(':') {
        Some(("g", name)) => json!({"kind": "Group", "group": {"name": name}}),
        Some(("u", name)) => json!({"kind": "User", "user": {"name": name}}),
        Some((_, name)) => json!({"kind": "ServiceAccount", "serviceAccount": {"namespace": "kube-system", "name": name}}),
        None => Value::Null,
    }
}

fn schema((name, level, precedence, method, subjects, rules): &Schema) -> Value {
    let (mut resources, mut paths) = (Vec::new(), Vec::new());
    for rule in *rules {
        match rule {
            All => {
                resources.push(json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "clusterScope": true, "namespaces": ["*"]}));
                paths.push(json!({"verbs": ["*"], "nonResourceURLs": ["*"]}));
            }
            Paths(verbs, urls) => paths.push(json!({"verbs": words(verbs), "nonResourceURLs": words(urls)})),
            On(verbs, group, names, cluster) => {
                let mut rule = json!({"verbs": words(verbs), "apiGroups": [group], "resources": words(names), "namespaces": ["*"]});
                if *cluster {
                    rule["clusterScope"] = true.into();
                }
                resources.push(rule);
            }
        }
    }
    let mut rule = json!({"subjects": subjects.iter().map(subject).collect::<Vec<_>>()});
    for (field, rules) in [("resourceRules", resources), ("nonResourceRules", paths)] {
        if !rules.is_empty() {
            rule[field] = rules.into();
        }
    }
    let mut spec = json!({"priorityLevelConfiguration": {"name": level}, "matchingPrecedence": precedence, "rules": [rule]});
    if !method.is_empty() {
        spec["distinguisherMethod"] = json!({"type": method});
    }
    object("FlowSchema", name, spec)
}

/// FlowSchemas without which requests would belong nowhere.
pub fn mandatory_schemas() -> Vec<Value> {
    MANDATORY.iter().map(schema).collect()
}

/// PriorityLevelConfigurations of the mandatory schemas.
pub fn mandatory_levels() -> Vec<Value> {
    let limited = json!({"nominalConcurrencyShares": 5, "lendablePercent": 0, "limitResponse": {"type": "Reject"}});
    vec![
        object("PriorityLevelConfiguration", "exempt", json!({"type": "Exempt", "exempt": {"nominalConcurrencyShares": 0, "lendablePercent": 0}})),
        object("PriorityLevelConfiguration", "catch-all", json!({"type": "Limited", "limited": limited})),
    ]
}

/// Every FlowSchema of a new cluster.
pub fn schemas() -> Vec<Value> {
    MANDATORY.iter().chain(SUGGESTED).map(schema).collect()
}

/// Every PriorityLevelConfiguration of a new cluster.
pub fn levels() -> Vec<Value> {
    let suggested = LEVELS.iter().map(|(name, shares, lendable, (queues, hand))| {
        let queuing = json!({"queues": queues, "handSize": hand, "queueLengthLimit": 50});
        let limited =
            json!({"nominalConcurrencyShares": shares, "lendablePercent": lendable, "limitResponse": {"type": "Queue", "queuing": queuing}});
        object("PriorityLevelConfiguration", name, json!({"type": "Limited", "limited": limited}))
    });
    mandatory_levels().into_iter().chain(suggested).collect()
}
