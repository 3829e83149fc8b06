//! ResourceSlice: the devices that a driver has, and where.

use super::{binding_conditions, bounded, claim::taint, its_name, label, pool_name, qualified, set};
use crate::resources::{
    Cx, Hooks, age,
    cells::{self, AGE, Heading, NAME, list, text_or},
    pod::scheduling::node_selector,
    rules::{
        At, Causes,
        quantities::{quantity, shown},
    },
    volume::source::driver_name,
};
use coracle_api::{
    names,
    quantity::Quantity,
    registry::Column,
    status::{Cause, Status},
};
use serde_json::Value;

/// Hooks of `resourceslices.resource.k8s.io`.
pub struct ResourceSlice;

const MAX_DEVICES: usize = 128;
/// Where devices have taints or draw on shared counters.
const MAX_ADVANCED_DEVICES: usize = 64;
const MAX_COUNTER_SETS: usize = 8;
const MAX_COUNTERS: usize = 32;
const MAX_CONSUMED_SETS: usize = 2;
const MAX_PROPERTIES: usize = 32;
const MAX_ATTRIBUTE: usize = 64;
const MAX_TAINTS: usize = 16;
const MAX_OPTIONS: usize = 10;
/// Of devices, behind feature gates that are off in 1.36: attributes that are lists, and what a device takes of its node.
const LIST_ATTRIBUTES: [&str; 4] = ["bools", "ints", "strings", "versions"];

const HEADINGS: &[Heading] =
    &[NAME, ("Node", "The node that has the devices."), ("Driver", "Who drives them."), ("Pool", "What they are a part of."), AGE];

impl Hooks for ResourceSlice {
    fn prepare_create(&self, cx: &Cx<'_>, new: &mut Value) -> Result<(), Status> {
        prepare(&cx.timestamp(), new);
        Ok(())
    }
    fn prepare_update(&self, cx: &Cx<'_>, _old: &Value, new: &mut Value) -> Result<(), Status> {
        prepare(&cx.timestamp(), new);
        Ok(())
    }
    fn validate(&self, _cx: &Cx<'_>, old: Option<&Value>, new: &Value, causes: &mut Vec<Cause>) {
        resource_slice(old, new, causes);
    }
    fn warnings(&self, _cx: &Cx<'_>, _old: Option<&Value>, new: &Value) -> Vec<String> {
        let driver = text_or(&new["spec"]["driver"], "");
        let warning = || format!("spec.driver: driver names should be lowercase; {driver:?} contains uppercase characters");
        Vec::from_iter((driver != driver.to_lowercase()).then(warning))
    }
    fn columns(&self) -> Option<Vec<Column>> {
        Some(cells::columns(HEADINGS))
    }
    fn cells(&self, slice: &Value) -> Vec<Value> {
        let spec = &slice["spec"];
        let text = |value: &Value| Value::from(text_or(value, ""));
        vec![cells::name(slice), text(&spec["nodeName"]), text(&spec["driver"]), text(&spec["pool"]["name"]), age::of(slice)]
    }
}

/// Taints say since when they are; what is not served is dropped.
fn prepare(now: &str, slice: &mut Value) {
    for device in slice.pointer_mut("/spec/devices").and_then(Value::as_array_mut).into_iter().flatten().filter_map(Value::as_object_mut) {
        for taint in device.get_mut("taints").and_then(Value::as_array_mut).into_iter().flatten() {
            if taint["timeAdded"].is_null() {
                taint["timeAdded"] = now.into();
            }
        }
        device.remove("nodeAllocatableResourceMappings");
        for (_, attribute) in device.get_mut("attributes").and_then(Value::as_object_mut).into_iter().flatten() {
            if let Some(attribute) = attribute.as_object_mut() {
                attribute.retain(|field, _| !LIST_ATTRIBUTES.contains(&field.as_str()));
            }
        }
    }
}

pub(super) fn resource_slice(old: Option<&Value>, new: &Value, causes: &mut Causes) {
    let root = At::root(new);
    let spec = root.field("spec");
    let (driver, pool) = (spec.field("driver"), spec.field("pool"));
    driver_name(&driver, causes);
    pool_name(&pool.field("name"), causes);
    for (field, least, why) in [("resourceSliceCount", 1, "must be greater than zero"), ("generation", 0, "must be greater than or equal to zero")] {
        let given = pool.field(field).int().unwrap_or_default();
        if given < least {
            pool.field(field).invalid_value(causes, given, why);
        }
    }
    if let Some(old) = old {
        let old = &old["spec"];
        pool.field("name").immutable(causes, &old["pool"]["name"]);
        driver.immutable(causes, &old["driver"]);
        spec.field("nodeName").immutable(causes, &old["nodeName"]);
    }
    where_to_find(&spec, causes);
    let (devices, counters) = (spec.field("devices"), spec.field("sharedCounters"));
    if devices.is_set() && counters.is_set() {
        spec.invalid_value(causes, "", "only one of `sharedCounters` or `devices` is allowed");
    }
    let advanced = |device: &Value| ["taints", "consumesCounters"].iter().any(|field| !list(&device[*field]).is_empty());
    let max = if list(devices.value).iter().any(advanced) { MAX_ADVANCED_DEVICES } else { MAX_DEVICES };
    let each = spec.field("perDeviceNodeSelection").is_true();
    set(&devices, max, causes, its_name, |device, causes| one_device(device, each, causes));
    set(&counters, MAX_COUNTER_SETS, causes, its_name, |set, causes| counter_set(set, "name", causes));
}

