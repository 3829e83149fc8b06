//! `pods/eviction`: a delete that says why, and that the application's disruption budget must allow.

use super::write;
use crate::{
    pipeline::{Answer, Body, Core, Request, Verb, decode, handle, object},
    view::{
        Condition,
        budget::{BUDGETS, Budget, Report, budgets_of, note, to_json},
        condition, parse,
        pod::Pod,
        stamp,
    },
};
use coracle_api::status::{Cause, Details, Status};
use coracle_store::{Error, Expect, Key, Object, Op, Txn};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::{sync::Arc, time::Instant};

/// Evictions that a budget remembers; more means that nobody counts them.
const MOST_DISRUPTED: usize = 2_000;
/// Seconds after which a client should ask again when the budget is not settled.
const UNSETTLED: u32 = 10;

/// Serves `POST …/pods/NAME/eviction`.
pub async fn evict(core: &Arc<Core>, request: &Request) -> Result<Answer, Status> {
    let eviction = decode::body(core, request)?;
    if eviction["metadata"]["name"].as_str().is_some_and(|name| !name.is_empty() && name != request.name) {
        return Err(Status::bad_request("name in URL does not match name in Eviction object"));
    }
    let eviction = core.admit(request, eviction).await?;
    let options = match &eviction["deleteOptions"] {
        Value::Null => json!({}),
        options => options.clone(),
    };
    let mut marked = request.clone();
    marked.write.dry_run |= options["dryRun"].as_array().is_some_and(|list| !list.is_empty());
    let only = spend(core, &marked).await?;
    let changed = write::change(core, &marked, |stored, pod, now| {
        if only.as_ref().is_some_and(|(_, revision)| *revision != stored.revision) {
            return Err(Status::conflict("", "pods", &request.name, "it changed while its budget was looked at"));
        }
        mark(pod, now);
        Ok(())
    })
    .await;
    match (changed, only) {
        // It was let go because it was not healthy: perhaps it is now.
        (Err(status), Some((budget, _))) if status.is_conflict() => return Err(unsettled(&budget)),
        (result, _) => drop(result?),
    }
    // Whoever may evict need not be allowed to delete, so this is the delete itself and not a request for one.
    let delete = Request { verb: Verb::Delete, subresource: "".into(), body: Body::Object(options), ..marked };
    core.evict(&delete).await?;
    Ok(Answer::Value { code: 201, value: write::success() })
}

/// Takes an eviction out of the pod's budget, if it has one. A pod that may go for being unhealthy costs nothing, but only as it is now: then its
/// budget's name and its revision are returned.
async fn spend(core: &Arc<Core>, request: &Request) -> Result<Option<(String, u64)>, Status> {
    let key = Key::new("pods", request.namespace.as_str(), request.name.as_str());
    let until = Instant::now() + handle::DEADLINE;
    core.store.barrier().await.map_err(handle::store_error)?;
    loop {
        let snapshot = core.store.snapshot();
        let stored = snapshot.get(&key).ok_or_else(|| Status::not_found("", "pods", &request.name))?;
        let pod: Pod<'_> = parse(&stored)?;
        if pod.terminal() || pod.status.phase == "Pending" || pod.metadata.deleting() {
            return Ok(None);
        }
        let budgets = budgets_of(&snapshot, &stored);
        let found = match &budgets[..] {
            [] => return Ok(None),
            [one] => one,
            _ => {
                let why = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
                return Err(Status::new(500, "", why));
            }
        };
        let budget: Budget<'_> = parse(found)?;
        let now = Timestamp::now();
        match allow(&budget, &request.name, pod.ready(), now)? {
            Allowed::ForFree => return Ok(Some((found.key.name.to_string(), stored.revision))),
            Allowed::ForOne(_) if request.write.dry_run => return Ok(None),
            Allowed::ForOne(report) => match write_status(core, found, &report).await {
                Err(status) if status.is_conflict() && Instant::now() < until => {}
                Err(status) if status.is_conflict() => {
                    let why = format!("couldn't update PodDisruptionBudget \"{}\" due to conflicts", found.key.name);
                    return Err(retry_after(Status::new(504, "Timeout", why), UNSETTLED));
                }
                result => return result.map(|()| None),
            },
        }
    }
}

