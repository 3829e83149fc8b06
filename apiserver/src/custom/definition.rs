//! From a stored CustomResourceDefinition to a [`Kind`] and its registry rows.
//!
//! Only names and lists are read; schemas stay what they are in the stored bytes, untouched until somebody needs them, since a cluster has many more kinds than it
//! works with at a time.

use super::{Kind, Version, columns, convert::Conversion};
use crate::webhook::ClientConfig;
use bytes::Bytes;
use coracle_api::registry::{Custom, Resource, ScalePaths, Scope, Subresource, newest_first};
use coracle_store::Object;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

#[derive(Deserialize)]
struct Definition<'a> {
    metadata: Metadata,
    #[serde(borrow)]
    spec: Spec<'a>,
    #[serde(default)]
    status: Status,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Metadata {
    generation: i64,
}

#[derive(Deserialize)]
struct Spec<'a> {
    group: Box<str>,
    scope: Box<str>,
    #[serde(borrow)]
    versions: Vec<OneVersion<'a>>,
    #[serde(default)]
    conversion: Strategy,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Strategy {
    strategy: Box<str>,
    webhook: Webhook,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Webhook {
    client_config: ClientConfig,
    conversion_review_versions: Vec<Box<str>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OneVersion<'a> {
    name: Box<str>,
    #[serde(default)]
    served: bool,
    #[serde(default)]
    storage: bool,
    #[serde(default)]
    deprecated: bool,
    deprecation_warning: Option<Box<str>>,
    #[serde(borrow)]
    schema: Option<Validation<'a>>,
    #[serde(default)]
    subresources: Subresources,
    #[serde(default)]
    additional_printer_columns: Vec<columns::Definition>,
    #[serde(default)]
    selectable_fields: Vec<Selectable>,
}

#[derive(Deserialize)]
struct Validation<'a> {
    #[serde(borrow, rename = "openAPIV3Schema")]
    open_api: Option<&'a RawValue>,
}

