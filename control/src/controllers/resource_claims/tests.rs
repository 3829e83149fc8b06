//! Claims: names, what is given back, and that giving and giving back may meet.

use super::*;
use crate::controllers::action::Chain;
use coracle_apiserver::fixture::object;
use std::sync::Arc;

fn pod(name: &str, uid: &str, more: Value) -> Arc<Object> {
    let mut pod = json!({"metadata": {"name": name, "namespace": "default", "uid": uid}});
    for (field, value) in more.as_object().into_iter().flatten() {
        pod[field] = value.clone();
    }
    object("pods", 1, pod)
}

/// What is done, as text: `status null`, `finalizers`, `delete`.
fn done(claim: Value, pods: &[Arc<Object>]) -> Vec<String> {
    let mut whole = json!({"metadata": {"name": "c", "namespace": "default", "uid": "u", "finalizers": [FINALIZER, "x/y"]}});
    for (field, value) in claim.as_object().into_iter().flatten() {
        for (name, value) in value.as_object().into_iter().flatten() {
            whole[field][name] = value.clone();
        }
    }
    told(&object(CLAIMS, 2, whole), pods)
}

fn told(stored: &Object, pods: &[Arc<Object>]) -> Vec<String> {
    let claim: Claim<'_> = parse(stored).expect("a claim");
    let told = |action: Action| match action {
        Action::Patch { subresource: "status", patch, .. } => format!("status {}", patch["status"]),
        Action::Patch { patch, .. } => format!("finalizers {}", patch["metadata"]["finalizers"]),
        Action::Delete { .. } => "delete".into(),
        other => format!("{other:?}"),
    };
    settle(&stored.key, &claim, &Snapshot::of(3, pods.iter().cloned())).into_iter().map(told).collect()
}