/// What an eviction costs.
enum Allowed<'a> {
    /// Nothing, as long as the pod stays unhealthy.
    ForFree,
    /// One disruption: the budget's status after it.
    ForOne(Report<'a>),
}

/// Asks the budget.
fn allow<'a>(budget: &Budget<'a>, pod: &str, ready: bool, now: Timestamp) -> Result<Allowed<'a>, Status> {
    let (name, status) = (&budget.metadata.name, &budget.status);
    if !ready {
        let always = budget.spec.unhealthy_pod_eviction_policy == "AlwaysAllow";
        if always || (status.current_healthy >= status.desired_healthy && status.desired_healthy > 0) {
            return Ok(Allowed::ForFree);
        }
    }
    if status.observed_generation < budget.metadata.generation {
        return Err(unsettled(name));
    }
    if status.disruptions_allowed < 0 {
        return Err(Status::forbidden("policy", "poddisruptionbudget", name, "pdb disruptions allowed is negative"));
    }
    if status.disrupted_pods.len() > MOST_DISRUPTED {
        let why = "DisruptedPods map too big - too many evictions not confirmed by PDB controller";
        return Err(Status::forbidden("policy", "poddisruptionbudget", name, why));
    }
    if status.disruptions_allowed == 0 {
        let told = condition(&status.conditions, "DisruptionAllowed").filter(|c| c.status == "False" && !c.message.is_empty());
        return Err(refused(&why_not(budget, told), 0));
    }
    let mut report = status.clone();
    report.disruptions_allowed -= 1;
    if report.disruptions_allowed == 0 {
        note(&mut report, now);
    }
    report.disrupted_pods.insert(pod.to_owned().into(), stamp(now).into());
    Ok(Allowed::ForOne(report))
}

fn why_not(budget: &Budget<'_>, told: Option<&Condition<'_>>) -> String {
    let (name, status) = (&budget.metadata.name, &budget.status);
    match told {
        Some(told) if told.reason == "SyncFailed" => {
            format!("The disruption budget {name} does not allow evicting pods currently because it failed sync: {}", told.message)
        }
        _ if status.current_healthy <= status.desired_healthy => {
            format!("The disruption budget {name} needs {} healthy pods and has {} currently", status.desired_healthy, status.current_healthy)
        }
        Some(told) => format!("The disruption budget {name} does not allow evicting pods currently ({}): {}", told.reason, told.message),
        None => format!("The disruption budget {name} does not allow evicting pods currently"),
    }
}

fn unsettled(budget: &str) -> Status {
    refused(&format!("The disruption budget {budget} is still being processed by the server."), UNSETTLED)
}

/// 429 with the cause by which clients know that a budget is in the way.
fn refused(why: &str, seconds: u32) -> Status {
    let mut status = Status::new(429, "TooManyRequests", "Cannot evict pod as it would violate the pod's disruption budget.");
    let cause = Cause { reason: "DisruptionBudget".into(), message: why.into(), field: String::new() };
    status.details = Some(Box::new(Details { causes: vec![cause], ..Details::default() }));
    retry_after(status, seconds)
}

fn retry_after(mut status: Status, seconds: u32) -> Status {
    status.details.get_or_insert_default().retry_after_seconds = seconds;
    status
}

async fn write_status(core: &Arc<Core>, budget: &Object, report: &Report<'_>) -> Result<(), Status> {
    let row = core.registry.by_id(BUDGETS).ok_or_else(handle::no_such_path)?;
    let mut value = object::parse(budget)?;
    value["status"] = to_json(report);
    let put = Op::Put { key: budget.key.clone(), expect: Expect::Revision(budget.revision), draft: object::draft(&row, &value) };
    match core.store.commit(Txn { ops: vec![put] }).await {
        Ok(_) => Ok(()),
        Err(Error::Precondition { .. }) => Err(Status::conflict("policy", "poddisruptionbudgets", &budget.key.name, "the budget changed")),
        Err(error) => Err(handle::store_error(error)),
    }
}

