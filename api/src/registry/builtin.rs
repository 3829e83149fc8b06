//! The built-in kinds, one line each.
//!
//! A table rather than one constructor per kind: what is not in a row (schema, columns, validation) lives with the schema and in `apiserver/resources`.

use super::{Resource, ScalePaths, Scope, Subresource};

const ALL: &[&str] = &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
const NO_COLLECTION: &[&str] = &["create", "delete", "get", "list", "patch", "update", "watch"];
const CREATE: &[&str] = &["create"];
const READ: &[&str] = &["get", "list"];
/// Of subresources that are parts of the object itself.
const STORED: &[&str] = &["get", "patch", "update"];
const STATUS: Sub = ("status", None, STORED);
const SCALE: Sub = ("scale", Some(("autoscaling", "v1", "Scale")), STORED);

/// (name, kind if not the row's own, verbs)
type Sub = (&'static str, Option<(&'static str, &'static str, &'static str)>, &'static [&'static str]);

#[derive(Clone, Copy)]
struct Row {
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    plural: &'static str,
    /// The kind in lower case, if empty.
    singular: &'static str,
    short: &'static [&'static str],
    categories: &'static [&'static str],
    scope: Scope,
    verbs: &'static [&'static str],
    subs: &'static [Sub],
    /// `path`, or `label=path`, or `label=path|path if that is empty`, or `label=path?value when absent`.
    selectable: &'static [&'static str],
    generation: bool,
    /// Group and version of the stored form, if this is another one.
    stored_as: Option<(&'static str, &'static str)>,
    /// Since when and for what, after `v1 Kind is deprecated in `; empty if it is not.
    deprecated: &'static str,
}

const fn row(group: &'static str, version: &'static str, kind: &'static str, plural: &'static str) -> Row {
    Row {
        group,
        version,
        kind,
        plural,
        singular: "",
        short: &[],
        categories: &[],
        scope: Scope::Namespaced,
        verbs: ALL,
        subs: &[],
        selectable: &[],
        generation: false,
        stored_as: None,
        deprecated: "",
    }
}

const fn cluster(group: &'static str, version: &'static str, kind: &'static str, plural: &'static str) -> Row {
    Row { scope: Scope::Cluster, ..row(group, version, kind, plural) }
}

const EVENT_FIELDS: &[&str] = &[
    "involvedObject.kind",
    "involvedObject.namespace",
    "involvedObject.name",
    "involvedObject.uid",
    "involvedObject.apiVersion",
    "involvedObject.resourceVersion",
    "involvedObject.fieldPath",
    "reason",
    "reportingComponent",
    "source=source.component|reportingComponent",
    "type",
];

/// The same in the newer form.
const NEWER_EVENT_FIELDS: &[&str] = &[
    "reason",
    "regarding.kind",
    "regarding.namespace",
    "regarding.name",
    "regarding.uid",
    "regarding.apiVersion",
    "regarding.resourceVersion",
    "regarding.fieldPath",
    "reportingController",
    "type",
];

const POD_FIELDS: &[&str] = &[
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "spec.hostNetwork=spec.hostNetwork?false",
    "status.phase",
    "status.podIP",
    "status.nominatedNodeName",
];

/// What a stream is asked for with: GET for WebSockets, POST for SPDY.
const CONNECT: &[&str] = &["create", "get"];
const PROXY: &[&str] = &["create", "delete", "get", "patch", "update"];

