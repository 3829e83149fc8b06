//! What is special about a kind. Everything else about a kind is a registry row, a schema and the generic handler.
//!
//! One file a kind under `resources/`, each with one implementation of [`Hooks`]; [`builtin`] lists them by resource id. Hooks are synchronous and see one
//! consistent snapshot: they decide, the pipeline does. (An async hook a step, as upstream's strategies could be, was rejected: every wait inside
//! the write path would lengthen the window in which a compare-and-set is lost.) Only subresources that talk to nodes are async.

mod admission_policy;
pub mod age;
mod api_service;
mod autoscaling;
pub mod cells;
pub mod certificates;
mod component_status;
mod config;
mod controller_revision;
mod crd;
pub mod cron_job;
mod daemon_set;
mod devices;
mod disruption_budget;
mod endpoints;
mod endpointslice;
mod event;
pub mod flow_control;
mod job;
pub mod namespace;
pub mod networking;
mod node;
pub mod pod;
mod quota;
mod replication_controller;
mod rolebinding;
pub mod rules;
mod service;
mod simple;
mod stateful_set;
mod storage;
mod usage;
pub mod volume;
mod webhooks;
mod workload;

pub use devices::selector;

use crate::{
    auth::User,
    pipeline::{Answer, Core, Request},
};
use async_trait::async_trait;
use coracle_api::{
    registry::{Column, Resource},
    status::{Cause, Status},
};
use coracle_store::{Op, Snapshot};
use jiff::Timestamp;
use serde_json::Value;
use std::{collections::HashMap, sync::Arc};

/// What a hook may look at. One per attempt: after a lost race everything runs again with a newer snapshot.
pub struct Cx<'a> {
    /// The shared parts of the server: store, schemas, registry, auth, configuration, nodes.
    pub core: &'a Arc<Core>,
    /// The request as it came: verb, row, subresource, namespace, name, options, user.
    pub request: &'a Request,
    /// The state that this attempt decides on.
    pub snapshot: &'a Snapshot,
    /// The time of this request, whole seconds as Kubernetes stores them.
    pub now: Timestamp,
    /// Set while mutating admission runs again.
    pub again: crate::admission::Again,
}

impl Cx<'_> {
    /// Who asks.
    pub fn user(&self) -> &User {
        &self.request.user
    }
    /// The registry row.
    pub fn row(&self) -> &Resource {
        &self.request.resource
    }
    /// `` for the object itself, `status`, `scale`, …
    pub fn subresource(&self) -> &str {
        &self.request.subresource
    }
    /// `2026-01-02T03:04:05Z`
    pub fn timestamp(&self) -> String {
        coracle_api::names::rfc3339(self.now)
    }
}

/// What happens to the value of a delete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deletion {
    /// Removed at once if no finalizer holds it.
    Now,
    /// As [`Deletion::Now`], but what holds it is no grace, and so none is noted: `deletionTimestamp` stands alone (namespaces and definitions, as upstream).
    Held,
    /// Kept with `deletionTimestamp` = now + seconds and `deletionGracePeriodSeconds`, until somebody deletes it with grace 0.
    Grace(i64),
}

/// Another form in which objects of a kind are shown and taken, next to the one in which they are stored: a version, or a version in another group.
///
/// The pipeline works on the stored form alone; bodies and answers are converted at its edges. A conversion changes what differs, `apiVersion` aside, and loses nothing.
pub struct Form {
    /// Such as `events.k8s.io/v1`.
    pub api_version: &'static str,
    /// From this form to the stored one.
    pub store: fn(&mut Value),
    /// From the stored form to this one.
    pub show: fn(&mut Value),
}

