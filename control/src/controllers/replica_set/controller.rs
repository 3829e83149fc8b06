//! ReplicationControllers, looked at as the ReplicaSets that they nearly are.

use super::{ReplicaSet, Spec, State, Template};
use crate::view::View;
use coracle_api::Status;
use coracle_apiserver::view::{Map, parse, selector::LabelSelector};
use coracle_store::Object;
use serde::Deserialize;

type ReplicationController<'a> = View<'a, ControllerSpec<'a>, State<'a>>;
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ControllerSpec<'a> {
    replicas: Option<i64>,
    min_ready_seconds: i64,
    #[serde(borrow)]
    selector: Map<'a>,
    template: Template<'a>,
}

/// Reads one: its selector is a plain map of labels.
///
/// # Errors
/// 500, when the stored bytes do not have its shape.
pub fn read(object: &Object) -> Result<ReplicaSet<'_>, Status> {
    let ReplicationController { metadata, spec, status } = parse(object)?;
    let ControllerSpec { replicas, min_ready_seconds, selector, template } = spec;
    let selector = LabelSelector { match_labels: selector, match_expressions: Vec::new() };
    Ok(ReplicaSet { metadata, spec: Spec { replicas, min_ready_seconds, selector, template }, status })
}
