//! The control plane: the API server, controllers, scheduler and node sessions.

pub mod admission;
pub mod aggregation;
pub mod audit;
pub mod auth;
pub mod bootstrap;
pub mod client;
pub mod control;
pub mod controllers;
pub mod custom;
mod expiry;
mod forms;
pub mod http;
pub mod metrics;
pub mod nodes;
pub mod pipeline;
pub mod quota;
pub mod resources;
pub mod scheduler;
pub mod tasks;
pub mod webhook;

pub use control::{Control, Error, Options, Settings};
pub use tasks::Tasks;
