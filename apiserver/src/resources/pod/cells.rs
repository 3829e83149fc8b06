//! The row of a pod in `kubectl get pods`: what its containers' states add up to in one word.

use crate::resources::{
    age,
    cells::{self, count, is_true, list, text_or},
};
use serde_json::Value;

/// Headings, in the order of [`cells()`].
pub const HEADINGS: &[cells::Heading] = &[
    cells::NAME,
    ("Ready", "How many of its containers are ready, of how many."),
    ("Status", "What the states of its containers add up to."),
    ("Restarts", "How often its containers were restarted, and when last."),
    cells::AGE,
    ("+IP", "Address of the pod in the cluster."),
    ("+Node", "Node that it is bound to."),
    ("+Nominated Node", "Node on which room is being made for it."),
    ("+Readiness Gates", "How many of its extra readiness conditions hold, of how many."),
];

/// Restarts, and the latest time at which a container had ended before one.
#[derive(Clone, Copy, Default)]
struct Restarts<'a> {
    count: i64,
    last: &'a str,
}

impl<'a> Restarts<'a> {
    fn add(&mut self, status: &'a Value) {
        self.count += count(&status["restartCount"]);
        let finished = status["lastState"]["terminated"]["finishedAt"].as_str().unwrap_or_default();
        // RFC 3339 in UTC with whole seconds sorts as text.
        if finished > self.last {
            self.last = finished;
        }
    }
}

/// `Reason`, or else `Signal:9`, or else `ExitCode:1`.
fn ended(terminated: &Value) -> String {
    match (terminated["reason"].as_str().unwrap_or_default(), count(&terminated["signal"])) {
        ("", 0) => format!("ExitCode:{}", count(&terminated["exitCode"])),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.into(),
    }
}

/// Whether an init container of this name restarts always (a sidecar).
fn is_sidecar(spec: &Value, name: &Value) -> bool {
    list(&spec["initContainers"]).iter().any(|container| container["name"] == *name && container["restartPolicy"] == "Always")
}

/// The cells of one pod.
pub fn cells(pod: &Value) -> Vec<Value> {
    let (spec, status) = (&pod["spec"], &pod["status"]);
    let conditions = &status["conditions"];
    let phase = status["phase"].as_str().unwrap_or_default();
    let mut reason = text_or(&status["reason"], phase);
    if list(conditions).iter().any(|c| c["type"] == "PodScheduled" && c["reason"] == "SchedulingGated") {
        reason = "SchedulingGated".into();
    }
    let inits = list(&spec["initContainers"]);
    let total = list(&spec["containers"]).len() + inits.iter().filter(|c| c["restartPolicy"] == "Always").count();
    let mut ready = 0;
    let mut restarts = Restarts::default();
    let mut of_sidecars = Restarts::default();
    let mut initializing = false;

    for (place, container) in list(&status["initContainerStatuses"]).iter().enumerate() {
        restarts.add(container);
        let sidecar = is_sidecar(spec, &container["name"]);
        if sidecar {
            of_sidecars.add(container);
        }
        let (terminated, waiting) = (&container["state"]["terminated"], container["state"]["waiting"]["reason"].as_str().unwrap_or_default());
        if terminated.is_object() && count(&terminated["exitCode"]) == 0 {
            continue;
        }
        if sidecar && container["started"] == true {
            ready += usize::from(container["ready"] == true);
            continue;
        }
        reason = match waiting {
            _ if terminated.is_object() => format!("Init:{}", ended(terminated)),
            "" | "PodInitializing" => format!("Init:{place}/{}", inits.len()),
            waiting => format!("Init:{waiting}"),
        };
        initializing = true;
        break;
    }

    if !initializing || is_true(conditions, "Initialized") {
        restarts = of_sidecars;
        let (mut running, mut failed) = (false, String::new());
        for container in list(&status["containerStatuses"]).iter().rev() {
            restarts.add(container);
            let (state, waiting) = (&container["state"], container["state"]["waiting"]["reason"].as_str().unwrap_or_default());
            if !waiting.is_empty() {
                reason = waiting.into();
            } else if state["terminated"].is_object() {
                reason = ended(&state["terminated"]);
                if count(&state["terminated"]["exitCode"]) != 0 {
                    failed = reason.clone();
                }
            } else if container["ready"] == true && state["running"].is_object() {
                running = true;
                ready += 1;
            }
        }
        // One container that is done does not make the pod done.
        if reason == "Completed" {
            if running && is_true(conditions, "Ready") {
                reason = "Running".into();
            } else if !failed.is_empty() {
                reason = failed;
            } else if running {
                reason = "NotReady".into();
            }
        }
    }

    if pod["metadata"]["deletionTimestamp"].is_string() {
        if status["reason"] == "NodeLost" {
            reason = "Unknown".into();
        } else if !matches!(phase, "Succeeded" | "Failed") {
            reason = "Terminating".into();
        }
    }
    let restarts = match restarts {
        Restarts { count, last } if count != 0 && !last.is_empty() => format!("{count} ({} ago)", age::moment(last)),
        Restarts { count, .. } => count.to_string(),
    };
    vec![
        cells::name(pod),
        format!("{ready}/{total}").into(),
        reason.into(),
        restarts.into(),
        age::of(pod),
        text_or(&status["podIPs"][0]["ip"], &text_or(&status["podIP"], "<none>")).into(),
        text_or(&spec["nodeName"], "<none>").into(),
        text_or(&status["nominatedNodeName"], "<none>").into(),
        readiness_gates(spec, conditions).into(),
    ]
}

