//! Amounts of resources: what a pod asks for and what a node has.

use crate::controllers::view::Text;
use coracle_api::quantity::Quantity;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// A `ResourceList` as it stands in objects.
pub type List<'a> = BTreeMap<Text<'a>, Value>;

/// CPU in thousandths, everything else in units (bytes, pieces).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Amounts {
    /// Thousandths of a CPU.
    pub cpu: i64,
    /// Bytes.
    pub memory: i64,
    /// Bytes of local disk.
    pub storage: i64,
    /// Extended resources and huge pages, by name.
    pub others: BTreeMap<Box<str>, i64>,
}

impl Amounts {
    /// Reads a list. What is no quantity counts as nothing (validation refused it before); `pods` is not a request and is left out.
    pub fn of(list: &List<'_>) -> Self {
        let mut amounts = Self::default();
        for (name, value) in list {
            let quantity = quantity(value);
            match &**name {
                "cpu" => amounts.cpu = quantity.millis(),
                "memory" => amounts.memory = quantity.units(),
                "ephemeral-storage" => amounts.storage = quantity.units(),
                "pods" => {}
                other => drop(amounts.others.insert(other.into(), quantity.units())),
            }
        }
        amounts
    }

    /// Adds the other amounts.
    pub fn add(&mut self, other: &Self) {
        self.cpu = self.cpu.saturating_add(other.cpu);
        self.memory = self.memory.saturating_add(other.memory);
        self.storage = self.storage.saturating_add(other.storage);
        for (name, amount) in &other.others {
            let sum = self.others.entry(name.clone()).or_default();
            *sum = sum.saturating_add(*amount);
        }
    }

    /// Takes the other amounts away.
    pub fn subtract(&mut self, other: &Self) {
        self.cpu -= other.cpu;
        self.memory -= other.memory;
        self.storage -= other.storage;
        for (name, amount) in &other.others {
            if let Some(sum) = self.others.get_mut(name) {
                *sum -= amount;
            }
        }
    }

    /// The greater of both, resource by resource.
    pub fn raise_to(&mut self, other: &Self) {
        self.cpu = self.cpu.max(other.cpu);
        self.memory = self.memory.max(other.memory);
        self.storage = self.storage.max(other.storage);
        for (name, amount) in &other.others {
            let most = self.others.entry(name.clone()).or_default();
            *most = (*most).max(*amount);
        }
    }
}

/// A quantity written as text or number.
pub fn quantity(value: &Value) -> Quantity {
    match value {
        Value::String(text) => Quantity::parse(text).unwrap_or(Quantity::ZERO),
        Value::Number(number) => Quantity::parse(&number.to_string()).unwrap_or(Quantity::ZERO),
        _ => Quantity::ZERO,
    }
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
    /// Its requests.
    #[serde(borrow)]
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

/// What a pod asks for: the sum of its containers and sidecars, or what its init containers need at their worst if that is more (a
/// sidecar runs beside all that come after it), and its overhead. Requests of the pod itself replace that, resource by resource.
pub fn of_pod(containers: &[Container<'_>], init: &[Container<'_>], overhead: &List<'_>, pod: Option<&Requirements<'_>>) -> Amounts {
    let mut total = Amounts::default();
    for container in containers {
        total.add(&Amounts::of(&container.resources.requests));
    }
    let mut sidecars = Amounts::default();
    let mut worst = Amounts::default();
    for container in init {
        let mut now = Amounts::of(&container.resources.requests);
        if container.restart_policy == "Always" {
            total.add(&now);
            sidecars.add(&now);
            now = sidecars.clone();
        } else {
            now.add(&sidecars);
        }
        worst.raise_to(&now);
    }
    total.raise_to(&worst);
    if let Some(requests) = pod.map(|pod| &pod.requests) {
        let own = Amounts::of(requests);
        if requests.contains_key("cpu") {
            total.cpu = own.cpu;
        }
        if requests.contains_key("memory") {
            total.memory = own.memory;
        }
    }
    total.add(&Amounts::of(overhead));
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    fn containers(cpus: &[(&'static str, bool)]) -> Vec<Container<'static>> {
        let container = |(cpu, sidecar): &(&'static str, bool)| Container {
            resources: Requirements { requests: [(Text::from("cpu"), Value::from(*cpu))].into() },
            restart_policy: Text::from(if *sidecar { "Always" } else { "" }),
            ports: Vec::new(),
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
