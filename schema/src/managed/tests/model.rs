//! Rules that hold for any objects, and histories compared with a simple model of who owns what.

use super::super::compare::{Delta, places};
use super::super::fields::FieldSet;
use super::super::{check, entries, merge, remove};
use super::*;
use crate::properties::{Maker, kinds};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// One flat map, written by several managers.
#[derive(Default, Debug)]
struct Model {
    data: BTreeMap<String, String>,
    /// Key → (manager, applies).
    owners: BTreeMap<String, BTreeSet<(String, bool)>>,
}

impl Model {
    fn update(&mut self, manager: &str, change: &BTreeMap<String, Option<String>>) {
        for (key, value) in change {
            if self.data.get(key) == value.as_ref() {
                continue;
            }
            let owners = self.owners.entry(key.clone()).or_default();
            owners.clear();
            match value {
                Some(value) => {
                    owners.insert((manager.into(), false));
                    self.data.insert(key.clone(), value.clone());
                }
                None => drop(self.data.remove(key)),
            }
        }
    }

    /// The keys in conflict.
    fn apply(&mut self, manager: &str, config: &BTreeMap<String, String>, force: bool) -> Vec<String> {
        let me = (manager.to_owned(), true);
        let own = |owners: &BTreeMap<String, BTreeSet<(String, bool)>>, key: &str| owners.get(key).is_some_and(|all| all.contains(&me));
        let mut after = self.data.clone();
        for key in self.data.keys() {
            if own(&self.owners, key) && !config.contains_key(key) && self.owners[key].len() == 1 {
                after.remove(key);
            }
        }
        after.extend(config.clone());
        let changed: Vec<&String> = after.iter().filter(|(key, value)| self.data.get(*key) != Some(value)).map(|(key, _)| key).collect();
        let conflicts: Vec<String> = changed
            .iter()
            .filter(|key| self.owners.get(**key).is_some_and(|all| all.iter().any(|owner| *owner != me)))
            .map(|k| k.to_string())
            .collect();
        if !force && !conflicts.is_empty() {
            return conflicts;
        }
        for key in changed {
            self.owners.entry(key.clone()).or_default().clear();
        }
        for (key, owners) in &mut self.owners {
            if !after.contains_key(key) {
                owners.clear();
            }
            owners.remove(&me);
        }
        for key in config.keys() {
            self.owners.entry(key.clone()).or_default().insert(me.clone());
        }
        self.data = after;
        Vec::new()
    }
}

#[derive(Clone, Debug)]
enum Step {
    Update(u8, BTreeMap<String, Option<String>>),
    Apply(u8, BTreeMap<String, String>, bool),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let key = || prop::sample::select(vec!["a", "b", "c", "d"]).prop_map(str::to_owned);
    let value = || prop::sample::select(vec!["1", "2", "3"]).prop_map(str::to_owned);
    let step = prop_oneof![
        (0u8..3, prop::collection::btree_map(key(), prop::option::of(value()), 0..4)).prop_map(|(who, change)| Step::Update(who, change)),
        (0u8..3, prop::collection::btree_map(key(), value(), 0..4), any::<bool>()).prop_map(|(who, config, force)| Step::Apply(who, config, force)),
    ];
    prop::collection::vec(step, 1..16)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_history_of_a_map_is_that_of_the_model(steps in steps()) {
        let mut story = Story::of("", "ConfigMap");
        let mut model = Model::default();
        // Somebody else's entry keeps the object tracked, and the map there: that it is there is itself somebody's.
        story.put("keeper", json!({"metadata": {"name": "a"}, "data": {"kept": ""}}));
        for step in steps {
            match &step {
                Step::Update(who, change) => {
                    model.update(&format!("m{who}"), change);
                    story.patch(&format!("m{who}"), json!({"data": change}));
                }
                Step::Apply(who, config, force) => {
                    let conflicts = model.apply(&format!("m{who}"), config, *force);
                    // An empty map would itself be something to own.
                    let data = if config.is_empty() { json!({}) } else { json!({"data": config}) };
                    let result = story.try_apply(&format!("m{who}"), data, *force);
                    let found: BTreeSet<String> = match result {
                        Ok(()) => BTreeSet::new(),
                        Err(status) => status.details.unwrap().causes.into_iter().map(|cause| cause.field.replace(".data.", "")).collect(),
                    };
                    prop_assert_eq!(found.into_iter().collect::<Vec<_>>(), conflicts, "{:?}", &step);
                }
            }
            let mut data: BTreeMap<String, String> = serde_json::from_value(story.at("/data").clone()).unwrap_or_default();
            data.remove("kept");
            prop_assert_eq!(&data, &model.data, "{:?}", &step);
            let mut owners: BTreeMap<String, BTreeSet<(String, bool)>> = BTreeMap::new();
            for entry in entries::stored(story.at("/metadata/managedFields").clone()) {
                for key in ["a", "b", "c", "d"] {
                    if entry.fields.has(&["f:data", &format!("f:{key}")]) {
                        owners.entry(key.into()).or_default().insert((entry.manager.clone(), entry.apply));
                    }
                }
            }
            model.owners.retain(|_, owners| !owners.is_empty());
            prop_assert_eq!(&owners, &model.owners, "{:?}", &step);
        }
    }
}

