//! Amounts of resources: what a pod asks for and what a node has, as scheduler and nodes reckon with them.

use crate::quantity::Quantity;
use serde_json::Value;
use std::collections::BTreeMap;

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
    /// Reads a `ResourceList`. What is no quantity counts as nothing (validation refused it before); `pods` is not a request and is left out.
    pub fn of<'a>(list: impl IntoIterator<Item = (&'a str, &'a Value)>) -> Self {
        let mut amounts = Self::default();
        for (name, value) in list {
            let quantity = quantity(value);
            match name {
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

/// What a pod's containers ask for: the sum of the containers and sidecars, or what its init containers (with whether each is a sidecar) need at their
/// worst if that is more. A sidecar runs beside all that come after it.
pub fn of_containers(containers: impl IntoIterator<Item = Amounts>, init: impl IntoIterator<Item = (Amounts, bool)>) -> Amounts {
    let mut total = Amounts::default();
    for container in containers {
        total.add(&container);
    }
    let mut sidecars = Amounts::default();
    let mut worst = Amounts::default();
    for (mut now, sidecar) in init {
        if sidecar {
            total.add(&now);
            sidecars.add(&now);
            now = sidecars.clone();
        } else {
            now.add(&sidecars);
        }
        worst.raise_to(&now);
    }
    total.raise_to(&worst);
    total
}