/// Exactly one of the ways to say which nodes reach the devices.
fn where_to_find(spec: &At<'_, '_>, causes: &mut Causes) {
    const ONE: &str = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
    let mut given = Vec::new();
    let (name, selector) = (spec.field("nodeName"), spec.field("nodeSelector"));
    if name.is_set() {
        match name.is_empty() {
            true => name.invalid(causes, "must be either unset or set to a non-empty string"),
            false => {
                given.push("`nodeName`");
                name.syntax(causes, names::dns_subdomain);
            }
        }
    }
    if selector.is_set() {
        given.push("`nodeSelector`");
        node_selector(&selector, causes);
        let terms = selector.field("nodeSelectorTerms");
        if terms.len() != 1 {
            terms.invalid(causes, "must have exactly one node selector term");
        }
    }
    for (field, shown) in [("allNodes", "`allNodes`"), ("perDeviceNodeSelection", "`perDeviceNodeSelection`")] {
        let flag = spec.field(field);
        match flag.value.as_bool() {
            Some(true) => given.push(shown),
            Some(false) => flag.invalid(causes, "must be either unset or set to true"),
            None => {}
        }
    }
    match given.len() {
        0 => spec.missing(causes, ONE),
        1 => {}
        _ => spec.invalid_value(causes, format!("{{{}}}", given.join(", ")), &format!("{ONE}, but multiple fields are set")),
    }
}

/// Exactly one of the ways to say which nodes reach this device, where each says so for itself.
fn where_to_find_it(device: &At<'_, '_>, each: bool, causes: &mut Causes) {
    const ONE: &str =
        "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set to true in the ResourceSlice spec";
    let (name, selector, all) = (device.field("nodeName"), device.field("nodeSelector"), device.field("allNodes"));
    if !each {
        if name.is_set() || selector.is_set() || all.is_set() {
            let why =
                "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in the ResourceSlice spec";
            device.invalid_value(causes, Value::Null, why);
        }
        return;
    }
    let mut given = Vec::new();
    if name.is_set() {
        match name.is_empty() {
            true => name.invalid(causes, "must not be empty"),
            false => {
                given.push("`nodeName`");
                name.syntax(causes, names::dns_subdomain);
            }
        }
    }
    if selector.is_set() {
        given.push("`nodeSelector`");
        node_selector(&selector, causes);
    }
    match all.value.as_bool() {
        Some(true) => given.push("`allNodes`"),
        Some(false) => all.invalid(causes, "must be either unset or set to true"),
        None => {}
    }
    match given.len() {
        0 => device.missing(causes, ONE),
        1 => {}
        _ => device.invalid_value(causes, format!("{{{}}}", given.join(", ")), ONE),
    }
}

fn counter_set(set: &At<'_, '_>, name: &str, causes: &mut Causes) {
    let name = set.field(name);
    if name.required(causes, "") {
        label(&name, causes);
    }
    let counters = set.field("counters");
    if !counters.required(causes, "") {
        return;
    }
    if counters.len() > MAX_COUNTERS {
        return counters.too_many(causes, MAX_COUNTERS);
    }
    for (key, _) in counters.entries() {
        for why in names::dns_label(key) {
            counters.invalid_value(causes, key, &why);
        }
    }
}

fn one_device(device: &At<'_, '_>, each: bool, causes: &mut Causes) {
    label(&device.field("name"), causes);
    let (attributes, capacity) = (device.field("attributes"), device.field("capacity"));
    let properties = attributes.len() + capacity.len();
    if properties > MAX_PROPERTIES {
        let why = format!("the total number of attributes and capacities must not exceed {MAX_PROPERTIES}");
        device.invalid_value(causes, properties, &why);
    }
    for (name, value) in attributes.entries() {
        qualified(&attributes, name, causes);
        attribute(&value, causes);
    }
    let shared = device.field("allowMultipleAllocations").is_true();
    for (name, value) in capacity.entries() {
        qualified(&capacity, name, causes);
        let policy = value.field("requestPolicy");
        match (policy.is_set(), shared) {
            (true, true) => request_policy(&value.field("value"), &policy, causes),
            (true, false) => policy.forbidden(causes, "allowMultipleAllocations must be true"),
            _ => {}
        }
    }
    bounded(&device.field("taints"), MAX_TAINTS, causes, taint);
    let consumed = device.field("consumesCounters");
    set(&consumed, MAX_CONSUMED_SETS, causes, |set| text_or(&set["counterSet"], ""), |set, causes| counter_set(set, "counterSet", causes));
    where_to_find_it(device, each, causes);
    binding_conditions(device, causes);
}

