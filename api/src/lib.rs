//! The vocabulary of the cluster: what a resource is, what an error is, how names, selectors, quantities and times read.
//!
//! Everything here is plain data and pure functions. Objects travel as canonical JSON bytes or, where they are being changed,
//! as [`serde_json::Value`]; there are no typed structs per kind, so that built-in kinds and custom ones are the same thing.

pub mod amounts;
pub mod cause;
pub mod duration;
pub mod names;
pub mod quantity;
pub mod registry;
pub mod selector;
pub mod status;
pub mod sysctls;
pub mod time;

pub use registry::{Registry, Resource, Scope};
pub use status::Status;
