//! The group `resource.k8s.io`: devices that pods ask for (dynamic resource allocation, KEP-4381).

mod claim;
pub mod selector;
mod slice;
mod status;
#[cfg(test)]
mod tests;

pub use slice::ResourceSlice;

use super::{
    Cx, Hooks, age,
    cells::{self, AGE, Heading, NAME, list},
    rules::{
        At, Causes,
        labels::{label_key, label_map},
        quantities,
    },
    simple::Simple,
    volume::source::driver_name,
};
use crate::pipeline::metadata;
use coracle_api::{
    names,
    registry::Column,
    status::{Cause, Status},
};
use coracle_store::Key;
use serde_json::Value;
use std::collections::BTreeSet;

/// Of a namespace whose claims may ask for administrators' access to devices.
const ADMIN_NAMESPACE: &str = "resource.kubernetes.io/admin-access";
const MAX_REQUESTS: usize = 32;
const MAX_CONFIG: usize = 32;
const MAX_SELECTORS: usize = 32;
const MAX_BINDING_CONDITIONS: usize = 4;
/// Bytes of parameters for a driver, and of its notes on a device.
const MAX_RAW: usize = 10 * 1024;
/// Bytes of an expression.
const MAX_EXPRESSION: usize = 10 * 1024;
const MAX_IDENTIFIER: usize = 32;

/// `deviceclasses.resource.k8s.io`
pub const DEVICE_CLASS: Simple = Simple::named(device_class);

pub(super) fn device_class(_old: Option<&Value>, new: &Value, causes: &mut Causes) {
    let root = At::root(new);
    let spec = root.field("spec");
    claim::selectors(&spec.field("selectors"), causes);
    bounded(&spec.field("config"), MAX_CONFIG, causes, claim::configuration);
    let name = spec.field("extendedResourceName");
    if name.is_set() && !quantities::is_extended(name.text()) {
        name.invalid(causes, "must be a valid extended resource name");
    }
}

/// Hooks of `resourceclaims.resource.k8s.io`.
pub struct ResourceClaim;
/// Hooks of `resourceclaimtemplates.resource.k8s.io`.
pub struct ResourceClaimTemplate;

const CLAIM: &[Heading] = &[NAME, ("State", "Whether it is allocated, and reserved for somebody."), AGE];

impl Hooks for ResourceClaim {
    fn prepare_update(&self, cx: &Cx<'_>, old: &Value, new: &mut Value) -> Result<(), Status> {
        if cx.subresource() == "status" {
            metadata::keep(old, new);
            status::drop_deallocated(old, new);
        }
        Ok(())
    }
    fn validate(&self, cx: &Cx<'_>, old: Option<&Value>, new: &Value, causes: &mut Vec<Cause>) {
        match old {
            Some(old) if cx.subresource() == "status" => {
                status::admin_access(cx, old, new, causes);
                status::authorized(cx, old, new, causes);
                status::validate(old, new, causes);
            }
            _ => {
                if old.is_none() {
                    admin_requests(cx, &new["spec"]["devices"]["requests"], causes);
                }
                resource_claim(old, new, causes);
            }
        }
    }
    fn columns(&self) -> Option<Vec<Column>> {
        Some(cells::columns(CLAIM))
    }
    fn cells(&self, claim: &Value) -> Vec<Value> {
        let deleted = claim["metadata"]["deletionTimestamp"].is_string();
        let mut words = Vec::from_iter(deleted.then_some("deleted"));
        if claim["status"]["allocation"].is_null() {
            words.extend((!deleted).then_some("pending"));
        } else {
            words.push("allocated");
            words.extend((!list(&claim["status"]["reservedFor"]).is_empty()).then_some("reserved"));
        }
        vec![cells::name(claim), words.join(",").into(), age::of(claim)]
    }
}

pub(super) fn resource_claim(old: Option<&Value>, new: &Value, causes: &mut Causes) {
    let root = At::root(new);
    let spec = root.field("spec");
    match old {
        Some(old) => spec.immutable(causes, &old["spec"]),
        None => claim::spec(&spec, causes),
    }
}

impl Hooks for ResourceClaimTemplate {
    fn validate(&self, cx: &Cx<'_>, old: Option<&Value>, new: &Value, causes: &mut Vec<Cause>) {
        if old.is_none() {
            admin_requests(cx, &new["spec"]["spec"]["devices"]["requests"], causes);
        }
        claim_template(old, new, causes);
    }
    fn columns(&self) -> Option<Vec<Column>> {
        Some(cells::columns(&[NAME, AGE]))
    }
    fn cells(&self, template: &Value) -> Vec<Value> {
        vec![cells::name(template), age::of(template)]
    }
}

pub(super) fn claim_template(old: Option<&Value>, new: &Value, causes: &mut Causes) {
    let root = At::root(new);
    let spec = root.field("spec");
    let metadata = spec.field("metadata");
    label_map(&metadata.field("labels"), causes);
    for (key, _) in metadata.field("annotations").entries() {
        for why in names::qualified_name(&key.to_lowercase()) {
            metadata.field("annotations").invalid_value(causes, key, &why);
        }
    }
    claim::spec(&spec.field("spec"), causes);
    if let Some(old) = old {
        spec.immutable(causes, &old["spec"]);
    }
}

/// Claims of ordinary namespaces ask for devices of their own, never for a look into others'.
fn admin_requests(cx: &Cx<'_>, requests: &Value, causes: &mut Causes) {
    if let Some(place) = list(requests).iter().position(|request| request["exactly"]["adminAccess"] == true) {
        // Upstream names this place without `exactly`.
        admin_namespace(cx, &format!("spec.devices.requests[{place}].adminAccess"), causes);
    }
}