/// Every seventh kind, others every time. Not those in which one field follows another: made up, the two contradict each other.
fn some_kinds(seed: u64) -> impl Iterator<Item = (Arc<Schema>, Arc<crate::types::Type>)> {
    let all = kinds().into_iter().filter(|(_, ty)| ty.field("metadata").is_some() && !matches!(&*ty.key, "core.v1.Node" | "core.v1.Pod"));
    all.enumerate().filter(move |(at, _)| (*at as u64 + seed).is_multiple_of(7)).map(|(_, kind)| kind)
}

/// Whether a set holds only fields that Go writes as null when nobody set them, and that are left out here.
fn nulls(set: &FieldSet) -> bool {
    static NAMES: std::sync::LazyLock<BTreeSet<String>> = std::sync::LazyLock::new(|| {
        let types = crate::facts::all().filter_map(|name| crate::facts::named(&name));
        let fields = types
            .flat_map(|ty| ty.fields.iter().filter(|f| f.flags.always || f.is_written_when_zero()).map(|f| f.json.to_string()).collect::<Vec<_>>());
        fields.collect()
    });
    set.paths().iter().all(|(keys, _)| keys.last().and_then(|key| key.strip_prefix("f:")).is_some_and(|name| NAMES.contains(name)))
}

/// An object of a kind that can be applied: no item stands twice in a list that is a set.
fn made(schema: &Schema, ty: &crate::types::Type, seed: u64) -> Option<Value> {
    let mut object = Value::Object(Maker::new(seed, false).object(ty, 0));
    schema.canonicalize(&mut object, FieldValidation::Ignore).ok()?;
    schema.default(&mut object);
    object["metadata"].as_object_mut()?.remove("managedFields");
    check::check(schema.view(), &object).is_none().then_some(object)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn objects_of_every_kind_are_compared_merged_and_cut(seeds in (1u64.., 1u64..)) {
        for (schema, ty) in some_kinds(seeds.0) {
            let (Some(a), Some(b)) = (made(&schema, &ty, seeds.0), made(&schema, &ty, seeds.1)) else { continue };
            let view = schema.view();
            prop_assert!(Delta::between(view, &a, &a.clone()).is_empty());
            let delta = Delta::between(view, &a, &b);
            prop_assert_eq!(delta.is_empty(), a == b, "{}", ty.key);
            // What is removed was there, what is touched is there.
            let named = |value: &Value| FieldSet::of(remove::with_named(view, places(view, value).root()));
            let without = |mut set: FieldSet, there: &FieldSet| { set.subtract(there); set };
            let lost = without(delta.removed.clone(), &named(&a));
            prop_assert!(nulls(&lost), "{}: {:?}", ty.key, lost.paths());

            let merged = merge::merge(view, &a, &b).unwrap();
            prop_assert_eq!(&merge::merge(view, &merged, &b).unwrap(), &merged, "{} again", ty.key);
            prop_assert_eq!(&merge::merge(view, &a, &a).unwrap(), &a, "{} itself", ty.key);
            prop_assert!(without(places(view, &a), &named(&merged)).is_empty(), "{}: nothing is lost", ty.key);
            prop_assert!(without(places(view, &b), &named(&merged)).is_empty(), "{}: nothing is lost", ty.key);
            // Without everything it says, nothing is left of an object.
            let rest = remove::remove(view, &a, &remove::with_named(view, places(view, &a).root()));
            prop_assert!(rest.is_null() || rest == json!({}), "{}: {}", ty.key, rest);
        }
    }

    #[test]
    fn applying_twice_is_applying_once(seeds in prop::collection::vec(1u64.., 3)) {
        for (schema, ty) in some_kinds(seeds[0]) {
            let made: Vec<Value> = seeds.iter().filter_map(|seed| made(&schema, &ty, *seed)).collect();
            let [a, b, c] = made.as_slice() else { continue };
            let mut story = Story { schema: schema.clone(), live: None, clock: 0, subresource: "", reach: Reach::Without(&[]) };
            story.put("creator", a.clone());
            for config in [b, c, b] {
                story.force("me", config.clone());
                let once = story.live.clone();
                story.apply("me", config.clone()).unwrap();
                prop_assert_eq!(&story.live, &once, "{}", ty.key);
                // Applied once more by another one: both have it, nothing changes.
                story.apply("other", config.clone()).unwrap();
                prop_assert_eq!(story.live.as_ref().map(|live| &live["spec"]), once.as_ref().map(|live| &live["spec"]), "{}", ty.key);
                story.apply("other", json!({"metadata": {}})).unwrap();
                prop_assert_eq!(&story.live, &once, "{}: and it leaves no trace", ty.key);
            }
        }
    }
}