/// What a kind adds to the generic handler. Every method has a default that adds nothing.
///
/// Values are whole objects after decoding and defaults, in the form in which they are stored. `metadata` (uid, creationTimestamp, generation, resourceVersion, deletion fields), keeping the status on
/// a write of the object and keeping everything else on a write of the status are the pipeline's business, not a hook's.
#[async_trait]
pub trait Hooks: Send + Sync + 'static {
    /// The forms besides the one that is stored, one for each row of the registry that names it.
    fn forms(&self) -> &'static [Form] {
        &[]
    }
    /// Whether a client may say the status of a new object (nodes: who registers one knows it).
    fn status_on_create(&self) -> bool {
        false
    }
    /// Before validation of a create: fixed fields, allocation, initial status (the pipeline has dropped the client's status when the row has one).
    fn prepare_create(&self, _cx: &Cx<'_>, _new: &mut Value) -> Result<(), Status> {
        Ok(())
    }
    /// Before validation of an update or patch, of the object or a subresource that is stored in it (`cx.subresource()`).
    fn prepare_update(&self, _cx: &Cx<'_>, _old: &Value, _new: &mut Value) -> Result<(), Status> {
        Ok(())
    }
    /// One cause a wrong field (`FieldValueInvalid`, `FieldValueRequired`, `FieldValueForbidden`, …). `old` is None on create. Metadata is checked by the pipeline.
    fn validate(&self, _cx: &Cx<'_>, _old: Option<&Value>, _new: &Value, _causes: &mut Vec<Cause>) {}
    /// Other store operations of the same transaction, such as reservations (`Key::new("~node-ports", "", "30080")`, `Expect::Absent`,
    /// `pipeline::reservation(owner)`). `new` is None when the object is removed. A failed precondition of one of these reruns the write from `prepare`.
    fn also(&self, _cx: &Cx<'_>, _old: Option<&Value>, _new: Option<&Value>, _ops: &mut Vec<Op>) -> Result<(), Status> {
        Ok(())
    }
    /// Sentences for the client's Warning header.
    fn warnings(&self, _cx: &Cx<'_>, _old: Option<&Value>, _new: &Value) -> Vec<String> {
        Vec::new()
    }
    /// Columns of the table; None takes the row's, or Name and Age.
    fn columns(&self) -> Option<Vec<Column>> {
        None
    }
    /// The cells of one row, one a column, kept with the object. What depends on the time of reading is left in them as [`age::moment`]s.
    fn cells(&self, object: &Value) -> Vec<Value> {
        vec![object["metadata"]["name"].clone(), age::of(object)]
    }
    /// A delete begins; may refuse, or change the object that stays behind while finalizers or grace hold it (namespace: phase Terminating).
    /// `grace` is what the client asked for.
    fn delete(&self, _cx: &Cx<'_>, _object: &mut Value, _grace: Option<i64>) -> Result<Deletion, Status> {
        Ok(Deletion::Now)
    }
    /// Something besides `metadata.finalizers` that holds a deleted object (namespace: `spec.finalizers`).
    fn held(&self, _object: &Value) -> bool {
        false
    }
    /// A subresource of its own (`pods/log`, `pods/binding`, `serviceaccounts/token`, …), or, with an empty subresource, a kind that is never
    /// stored (reviews). Authorization is done. None: the generic handler serves it (`status`, `scale`, anything stored in the object).
    async fn call(&self, _core: &Arc<Core>, _request: &Request) -> Option<Result<Answer, Status>> {
        None
    }
}

struct Plain;
impl Hooks for Plain {}

/// The hooks of every kind that has some, by resource id (`pods`, `deployments.apps`).
pub struct Table {
    by_id: HashMap<String, Arc<dyn Hooks>>,
    plain: Arc<dyn Hooks>,
}

impl Table {
    /// From a list of (id, hooks).
    pub fn new(list: Vec<(&str, Arc<dyn Hooks>)>) -> Self {
        Self { by_id: list.into_iter().map(|(id, hooks)| (id.to_string(), hooks)).collect(), plain: Arc::new(Plain) }
    }
    /// Those of a resource; a kind without any gets the defaults.
    pub fn get(&self, id: &str) -> &Arc<dyn Hooks> {
        self.by_id.get(id).unwrap_or(&self.plain)
    }
}

