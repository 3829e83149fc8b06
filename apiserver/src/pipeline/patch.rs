//! Applying a patch to a value: pure, bounded.

use super::PatchKind;
use coracle_api::status::{Cause, Status};
use coracle_schema::Schema;
use json_patch::PatchOperation;
use serde_json::Value;

/// Most operations of a JSON patch, as upstream.
pub const MAX_OPERATIONS: usize = 10_000;
/// Most bytes that the `copy` operations of one patch may add, as upstream.
pub const MAX_COPIED: usize = 3 * 1024 * 1024;

/// Longest value that is shown in an error, bytes: it keeps the answer readable.
const MAX_SHOWN: usize = 8192;
/// How the refusal of operations begins; upstream says no more than that.
pub const REJECTED: &str = "the server rejected our request due to an error in our request: ";

fn unprocessable(why: impl std::fmt::Display) -> Status {
    let mut status = Status::new(422, "Invalid", format!("{REJECTED}{why}"));
    // Without causes: clients show the message then.
    status.details = Some(Box::default());
    status
}

/// 422 for an outcome that is no object of its kind. What is shown is the patched object, and of a strategic merge, which has none then, the patch.
pub fn unfit(shown: &[u8], why: &str) -> Status {
    let shown = String::from_utf8_lossy(shown.get(..MAX_SHOWN).unwrap_or(shown));
    let cause = Cause { reason: "FieldValueInvalid".into(), message: format!("Invalid value: {shown:?}: {why}"), field: "patch".into() };
    Status::invalid("", "", "", vec![cause])
}

/// 413 in upstream's words.
pub fn too_large(why: impl std::fmt::Display) -> Status {
    Status::new(413, "RequestEntityTooLarge", format!("Request entity too large: {why}"))
}

/// A patch that has been read; it can be applied any number of times.
#[derive(Debug)]
pub struct Patch {
    operation: Operation,
    /// Fields that are given twice, and what no operation has, as field validation names them.
    pub strict: Vec<String>,
}

#[derive(Debug)]
enum Operation {
    Json(json_patch::Patch),
    Merge(Value),
    Strategic(Value),
}

impl Patch {
    /// Reads a patch's text.
    ///
    /// # Errors
    /// 400 for what is no such patch, 413 for one with too many operations.
    pub fn read(kind: PatchKind, text: &[u8]) -> Result<Patch, Status> {
        let wrong = |error: &dyn std::fmt::Display| Status::bad_request(format!("error decoding patch: {error}"));
        let (patch, mut strict) = coracle_schema::read_json(text).map_err(|error| wrong(&error))?;
        let operation = match kind {
            PatchKind::Json => {
                let operations = patch.as_array().map_or(&[][..], Vec::as_slice);
                // Counted before the operations are built, so that a huge patch costs no more than its text.
                let count = operations.len();
                if count > MAX_OPERATIONS {
                    return Err(too_large(format_args!("The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {count}")));
                }
                strict = unknown(operations).chain(strict).map(|what| format!("json patch {what}")).collect();
                Operation::Json(serde_json::from_value(patch).map_err(|error| wrong(&error))?)
            }
            PatchKind::Merge if !patch.is_object() => return Err(wrong(&"a merge patch of an object must be an object")),
            PatchKind::Merge => Operation::Merge(patch),
            PatchKind::Strategic => Operation::Strategic(patch),
            PatchKind::Apply => return Err(Status::internal("what is applied is no patch")),
        };
        Ok(Patch { operation, strict })
    }

    /// A strategic merge patch as upstream shows it; None of another kind.
    pub fn strategic(&self) -> Option<String> {
        match &self.operation {
            Operation::Strategic(patch) => Some(coracle_schema::managed::go(patch)),
            Operation::Json(_) | Operation::Merge(_) => None,
        }
    }

    /// The patched value; `current` is untouched.
    ///
    /// # Errors
    /// 422 and 413 for operations that cannot be carried out, and what the schema says of a strategic merge.
    pub fn apply(&self, current: &Value, schema: &Schema) -> Result<Value, Status> {
        match &self.operation {
            Operation::Json(patch) => json(patch, current),
            Operation::Merge(patch) => Ok(coracle_schema::json_merge_patch(current, patch)),
            Operation::Strategic(patch) => schema.strategic_merge(current, patch),
        }
    }
}

