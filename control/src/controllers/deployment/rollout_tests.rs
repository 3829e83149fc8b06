//! A small world of one Deployment, its sets and their pods, in which passes run until nothing changes.

use super::*;
use coracle_apiserver::view::parse_bytes;

#[derive(Clone, Debug)]
struct Pods {
    total: i64,
    available: i64,
}

struct World {
    deployment: Value,
    sets: Vec<(Value, Pods)>,
    events: Vec<String>,
    now: Timestamp,
    made: i64,
}

fn merge(target: &mut Value, patch: &Value) {
    let Some(patch) = patch.as_object() else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in patch {
        match value {
            Value::Null => drop(target.as_object_mut().and_then(|t| t.remove(key))),
            value => merge(&mut target[key], value),
        }
    }
}

impl World {
    fn new(replicas: i64, strategy: Value) -> Self {
        let deployment = json!({
            "metadata": { "name": "d", "namespace": "n", "uid": "du", "generation": 1 },
            "spec": {
                "replicas": replicas, "progressDeadlineSeconds": 600, "revisionHistoryLimit": 2, "strategy": strategy,
                "selector": { "matchLabels": { "app": "d" } },
                "template": { "metadata": { "labels": { "app": "d" } }, "spec": { "image": "v1" } },
            },
        });
        let now = "2026-01-01T00:00:00Z".parse().expect("time");
        Self { deployment, sets: Vec::new(), events: Vec::new(), now, made: 0 }
    }

    fn spec(&mut self, patch: Value) {
        merge(&mut self.deployment, &json!({ "spec": patch }));
        let generation = self.deployment["metadata"]["generation"].as_i64().unwrap_or(0);
        self.deployment["metadata"]["generation"] = json!(generation + 1);
    }

    fn image(&mut self, image: &str) {
        self.spec(json!({ "template": { "spec": { "image": image } } }));
    }

    /// One pass of the controller; true if it did anything.
    fn pass(&mut self) -> bool {
        let text = self.deployment.to_string();
        let deployment: Deployment<'_> = parse_bytes(text.as_bytes()).expect("deployment");
        let wanted = template::without_hash(self.deployment["spec"]["template"].clone());
        let texts: Vec<String> = self
            .sets
            .iter()
            .map(|(set, pods)| {
                let mut set = set.clone();
                let generation = set["metadata"]["generation"].clone();
                set["status"] = json!({
                    "replicas": pods.total, "readyReplicas": pods.available, "availableReplicas": pods.available, "observedGeneration": generation,
                });
                set.to_string()
            })
            .collect();
        let sets = texts
            .iter()
            .zip(&self.sets)
            .map(|(text, (set, pods))| {
                let current = template::without_hash(set["spec"]["template"].clone()) == wanted;
                Set::new(parse_bytes(text.as_bytes()).expect("set"), current, pods.total > 0)
            })
            .collect();
        let owner = Owner { uid: "du".into(), name: "d".into(), controller: true, ..Owner::default() };
        let plan = State::new(&deployment, &wanted, &owner, sets, self.now).decide();
        let did = !plan.actions.is_empty();
        for action in plan.actions {
            self.apply(action);
        }
        did
    }

    fn apply(&mut self, action: Action) {
        match action {
            Action::Create { mut object, .. } => {
                self.made += 1;
                let stamp = coracle_apiserver::view::stamp(self.now + jiff::SignedDuration::from_secs(self.made));
                let name = object["metadata"]["name"].clone();
                merge(&mut object, &json!({ "metadata": { "uid": name, "creationTimestamp": stamp, "generation": 1 } }));
                assert!(!self.sets.iter().any(|(set, _)| set["metadata"]["name"] == object["metadata"]["name"]), "made twice");
                self.sets.push((object, Pods { total: 0, available: 0 }));
            }
            Action::Patch { key, patch, .. } if &*key.resource == SETS => {
                let set = self.sets.iter_mut().find(|(set, _)| set["metadata"]["name"] == json!(*key.name)).expect("the set exists");
                merge(&mut set.0, &patch);
            }
            Action::Patch { patch, .. } => merge(&mut self.deployment, &patch),
            Action::Status(status) => self.deployment["status"] = status,
            Action::Event { message, .. } => self.events.push(message),
            Action::Delete { key, .. } => self.sets.retain(|(set, _)| set["metadata"]["name"] != json!(*key.name)),
        }
    }

    /// The ReplicaSet controller: pods follow the sets, unavailable ones go first.
    fn follow(&mut self) -> bool {
        let mut did = false;
        for (set, pods) in &mut self.sets {
            let wanted = set["spec"]["replicas"].as_i64().expect("replicas");
            did |= pods.total != wanted;
            pods.total = wanted;
            pods.available = pods.available.min(wanted);
        }
        did
    }

