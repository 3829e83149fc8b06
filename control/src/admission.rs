//! Admission: rules that cross objects, run on every write whatever the kind and whoever asks.
//!
//! Plugins run in the order of [`builtin`]; quota comes last. They are synchronous over the attempt's snapshot; an error refuses the write (fail closed).

pub mod attributes;
mod certificates;
pub mod constraints;
mod ingress_class;
mod lookup;
mod namespace_lifecycle;
pub mod policy;
mod priority;
mod runtime_class;
mod service_account;
pub mod storage;
mod tolerations;

use crate::resources::Cx;
use coracle_api::status::Status;
use parking_lot::Mutex;
use serde_json::Value;

/// One admission plugin. `old` is None on create; `new` is None on delete. Connect-type subresources (log, proxy) do not pass here.
pub trait Plugin: Send + Sync + 'static {
    /// Upstream's name, such as `NamespaceLifecycle`.
    fn name(&self) -> &'static str;
    /// May change the object, before `prepare` and validation (mutating admission).
    fn mutate(&self, _cx: &Cx<'_>, _old: Option<&Value>, _new: &mut Value) -> Result<(), Status> {
        Ok(())
    }
    /// May refuse, after validation.
    fn validate(&self, _cx: &Cx<'_>, _old: Option<&Value>, _new: Option<&Value>) -> Result<(), Status> {
        Ok(())
    }
}

/// Sentences for the client's Warning header that plugins have besides their decision.
#[derive(Debug, Default)]
pub struct Warnings(Mutex<Vec<String>>);

impl Warnings {
    /// One more.
    pub fn add(&self, warning: String) {
        self.0.lock().push(warning);
    }
    /// All of them so far.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock())
    }
}

/// The plugins of this build, in order.
pub fn builtin() -> Vec<Box<dyn Plugin>> {
    vec![
        Box::new(namespace_lifecycle::NamespaceLifecycle),
        Box::new(crate::auth::node::NodeRestriction),
        Box::new(service_account::ServiceAccount),
        Box::new(tolerations::TaintNodesByCondition),
        Box::new(priority::Priority),
        Box::new(tolerations::DefaultTolerationSeconds),
        Box::new(runtime_class::RuntimeClass),
        Box::new(policy::MutatingAdmissionPolicy::new()),
        Box::new(policy::ValidatingAdmissionPolicy::new()),
        Box::new(ingress_class::DefaultIngressClass),
        Box::new(storage::DefaultStorageClass),
        Box::new(storage::StorageObjectInUseProtection),
        Box::new(storage::PersistentVolumeClaimResize),
        Box::new(certificates::CertificateApproval),
        Box::new(certificates::CertificateSigning),
        Box::new(certificates::CertificateSubjectRestriction),
    ]
}
