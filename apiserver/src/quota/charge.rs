//! What a write takes from a quota, and whether it may.

use super::{
    amounts::{self, Amounts},
    scope, usage,
};
use coracle_api::quantity::Quantity;
use jiff::Timestamp;
use serde_json::Value;

/// A write as quotas see it.
#[derive(Clone, Copy, Debug)]
pub struct Change<'a> {
    /// Resource id of the object.
    pub id: &'a str,
    /// Empty for the object itself.
    pub subresource: &'a str,
    /// What is there; none on create.
    pub old: Option<&'a Value>,
    /// What shall be there.
    pub new: &'a Value,
    /// The time of the write.
    pub now: Timestamp,
}

fn shown(amounts: &Amounts) -> String {
    amounts.iter().map(|(name, amount)| format!("{name}={amount}")).collect::<Vec<_>>().join(",")
}

/// What quotas count after a write, each its `status.used`; None where the write takes nothing from it.
///
/// # Errors
/// Why the write may not be, in upstream's words. What a quota wants to be said (`failed quota: …`) comes before what any of them has left (`exceeded quota: …`).
pub fn charge(quotas: &[Value], change: &Change<'_>) -> Result<Vec<Option<Amounts>>, String> {
    let bounds = quotas.iter().map(|quota| Bound::of(quota, change)).collect::<Result<Vec<_>, _>>()?;
    bounds.iter().map(|bound| bound.as_ref().map_or(Ok(None), |bound| bound.charge(change))).collect()
}

/// A quota that is about a write.
struct Bound<'q> {
    quota: &'q Value,
    name: &'q str,
    hard: Amounts,
    used: Amounts,
}

impl<'q> Bound<'q> {
    /// None when it is about other things; an error when the object does not say what the quota counts, or nobody counted yet.
    fn of(quota: &'q Value, change: &Change<'_>) -> Result<Option<Self>, String> {
        let Change { id, subresource, old, new, .. } = *change;
        let (hard, used) = (amounts::of(&quota["status"]["hard"]), amounts::of(&quota["status"]["used"]));
        let names: Vec<&str> = hard.keys().map(String::as_str).filter(|name| usage::concerns(id, name)).collect();
        if names.is_empty() || !usage::handles(id, subresource, old, new) || !scope::matches(quota, id, new) {
            return Ok(None);
        }
        let name = quota["metadata"]["name"].as_str().unwrap_or_default();
        if id == "pods" {
            usage::said(&names, new).map_err(|why| format!("failed quota: {name}: {why}"))?;
        }
        if names.iter().any(|name| !used.contains_key(*name)) {
            return Err(format!("status unknown for quota: {name}, resources: {}", names.join(",")));
        }
        Ok(Some(Bound { quota, name, hard, used }))
    }

    fn charge(&self, change: &Change<'_>) -> Result<Option<Amounts>, String> {
        let (Change { id, subresource, old, new, now }, Bound { quota, name, hard, used }) = (*change, self);
        let mut taken = usage::of(id, new, now);
        // What it used before counts only if this quota was about it.
        if let Some(old) = old.filter(|old| scope::matches(quota, id, old)) {
            let before = usage::of(id, old, now);
            for (name, amount) in &mut taken {
                *amount = before.get(name).map_or(*amount, |before| amount.minus(*before));
            }
        }
        taken.retain(|name, amount| *amount > Quantity::ZERO && hard.contains_key(name));
        if taken.is_empty() {
            return Ok(None);
        }
        let mut after = used.clone();
        amounts::add(&mut after, &taken);
        let exceeded = |name: &String| hard.get(name).zip(after.get(name)).is_some_and(|(hard, after)| after > hard);
        let over: Vec<String> = taken.keys().filter(|name| exceeded(name)).cloned().collect();
        // A status tells what is; it is counted, not refused.
        if !over.is_empty() && subresource != "status" {
            let of =
                |list: &Amounts| shown(&list.iter().filter(|(name, _)| over.contains(name)).map(|(name, amount)| (name.clone(), *amount)).collect());
            return Err(format!("exceeded quota: {name}, requested: {}, used: {}, limited: {}", of(&taken), of(used), of(hard)));
        }
        Ok(Some(after))
    }
}