const ROWS: &[Row] = &[
    // core
    Row { verbs: CREATE, ..row("", "v1", "Binding", "bindings") },
    Row {
        short: &["cs"],
        verbs: READ,
        singular: "componentstatus",
        deprecated: "v1.19+",
        ..cluster("", "v1", "ComponentStatus", "componentstatuses")
    },
    Row { short: &["cm"], ..row("", "v1", "ConfigMap", "configmaps") },
    Row { short: &["ep"], deprecated: "v1.33+; use discovery.k8s.io/v1 EndpointSlice", ..row("", "v1", "Endpoints", "endpoints") },
    Row { short: &["ev"], selectable: EVENT_FIELDS, ..row("", "v1", "Event", "events") },
    Row { short: &["limits"], ..row("", "v1", "LimitRange", "limitranges") },
    Row {
        short: &["ns"],
        verbs: NO_COLLECTION,
        subs: &[("finalize", None, &["update"]), STATUS],
        selectable: &["status.phase"],
        ..cluster("", "v1", "Namespace", "namespaces")
    },
    Row {
        short: &["no"],
        subs: &[("proxy", Some(("", "v1", "NodeProxyOptions")), PROXY), STATUS],
        selectable: &["spec.unschedulable=spec.unschedulable?false"],
        ..cluster("", "v1", "Node", "nodes")
    },
    Row { short: &["pvc"], subs: &[STATUS], ..row("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims") },
    Row { short: &["pv"], subs: &[STATUS], ..cluster("", "v1", "PersistentVolume", "persistentvolumes") },
    Row {
        short: &["po"],
        categories: &["all"],
        subs: &[
            ("attach", Some(("", "v1", "PodAttachOptions")), CONNECT),
            ("binding", Some(("", "v1", "Binding")), &["create"]),
            ("ephemeralcontainers", None, STORED),
            ("eviction", Some(("policy", "v1", "Eviction")), &["create"]),
            ("exec", Some(("", "v1", "PodExecOptions")), CONNECT),
            ("log", None, &["get"]),
            ("portforward", Some(("", "v1", "PodPortForwardOptions")), CONNECT),
            ("proxy", Some(("", "v1", "PodProxyOptions")), PROXY),
            ("resize", None, STORED),
            STATUS,
        ],
        selectable: POD_FIELDS,
        generation: true,
        ..row("", "v1", "Pod", "pods")
    },
    Row { generation: true, ..row("", "v1", "PodTemplate", "podtemplates") },
    Row {
        short: &["rc"],
        categories: &["all"],
        subs: &[SCALE, STATUS],
        selectable: &["status.replicas=status.replicas?0"],
        generation: true,
        ..row("", "v1", "ReplicationController", "replicationcontrollers")
    },
    Row { short: &["quota"], subs: &[STATUS], ..row("", "v1", "ResourceQuota", "resourcequotas") },
    Row { selectable: &["type"], ..row("", "v1", "Secret", "secrets") },
    Row {
        short: &["sa"],
        subs: &[("token", Some(("authentication.k8s.io", "v1", "TokenRequest")), &["create"])],
        ..row("", "v1", "ServiceAccount", "serviceaccounts")
    },
    Row {
        short: &["svc"],
        categories: &["all"],
        subs: &[("proxy", Some(("", "v1", "ServiceProxyOptions")), PROXY), STATUS],
        selectable: &["spec.clusterIP", "spec.type"],
        ..row("", "v1", "Service", "services")
    },
    // admissionregistration
    Row { generation: true, ..cluster("admissionregistration.k8s.io", "v1", "MutatingAdmissionPolicy", "mutatingadmissionpolicies") },
    Row { generation: true, ..cluster("admissionregistration.k8s.io", "v1", "MutatingAdmissionPolicyBinding", "mutatingadmissionpolicybindings") },
    Row {
        subs: &[STATUS],
        generation: true,
        ..cluster("admissionregistration.k8s.io", "v1", "ValidatingAdmissionPolicy", "validatingadmissionpolicies")
    },
    Row {
        generation: true,
        ..cluster("admissionregistration.k8s.io", "v1", "ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings")
    },
    // custom resources
    Row {
        short: &["crd", "crds"],
        categories: &["api-extensions"],
        subs: &[STATUS],
        generation: true,
        ..cluster("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions")
    },
    // admission
    Row {
        categories: &["api-extensions"],
        generation: true,
        ..cluster("admissionregistration.k8s.io", "v1", "MutatingWebhookConfiguration", "mutatingwebhookconfigurations")
    },
    Row {
        categories: &["api-extensions"],
        generation: true,
        ..cluster("admissionregistration.k8s.io", "v1", "ValidatingWebhookConfiguration", "validatingwebhookconfigurations")
    },
    Row { categories: &["api-extensions"], subs: &[STATUS], ..cluster("apiregistration.k8s.io", "v1", "APIService", "apiservices") },
    // apps
    row("apps", "v1", "ControllerRevision", "controllerrevisions"),
    Row { short: &["ds"], categories: &["all"], subs: &[STATUS], generation: true, ..row("apps", "v1", "DaemonSet", "daemonsets") },
    Row { short: &["deploy"], categories: &["all"], subs: &[SCALE, STATUS], generation: true, ..row("apps", "v1", "Deployment", "deployments") },
    Row {
        short: &["rs"],
        categories: &["all"],
        subs: &[SCALE, STATUS],
        selectable: &["status.replicas=status.replicas?0"],
        generation: true,
        ..row("apps", "v1", "ReplicaSet", "replicasets")
    },
    Row { short: &["sts"], categories: &["all"], subs: &[SCALE, STATUS], generation: true, ..row("apps", "v1", "StatefulSet", "statefulsets") },
    // reviews
    Row { verbs: CREATE, ..cluster("authentication.k8s.io", "v1", "SelfSubjectReview", "selfsubjectreviews") },
    Row { verbs: CREATE, ..cluster("authentication.k8s.io", "v1", "TokenReview", "tokenreviews") },
    Row { verbs: CREATE, ..row("authorization.k8s.io", "v1", "LocalSubjectAccessReview", "localsubjectaccessreviews") },
    Row { verbs: CREATE, ..cluster("authorization.k8s.io", "v1", "SelfSubjectAccessReview", "selfsubjectaccessreviews") },
    Row { verbs: CREATE, ..cluster("authorization.k8s.io", "v1", "SelfSubjectRulesReview", "selfsubjectrulesreviews") },
    Row { verbs: CREATE, ..cluster("authorization.k8s.io", "v1", "SubjectAccessReview", "subjectaccessreviews") },
    Row { short: &["hpa"], categories: &["all"], subs: &[STATUS], ..row("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers") },
    Row {
        short: &["hpa"],
        categories: &["all"],
        subs: &[STATUS],
        stored_as: Some(("autoscaling", "v2")),
        ..row("autoscaling", "v1", "HorizontalPodAutoscaler", "horizontalpodautoscalers")
    },
    // batch
    Row { short: &["cj"], categories: &["all"], subs: &[STATUS], generation: true, ..row("batch", "v1", "CronJob", "cronjobs") },
    Row {
        categories: &["all"],
        subs: &[STATUS],
        selectable: &["status.successful=status.succeeded?0"],
        generation: true,
        ..row("batch", "v1", "Job", "jobs")
    },
    // the rest
    Row {
        short: &["csr"],
        subs: &[("approval", None, STORED), STATUS],
        selectable: &["spec.signerName"],
        ..cluster("certificates.k8s.io", "v1", "CertificateSigningRequest", "certificatesigningrequests")
    },
    row("coordination.k8s.io", "v1", "Lease", "leases"),
    Row { generation: true, ..row("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices") },
    Row { short: &["ev"], selectable: NEWER_EVENT_FIELDS, stored_as: Some(("", "v1")), ..row("events.k8s.io", "v1", "Event", "events") },
    Row { subs: &[STATUS], generation: true, ..cluster("flowcontrol.apiserver.k8s.io", "v1", "FlowSchema", "flowschemas") },
    Row {
        subs: &[STATUS],
        generation: true,
        ..cluster("flowcontrol.apiserver.k8s.io", "v1", "PriorityLevelConfiguration", "prioritylevelconfigurations")
    },
    Row { verbs: READ, ..cluster("metrics.k8s.io", "v1beta1", "NodeMetrics", "nodes") },
    Row { verbs: READ, ..row("metrics.k8s.io", "v1beta1", "PodMetrics", "pods") },
    Row { generation: true, ..cluster("networking.k8s.io", "v1", "IngressClass", "ingressclasses") },
    Row { short: &["ing"], subs: &[STATUS], generation: true, ..row("networking.k8s.io", "v1", "Ingress", "ingresses") },
    Row { short: &["ip"], ..cluster("networking.k8s.io", "v1", "IPAddress", "ipaddresses") },
    Row { short: &["netpol"], generation: true, ..row("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies") },
    Row { subs: &[STATUS], ..cluster("networking.k8s.io", "v1", "ServiceCIDR", "servicecidrs") },
    cluster("node.k8s.io", "v1", "RuntimeClass", "runtimeclasses"),
    Row { short: &["pdb"], subs: &[STATUS], generation: true, ..row("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets") },
    cluster("rbac.authorization.k8s.io", "v1", "ClusterRole", "clusterroles"),
    cluster("rbac.authorization.k8s.io", "v1", "ClusterRoleBinding", "clusterrolebindings"),
    row("rbac.authorization.k8s.io", "v1", "Role", "roles"),
    row("rbac.authorization.k8s.io", "v1", "RoleBinding", "rolebindings"),
    Row { generation: true, ..cluster("resource.k8s.io", "v1", "DeviceClass", "deviceclasses") },
    Row { subs: &[STATUS], ..row("resource.k8s.io", "v1", "ResourceClaim", "resourceclaims") },
    row("resource.k8s.io", "v1", "ResourceClaimTemplate", "resourceclaimtemplates"),
    Row { selectable: &["spec.driver", "spec.nodeName"], generation: true, ..cluster("resource.k8s.io", "v1", "ResourceSlice", "resourceslices") },
    Row { short: &["pc"], generation: true, ..cluster("scheduling.k8s.io", "v1", "PriorityClass", "priorityclasses") },
    cluster("storage.k8s.io", "v1", "CSIDriver", "csidrivers"),
    cluster("storage.k8s.io", "v1", "CSINode", "csinodes"),
    row("storage.k8s.io", "v1", "CSIStorageCapacity", "csistoragecapacities"),
    Row { short: &["sc"], ..cluster("storage.k8s.io", "v1", "StorageClass", "storageclasses") },
    Row { subs: &[STATUS], ..cluster("storage.k8s.io", "v1", "VolumeAttachment", "volumeattachments") },
    Row { short: &["vac"], ..cluster("storage.k8s.io", "v1", "VolumeAttributesClass", "volumeattributesclasses") },
];