fn readiness_gates(spec: &Value, conditions: &Value) -> String {
    match list(&spec["readinessGates"]) {
        [] => "<none>".into(),
        gates => {
            let open = gates.iter().filter(|gate| gate["conditionType"].as_str().is_some_and(|kind| is_true(conditions, kind))).count();
            format!("{open}/{}", gates.len())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const NOW: &str = "2026-01-02T03:04:05Z";

    fn row(status: Value, change: impl FnOnce(&mut Value)) -> String {
        let mut pod = json!({
            "metadata": {"name": "web", "creationTimestamp": "2026-01-02T03:00:53Z"},
            "spec": {"containers": [{"name": "a"}, {"name": "b"}]},
            "status": status,
        });
        change(&mut pod);
        let all = cells(&pod);
        assert_eq!(all.len(), HEADINGS.len());
        cells::golden(&all[..5], NOW)
    }

    fn running(name: &str) -> Value {
        json!({"name": name, "ready": true, "restartCount": 0, "state": {"running": {"startedAt": NOW}}})
    }

    #[test]
    fn rows_read_as_kubectl_prints_them() {
        let nothing = |_: &mut Value| {};
        assert_eq!(row(json!({"phase": "Pending"}), nothing), "web | 0/2 | Pending | 0 | 3m12s");
        let ready = json!([{"type": "Ready", "status": "True"}]);
        let both = json!({"phase": "Running", "conditions": ready, "containerStatuses": [running("a"), running("b")]});
        assert_eq!(row(both.clone(), nothing), "web | 2/2 | Running | 0 | 3m12s");
        assert_eq!(row(both.clone(), |pod| pod["metadata"]["deletionTimestamp"] = NOW.into()), "web | 2/2 | Terminating | 0 | 3m12s");
        let crash = json!({"name": "a", "ready": false, "restartCount": 5, "state": {"waiting": {"reason": "CrashLoopBackOff"}},
            "lastState": {"terminated": {"exitCode": 1, "finishedAt": "2026-01-02T03:04:02Z"}}});
        let status = json!({"phase": "Running", "containerStatuses": [crash, running("b")]});
        assert_eq!(row(status, nothing), "web | 1/2 | CrashLoopBackOff | 5 (3s ago) | 3m12s");
        let done = |code: i64, reason: &str| json!({"name": "a", "restartCount": 0, "state": {"terminated": {"exitCode": code, "reason": reason}}});
        let status = |a: Value, b: Value| json!({"phase": "Running", "containerStatuses": [a, b], "conditions": ready});
        assert_eq!(row(status(done(0, "Completed"), done(0, "Completed")), nothing), "web | 0/2 | Completed | 0 | 3m12s");
        assert_eq!(row(status(done(0, "Completed"), running("b")), nothing), "web | 1/2 | Running | 0 | 3m12s");
        assert_eq!(row(status(done(0, "Completed"), done(3, "Error")), nothing), "web | 0/2 | Error | 0 | 3m12s");
        assert_eq!(row(status(done(137, "OOMKilled"), running("b")), nothing), "web | 1/2 | OOMKilled | 0 | 3m12s");
        assert_eq!(row(status(done(2, ""), running("b")), nothing), "web | 1/2 | ExitCode:2 | 0 | 3m12s");
        assert_eq!(row(json!({"phase": "Failed", "reason": "Evicted"}), nothing), "web | 0/2 | Evicted | 0 | 3m12s");
    }

    #[test]
    fn init_containers_come_first() {
        let with_init = |pod: &mut Value| pod["spec"]["initContainers"] = json!([{"name": "i"}, {"name": "s", "restartPolicy": "Always"}]);
        let init = |state: Value| json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "restartCount": 2, "state": state}]});
        assert_eq!(row(init(json!({"running": {}})), with_init), "web | 0/3 | Init:0/2 | 2 | 3m12s");
        assert_eq!(row(init(json!({"waiting": {"reason": "ErrImagePull"}})), with_init), "web | 0/3 | Init:ErrImagePull | 2 | 3m12s");
        assert_eq!(row(init(json!({"terminated": {"exitCode": 1, "reason": "Error"}})), with_init), "web | 0/3 | Init:Error | 2 | 3m12s");
        assert_eq!(row(init(json!({"terminated": {"exitCode": 1, "signal": 9}})), with_init), "web | 0/3 | Init:Signal:9 | 2 | 3m12s");
        let status = json!({"phase": "Running", "containerStatuses": [running("a"), running("b")], "initContainerStatuses": [
            {"name": "i", "restartCount": 2, "state": {"terminated": {"exitCode": 0}}},
            {"name": "s", "restartCount": 1, "started": true, "ready": true, "state": {"running": {}}}]});
        assert_eq!(row(status, with_init), "web | 3/3 | Running | 1 | 3m12s");
    }

    #[test]
    fn wide_cells_name_what_is_there() {
        let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n1", "readinessGates": [{"conditionType": "x/y"}, {"conditionType": "z"}]},
            "status": {"podIPs": [{"ip": "10.244.0.5"}], "conditions": [{"type": "z", "status": "True"}]}});
        assert_eq!(cells::golden(&cells(&pod)[4..], NOW), "<unknown> | 10.244.0.5 | n1 | <none> | 1/2");
    }
}