fn attribute(attribute: &At<'_, '_>, causes: &mut Causes) {
    for field in ["string", "version"] {
        let text = attribute.field(field);
        if !text.is_set() {
            continue;
        }
        if field == "version" && !semantic_version(text.text()) {
            text.invalid(causes, "must be a string compatible with semver.org spec 2.0.0");
        }
        if text.len() > MAX_ATTRIBUTE {
            text.too_long(causes, MAX_ATTRIBUTE);
        }
    }
    match ["bool", "int", "string", "version"].iter().filter(|field| attribute.field(field).is_set()).count() {
        0 => attribute.invalid_value(causes, "", "exactly one value must be specified"),
        1 => {}
        _ => attribute.invalid(causes, "exactly one value must be specified"),
    }
}

/// `1.2.3-rc.1+build.5` (semver.org, 2.0.0)
pub(super) fn semantic_version(text: &str) -> bool {
    let (rest, build) = text.split_once('+').map_or((text, None), |(rest, build)| (rest, Some(build)));
    let (core, pre) = rest.split_once('-').map_or((rest, None), |(core, pre)| (core, Some(pre)));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let number = |part: &str| digits(part) && (part == "0" || !part.starts_with('0'));
    let word = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    let parts: Vec<&str> = core.split('.').collect();
    parts.len() == 3
        && parts.into_iter().all(number)
        && pre.is_none_or(|pre| pre.split('.').all(|part| word(part) && (!digits(part) || number(part))))
        && build.is_none_or(|build| build.split('.').all(word))
}

/// How much of a shared capacity one request may take.
fn request_policy(capacity: &At<'_, '_>, policy: &At<'_, '_>, causes: &mut Causes) {
    let (options, range, default) = (policy.field("validValues"), policy.field("validRange"), policy.field("default"));
    let most = quantity(capacity).unwrap_or(Quantity::ZERO);
    match (!options.is_empty(), range.is_set()) {
        (true, true) => {
            policy.forbidden(causes, "exactly one policy can be specified, cannot specify \"validValues\" and \"validRange\" at the same time");
        }
        (false, false) => {}
        (has_options, _) => match quantity(&default) {
            None => default.missing(causes, if has_options { "required when validValues is defined" } else { "required when validRange is defined" }),
            Some(given) if has_options => valid_values(&options, given, &shown(&default), (most, &shown(capacity)), causes),
            Some(given) => valid_range(&range, given, &shown(&default), (most, &shown(capacity)), causes),
        },
    }
}

fn valid_values(options: &At<'_, '_>, default: Quantity, said: &str, capacity: (Quantity, &str), causes: &mut Causes) {
    let values: Vec<Quantity> = options.items().filter_map(|option| quantity(&option)).collect();
    for (place, pair) in values.windows(2).enumerate() {
        if pair[0] > pair[1] {
            let at = options.index(place + 1);
            at.invalid_value(causes, shown(&at), "values must be sorted in ascending order");
        }
    }
    let key = |option: &Value| quantity(&At::root(option)).unwrap_or(Quantity::ZERO).units().to_string();
    set(options, MAX_OPTIONS, causes, key, |option, causes| {
        if quantity(option).is_some_and(|option| option > capacity.0) {
            option.invalid_value(causes, shown(option), &format!("option is larger than capacity value: {}", capacity.1));
        }
    });
    if !values.contains(&default) {
        options.invalid_value(causes, said, "default value is not valid according to the requestPolicy");
    }
}

fn valid_range(range: &At<'_, '_>, default: Quantity, said: &str, capacity: (Quantity, &str), causes: &mut Causes) {
    let (least, most, step) = (range.field("min"), range.field("max"), range.field("step"));
    let Some(min) = quantity(&least) else { return least.missing(causes, "required when validRange is defined") };
    if min > capacity.0 {
        least.invalid_value(causes, shown(&least), &format!("min is larger than capacity value: {}", capacity.1));
    }
    if default < min {
        least.invalid_value(causes, said, &format!("default is less than min: {}", shown(&least)));
    }
    let max = quantity(&most);
    if let Some(max) = max {
        if min > max {
            most.invalid_value(causes, shown(&least), &format!("min is larger than max: {}", shown(&most)));
        }
        if max > capacity.0 {
            most.invalid_value(causes, shown(&most), &format!("max is larger than capacity value: {}", capacity.1));
        }
        if default > max {
            most.invalid_value(causes, said, &format!("default is more than max: {}", shown(&most)));
        }
    }
    let Some(by) = quantity(&step) else { return };
    let one = min.plus(by);
    if one > capacity.0 {
        step.invalid_value(causes, shown(&step), &format!("one step {one} is larger than capacity value: {}", capacity.1));
    }
    for (value, said) in [(Some(default), said.to_string()), (max, shown(&most))] {
        let Some(value) = value else { continue };
        // A step of nothing reaches nothing.
        if (value.units() - min.units()).checked_rem(by.units()) != Some(0) {
            step.invalid_value(causes, said, &format!("value is not a multiple of a given step ({}) from ({})", shown(&step), shown(&least)));
        }
    }
}
