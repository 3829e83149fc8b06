//! What discovery tells of groups that other servers serve.

use super::RemoteGroup;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// `APIGroup`
pub(crate) fn group(group: &RemoteGroup) -> Value {
    let name = &group.name;
    let versions: Vec<Value> =
        group.versions.iter().map(|(version, _)| json!({"groupVersion": format!("{name}/{version}"), "version": version})).collect();
    json!({"name": name, "versions": versions, "preferredVersion": versions.first()})
}

/// `APIGroupDiscovery`: what servers said last, which may be stale, and nothing for one that was never heard.
pub(crate) fn aggregated(group: &RemoteGroup) -> Value {
    let versions: Vec<Value> = group
        .versions
        .iter()
        .map(|(version, document)| match document {
            None => json!({"version": version, "freshness": "Stale"}),
            Some(document) => {
                let freshness = if document.current { "Current" } else { "Stale" };
                json!({"version": version, "freshness": freshness, "resources": resources(&group.name, version, &document.list)})
            }
        })
        .collect();
    json!({"metadata": {"name": group.name, "creationTimestamp": null}, "versions": versions})
}

/// An `APIResourceList` as aggregated discovery writes it: subresources within their resources.
fn resources(group: &str, version: &str, list: &Value) -> Vec<Value> {
    let kind = |entry: &Value| {
        let or = |field: &str, own: &str| entry[field].as_str().filter(|text| !text.is_empty()).unwrap_or(own).to_owned();
        json!({"group": or("group", group), "version": or("version", version), "kind": entry["kind"]})
    };
    let mut all: Vec<Value> = Vec::new();
    let mut at: BTreeMap<&str, usize> = BTreeMap::new();
    let entries = || list["resources"].as_array().into_iter().flatten().filter_map(|entry| Some((entry["name"].as_str()?, entry)));
    for (name, entry) in entries().filter(|(name, _)| !name.contains('/')) {
        let scope = if entry["namespaced"] == true { "Namespaced" } else { "Cluster" };
        let mut resource = json!({
            "resource": name, "responseKind": kind(entry), "scope": scope, "verbs": entry["verbs"],
            "singularResource": entry["singularName"].as_str().unwrap_or_default(),
        });
        for field in ["shortNames", "categories"] {
            if entry[field].is_array() {
                resource[field] = entry[field].clone();
            }
        }
        at.insert(name, all.len());
        all.push(resource);
    }
    for (name, entry) in entries() {
        let Some((parent, sub)) = name.split_once('/') else { continue };
        let Some(resource) = at.get(parent).and_then(|at| all.get_mut(*at)) else { continue };
        if !resource["subresources"].is_array() {
            resource["subresources"] = json!([]);
        }
        if let Some(list) = resource["subresources"].as_array_mut() {
            list.push(json!({"subresource": sub, "responseKind": kind(entry), "verbs": entry["verbs"]}));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aggregation::Document;
    use std::sync::Arc;

    #[test]
    fn lists_become_aggregated_discovery() {
        let list = json!({"resources": [
            {"name": "flunders", "singularName": "flunder", "namespaced": true, "kind": "Flunder", "verbs": ["get"], "shortNames": ["fl"]},
            {"name": "flunders/scale", "group": "autoscaling", "version": "v1", "kind": "Scale", "verbs": ["update"]},
            {"name": "orphans/status", "kind": "X", "verbs": []}, {"kind": "Nameless"},
        ]});
        let document = Document { list: Arc::new(list), current: false };
        let remote = RemoteGroup { name: "wardle.example.com".into(), versions: vec![("v1".into(), Some(document)), ("v1beta1".into(), None)] };
        let shown = aggregated(&remote);
        assert_eq!(
            (&shown["versions"][0]["freshness"], &shown["versions"][1]),
            (&json!("Stale"), &json!({"version": "v1beta1", "freshness": "Stale"}))
        );
        assert_eq!(
            shown["versions"][0]["resources"],
            json!([{
                "resource": "flunders", "singularResource": "flunder", "scope": "Namespaced", "verbs": ["get"], "shortNames": ["fl"],
                "responseKind": {"group": "wardle.example.com", "version": "v1", "kind": "Flunder"},
                "subresources": [{"subresource": "scale", "verbs": ["update"], "responseKind": {"group": "autoscaling", "version": "v1", "kind": "Scale"}}],
            }])
        );
        assert_eq!(group(&remote)["preferredVersion"]["groupVersion"], "wardle.example.com/v1");
    }
}
