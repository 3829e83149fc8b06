//! What a ResourceQuota counts: which objects use how much of what (upstream's `pkg/quota/v1`). Pure; admission charges by it and the controller counts again.

pub mod amounts;
mod charge;
mod scope;
mod usage;

pub use charge::{Change, charge};
pub use usage::{concerns, handles};

use amounts::Amounts;
use coracle_store::Snapshot;
use jiff::Timestamp;
use serde_json::Value;
use std::collections::BTreeSet;

/// Resource id of quotas.
pub const QUOTAS: &str = "resourcequotas";

/// Ids of resources that quotas never look at.
const IGNORED: [&str; 2] = ["events", "events.events.k8s.io"];

/// What the objects of a namespace use of the amounts that a quota bounds, all of them counted anew, and when time alone will change that.
///
/// Objects that cannot be read count as one, and use nothing else.
pub fn used(quota: &Value, namespace: &str, snapshot: &Snapshot, now: Timestamp) -> (Amounts, Option<Timestamp>) {
    let names: Vec<&str> = quota["spec"]["hard"].as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect();
    let scoped = scope::is_scoped(quota);
    let (mut sum, mut until) = (Amounts::new(), None::<Timestamp>);
    for id in resources(&names) {
        let mine: Vec<&str> = names.iter().copied().filter(|name| concerns(id, name)).collect();
        if mine.is_empty() {
            continue;
        }
        let mut part = Amounts::new();
        for object in snapshot.range(id, Some(namespace), None) {
            // Most are only counted.
            let object = if scoped || usage::looks_inside(id) { serde_json::from_slice(&object.json).unwrap_or_default() } else { Value::Null };
            if scope::matches(quota, id, &object) {
                amounts::add(&mut part, &usage::of(id, &object, now));
                let ends = usage::end_of(&object).filter(|end| id == "pods" && *end >= now);
                until = until.into_iter().chain(ends).min();
            }
        }
        for name in mine {
            let counted = part.get(name).copied().unwrap_or(coracle_api::quantity::Quantity::ZERO);
            amounts::add(&mut sum, &Amounts::from([(name.to_string(), counted)]));
        }
    }
    (sum, until)
}

/// Ids of the resources that some of these amounts may be about.
fn resources<'a>(names: &[&'a str]) -> BTreeSet<&'a str> {
    let counted = names.iter().filter_map(|name| name.strip_prefix("count/")).filter(|id| !IGNORED.contains(id));
    let devices = names.iter().any(|name| name.ends_with(usage::DEVICES)).then_some(usage::DEVICE_CLAIMS);
    counted.chain(usage::NAMED).chain(devices).collect()
}

#[cfg(test)]
mod tests;
