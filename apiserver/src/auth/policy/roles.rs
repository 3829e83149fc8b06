//! Roles of users, nodes and the system.

use super::{EVENTS, R, READ, READ_WRITE, Role, WRITE, role};
use R::{Named, On, Urls};

const VIEW: &[R] = &[
    On(
        READ,
        "core",
        "configmaps endpoints persistentvolumeclaims persistentvolumeclaims/status pods replicationcontrollers replicationcontrollers/scale serviceaccounts services services/status",
    ),
    On(
        READ,
        "core",
        "bindings limitranges namespaces/status pods/log pods/status replicationcontrollers/status resourcequotas resourcequotas/status",
    ),
    On(READ, "core", "namespaces"),
    On(READ, "core events.k8s.io", "events"),
    On(READ, "discovery.k8s.io", "endpointslices"),
    On(
        READ,
        "apps",
        "controllerrevisions daemonsets daemonsets/status deployments deployments/scale deployments/status replicasets replicasets/scale replicasets/status statefulsets statefulsets/scale statefulsets/status",
    ),
    On(READ, "autoscaling", "horizontalpodautoscalers horizontalpodautoscalers/status"),
    On(READ, "batch", "cronjobs cronjobs/status jobs jobs/status"),
    On(READ, "policy", "poddisruptionbudgets poddisruptionbudgets/status"),
    On(READ, "networking.k8s.io", "ingresses ingresses/status networkpolicies"),
    On(READ, "resource.k8s.io", "resourceclaims resourceclaims/status resourceclaimtemplates"),
];

const EDIT: &[R] = &[
    On(READ, "core", "pods/attach pods/exec pods/portforward pods/proxy secrets services/proxy"),
    On("impersonate", "core", "serviceaccounts"),
    On(WRITE, "core", "pods pods/attach pods/exec pods/portforward pods/proxy"),
    On("create", "core", "pods/eviction"),
    On(
        WRITE,
        "core",
        "configmaps persistentvolumeclaims replicationcontrollers replicationcontrollers/scale secrets serviceaccounts services services/proxy",
    ),
    On("create", "core", "serviceaccounts/token"),
    On(WRITE, "core events.k8s.io", "events"),
    On(WRITE, "apps", "daemonsets deployments deployments/rollback deployments/scale replicasets replicasets/scale statefulsets statefulsets/scale"),
    On(WRITE, "autoscaling", "horizontalpodautoscalers"),
    On(WRITE, "batch", "cronjobs jobs"),
    On(WRITE, "policy", "poddisruptionbudgets"),
    On(WRITE, "networking.k8s.io", "ingresses networkpolicies"),
    On(READ_WRITE, "coordination.k8s.io", "leases"),
    On(WRITE, "resource.k8s.io", "resourceclaims resourceclaimtemplates"),
];

const ADMIN: &[R] =
    &[On("create", "authorization.k8s.io", "localsubjectaccessreviews"), On(READ_WRITE, "rbac.authorization.k8s.io", "rolebindings roles")];

const HEALTH: &str = "/healthz /healthz/* /livez /livez/* /metrics /metrics/slis /readyz /readyz/*";