/// The kinds of this build.
pub fn builtin() -> Vec<(&'static str, Arc<dyn Hooks>)> {
    vec![
        ("mutatingadmissionpolicies.admissionregistration.k8s.io", Arc::new(admission_policy::Mutating)),
        ("mutatingadmissionpolicybindings.admissionregistration.k8s.io", Arc::new(admission_policy::Binding { mutating: true })),
        ("validatingadmissionpolicies.admissionregistration.k8s.io", Arc::new(admission_policy::Validating)),
        ("validatingadmissionpolicybindings.admissionregistration.k8s.io", Arc::new(admission_policy::Binding { mutating: false })),
        (crate::aggregation::API_SERVICES, Arc::new(api_service::ApiService)),
        ("bindings", Arc::new(pod::binding::Bindings)),
        ("componentstatuses", Arc::new(component_status::ComponentStatus)),
        ("configmaps", Arc::new(config::ConfigMap)),
        ("endpoints", Arc::new(endpoints::Endpoints)),
        ("events", Arc::new(event::Event)),
        ("limitranges", Arc::new(quota::LIMIT_RANGE)),
        ("namespaces", Arc::new(namespace::Namespace)),
        ("nodes", Arc::new(node::Node)),
        ("persistentvolumeclaims", Arc::new(volume::claim::PersistentVolumeClaim)),
        ("persistentvolumes", Arc::new(volume::persistent::PersistentVolume)),
        ("pods", Arc::new(pod::Pod)),
        ("podtemplates", Arc::new(replication_controller::PodTemplate)),
        ("replicationcontrollers", Arc::new(replication_controller::ReplicationController)),
        ("resourcequotas", Arc::new(quota::RESOURCE_QUOTA)),
        ("secrets", Arc::new(config::Secret)),
        ("serviceaccounts", Arc::new(simple::SERVICE_ACCOUNT)),
        ("services", Arc::new(service::Service)),
        ("controllerrevisions.apps", Arc::new(controller_revision::CONTROLLER_REVISION)),
        ("daemonsets.apps", Arc::new(daemon_set::DaemonSet)),
        ("customresourcedefinitions.apiextensions.k8s.io", Arc::new(crd::Definition)),
        ("mutatingwebhookconfigurations.admissionregistration.k8s.io", Arc::new(webhooks::MUTATING)),
        ("validatingwebhookconfigurations.admissionregistration.k8s.io", Arc::new(webhooks::VALIDATING)),
        ("deployments.apps", Arc::new(workload::Deployment)),
        ("replicasets.apps", Arc::new(workload::ReplicaSet)),
        ("statefulsets.apps", Arc::new(stateful_set::StatefulSet)),
        ("horizontalpodautoscalers.autoscaling", Arc::new(autoscaling::HorizontalPodAutoscaler)),
        ("cronjobs.batch", Arc::new(cron_job::CronJob)),
        ("jobs.batch", Arc::new(job::Job)),
        (certificates::REQUESTS, Arc::new(certificates::CertificateSigningRequest)),
        ("leases.coordination.k8s.io", Arc::new(simple::LEASE)),
        ("endpointslices.discovery.k8s.io", Arc::new(endpointslice::EndpointSlice)),
        ("flowschemas.flowcontrol.apiserver.k8s.io", Arc::new(flow_control::FlowSchema)),
        ("prioritylevelconfigurations.flowcontrol.apiserver.k8s.io", Arc::new(flow_control::PriorityLevelConfiguration)),
        ("ingressclasses.networking.k8s.io", Arc::new(networking::ingress::INGRESS_CLASS)),
        ("ingresses.networking.k8s.io", Arc::new(networking::ingress::INGRESS)),
        (networking::address::IP_ADDRESSES, Arc::new(networking::address::IP_ADDRESS)),
        ("networkpolicies.networking.k8s.io", Arc::new(networking::policy::NETWORK_POLICY)),
        (networking::address::SERVICE_CIDRS, Arc::new(networking::address::ServiceCidr)),
        ("runtimeclasses.node.k8s.io", Arc::new(simple::RUNTIME_CLASS)),
        ("poddisruptionbudgets.policy", Arc::new(disruption_budget::DisruptionBudget)),
        ("clusterroles.rbac.authorization.k8s.io", Arc::new(simple::CLUSTER_ROLE)),
        ("clusterrolebindings.rbac.authorization.k8s.io", Arc::new(rolebinding::Binding { namespaced: false })),
        ("roles.rbac.authorization.k8s.io", Arc::new(simple::ROLE)),
        ("rolebindings.rbac.authorization.k8s.io", Arc::new(rolebinding::Binding { namespaced: true })),
        ("deviceclasses.resource.k8s.io", Arc::new(devices::DEVICE_CLASS)),
        ("resourceclaims.resource.k8s.io", Arc::new(devices::ResourceClaim)),
        ("resourceclaimtemplates.resource.k8s.io", Arc::new(devices::ResourceClaimTemplate)),
        ("resourceslices.resource.k8s.io", Arc::new(devices::ResourceSlice)),
        ("priorityclasses.scheduling.k8s.io", Arc::new(simple::PRIORITY_CLASS)),
        ("nodes.metrics.k8s.io", Arc::new(usage::NodeMetrics)),
        ("pods.metrics.k8s.io", Arc::new(usage::PodMetrics)),
        ("csidrivers.storage.k8s.io", Arc::new(storage::CSI_DRIVER)),
        ("csinodes.storage.k8s.io", Arc::new(storage::CSI_NODE)),
        ("csistoragecapacities.storage.k8s.io", Arc::new(storage::CSI_STORAGE_CAPACITY)),
        ("storageclasses.storage.k8s.io", Arc::new(storage::STORAGE_CLASS)),
        ("volumeattachments.storage.k8s.io", Arc::new(storage::VolumeAttachment)),
        ("volumeattributesclasses.storage.k8s.io", Arc::new(storage::VOLUME_ATTRIBUTES_CLASS)),
    ]
}

#[cfg(test)]
mod tests;