/// Tells controllers that the pod did not end by itself.
fn mark(pod: &mut Value, now: &str) {
    let ended = matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    if ended || pod["metadata"]["deletionTimestamp"].is_string() {
        return;
    }
    let condition = json!({"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
        "message": "Eviction API: evicting", "lastTransitionTime": now});
    match pod.pointer_mut("/status/conditions").and_then(Value::as_array_mut) {
        None => pod["status"]["conditions"] = json!([condition]),
        Some(conditions) => match conditions.iter_mut().find(|has| has["type"] == "DisruptionTarget") {
            Some(has) if has["status"] == "True" => {}
            Some(has) => *has = condition,
            None => conditions.push(condition),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_evicted_pod_says_so_once() {
        let mut pod = json!({"status": {"phase": "Running"}});
        mark(&mut pod, "2026-01-02T03:04:05Z");
        let once = pod.clone();
        mark(&mut pod, "2026-01-02T03:04:06Z");
        assert_eq!(pod, once);
        assert_eq!(pod["status"]["conditions"][0]["reason"], "EvictionByEvictionAPI");
        let mut done = json!({"status": {"phase": "Succeeded"}});
        mark(&mut done, "");
        assert_eq!(done, json!({"status": {"phase": "Succeeded"}}));
    }

    /// `free`, the number that is left, or why not.
    fn asked(spec: Value, status: Value, ready: bool) -> String {
        let budget = json!({"metadata": {"name": "b", "generation": 1}, "spec": spec, "status": status}).to_string();
        let budget: Budget<'_> = serde_json::from_str(&budget).expect("a budget");
        match allow(&budget, "p", ready, Timestamp::UNIX_EPOCH) {
            Ok(Allowed::ForFree) => "free".into(),
            Ok(Allowed::ForOne(report)) => {
                assert_eq!(report.disrupted_pods.get("p").map(|at| &**at), Some("1970-01-01T00:00:00Z"));
                report.disruptions_allowed.to_string()
            }
            Err(status) => {
                let details = status.details.expect("details");
                let cause = details.causes.first().map_or(status.message, |cause| cause.message.clone());
                format!("{} {} {cause}", status.code, details.retry_after_seconds)
            }
        }
    }

    #[test]
    fn budgets_are_asked() {
        let settled = |allowed: i64, healthy: i64, desired: i64| json!({"observedGeneration": 1, "disruptionsAllowed": allowed, "currentHealthy": healthy, "desiredHealthy": desired});
        assert_eq!(asked(json!({}), settled(2, 4, 2), true), "1");
        assert_eq!(asked(json!({}), settled(0, 2, 2), true), "429 0 The disruption budget b needs 2 healthy pods and has 2 currently");
        assert_eq!(
            asked(json!({}), json!({"disruptionsAllowed": 5}), true),
            "429 10 The disruption budget b is still being processed by the server."
        );
        assert_eq!(asked(json!({}), settled(0, 1, 2), false), "429 0 The disruption budget b needs 2 healthy pods and has 1 currently");
        assert_eq!(asked(json!({}), settled(0, 2, 2), false), "free", "those that are needed are healthy");
        assert_eq!(asked(json!({"unhealthyPodEvictionPolicy": "AlwaysAllow"}), settled(0, 1, 2), false), "free");
        let mut failed = settled(0, 0, 0);
        failed["conditions"] = json!([{"type": "DisruptionAllowed", "status": "False", "reason": "SyncFailed", "message": "oh"}]);
        assert_eq!(asked(json!({}), failed, true), "429 0 The disruption budget b does not allow evicting pods currently because it failed sync: oh");
    }
}
