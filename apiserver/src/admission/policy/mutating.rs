//! `MutatingAdmissionPolicy`: changes objects on their way in.

use super::context::Subject;
use super::set::{Cache, Set};
use super::{Binding, MUTATING, MUTATING_BINDINGS, Policy, params, patch};
use crate::admission::attributes::{self, Attributes, Operation};
use crate::admission::{Plugin, lookup};
use crate::pipeline::decode;
use crate::resources::Cx;
use coracle_api::status::{Cause, Details, Status};
use coracle_cel::Budget;
use coracle_schema::Schema;
use serde_json::Value;

/// The plugin.
pub struct MutatingAdmissionPolicy {
    cache: Cache,
}

impl MutatingAdmissionPolicy {
    /// Nothing is compiled yet.
    pub fn new() -> Self {
        Self { cache: Cache::new(&[MUTATING, MUTATING_BINDINGS]) }
    }
}

impl Default for MutatingAdmissionPolicy {
    fn default() -> Self {
        Self::new()
    }
}

impl Plugin for MutatingAdmissionPolicy {
    fn name(&self) -> &'static str {
        "MutatingAdmissionPolicy"
    }

    fn mutate(&self, cx: &Cx<'_>, old: Option<&Value>, new: &mut Value) -> Result<(), Status> {
        let set = self.cache.of(cx.snapshot, |known| Set::of(cx.snapshot, MUTATING, MUTATING_BINDINGS, known));
        if set.hooks.is_empty() {
            return Ok(());
        }
        let namespace = attributes::namespace_object(cx)?;
        let mut object = new.clone();
        // Which invocations ran already, and at which of them the object changed last.
        let (mut ran, mut changed_at, mut count) = (Vec::new(), 0, 0);
        for round in 0..2 {
            for (policy, bindings) in set.hooks.iter().filter(|(policy, _)| policy.again || !cx.again.get()) {
                for binding in bindings {
                    let before = object.clone();
                    let Some(a) = Attributes::of(cx, old, Some(&before)).filter(|a| a.operation != Operation::Delete) else { return Ok(()) };
                    let request = a.request();
                    let subject = Subject { attributes: &a, request: &request, namespace: &namespace, core: cx.core, snapshot: cx.snapshot };
                    let refused = |why: String| refusal(cx, &before, policy, binding, &why);
                    let list = match matching(&subject, policy, binding) {
                        Ok(list) => list,
                        Err(_) if policy.lenient => continue,
                        Err(why) => return Err(refused(why)),
                    };
                    for (at, params) in list.iter().enumerate() {
                        count += 1;
                        let key = (policy.name.as_str(), binding.name.as_str(), at);
                        let known = ran.iter().position(|(known, _)| *known == key);
                        // Again only when it wants that, and something changed after it ran.
                        if round == 1 && known.is_none_or(|known| !policy.again || ran.get(known).is_none_or(|(_, when)| *when >= changed_at)) {
                            continue;
                        }
                        let schema = schema(cx)?;
                        match invoke(&subject, policy, params, &object, &schema) {
                            Ok(Some(next)) => {
                                if next != object {
                                    changed_at = count;
                                }
                                object = next;
                            }
                            Ok(None) => continue,
                            Err(_) if policy.lenient => {}
                            Err(why) => return Err(refused(why)),
                        }
                        match known.and_then(|known| ran.get_mut(known)) {
                            Some((_, when)) => *when = count,
                            None => ran.push((key, count)),
                        }
                    }
                }
            }
        }
        *new = object;
        Ok(())
    }
}

/// The schema of what is admitted: the object's own, or of a subresource such as `scale`.
fn schema(cx: &Cx<'_>) -> Result<std::sync::Arc<Schema>, Status> {
    decode::schema_of(cx.core, cx.request).ok_or_else(|| Status::internal(format_args!("no schema for {}", cx.row().kind)))
}

/// The parameters with which a policy is invoked under a binding; none where it is about something else.
fn matching(subject: &Subject<'_>, policy: &Policy, binding: &Binding) -> Result<Vec<Value>, String> {
    let (a, namespace, registry) = (subject.attributes, subject.namespace, subject.registry());
    let matches = policy.constraints.as_ref().map_err(|why| format!("failed to configure policy: {why}"))?.matches(a, namespace, registry)
        && binding.constraints.as_ref().map_err(|why| format!("failed to configure binding: {why}"))?.matches(a, namespace, registry);
    if !matches {
        return Ok(Vec::new());
    }
    params::collect(policy.params.as_ref(), binding.params.as_ref(), subject.core, subject.snapshot, a.namespace)
        .map_err(|why| format!("failed to configure binding: {why}"))
}

/// The object after all mutations of a policy; None when its conditions do not hold.
fn invoke(subject: &Subject<'_>, policy: &Policy, params: &Value, object: &Value, schema: &Schema) -> Result<Option<Value>, String> {
    if !policy.conditions.hold(&subject.activation(&policy.variables, params, Some(object))?, policy.lenient)? {
        return Ok(None);
    }
    let mut object = object.clone();
    for mutation in &policy.mutations {
        let next = {
            let activation = subject.activation(&policy.variables, params, Some(&object))?;
            patch::mutate(mutation, &activation, &object, schema, &mut Budget::default())
        };
        match next {
            Ok(next) => object = next,
            Err(_) if policy.lenient => {}
            Err(why) => return Err(why),
        }
    }
    Ok(Some(object))
}

fn refusal(cx: &Cx<'_>, object: &Value, policy: &Policy, binding: &Binding, why: &str) -> Status {
    let message = format!("policy '{}' with binding '{}' denied request: {why}", policy.name, binding.name);
    let mut status = lookup::forbidden(cx, object, &message);
    (status.code, status.reason, status.message) = (422, "Invalid", message.clone());
    let details = status.details.get_or_insert_with(|| Box::new(Details::default()));
    details.causes.push(Cause { reason: String::new(), message, field: String::new() });
    status
}
