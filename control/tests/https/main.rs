//! What clients see of a whole control plane in this process, mostly over real TLS.
//!
//! One program for all of it, a module for each matter: every further one would have to be linked with all of the control plane again.

mod aggregation;
mod api;
mod apply;
mod audit;
mod cluster;
mod conformance;
mod crd;
mod devices;
mod encodings;
mod forms;
mod groups;
mod kinds;
mod metrics;
mod node;
mod operations;
mod pod_security;
mod policies;
mod quota;
mod rights;
mod server;
mod sockets;
mod told;
mod webhooks;
mod wire;