fn admin_namespace(cx: &Cx<'_>, field: &str, causes: &mut Causes) {
    let namespace = cx.snapshot.get(&Key::new("namespaces", "", cx.request.namespace.as_str()));
    let namespace: Value = namespace.and_then(|object| serde_json::from_slice(&object.json).ok()).unwrap_or_default();
    if namespace["metadata"]["labels"][ADMIN_NAMESPACE] != "true" {
        let message = format!("Forbidden: admin access to devices requires the `{ADMIN_NAMESPACE}: true` label on the containing namespace");
        causes.push(Cause { reason: "FieldValueForbidden".into(), message, field: field.into() });
    }
}

/// At most so many, each checked; a list that is too long is not looked at.
fn bounded(list: &At<'_, '_>, max: usize, causes: &mut Causes, mut check: impl FnMut(&At<'_, '_>, &mut Causes)) -> bool {
    if list.len() > max {
        list.too_many(causes, max);
        return false;
    }
    for item in list.items() {
        check(&item, causes);
    }
    true
}

/// As [`bounded`], no two of the same key.
fn set(list: &At<'_, '_>, max: usize, causes: &mut Causes, key: impl Fn(&Value) -> String, check: impl FnMut(&At<'_, '_>, &mut Causes)) {
    if !bounded(list, max, causes, check) {
        return;
    }
    let mut seen = BTreeSet::new();
    for item in list.items() {
        let key = key(item.value);
        if seen.contains(&key) {
            item.duplicate_value(causes, key);
        } else {
            seen.insert(key);
        }
    }
}

/// The key of a list of texts.
fn itself(value: &Value) -> String {
    cells::text_or(value, "")
}

/// The key of a list of named things.
fn its_name(value: &Value) -> String {
    cells::text_or(&value["name"], "")
}

fn label(at: &At<'_, '_>, causes: &mut Causes) {
    at.syntax(causes, names::dns_label);
}

/// `rack-1/node-7`
fn pool_name(at: &At<'_, '_>, causes: &mut Causes) {
    if !at.required(causes, "") {
        return;
    }
    if at.len() > 253 {
        at.too_long(causes, 253);
    }
    for part in at.text().split('/') {
        for why in names::dns_subdomain(part) {
            at.invalid_value(causes, part, &why);
        }
    }
}

/// A UUID in its usual form.
fn uid(at: &At<'_, '_>, causes: &mut Causes) {
    let text = at.text();
    if uuid::Uuid::parse_str(text).is_err() {
        at.invalid(causes, "error validating uid: invalid UUID format");
    } else if text.len() != 36 || text.chars().any(|c| c.is_ascii_uppercase()) {
        at.invalid(causes, "uid must be in RFC 4122 normalized form, `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx` with lowercase hexadecimal characters");
    }
}

/// `driver.example.com/model` or `model`, told at the map that has it as a key.
fn qualified(at: &At<'_, '_>, name: &str, causes: &mut Causes) {
    match name.split('/').collect::<Vec<_>>()[..] {
        [id] => identifier(at, id, causes),
        [domain, id] => {
            match domain {
                "" => at.invalid_value(causes, "", "the domain must not be empty"),
                domain => driver_name(&at.with(&domain.into()), causes),
            }
            match id {
                "" => at.invalid_value(causes, "", "the name must not be empty"),
                id => identifier(at, id, causes),
            }
        }
        // As upstream: more slashes are not looked at.
        _ => {}
    }
}

fn identifier(at: &At<'_, '_>, id: &str, causes: &mut Causes) {
    if id.len() > MAX_IDENTIFIER {
        at.too_long(causes, MAX_IDENTIFIER);
    }
    let good = id.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if !good {
        at.invalid_value(
            causes,
            id,
            "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric characters or '_' (e.g. \
             'my_name',  or 'MY_NAME',  or 'MyName', regex used for validation is '[A-Za-z_][A-Za-z0-9_]*')",
        );
    }
}

/// An object for a driver, which knows what it means.
fn raw(at: &At<'_, '_>, causes: &mut Causes) {
    match at.value {
        Value::Null => at.missing(causes, ""),
        Value::Object(_) => {
            if at.value.to_string().len() > MAX_RAW {
                at.too_long(causes, MAX_RAW);
            }
        }
        _ => at.invalid_value(causes, "<value omitted>", "must be a valid JSON object"),
    }
}

/// What a device waits for before its pod is bound, and what tells that it is waited for in vain.
fn binding_conditions(at: &At<'_, '_>, causes: &mut Causes) {
    let (good, bad) = (at.field("bindingConditions"), at.field("bindingFailureConditions"));
    let mut lists = [BTreeSet::new(), BTreeSet::new()];
    for (list, seen) in [&good, &bad].into_iter().zip(&mut lists) {
        bounded(list, MAX_BINDING_CONDITIONS, causes, label_key);
        for condition in list.items() {
            if !seen.insert(condition.text()) {
                condition.duplicate(causes);
            }
        }
    }
    for condition in bad.items().filter(|condition| lists[0].contains(condition.text())) {
        condition.invalid(causes, "bindingFailureConditions must not overlap with bindingConditions");
    }
    if good.is_empty() && !bad.is_empty() {
        good.invalid_value(causes, Value::Null, "bindingConditions are required to use bindingFailureConditions");
    }
    if bad.is_empty() && !good.is_empty() {
        bad.invalid_value(causes, Value::Null, "bindingFailureConditions are required to use bindingConditions");
    }
}
