//! Discovery: which groups, versions and resources there are, made from the registry on each request.

use super::{
    accept::{self, Media},
    respond,
};
use crate::pipeline::Core;
use axum::body::Body;
use coracle_api::{registry::Resource, status::Status};
use http::{HeaderValue, Response, header};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Answers a discovery path; None when it is none.
pub fn serve(core: &Core, parts: &[&str], accept_header: Option<&str>, if_none_match: Option<&str>) -> Option<Result<Response<Body>, Status>> {
    let body = match parts {
        ["api"] | ["apis"] => {
            if let Some(version) = aggregated_version(accept_header) {
                return Some(Ok(aggregated(core, parts[0], version, if_none_match)));
            }
            if parts[0] == "api" { api(core) } else { apis(core) }
        }
        ["api", version] => resources(core, "", version)?,
        ["apis", group] => group_of(core, group)?,
        ["apis", group, version] => resources(core, group, version)?,
        _ => return None,
    };
    Some(accept::negotiate(accept_header, false).map(|accepted| respond::value(200, accepted.media, &body)))
}

fn api(core: &Core) -> Value {
    json!({"kind": "APIVersions", "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": core.config.api_addr.to_string()}]})
}

fn group(name: &str, versions: &[String]) -> Value {
    let versions: Vec<Value> = versions.iter().map(|version| json!({"groupVersion": format!("{name}/{version}"), "version": version})).collect();
    json!({"name": name, "versions": versions, "preferredVersion": versions.first()})
}

fn apis(core: &Core) -> Value {
    let groups: Vec<Value> =
        core.registry.groups().iter().filter(|(name, _)| !name.is_empty()).map(|(name, versions)| group(name, versions)).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

fn group_of(core: &Core, name: &str) -> Option<Value> {
    let (_, versions) = core.registry.groups().into_iter().find(|(its, _)| its == name && !its.is_empty())?;
    let mut body = group(name, &versions);
    body["kind"] = "APIGroup".into();
    body["apiVersion"] = "v1".into();
    Some(body)
}

fn resources(core: &Core, group: &str, version: &str) -> Option<Value> {
    let rows = core.registry.of(group, version);
    if rows.is_empty() {
        return None;
    }
    let mut list = Vec::new();
    for row in &rows {
        let mut entry =
            json!({"name": row.plural, "singularName": row.singular, "namespaced": row.namespaced(), "kind": row.kind, "verbs": row.verbs});
        if !row.short_names.is_empty() {
            entry["shortNames"] = json!(row.short_names);
        }
        if !row.categories.is_empty() {
            entry["categories"] = json!(row.categories);
        }
        if row.stored() {
            entry["storageVersionHash"] = storage_hash(row).into();
        }
        list.push(entry);
        for sub in &row.subresources {
            let (its_group, its_version, kind) = &sub.gvk;
            let mut entry = json!({"name": format!("{}/{}", row.plural, sub.name), "singularName": "", "namespaced": row.namespaced(), "kind": kind, "verbs": sub.verbs});
            if (&**its_group, &**its_version) != (group, version) {
                entry["group"] = json!(its_group);
                entry["version"] = json!(its_version);
            }
            list.push(entry);
        }
    }
    let group_version = if group.is_empty() { version.to_string() } else { format!("{group}/{version}") };
    Some(json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": list}))
}

fn storage_hash(row: &Resource) -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let hash = Sha256::digest(format!("{}/{}/{}", row.group, row.version, row.kind));
    STANDARD.encode(hash.get(..8).unwrap_or_default())
}

/// `v2` or `v2beta1` when the client asks for aggregated discovery before anything plainer that we have.
fn aggregated_version(header: Option<&str>) -> Option<&'static str> {
    for clause in accept::clauses(header.unwrap_or("")) {
        match (clause.media, clause.parameter("as"), clause.parameter("g"), clause.parameter("v")) {
            ("application/json", "APIGroupDiscoveryList", "apidiscovery.k8s.io", "v2") => return Some("v2"),
            ("application/json", "APIGroupDiscoveryList", "apidiscovery.k8s.io", "v2beta1") => return Some("v2beta1"),
            ("application/json", "", ..) | ("*/*", ..) => return None,
            _ => {}
        }
    }
    None
}

fn aggregated(core: &Core, root: &str, version: &'static str, if_none_match: Option<&str>) -> Response<Body> {
    let items: Vec<Value> = core
        .registry
        .groups()
        .iter()
        .filter(|(name, _)| name.is_empty() == (root == "api"))
        .map(|(name, versions)| {
            let versions: Vec<Value> = versions
                .iter()
                .map(|version| {
                    let resources: Vec<Value> = core.registry.of(name, version).iter().map(|row| aggregated_resource(row)).collect();
                    json!({"version": version, "freshness": "Current", "resources": resources})
                })
                .collect();
            let metadata = if name.is_empty() { json!({"creationTimestamp": null}) } else { json!({"name": name, "creationTimestamp": null}) };
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    let body = json!({"kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{version}"), "metadata": {}, "items": items});
    let hash = Sha256::digest(body.to_string());
    let tag = format!("\"{}\"", hash.iter().map(|byte| format!("{byte:02X}")).collect::<String>());
    let mut response = if if_none_match.is_some_and(|sent| sent.split(',').any(|one| one.trim() == tag)) {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = http::StatusCode::NOT_MODIFIED;
        response
    } else {
        let mut response = respond::value(200, Media::Json, &body);
        let media = if version == "v2" {
            "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
        } else {
            "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList"
        };
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
        response
    };
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept"));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("public"));
    response
}

fn aggregated_resource(row: &Resource) -> Value {
    let subresources: Vec<Value> = row
        .subresources
        .iter()
        .map(|sub| {
            let (group, version, kind) = &sub.gvk;
            json!({"subresource": sub.name, "responseKind": {"group": group, "version": version, "kind": kind}, "verbs": sub.verbs})
        })
        .collect();
    let mut entry = json!({
        "resource": row.plural, "singularResource": row.singular, "scope": if row.namespaced() { "Namespaced" } else { "Cluster" },
        "responseKind": {"group": row.group, "version": row.version, "kind": row.kind}, "verbs": row.verbs,
    });
    for (field, list) in [("shortNames", json!(row.short_names)), ("categories", json!(row.categories)), ("subresources", Value::Array(subresources))]
    {
        if list.as_array().is_some_and(|list| !list.is_empty()) {
            entry[field] = list;
        }
    }
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aggregated_discovery_is_chosen_by_order() {
        let v2 = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";
        assert_eq!(aggregated_version(Some(v2)), Some("v2"));
        assert_eq!(aggregated_version(Some("application/json")), None);
        assert_eq!(aggregated_version(Some("application/json,application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList")), None);
        assert_eq!(aggregated_version(None), None);
    }

    #[test]
    fn rows_are_described_as_upstream_does() {
        let row = coracle_api::registry::builtin().into_iter().find(|row| &*row.plural == "deployments").expect("row");
        let entry = aggregated_resource(&row);
        assert_eq!(entry["shortNames"], json!(["deploy"]));
        assert_eq!(entry["responseKind"], json!({"group": "apps", "version": "v1", "kind": "Deployment"}));
        assert_eq!(entry["subresources"][0]["responseKind"]["kind"], "Scale");
    }
}
