//! Claims of pods, and what they mean for nodes.

use super::*;
use crate::scheduler::plugins::{Attempt, PLUGINS, Refusal, fixture::*};
use coracle_apiserver::fixture::object;

fn claim(name: &str, spec: Value, extra: Value) -> Arc<Object> {
    let mut claim = json!({ "metadata": { "name": name, "namespace": "n", "uid": format!("uid-{name}") }, "spec": spec });
    for (key, value) in extra.as_object().into_iter().flatten() {
        match claim[key].as_object_mut() {
            Some(map) => map.extend(value.as_object().cloned().unwrap_or_default()),
            None => claim[key] = value.clone(),
        }
    }
    object(CLAIMS, 1, claim)
}

fn bound(name: &str, volume: &str, modes: Value) -> Arc<Object> {
    claim(
        name,
        json!({ "volumeName": volume, "accessModes": modes }),
        json!({ "metadata": { "annotations": { BOUND: "yes" } }, "status": { "phase": "Bound" } }),
    )
}

fn volume(name: &str, zone: &str, extra: Value) -> Arc<Object> {
    let mut spec = json!({ "capacity": { "storage": "1Gi" }, "accessModes": ["ReadWriteOnce"], "storageClassName": "late" });
    if !zone.is_empty() {
        spec["nodeAffinity"] =
            json!({ "required": { "nodeSelectorTerms": [{ "matchExpressions": [{ "key": "zone", "operator": "In", "values": [zone] }] }] } });
    }
    for (key, value) in extra.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    object(VOLUMES, 1, json!({ "metadata": { "name": name, "uid": format!("uid-{name}") }, "spec": spec, "status": { "phase": "Available" } }))
}

fn class(provisioner: &str, mode: &str) -> Arc<Object> {
    object(CLASSES, 1, json!({ "metadata": { "name": "late" }, "provisioner": provisioner, "volumeBindingMode": mode }))
}

fn user(claim: &str) -> Arc<Object> {
    pod("p", "1", json!({ "spec": { "volumes": [{ "name": "v", "persistentVolumeClaim": { "claimName": claim } }] } }))
}

fn world(others: &[Arc<Object>]) -> World {
    let zoned = |name: &str, zone: &str| node(name, "4", json!({ "metadata": { "labels": { "zone": zone, "topology.kubernetes.io/zone": zone } } }));
    World::new(&[zoned("a", "a"), zoned("b", "b")], &[], others)
}

/// What all filters say of both nodes.
fn says(others: &[Arc<Object>], pod: &Arc<Object>) -> Vec<String> {
    let world = world(others);
    if let Some(why) = world.impossible(pod) {
        return vec![why];
    }
    let view: Pod<'_> = parse(pod).expect("a pod");
    let attempt = Attempt::new(pod, &view, &world.cluster, &world.snapshot);
    let of = |node: &Node| {
        let mut refusal = Refusal::default();
        PLUGINS.iter().filter_map(|plugin| plugin.filter).for_each(|filter| filter(&attempt, node, &mut refusal));
        refusal.reasons.join(", ")
    };
    world.cluster.nodes().map(of).collect()
}

