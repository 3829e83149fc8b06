//! What a claim asks for.

use super::{MAX_CONFIG, MAX_EXPRESSION, MAX_REQUESTS, MAX_SELECTORS, bounded, its_name, itself, label, qualified, raw, selector::Compiled, set};
use crate::resources::{
    cells::list,
    rules::{At, Causes, labels::label_key},
    volume::source::driver_name,
};
use coracle_api::names;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

const MAX_ALTERNATIVES: usize = 8;
const MAX_CONSTRAINTS: usize = 32;
const MAX_TOLERATIONS: usize = 16;
const EFFECTS: &[&str] = &["NoExecute", "NoSchedule", "None"];
const REFERENCE: &str = "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";

/// Names of a claim's requests, each with those of its alternatives.
pub(super) type Requests<'v> = BTreeMap<&'v str, BTreeSet<&'v str>>;

/// The names in a claim's `spec`.
pub(super) fn requests(spec: &Value) -> Requests<'_> {
    fn name(request: &Value) -> &str {
        request["name"].as_str().unwrap_or_default()
    }
    let all = list(&spec["devices"]["requests"]).iter();
    all.map(|request| (name(request), list(&request["firstAvailable"]).iter().map(name).collect())).collect()
}

/// `spec` of a claim.
pub(super) fn spec(spec: &At<'_, '_>, causes: &mut Causes) {
    let names = requests(spec.value);
    let devices = spec.field("devices");
    set(&devices.field("requests"), MAX_REQUESTS, causes, its_name, request);
    bounded(&devices.field("constraints"), MAX_CONSTRAINTS, causes, |constraint, causes| {
        set(&constraint.field("requests"), MAX_REQUESTS, causes, itself, |name, causes| reference(name, &names, causes));
        match (constraint.field("matchAttribute"), constraint.field("distinctAttribute")) {
            (attribute, _) if attribute.is_set() => fully_qualified(&attribute, causes),
            (_, attribute) if attribute.is_set() => fully_qualified(&attribute, causes),
            _ => {
                constraint.missing(causes, "exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, but multiple fields are set");
            }
        }
    });
    bounded(&devices.field("config"), MAX_CONFIG, causes, |config, causes| {
        set(&config.field("requests"), MAX_REQUESTS, causes, itself, |name, causes| reference(name, &names, causes));
        configuration(config, causes);
    });
}

fn request(request: &At<'_, '_>, causes: &mut Causes) {
    label(&request.field("name"), causes);
    let (exactly, first) = (request.field("exactly"), request.field("firstAvailable"));
    match (exactly.is_set(), !first.is_empty()) {
        (false, false) => request.missing(causes, "exactly one of `exactly` or `firstAvailable` is required"),
        (true, true) => {
            request.invalid_value(causes, Value::Null, "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set");
        }
        (true, false) => exact(&exactly, causes),
        (false, true) => set(&first, MAX_ALTERNATIVES, causes, its_name, |request, causes| {
            label(&request.field("name"), causes);
            exact(request, causes);
        }),
    }
}

fn exact(request: &At<'_, '_>, causes: &mut Causes) {
    let class = request.field("deviceClassName");
    if class.required(causes, "") {
        class.syntax(causes, names::dns_subdomain);
    }
    selectors(&request.field("selectors"), causes);
    let (mode, count) = (request.field("allocationMode"), request.field("count"));
    let given = count.int().unwrap_or_default();
    match mode.text() {
        "All" if given == 0 => {}
        "All" => count.invalid(causes, "must not be specified when allocationMode is 'All'"),
        "ExactCount" if given > 0 => {}
        "ExactCount" => count.invalid_value(causes, given, "must be greater than zero"),
        _ => mode.unsupported(causes, &["All", "ExactCount"]),
    }
    bounded(&request.field("tolerations"), MAX_TOLERATIONS, causes, toleration);
}

/// Selectors of devices, compiled to see whether they can be.
pub(super) fn selectors(selectors: &At<'_, '_>, causes: &mut Causes) {
    bounded(selectors, MAX_SELECTORS, causes, |selector, causes| {
        let cel = selector.field("cel");
        if !cel.is_set() {
            return cel.missing(causes, "");
        }
        let expression = cel.field("expression");
        if !expression.required(causes, "") {
            return;
        }
        if expression.len() > MAX_EXPRESSION {
            return expression.too_long(causes, MAX_EXPRESSION);
        }
        if let Some(why) = Compiled::of(expression.text()).error() {
            expression.invalid(causes, why);
        }
    });
}

fn toleration(toleration: &At<'_, '_>, causes: &mut Causes) {
    let (key, operator, value) = (toleration.field("key"), toleration.field("operator"), toleration.field("value"));
    if !key.is_empty() {
        label_key(&key, causes);
    }
    match operator.text() {
        "Exists" if value.is_empty() => {}
        "Exists" => value.invalid(causes, "must be empty for operator `Exists`"),
        "Equal" => value.syntax(causes, names::label_value),
        "" => operator.missing(causes, ""),
        _ => operator.unsupported(causes, &["Equal", "Exists"]),
    }
    let effect = toleration.field("effect");
    if !effect.is_empty() {
        effect.one_of(causes, EFFECTS);
    }
}

/// A taint of a device.
pub(super) fn taint(taint: &At<'_, '_>, causes: &mut Causes) {
    label_key(&taint.field("key"), causes);
    taint.field("value").optional_syntax(causes, names::label_value);
    taint.field("effect").required_one_of(causes, EFFECTS);
}

/// One piece of configuration: whoever drives the device reads it.
pub(super) fn configuration(config: &At<'_, '_>, causes: &mut Causes) {
    let opaque = config.field("opaque");
    if !opaque.is_set() {
        return opaque.missing(causes, "");
    }
    driver_name(&opaque.field("driver"), causes);
    raw(&opaque.field("parameters"), causes);
}

/// `request` or `request/alternative` of this claim.
pub(super) fn reference(name: &At<'_, '_>, requests: &Requests<'_>, causes: &mut Causes) {
    let (first, second) = match name.text().split('/').collect::<Vec<_>>()[..] {
        [first] => (first, None),
        [first, second] => (first, Some(second)),
        _ => return name.invalid(causes, REFERENCE),
    };
    for segment in [Some(first), second].into_iter().flatten() {
        for why in names::dns_label(segment) {
            name.invalid_value(causes, segment, &why);
        }
    }
    let known = requests.get(first).is_some_and(|alternatives| second.is_none_or(|second| alternatives.contains(second)));
    if !known {
        name.invalid(causes, REFERENCE);
    }
}

fn fully_qualified(name: &At<'_, '_>, causes: &mut Causes) {
    qualified(name, name.text(), causes);
    if !name.text().contains('/') {
        name.invalid(causes, "a fully qualified name must be a domain and a name separated by a slash");
    }
}