pub(super) const CLUSTER: &[Role] = &[
    role("cluster-admin", &[On("*", "*", "*"), Urls("*", "*")]),
    role("system:discovery", &[Urls("get", "/api /api/* /apis /apis/* /healthz /livez /openapi /openapi/* /readyz /version /version/")]),
    role("system:monitoring", &[Urls("get", HEALTH), On("get", "core", "nodes/metrics")]),
    role(
        "system:basic-user",
        &[
            On("create", "authorization.k8s.io", "selfsubjectaccessreviews selfsubjectrulesreviews"),
            On("create", "authentication.k8s.io", "selfsubjectreviews"),
        ],
    ),
    // Upstream has /healthz here too; it is deprecated, and what strangers may see is kept to what is needed.
    role("system:public-info-viewer", &[Urls("get", "/livez /readyz /version /version/")]),
    Role { aggregates: true, ..role("admin", &[]) },
    Role { aggregates: true, aggregate_to: &["admin"], ..role("edit", &[]) },
    Role { aggregates: true, aggregate_to: &["edit"], ..role("view", &[]) },
    Role { aggregate_to: &["admin"], ..role("system:aggregate-to-admin", ADMIN) },
    Role { aggregate_to: &["edit"], ..role("system:aggregate-to-edit", EDIT) },
    Role { aggregate_to: &["view"], ..role("system:aggregate-to-view", VIEW) },
    Role { aggregate_to: &["view"], ..role("system:aggregated-metrics-reader", &[On(READ, "metrics.k8s.io", "nodes pods")]) },
    role(
        "system:node",
        &[
            On("create", "authentication.k8s.io", "tokenreviews"),
            On("create", "authorization.k8s.io", "localsubjectaccessreviews subjectaccessreviews"),
            On(READ, "core", "services"),
            On("create get list watch", "core", "nodes"),
            On("patch update", "core", "nodes/status"),
            On("patch update", "core", "nodes"),
            EVENTS,
            On(READ, "core", "pods"),
            On("create delete", "core", "pods"),
            On("patch update", "core", "pods/status"),
            On("create", "core", "pods/eviction"),
            On("get list watch", "core", "configmaps secrets"),
            On("get", "core", "persistentvolumeclaims persistentvolumes"),
            On("get", "core", "endpoints"),
            On("create get list watch", "certificates.k8s.io", "certificatesigningrequests"),
            On("create delete get patch update", "coordination.k8s.io", "leases"),
            On("get", "storage.k8s.io", "volumeattachments"),
            On("create", "core", "serviceaccounts/token"),
            On("get patch update", "core", "persistentvolumeclaims/status"),
            On("get list watch", "storage.k8s.io", "csidrivers"),
            On("create delete get patch update", "storage.k8s.io", "csinodes"),
            On("get list watch", "node.k8s.io", "runtimeclasses"),
            On("get", "resource.k8s.io", "resourceclaims"),
            On("deletecollection", "resource.k8s.io", "resourceslices"),
            On("get", "core", "serviceaccounts"),
        ],
    ),
    role("system:node-problem-detector", &[On("get", "core", "nodes"), On("patch", "core", "nodes/status"), EVENTS]),
    role("system:node-bootstrapper", &[On("create get list watch", "certificates.k8s.io", "certificatesigningrequests")]),
    role(
        "system:auth-delegator",
        &[On("create", "authentication.k8s.io", "tokenreviews"), On("create", "authorization.k8s.io", "subjectaccessreviews")],
    ),
    role("system:kube-aggregator", &[On(READ, "core", "endpoints services")]),
    role(
        "system:kube-controller-manager",
        &[
            EVENTS,
            On("create", "coordination.k8s.io", "leases"),
            Named("get update", "coordination.k8s.io", "leases", "kube-controller-manager"),
            On("create", "core", "secrets serviceaccounts"),
            On("delete", "core", "secrets"),
            On("get", "core", "configmaps namespaces secrets serviceaccounts"),
            On("update", "core", "secrets serviceaccounts"),
            On("create", "authentication.k8s.io", "tokenreviews"),
            On("create", "authorization.k8s.io", "subjectaccessreviews"),
            On("list watch", "*", "*"),
            On("create", "core", "serviceaccounts/token"),
        ],
    ),
    role("system:kube-dns", &[On("list watch", "core", "endpoints services")]),
    role(
        "system:persistent-volume-provisioner",
        &[
            On("create delete get list watch", "core", "persistentvolumes"),
            On("get list update watch", "core", "persistentvolumeclaims"),
            On(READ, "storage.k8s.io", "storageclasses"),
            On("watch", "core", "events"),
            EVENTS,
        ],
    ),
    role(
        "system:volume-scheduler",
        &[
            On("get list patch update watch", "core", "persistentvolumes"),
            On(READ, "storage.k8s.io", "storageclasses"),
            On("get list patch update watch", "core", "persistentvolumeclaims"),
        ],
    ),
    role(
        "system:certificates.k8s.io:certificatesigningrequests:nodeclient",
        &[On("create", "certificates.k8s.io", "certificatesigningrequests/nodeclient")],
    ),
    role(
        "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient",
        &[On("create", "certificates.k8s.io", "certificatesigningrequests/selfnodeclient")],
    ),
    role("system:certificates.k8s.io:legacy-unknown-approver", &[Named("approve", "certificates.k8s.io", "signers", "kubernetes.io/legacy-unknown")]),
    role(
        "system:certificates.k8s.io:kubelet-serving-approver",
        &[Named("approve", "certificates.k8s.io", "signers", "kubernetes.io/kubelet-serving")],
    ),
    role(
        "system:certificates.k8s.io:kube-apiserver-client-approver",
        &[Named("approve", "certificates.k8s.io", "signers", "kubernetes.io/kube-apiserver-client")],
    ),
    role(
        "system:certificates.k8s.io:kube-apiserver-client-kubelet-approver",
        &[Named("approve", "certificates.k8s.io", "signers", "kubernetes.io/kube-apiserver-client-kubelet")],
    ),
    role(
        "system:service-account-issuer-discovery",
        &[Urls("get", "/.well-known/openid-configuration /.well-known/openid-configuration/ /openid/v1/jwks /openid/v1/jwks/")],
    ),
    role(
        "system:kubelet-api-admin",
        &[
            On("get list watch", "core", "nodes"),
            On("proxy", "core", "nodes"),
            On("*", "core", "nodes/configz nodes/healthz nodes/log nodes/metrics nodes/pods nodes/proxy nodes/stats"),
        ],
    ),
    role(
        "system:node-proxier",
        &[
            On("list watch", "core", "endpoints services"),
            On("get list watch", "core", "nodes"),
            EVENTS,
            On("list watch", "networking.k8s.io", "servicecidrs"),
            On("list watch", "discovery.k8s.io", "endpointslices"),
        ],
    ),
    role(
        "system:kube-scheduler",
        &[
            EVENTS,
            On("create", "coordination.k8s.io", "leases"),
            Named("get list update watch", "coordination.k8s.io", "leases", "kube-scheduler"),
            On(READ_WRITE, "coordination.k8s.io", "leasecandidates"),
            On(READ, "core", "nodes"),
            On("delete get list watch", "core", "pods"),
            On("create", "core", "bindings pods/binding"),
            On("patch update", "core", "pods/status"),
            On(READ, "core", "replicationcontrollers services"),
            On(READ, "apps", "replicasets"),
            On(READ, "apps", "statefulsets"),
            On(READ, "policy", "poddisruptionbudgets"),
            On(READ, "core", "persistentvolumeclaims persistentvolumes"),
            On("create", "authentication.k8s.io", "tokenreviews"),
            On("create", "authorization.k8s.io", "subjectaccessreviews"),
            On(READ, "storage.k8s.io", "csidrivers csinodes csistoragecapacities volumeattachments"),
            On(READ, "core", "namespaces"),
            On(READ, "resource.k8s.io", "deviceclasses resourceslices"),
            On("get list patch update watch", "resource.k8s.io", "resourceclaims resourceclaims/status"),
            On("update", "core", "pods/finalizers"),
            On("create delete", "resource.k8s.io", "resourceclaims"),
            On("patch update", "resource.k8s.io", "resourceclaims/binding"),
        ],
    ),
];