fn wanted(extra: Value) -> Arc<Object> {
    let spec = json!({ "storageClassName": "late", "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } } });
    claim("c", spec, extra)
}

#[test]
fn claims_that_cannot_be_used_are_named() {
    let lost = claim("c", json!({ "volumeName": "v" }), json!({ "status": { "phase": "Lost" } }));
    let going = claim("c", json!({}), json!({ "metadata": { "deletionTimestamp": "2026-01-01T00:00:00Z" } }));
    let foreign = claim("p-v", json!({}), json!({}));
    let ephemeral = pod("p", "1", json!({ "spec": { "volumes": [{ "name": "v", "ephemeral": { "volumeClaimTemplate": {} } }] } }));
    for (others, pod, expected) in [
        (vec![], user("c"), "persistentvolumeclaim \"c\" not found"),
        (vec![lost], user("c"), "persistentvolumeclaim \"c\" bound to non-existent persistentvolume \"v\""),
        (vec![going], user("c"), "persistentvolumeclaim \"c\" is being deleted"),
        (vec![], ephemeral.clone(), "waiting for ephemeral volume controller to create the persistentvolumeclaim \"p-v\""),
        (vec![foreign], ephemeral, "PVC n/p-v was not created for pod n/p (pod is not owner)"),
        (vec![wanted(json!({})), class("x", "Immediate")], user("c"), "pod has unbound immediate PersistentVolumeClaims"),
        (vec![wanted(json!({}))], user("c"), "pod has unbound immediate PersistentVolumeClaims"),
    ] {
        assert_eq!(says(&others, &pod), [expected]);
    }
}

#[test]
fn bound_volumes_bring_pods_to_their_place() {
    let modes = json!(["ReadWriteOnce"]);
    let far = "node(s) didn't match PersistentVolume's node affinity";
    assert_eq!(says(&[bound("c", "v", modes.clone()), volume("v", "b", json!({}))], &user("c")), [far, ""]);
    assert_eq!(says(&[bound("c", "v", modes.clone()), volume("v", "", json!({}))], &user("c")), ["", ""]);
    let gone = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)";
    assert_eq!(says(&[bound("c", "v", modes.clone())], &user("c")), [gone, gone]);
    let labelled = json!({ "metadata": { "name": "v", "labels": { "failure-domain.beta.kubernetes.io/zone": "b__c" } }, "spec": {} });
    let labelled = object(VOLUMES, 1, labelled);
    assert_eq!(says(&[bound("c", "v", modes), labelled], &user("c")), ["node(s) had no available volume zone", ""]);
}

#[test]
fn a_claim_for_one_pod_is_used_once() {
    let others = [bound("c", "v", json!(["ReadWriteOncePod"])), volume("v", "", json!({}))];
    let mut world = world(&others);
    let filter = crate::scheduler::plugins::volume_restrictions::filter;
    assert_eq!(world.refusals(filter, &user("c")), ["ok", "ok"]);
    let other = pod("q", "1", json!({ "spec": { "volumes": [{ "name": "v", "persistentVolumeClaim": { "claimName": "c" } }] } }));
    let view: Pod<'_> = parse(&other).expect("a pod");
    world.cluster.place(&other.key, Placed::of(&other, &view), "a");
    let used = "node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by another pod";
    assert_eq!(world.refusals(filter, &user("c")), [used, used]);
}

fn steps_on(name: &str, others: &[Arc<Object>]) -> Steps {
    let world = world(others);
    let user = user("c");
    let view: Pod<'_> = parse(&user).expect("a pod");
    steps(&user.key, &view, world.cluster.node(name).expect("the node"), &world.snapshot)
}

#[test]
fn the_first_consumer_chooses_the_volume() {
    let late = class(NO_PROVISIONER, "WaitForFirstConsumer");
    let large = volume("large", "b", json!({ "capacity": { "storage": "5Gi" } }));
    let others = [
        wanted(json!({})),
        late.clone(),
        volume("small", "b", json!({ "capacity": { "storage": "1Mi" } })),
        large.clone(),
        volume("right", "b", json!({})),
        volume("other", "a", json!({ "storageClassName": "other" })),
        volume("taken", "a", json!({ "claimRef": { "namespace": "n", "name": "x" } })),
    ];
    assert_eq!(says(&others, &user("c")), [NO_VOLUME, ""]);
    let chosen = steps_on("b", &others);
    assert_eq!((&*chosen.patches[0].0.name, chosen.patches.len(), &chosen.waiting[..]), ("right", 1, &["c".to_owned()][..]));
    assert_eq!(chosen.patches[0].1["spec"]["claimRef"]["uid"], "uid-c");
    // What was chosen before stays chosen, and is not written again.
    let reserved = volume("reserved", "b", json!({ "claimRef": { "namespace": "n", "name": "c", "uid": "uid-c" } }));
    let again = steps_on("b", &[wanted(json!({})), late, large, reserved]);
    assert_eq!((again.patches.len(), again.waiting.len()), (0, 1));
}

#[test]
fn a_provisioner_is_told_the_node() {
    let class = class("disks.example.com", "WaitForFirstConsumer");
    let others = [wanted(json!({})), class.clone()];
    assert_eq!(says(&others, &user("c")), ["", ""]);
    let told = steps_on("a", &others);
    assert_eq!(told.patches[0].1["metadata"]["annotations"][SELECTED], "a");
    let selected = wanted(json!({ "metadata": { "annotations": { SELECTED: "a" } } }));
    let others = [selected, class];
    assert_eq!(says(&others, &user("c")), ["", NO_VOLUME]);
    assert_eq!(steps_on("a", &others), Steps { patches: vec![], waiting: vec!["c".into()] });
    assert_eq!(steps_on("a", &[bound("c", "v", json!([])), volume("v", "", json!({}))]), Steps::default());
}

#[test]
fn nodes_take_so_many_volumes_of_a_driver() {
    let csi = |name: &str, driver: &str| volume(name, "", json!({ "csi": { "driver": driver, "volumeHandle": format!("h-{name}") } }));
    let named = |claim_name: &str, volume: &str| {
        claim(claim_name, json!({ "volumeName": volume }), json!({ "metadata": { "annotations": { BOUND: "yes" } } }))
    };
    let takes = |node: &str, driver: Value| object(limits::CSI_NODES, 1, json!({ "metadata": { "name": node }, "spec": { "drivers": [driver] } }));
    let attached = |node: &str, volume: &str| {
        let spec = json!({ "attacher": "disk", "nodeName": node, "source": { "persistentVolumeName": volume } });
        object(limits::ATTACHMENTS, 1, json!({ "metadata": { "name": format!("{node}-{volume}") }, "spec": spec }))
    };
    let uses = |name: &str, claim: &str| {
        pod(name, "1", json!({ "spec": { "volumes": [{ "name": "v", "persistentVolumeClaim": { "claimName": claim } }] } }))
    };
    let refusals = |more: &[Arc<Object>], there: &[Arc<Object>], new: &str| {
        let mut others =
            vec![named("c", "one"), named("d", "two"), named("e", "other"), csi("one", "disk"), csi("two", "disk"), csi("other", "file")];
        others.extend_from_slice(more);
        let mut world = world(&others);
        for object in there {
            let view: Pod<'_> = parse(object).expect("a pod");
            world.cluster.place(&object.key, Placed::of(object, &view), "a");
        }
        world.refusals(crate::scheduler::plugins::volume_limits::filter, &uses("p", new))
    };
    let one = takes("a", json!({ "name": "disk", "nodeID": "a", "allocatable": { "count": 1 } }));
    let full = ["node(s) exceed max volume count", "ok"];
    assert_eq!(refusals(std::slice::from_ref(&one), &[], "c"), ["ok", "ok"]);
    assert_eq!(refusals(std::slice::from_ref(&one), &[uses("q", "d")], "c"), full);
    assert_eq!(refusals(std::slice::from_ref(&one), &[uses("q", "c"), uses("r", "c")], "c"), ["ok", "ok"], "the same volume takes no more room");
    assert_eq!(refusals(std::slice::from_ref(&one), &[uses("q", "d")], "e"), ["ok", "ok"], "another driver's");
    assert_eq!(refusals(std::slice::from_ref(&one), &[uses("q", "e")], "c"), ["ok", "ok"], "another driver's are there");
    assert_eq!(refusals(&[one.clone(), attached("a", "two")], &[], "c"), full, "attached, though no pod uses it");
    assert_eq!(refusals(&[one.clone(), attached("a", "one")], &[uses("q", "c")], "c"), ["ok", "ok"], "counted once");
    assert_eq!(refusals(&[takes("a", json!({ "name": "disk", "nodeID": "a" }))], &[uses("q", "d")], "c"), ["ok", "ok"], "without a bound");
    // Two claims that will be provisioned are two volumes.
    let spec = json!({ "storageClassName": "late" });
    let unbound = |name: &str| claim(name, spec.clone(), json!({}));
    let late = [one, class("disk", "WaitForFirstConsumer"), unbound("f"), unbound("g")];
    assert_eq!(refusals(&late, &[], "f"), ["ok", "ok"]);
    assert_eq!(refusals(&late, &[uses("q", "g")], "f"), full);
}

#[test]
fn what_counts_follows_its_objects() {
    let csi = |more: Value| {
        let mut spec = json!({ "csi": { "driver": "disk", "volumeHandle": "h" } });
        spec.as_object_mut().expect("a spec").extend(more.as_object().cloned().unwrap_or_default());
        volume("v", "", spec)
    };
    let takes = |count: u8| {
        let driver = json!({ "name": "disk", "nodeID": "a", "allocatable": { "count": count } });
        object(limits::CSI_NODES, 1, json!({ "metadata": { "name": "a" }, "spec": { "drivers": [driver] } }))
    };
    let attachment = object(
        limits::ATTACHMENTS,
        1,
        json!({ "metadata": { "name": "x" }, "spec": { "attacher": "disk", "nodeName": "a", "source": { "persistentVolumeName": "v" } } }),
    );
    let late = class("disk", "WaitForFirstConsumer");
    let unbound = claim("c", json!({ "storageClassName": "late" }), json!({}));
    let filter = crate::scheduler::plugins::volume_limits::filter;
    let mut world = world(&[takes(1), csi(json!({})), attachment.clone(), unbound.clone()]);
    // Each change goes in as the watches tell it.
    let mut change = |gone: &[&Arc<Object>], new: &[&Arc<Object>], now: &[&Arc<Object>]| {
        gone.iter().for_each(|object| world.cluster.volume_changed(Some(object), None));
        new.iter().for_each(|object| world.cluster.volume_changed(None, Some(object)));
        world.snapshot = Snapshot::of(2, now.iter().map(|object| Arc::clone(object)));
        world.cluster.read(&world.snapshot);
        world.refusals(filter, &user("c"))
    };
    let (full, free) = (["node(s) exceed max volume count", "ok"], ["ok", "ok"]);
    let volume = csi(json!({}));
    assert_eq!(change(&[], &[], &[&takes(1), &volume, &attachment, &unbound]), free, "without its class nobody will make it a volume");
    assert_eq!(change(&[], &[&late], &[&takes(1), &volume, &attachment, &unbound, &late]), full, "what is attached takes the only place");
    let bound = claim("c", json!({ "storageClassName": "late", "volumeName": "v" }), json!({}));
    assert_eq!(change(&[], &[&bound], &[&takes(1), &volume, &attachment, &bound, &late]), free, "that is its own volume");
    assert_eq!(change(&[], &[&unbound, &takes(2)], &[&takes(2), &volume, &attachment, &unbound, &late]), free);
    assert_eq!(change(&[], &[&takes(1)], &[&takes(1), &volume, &attachment, &unbound, &late]), full);
    assert_eq!(change(&[&attachment], &[], &[&takes(1), &volume, &unbound, &late]), free, "it was detached");
    // A pod is there with a claim whose volume comes later, and is told of by the volume alone.
    let other = claim("d", json!({ "volumeName": "w" }), json!({}));
    let its = object(
        VOLUMES,
        1,
        json!({ "metadata": { "name": "w" }, "spec": { "csi": { "driver": "disk", "volumeHandle": "w" },
        "claimRef": { "namespace": "n", "name": "d" } } }),
    );
    let user_of_d = pod("q", "1", json!({ "spec": { "volumes": [{ "name": "v", "persistentVolumeClaim": { "claimName": "d" } }] } }));
    let view: Pod<'_> = parse(&user_of_d).expect("a pod");
    world.cluster.place(&user_of_d.key, Placed::of(&user_of_d, &view), "a");
    let mut change = |new: &[&Arc<Object>], now: &[&Arc<Object>]| {
        new.iter().for_each(|object| world.cluster.volume_changed(None, Some(object)));
        world.snapshot = Snapshot::of(3, now.iter().map(|object| Arc::clone(object)));
        world.cluster.read(&world.snapshot);
        world.refusals(filter, &user("c"))
    };
    assert_eq!(change(&[&other], &[&takes(1), &volume, &unbound, &late, &other]), free);
    assert_eq!(change(&[&its], &[&takes(1), &volume, &unbound, &late, &other, &its]), full);
}