fn boxed(list: &[&str]) -> Vec<Box<str>> {
    list.iter().map(|&s| s.into()).collect()
}

/// The built-in rows in discovery's order: core first, groups by name.
pub fn builtin() -> Vec<Resource> {
    ROWS.iter()
        .map(|row| Resource {
            group: row.group.into(),
            version: row.version.into(),
            kind: row.kind.into(),
            list_kind: format!("{}List", row.kind).into(),
            plural: row.plural.into(),
            singular: if row.singular.is_empty() { row.kind.to_ascii_lowercase().into() } else { row.singular.into() },
            short_names: boxed(row.short),
            categories: boxed(row.categories),
            scope: row.scope,
            verbs: boxed(row.verbs),
            subresources: row
                .subs
                .iter()
                .map(|(name, kind, verbs)| {
                    let (group, version, kind) = kind.unwrap_or((row.group, row.version, row.kind));
                    Subresource { name: (*name).into(), gvk: (group.into(), version.into(), kind.into()), verbs: boxed(verbs) }
                })
                .collect(),
            selectable: boxed(row.selectable),
            columns: Vec::new(),
            generation: row.generation,
            scale: row.subs.iter().any(|(name, ..)| *name == "scale").then(|| ScalePaths {
                spec: "spec.replicas".into(),
                status: "status.replicas".into(),
                selector: Some("spec.selector".into()),
            }),
            stored_as: row.stored_as.map(|(group, version)| (group.into(), version.into())),
            deprecation: (!row.deprecated.is_empty()).then(|| {
                let slash = if row.group.is_empty() { "" } else { "/" };
                format!("{}{slash}{} {} is deprecated in {}", row.group, row.version, row.kind, row.deprecated).into()
            }),
            custom: None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::{Custom, Registry, Resource};
    use std::sync::Arc;

    #[test]
    fn rows_are_found_by_each_of_their_keys() {
        let registry = Registry::builtin();
        let row = registry.by_path("apps", "v1", "deployments").expect("deployments");
        assert_eq!(row.id(), "deployments.apps");
        assert_eq!(row.api_version(), "apps/v1");
        assert_eq!(registry.by_id("deployments.apps").expect("by id").kind, row.kind);
        assert_eq!(registry.by_kind("", "v1", "Pod").expect("by kind").plural, "pods".into());
        assert!(registry.by_path("apps", "v2", "deployments").is_none());
        assert_eq!(registry.groups()[0], (String::new(), vec!["v1".to_string()]));
    }

    fn custom(group: &str, version: &str, storage: bool) -> Resource {
        let mut row = super::builtin().into_iter().find(|row| &*row.kind == "ConfigMap").expect("config maps");
        (row.group, row.version) = (group.into(), version.into());
        let definition = row.id().into();
        row.custom = Some(Custom { definition, revision: 1, storage, served: true, terminating: false, kind: Arc::new(()) });
        row
    }

    #[test]
    fn custom_rows_come_and_go_for_every_clone() {
        let registry = Registry::builtin();
        let other = registry.clone();
        let (rows, kinds) = (registry.all().len(), registry.kinds().len());
        let id = "configmaps.example.com";
        registry.replace(id, vec![custom("example.com", "v1beta1", true), custom("example.com", "v1", false)]);
        assert_eq!(&*other.by_id(id).expect("by id").version, "v1beta1", "controllers see the version that is stored");
        assert_eq!(other.groups().last(), Some(&("example.com".to_string(), vec!["v1".to_string(), "v1beta1".to_string()])));
        assert_eq!((other.all().len(), other.kinds().len()), (rows + 2, kinds + 1), "two versions are one kind");
        let mut hidden = custom("example.com", "v1", true);
        if let Some(custom) = &mut hidden.custom {
            custom.served = false;
        }
        registry.replace(id, vec![hidden]);
        assert!(other.by_path("example.com", "v1", "configmaps").is_none() && other.by_id(id).is_some());
        assert!(other.groups().iter().all(|(group, _)| group != "example.com"));
        registry.replace(id, Vec::new());
        assert!(other.by_id(id).is_none());
    }

    #[test]
    fn no_definition_takes_the_place_of_a_built_in_kind() {
        let registry = Registry::builtin();
        registry.replace("leases.coordination.k8s.io", {
            let mut row = custom("coordination.k8s.io", "v1", true);
            row.plural = "leases".into();
            vec![row]
        });
        assert!(registry.by_id("leases.coordination.k8s.io").expect("the row").custom.is_none());
        assert!(registry.by_path("coordination.k8s.io", "v1", "leases").expect("the row").custom.is_none());
    }
}
