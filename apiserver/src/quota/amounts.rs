//! Lists of amounts by name (`ResourceList`), exact, and what a pod adds up to.

use crate::resources::cells::list;
use coracle_api::{amounts::quantity, quantity::Quantity};
use serde_json::Value;
use std::collections::BTreeMap;

/// Amounts by the names of their resources.
pub type Amounts = BTreeMap<String, Quantity>;

/// Reads a `ResourceList`.
pub fn of(value: &Value) -> Amounts {
    value.as_object().into_iter().flatten().map(|(name, amount)| (name.clone(), quantity(amount))).collect()
}

/// Writes one.
pub fn to_json(amounts: &Amounts) -> Value {
    Value::Object(amounts.iter().map(|(name, amount)| (name.clone(), amount.to_string().into())).collect())
}

/// Adds to a list.
pub fn add(sum: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        let place = sum.entry(name.clone()).or_insert(Quantity::ZERO);
        *place = place.plus(*amount);
    }
}

/// The greater of both, name by name.
pub fn raise(most: &mut Amounts, other: &Amounts) {
    for (name, amount) in other {
        let place = most.entry(name.clone()).or_insert(*amount);
        *place = (*place).max(*amount);
    }
}

/// What a pod needs at once (`requests` or `limits`), without its overhead: its containers and sidecars together, or an init container beside the sidecars that
/// were started before it. What the pod says for all its containers goes first.
pub fn of_pod(spec: &Value, field: &str) -> Amounts {
    let of_container = |container: &Value| of(&container["resources"][field]);
    let (mut sum, mut sidecars, mut init) = (Amounts::new(), Amounts::new(), Amounts::new());
    list(&spec["containers"]).iter().for_each(|container| add(&mut sum, &of_container(container)));
    for container in list(&spec["initContainers"]) {
        let mine = of_container(container);
        if container["restartPolicy"] == "Always" {
            add(&mut sum, &mine);
            add(&mut sidecars, &mine);
            raise(&mut init, &sidecars);
        } else {
            let mut together = sidecars.clone();
            add(&mut together, &mine);
            raise(&mut init, &together);
        }
    }
    raise(&mut sum, &init);
    let whole = of(&spec["resources"][field]);
    sum.extend(whole.into_iter().filter(|(name, _)| matches!(name.as_str(), "cpu" | "memory") || name.starts_with("hugepages-")));
    sum
}
