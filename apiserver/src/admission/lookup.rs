//! Other objects as a plugin sees them: from the attempt's own snapshot, so that the decision and the write see one state.

use crate::resources::Cx;
use coracle_api::status::Status;
use coracle_store::Key;
use serde_json::Value;

/// One object by resource id.
pub fn object(cx: &Cx<'_>, resource: &str, namespace: &str, name: &str) -> Result<Option<Value>, Status> {
    let Some(object) = cx.snapshot.get(&Key::new(resource, namespace, name)) else { return Ok(None) };
    match serde_json::from_slice(&object.json) {
        Ok(value) => Ok(Some(value)),
        Err(error) => Err(Status::internal(format_args!("stored {resource} {namespace}/{name} cannot be read: {error}"))),
    }
}

/// Whether this is a write of a pod itself, not of a subresource.
pub fn is_pod(cx: &Cx<'_>) -> bool {
    &*cx.row().plural == "pods" && cx.row().group.is_empty() && cx.subresource().is_empty()
}

/// 403 about the object of this request: `pods "a" is forbidden: why`. One whose name was generated is named by what it was generated from, since the
/// client cannot know the rest.
pub fn forbidden(cx: &Cx<'_>, object: &Value, why: &str) -> Status {
    let metadata = &object["metadata"];
    let (name, base) = (metadata["name"].as_str().unwrap_or(&cx.request.name), metadata["generateName"].as_str().unwrap_or_default());
    let shown = if cx.request.name.is_empty() && !base.is_empty() && name.starts_with(base) { base } else { name };
    Status::forbidden(&cx.row().group, &cx.row().plural, shown, why)
}

/// A list to append to, made if there is none.
pub fn list<'a>(object: &'a mut Value, name: &str) -> Option<&'a mut Vec<Value>> {
    let place = &mut object[name];
    if place.is_null() {
        *place = Value::Array(Vec::new());
    }
    place.as_array_mut()
}