/// Fields of operations that mean nothing.
fn unknown(operations: &[Value]) -> impl Iterator<Item = String> {
    const FIELDS: [&str; 4] = ["op", "path", "from", "value"];
    let fields =
        operations.iter().enumerate().flat_map(|(at, operation)| operation.as_object().into_iter().flatten().map(move |(name, _)| (at, name)));
    fields.filter(|(_, name)| !FIELDS.contains(&name.as_str())).map(|(at, name)| format!("unknown field \"[{at}].{name}\""))
}

fn json(patch: &json_patch::Patch, current: &Value) -> Result<Value, Status> {
    let mut value = current.clone();
    let mut copied = 0;
    let mut nesting = Nesting::of(&value)?;
    for operation in &patch.0 {
        if let PatchOperation::Copy(copy) = operation {
            copied += value.pointer(copy.from.as_str()).map_or(0, |from| from.to_string().len());
            if copied > MAX_COPIED {
                return Err(too_large(format_args!(
                    "Unable to complete copy, the accumulated size increase of copy is {copied}, exceeding the limit {MAX_COPIED}"
                )));
            }
        }
        if tests_absence(operation, &value) {
            continue;
        }
        json_patch::patch_unsafe(&mut value, std::slice::from_ref(operation))
            .map_err(|error| unprocessable(format_args!("operation on {}: {}", operation.path(), error.kind)))?;
        nesting.after(operation, &value)?;
    }
    Ok(value)
}

/// To upstream's `test` a member that is not there is null; finalizers are added by it.
fn tests_absence(operation: &PatchOperation, value: &Value) -> bool {
    let PatchOperation::Test(test) = operation else { return false };
    let Some((parent, member)) = test.path.split_back() else { return false };
    let parent = value.pointer(parent.as_str()).and_then(Value::as_object);
    test.value.is_null() && parent.is_some_and(|parent| !parent.contains_key(member.decoded().as_ref()))
}

/// Keeps a value from nesting deeper than can be walked: moving a value into itself again and again would.
struct Nesting {
    /// The value is at most so deep.
    bound: usize,
    /// How often it may still be measured.
    measures: u32,
}

impl Nesting {
    /// Deepest that one operation's own value is: what the parser lets in.
    const PARSED: usize = 128;

    fn of(value: &Value) -> Result<Nesting, Status> {
        Ok(Nesting { bound: Self::measure(value)?, measures: 100 })
    }

    fn measure(value: &Value) -> Result<usize, Status> {
        coracle_schema::depth(value).ok_or_else(|| unprocessable(format_args!("values nested deeper than {}", coracle_schema::MAX_DEPTH)))
    }

