//! Patches of all three kinds.

use crate::bodies::{check, schema_of};
use coracle_api::status::Status;
use coracle_apiserver::pipeline::{PatchKind, patch::Patch};
use coracle_schema::{FieldValidation, depth, to_bytes};
use serde_json::Value;

/// One JSON document: `{"current": OBJECT, "patch": PATCH}`.
pub fn patches(data: &[u8]) {
    let Ok(Value::Object(mut input)) = serde_json::from_slice::<Value>(data) else { return };
    let (Some(mut current), Some(patch)) = (input.remove("current"), input.remove("patch")) else { return };
    let schema = schema_of(&current);
    if schema.canonicalize(&mut current, FieldValidation::Ignore).is_err() {
        return;
    }
    schema.default(&mut current);
    let patch = to_bytes(&patch);
    for kind in [PatchKind::Json, PatchKind::Merge, PatchKind::Strategic] {
        let apply = |current: &Value| Patch::read(kind, &patch)?.apply(current, &schema);
        let mut value = match apply(&current) {
            Ok(value) => value,
            Err(status) => {
                assert!(matches!(status.code, 400 | 413 | 422), "{status}");
                continue;
            }
        };
        assert!(depth(&value).is_some(), "it can be walked");
        if kind == PatchKind::Merge {
            assert_eq!(apply(&value).expect("it applied before"), value, "a merge patch twice is a merge patch once");
        }
        if schema.canonicalize_patched(&mut value, &[], FieldValidation::Warn, |why| Status::internal(why)).is_ok() {
            check(&schema, &value);
        }
    }
}
