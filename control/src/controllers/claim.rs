//! Adoption and release: a controller owns what its selector matches and nobody else controls (Kubernetes' ControllerRef rules).

use super::action::Action;
use coracle_apiserver::view::{Meta, Owner};
use coracle_store::Key;
use serde_json::{Value, json};

/// What is to be done about one object that may be ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// It is ours already.
    Owned,
    /// It matches and nobody controls it: take it.
    Adopt,
    /// It is ours and matches no longer: let it go.
    Release,
    /// None of our business.
    Ignore,
}

/// Judges an object against an owner that has this uid, and whose selector `matches` it or not; `owner_deleting` owners adopt and release
/// nothing.
pub fn claim(meta: &Meta<'_>, uid: &str, matches: bool, owner_deleting: bool) -> Claim {
    match meta.controller() {
        Some(owner) if *owner.uid != *uid => Claim::Ignore,
        Some(_) if matches => Claim::Owned,
        Some(_) if owner_deleting => Claim::Ignore,
        Some(_) => Claim::Release,
        None if matches && !owner_deleting && !meta.deleting() => Claim::Adopt,
        None => Claim::Ignore,
    }
}

/// The patch that makes `owner` the controller, or removes it (with `adopt` false).
pub fn patch(key: Key, meta: &Meta<'_>, owner: &Owner<'_>, adopt: bool) -> Action {
    let mut owners: Vec<Value> = meta.owner_references.iter().filter(|o| o.uid != owner.uid).map(Owner::to_json).collect();
    if adopt {
        owners.push(owner.to_json());
    }
    let owners = if owners.is_empty() { Value::Null } else { Value::Array(owners) };
    let patch = json!({ "metadata": { "uid": meta.uid, "resourceVersion": meta.resource_version, "ownerReferences": owners } });
    Action::Patch { key, subresource: "", patch }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_apiserver::view::selector::LabelSelector;

    fn meta(json: &str) -> Meta<'_> {
        serde_json::from_str(json).expect("metadata")
    }

    #[test]
    fn only_what_nobody_controls_is_adopted() {
        let selector: LabelSelector<'_> = serde_json::from_str(r#"{"matchLabels":{"app":"a"}}"#).expect("selector");
        let owned = r#"{"labels":{"app":"a"},"ownerReferences":[{"uid":"u1","controller":true}]}"#;
        let strayed = r#"{"labels":{"app":"b"},"ownerReferences":[{"uid":"u1","controller":true}]}"#;
        let orphan = r#"{"labels":{"app":"a"},"ownerReferences":[{"uid":"x"}]}"#;
        let dying = r#"{"labels":{"app":"a"},"deletionTimestamp":"2026-01-01T00:00:00Z"}"#;
        for (json, deleting, expected) in [
            (owned, false, Claim::Owned),
            (owned, true, Claim::Owned),
            (strayed, false, Claim::Release),
            (strayed, true, Claim::Ignore),
            (orphan, false, Claim::Adopt),
            (orphan, true, Claim::Ignore),
            (dying, false, Claim::Ignore),
        ] {
            let meta = meta(json);
            assert_eq!(claim(&meta, "u1", selector.matches(&meta.labels), deleting), expected, "{json} {deleting}");
        }
        assert_eq!(claim(&meta(owned), "u2", true, false), Claim::Ignore);
    }

    #[test]
    fn release_keeps_other_owners() {
        let meta = meta(r#"{"uid":"p","resourceVersion":"7","ownerReferences":[{"uid":"u1","controller":true},{"uid":"x","kind":"K"}]}"#);
        let owner = Owner { uid: "u1".into(), ..Owner::default() };
        let Action::Patch { patch, .. } = patch(Key::new("pods", "n", "p"), &meta, &owner, false) else { panic!("a patch") };
        assert_eq!(patch.pointer("/metadata/ownerReferences/0/uid"), Some(&json!("x")));
        assert_eq!(patch.pointer("/metadata/ownerReferences/1"), None);
    }
}
