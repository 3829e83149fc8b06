use super::*;
use crate::controllers::stateful_set::{PARENT, claims::CLAIMS};
use coracle_apiserver::{fixture, view::parse_bytes};

const NOW: &str = "2026-01-01T00:01:00Z";

fn set(spec: Value, status: Value) -> String {
    let mut whole = json!({ "replicas": 3, "podManagementPolicy": "OrderedReady", "selector": { "matchLabels": { "app": "web" } },
        "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": { "partition": 0 } } });
    for (key, value) in spec.as_object().expect("fields") {
        whole[key] = value.clone();
    }
    json!({ "metadata": { "name": "web", "namespace": "n", "uid": "s", "generation": 2 }, "spec": whole, "status": status }).to_string()
}

/// `web-0 old ready`: name, revision, and how it is: `ready`, `new` (since 10 s), `pending`, `failed`, `going`.
fn pod(text: &str) -> String {
    let [name, revision, how] = text.split(' ').collect::<Vec<_>>()[..] else { panic!("{text}") };
    let phase = match how {
        "pending" => "Pending",
        "failed" => "Failed",
        _ => "Running",
    };
    let (ready, since) = match how {
        "ready" | "going" => ("True", "2026-01-01T00:00:00Z"),
        "new" => ("True", "2026-01-01T00:00:50Z"),
        _ => ("False", "2026-01-01T00:00:00Z"),
    };
    let mut pod = json!({ "metadata": { "name": name, "namespace": "n", "uid": format!("u-{name}"), "labels": { "statefulset.kubernetes.io/pod-name": name, "controller-revision-hash": revision } },
        "status": { "phase": phase, "conditions": [{ "type": "Ready", "status": ready, "lastTransitionTime": since }] } });
    if how == "going" {
        pod["metadata"]["deletionTimestamp"] = json!(NOW);
    }
    pod.to_string()
}

struct Outcome {
    /// `Create web-0 new` and so on, by phase; updates are the last.
    steps: Vec<String>,
    report: Value,
    again: Option<Duration>,
}

fn decide(set: &str, pods: &[&str], claims: Vec<Value>) -> Outcome {
    let texts: Vec<String> = pods.iter().map(|text| pod(text)).collect();
    let views: Vec<Pod<'_>> = texts.iter().map(|text| parse_bytes(text.as_bytes()).expect("a pod")).collect();
    let set: StatefulSet<'_> = parse_bytes(set.as_bytes()).expect("a set");
    let (old, new) = (Revision::of("old", 1, &json!({ "spec": {} })), Revision::of("new", 2, &json!({ "spec": { "x": 1 } })));
    let claims = Claims::from(claims.into_iter().map(|claim| fixture::object(CLAIMS, 1, claim)).collect());
    let owner = PARENT.reference(&set.metadata);
    // A pod whose name begins so has failed before.
    let wait = |pod: &str| pod.starts_with("again").then_some(Duration::from_secs(4));
    let now = NOW.parse().expect("time");
    let state = State { set: &set, owner: &owner, pods: &views, current: &old, update: &new, claims: &claims, wait: &wait, now };
    let decided = state.decide(0).expect("decided");
    let steps = decided.phases.iter().flatten().chain(&decided.updates).map(|step| {
        let revision = step.actions.iter().find_map(|action| match action {
            Action::Create { resource: "pods", object } => object["metadata"]["labels"]["controller-revision-hash"].as_str(),
            _ => None,
        });
        [step.verb, &step.pod, revision.unwrap_or_default()].join(" ").trim_end().to_owned()
    });
    Outcome { steps: steps.collect(), report: to_json(&decided.report), again: decided.again }
}

fn steps(spec: Value, pods: &[&str]) -> Vec<String> {
    decide(&set(spec, json!({})), pods, Vec::new()).steps
}

