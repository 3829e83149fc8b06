//! Admission `NodeRestriction`: the part of a node's limits that stands in the body of what it writes.

use crate::{admission::Plugin, resources::Cx};
use coracle_api::status::Status;
use serde_json::Value;

/// See [`super::admit`].
pub struct NodeRestriction;

impl Plugin for NodeRestriction {
    fn name(&self) -> &'static str {
        "NodeRestriction"
    }

    fn validate(&self, cx: &Cx<'_>, _old: Option<&Value>, new: Option<&Value>) -> Result<(), Status> {
        match new {
            Some(new) => super::admit(cx.user(), &cx.row().plural, cx.subresource(), new),
            // deletes name their object, so authorization has seen all of it
            None => Ok(()),
        }
    }
}
