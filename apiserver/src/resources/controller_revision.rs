//! ControllerRevision: a template that a StatefulSet or DaemonSet has had.

use super::{
    age,
    cells::{self, AGE, NAME, count, list},
    rules::{At, Causes},
    simple::Simple,
};
use serde_json::Value;

/// `controllerrevisions.apps`
pub const CONTROLLER_REVISION: Simple = Simple::new(
    &[NAME, ("Controller", "Whose template it holds."), ("#Revision", "The higher, the newer."), AGE],
    |revision| vec![cells::name(revision), controller(revision).into(), count(&revision["revision"]).into(), age::of(revision)],
    validate,
);

fn controller(revision: &Value) -> String {
    let Some(owner) = list(&revision["metadata"]["ownerReferences"]).iter().find(|owner| owner["controller"] == true) else {
        return "<none>".into();
    };
    let text = |field: &str| owner[field].as_str().unwrap_or_default();
    let group = text("apiVersion").split_once('/').map_or(String::new(), |(group, _)| format!(".{group}"));
    format!("{}/{}", format!("{}{group}", text("kind")).to_lowercase(), text("name"))
}

pub(super) fn validate(old: Option<&Value>, new: &Value, causes: &mut Causes) {
    let root = At::root(new);
    root.field("revision").non_negative(causes);
    let data = root.field("data");
    match old {
        Some(old) => data.immutable(causes, &old["data"]),
        None if !data.is_set() => data.missing(causes, "data is mandatory"),
        None if !data.value.is_object() => data.missing(causes, "data must be a valid JSON object"),
        None => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::{Hooks, rules::lines};
    use serde_json::json;

    #[test]
    fn a_template_that_was_cannot_change() {
        let wrong = |old: Option<Value>, new: Value| {
            let mut causes = Vec::new();
            validate(old.as_ref(), &new, &mut causes);
            lines(&causes)
        };
        assert_eq!(wrong(None, json!({"revision": 1, "data": {"spec": {}}})), Vec::<String>::new());
        assert_eq!(wrong(None, json!({"revision": -1, "data": {}})), ["revision: Invalid value: -1: must be greater than or equal to 0"]);
        assert_eq!(wrong(None, json!({"revision": 1})), ["data: Required value: data is mandatory"]);
        assert_eq!(wrong(None, json!({"revision": 1, "data": [1]})), ["data: Required value: data must be a valid JSON object"]);
        assert_eq!(
            wrong(Some(json!({"data": {"a": 1}})), json!({"revision": 2, "data": {"a": 2}})),
            ["data: Invalid value: {\"a\":2}: field is immutable"]
        );
    }

    #[test]
    fn rows_read_as_kubectl_prints_them() {
        let revision = json!({"metadata": {"name": "web-1", "creationTimestamp": "2026-01-02T03:04:00Z",
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web", "controller": true}]}, "revision": 3});
        assert_eq!(cells::golden(&CONTROLLER_REVISION.cells(&revision), "2026-01-02T03:04:05Z"), "web-1 | statefulset.apps/web | 3 | 5s");
    }
}