    fn pods(&self) -> i64 {
        self.sets.iter().map(|(_, pods)| pods.total).sum()
    }
    fn available(&self) -> i64 {
        self.sets.iter().map(|(_, pods)| pods.available).sum()
    }
    fn wanted_by_sets(&self) -> i64 {
        self.sets.iter().map(|(set, _)| set["spec"]["replicas"].as_i64().unwrap_or(0)).sum()
    }

    /// Runs until nothing changes, all pods becoming available at once.
    fn settle(&mut self) {
        for _ in 0..200 {
            let mut did = self.pass();
            did |= self.follow();
            for (_, pods) in &mut self.sets {
                did |= pods.available != pods.total;
                pods.available = pods.total;
            }
            if !did {
                return;
            }
        }
        panic!("does not settle: {:?} {}", self.events, self.deployment);
    }

    fn progressing(&self) -> (String, String) {
        let conditions = self.deployment["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let found = conditions.iter().find(|c| c["type"] == "Progressing").cloned().unwrap_or_default();
        (found["status"].as_str().unwrap_or("").to_owned(), found["reason"].as_str().unwrap_or("").to_owned())
    }
    fn names(&self) -> Vec<String> {
        self.sets.iter().map(|(set, _)| set["metadata"]["name"].as_str().unwrap_or("").to_owned()).collect()
    }
    fn revisions(&self) -> Vec<String> {
        self.sets.iter().map(|(set, _)| set["metadata"]["annotations"][REVISION].as_str().unwrap_or("").to_owned()).collect()
    }
}

fn rolling(surge: Value, unavailable: Value) -> Value {
    json!({ "type": "RollingUpdate", "rollingUpdate": { "maxSurge": surge, "maxUnavailable": unavailable } })
}

/// Deterministic dice (xorshift).
struct Dice(u64);
impl Dice {
    fn roll(&mut self, sides: i64) -> i64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 8) as i64 % sides
    }
}

#[test]
fn a_new_deployment_makes_its_set_and_completes() {
    let mut world = World::new(3, rolling(json!("25%"), json!("25%")));
    assert!(world.pass());
    let name = world.names()[0].clone();
    assert_eq!(world.events, [format!("Scaled up replica set {name} from 0 to 3")]);
    assert_eq!(world.progressing(), ("True".into(), "NewReplicaSetCreated".into()));
    assert_eq!(world.deployment["metadata"]["annotations"][REVISION], "1");
    assert_eq!(world.deployment["status"]["observedGeneration"], 1);
    let (set, _) = &world.sets[0];
    assert_eq!(set["spec"]["selector"]["matchLabels"]["app"], "d");
    assert_eq!(set["spec"]["selector"]["matchLabels"][template::HASH_LABEL], set["spec"]["template"]["metadata"]["labels"][template::HASH_LABEL]);
    assert_eq!((&set["metadata"]["annotations"][DESIRED], &set["metadata"]["annotations"][MAX]), (&json!("3"), &json!("4")));
    world.settle();
    assert_eq!(world.progressing(), ("True".into(), "NewReplicaSetAvailable".into()));
    assert_eq!(world.deployment["status"]["availableReplicas"], 3);
    assert!(!world.pass(), "nothing is left to do");
}

#[test]
fn a_rolling_update_takes_known_steps() {
    let mut world = World::new(3, rolling(json!(1), json!(0)));
    world.settle();
    world.events.clear();
    world.image("v2");
    world.settle();
    let [old, new]: [String; 2] = world.names().try_into().expect("two sets");
    assert_eq!(
        world.events,
        [
            format!("Scaled up replica set {new} from 0 to 1"),
            format!("Scaled down replica set {old} from 3 to 2"),
            format!("Scaled up replica set {new} from 1 to 2"),
            format!("Scaled down replica set {old} from 2 to 1"),
            format!("Scaled up replica set {new} from 2 to 3"),
            format!("Scaled down replica set {old} from 1 to 0"),
        ]
    );
    assert_eq!(world.revisions(), ["1", "2"]);
    assert_eq!(world.deployment["metadata"]["annotations"][REVISION], "2");
}

#[test]
fn rolling_back_uses_the_old_set_again() {
    let mut world = World::new(2, rolling(json!(1), json!(1)));
    world.settle();
    world.image("v2");
    world.settle();
    world.image("v1");
    world.settle();
    assert_eq!(world.sets.len(), 2, "no third set");
    assert_eq!(world.revisions(), ["3", "2"]);
    assert_eq!(world.sets[0].0["metadata"]["annotations"][revision::HISTORY], "1");
    assert_eq!(world.sets[0].1.total, 2);
}

