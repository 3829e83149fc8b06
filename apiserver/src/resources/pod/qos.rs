//! The quality-of-service class of a pod, by what its containers ask for and are held to.

use crate::resources::cells::list;
use coracle_api::quantity::Quantity;
use serde_json::Value;

fn amount(value: &Value) -> Option<Quantity> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    Quantity::parse(&text).ok().filter(|amount| !amount.is_zero() && !amount.is_negative())
}

/// `Guaranteed`, `Burstable` or `BestEffort`.
pub fn class(spec: &Value) -> &'static str {
    if spec["resources"].is_object() {
        return of([&spec["resources"]].into_iter());
    }
    of(["containers", "initContainers"].iter().flat_map(|kind| list(&spec[*kind])).map(|container| &container["resources"]))
}

fn of<'a>(all: impl Iterator<Item = &'a Value>) -> &'static str {
    let (mut guaranteed, mut nothing) = (true, true);
    for resources in all {
        for name in ["cpu", "memory"] {
            let limit = amount(&resources["limits"][name]);
            // Defaults give a container that has only a limit the same request.
            let request = amount(&resources["requests"][name]).or(limit);
            nothing &= limit.is_none() && request.is_none();
            guaranteed &= limit.is_some() && limit == request;
        }
    }
    match (nothing, guaranteed) {
        (true, _) => "BestEffort",
        (_, true) => "Guaranteed",
        _ => "Burstable",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn classes() {
        let of = |containers: Value| class(&json!({"containers": containers}));
        let full = json!({"resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m", "memory": "1024Mi"}}});
        assert_eq!(of(json!([{}, {}])), "BestEffort");
        assert_eq!(of(json!([full, full])), "Guaranteed");
        assert_eq!(of(json!([full, {}])), "Burstable");
        assert_eq!(of(json!([{"resources": {"requests": {"cpu": "100m"}}}])), "Burstable");
        assert_eq!(of(json!([{"resources": {"limits": {"cpu": "1", "memory": "1Gi"}}}])), "Guaranteed");
        assert_eq!(of(json!([{"resources": {"requests": {"cpu": "0"}}}])), "BestEffort");
    }
}
