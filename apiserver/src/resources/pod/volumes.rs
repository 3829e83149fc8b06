//! Volumes: exactly one source each, and what each source needs.

use super::env::{FILE_FIELDS, field_ref, resource_ref};
use crate::resources::{
    rules::{At, Causes, labels::label_map, quantities::quantity, syntax},
    volume::{
        claim,
        source::{self, Owner},
    },
};
use coracle_api::names;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// The well-formed volumes of a pod: name → source (`emptyDir`, `configMap`, …).
pub struct Volumes<'v>(BTreeMap<&'v str, &'v str>);

impl<'v> Volumes<'v> {
    /// Whether there is one of this name.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }
    /// What it is made from.
    pub fn source(&self, name: &str) -> Option<&'v str> {
        self.0.get(name).copied()
    }
}

const MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";

/// `volumes`
pub fn validate<'v>(list: &At<'_, 'v>, causes: &mut Causes) -> Volumes<'v> {
    let mut good = BTreeMap::new();
    for volume in list.items() {
        let before = causes.len();
        let from = source_of(&volume, causes);
        let name = volume.field("name");
        if name.required(causes, "") {
            name.syntax(causes, names::dns_label);
        }
        if good.contains_key(name.text()) {
            name.duplicate(causes);
        }
        // A broken volume is as good as none, and what mounts it says so too.
        if causes.len() == before {
            good.insert(name.text(), from.unwrap_or_default());
        }
    }
    Volumes(good)
}

fn source_of<'v>(volume: &At<'_, 'v>, causes: &mut Causes) -> Option<&'v str> {
    let mut found = None;
    for (kind, _) in volume.value.as_object().into_iter().flatten().filter(|(key, value)| *key != "name" && !value.is_null()) {
        let at = volume.field(kind);
        if found.is_some() {
            volume.field(source::second_place(kind)).forbidden(causes, "may not specify more than 1 volume type");
            continue;
        }
        found = Some(kind.as_str());
        of_kind(kind, &volume.field(source::place(kind)).with(at.value), causes);
    }
    if found.is_none() {
        volume.missing(causes, "must specify a volume type");
    }
    found
}

fn of_kind(kind: &str, at: &At<'_, '_>, causes: &mut Causes) {
    match kind {
        "emptyDir" => {
            let limit = at.field("sizeLimit");
            if quantity(&limit).is_some_and(|limit| limit.is_negative()) {
                limit.forbidden(causes, "SizeLimit field must be a valid resource quantity");
            }
        }
        "secret" => keyed(at, "secretName", causes),
        "configMap" => keyed(at, "name", causes),
        "downwardAPI" => {
            mode(&at.field("defaultMode"), causes);
            for file in at.field("items").items() {
                // Upstream names these places without the index.
                downward_file(&at.with(file.value), causes);
            }
        }
        "projected" => {
            mode(&at.field("defaultMode"), causes);
            projected(at, causes);
        }
        "persistentVolumeClaim" => drop(at.field("claimName").required(causes, "")),
        "ephemeral" => {
            let template = at.field("volumeClaimTemplate");
            match template.is_set() {
                true => claim_template(&template, causes),
                false => template.missing(causes, ""),
            }
        }
        "image" => {
            at.field("reference").required(causes, "");
            at.field("pullPolicy").one_of(causes, &["Always", "IfNotPresent", "Never"]);
        }
        kind => source::check(kind, at, Owner::Pod, causes),
    }
}

/// What a claim is made from: a spec, labels and annotations.
fn claim_template(template: &At<'_, '_>, causes: &mut Causes) {
    let metadata = template.field("metadata");
    label_map(&metadata.field("labels"), causes);
    let empty = |value: &Value| value.is_null() || value == "";
    for (field, _) in
        metadata.value.as_object().into_iter().flatten().filter(|(field, value)| !matches!(field.as_str(), "labels" | "annotations") && !empty(value))
    {
        metadata.field(field).forbidden(causes, "cannot be set");
    }
    claim::check_spec(&template.field("spec"), causes);
}

fn mode(at: &At<'_, '_>, causes: &mut Causes) {
    if at.int().is_some_and(|mode| !(0..=0o777).contains(&mode)) {
        at.invalid(causes, MODE);
    }
}

fn keyed(at: &At<'_, '_>, name: &str, causes: &mut Causes) {
    at.field(name).required(causes, "");
    mode(&at.field("defaultMode"), causes);
    for item in at.field("items").items() {
        key_to_path(&item, causes);
    }
}

fn key_to_path(item: &At<'_, '_>, causes: &mut Causes) {
    item.field("key").required(causes, "");
    let path = item.field("path");
    path.required(causes, "");
    own_path(&path, causes);
    mode(&item.field("mode"), causes);
}

/// A path below the volume that the volume's own `..data` cannot collide with.
fn own_path(path: &At<'_, '_>, causes: &mut Causes) {
    let before = causes.len();
    path.optional_syntax(causes, syntax::descending_path);
    if causes.len() == before && path.text().starts_with("..") {
        path.invalid(causes, "must not start with '..'");
    }
}

