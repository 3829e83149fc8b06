//! One shape of narrow views: what all kinds have, and of spec and status the fields that somebody decides on.
//!
//! It is here, and not beside [`Meta`], because controllers and the scheduler give the views of their kinds methods of their own.

use coracle_apiserver::view::{Meta, Text};
use serde::Deserialize;

/// An object, borrowed from its stored bytes. `Spec` and `Status` are what is looked at of those, [`Nothing`] where nothing is.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct View<'a, Spec, Status = Nothing> {
    /// Metadata.
    #[serde(borrow)]
    pub metadata: Meta<'a>,
    /// What it is to be.
    pub spec: Spec,
    /// How it is.
    pub status: Status,
}

/// How a workload replaces its pods (`strategy`, `updateStrategy`); `Bounds` are those of a rolling update.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Strategy<'a, Bounds> {
    /// `RollingUpdate`; `Recreate` of Deployments, `OnDelete` of the others.
    #[serde(borrow, rename = "type")]
    pub kind: Text<'a>,
    /// Bounds of a rolling update.
    pub rolling_update: Option<Bounds>,
}

/// A part of an object that nobody looks at.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub struct Nothing {}
