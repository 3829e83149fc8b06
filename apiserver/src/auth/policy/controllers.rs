//! Roles of controllers, each bound to the service account of its name in `kube-system`.

use super::{EVENTS, R};
use R::{Named, On};

const READ: &str = super::READ;
/// Whose certificates the cluster's CA signs.
const SIGNERS: &str = "kubernetes.io/kube-apiserver-client kubernetes.io/kube-apiserver-client-kubelet kubernetes.io/kubelet-serving \
                       kubernetes.io/legacy-unknown";
const CHANGE: &str = "get list patch update watch";

/// (name, rules); the role is `system:controller:NAME`.
pub(super) const ROLES: &[(&str, &[R])] = &[
    ("clusterrole-aggregation-controller", &[On("escalate get list patch update watch", "rbac.authorization.k8s.io", "clusterroles")]),
    (
        "cronjob-controller",
        &[
            On(CHANGE, "batch", "cronjobs"),
            On("create delete get list patch update watch", "batch", "jobs"),
            On("patch update", "batch", "cronjobs/finalizers cronjobs/status"),
            On("delete list watch", "core", "pods"),
            EVENTS,
        ],
    ),
    (
        "daemon-set-controller",
        &[
            On(READ, "apps", "daemonsets"),
            On("patch update", "apps", "daemonsets/finalizers daemonsets/status"),
            On("list watch", "core", "nodes"),
            On("create delete list patch watch", "core", "pods"),
            On("create", "core", "pods/binding"),
            On("create delete get list patch update watch", "apps", "controllerrevisions"),
            EVENTS,
        ],
    ),
    (
        "deployment-controller",
        &[
            On(CHANGE, "apps", "deployments"),
            On("patch update", "apps", "deployments/finalizers deployments/status"),
            On("create delete get list patch update watch", "apps", "replicasets"),
            On("get list update watch", "core", "pods"),
            EVENTS,
        ],
    ),
    (
        "disruption-controller",
        &[
            On(READ, "apps", "deployments replicasets statefulsets"),
            On(READ, "core", "pods replicationcontrollers"),
            On(READ, "policy", "poddisruptionbudgets"),
            On("patch update", "policy", "poddisruptionbudgets/status"),
            On("patch update", "core", "pods/status"),
            On("get", "*", "*/scale"),
            EVENTS,
        ],
    ),
    (
        "endpoint-controller",
        &[
            On(READ, "core", "pods services"),
            On("create delete get list patch update watch", "core", "endpoints"),
            On("create", "core", "endpoints/restricted"),
            EVENTS,
        ],
    ),
    (
        "endpointslice-controller",
        &[
            On(READ, "core", "nodes pods services"),
            On("update", "core", "services/finalizers"),
            On("create delete get list patch update watch", "discovery.k8s.io", "endpointslices"),
            On("create", "discovery.k8s.io", "endpointslices/restricted"),
            EVENTS,
        ],
    ),
    (
        "endpointslicemirroring-controller",
        &[
            On(READ, "core", "endpoints services"),
            On("update", "core", "endpoints/finalizers services/finalizers"),
            On("create delete get list patch update watch", "discovery.k8s.io", "endpointslices"),
            On("create", "discovery.k8s.io", "endpointslices/restricted"),
            EVENTS,
        ],
    ),
    (
        "certificate-controller",
        &[
            On("delete get list watch", "certificates.k8s.io", "certificatesigningrequests"),
            On("patch update", "certificates.k8s.io", "certificatesigningrequests/approval certificatesigningrequests/status"),
            Named("approve", "certificates.k8s.io", "signers", "kubernetes.io/kube-apiserver-client-kubelet"),
            Named("sign", "certificates.k8s.io", "signers", SIGNERS),
            On("create", "authorization.k8s.io", "subjectaccessreviews"),
            EVENTS,
        ],
    ),
    (
        "ephemeral-volume-controller",
        &[On(READ, "core", "pods"), On("update", "core", "pods/finalizers"), On("create get list watch", "core", "persistentvolumeclaims"), EVENTS],
    ),
    ("generic-garbage-collector", &[On("delete get list patch update watch", "*", "*"), EVENTS]),
    (
        "horizontal-pod-autoscaler",
        &[
            On(READ, "autoscaling", "horizontalpodautoscalers"),
            On("patch update", "autoscaling", "horizontalpodautoscalers/status"),
            On("get patch update", "*", "*/scale"),
            On("list watch", "core", "pods"),
            On("list watch", "metrics.k8s.io", "pods"),
            On("get list", "custom.metrics.k8s.io", "*"),
            On("get list", "external.metrics.k8s.io", "*"),
            EVENTS,
        ],
    ),
    (
        "job-controller",
        &[
            On(CHANGE, "batch", "jobs"),
            On("patch update", "batch", "jobs/finalizers jobs/status"),
            On("create delete get list patch watch", "core", "pods"),
            EVENTS,
        ],
    ),
    (
        "namespace-controller",
        &[
            On("delete get list watch", "core", "namespaces"),
            On("patch update", "core", "namespaces/finalize namespaces/status"),
            On("delete deletecollection get list watch", "*", "*"),
            EVENTS,
        ],
    ),
    (
        "node-controller",
        &[
            On("delete get list patch update watch", "core", "nodes"),
            On("patch update", "core", "nodes/status"),
            On("patch update", "core", "pods/status"),
            On("delete get list watch", "core", "pods"),
            On(READ, "coordination.k8s.io", "leases"),
            EVENTS,
        ],
    ),
    (
        "pod-garbage-collector",
        &[On("delete list watch", "core", "pods"), On(READ, "core", "nodes"), On("patch update", "core", "pods/status"), EVENTS],
    ),
    ("pv-protection-controller", &[On(CHANGE, "core", "persistentvolumes"), EVENTS]),
    (
        "pvc-protection-controller",
        &[
            On(CHANGE, "core", "persistentvolumeclaims"),
            On("patch update", "core", "persistentvolumeclaims/status"),
            On(READ, "core", "pods"),
            EVENTS,
        ],
    ),
    (
        "replicaset-controller",
        &[
            On(CHANGE, "apps", "replicasets"),
            On("patch update", "apps", "replicasets/finalizers replicasets/status"),
            On("create delete get list patch watch", "core", "pods"),
            EVENTS,
        ],
    ),
    (
        "replication-controller",
        &[
            On(CHANGE, "core", "replicationcontrollers"),
            On("patch update", "core", "replicationcontrollers/finalizers replicationcontrollers/status"),
            On("create delete get list patch watch", "core", "pods"),
            EVENTS,
        ],
    ),
    ("resourcequota-controller", &[On("list watch", "*", "*"), On("patch update", "core", "resourcequotas/status"), EVENTS]),
    ("root-ca-cert-publisher", &[On("create patch update", "core", "configmaps"), EVENTS]),
    ("service-account-controller", &[On("create", "core", "serviceaccounts"), EVENTS]),
    (
        "resource-claim-controller",
        &[
            On(READ, "core", "pods"),
            On("patch update", "core", "pods/status"),
            On("create delete get list patch update watch", "resource.k8s.io", "resourceclaims"),
            On(READ, "resource.k8s.io", "resourceclaimtemplates"),
            On("patch update", "resource.k8s.io", "resourceclaims/binding resourceclaims/status"),
            EVENTS,
        ],
    ),
    (
        "service-cidrs-controller",
        &[
            On(CHANGE, "networking.k8s.io", "servicecidrs"),
            On("patch update", "networking.k8s.io", "servicecidrs/finalizers servicecidrs/status"),
            On(READ, "networking.k8s.io", "ipaddresses"),
            EVENTS,
        ],
    ),
    (
        "statefulset-controller",
        &[
            On("list watch", "core", "pods"),
            On(READ, "apps", "statefulsets"),
            On("patch update", "apps", "statefulsets/finalizers statefulsets/status"),
            On("create delete get patch update", "core", "pods"),
            On("create delete get list patch update watch", "apps", "controllerrevisions"),
            On("create delete get list patch update watch", "core", "persistentvolumeclaims"),
            EVENTS,
        ],
    ),
    ("ttl-after-finished-controller", &[On("delete get list watch", "batch", "jobs"), EVENTS]),
    (
        "volumeattributesclass-protection-controller",
        &[On(READ, "core", "persistentvolumeclaims persistentvolumes"), On(CHANGE, "storage.k8s.io", "volumeattributesclasses"), EVENTS],
    ),
    ("ttl-controller", &[On("list patch update watch", "core", "nodes"), EVENTS]),
];