/// (role and binding, subjects): a bare name is a service account of `kube-system`.
pub(super) const CLUSTER_BINDINGS: &[(&str, &[&str])] = &[
    ("cluster-admin", &["group:system:masters"]),
    ("system:monitoring", &["group:system:monitoring"]),
    ("system:discovery", &["group:system:authenticated"]),
    ("system:basic-user", &["group:system:authenticated"]),
    ("system:public-info-viewer", &["group:system:authenticated", "group:system:unauthenticated"]),
    ("system:node-proxier", &["user:system:kube-proxy"]),
    ("system:kube-controller-manager", &["user:system:kube-controller-manager"]),
    ("system:kube-dns", &["kube-dns"]),
    ("system:kube-scheduler", &["user:system:kube-scheduler"]),
    ("system:volume-scheduler", &["user:system:kube-scheduler"]),
    // Without subjects: nodes get their rights from the node authorizer.
    ("system:node", &[]),
    ("system:service-account-issuer-discovery", &["group:system:serviceaccounts"]),
];

const LEADER: &[R] = &[On("create get list update watch", "coordination.k8s.io", "leases leasecandidates")];

/// (namespace, name, rules)
pub(super) const NAMESPACED: &[(&str, &str, &[R])] = &[
    ("kube-system", "extension-apiserver-authentication-reader", &[Named(READ, "core", "configmaps", "extension-apiserver-authentication")]),
    ("kube-system", "system:controller:bootstrap-signer", &[On(READ, "core", "secrets")]),
    ("kube-system", "system:controller:cloud-provider", &[On("create get list watch", "core", "configmaps")]),
    ("kube-system", "system:controller:token-cleaner", &[On("delete get list watch", "core", "secrets"), EVENTS]),
    ("kube-system", "system::leader-locking-kube-controller-manager", LEADER),
    ("kube-system", "system::leader-locking-kube-scheduler", LEADER),
    (
        "kube-public",
        "system:controller:bootstrap-signer",
        &[On(READ, "core", "configmaps"), Named("update", "core", "configmaps", "cluster-info"), EVENTS],
    ),
];

/// (namespace, name, role, subjects)
pub(super) const NAMESPACED_BINDINGS: &[(&str, &str, &str, &[&str])] = &[
    (
        "kube-system",
        "system::extension-apiserver-authentication-reader",
        "extension-apiserver-authentication-reader",
        &["user:system:kube-controller-manager", "user:system:kube-scheduler"],
    ),
    (
        "kube-system",
        "system::leader-locking-kube-controller-manager",
        "system::leader-locking-kube-controller-manager",
        &["user:system:kube-controller-manager", "kube-controller-manager", "leader-election-controller"],
    ),
    (
        "kube-system",
        "system::leader-locking-kube-scheduler",
        "system::leader-locking-kube-scheduler",
        &["user:system:kube-scheduler", "kube-scheduler"],
    ),
    ("kube-system", "system:controller:bootstrap-signer", "system:controller:bootstrap-signer", &["bootstrap-signer"]),
    ("kube-system", "system:controller:cloud-provider", "system:controller:cloud-provider", &["cloud-provider"]),
    ("kube-system", "system:controller:token-cleaner", "system:controller:token-cleaner", &["token-cleaner"]),
    ("kube-public", "system:controller:bootstrap-signer", "system:controller:bootstrap-signer", &["bootstrap-signer"]),
];
