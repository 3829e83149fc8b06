//! Amounts of resources as they stand in pods and nodes.

use coracle_api::amounts::of_containers;
pub use coracle_api::amounts::{Amounts, quantity};
use coracle_apiserver::view::Text;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// A `ResourceList` as it stands in objects.
pub type List<'a> = BTreeMap<Text<'a>, Value>;

/// Reads a list.
pub fn amounts(list: &List<'_>) -> Amounts {
    Amounts::of(list.iter().map(|(name, value)| (&**name, value)))
}

/// `core/v1 ResourceRequirements`, requests only (limits were made into requests by defaulting).
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Requirements<'a> {
    /// What is asked for.
    #[serde(borrow)]
    pub requests: List<'a>,
}

/// The resources of a container.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Container<'a> {
    /// Its image.
    #[serde(borrow)]
    pub image: Text<'a>,
    /// Its requests.
    pub resources: Requirements<'a>,
    /// `Always` makes an init container a sidecar.
    pub restart_policy: Text<'a>,
    /// Ports, for host ports.
    pub ports: Vec<Port<'a>>,
}

/// `core/v1 ContainerPort`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Port<'a> {
    /// Port on the node; 0 is none.
    pub host_port: i64,
    /// Address on the node; empty is all.
    #[serde(rename = "hostIP", borrow)]
    pub host_ip: Text<'a>,
    /// `TCP` unless given.
    pub protocol: Text<'a>,
}

/// What a pod asks for: its containers' requests and its overhead. Requests of the pod itself replace those, resource by resource.
pub fn of_pod(containers: &[Container<'_>], init: &[Container<'_>], overhead: &List<'_>, pod: Option<&Requirements<'_>>) -> Amounts {
    let asks = |container: &Container<'_>| amounts(&container.resources.requests);
    let mut total = of_containers(containers.iter().map(asks), init.iter().map(|container| (asks(container), container.restart_policy == "Always")));
    if let Some(requests) = pod.map(|pod| &pod.requests) {
        let own = amounts(requests);
        if requests.contains_key("cpu") {
            total.cpu = own.cpu;
        }
        if requests.contains_key("memory") {
            total.memory = own.memory;
        }
    }
    total.add(&amounts(overhead));
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    fn containers(cpus: &[(&'static str, bool)]) -> Vec<Container<'static>> {
        let container = |(cpu, sidecar): &(&'static str, bool)| Container {
            resources: Requirements { requests: [(Text::from("cpu"), Value::from(*cpu))].into() },
            restart_policy: Text::from(if *sidecar { "Always" } else { "" }),
            ..Container::default()
        };
        cpus.iter().map(container).collect()
    }

    #[test]
    fn init_containers_count_at_their_worst() {
        let cpu = |init: &[(&'static str, bool)], overhead: &List<'_>| {
            of_pod(&containers(&[("100m", false), ("200m", false)]), &containers(init), overhead, None).cpu
        };
        let none = List::new();
        assert_eq!(cpu(&[], &none), 300);
        assert_eq!(cpu(&[("1", false), ("0.5", false)], &none), 1000);
        assert_eq!(cpu(&[("100m", true)], &none), 400);
        assert_eq!(cpu(&[("100m", true), ("1", false)], &none), 1100, "the sidecar runs beside the second");
        assert_eq!(cpu(&[("1", false), ("100m", true)], &none), 1000, "and not beside what came before it");
        assert_eq!(cpu(&[], &[(Text::from("cpu"), Value::from("50m"))].into()), 350);
    }
}
