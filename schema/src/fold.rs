//! What upstream's conversion to its internal version and back does to an object, beyond copying fields: aliases are folded into the
//! field that counts. Runs inside canonicalisation, so stored objects have one form.

use serde_json::{Map, Value, json};

/// The fold of a type of the table, if it has one.
pub(crate) fn of(name: &str) -> Option<fn(&mut Map<String, Value>)> {
    Some(match name {
        "core.v1.Secret" => secret,
        "core.v1.PodSpec" => pod_spec,
        "core.v1.PodStatus" => pod_status,
        "core.v1.NodeSpec" => node_spec,
        _ => return None,
    })
}

/// `stringData` is written into `data` and forgotten.
fn secret(secret: &mut Map<String, Value>) {
    use base64::Engine as _;
    let Some(Value::Object(plain)) = secret.remove("stringData") else { return };
    let data = secret.entry("data").or_insert_with(|| json!({}));
    let Value::Object(data) = data else { return };
    for (key, value) in plain {
        let text = value.as_str().unwrap_or_default();
        data.insert(key, base64::engine::general_purpose::STANDARD.encode(text).into());
    }
}

/// `serviceAccount` is the old name of `serviceAccountName`.
fn pod_spec(spec: &mut Map<String, Value>) {
    let set = |spec: &Map<String, Value>, key: &str| spec.get(key).and_then(Value::as_str).filter(|s| !s.is_empty()).map(str::to_owned);
    match (set(spec, "serviceAccountName"), set(spec, "serviceAccount")) {
        (Some(name), _) => {
            spec.insert("serviceAccount".into(), name.into());
        }
        (None, Some(old)) => {
            spec.insert("serviceAccountName".into(), old.into());
        }
        (None, None) => {}
    }
}

/// `podIP` is the first of `podIPs`; where they differ, `podIP` counts.
fn pod_status(status: &mut Map<String, Value>) {
    first_of_list(status, "podIP", "podIPs", |ip| json!({ "ip": ip }), |item| item.get("ip"));
}

/// `podCIDR` is the first of `podCIDRs`; where they differ, `podCIDR` counts.
fn node_spec(spec: &mut Map<String, Value>) {
    first_of_list(spec, "podCIDR", "podCIDRs", |cidr| json!(cidr), |item| Some(item));
}

fn first_of_list(map: &mut Map<String, Value>, one: &str, many: &str, wrap: fn(&str) -> Value, unwrap: fn(&Value) -> Option<&Value>) {
    let single = map.get(one).and_then(Value::as_str).filter(|s| !s.is_empty()).map(str::to_owned);
    let first = map.get(many).and_then(Value::as_array).and_then(|l| l.first()).and_then(unwrap).and_then(Value::as_str).map(str::to_owned);
    match (single, first) {
        (Some(single), first) if first.as_ref() != Some(&single) => {
            map.insert(many.into(), Value::Array(vec![wrap(&single)]));
        }
        (None, Some(first)) => {
            map.insert(one.into(), first.into());
        }
        _ => {}
    }
}
