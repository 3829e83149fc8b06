//! Admission: rules that cross objects, run on every write whatever the kind and whoever asks.
//!
//! Plugins are synchronous over the attempt's snapshot; webhooks, which wait for others, come after them. An error refuses the write (fail closed).

pub mod attributes;
mod cached;
mod certificates;
pub mod constraints;
mod ingress_class;
mod limit_ranger;
pub(crate) mod lookup;
mod namespace_lifecycle;
mod node_restriction;
mod pod_security;
pub mod policy;
mod priority;
mod quota;
mod resize;
mod runtime_class;
mod service_account;
pub mod storage;
mod tolerations;
mod topology;
mod webhooks;

use crate::resources::Cx;
use coracle_api::status::Status;
use coracle_store::Op;
use serde_json::Value;
use std::sync::atomic::{AtomicBool, Ordering};
pub use webhooks::{connect_options, review};

/// One admission plugin. `old` is None on create; `new` is None on delete.
pub trait Plugin: Send + Sync + 'static {
    /// Upstream's name, such as `NamespaceLifecycle`.
    fn name(&self) -> &'static str;
    /// Whether it also sees connections (`pods/proxy`, `pods/exec`), with their options as `new`.
    fn connects(&self) -> bool {
        false
    }
    /// May change the object, before `prepare` and validation (mutating admission).
    fn mutate(&self, _cx: &Cx<'_>, _old: Option<&Value>, _new: &mut Value) -> Result<(), Status> {
        Ok(())
    }
    /// May refuse, after validation.
    fn validate(&self, _cx: &Cx<'_>, _old: Option<&Value>, _new: Option<&Value>) -> Result<(), Status> {
        Ok(())
    }
}

/// Whether the mutating plugins run a second time in one attempt, because a webhook changed the object after them.
#[derive(Debug, Default)]
pub struct Again(AtomicBool);

impl Again {
    /// See [`Again`].
    pub fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// An annotation of the audit record.
fn audit(cx: &Cx<'_>, key: &str, value: &str) {
    let request = cx.request;
    crate::audit::annotate(key, || value.to_owned());
    tracing::info!(
        target: crate::auth::audit::TARGET,
        user = %request.user.name, verb = request.verb.as_str(), resource = %request.resource.id(), namespace = %request.namespace, name = %request.name,
        annotation = key, value,
    );
}

/// Everything that a write is admitted by, in upstream's order: plugins, then webhooks.
pub struct Admission {
    plugins: Vec<Box<dyn Plugin>>,
    webhooks: webhooks::Webhooks,
}

impl Admission {
    /// That of this build.
    pub fn builtin() -> Self {
        Self::of(builtin())
    }

    /// These plugins, in this order, and the webhooks.
    pub fn of(plugins: Vec<Box<dyn Plugin>>) -> Self {
        Self { plugins, webhooks: Default::default() }
    }

    /// Changes a new or changed object, before `prepare` and validation; a delete, which has none, is shown to webhooks all the same. True if
    /// webhooks changed it.
    pub async fn mutate(&self, cx: &Cx<'_>, old: Option<&Value>, mut new: Option<&mut Value>) -> Result<bool, Status> {
        let mut session = webhooks::Session::default();
        if !self.round(cx, old, new.as_deref_mut(), &mut session).await? {
            return Ok(false);
        }
        cx.again.0.store(true, Ordering::Relaxed);
        let second = self.round(cx, old, new, &mut session).await;
        cx.again.0.store(false, Ordering::Relaxed);
        second.map(|_| true)
    }

    async fn round(&self, cx: &Cx<'_>, old: Option<&Value>, mut new: Option<&mut Value>, session: &mut webhooks::Session) -> Result<bool, Status> {
        if let Some(new) = new.as_deref_mut() {
            for plugin in self.plugins.iter().filter(|plugin| plugin.connects() || !cx.request.connects()) {
                plugin.mutate(cx, old, new)?;
            }
        }
        self.webhooks.mutate(cx, old, new, session).await
    }

    /// May refuse, after validation.
    pub async fn validate(&self, cx: &Cx<'_>, old: Option<&Value>, new: Option<&Value>) -> Result<(), Status> {
        for plugin in self.plugins.iter().filter(|plugin| plugin.connects() || !cx.request.connects()) {
            plugin.validate(cx, old, new)?;
        }
        self.webhooks.validate(cx, old, new).await
    }

    /// What the write takes from quotas, added to its transaction: the last that may refuse.
    pub fn charge(&self, cx: &Cx<'_>, old: Option<&Value>, new: &Value, ops: &mut Vec<Op>) -> Result<(), Status> {
        quota::charge(cx, old, new, ops)
    }
}

/// The plugins of this build, in order.
fn builtin() -> Vec<Box<dyn Plugin>> {
    vec![
        Box::new(namespace_lifecycle::NamespaceLifecycle),
        Box::new(limit_ranger::LimitRanger),
        Box::new(service_account::ServiceAccount),
        Box::new(node_restriction::NodeRestriction),
        Box::new(tolerations::TaintNodesByCondition),
        Box::new(pod_security::PodSecurity),
        Box::new(priority::Priority),
        Box::new(tolerations::DefaultTolerationSeconds),
        Box::new(storage::DefaultStorageClass),
        Box::new(storage::StorageObjectInUseProtection),
        Box::new(storage::PersistentVolumeClaimResize),
        Box::new(runtime_class::RuntimeClass),
        Box::new(certificates::CertificateApproval),
        Box::new(certificates::CertificateSigning),
        Box::new(certificates::CertificateSubjectRestriction),
        Box::new(ingress_class::DefaultIngressClass),
        Box::new(resize::PodResizeValidator),
        Box::new(topology::PodTopologyLabels),
        Box::new(policy::MutatingAdmissionPolicy::new()),
        Box::new(policy::ValidatingAdmissionPolicy::new()),
    ]
}
