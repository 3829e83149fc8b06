//! ConfigMap and Secret: keys, size, types, and the switch after which they never change.

use super::{
    Cx, Hooks, age,
    cells::{self, AGE, NAME, text_or},
    rules::{At, Causes, syntax},
};
use coracle_api::{
    registry::Column,
    status::{Cause, Status},
};
use serde_json::Value;

/// Hooks of `configmaps`.
pub struct ConfigMap;
/// Hooks of `secrets`.
pub struct Secret;

/// Most bytes of data in one object.
const MAX_SIZE: usize = 1024 * 1024;

impl Hooks for ConfigMap {
    fn validate(&self, _cx: &Cx<'_>, old: Option<&Value>, new: &Value, causes: &mut Vec<Cause>) {
        config_map(old, new, causes);
    }
    fn columns(&self) -> Option<Vec<Column>> {
        Some(cells::columns(&[NAME, ("Data", "How many entries it has."), AGE]))
    }
    fn cells(&self, object: &Value) -> Vec<Value> {
        let entries = entries(&object["data"]) + entries(&object["binaryData"]);
        vec![cells::name(object), entries.into(), age::of(object)]
    }
}

impl Hooks for Secret {
    fn prepare_create(&self, _cx: &Cx<'_>, new: &mut Value) -> Result<(), Status> {
        if new["type"].as_str().is_none_or(str::is_empty) {
            new["type"] = "Opaque".into();
        }
        Ok(())
    }
    fn prepare_update(&self, _cx: &Cx<'_>, old: &Value, new: &mut Value) -> Result<(), Status> {
        // A client that does not say the type does not mean to change it.
        if new["type"].as_str().is_none_or(str::is_empty) {
            new["type"] = old["type"].clone();
        }
        Ok(())
    }
    fn validate(&self, _cx: &Cx<'_>, old: Option<&Value>, new: &Value, causes: &mut Vec<Cause>) {
        secret(old, new, causes);
    }
    fn columns(&self) -> Option<Vec<Column>> {
        Some(cells::columns(&[NAME, ("Type", "What its data is for."), ("Data", "How many entries it has."), AGE]))
    }
    fn cells(&self, object: &Value) -> Vec<Value> {
        vec![cells::name(object), text_or(&object["type"], "").into(), entries(&object["data"]).into(), age::of(object)]
    }
}

fn entries(map: &Value) -> usize {
    map.as_object().map_or(0, serde_json::Map::len)
}

/// Bytes that base64 text stands for.
fn decoded_size(text: &str) -> usize {
    let padding = text.bytes().rev().take_while(|c| *c == b'=').count();
    (text.len() / 4 * 3).saturating_sub(padding)
}

fn keys(map: &At<'_, '_>, causes: &mut Causes) {
    for (key, at) in map.entries() {
        for why in syntax::config_key(key) {
            at.invalid_value(causes, key, &why);
        }
    }
}

/// Once `immutable`, neither the switch nor the data may change.
fn frozen(old: Option<&Value>, root: &At<'_, '_>, fields: &[&str], causes: &mut Causes) {
    let Some(old) = old.filter(|old| old["immutable"] == true) else { return };
    for name in ["immutable"].iter().chain(fields) {
        let at = root.field(name);
        if at.value != &old[*name] {
            at.forbidden(causes, "field is immutable when `immutable` is set");
        }
    }
}

pub(super) fn config_map(old: Option<&Value>, new: &Value, causes: &mut Causes) {
    let root = At::root(new);
    frozen(old, &root, &["data", "binaryData"], causes);
    let (data, binary) = (root.field("data"), root.field("binaryData"));
    keys(&data, causes);
    for (key, at) in data.entries() {
        if binary.value.get(key).is_some() {
            at.invalid_value(causes, key, "duplicate of key present in binaryData");
        }
    }
    keys(&binary, causes);
    let size: usize =
        data.entries().map(|(_, at)| at.text().len()).sum::<usize>() + binary.entries().map(|(_, at)| decoded_size(at.text())).sum::<usize>();
    if size > MAX_SIZE {
        root.too_long(causes, MAX_SIZE);
    }
}

/// Types whose data must have certain keys.
const REQUIRED_KEYS: &[(&str, &[&str])] = &[
    ("kubernetes.io/dockercfg", &[".dockercfg"]),
    ("kubernetes.io/dockerconfigjson", &[".dockerconfigjson"]),
    ("kubernetes.io/ssh-auth", &["ssh-privatekey"]),
    ("kubernetes.io/tls", &["tls.crt", "tls.key"]),
];

