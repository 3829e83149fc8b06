//! The node agent: runs the pods that the control plane gives this node, and goes on doing so when it is cut off.
//!
//! [`Agent::new`](agent::Agent::new) makes a [`Service`] to run and a [`Handle`] to stop pods with.
//! [`session`] holds the link, [`mirror`] what the node was told, [`pods`] the pods, [`images`], [`volumes`], [`network`] and [`dns`] what they
//! need; [`report`], [`events`] and [`registration`] are what the node says, [`streams`], [`logs`] and [`stats`] what it is asked;
//! [`eviction`] saves it.

pub mod agent;
pub mod dns;
pub mod events;
pub mod eviction;
pub mod images;
pub mod kubelet;
pub mod logs;
pub mod machine;
pub mod mirror;
pub mod network;
pub mod pods;
pub mod registration;
pub mod report;
pub mod session;
pub mod stats;
pub mod streams;
pub mod volumes;

pub use agent::{Agent, Handle, Options, Service};
