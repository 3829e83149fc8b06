//! What holds for every kind: as many cells as columns, and no value, however shaped, that makes rules or cells panic.

use super::{
    builtin, cells, config, controller_revision, cron_job, daemon_set, disruption_budget, endpointslice, event, job, namespace, node, pod,
    replication_controller, rolebinding, rules::Causes, service, simple, stateful_set, workload,
};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// Names that rules and cells look at, so that drawn values get past the first look.
const NAMES: &[&str] = &[
    "metadata",
    "spec",
    "status",
    "name",
    "namespace",
    "labels",
    "annotations",
    "uid",
    "containers",
    "initContainers",
    "image",
    "ports",
    "env",
    "envFrom",
    "valueFrom",
    "fieldRef",
    "fieldPath",
    "resourceFieldRef",
    "resource",
    "divisor",
    "volumes",
    "volumeMounts",
    "mountPath",
    "subPath",
    "resources",
    "limits",
    "requests",
    "cpu",
    "memory",
    "example.com/gpu",
    "affinity",
    "nodeAffinity",
    "podAffinity",
    "requiredDuringSchedulingIgnoredDuringExecution",
    "preferredDuringSchedulingIgnoredDuringExecution",
    "nodeSelectorTerms",
    "matchExpressions",
    "matchLabels",
    "operator",
    "values",
    "key",
    "tolerations",
    "effect",
    "selector",
    "template",
    "replicas",
    "strategy",
    "type",
    "rollingUpdate",
    "maxSurge",
    "maxUnavailable",
    "clusterIP",
    "clusterIPs",
    "ipFamilies",
    "externalIPs",
    "port",
    "targetPort",
    "nodePort",
    "protocol",
    "sessionAffinity",
    "data",
    "binaryData",
    "immutable",
    "conditions",
    "containerStatuses",
    "state",
    "terminated",
    "waiting",
    "running",
    "restartCount",
    "lastState",
    "finishedAt",
    "exitCode",
    "reason",
    "taints",
    "unschedulable",
    "addresses",
    "endpoints",
    "addressType",
    "completions",
    "parallelism",
    "completionMode",
    "startTime",
    "completionTime",
    "involvedObject",
    "series",
    "count",
    "lastTimestamp",
    "roleRef",
    "subjects",
    "kind",
    "apiGroup",
    "rules",
    "verbs",
    "projected",
    "sources",
    "serviceAccountToken",
    "items",
    "path",
    "livenessProbe",
    "httpGet",
    "exec",
    "finalizers",
    "jobTemplate",
    "schedule",
    "timeZone",
    "podFailurePolicy",
    "successPolicy",
    "onExitCodes",
    "onPodConditions",
    "succeededIndexes",
    "succeededCount",
    "action",
    "volumeClaimTemplates",
    "updateStrategy",
    "minAvailable",
];

fn words() -> impl Strategy<Value = Value> {
    prop_oneof![
        prop::sample::select(vec![
            "a",
            "A b",
            "",
            "..",
            "10.0.0.1",
            "::1",
            "1Gi",
            "-1",
            "100m",
            "In",
            "Exists",
            "Always",
            "None",
            "NodePort",
            "80%",
            "metadata.labels['a']",
            "2026-01-02T03:04:05Z",
        ])
        .prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
        Just(Value::Null),
    ]
}

fn values() -> impl Strategy<Value = Value> {
    words().prop_recursive(7, 96, 6, |inner| {
        prop_oneof![
            1 => prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            4 => prop::collection::vec((prop::sample::select(NAMES.to_vec()), inner), 0..8)
                .prop_map(|fields| Value::Object(fields.into_iter().map(|(name, value)| (name.to_string(), value)).collect::<Map<_, _>>())),
        ]
    })
}

#[test]
fn every_kind_has_a_cell_a_column() {
    // A binding is never shown.
    for (id, hooks) in builtin().into_iter().filter(|(id, _)| *id != "bindings") {
        let columns = hooks.columns().unwrap_or_default();
        assert_eq!(hooks.cells(&json!({})).len(), columns.len(), "{id}");
        assert!(columns.iter().any(|column| &*column.format == "name"), "{id} has a name column");
    }
}

#[test]
fn every_row_of_the_registry_with_objects_has_hooks() {
    let known: Vec<&str> = builtin().into_iter().map(|(id, _)| id).collect();
    for row in coracle_api::registry::builtin().into_iter().filter(coracle_api::registry::Resource::stored) {
        assert!(known.contains(&row.id().as_str()), "{} has no hooks: it would be stored unchecked", row.id());
    }
}

proptest! {
    #[test]
    fn nothing_drawn_makes_rules_or_cells_panic(old in values(), new in values()) {
        type Rule = fn(Option<&Value>, &Value, &mut Causes);
        let rules: &[Rule] = &[
            config::config_map, config::secret, endpointslice::validate, node::validate, job::validate, workload::deployment, workload::replica_set,
            stateful_set::validate, daemon_set::validate, cron_job::validate, disruption_budget::validate, replication_controller::validate, controller_revision::validate, service::validate::service, simple::lease, simple::runtime_class, simple::priority_class, simple::role, simple::cluster_role,
            |old, new, causes| event::validate(true, old, new, causes),
            |old, new, causes| namespace::validate("finalize", old, new, causes),
            |old, new, causes| rolebinding::validate(true, old, new, causes),
            |_, new, causes| pod::create(new, causes),
            |old, new, causes| if let Some(old) = old { pod::update::validate(old, new, causes) },
            |old, new, causes| if let Some(old) = old { pod::status::validate(old, new, causes) },
        ];
        for rule in rules {
            let mut causes = Vec::new();
            rule(None, &new, &mut causes);
            rule(Some(&old), &new, &mut causes);
        }
        pod::warnings::of_pod(Some(&old), &new);
        for (_, hooks) in builtin() {
            for cell in hooks.cells(&new) {
                if let Value::String(text) = cell {
                    super::age::render(&text, jiff::Timestamp::UNIX_EPOCH);
                }
            }
        }
        prop_assert!(!cells::labels(&new).is_empty());
    }
}
