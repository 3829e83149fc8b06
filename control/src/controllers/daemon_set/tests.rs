//! The decisions of a DaemonSet: nodes, pods that come and go, updates, counts.

use super::{manage::Wanted, *};
use coracle_apiserver::view::{Meta, parse_bytes};
use serde_json::json;

const NOW: &str = "2026-01-01T00:01:00Z";

fn set(spec: Value) -> String {
    let mut whole = json!({ "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": 1, "maxSurge": 0 } } });
    for (key, value) in spec.as_object().expect("fields") {
        whole[key] = value.clone();
    }
    json!({ "metadata": { "name": "d", "namespace": "n", "uid": "s", "generation": 2 }, "spec": whole }).to_string()
}

fn surging(surge: Value) -> Value {
    json!({ "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": 0, "maxSurge": surge } } })
}

/// `a n1 old ready`: name, node (`?n1` if not bound yet), revision, and how it is.
fn pod(text: &str) -> Arc<Object> {
    let [name, node, revision, how] = text.split(' ').collect::<Vec<_>>()[..] else { panic!("{text}") };
    let (phase, ready) = match how {
        "ready" | "going" => ("Running", "True"),
        "failed" => ("Failed", "False"),
        "done" => ("Succeeded", "False"),
        _ => ("Pending", "False"),
    };
    let mut pod = json!({ "metadata": { "name": name, "namespace": "n", "uid": name, "creationTimestamp": format!("2026-01-01T00:00:0{}Z", name.len()),
            "labels": { "controller-revision-hash": revision } }, "spec": {},
        "status": { "phase": phase, "conditions": [{ "type": "Ready", "status": ready, "lastTransitionTime": "2026-01-01T00:00:00Z" }] } });
    match node.strip_prefix('?') {
        None => pod["spec"]["nodeName"] = json!(node),
        Some(node) => {
            let template = template::Template::new(&json!({}), &Meta::default(), "h");
            pod["spec"] = template.pod("n", &PARENT.reference(&Meta::default()), node)["spec"].clone();
        }
    }
    if how == "going" {
        pod["metadata"]["deletionTimestamp"] = json!(NOW);
    }
    coracle_apiserver::fixture::object("pods", 1, pod)
}

/// Nodes: `n1` is wanted, `-n1` is kept only, `!n1` neither.
fn host(text: &str) -> Host {
    let name = text.trim_start_matches(['-', '!']);
    Host { name: name.into(), wanted: name == text, kept: !text.starts_with('!') }
}

struct Case {
    set: String,
    hosts: Vec<Host>,
    objects: Vec<Arc<Object>>,
}

impl Case {
    fn new(spec: Value, hosts: &[&str], pods: &[&str]) -> Self {
        Self { set: set(spec), hosts: hosts.iter().map(|text| host(text)).collect(), objects: pods.iter().map(|text| pod(text)).collect() }
    }

