//! Sets that were written under an older schema: what became one value since is owned as one (structured-merge-diff's `ReconcileFieldSetWithSchema`).

use super::element;
use super::fields::Node;
use super::view::{Choice, View};
use serde_json::Value;

/// Brings a set in line with the schema as it is now.
pub(crate) fn reconcile(view: View<'_>, set: &mut Node) {
    let rules = view.rules();
    match (rules.choose(None), &rules.map, &rules.list) {
        (Choice::Map, Some(rules), _) => {
            if rules.is_deduced() {
                return;
            }
            if rules.atomic {
                return set.clear();
            }
            for (key, below) in set.iter_mut() {
                if let (Some(view), Value::Object(below)) = (element::field_name(key).and_then(|name| rules.at(name)), below) {
                    reconcile(view, below);
                }
            }
        }
        (Choice::List, _, Some(rules)) => {
            if rules.atomic {
                return set.clear();
            }
            for (key, below) in set.iter_mut() {
                if let (true, Value::Object(below)) = (key != ".", below) {
                    reconcile(rules.element, below);
                }
            }
        }
        _ => {}
    }
}