    /// Called after every operation, so that the value is never more than one operation too deep.
    fn after(&mut self, operation: &PatchOperation, value: &Value) -> Result<(), Status> {
        match operation {
            PatchOperation::Add(_) | PatchOperation::Replace(_) => self.bound = self.bound.max(operation.path().count() + Self::PARSED),
            PatchOperation::Move(_) | PatchOperation::Copy(_) => self.bound += operation.path().count(),
            PatchOperation::Remove(_) | PatchOperation::Test(_) => {}
        }
        if self.bound > coracle_schema::MAX_DEPTH {
            self.measures = self.measures.checked_sub(1).ok_or_else(|| unprocessable("too many operations on deeply nested values"))?;
            self.bound = Self::measure(value)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn run(patch: Value, current: Value) -> Result<Value, Status> {
        let schema = coracle_schema::Schemas::builtin().get("", "v1", "ConfigMap").expect("known");
        Patch::read(PatchKind::Json, patch.to_string().as_bytes())?.apply(&current, &schema)
    }

    #[test]
    fn no_patch_nests_a_value_without_end() {
        let mut operations = vec![json!({"op": "add", "path": "/a", "value": {"x": 1}})];
        for _ in 0..4_000 {
            operations.push(json!({"op": "add", "path": "/b", "value": {}}));
            operations.push(json!({"op": "move", "from": "/a", "path": "/b/a"}));
            operations.push(json!({"op": "move", "from": "/b", "path": "/a"}));
        }
        operations.truncate(MAX_OPERATIONS);
        let error = run(Value::Array(operations), json!({})).unwrap_err();
        assert_eq!((error.code, error.message.contains("nested deeper")), (422, true));
        let shallow = (0..3_000).map(|_| json!({"op": "move", "from": "/a", "path": "/a"})).collect();
        assert_eq!(run(shallow, json!({"a": {"b": 1}})).unwrap(), json!({"a": {"b": 1}}));
    }

    #[test]
    fn json_patches_apply() {
        let patched = run(json!([{"op": "add", "path": "/data/b", "value": "2"}, {"op": "remove", "path": "/data/a"}]), json!({"data": {"a": "1"}}));
        assert_eq!(patched.expect("applies"), json!({"data": {"b": "2"}}));
    }

    #[test]
    fn json_patches_are_bounded() {
        let many: Vec<Value> = (0..=MAX_OPERATIONS).map(|_| json!({"op": "add", "path": "/a", "value": 1})).collect();
        let refused = run(Value::Array(many), json!({})).expect_err("too many");
        assert_eq!(refused.code, 413);
        assert!(refused.message.contains("The allowed maximum operations in a JSON patch is 10000, got 10001"), "{}", refused.message);
        // Doubling by copies: 2^40 bytes if nobody counted.
        let mut bomb = vec![json!({"op": "add", "path": "/a", "value": ["x"]})];
        bomb.extend((0..40).map(|_| json!({"op": "copy", "from": "/a", "path": "/a/-"})));
        assert_eq!(run(Value::Array(bomb), json!({})).expect_err("copies").code, 413);
    }

    #[test]
    fn what_cannot_be_applied_is_the_clients_error() {
        assert_eq!(run(json!([{"op": "test", "path": "/a", "value": 2}]), json!({"a": 1})).expect_err("test").code, 422);
        let missing = run(json!([{"op": "remove", "path": "/b"}]), json!({})).expect_err("missing");
        assert_eq!((missing.code, missing.reason, missing.message.starts_with(&format!("{REJECTED}operation on /b: "))), (422, "Invalid", true));
        assert_eq!(missing.details.expect("details").causes, [], "a cause would be shown in place of the message");
        assert_eq!(run(json!([{"op": "fly", "path": "/b"}]), json!({})).expect_err("op").code, 400);
        assert_eq!(Patch::read(PatchKind::Merge, b"{").expect_err("text").code, 400);
        assert_eq!(Patch::read(PatchKind::Merge, b"[]").expect_err("array").code, 400);
    }

    #[test]
    fn of_an_unfit_object_a_strategic_merge_shows_itself() {
        let patch = Patch::read(PatchKind::Strategic, br#"{"data": {"a": [1, "b", null]}, "immutable": true}"#).expect("reads");
        let shown = patch.strategic().expect("shown");
        assert_eq!(shown, "map[data:map[a:[1 b <nil>]] immutable:true]");
        assert_eq!(unfit(shown.as_bytes(), "why").message, format!(" \"\" is invalid: patch: Invalid value: \"{shown}\": why"));
        assert!(unfit(&[b'x'; 2 * MAX_SHOWN], "why").message.len() < MAX_SHOWN + 100);
        assert_eq!(Patch::read(PatchKind::Merge, b"{}").expect("reads").strategic(), None);
    }

    #[test]
    fn what_is_said_twice_or_means_nothing_is_named() {
        let strict = |kind, text: &str| Patch::read(kind, text.as_bytes()).expect("reads").strict;
        let merge = r#"{"spec": {"paused": true, "paused": false, "list": [{"a": 1, "a": 2}]}}"#;
        for kind in [PatchKind::Merge, PatchKind::Strategic] {
            assert_eq!(strict(kind, merge), [r#"duplicate field "spec.paused""#, r#"duplicate field "spec.list[0].a""#]);
        }
        let operations = r#"[{"op": "add", "path": "/a", "value": {"x": 1}, "foo": 1}, {"op": "add", "path": "/b", "path": "/c", "value": 1}]"#;
        assert_eq!(strict(PatchKind::Json, operations), [r#"json patch unknown field "[0].foo""#, r#"json patch duplicate field "[1].path""#]);
    }
}