    fn with<T>(&self, look: impl FnOnce(&DaemonSet<'_>, &ByNode<'_, '_>, &template::Template) -> T) -> T {
        let set: DaemonSet<'_> = parse_bytes(self.set.as_bytes()).expect("a set");
        let pods = views(&self.objects).expect("pods");
        let nodes = by_node(&self.objects, &pods).expect("nodes");
        look(&set, &nodes, &template::Template::new(&json!({}), &set.metadata, "new"))
    }

    fn manage(&self, left: Option<u64>) -> Wanted {
        self.with(|set, nodes, template| {
            manage::decide(set, &self.hosts, nodes, template, &|_| left.map(Duration::from_secs), NOW.parse().expect("time"))
        })
    }

    /// `+n1` for a pod that comes to a node, `-a` for a pod that goes.
    fn roll(&self) -> Vec<String> {
        let mut wanted = Wanted::default();
        self.with(|set, nodes, template| roll::decide(set, &self.hosts, nodes, template, NOW.parse().expect("time"), &mut wanted));
        shown(&wanted)
    }

    fn managed(&self) -> Vec<String> {
        shown(&self.manage(None))
    }
}

fn shown(wanted: &Wanted) -> Vec<String> {
    let create = wanted.create.iter().map(|node| format!("+{node}"));
    create.chain(wanted.delete.iter().map(|(key, _)| format!("-{}", key.name))).collect()
}

const NOTHING: [&str; 0] = [];

#[test]
fn every_chosen_node_gets_one_pod() {
    let managed = |hosts: &[&str], pods: &[&str]| Case::new(json!({}), hosts, pods).managed();
    assert_eq!(managed(&["n1", "n2", "!n3"], &["a n2 new ready"]), ["+n1"]);
    assert_eq!(managed(&["n1"], &["a ?n1 new pending"]), NOTHING, "one is on its way");
    assert_eq!(managed(&["n1"], &["a n1 new going"]), NOTHING, "the old one must be gone first");
    assert_eq!(managed(&["n1"], &["bb n1 new ready", "a ?n1 new pending", "ccc n1 new ready"]), ["-ccc", "-a"], "the oldest bound one stays");
    assert_eq!(managed(&["-n1"], &["a n1 new ready"]), NOTHING);
    assert_eq!(managed(&["!n1"], &["a n1 new ready", "b n1 new going"]), ["-a"]);
    assert_eq!(managed(&[], &["a ?n9 new pending", "b n9 new ready"]), ["-a"], "no node will ever take it");
}

#[test]
fn ended_pods_are_replaced_but_not_too_fast() {
    let case = Case::new(json!({}), &["n1", "n2"], &["a n1 new failed", "b n2 new done"]);
    let wanted = case.manage(None);
    assert_eq!((shown(&wanted), wanted.failed), (vec!["-a".to_owned(), "-b".to_owned()], vec!["n1".to_owned()]));
    let messages: Vec<_> =
        wanted.events.iter().map(|event| if let Action::Event { reason, message, .. } = event { (*reason, &**message) } else { ("", "") }).collect();
    assert_eq!(
        messages,
        [
            ("FailedDaemonPod", "Found failed daemon pod n/a on node n1, will try to kill it"),
            ("SucceededDaemonPod", "Found succeeded daemon pod n/b on node n2, will try to delete it"),
        ]
    );
    let wanted = case.manage(Some(7));
    assert_eq!((shown(&wanted), wanted.again), (vec!["-b".to_owned()], Some(Duration::from_secs(7))));
}

#[test]
fn a_surging_node_has_two_pods_while_it_helps() {
    let managed = |pods: &[&str]| Case::new(surging(json!(1)), &["n1"], pods).managed();
    assert_eq!(managed(&["a n1 old ready", "b n1 new pending"]), NOTHING);
    assert_eq!(managed(&["a n1 old ready", "b n1 new ready"]), ["-a"]);
    assert_eq!(managed(&["a n1 old pending", "b n1 new pending"]), ["-a"]);
    assert_eq!(managed(&["a n1 old going"]), ["+n1"], "the next need not wait");
    assert_eq!(managed(&["a n1 old ready", "bb n1 old ready", "ccc n1 new pending"]), ["-bb"]);
}

#[test]
fn old_pods_go_within_the_bound() {
    let hosts = ["n1", "n2", "n3"];
    let old = ["a n1 old ready", "b n2 old ready", "c n3 old ready"];
    let two = json!({ "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": "50%" } } });
    assert_eq!(Case::new(json!({}), &hosts, &old).roll(), ["-a"]);
    assert_eq!(Case::new(two, &hosts, &old).roll(), ["-a", "-b"], "half of three, rounded up");
    assert_eq!(Case::new(json!({}), &hosts, &["a n1 new pending", old[1], old[2]]).roll(), NOTHING);
    assert_eq!(Case::new(json!({}), &hosts, &["a n1 new ready", old[1], old[2]]).roll(), ["-b"]);
    assert_eq!(Case::new(json!({}), &hosts, &["a n1 new pending", old[1], "c n3 old pending"]).roll(), ["-c"], "what serves nobody goes");
    assert_eq!(Case::new(json!({}), &hosts, &old[1..]).roll(), NOTHING, "a node without a pod counts");
    assert_eq!(Case::new(json!({}), &hosts, &["a n1 new ready", "b n2 new ready", "c n3 new ready"]).roll(), NOTHING);
}

#[test]
fn new_pods_come_within_the_surge() {
    let hosts = ["n1", "n2", "n3"];
    let old = ["a n1 old ready", "b n2 old ready", "c n3 old ready"];
    assert_eq!(Case::new(surging(json!(2)), &hosts, &old).roll(), ["+n1", "+n2"]);
    assert_eq!(Case::new(surging(json!(1)), &hosts, &[old[0], "x n1 new pending", old[1], old[2]]).roll(), NOTHING);
    assert_eq!(Case::new(surging(json!(1)), &hosts, &[old[0], "x n1 new ready", old[1], old[2]]).roll(), ["+n2", "-a"]);
    assert_eq!(Case::new(surging(json!(1)), &hosts, &[old[0], old[1], "c n3 old pending"]).roll(), ["+n3", "+n1"]);
    assert_eq!(Case::new(surging(json!(1)), &["n1", "-n2"], &["a n1 new ready", "b n2 old ready"]).roll(), ["-b"], "another serves");
    assert_eq!(Case::new(surging(json!(1)), &["n1", "-n2"], &["a n1 new pending", "b n2 old ready"]).roll(), NOTHING);
}

