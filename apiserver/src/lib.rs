//! The API server: one pipeline for every kind, from HTTPS, from a node's link and from controllers alike.

pub mod admission;
pub mod aggregation;
pub mod audit;
pub mod auth;
pub mod bootstrap;
pub mod client;
pub mod custom;
pub mod expiry;
#[cfg(any(test, feature = "fixture"))]
pub mod fixture;
mod forms;
pub mod http;
pub mod metrics;
pub mod nodes;
pub mod pipeline;
pub mod quota;
pub mod resources;
pub mod tasks;
pub mod telemetry;
pub mod view;
pub mod webhook;

pub use tasks::Tasks;
