//! The control plane: the API server, controllers, scheduler and node sessions.
//!
//! SKELETON: contract between its rooms.
#![allow(unused, missing_docs, clippy::all)]

pub mod admission;
pub mod auth;
pub mod client;
pub mod controllers;
pub mod http;
pub mod nodes;
pub mod pipeline;
pub mod resources;
pub mod scheduler;
pub mod tasks;

pub use tasks::Tasks;