#[test]
fn devices_go_back_with_the_last_consumer() {
    let consumer = |name: &str, uid: &str| json!({"resource": "pods", "name": name, "uid": uid});
    let of = |consumers: Value| json!({"status": {"allocation": {"devices": {}}, "reservedFor": consumers}});
    let running = pod("a", "1", json!({"spec": {"nodeName": "n"}, "status": {"phase": "Running"}}));
    let ended = pod("b", "2", json!({"spec": {"nodeName": "n"}, "status": {"phase": "Succeeded"}}));
    let both = of(json!([consumer("a", "1"), consumer("b", "2")]));
    assert_eq!(done(both.clone(), &[running.clone(), ended.clone()]), [r#"status {"reservedFor":[{"name":"a","resource":"pods","uid":"1"}]}"#]);
    let nobody = [r#"status {"allocation":null,"reservedFor":null}"#, r#"finalizers ["x/y"]"#];
    assert_eq!(done(both, std::slice::from_ref(&ended)), nobody);
    assert_eq!(done(of(json!([consumer("a", "another")])), std::slice::from_ref(&running)), nobody, "a pod of the same name");
    assert_eq!(done(of(json!([{"apiGroup": "x", "resource": "jobs", "name": "j", "uid": "3"}])), &[]), Vec::<String>::new(), "others are not known");
    assert_eq!(done(of(json!([])), &[]), Vec::<String>::new(), "what nobody uses stays as it was given");
    let mut bare = of(json!([consumer("a", "another")]));
    bare["metadata"]["finalizers"] = json!(["x/y"]);
    assert_eq!(done(bare, &[]), [r#"status {"allocation":null,"reservedFor":null}"#], "devices go back from a claim that lost its protection, too");
    let deleted = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}, "status": {"allocation": {"devices": {}}}});
    assert_eq!(done(deleted, &[]), [r#"status {"allocation":null}"#, r#"finalizers ["x/y"]"#]);
    let owned = json!({"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "b", "uid": "2", "controller": true}]}});
    assert_eq!(done(owned.clone(), &[ended]), ["delete"]);
    assert_eq!(done(owned, &[pod("b", "2", json!({}))]), Vec::<String>::new());
}

/// One of two that write the same claim: what it decided when it read it, and how far it is.
#[derive(Default)]
struct Writer {
    left: Option<std::collections::VecDeque<Action>>,
    chain: Chain,
}

impl Writer {
    /// Its next step: it reads and decides, or writes; a refused write ends it.
    fn step(&mut self, stored: &mut Value, decide: &dyn Fn(&Value) -> Vec<Action>) {
        let Some(left) = &mut self.left else {
            self.left = Some(decide(stored).into());
            return;
        };
        let Some(mut action) = left.pop_front() else { return };
        self.chain.follow(&mut action);
        let Action::Patch { key, mut patch, .. } = action else { panic!("a patch: {action:?}") };
        let named = patch["metadata"]["resourceVersion"].take();
        if !named.is_null() && named != stored["metadata"]["resourceVersion"] {
            left.clear();
            return;
        }
        let revision = stored["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse::<u64>().ok()).expect("a revision") + 1;
        patch["metadata"]["resourceVersion"] = json!(revision.to_string());
        merge(stored, &patch);
        self.chain.wrote(key, revision);
    }
}

/// RFC 7386.
fn merge(into: &mut Value, patch: &Value) {
    let Some(fields) = patch.as_object() else {
        *into = patch.clone();
        return;
    };
    if !into.is_object() {
        *into = json!({});
    }
    for (name, value) in fields {
        match value {
            Value::Null => drop(into.as_object_mut().and_then(|into| into.remove(name))),
            value => merge(&mut into[name], value),
        }
    }
}

#[test]
fn devices_are_protected_however_giving_and_giving_back_meet() {
    let consumer = |name: &str, uid: &str| json!({"resource": "pods", "name": name, "uid": uid});
    let allocation = json!({"devices": {"results": []}});
    let give = |stored: &Value| {
        let claim: crate::scheduler::devices::model::Claim = serde_json::from_value(stored.clone()).expect("a claim");
        match (claim.status.allocation.is_some(), claim.metadata.deletion_timestamp.is_some()) {
            (false, false) => crate::scheduler::devices::give(&claim, &allocation, &consumer("new", "2")),
            _ => Vec::new(),
        }
    };
    let live = Snapshot::of(1, [pod("new", "2", json!({}))]);
    let back = |stored: &Value| {
        let stored = object(CLAIMS, 1, stored.clone());
        settle(&stored.key, &parse(&stored).expect("a claim"), &live)
    };
    let metadata = |more: Value| {
        let mut metadata = json!({"name": "c", "namespace": "default", "uid": "u", "resourceVersion": "1"});
        merge(&mut metadata, &more);
        metadata
    };
    let protected = json!({"finalizers": [FINALIZER]});
    let mut given = 0;
    for start in [
        json!({"metadata": metadata(json!({}))}),
        json!({"metadata": metadata(protected.clone())}),
        json!({"metadata": metadata(protected.clone()), "status": {"allocation": allocation, "reservedFor": [consumer("old", "1")]}}),
        json!({"metadata": metadata(json!({})), "status": {"allocation": allocation, "reservedFor": [consumer("old", "1")]}}),
        json!({"metadata": metadata(json!({})), "status": {"reservedFor": [consumer("old", "1")]}}),
        json!({"metadata": metadata(json!({"finalizers": [FINALIZER], "deletionTimestamp": "2026-01-01T00:00:00Z"})), "status": {"allocation": allocation}}),
    ] {
        // Each bit says whose turn it is; four steps are enough for both.
        for turns in 0u32..1 << 8 {
            let (mut stored, mut giver, mut taker) = (start.clone(), Writer::default(), Writer::default());
            for turn in 0..8 {
                match turns >> turn & 1 {
                    0 => giver.step(&mut stored, &give),
                    _ => taker.step(&mut stored, &back),
                }
                let kept = stored["metadata"]["finalizers"].as_array().is_some_and(|all| all.contains(&json!(FINALIZER)));
                let is_new = stored["status"]["reservedFor"][0]["name"] == "new";
                let has = stored["status"]["allocation"].is_object();
                assert!(!is_new || (kept && has), "{turns:08b} from {start}: {stored}");
                given += usize::from(is_new);
            }
        }
    }
    assert!(given > 1_000, "devices were given in {given} states only");
}

#[test]
fn long_names_are_shortened_alike() {
    assert_eq!(base("web", "gpu"), "web-gpu-");
    let name = base(&"p".repeat(60), &"c".repeat(60));
    assert_eq!((name.len(), name.matches('p').count(), name.matches('c').count()), (57, 28, 28));
}

#[test]
fn claims_are_made_as_the_template_says() {
    let stored = pod("web", "1", json!({}));
    let template = json!({"spec": {"metadata": {"labels": {"a": "b"}}, "spec": {"devices": {"requests": []}}}});
    let claim = from_template(&parse(&stored).expect("a pod"), "gpu", &template);
    assert_eq!(claim["metadata"]["generateName"], "web-gpu-");
    assert_eq!((&claim["metadata"]["labels"]["a"], &claim["metadata"]["annotations"][OF_POD]), (&json!("b"), &json!("gpu")));
    assert_eq!((&claim["metadata"]["ownerReferences"][0]["uid"], &claim["spec"]), (&json!("1"), &json!({"devices": {"requests": []}})));
}
