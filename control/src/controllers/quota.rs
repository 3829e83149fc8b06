//! Counts what ResourceQuotas bound (Kubernetes' resourcequota-controller): anew for a new or changed quota, and when something is given back.
//!
//! What is taken is charged with the write that takes it ([`coracle_apiserver::admission`]), so creates are no work here. A write that began before a quota was there does not
//! know it; a young quota is therefore counted once more when no such write can be left.

use super::{
    Context,
    action::{Action, perform},
    queue::Next,
    runner::{Controller, Event, every},
};
use async_trait::async_trait;
use coracle_api::Status;
use coracle_apiserver::{
    quota::{
        self, QUOTAS,
        amounts::{self, Amounts},
    },
    view::{Map, parse},
};
use coracle_store::{Key, Object, Snapshot};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};
use std::{sync::Arc, time::Duration};

/// Longest that a write takes from its look at the quotas to its commit: all its webhooks, and some time of its own.
const LONGEST_WRITE: Duration = Duration::from_secs(75);
/// Between two counts of one quota, at least and at most (upstream's `--resource-quota-sync-period`): who else may write its status may say there what he likes until then.
const REST: Duration = Duration::from_millis(20);
const SYNC: Duration = Duration::from_secs(300);

/// See the module.
pub struct Quotas {
    context: Context,
}

impl Quotas {
    /// Acting as `resourcequota-controller`.
    pub fn new(context: &Context) -> Self {
        Self { context: context.acting_as("resourcequota-controller") }
    }
}

#[derive(Deserialize)]
struct Specified<'a> {
    #[serde(borrow)]
    spec: Option<&'a RawValue>,
}

/// The text of `spec`, which is canonical.
fn spec(object: &Object) -> Option<&str> {
    serde_json::from_slice::<Specified<'_>>(&object.json).ok()?.spec.map(RawValue::get)
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Quota<'a> {
    #[serde(borrow)]
    spec: Bounds<'a>,
    status: Bounds<'a>,
}
#[derive(Deserialize, Default)]
#[serde(default)]
struct Bounds<'a> {
    #[serde(borrow)]
    hard: Map<'a>,
    used: Map<'a>,
}

/// Whether the status of a quota says all that is bound. Who else writes it may leave it otherwise, which upstream finds within minutes.
fn is_whole(quota: &Object) -> bool {
    let whole = |quota: Quota<'_>| quota.status.hard == quota.spec.hard && quota.spec.hard.keys().all(|name| quota.status.used.contains_key(name));
    parse(quota).map_or(true, whole)
}

/// Whether an update of an object may give something back.
fn gives_back(resource: &str, prev: &Arc<Object>, new: &Arc<Object>) -> bool {
    match resource {
        "pods" => {
            let phase = |pod: &Arc<Object>| pod.meta.fields.iter().find(|(name, _)| &**name == "status.phase").map(|(_, phase)| phase.clone());
            phase(prev) != phase(new) || spec(prev) != spec(new)
        }
        "services" | "persistentvolumeclaims" => spec(prev) != spec(new) || resource == "persistentvolumeclaims",
        _ => false,
    }
}

#[async_trait]
impl Controller for Quotas {
    fn name(&self) -> &'static str {
        "resourcequota-controller"
    }

    fn route(&self, event: &Event<'_>, keys: &mut Vec<Key>) {
        let Some(key) = event.key().filter(|key| !key.namespace.is_empty()) else { return };
        if event.resource == QUOTAS {
            if let Some(new) = event.new
                && (event.prev.is_none_or(|prev| spec(prev) != spec(new)) || !is_whole(new))
            {
                keys.push(new.key.clone());
            }
            if event.new.is_some() {
                return;
            }
        }
        let mut quotas = event.snapshot.range(QUOTAS, Some(&key.namespace), None).peekable();
        if quotas.peek().is_none() {
            return;
        }
        let back = match (event.prev, event.new) {
            (Some(_), None) => true,
            (Some(prev), Some(new)) => gives_back(event.resource, prev, new),
            _ => false,
        };
        if back {
            keys.extend(quotas.map(|quota| quota.key.clone()));
        }
    }

    fn all(&self, snapshot: &Snapshot, keys: &mut Vec<Key>) {
        every(snapshot, QUOTAS, keys);
    }

    async fn reconcile(&self, key: &Key) -> Result<Next, Status> {
        let snapshot = self.context.client.store().snapshot();
        let Some(stored) = snapshot.get(key) else { return Ok(Next::Idle) };
        let object: Value = parse(&stored)?;
        let now = self.context.now();
        let (counted, ends) = quota::used(&object, &key.namespace, &snapshot, now);
        let status = status(&object, counted);
        if status != object["status"] {
            perform(&self.context.client, Some(&stored), vec![Action::Status(status)]).await?;
        }
        let made: Option<Timestamp> = object["metadata"]["creationTimestamp"].as_str().and_then(|text| text.parse().ok());
        Ok(next(made, ends, now))
    }
}

/// When a quota that was made and counted at these times, and of whose amounts some end by themselves, is counted again.
fn next(made: Option<Timestamp>, ends: Option<Timestamp>, now: Timestamp) -> Next {
    let ends = ends.map(|end| Duration::try_from(end.duration_since(now)).unwrap_or_default() + Duration::from_secs(1));
    let age = made.and_then(|made| Duration::try_from(now.duration_since(made)).ok()).unwrap_or(LONGEST_WRITE);
    let young = LONGEST_WRITE.checked_sub(age).filter(|left| !left.is_zero());
    Next::Between(REST, young.into_iter().chain(ends).fold(SYNC, Ord::min))
}

/// The status of a quota; amounts that are the same keep the notation they have.
fn status(quota: &Value, counted: Amounts) -> Value {
    let before = amounts::of(&quota["status"]["used"]);
    let used = counted.into_iter().map(|(name, amount)| (before.get(&name).copied().filter(|before| *before == amount).unwrap_or(amount), name));
    let used = used.map(|(amount, name)| (name, amount)).collect();
    let mut status = json!({});
    for (field, value) in [("hard", quota["spec"]["hard"].clone()), ("used", amounts::to_json(&used))] {
        if value.as_object().is_some_and(|map| !map.is_empty()) {
            status[field] = value;
        }
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_is_counted_again_by_itself() {
        let at = |second| Timestamp::from_second(second).ok();
        let next = |made, ends, now| next(at(made), ends, Timestamp::from_second(now).expect("a time"));
        let within = |seconds| Next::Between(REST, Duration::from_secs(seconds));
        assert_eq!(next(0, None, 10), within(65), "a write that began before it was there may come until then");
        assert_eq!(next(0, None, 1000), within(300));
        assert_eq!(next(0, at(1030), 1000), within(31), "what ends by itself gives back");
        assert_eq!(next(0, at(9000), 1000), within(300));
    }
}
