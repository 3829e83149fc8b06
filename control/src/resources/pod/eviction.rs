//! `pods/eviction`: a delete that says why, so that what drains a node can be told from what deletes a pod. (Disruption budgets will refuse here.)

use super::write;
use crate::pipeline::{Answer, Body, Core, Request, Verb, decode};
use coracle_api::status::Status;
use serde_json::{Value, json};
use std::sync::Arc;

/// Serves `POST …/pods/NAME/eviction`.
pub async fn evict(core: &Arc<Core>, request: &Request) -> Result<Answer, Status> {
    let (eviction, warnings) = decode::body(core, request)?;
    if eviction["metadata"]["name"].as_str().is_some_and(|name| !name.is_empty() && name != request.name) {
        return Err(Status::bad_request("name in URL does not match name in Eviction object"));
    }
    let options = match &eviction["deleteOptions"] {
        Value::Null => json!({}),
        options => options.clone(),
    };
    let mut marked = request.clone();
    marked.write.dry_run |= options["dryRun"].as_array().is_some_and(|list| !list.is_empty());
    write::change(core, &marked, &eviction, |_, pod, now| {
        mark(pod, now);
        Ok(())
    })
    .await?;
    // Whoever may evict need not be allowed to delete, so this is the delete itself and not a request for one.
    let delete = Request { verb: Verb::Delete, subresource: "".into(), body: Body::Object(options), ..marked };
    core.delete(&delete).await?;
    Ok(Answer::Value { code: 201, value: write::success(), warnings })
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
}