fn downward_file(file: &At<'_, '_>, causes: &mut Causes) {
    let path = file.field("path");
    path.required(causes, "");
    own_path(&path, causes);
    let (field, resource) = (file.field("fieldRef"), file.field("resourceFieldRef"));
    match (field.is_set(), resource.is_set()) {
        (true, both) => {
            field_ref(&field, FILE_FIELDS, causes);
            if both {
                file.invalid_value(causes, "resource", "fieldRef and resourceFieldRef can not be specified simultaneously");
            }
        }
        (false, true) => resource_ref(&resource, true, causes),
        (false, false) => file.missing(causes, "one of fieldRef and resourceFieldRef is required"),
    }
    mode(&file.field("mode"), causes);
}

fn projected(at: &At<'_, '_>, causes: &mut Causes) {
    let mut paths = BTreeSet::new();
    let sources = at.field("sources");
    for source in sources.items() {
        let mut given = 0;
        for kind in ["secret", "configMap", "downwardAPI", "serviceAccountToken", "clusterTrustBundle", "podCertificate"] {
            let of = source.field(kind);
            if !of.is_set() {
                continue;
            }
            given += 1;
            match kind {
                "secret" | "configMap" => {
                    of.field("name").required(causes, "");
                    for item in of.field("items").items() {
                        key_to_path(&item, causes);
                        once(at, &mut paths, &item, of.field("name").value, causes);
                    }
                }
                "downwardAPI" => {
                    for file in of.field("items").items() {
                        downward_file(&of.with(file.value), causes);
                        once(at, &mut paths, &file, file.field("path").value, causes);
                    }
                }
                "serviceAccountToken" => token(at, &of, causes),
                _ => {}
            }
        }
        if given > 1 {
            source.forbidden(causes, "may not specify more than 1 volume type per source");
        }
    }
}

fn once<'v>(at: &At<'_, '_>, paths: &mut BTreeSet<&'v str>, item: &At<'_, 'v>, shown: &Value, causes: &mut Causes) {
    let path = item.field("path").text();
    if !path.is_empty() && !paths.insert(path) {
        at.invalid_value(causes, shown.clone(), "conflicting duplicate paths");
    }
}

fn token(at: &At<'_, '_>, token: &At<'_, '_>, causes: &mut Causes) {
    let seconds = token.field("expirationSeconds");
    match seconds.int() {
        Some(n) if n < 600 => seconds.invalid(causes, "may not specify a duration less than 10 minutes"),
        Some(n) if n > 1 << 32 => seconds.invalid(causes, "may not specify a duration larger than 2^32 seconds"),
        _ => {}
    }
    let path = token.field("path");
    let place = at.field("path");
    let place = place.with(path.value);
    place.required(causes, "");
    own_path(&place, causes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::rules::lines;
    use serde_json::json;

    fn wrong(volumes: Value) -> Vec<String> {
        let mut causes = Vec::new();
        let whole = json!({"volumes": volumes});
        let root = At::root(&whole);
        validate(&root.field("volumes"), &mut causes);
        lines(&causes)
    }

    #[test]
    fn one_source_each() {
        assert_eq!(
            wrong(
                json!([{"name": "a"}, {"name": "b", "emptyDir": {}, "hostPath": {"path": "/x"}}, {"name": "c", "emptyDir": {}}, {"name": "c", "emptyDir": {}}, {"emptyDir": {}}])
            ),
            [
                "volumes[0]: Required value: must specify a volume type",
                "volumes[1].hostPath: Forbidden: may not specify more than 1 volume type",
                "volumes[3].name: Duplicate value: \"c\"",
                "volumes[4].name: Required value",
            ]
        );
    }

    #[test]
    fn sources_are_checked() {
        assert_eq!(
            wrong(json!([
                {"name": "a", "secret": {"defaultMode": 1024, "items": [{"key": "k", "path": "/abs"}]}},
                {"name": "b", "configMap": {"name": "m", "items": [{"path": "..data"}]}},
                {"name": "c", "hostPath": {"path": "/a/../b", "type": "Thing"}},
                {"name": "d", "downwardAPI": {"items": [{"path": "p"}]}},
                {"name": "e", "projected": {"sources": [{"serviceAccountToken": {"path": "token", "expirationSeconds": 1}},
                    {"configMap": {"name": "m", "items": [{"key": "a", "path": "x"}, {"key": "b", "path": "x"}]}}]}},
            ])),
            [
                "volumes[0].secret.secretName: Required value",
                "volumes[0].secret.defaultMode: Invalid value: 1024: must be a number between 0 and 0777 (octal), both inclusive",
                "volumes[0].secret.items[0].path: Invalid value: \"/abs\": must be a relative path",
                "volumes[1].configMap.items[0].key: Required value",
                "volumes[1].configMap.items[0].path: Invalid value: \"..data\": must not start with '..'",
                "volumes[2].hostPath.path: Invalid value: \"/a/../b\": must not contain '..'",
                "volumes[2].hostPath.type: Unsupported value: \"Thing\": supported values: \"\", \"BlockDevice\", \"CharDevice\", \"Directory\", \"DirectoryOrCreate\", \"File\", \"FileOrCreate\", \"Socket\"",
                "volumes[3].downwardAPI: Required value: one of fieldRef and resourceFieldRef is required",
                "volumes[4].projected.sources[0].serviceAccountToken.expirationSeconds: Invalid value: 1: may not specify a duration less than 10 minutes",
                "volumes[4].projected: Invalid value: \"m\": conflicting duplicate paths",
            ]
        );
    }
}
