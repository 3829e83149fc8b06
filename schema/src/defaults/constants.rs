//! Constant defaults by type. Where a `SetDefaults_*` of a kind reaches into its spec, the row stands at the spec's type if that type
//! occurs nowhere else.

use super::Plain::{self, Empty, Flag, Number, Text};

type Row = (&'static str, &'static [(&'static str, Plain)]);

/// Sorted by type.
static TABLE: &[Row] = &[
    ("admissionregistration.v1.MatchResources", &[("matchPolicy", Text("Equivalent")), ("namespaceSelector", Empty), ("objectSelector", Empty)]),
    ("admissionregistration.v1.MutatingAdmissionPolicySpec", &[("failurePolicy", Text("Fail"))]),
    (
        "admissionregistration.v1.MutatingWebhook",
        &[
            ("failurePolicy", Text("Fail")),
            ("matchPolicy", Text("Equivalent")),
            ("namespaceSelector", Empty),
            ("objectSelector", Empty),
            ("reinvocationPolicy", Text("Never")),
            ("timeoutSeconds", Number(10)),
        ],
    ),
    ("admissionregistration.v1.RuleWithOperations", &[("scope", Text("*"))]),
    ("admissionregistration.v1.ServiceReference", &[("port", Number(443))]),
    ("admissionregistration.v1.ValidatingAdmissionPolicySpec", &[("failurePolicy", Text("Fail"))]),
    (
        "admissionregistration.v1.ValidatingWebhook",
        &[
            ("failurePolicy", Text("Fail")),
            ("matchPolicy", Text("Equivalent")),
            ("namespaceSelector", Empty),
            ("objectSelector", Empty),
            ("timeoutSeconds", Number(10)),
        ],
    ),
    ("apiextensions.v1.ServiceReference", &[("port", Number(443))]),
    ("apiregistration.v1.ServiceReference", &[("port", Number(443))]),
    ("apps.v1.DaemonSetSpec", &[("revisionHistoryLimit", Number(10))]),
    ("apps.v1.DeploymentSpec", &[("progressDeadlineSeconds", Number(600)), ("replicas", Number(1)), ("revisionHistoryLimit", Number(10))]),
    ("apps.v1.ReplicaSetSpec", &[("replicas", Number(1))]),
    ("apps.v1.StatefulSetPersistentVolumeClaimRetentionPolicy", &[("whenDeleted", Text("Retain")), ("whenScaled", Text("Retain"))]),
    (
        "apps.v1.StatefulSetSpec",
        &[
            ("persistentVolumeClaimRetentionPolicy", Empty),
            ("podManagementPolicy", Text("OrderedReady")),
            ("replicas", Number(1)),
            ("revisionHistoryLimit", Number(10)),
        ],
    ),
    ("authentication.v1.TokenRequestSpec", &[("expirationSeconds", Number(3600))]),
    ("autoscaling.v1.HorizontalPodAutoscalerSpec", &[("minReplicas", Number(1))]),
    ("autoscaling.v2.HorizontalPodAutoscalerSpec", &[("minReplicas", Number(1))]),
    (
        "batch.v1.CronJobSpec",
        &[
            ("concurrencyPolicy", Text("Allow")),
            ("failedJobsHistoryLimit", Number(1)),
            ("successfulJobsHistoryLimit", Number(3)),
            ("suspend", Flag(false)),
        ],
    ),
    ("batch.v1.PodFailurePolicyOnPodConditionsPattern", &[("status", Text("True"))]),
    ("core.v1.ConfigMapVolumeSource", &[("defaultMode", Number(0o644))]),
    ("core.v1.Container", &[("terminationMessagePath", Text("/dev/termination-log")), ("terminationMessagePolicy", Text("File"))]),
    ("core.v1.DownwardAPIVolumeSource", &[("defaultMode", Number(0o644))]),
    ("core.v1.EndpointPort", &[("protocol", Text("TCP"))]),
    ("core.v1.EphemeralContainer", &[("terminationMessagePath", Text("/dev/termination-log")), ("terminationMessagePolicy", Text("File"))]),
    ("core.v1.HTTPGetAction", &[("path", Text("/")), ("scheme", Text("HTTP"))]),
    ("core.v1.HostPathVolumeSource", &[("type", Text(""))]),
    ("core.v1.NamespaceStatus", &[("phase", Text("Active"))]),
    ("core.v1.ObjectFieldSelector", &[("apiVersion", Text("v1"))]),
    ("core.v1.PersistentVolumeClaimSpec", &[("volumeMode", Text("Filesystem"))]),
    ("core.v1.PersistentVolumeSpec", &[("persistentVolumeReclaimPolicy", Text("Retain")), ("volumeMode", Text("Filesystem"))]),
    ("core.v1.PersistentVolumeStatus", &[("phase", Text("Pending"))]),
    (
        "core.v1.PodSpec",
        &[
            ("dnsPolicy", Text("ClusterFirst")),
            ("restartPolicy", Text("Always")),
            ("schedulerName", Text("default-scheduler")),
            ("securityContext", Empty),
            ("terminationGracePeriodSeconds", Number(30)),
        ],
    ),
    (
        "core.v1.Probe",
        &[("failureThreshold", Number(3)), ("periodSeconds", Number(10)), ("successThreshold", Number(1)), ("timeoutSeconds", Number(1))],
    ),
    ("core.v1.ProjectedVolumeSource", &[("defaultMode", Number(0o644))]),
    ("core.v1.Secret", &[("type", Text("Opaque"))]),
    ("core.v1.SecretVolumeSource", &[("defaultMode", Number(0o644))]),
    ("core.v1.ServiceAccountTokenProjection", &[("expirationSeconds", Number(3600))]),
    ("core.v1.ServicePort", &[("protocol", Text("TCP"))]),
    ("core.v1.ServiceSpec", &[("sessionAffinity", Text("None")), ("type", Text("ClusterIP"))]),
    ("discovery.v1.EndpointPort", &[("name", Text("")), ("protocol", Text("TCP"))]),
    ("flowcontrol.v1.ExemptPriorityLevelConfiguration", &[("lendablePercent", Number(0)), ("nominalConcurrencyShares", Number(0))]),
    ("flowcontrol.v1.FlowSchemaSpec", &[("matchingPrecedence", Number(1000))]),
    ("flowcontrol.v1.LimitedPriorityLevelConfiguration", &[("lendablePercent", Number(0)), ("nominalConcurrencyShares", Number(30))]),
    ("flowcontrol.v1.QueuingConfiguration", &[("handSize", Number(8)), ("queueLengthLimit", Number(50)), ("queues", Number(64))]),
    ("networking.v1.IngressClassParametersReference", &[("scope", Text("Cluster"))]),
    ("networking.v1.NetworkPolicyPort", &[("protocol", Text("TCP"))]),
    ("rbac.v1.RoleRef", &[("apiGroup", Text("rbac.authorization.k8s.io"))]),
    ("scheduling.v1.PriorityClass", &[("preemptionPolicy", Text("PreemptLowerPriority"))]),
    (
        "storage.v1.CSIDriverSpec",
        &[
            ("attachRequired", Flag(true)),
            ("fsGroupPolicy", Text("ReadWriteOnceWithFSType")),
            ("podInfoOnMount", Flag(false)),
            ("requiresRepublish", Flag(false)),
            ("seLinuxMount", Flag(false)),
            ("storageCapacity", Flag(false)),
        ],
    ),
    ("storage.v1.StorageClass", &[("reclaimPolicy", Text("Delete")), ("volumeBindingMode", Text("Immediate"))]),
];

/// The rows of a type.
pub(super) fn of(name: &str) -> &'static [(&'static str, Plain)] {
    TABLE.binary_search_by(|row| row.0.cmp(name)).ok().and_then(|at| TABLE.get(at)).map_or(&[], |row| row.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_names_a_field_that_exists() {
        assert!(TABLE.is_sorted_by_key(|row| row.0));
        for (name, fields) in TABLE {
            let ty = crate::facts::named(name).unwrap_or_else(|| panic!("no type {name}"));
            for (field, _) in *fields {
                assert!(ty.field(field).is_some(), "{name}.{field}");
            }
        }
    }
}