#[test]
fn old_sets_beyond_the_limit_are_forgotten() {
    let mut world = World::new(1, rolling(json!(1), json!(0)));
    for version in 1..=6 {
        world.image(&format!("v{version}"));
        world.settle();
    }
    assert_eq!(world.revisions(), ["4", "5", "6"], "two old ones and the new one");
}

#[test]
fn recreate_waits_for_the_last_old_pod() {
    let mut world = World::new(2, json!({ "type": "Recreate" }));
    world.settle();
    world.image("v2");
    world.pass();
    assert_eq!(world.wanted_by_sets(), 0);
    world.pass();
    assert_eq!(world.sets.len(), 1, "old pods are still there");
    world.follow();
    world.pass();
    assert_eq!(world.sets.len(), 2);
    world.settle();
    assert_eq!((world.sets[0].1.total, world.sets[1].1.total), (0, 2));
}

#[test]
fn a_pause_holds_the_rollout_but_not_scaling() {
    let mut world = World::new(2, rolling(json!(1), json!(0)));
    world.settle();
    world.spec(json!({ "paused": true }));
    world.image("v2");
    world.settle();
    assert_eq!((world.sets.len(), world.progressing().1), (1, "DeploymentPaused".into()));
    world.spec(json!({ "replicas": 4 }));
    world.settle();
    assert_eq!(world.sets[0].1.total, 4);
    world.spec(json!({ "paused": null }));
    world.settle();
    assert_eq!((world.sets.len(), world.sets[1].1.total, world.progressing().1), (2, 4, "NewReplicaSetAvailable".into()));
}

#[test]
fn no_progress_is_told_after_the_deadline_and_forgiven_after_progress() {
    let mut world = World::new(2, rolling(json!(1), json!(0)));
    world.settle();
    world.image("broken");
    for _ in 0..10 {
        world.pass();
        world.follow();
    }
    assert_eq!(world.progressing().0, "True");
    assert_eq!(world.available(), 2, "the old pods stay");
    world.now += jiff::SignedDuration::from_secs(602);
    world.pass();
    assert_eq!(world.progressing(), ("False".into(), "ProgressDeadlineExceeded".into()));
    world.settle();
    assert_eq!(world.progressing(), ("True".into(), "NewReplicaSetAvailable".into()));
}

#[test]
fn scaling_during_a_rollout_keeps_the_proportion() {
    let mut world = World::new(10, rolling(json!(3), json!(2)));
    world.settle();
    world.image("v2");
    world.pass();
    world.pass();
    let sizes = |world: &World| world.sets.iter().map(|(set, _)| set["spec"]["replicas"].as_i64().unwrap_or(0)).collect::<Vec<_>>();
    assert_eq!(sizes(&world), [8, 3], "3 of surge; 13 - 8 - 3 = 2 old ones may go");
    world.follow();
    world.pass();
    assert_eq!(sizes(&world), [8, 5]);
    world.follow();
    world.spec(json!({ "replicas": 15 }));
    world.pass();
    assert_eq!(sizes(&world), [11, 7], "5 more, shared 3 to 2, as the documentation of Deployments shows");
    world.settle();
    assert_eq!(sizes(&world), [0, 15]);
}

#[test]
fn bounds_hold_on_every_path_and_every_path_ends() {
    for seed in 1..400u64 {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let wanted = 1 + dice.roll(12);
        let surge = dice.roll(4);
        let unavailable = if surge == 0 { 1 + dice.roll(3) } else { dice.roll(4) };
        let mut world = World::new(wanted, rolling(json!(surge), json!(unavailable)));
        world.settle();
        let floor = wanted - unavailable.min(wanted);
        for version in 0..3 {
            world.image(&format!("v{}-{}", seed, version % 2));
            for _ in 0..dice.roll(12) {
                world.pass();
                assert!(world.wanted_by_sets() <= wanted + surge, "seed {seed}: too many pods");
                world.follow();
                assert!(world.pods() <= wanted + surge, "seed {seed}");
                assert!(world.available() >= floor, "seed {seed}: {} of {wanted} available, {unavailable} may be missing", world.available());
                for (_, pods) in &mut world.sets {
                    pods.available += dice.roll(pods.total - pods.available + 1);
                }
            }
        }
        world.settle();
        assert_eq!(world.pods(), wanted, "seed {seed}");
        let (new, pods) = world.sets.iter().find(|(_, pods)| pods.total > 0).expect("a set");
        assert_eq!((pods.available, &new["spec"]["template"]["spec"]), (wanted, &world.deployment["spec"]["template"]["spec"]), "seed {seed}");
    }
}
