//! Admission: rules that cross objects, run on every write whatever the kind and whoever asks.
//!
//! Plugins run in the order of [`builtin`]; quota comes last. They are synchronous over the attempt's snapshot; an error refuses the write (fail closed).

mod lookup;
mod namespace_lifecycle;
mod priority;
mod runtime_class;
mod service_account;
mod tolerations;

use crate::resources::Cx;
use coracle_api::status::Status;
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
    ]
}
