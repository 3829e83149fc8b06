//! The control plane: controllers and scheduler over the API server, and what starts them all.

pub mod control;
pub mod controllers;
pub mod scheduler;
pub mod view;

pub use control::{Control, Error, Options, Settings};
