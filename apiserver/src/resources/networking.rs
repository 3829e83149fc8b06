//! The group `networking.k8s.io`.

pub mod address;
pub mod ingress;
pub mod policy;

use super::rules::{At, Causes};
use coracle_api::names;

/// The name of a kind or object that only has to be safe in a path; must be there.
fn path_name(at: &At<'_, '_>, causes: &mut Causes) {
    if at.required(causes, "") {
        at.syntax(causes, names::path_segment);
    }
}
