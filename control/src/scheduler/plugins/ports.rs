//! A host port is taken once per node, protocol and address.

use super::{Attempt, Refusal};
use crate::scheduler::{cluster::Node, pod::HostPort};

fn clash(a: &HostPort, b: &HostPort) -> bool {
    // An empty address is all of them.
    a.0 == b.0 && a.2 == b.2 && (a.1.is_empty() || b.1.is_empty() || a.1 == b.1)
}

/// See the module.
pub fn filter(attempt: &Attempt<'_, '_>, node: &Node, refusal: &mut Refusal) {
    if attempt.ports.is_empty() {
        return;
    }
    let taken = node.pods.values().flat_map(|placed| &placed.ports);
    if taken.into_iter().any(|taken| attempt.ports.iter().any(|port| clash(port, taken))) {
        refusal.push("node(s) didn't have free ports for the requested pod ports");
    }
}
