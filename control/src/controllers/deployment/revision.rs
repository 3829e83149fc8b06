//! Revisions: the annotations by which `kubectl rollout history` and `undo` find old templates.

use super::{Deployment, rollout::Set};
use coracle_apiserver::view::Map;
use std::collections::BTreeMap;

/// The revision of a set, and of the Deployment its newest.
pub const REVISION: &str = "deployment.kubernetes.io/revision";
/// Revisions a set had before it was rolled back to.
pub const HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// The Deployment's wanted pods when the set was last scaled.
pub const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
/// The most pods the Deployment allowed then.
pub const MAX: &str = "deployment.kubernetes.io/max-replicas";

/// Characters of history kept.
const HISTORY_LENGTH: usize = 2000;
/// Not copied from a Deployment to its sets.
const OWN: [&str; 6] = ["kubectl.kubernetes.io/last-applied-configuration", REVISION, HISTORY, DESIRED, MAX, "deprecated.deployment.rollback.to"];

/// A number in an annotation; absent or unreadable is None.
pub fn number(annotations: &Map<'_>, key: &str) -> Option<i64> {
    annotations.get(key).and_then(|text| text.parse().ok())
}

/// The highest revision among these sets.
pub fn highest<'s, 'a: 's>(sets: impl Iterator<Item = &'s Set<'a>>) -> i64 {
    sets.filter_map(|set| number(&set.view.metadata.annotations, REVISION)).max().unwrap_or(0)
}

/// What must be added to the annotations of the new set, which has `current` ones, when `revision` is one above the old sets' highest.
pub fn annotations(deployment: &Deployment<'_>, current: &Map<'_>, revision: i64) -> BTreeMap<String, String> {
    let mut changes = BTreeMap::new();
    for (key, value) in &deployment.metadata.annotations {
        if !OWN.contains(&&**key) && current.get(&**key) != Some(value) {
            changes.insert(key.to_string(), value.to_string());
        }
    }
    let old = current.get(REVISION);
    let Ok(number) = old.map_or(Ok(0), |text| text.parse::<i64>()) else { return changes };
    if number < revision {
        changes.insert(REVISION.to_owned(), revision.to_string());
        if let Some(old) = old {
            let known = current.get(HISTORY).map(|text| &**text).unwrap_or_default();
            let mut revisions: Vec<&str> = known.split(',').filter(|r| !r.is_empty()).collect();
            revisions.push(old);
            let mut joined = revisions.join(",");
            while joined.len() > HISTORY_LENGTH {
                revisions.remove(0);
                joined = revisions.join(",");
            }
            changes.insert(HISTORY.to_owned(), joined);
        }
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rolling_back_remembers_the_old_revision() {
        let deployment: Deployment<'_> =
            serde_json::from_str(r#"{"metadata":{"annotations":{"note":"x","deployment.kubernetes.io/revision":"3"}}}"#).expect("deployment");
        let current: Map<'_> = serde_json::from_str(r#"{"deployment.kubernetes.io/revision":"1","deployment.kubernetes.io/revision-history":"0"}"#)
            .expect("annotations");
        let changes = annotations(&deployment, &current, 4);
        let expected = [("note", "x"), (REVISION, "4"), (HISTORY, "0,1")];
        assert_eq!(changes, expected.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect());
        assert!(annotations(&Deployment::default(), &current, 1).is_empty());
    }
}
