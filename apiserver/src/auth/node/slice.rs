//! What a pod names, and its node therefore may read: secrets, config maps, its service account.

use serde::Deserialize;
use std::borrow::Cow;

type Text<'a> = Option<Cow<'a, str>>;

#[derive(Deserialize)]
struct Pod<'a> {
    #[serde(borrow, default)]
    spec: Spec<'a>,
}
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Spec<'a> {
    #[serde(borrow)]
    service_account_name: Text<'a>,
    #[serde(borrow)]
    containers: Option<Vec<Container<'a>>>,
    #[serde(borrow)]
    init_containers: Option<Vec<Container<'a>>>,
    #[serde(borrow)]
    ephemeral_containers: Option<Vec<Container<'a>>>,
    #[serde(borrow)]
    volumes: Option<Vec<Volume<'a>>>,
    #[serde(borrow)]
    image_pull_secrets: Option<Vec<Named<'a>>>,
}
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Container<'a> {
    #[serde(borrow)]
    env: Option<Vec<Env<'a>>>,
    #[serde(borrow)]
    env_from: Option<Vec<EnvFrom<'a>>>,
}
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Env<'a> {
    #[serde(borrow)]
    value_from: Option<ValueFrom<'a>>,
}
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ValueFrom<'a> {
    #[serde(borrow)]
    config_map_key_ref: Option<Named<'a>>,
    #[serde(borrow)]
    secret_key_ref: Option<Named<'a>>,
}
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct EnvFrom<'a> {
    #[serde(borrow)]
    config_map_ref: Option<Named<'a>>,
    #[serde(borrow)]
    secret_ref: Option<Named<'a>>,
}
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Named<'a> {
    #[serde(borrow)]
    name: Text<'a>,
}
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct SecretVolume<'a> {
    #[serde(borrow)]
    secret_name: Text<'a>,
}
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Volume<'a> {
    #[serde(borrow)]
    config_map: Option<Named<'a>>,
    #[serde(borrow)]
    secret: Option<SecretVolume<'a>>,
    #[serde(borrow)]
    projected: Option<Projected<'a>>,
}
#[derive(Deserialize, Default)]
#[serde(default)]
struct Projected<'a> {
    #[serde(borrow)]
    sources: Option<Vec<Source<'a>>>,
}
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Source<'a> {
    #[serde(borrow)]
    config_map: Option<Named<'a>>,
    #[serde(borrow)]
    secret: Option<Named<'a>>,
}

/// Calls `found` with (resource, name) for everything in the pod's namespace that the pod (canonical JSON) names; the same one may
/// come twice.
pub fn names(pod: &[u8], found: &mut dyn FnMut(&'static str, &str)) {
    let Ok(Pod { spec }) = serde_json::from_slice::<Pod<'_>>(pod) else { return };
    let mut tell = |resource: &'static str, name: Text<'_>| {
        if let Some(name) = name.filter(|n| !n.is_empty()) {
            found(resource, &name);
        }
    };
    tell("serviceaccounts", spec.service_account_name);
    for secret in spec.image_pull_secrets.into_iter().flatten() {
        tell("secrets", secret.name);
    }
    for container in [spec.containers, spec.init_containers, spec.ephemeral_containers].into_iter().flatten().flatten() {
        for from in container.env.into_iter().flatten().filter_map(|e| e.value_from) {
            tell("configmaps", from.config_map_key_ref.and_then(|r| r.name));
            tell("secrets", from.secret_key_ref.and_then(|r| r.name));
        }
        for from in container.env_from.into_iter().flatten() {
            tell("configmaps", from.config_map_ref.and_then(|r| r.name));
            tell("secrets", from.secret_ref.and_then(|r| r.name));
        }
    }
    for volume in spec.volumes.into_iter().flatten() {
        tell("configmaps", volume.config_map.and_then(|r| r.name));
        tell("secrets", volume.secret.and_then(|r| r.secret_name));
        for source in volume.projected.and_then(|p| p.sources).into_iter().flatten() {
            tell("configmaps", source.config_map.and_then(|r| r.name));
            tell("secrets", source.secret.and_then(|r| r.name));
        }
    }
}