#[test]
fn pods_come_one_after_the_other() {
    let none: [&str; 0] = [];
    assert_eq!(steps(json!({}), &[]), ["Create web-0 new"]);
    assert_eq!(steps(json!({}), &["web-0 new pending"]), none);
    assert_eq!(steps(json!({}), &["web-0 new ready"]), ["Create web-1 new"]);
    assert_eq!(steps(json!({}), &["web-0 new going", "web-2 new ready"]), none, "the next waits until it is gone");
    assert_eq!(steps(json!({}), &["web-0 new failed", "web-1 new ready"]), ["Delete web-0"]);
    assert_eq!(steps(json!({ "minReadySeconds": 30 }), &["web-0 new new"]), none);
    assert_eq!(decide(&set(json!({ "minReadySeconds": 30 }), json!({})), &["web-0 new new"], Vec::new()).again, Some(Duration::from_secs(20)));
    assert_eq!(steps(json!({ "ordinals": { "start": 5 } }), &["web-5 new ready"]), ["Create web-6 new"]);
    assert_eq!(steps(json!({ "replicas": 0 }), &[]), none);
}

#[test]
fn a_pod_that_fails_again_and_again_stays_for_a_while() {
    let again = |spec: Value| set(spec, json!({})).replace("\"web\"", "\"again\"");
    let pods = ["again-0 new failed", "again-2 new ready"];
    let ordered = decide(&again(json!({})), &pods, Vec::new());
    assert_eq!((ordered.steps, ordered.again), (vec![], Some(Duration::from_secs(4))));
    let parallel = decide(&again(json!({ "podManagementPolicy": "Parallel" })), &pods, Vec::new());
    assert_eq!((parallel.steps, parallel.again), (vec!["Create again-1 new".into()], Some(Duration::from_secs(4))), "the others do not wait for it");
}

#[test]
fn in_parallel_all_come_at_once_and_never_too_many() {
    let parallel = |replicas: i64| json!({ "podManagementPolicy": "Parallel", "replicas": replicas });
    assert_eq!(steps(parallel(3), &["web-1 new pending"]), ["Create web-0 new", "Create web-2 new"]);
    let outcome = decide(&set(parallel(i64::from(i32::MAX)), json!({})), &[], Vec::new());
    assert_eq!((outcome.steps.len(), outcome.again), (BURST, Some(Duration::ZERO)));
    assert_eq!(steps(parallel(1), &["web-0 new pending", "web-1 new pending", "web-2 new ready"]), ["Delete web-2", "Delete web-1"]);
}

#[test]
fn the_last_goes_first() {
    let two = json!({ "replicas": 1 });
    let none: [&str; 0] = [];
    assert_eq!(steps(two.clone(), &["web-0 new ready", "web-1 new ready", "web-2 new ready"]), ["Delete web-2"]);
    assert_eq!(steps(two.clone(), &["web-0 new ready", "web-1 new ready", "web-2 new going"]), none);
    assert_eq!(steps(two.clone(), &["web-0 new pending", "web-1 new ready"]), none, "nothing goes while a wanted pod is not well");
    assert_eq!(steps(two.clone(), &["web-0 new ready", "web-1 new pending", "web-2 new pending"]), none, "the first that is not well goes first");
    assert_eq!(steps(two.clone(), &["web-0 new ready", "web-1 new ready", "web-2 new pending"]), ["Delete web-2"]);
    assert_eq!(steps(json!({ "replicas": 1, "ordinals": { "start": 1 } }), &["web-0 new ready", "web-1 new ready"]), ["Delete web-0"]);
}

#[test]
fn updates_go_down_to_the_partition() {
    let all = ["web-0 old ready", "web-1 old ready", "web-2 old ready"];
    let rolling = |rolling: Value| json!({ "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": rolling } });
    let none: [&str; 0] = [];
    assert_eq!(steps(json!({}), &all), ["Delete web-2"]);
    assert_eq!(steps(json!({}), &[all[0], all[1], "web-2 new ready"]), ["Delete web-1"]);
    assert_eq!(steps(json!({ "minReadySeconds": 30 }), &[all[0], all[1], "web-2 new new"]), none);
    assert_eq!(steps(rolling(json!({ "partition": 2 })), &[all[0], all[1], "web-2 new ready"]), none);
    assert_eq!(steps(rolling(json!({ "partition": 2 })), &[all[0], "web-2 new ready"]), ["Create web-1 old"], "below the partition the old stays");
    assert_eq!(steps(json!({ "updateStrategy": { "type": "OnDelete" } }), &all), none);
    assert_eq!(steps(json!({ "updateStrategy": { "type": "OnDelete" } }), &all[1..]), ["Create web-0 new"]);
    let three = |most: Value| rolling(json!({ "partition": 1, "maxUnavailable": most }));
    assert_eq!(steps(three(json!(3)), &all), ["Delete web-2", "Delete web-1"]);
    assert_eq!(steps(three(json!("10%")), &all), ["Delete web-2"], "at least one");
    let parallel =
        json!({ "podManagementPolicy": "Parallel", "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": 2 } } });
    assert_eq!(steps(parallel, &[all[0], all[1], "web-2 new pending"]), ["Delete web-1"], "one is missing already");
}