pub(super) fn secret(old: Option<&Value>, new: &Value, causes: &mut Causes) {
    let root = At::root(new);
    if let Some(old) = old {
        root.field("type").immutable(causes, &old["type"]);
    }
    frozen(old, &root, &["data"], causes);
    let data = root.field("data");
    keys(&data, causes);
    if data.entries().map(|(_, at)| decoded_size(at.text())).sum::<usize>() > MAX_SIZE {
        data.too_long(causes, MAX_SIZE);
    }
    let kind = root.field("type").text();
    for key in REQUIRED_KEYS.iter().filter(|(of, _)| *of == kind).flat_map(|(_, keys)| *keys) {
        let at = data.key(key);
        if !at.is_set() {
            at.missing(causes, "");
        } else if kind.starts_with("kubernetes.io/docker") && !is_json(at.text()) {
            at.invalid_value(causes, "<secret contents redacted>", "invalid character");
        }
    }
    match kind {
        "kubernetes.io/basic-auth" if !data.key("username").is_set() && !data.key("password").is_set() => {
            data.key("username").missing(causes, "");
            data.key("password").missing(causes, "");
        }
        "kubernetes.io/service-account-token" => {
            let (metadata, key) = (root.field("metadata"), "kubernetes.io/service-account.name");
            let annotations = metadata.field("annotations");
            let at = annotations.key(key);
            if at.is_empty() {
                at.missing(causes, "");
            }
        }
        _ => {}
    }
}

fn is_json(base64_text: &str) -> bool {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(base64_text).is_ok_and(|bytes| serde_json::from_slice::<serde::de::IgnoredAny>(&bytes).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::rules::lines;
    use serde_json::json;

    fn wrong(rule: fn(Option<&Value>, &Value, &mut Causes), old: Option<Value>, new: Value) -> Vec<String> {
        let mut causes = Vec::new();
        rule(old.as_ref(), &new, &mut causes);
        lines(&causes)
    }

    #[test]
    fn keys_and_size() {
        assert_eq!(wrong(config_map, None, json!({"data": {"a.b_C-1": "x"}})), Vec::<String>::new());
        assert_eq!(
            wrong(config_map, None, json!({"data": {"a/b": "x"}})),
            [
                "data[a/b]: Invalid value: \"a/b\": a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"
            ]
        );
        assert_eq!(
            wrong(config_map, None, json!({"data": {"a": "x"}, "binaryData": {"a": "eA=="}})),
            ["data[a]: Invalid value: \"a\": duplicate of key present in binaryData"]
        );
        assert_eq!(wrong(config_map, None, json!({"data": {"a": "x".repeat(MAX_SIZE + 1)}})), [": Too long: may not be more than 1048576 bytes"]);
        assert_eq!(decoded_size("eHl6"), 3);
        assert_eq!(decoded_size("eA=="), 1);
    }

    #[test]
    fn immutable_means_immutable() {
        let old = json!({"immutable": true, "data": {"a": "x"}});
        assert_eq!(
            wrong(config_map, Some(old.clone()), json!({"data": {"a": "y"}})),
            ["immutable: Forbidden: field is immutable when `immutable` is set", "data: Forbidden: field is immutable when `immutable` is set"]
        );
        assert_eq!(wrong(config_map, Some(old.clone()), old), Vec::<String>::new());
    }

    #[test]
    fn secrets_keep_their_type_and_its_keys() {
        assert_eq!(wrong(secret, Some(json!({"type": "Opaque"})), json!({"type": "x"})), ["type: Invalid value: \"x\": field is immutable"]);
        assert_eq!(wrong(secret, None, json!({"type": "kubernetes.io/tls", "data": {"tls.crt": "eA=="}})), ["data[tls.key]: Required value"]);
        assert_eq!(
            wrong(secret, None, json!({"type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": "eA=="}})),
            ["data[.dockerconfigjson]: Invalid value: \"<secret contents redacted>\": invalid character"]
        );
        assert_eq!(
            wrong(secret, None, json!({"type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": "e30="}})),
            Vec::<String>::new()
        );
        assert_eq!(
            wrong(secret, None, json!({"type": "kubernetes.io/service-account-token"})),
            ["metadata.annotations[kubernetes.io/service-account.name]: Required value"]
        );
    }

    #[test]
    fn rows_count_their_entries() {
        let map = json!({"metadata": {"name": "m"}, "data": {"a": "1"}, "binaryData": {"b": "eA=="}});
        assert_eq!(cells::golden(&ConfigMap.cells(&map), "2026-01-02T03:04:05Z"), "m | 2 | <unknown>");
        let secret = json!({"metadata": {"name": "s"}, "type": "Opaque", "data": {"a": "eA=="}});
        assert_eq!(cells::golden(&Secret.cells(&secret), "2026-01-02T03:04:05Z"), "s | Opaque | 1 | <unknown>");
    }
}
