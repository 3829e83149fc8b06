//! Pods on this node: a keyed set of state machines.
//!
//! [`machine`] is a pod's state as data, [`step`] says what to do next, [`observe`] takes in what happened, [`status`] words it for the
//! API: all pure. [`set`] is the one task that holds all pods and their timers; [`work`] carries actions out.

pub mod admit;
pub mod adopt;
pub mod downward;
mod ended;
pub mod env;
mod exec;
pub mod fit;
mod grpc;
pub mod hook;
pub mod hostname;
mod http;
pub mod machine;
pub mod observe;
pub mod orphans;
pub mod probe;
pub mod probes;
pub mod resize;
pub mod restart;
pub mod set;
pub mod spec;
pub mod statics;
pub mod status;
pub mod step;
pub mod time;
pub mod views;
pub mod whole;
pub mod work;

#[cfg(test)]
mod tests;
