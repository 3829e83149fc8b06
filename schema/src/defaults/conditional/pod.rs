//! Defaults of pods that depend on other fields: pull policies, volumes without a source, requests from limits, host ports.

use super::{Object, is_set, objects, set, set_text, text};
use coracle_api::quantity::Quantity;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The tag of an image as `docker pull` would read it: `latest` when there is neither tag nor digest; empty for no image name.
fn is_latest(image: &str) -> bool {
    let (name, digest) = image.split_once('@').map_or((image, None), |(name, digest)| (name, Some(digest)));
    let last = name.rsplit('/').next().unwrap_or(name);
    let (path, tag) = match last.rsplit_once(':') {
        Some((_, tag)) => (name.strip_suffix(tag).unwrap_or(name), Some(tag)),
        None => (name, None),
    };
    // A reference that does not parse has no tag at all upstream; validation refuses it later.
    let sound = !path.is_empty() && path.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-/:[]".contains(&b));
    sound && (tag == Some("latest") || (tag.is_none() && digest.is_none()))
}

fn pull_policy(map: &mut Object, image: &str, policy: &str) {
    let latest = is_latest(text(map, image).unwrap_or_default());
    set_text(map, policy, if latest { "Always" } else { "IfNotPresent" });
}

pub(super) fn pull_policy_of_image(container: &mut Object) {
    pull_policy(container, "image", "imagePullPolicy");
}

pub(super) fn pull_policy_of_reference(volume: &mut Object) {
    pull_policy(volume, "reference", "pullPolicy");
}

/// A volume without a source is an emptyDir.
pub(super) fn volume(volume: &mut Object) {
    if volume.keys().all(|key| key == "name") {
        volume.insert("emptyDir".into(), json!({}));
    }
}

/// What only pods get, not templates.
pub(super) fn pod(pod: &mut Object) {
    let Some(spec) = pod.get_mut("spec").and_then(Value::as_object_mut) else { return };
    for list in ["containers", "initContainers"] {
        for container in objects(spec, list) {
            if let Some(resources) = container.get_mut("resources").and_then(Value::as_object_mut) {
                requests_from_limits(resources);
            }
        }
    }
    pod_level_resources(spec);
    set(spec, "enableServiceLinks", true);
    if spec.get("hostNetwork") == Some(&Value::Bool(true)) {
        for list in ["containers", "initContainers"] {
            for container in objects(spec, list) {
                for port in objects(container, "ports") {
                    // A port of 0, which validation refuses, is none on the wire.
                    if !is_set(port, "hostPort")
                        && let Some(number) = port.get("containerPort").filter(|number| number.as_u64() != Some(0)).cloned()
                    {
                        port.insert("hostPort".into(), number);
                    }
                }
            }
        }
    }
}

fn requests_from_limits(resources: &mut Object) {
    if let Some(limits) = resources.get("limits").and_then(Value::as_object).filter(|l| !l.is_empty()).cloned()
        && let Some(requests) = super::object(resources, "requests")
    {
        super::complete(requests, &limits);
    }
}

/// KEP-2837: requests of the pod as a whole default to the sum of its containers', or to its limits.
fn pod_level_resources(spec: &mut Object) {
    let part = |spec: &Object, key: &str| spec.get("resources").and_then(|r| r.get(key)).and_then(Value::as_object).cloned().unwrap_or_default();
    if !is_set(spec, "resources") {
        return;
    }
    let (mut limits, mut requests) = (part(spec, "limits"), part(spec, "requests"));
    if limits.is_empty() && requests.is_empty() {
        return;
    }
    for (key, sum) in aggregate(spec, "limits") {
        if key.starts_with("hugepages-") && !requests.contains_key(&key) {
            limits.entry(key).or_insert_with(|| sum.to_string().into());
        }
    }
    if !limits.is_empty() {
        for (key, sum) in aggregate(spec, "requests") {
            if key == "cpu" || key == "memory" {
                requests.entry(key).or_insert_with(|| sum.to_string().into());
            }
        }
        for (key, limit) in &limits {
            if key == "cpu" || key == "memory" || key.starts_with("hugepages-") {
                requests.entry(key.clone()).or_insert_with(|| limit.clone());
            }
        }
    }
    if let Some(resources) = super::object(spec, "resources") {
        for (key, value) in [("limits", limits), ("requests", requests)] {
            if !value.is_empty() {
                resources.insert(key.into(), Value::Object(value));
            }
        }
    }
}

/// What a pod's containers need at once: containers and sidecars together, or an init container beside the sidecars before it.
fn aggregate(spec: &Object, part: &str) -> BTreeMap<String, Quantity> {
    let entries = |container: &Value| -> Vec<(String, Quantity)> {
        let list = container.get("resources").and_then(|r| r.get(part)).and_then(Value::as_object);
        list.into_iter().flatten().filter_map(|(k, v)| Some((k.clone(), Quantity::parse(v.as_str()?).ok()?))).collect()
    };
    let containers = |key: &str| spec.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let mut total = Sums::default();
    containers("containers").iter().flat_map(entries).for_each(|(key, value)| total.add(&key, value));
    let (mut sidecars, mut peak) = (Sums::default(), Sums::default());
    for container in containers("initContainers") {
        let own = entries(container);
        if container.get("restartPolicy").is_some_and(|p| p == "Always") {
            for (key, value) in own {
                total.add(&key, value);
                sidecars.add(&key, value);
            }
            sidecars.0.clone().into_iter().for_each(|(key, value)| peak.raise(&key, value));
        } else {
            for (key, value) in own {
                let beside = sidecars.get(&key);
                peak.raise(&key, value.plus(beside));
            }
        }
    }
    peak.0.into_iter().for_each(|(key, value)| total.raise(&key, value));
    total.0
}

/// Amounts by resource.
#[derive(Default)]
struct Sums(BTreeMap<String, Quantity>);

impl Sums {
    fn get(&self, key: &str) -> Quantity {
        self.0.get(key).copied().unwrap_or(Quantity::ZERO)
    }

    fn add(&mut self, key: &str, value: Quantity) {
        let sum = self.get(key).plus(value);
        self.0.insert(key.to_owned(), sum);
    }

    fn raise(&mut self, key: &str, value: Quantity) {
        if value > self.get(key) {
            self.0.insert(key.to_owned(), value);
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn latest_is_what_has_neither_tag_nor_digest() {
        for (image, latest) in [
            ("nginx", true),
            ("nginx:latest", true),
            ("nginx:1.27", false),
            ("localhost:5000/nginx", true),
            ("localhost:5000/nginx:1", false),
            ("nginx@sha256:0000", false),
            ("nginx:latest@sha256:0000", true),
            ("", false),
            ("what is this", false),
        ] {
            assert_eq!(super::is_latest(image), latest, "{image}");
        }
    }
}