#[derive(Deserialize, Default)]
struct Subresources {
    status: Option<serde::de::IgnoredAny>,
    scale: Option<Scale>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Scale {
    spec_replicas_path: String,
    status_replicas_path: String,
    label_selector_path: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Selectable {
    json_path: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    accepted_names: Names,
    conditions: Vec<Condition>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Names {
    plural: Box<str>,
    singular: Box<str>,
    kind: Box<str>,
    list_kind: Box<str>,
    short_names: Vec<Box<str>>,
    categories: Vec<Box<str>>,
}

#[derive(Deserialize)]
struct Condition {
    r#type: Box<str>,
    status: Box<str>,
}

impl Status {
    fn is(&self, condition: &str) -> bool {
        self.conditions.iter().any(|c| *c.r#type == *condition && &*c.status == "True")
    }
}

/// What a definition makes of the server.
pub(super) struct Made {
    pub kind: Arc<Kind>,
    /// None while its names are not accepted.
    pub rows: Vec<Resource>,
}

/// Reads a definition. `before` is what it was, whose schemas are kept when they did not change.
pub(super) fn read(object: &Object, before: Option<&Kind>) -> serde_json::Result<Made> {
    let definition: Definition<'_> = serde_json::from_slice(&object.json)?;
    let before = before.filter(|before| before.uid == object.meta.uid);
    let (spec, status) = (&definition.spec, &definition.status);
    let names = &status.accepted_names;
    let accepted = status.is("NamesAccepted") || status.is("Established");
    let versions = spec.versions.iter().map(|version| Arc::new(one(object, &definition, version, before))).collect();
    let generation = definition.metadata.generation;
    let same = before.filter(|before| before.generation == generation && *before.kind == *names.kind);
    let kind = Arc::new(Kind {
        definition: object.key.name.as_ref().into(),
        uid: object.meta.uid.clone(),
        generation,
        revision: object.revision,
        settled: same.map_or(object.revision, |same| same.settled),
        kind: names.kind.clone(),
        versions,
        conversion: conversion(&spec.conversion),
        views: same.map(|same| same.views.clone()).unwrap_or_default(),
    });
    let wanted = spec.versions.iter().filter(|version| accepted && (version.served || version.storage));
    let rows = wanted.map(|version| row(&definition, version, &kind)).collect();
    Ok(Made { kind, rows })
}

fn one(object: &Object, definition: &Definition<'_>, version: &OneVersion<'_>, before: Option<&Kind>) -> Version {
    let (spec, names) = (&definition.spec, &definition.status.accepted_names);
    let open_api = match version.schema.as_ref().and_then(|schema| schema.open_api) {
        Some(raw) => object.json.slice_ref(raw.get().as_bytes()),
        None => Bytes::from_static(b"{}"),
    };
    let old = before.and_then(|before| before.version(&version.name));
    let schema = old.filter(|old| old.open_api == open_api && old.gvk.2 == names.kind).map(|old| old.schema.clone()).unwrap_or_default();
    let alive = old.filter(|old| !old.alive.is_cancelled()).map_or_else(CancellationToken::new, |old| old.alive.clone());
    let api_version = format!("{}/{}", spec.group, version.name).into_boxed_str();
    Version {
        api_version,
        name: version.name.clone(),
        storage: version.storage,
        open_api,
        schema,
        gvk: (spec.group.clone(), version.name.clone(), names.kind.clone()),
        columns: columns::of(&version.additional_printer_columns),
        selectable: version.selectable_fields.iter().map(|field| dotted(&field.json_path)).collect(),
        scale: version.subresources.scale.as_ref().map(|scale| ScalePaths {
            spec: dotted(&scale.spec_replicas_path),
            status: dotted(&scale.status_replicas_path),
            selector: scale.label_selector_path.as_deref().filter(|path| !path.is_empty()).map(dotted),
        }),
        alive,
    }
}

fn conversion(strategy: &Strategy) -> Conversion {
    let Webhook { client_config, conversion_review_versions } = &strategy.webhook;
    let review = conversion_review_versions.iter().find(|version| matches!(&***version, "v1" | "v1beta1"));
    match (&*strategy.strategy, review) {
        ("Webhook", Some(review)) => Conversion::Webhook { config: client_config.clone(), review: review.clone() },
        _ => Conversion::None,
    }
}

fn dotted(path: &str) -> Box<str> {
    path.strip_prefix('.').unwrap_or(path).into()
}

/// `example.com/v1beta1 Foo is deprecated; use example.com/v1 Foo`
fn deprecation(definition: &Definition<'_>, version: &OneVersion<'_>) -> Box<str> {
    let (group, kind) = (&definition.spec.group, &definition.status.accepted_names.kind);
    let mut text = format!("{group}/{} {kind} is deprecated", version.name);
    let newer = definition.spec.versions.iter().filter(|v| v.served && !v.deprecated && newest_first(&v.name, &version.name).is_lt());
    if let Some(newest) = newer.min_by(|a, b| newest_first(&a.name, &b.name)) {
        text.push_str(&format!("; use {group}/{} {kind}", newest.name));
    }
    text.into()
}

fn row(definition: &Definition<'_>, version: &OneVersion<'_>, kind: &Arc<Kind>) -> Resource {
    const ALL: [&str; 8] = ["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"];
    const STORED: [&str; 3] = ["get", "patch", "update"];
    let (spec, status) = (&definition.spec, &definition.status);
    let names = &status.accepted_names;
    let words = |list: &[&str]| list.iter().map(|word| Box::from(*word)).collect::<Vec<_>>();
    let own = (spec.group.clone(), version.name.clone(), names.kind.clone());
    let mut subresources = Vec::new();
    if version.subresources.status.is_some() {
        subresources.push(Subresource { name: "status".into(), gvk: own, verbs: words(&STORED) });
    }
    if version.subresources.scale.is_some() {
        subresources.push(Subresource { name: "scale".into(), gvk: ("autoscaling".into(), "v1".into(), "Scale".into()), verbs: words(&STORED) });
    }
    let made = kind.version(&version.name);
    Resource {
        group: spec.group.clone(),
        version: version.name.clone(),
        kind: names.kind.clone(),
        list_kind: names.list_kind.clone(),
        plural: names.plural.clone(),
        singular: names.singular.clone(),
        short_names: names.short_names.clone(),
        categories: names.categories.clone(),
        scope: if &*spec.scope == "Cluster" { Scope::Cluster } else { Scope::Namespaced },
        verbs: words(&ALL),
        subresources,
        selectable: made.map(|made| made.selectable.clone()).unwrap_or_default(),
        columns: Vec::new(),
        generation: true,
        scale: made.and_then(|made| made.scale.clone()),
        stored_as: None,
        deprecation: version.deprecated.then(|| version.deprecation_warning.clone().unwrap_or_else(|| deprecation(definition, version))),
        custom: Some(Custom {
            definition: kind.definition.clone(),
            revision: kind.revision,
            storage: version.storage,
            served: version.served,
            terminating: status.is("Terminating"),
            kind: kind.clone(),
        }),
    }
}