#[test]
fn counts_speak_of_nodes() {
    let case =
        Case::new(json!({ "minReadySeconds": 90 }), &["n1", "n2", "-n3"], &["a n1 new ready", "b n1 old ready", "c n3 new ready", "d n2 new failed"]);
    let (report, again) = case.with(|set, nodes, template| {
        let (report, again) = status::report(set, &case.hosts, nodes, template, 0, NOW.parse().expect("time"));
        (status::to_json(&report), again)
    });
    assert_eq!(
        report,
        json!({ "desiredNumberScheduled": 2, "currentNumberScheduled": 2, "numberMisscheduled": 1, "numberReady": 1, "updatedNumberScheduled": 2,
            "numberAvailable": 0, "numberUnavailable": 2, "observedGeneration": 2 })
    );
    assert_eq!(again, Some(Duration::from_secs(30)));
}

#[test]
fn nodes_are_chosen_by_labels_and_taints() {
    let template = |spec: Value| template::Template::new(&json!({ "spec": spec }), &Meta::default(), "h");
    let judge = |spec: Value, labels: Value, taints: Value| {
        let node = json!({ "metadata": { "name": "n1", "labels": labels }, "spec": { "taints": taints } }).to_string();
        let node: Node<'_> = parse_bytes(node.as_bytes()).expect("a node");
        let template = template(spec);
        let host = Host::new(&template.spec().expect("a spec"), &node);
        (host.wanted, host.kept)
    };
    let taint = |key: &str, effect: &str| json!([{ "key": key, "effect": effect }]);
    assert_eq!(judge(json!({}), json!({}), json!([])), (true, true));
    assert_eq!(judge(json!({ "nodeSelector": { "disk": "ssd" } }), json!({}), json!([])), (false, false));
    assert_eq!(judge(json!({ "nodeSelector": { "disk": "ssd" } }), json!({ "disk": "ssd" }), json!([])), (true, true));
    assert_eq!(judge(json!({ "nodeName": "n2" }), json!({}), json!([])), (false, false));
    assert_eq!(judge(json!({}), json!({}), taint("x", "NoSchedule")), (false, true));
    assert_eq!(judge(json!({}), json!({}), taint("x", "NoExecute")), (false, false));
    assert_eq!(judge(json!({}), json!({}), taint("x", "PreferNoSchedule")), (true, true));
    for (key, effect) in [("not-ready", "NoExecute"), ("unreachable", "NoExecute"), ("unschedulable", "NoSchedule"), ("disk-pressure", "NoSchedule")]
    {
        assert_eq!(judge(json!({}), json!({}), taint(&format!("node.kubernetes.io/{key}"), effect)), (true, true), "{key}");
    }
    let no_network = || taint("node.kubernetes.io/network-unavailable", "NoSchedule");
    assert_eq!(judge(json!({}), json!({}), no_network()), (false, true));
    assert_eq!(judge(json!({ "hostNetwork": true }), json!({}), no_network()), (true, true));
    let only = |key: &str| {
        json!({ "affinity": { "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": [
        { "matchExpressions": [{ "key": key, "operator": "Exists" }] }] } } } })
    };
    assert_eq!(judge(only("gpu"), json!({}), json!([])), (false, false));
    assert_eq!(judge(only("gpu"), json!({ "gpu": "1" }), json!([])), (true, true));
}

#[test]
fn a_pod_is_pinned_to_its_node() {
    let meta = json!({ "name": "d", "annotations": { "deprecated.daemonset.template.generation": "3" } }).to_string();
    let meta: Meta<'_> = parse_bytes(meta.as_bytes()).expect("metadata");
    let preferred = json!([{ "weight": 1, "preference": {} }]);
    let spec = json!({ "affinity": { "nodeAffinity": { "preferredDuringSchedulingIgnoredDuringExecution": preferred } },
        "tolerations": [{ "key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5 }] });
    let template = template::Template::new(&json!({ "metadata": { "labels": { "app": "d" } }, "spec": spec }), &meta, "h");
    let pod = template.pod("n", &PARENT.reference(&meta), "n1");
    assert_eq!(pod["metadata"]["generateName"], "d-");
    assert_eq!(pod["metadata"]["labels"], json!({ "app": "d", "controller-revision-hash": "h", "pod-template-generation": "3" }));
    let affinity = &pod["spec"]["affinity"]["nodeAffinity"];
    assert_eq!(
        affinity["requiredDuringSchedulingIgnoredDuringExecution"],
        json!({ "nodeSelectorTerms": [{ "matchFields": [{ "key": "metadata.name", "operator": "In", "values": ["n1"] }] }] })
    );
    assert_eq!(affinity["preferredDuringSchedulingIgnoredDuringExecution"], preferred);
    let tolerations = pod["spec"]["tolerations"].as_array().expect("a list");
    assert_eq!(tolerations.len(), 6);
    assert!(tolerations.iter().all(|t| t.get("tolerationSeconds").is_none()), "for as long as it takes");
}