#[test]
fn without_a_partition_the_count_says_where_a_pod_is_from() {
    let spec = json!({ "updateStrategy": { "type": "RollingUpdate" } });
    let outcome = decide(&set(spec, json!({ "currentReplicas": 1 })), &["web-2 new ready"], Vec::new());
    assert_eq!(outcome.steps, ["Create web-0 old"]);
}

#[test]
fn counts_and_the_end_of_an_update() {
    let report = |pods: &[&str]| decide(&set(json!({ "minReadySeconds": 30 }), json!({})), pods, Vec::new()).report;
    assert_eq!(
        report(&["web-0 old ready", "web-1 new new", "web-2 new going"]),
        json!({ "observedGeneration": 2, "replicas": 3, "readyReplicas": 3, "currentReplicas": 1, "updatedReplicas": 1, "availableReplicas": 2,
            "currentRevision": "old", "updateRevision": "new", "collisionCount": 0 })
    );
    let done = report(&["web-0 new ready", "web-1 new ready", "web-2 new ready"]);
    assert_eq!((&done["currentRevision"], &done["currentReplicas"]), (&json!("new"), &json!(3)));
}

#[test]
fn claims_come_before_their_pod() {
    let spec = json!({ "volumeClaimTemplates": [{ "metadata": { "name": "data" }, "spec": {} }],
        "persistentVolumeClaimRetentionPolicy": { "whenScaled": "Delete", "whenDeleted": "Retain" } });
    let claim = |extra: Value| {
        let mut claim = json!({ "metadata": { "name": "data-web-0", "namespace": "n", "uid": "c" } });
        for (key, value) in extra.as_object().expect("fields") {
            claim["metadata"][key] = value.clone();
        }
        claim
    };
    let text = set(spec, json!({}));
    let whole: StatefulSet<'_> = parse_bytes(text.as_bytes()).expect("a set");
    let revision = Revision::of("new", 1, &json!({ "spec": {} }));
    let owner = PARENT.reference(&whole.metadata);
    let claims = Claims::from(Vec::new());
    let state = State {
        set: &whole,
        owner: &owner,
        pods: &[],
        current: &revision,
        update: &revision,
        claims: &claims,
        wait: &|_| None,
        now: NOW.parse().expect("time"),
    };
    let decided = state.decide(0).expect("decided");
    let kinds: Vec<_> = decided.phases[0][0].actions.iter().map(|a| if let Action::Create { resource, .. } = a { *resource } else { "" }).collect();
    assert_eq!(kinds, [CLAIMS, "pods"]);
    let none: [&str; 0] = [];
    let stale = claim(json!({ "ownerReferences": [{ "apiVersion": "v1", "kind": "Pod", "name": "web-0", "uid": "before", "controller": true }] }));
    assert_eq!(decide(&text, &[], vec![stale]).steps, none, "its claim is still that of the pod before");
    assert_eq!(decide(&text, &["web-0 new pending"], Vec::new()).steps, ["Update web-0"], "a pod that waits may wait for its claim");
    assert_eq!(decide(&text, &["web-0 new pending"], vec![claim(json!({}))]).steps, none);
}

#[test]
fn a_set_that_goes_only_reports() {
    let mut going: Value = serde_json::from_str(&set(json!({}), json!({}))).expect("json");
    going["metadata"]["deletionTimestamp"] = json!(NOW);
    let outcome = decide(&going.to_string(), &["web-0 new ready"], Vec::new());
    assert_eq!((outcome.steps.len(), &outcome.report["replicas"]), (0, &json!(1)));
}
