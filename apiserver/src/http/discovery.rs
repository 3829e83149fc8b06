//! Discovery: which groups, versions and resources there are, made from the registry on each request.

use super::{
    accept::{self, Media},
    respond,
};
use crate::{aggregation, pipeline::Core};
use axum::body::Body;
use coracle_api::{registry::Resource, status::Status};
use http::{HeaderValue, Response, header};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// The verbs of a row as discovery tells them: a kind that is going takes nothing in.
fn verbs(row: &Resource) -> Vec<&str> {
    let going = row.custom.as_ref().is_some_and(|custom| custom.terminating);
    row.verbs.iter().map(|verb| &**verb).filter(|verb| !going || !matches!(*verb, "create" | "patch" | "update")).collect()
}

/// Answers a discovery path; None when it is none.
pub fn serve(core: &Core, parts: &[&str], accept_header: Option<&str>, if_none_match: Option<&str>) -> Option<Result<Response<Body>, Status>> {
    let body = match parts {
        ["api"] | ["apis"] => {
            if let Some((media, version)) = aggregated_form(accept_header) {
                return Some(Ok(aggregated(core, parts[0], media, version, if_none_match)));
            }
            if parts[0] == "api" { api(core) } else { apis(core) }
        }
        ["api", version] => resources(core, "", version)?,
        ["apis", group] => group_of(core, group)?,
        ["apis", group, version] => resources(core, group, version)?,
        _ => return None,
    };
    Some(accept::negotiate(accept_header, accept::Offer::PLAIN).map(|accepted| respond::value(200, accepted.media, &body)))
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
    let local = core.registry.groups();
    let remote = core.remote_groups(&core.store.snapshot());
    let mut groups: Vec<Value> = local.iter().filter(|(name, _)| !name.is_empty()).map(|(name, versions)| group(name, versions)).collect();
    groups.extend(remote.iter().filter(|group| local.iter().all(|(name, _)| *name != group.name)).map(aggregation::discovery::group));
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

fn group_of(core: &Core, name: &str) -> Option<Value> {
    let mut body = match core.registry.groups().into_iter().find(|(its, _)| its == name && !its.is_empty()) {
        Some((_, versions)) => group(name, &versions),
        None => {
            let remote = core.remote_groups(&core.store.snapshot());
            aggregation::discovery::group(remote.iter().find(|group| group.name == name)?)
        }
    };
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
            json!({"name": row.plural, "singularName": row.singular, "namespaced": row.namespaced(), "kind": row.kind, "verbs": verbs(row)});
        if !row.short_names.is_empty() {
            entry["shortNames"] = json!(row.short_names);
        }
        if !row.categories.is_empty() {
            entry["categories"] = json!(row.categories);
        }
        if let Some(hash) = storage_hash(core, row) {
            entry["storageVersionHash"] = hash.into();
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

/// Tells clients when the version that objects are stored in has changed; None for what is not stored, or in a version that is not served.
fn storage_hash(core: &Core, row: &Resource) -> Option<String> {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let stored = core.registry.by_id(&row.id()).filter(|stored| stored.served())?;
    let hash = Sha256::digest(format!("{}/{}/{}", stored.group, stored.version, row.kind));
    row.stored().then(|| STANDARD.encode(hash.get(..8).unwrap_or_default()))
}

/// Encoding and version (`v2`, `v2beta1`), when the client asks for aggregated discovery at all: even after plainer things, as upstream has it.
fn aggregated_form(header: Option<&str>) -> Option<(Media, &'static str)> {
    accept::clauses(header.unwrap_or("")).iter().find_map(|clause| {
        if (clause.parameter("as"), clause.parameter("g")) != ("APIGroupDiscoveryList", "apidiscovery.k8s.io") {
            return None;
        }
        let version = ["v2", "v2beta1"].into_iter().find(|version| *version == clause.parameter("v"))?;
        Media::of(clause.media).map(|media| (media, version))
    })
}

fn aggregated(core: &Core, root: &str, media: Media, version: &'static str, if_none_match: Option<&str>) -> Response<Body> {
    let local = core.registry.groups();
    let mut items: Vec<Value> = local
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
    if root == "apis" {
        let remote = core.remote_groups(&core.store.snapshot());
        items.extend(remote.iter().filter(|group| local.iter().all(|(name, _)| *name != group.name)).map(aggregation::discovery::aggregated));
    }
    let body = json!({"kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{version}"), "metadata": {}, "items": items});
    let mut response = respond::value(200, media, &body);
    let media = format!("{};g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList", media.name());
    if let Ok(media) = HeaderValue::from_str(&media) {
        response.headers_mut().insert(header::CONTENT_TYPE, media);
    }
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("public"));
    respond::tagged(response, &respond::hash(body.to_string().as_bytes()), if_none_match)
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
        "responseKind": {"group": row.group, "version": row.version, "kind": row.kind}, "verbs": verbs(row),
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
    fn aggregated_discovery_is_served_to_whom_asks_for_it() {
        let v2 = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
        let both = format!("{v2},{},application/json", v2.replace("v=v2", "v=v2beta1"));
        assert_eq!(aggregated_form(Some(&both)), Some((Media::Json, "v2")));
        assert_eq!(aggregated_form(Some(&v2.replace("v=v2", "v=v2beta1"))), Some((Media::Json, "v2beta1")));
        assert_eq!(aggregated_form(Some(&format!("application/json,{v2}"))), Some((Media::Json, "v2")));
        assert_eq!(aggregated_form(Some(&v2.replace("json", "vnd.kubernetes.protobuf"))), Some((Media::Protobuf, "v2")));
        for none in ["application/json", "*/*", &v2.replace("v=v2", "v=v3"), &v2.replace("application/json", "text/html")] {
            assert_eq!(aggregated_form(Some(none)), None, "{none}");
        }
        assert_eq!(aggregated_form(None), None);
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
