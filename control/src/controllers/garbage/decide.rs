//! What becomes of an object, by the standing of its owners.

use super::{FOREGROUND, ORPHAN};
use crate::controllers::action::Action;
use coracle_apiserver::view::{Meta, Owner};
use coracle_store::Key;
use serde_json::{Value, json};

/// How an owner stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It exists.
    Present,
    /// It does not, or another object has its name.
    Absent,
    /// It is being deleted and waits for its dependents.
    Waiting,
    /// Its kind is not known: nothing may be concluded.
    Unknown,
}

/// What the object owns itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct Owned {
    /// Anything at all.
    pub any: bool,
    /// Something that waits for its own dependents: a circle, if the object waits for it in turn.
    pub circle: bool,
}

fn references(key: &Key, meta: &Meta<'_>, owners: Vec<Value>) -> Action {
    let owners = if owners.is_empty() { Value::Null } else { Value::Array(owners) };
    let patch = json!({ "metadata": { "uid": meta.uid, "resourceVersion": meta.resource_version, "ownerReferences": owners } });
    Action::Patch { key: key.clone(), subresource: "", patch }
}

/// For an object that is not being deleted. While one owner stands, the others' references are taken away; without any, it goes.
pub fn dependent(key: &Key, meta: &Meta<'_>, owners: &[(&Owner<'_>, Standing)], owned: Owned) -> Vec<Action> {
    let stands = |standing: Standing| matches!(standing, Standing::Present | Standing::Unknown);
    if owners.iter().all(|(_, standing)| stands(*standing)) {
        return Vec::new();
    }
    if owners.iter().any(|(_, standing)| stands(*standing)) {
        let kept = owners.iter().filter(|(_, standing)| stands(*standing)).map(|(owner, _)| owner.to_json()).collect();
        return vec![references(key, meta, kept)];
    }
    let delete = |propagation| Action::Delete { key: key.clone(), uid: meta.uid.to_string(), propagation: Some(propagation), grace: None };
    if owned.any && owners.iter().any(|(_, standing)| *standing == Standing::Waiting) {
        let mut actions = Vec::new();
        if owned.circle {
            let unblocked = owners.iter().map(|(owner, _)| Owner { block_owner_deletion: false, ..(*owner).clone() }.to_json()).collect();
            actions.push(references(key, meta, unblocked));
        }
        actions.push(delete("Foreground"));
        return actions;
    }
    vec![delete(match () {
        () if meta.has_finalizer(ORPHAN) => "Orphan",
        () if meta.has_finalizer(FOREGROUND) => "Foreground",
        () => "Background",
    })]
}

/// Takes the reference to an owner away from an object that is to survive it.
pub fn release_orphans(key: &Key, meta: &Meta<'_>, uid: &str) -> Action {
    references(key, meta, meta.owner_references.iter().filter(|owner| *owner.uid != *uid).map(Owner::to_json).collect())
}

/// Takes a finalizer away.
pub fn without_finalizer(key: &Key, meta: &Meta<'_>, finalizer: &str) -> Action {
    let finalizers: Vec<&str> = meta.finalizers.iter().map(|f| &**f).filter(|f| *f != finalizer).collect();
    let finalizers = if finalizers.is_empty() { Value::Null } else { json!(finalizers) };
    let patch = json!({ "metadata": { "uid": meta.uid, "resourceVersion": meta.resource_version, "finalizers": finalizers } });
    Action::Patch { key: key.clone(), subresource: "", patch }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(standings: &[Standing], finalizer: &str, owned: Owned) -> Vec<Action> {
        let owners: Vec<Owner<'_>> = (0..standings.len())
            .map(|i| Owner { uid: format!("o{i}").into(), name: format!("o{i}").into(), block_owner_deletion: true, ..Owner::default() })
            .collect();
        let meta = Meta { uid: "u".into(), resource_version: "7".into(), finalizers: vec![finalizer.into()], ..Meta::default() };
        let pairs: Vec<_> = owners.iter().zip(standings.iter().copied()).collect();
        dependent(&Key::new("pods", "n", "p"), &meta, &pairs, owned)
    }
    fn delete(propagation: &'static str) -> Vec<Action> {
        vec![Action::Delete { key: Key::new("pods", "n", "p"), uid: "u".into(), propagation: Some(propagation), grace: None }]
    }

    #[test]
    fn one_standing_owner_keeps_an_object() {
        use Standing::{Absent, Present, Unknown, Waiting};
        assert!(judge(&[], "", Owned::default()).is_empty());
        assert!(judge(&[Present, Unknown], "", Owned::default()).is_empty());
        for lost in [Absent, Waiting] {
            let [Action::Patch { patch, .. }] = &judge(&[Present, lost], "", Owned::default())[..] else { panic!("a patch") };
            assert_eq!(patch["metadata"]["ownerReferences"].as_array().map(Vec::len), Some(1));
            assert_eq!(patch["metadata"]["ownerReferences"][0]["uid"], "o0");
            assert_eq!(patch["metadata"]["resourceVersion"], "7");
        }
        assert_eq!(judge(&[Absent], "", Owned::default()), delete("Background"));
        assert_eq!(judge(&[Absent, Waiting], "", Owned::default()), delete("Background"));
        assert_eq!(judge(&[Absent], ORPHAN, Owned::default()), delete("Orphan"));
        assert_eq!(judge(&[Absent], FOREGROUND, Owned::default()), delete("Foreground"));
    }

    #[test]
    fn foreground_deletion_goes_down_and_breaks_circles() {
        assert_eq!(judge(&[Standing::Waiting], "", Owned { any: true, circle: false }), delete("Foreground"));
        let circle = judge(&[Standing::Waiting], "", Owned { any: true, circle: true });
        let [Action::Patch { patch, .. }, Action::Delete { .. }] = &circle[..] else { panic!("unblock, then delete: {circle:?}") };
        assert_eq!(patch["metadata"]["ownerReferences"][0].get("blockOwnerDeletion"), None);
        assert_eq!(judge(&[Standing::Absent], "", Owned { any: true, circle: false }), delete("Background"));
    }

    #[test]
    fn the_last_finalizer_leaves_no_empty_list() {
        let meta = Meta { finalizers: vec!["orphan".into(), "x".into()], ..Meta::default() };
        let of = |meta: &Meta<'_>, f| match without_finalizer(&Key::new("pods", "n", "p"), meta, f) {
            Action::Patch { patch, .. } => patch["metadata"]["finalizers"].clone(),
            other => panic!("{other:?}"),
        };
        assert_eq!(of(&meta, "orphan"), json!(["x"]));
        let meta = Meta { finalizers: vec!["orphan".into()], ..Meta::default() };
        assert_eq!(of(&meta, "orphan"), Value::Null);
    }
}
