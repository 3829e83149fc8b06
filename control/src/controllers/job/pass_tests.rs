//! A small world of one Job and its pods.

use super::*;
use crate::controllers::job::{
    TRACKING,
    make::{FAILURES, IGNORED, INDEX},
};
use coracle_apiserver::view::parse_bytes;

struct World {
    job: Value,
    pods: Vec<Value>,
    made: usize,
    now: Timestamp,
    events: Vec<&'static str>,
    expired: bool,
}

impl World {
    fn new(spec: Value) -> Self {
        let job = json!({ "metadata": { "name": "j", "namespace": "n", "uid": "ju" }, "spec": spec });
        Self { job, pods: Vec::new(), made: 0, now: "2026-01-01T00:00:00Z".parse().expect("time"), events: Vec::new(), expired: false }
    }

    /// One pass: whether it did anything, and when it wants to look again.
    fn pass(&mut self) -> (bool, Option<Duration>) {
        let text = self.job.to_string();
        let texts: Vec<String> = self.pods.iter().map(Value::to_string).collect();
        let job: Job<'_> = parse_bytes(text.as_bytes()).expect("job");
        let pods: Vec<Pod<'_>> = texts.iter().map(|pod| parse_bytes(pod.as_bytes()).expect("pod")).collect();
        let decided = decide(&job, &pods, self.now);
        let again = decided.again;
        let did = Decided { again: None, ..decided.clone() } != Decided::default();
        let patched =
            |actions: Vec<Action>| actions.into_iter().map(|action| if let Action::Patch { key, .. } = action { key } else { panic!("a patch") });
        for key in patched(decided.given_up) {
            self.pod(&key.name)["metadata"]["finalizers"] = json!([]);
        }
        for (key, _) in &decided.deletions {
            self.pod(&key.name)["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        for new in decided.create {
            self.made += 1;
            let name = format!("p{}", self.made);
            let mut annotations = new.index.map_or(json!({}), |i| json!({ INDEX: i.to_string() }));
            if let Some((failures, ignored)) = new.failures {
                annotations[FAILURES] = json!(failures.to_string());
                annotations[IGNORED] = json!(ignored.to_string());
            }
            self.pods.push(json!({
                "metadata": { "name": name, "namespace": "n", "uid": name, "finalizers": [TRACKING], "annotations": annotations },
                "status": { "phase": "Pending" },
            }));
        }
        if let Some(report) = &decided.report {
            self.job["status"] = to_json(report);
        }
        for event in decided.events {
            let Action::Event { reason, .. } = event else { panic!("an event") };
            self.events.push(reason);
        }
        for key in patched(decided.releases) {
            self.pod(&key.name)["metadata"]["finalizers"] = json!([]);
        }
        self.expired |= decided.expired;
        (did, again)
    }

    fn pod(&mut self, name: &str) -> &mut Value {
        self.pods.iter_mut().find(|pod| pod["metadata"]["name"] == name).expect("the pod")
    }

    fn end(&mut self, name: &str, phase: &str) {
        let at = stamp(self.now);
        self.pod(name)["status"] = json!({ "phase": phase, "containerStatuses": [{ "state": { "terminated": { "finishedAt": at } } }] });
    }

    /// Passes until nothing is to be done now; pods that are deleted go.
    fn settle(&mut self) -> Option<Duration> {
        for _ in 0..50 {
            let (did, again) = self.pass();
            let before = self.pods.len();
            self.pods.retain(|pod| pod["metadata"].get("deletionTimestamp").is_none() || pod["metadata"]["finalizers"] != json!([]));
            if !did && before == self.pods.len() {
                return again;
            }
        }
        panic!("does not settle: {}", self.job);
    }

    fn active(&self) -> Vec<String> {
        let active = self.pods.iter().filter(|pod| pod["status"]["phase"] == "Pending" && pod["metadata"].get("deletionTimestamp").is_none());
        active.map(|pod| pod["metadata"]["name"].as_str().unwrap_or("").to_owned()).collect()
    }
    fn status(&self, field: &str) -> i64 {
        self.job["status"][field].as_i64().unwrap_or(0)
    }
    fn conditions(&self) -> Vec<String> {
        let list = self.job["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let set = list.iter().filter(|c| c["status"] == "True");
        set.map(|c| format!("{}:{}", c["type"].as_str().unwrap_or(""), c["reason"].as_str().unwrap_or(""))).collect()
    }
}

#[test]
fn completions_are_reached_with_so_many_at_once() {
    let mut world = World::new(json!({ "parallelism": 2, "completions": 3 }));
    world.settle();
    assert_eq!(world.active(), ["p1", "p2"]);
    world.end("p1", "Succeeded");
    world.settle();
    assert_eq!((world.active(), world.status("succeeded")), (vec!["p2".to_owned(), "p3".to_owned()], 1));
    world.end("p2", "Succeeded");
    world.settle();
    assert_eq!(world.active(), ["p3"], "only one is still missing");
    world.end("p3", "Succeeded");
    world.settle();
    assert_eq!((world.status("succeeded"), world.status("active")), (3, 0));
    assert_eq!(world.conditions(), ["SuccessCriteriaMet:CompletionsReached", "Complete:CompletionsReached"]);
    assert_eq!(world.events, ["Completed"]);
    assert!(world.job["status"]["completionTime"].is_string());
    assert!(world.pods.iter().all(|pod| pod["metadata"]["finalizers"] == json!([])), "no pod is held any more");
}

#[test]
fn failures_wait_and_end_the_job_at_the_limit() {
    let mut world = World::new(json!({ "parallelism": 1, "completions": 1, "backoffLimit": 1 }));
    world.settle();
    world.end("p1", "Failed");
    assert_eq!(world.settle(), Some(Duration::from_secs(10)));
    assert_eq!((world.status("failed"), world.active().len()), (1, 0));
    world.now += SignedDuration::from_secs(10);
    world.settle();
    assert_eq!(world.active(), ["p2"]);
    world.end("p2", "Failed");
    world.settle();
    assert_eq!(world.conditions(), ["FailureTarget:BackoffLimitExceeded", "Failed:BackoffLimitExceeded"]);
    assert_eq!((world.status("failed"), world.made, &world.events[..]), (2, 2, &["BackoffLimitExceeded"][..]));
}

#[test]
fn a_pod_is_counted_once_even_if_writes_are_lost_between() {
    let mut world = World::new(json!({ "parallelism": 1, "completions": 2 }));
    world.settle();
    world.end("p1", "Succeeded");
    let pods = world.pods.clone();
    world.pass();
    // The status was written, the finalizer was not taken away.
    world.pods = pods;
    world.pass();
    assert_eq!(world.job["status"]["uncountedTerminatedPods"]["succeeded"], json!(["p1"]));
    world.settle();
    assert_eq!(world.status("succeeded"), 1);
    // The pod goes altogether: it stays counted.
    world.pods.retain(|pod| pod["metadata"]["name"] != "p1");
    world.settle();
    assert_eq!(world.status("succeeded"), 1);
}

#[test]
fn the_deadline_ends_a_job_and_its_pods() {
    let mut world = World::new(json!({ "activeDeadlineSeconds": 60, "completions": 1 }));
    assert_eq!(world.settle(), Some(Duration::from_secs(60)));
    world.now += SignedDuration::from_secs(61);
    world.settle();
    assert_eq!(world.conditions(), ["FailureTarget:DeadlineExceeded", "Failed:DeadlineExceeded"]);
    assert!(world.active().is_empty());
}

#[test]
fn a_suspended_job_gives_its_pods_up_and_comes_back() {
    let mut world = World::new(json!({ "parallelism": 2, "completions": 2 }));
    world.settle();
    world.job["spec"]["suspend"] = json!(true);
    world.settle();
    assert!(world.active().is_empty());
    assert_eq!(world.conditions(), ["Suspended:JobSuspended"]);
    assert!(world.job["status"].get("startTime").is_none());
    world.job["spec"]["suspend"] = json!(false);
    world.now += SignedDuration::from_secs(3600);
    world.settle();
    assert_eq!(world.active().len(), 2);
    assert_eq!((world.status("failed"), &world.events[..]), (0, &["Suspended", "Resumed"][..]), "pods given up are no failures");
    world.job["spec"]["parallelism"] = json!(1);
    world.settle();
    assert_eq!((world.active().len(), world.status("failed")), (1, 0));
}

#[test]
fn indexes_are_completed_one_by_one() {
    let mut world = World::new(json!({ "parallelism": 2, "completions": 4, "completionMode": "Indexed" }));
    world.settle();
    let index = |world: &World, name: &str| {
        let pod = world.pods.iter().find(|p| p["metadata"]["name"] == name);
        pod.map(|p| p["metadata"]["annotations"][INDEX].as_str().unwrap_or("").to_owned())
    };
    assert_eq!((index(&world, "p1").as_deref(), index(&world, "p2").as_deref()), (Some("0"), Some("1")));
    world.end("p2", "Succeeded");
    world.settle();
    assert_eq!((world.job["status"]["completedIndexes"].as_str(), index(&world, "p3").as_deref()), (Some("1"), Some("2")));
    world.now += SignedDuration::from_secs(1);
    world.end("p1", "Failed");
    world.settle();
    world.now += SignedDuration::from_secs(10);
    world.settle();
    assert_eq!(index(&world, "p4").as_deref(), Some("0"), "the failed index is tried again");
    for pod in ["p3", "p4"] {
        world.end(pod, "Succeeded");
    }
    world.settle();
    assert_eq!(index(&world, "p5").as_deref(), Some("3"));
    world.end("p5", "Succeeded");
    world.settle();
    assert_eq!((world.job["status"]["completedIndexes"].as_str(), world.status("succeeded"), world.status("failed")), (Some("0-3"), 4, 1));
    assert_eq!(world.conditions().last().map(String::as_str), Some("Complete:CompletionsReached"));
}

#[test]
fn a_finished_job_lives_for_its_time() {
    let mut world = World::new(json!({ "completions": 1, "ttlSecondsAfterFinished": 30 }));
    world.settle();
    world.end("p1", "Succeeded");
    assert_eq!(world.settle(), Some(Duration::from_secs(30)));
    assert!(!world.expired);
    world.now += SignedDuration::from_secs(30);
    world.pass();
    assert!(world.expired);
}

#[test]
fn one_success_ends_a_work_queue() {
    let mut world = World::new(json!({ "parallelism": 2 }));
    world.settle();
    world.end("p1", "Succeeded");
    world.settle();
    assert_eq!((world.active(), world.conditions().len()), (vec!["p2".to_owned()], 0));
    world.end("p2", "Succeeded");
    world.settle();
    assert_eq!(world.status("succeeded"), 2);
    assert_eq!(world.conditions().len(), 2);
}

fn world(spec: Value) -> World {
    let mut world = World::new(spec);
    world.settle();
    world
}

fn ended(world: &mut World, name: &str, code: i64) {
    let at = stamp(world.now);
    let state = json!({ "terminated": { "finishedAt": at, "exitCode": code } });
    world.pod(name)["status"] = json!({ "phase": "Failed", "containerStatuses": [{ "name": "main", "state": state }] });
}

#[test]
fn a_policy_may_fail_the_job_or_look_away() {
    let rules = json!([{ "action": "FailJob", "onExitCodes": { "operator": "In", "values": [42] } },
        { "action": "Ignore", "onExitCodes": { "operator": "In", "values": [7] } }]);
    let mut world = world(json!({ "parallelism": 2, "completions": 2, "backoffLimit": 0, "podFailurePolicy": { "rules": rules } }));
    ended(&mut world, "p1", 7);
    world.settle();
    assert_eq!((world.status("failed"), world.conditions().len()), (0, 0), "it does not count");
    world.now += SignedDuration::from_secs(10);
    world.settle();
    ended(&mut world, "p2", 42);
    world.settle();
    assert_eq!(world.conditions(), ["FailureTarget:PodFailurePolicy", "Failed:PodFailurePolicy"]);
    let message = world.job["status"]["conditions"][1]["message"].as_str().unwrap_or_default().to_owned();
    assert_eq!(message, "Container main for pod n/p2 failed with exit code 42 matching FailJob rule at index 0");
    assert_eq!((world.active().len(), world.status("failed")), (0, 2), "what ran has failed, too");
}

#[test]
fn each_index_has_its_own_limit() {
    let spec = json!({ "parallelism": 2, "completions": 2, "completionMode": "Indexed", "backoffLimitPerIndex": 1, "backoffLimit": i32::MAX });
    let mut world = world(spec);
    world.end("p1", "Failed");
    assert_eq!(world.settle(), Some(Duration::from_secs(10)));
    assert!(
        world.pods.iter().any(|pod| pod["metadata"]["name"] == "p1" && pod["metadata"]["finalizers"] == json!([TRACKING])),
        "held for its successor"
    );
    world.now += SignedDuration::from_secs(10);
    world.settle();
    assert_eq!((world.active(), world.status("failed")), (vec!["p2".to_owned(), "p3".to_owned()], 1));
    assert_eq!(world.pod("p3")["metadata"]["annotations"][FAILURES], "1");
    world.end("p3", "Failed");
    world.settle();
    assert_eq!((world.job["status"]["failedIndexes"].as_str(), world.active()), (Some("0"), vec!["p2".to_owned()]));
    world.end("p2", "Succeeded");
    world.settle();
    assert_eq!(world.conditions(), ["FailureTarget:FailedIndexes", "Failed:FailedIndexes"]);
    assert_eq!((world.job["status"]["completedIndexes"].as_str(), world.status("failed")), (Some("1"), 2));
}

#[test]
fn too_many_failed_indexes_end_the_job() {
    let spec = json!({ "parallelism": 3, "completions": 9, "completionMode": "Indexed", "backoffLimitPerIndex": 0, "maxFailedIndexes": 1, "backoffLimit": i32::MAX });
    let mut world = world(spec);
    world.end("p1", "Failed");
    world.settle();
    assert_eq!((world.conditions().len(), world.active().len()), (0, 3), "the next index takes its place");
    world.end("p2", "Failed");
    world.settle();
    assert_eq!(world.conditions(), ["FailureTarget:MaxFailedIndexesExceeded", "Failed:MaxFailedIndexesExceeded"]);
    assert_eq!(world.events, ["MaxFailedIndexesExceeded"]);
}

#[test]
fn success_may_come_early() {
    let policy = json!({ "rules": [{ "succeededIndexes": "0" }] });
    let mut world = world(json!({ "parallelism": 3, "completions": 3, "completionMode": "Indexed", "successPolicy": policy }));
    world.end("p1", "Succeeded");
    world.settle();
    assert_eq!(world.conditions(), ["SuccessCriteriaMet:SuccessPolicy", "Complete:SuccessPolicy"]);
    assert_eq!((world.status("succeeded"), world.status("failed"), world.active().len()), (1, 0, 0), "what was left over has not failed");
}

#[test]
fn only_what_ended_is_replaced_if_so_wanted() {
    let mut world = world(json!({ "parallelism": 1, "completions": 1, "podReplacementPolicy": "Failed" }));
    world.pod("p1")["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    world.settle();
    assert_eq!((world.active().len(), world.status("terminating"), world.status("failed")), (0, 1, 0));
    world.end("p1", "Failed");
    world.settle();
    world.now += SignedDuration::from_secs(10);
    world.settle();
    assert_eq!((world.active(), world.status("failed")), (vec!["p2".to_owned()], 1));
}

#[test]
fn two_pods_of_an_index_are_one_too_many() {
    let mut world = world(json!({ "parallelism": 2, "completions": 2, "completionMode": "Indexed" }));
    let mut twin = world.pods[0].clone();
    for field in ["name", "uid"] {
        twin["metadata"][field] = json!("twin");
    }
    twin["status"]["phase"] = json!("Running");
    world.pods.push(twin);
    let mut stray = world.pods[0].clone();
    for field in ["name", "uid"] {
        stray["metadata"][field] = json!("stray");
    }
    stray["metadata"]["annotations"][INDEX] = json!("9");
    world.pods.push(stray);
    world.settle();
    let left: Vec<&str> = world.pods.iter().filter_map(|pod| pod["metadata"]["name"].as_str()).collect();
    assert_eq!(left, ["p2", "twin"], "the one that has done more stays");
    assert_eq!(world.status("failed"), 0);
}

#[test]
fn a_job_of_nothing_is_done_at_once() {
    let world = world(json!({ "parallelism": 1, "completions": 0 }));
    assert_eq!(world.conditions(), ["SuccessCriteriaMet:CompletionsReached", "Complete:CompletionsReached"]);
    assert_eq!(world.made, 0);
}
