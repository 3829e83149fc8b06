//! What types and fields are for, in upstream's own words: taken from the k8s-openapi crate when a document is made, never kept.

use schemars::generate::{SchemaGenerator, SchemaSettings};
use serde_json::{Map, Value};

/// Adds a kind and everything it refers to.
type Collect = fn(&mut SchemaGenerator);

macro_rules! kinds {
    ($($module:ident::$version:ident { $($kind:ident),* $(,)? })*) => {
        /// OpenAPI name and collector of every kind that documents can describe.
        const KINDS: &[(&str, Collect)] = &[
            $($((
                concat!("io.k8s.api.", stringify!($module), ".", stringify!($version), ".", stringify!($kind)),
                |into| drop(into.subschema_for::<k8s_openapi::api::$module::$version::$kind>()),
            )),*),*
        ];
    };
}

kinds! {
    admissionregistration::v1 {
        MutatingAdmissionPolicy, MutatingAdmissionPolicyBinding, MutatingWebhookConfiguration, ValidatingAdmissionPolicy,
        ValidatingAdmissionPolicyBinding, ValidatingWebhookConfiguration,
    }
    apps::v1 { ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet }
    authentication::v1 { SelfSubjectReview, TokenRequest, TokenReview }
    authorization::v1 { LocalSubjectAccessReview, SelfSubjectAccessReview, SelfSubjectRulesReview, SubjectAccessReview }
    autoscaling::v1 { HorizontalPodAutoscaler, Scale }
    autoscaling::v2 { HorizontalPodAutoscaler }
    batch::v1 { CronJob, Job }
    certificates::v1 { CertificateSigningRequest }
    coordination::v1 { Lease }
    core::v1 {
        Binding, ConfigMap, Endpoints, Event, LimitRange, Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, PodTemplate,
        ReplicationController, ResourceQuota, Secret, Service, ServiceAccount,
    }
    discovery::v1 { EndpointSlice }
    events::v1 { Event }
    networking::v1 { IPAddress, Ingress, IngressClass, NetworkPolicy, ServiceCIDR }
    node::v1 { RuntimeClass }
    policy::v1 { Eviction, PodDisruptionBudget }
    rbac::v1 { ClusterRole, ClusterRoleBinding, Role, RoleBinding }
    scheduling::v1 { PriorityClass }
    storage::v1 { CSIDriver, CSINode, CSIStorageCapacity, StorageClass, VolumeAttachment }
}

/// The shared types that no kind refers to, but documents do, and a kind whose metadata are described as everybody's.
const SHARED: &[Collect] = &[
    |into| drop(into.subschema_for::<k8s_openapi::api::core::v1::ConfigMap>()),
    |into| drop(into.subschema_for::<k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions>()),
    |into| drop(into.subschema_for::<k8s_openapi::apimachinery::pkg::apis::meta::v1::ListMeta>()),
    |into| drop(into.subschema_for::<k8s_openapi::apimachinery::pkg::apis::meta::v1::Patch>()),
    |into| drop(into.subschema_for::<k8s_openapi::apimachinery::pkg::apis::meta::v1::Status>()),
];

/// Descriptions of the types that a document shows.
pub(super) struct Descriptions {
    definitions: Map<String, Value>,
}

impl Descriptions {
    /// Collects those of the kinds among `names` (OpenAPI names) and of all they refer to.
    pub(super) fn of<'a>(names: impl Iterator<Item = &'a str>) -> Descriptions {
        let mut generator = SchemaSettings::draft07().into_generator();
        for name in names {
            if let Some((_, collect)) = KINDS.iter().find(|(kind, _)| *kind == name) {
                collect(&mut generator);
            }
        }
        SHARED.iter().for_each(|collect| collect(&mut generator));
        Descriptions { definitions: generator.take_definitions(false) }
    }

    pub(super) fn of_type(&self, name: &str) -> Option<&str> {
        self.definitions.get(name)?.get("description")?.as_str()
    }

    pub(super) fn of_field(&self, name: &str, field: &str) -> Option<&str> {
        self.definitions.get(name)?.get("properties")?.get(field)?.get("description")?.as_str()
    }
}
