//! The group `storage.k8s.io`.

use super::{
    Cx, Hooks, age,
    cells::{self, AGE, Heading, NAME, list, text_or},
    pod::warnings::node_label,
    rules::{
        At, Causes,
        labels::{label_key, selector},
        quantities,
    },
    simple::Simple,
    volume::{persistent, source::driver_name},
};
use crate::pipeline::metadata;
use coracle_api::{
    names,
    registry::Column,
    status::{Cause, Status},
};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Bytes of parameters, of a driver's notes on an attachment.
const MAX_BYTES: usize = 256 * 1024;

/// `storageclasses.storage.k8s.io`
pub const STORAGE_CLASS: Simple = Simple::new(
    &[
        NAME,
        ("Provisioner", "Who makes volumes of this class."),
        ("ReclaimPolicy", "What happens to a volume when its claim is gone."),
        ("VolumeBindingMode", "When a claim gets its volume."),
        ("AllowVolumeExpansion", "Whether claims may grow."),
        AGE,
    ],
    class_row,
    storage_class,
)
.warning(class_warnings);

fn class_row(class: &Value) -> Vec<Value> {
    let annotation = |key: &str| class["metadata"]["annotations"][key] == "true";
    let default = annotation("storageclass.kubernetes.io/is-default-class") || annotation("storageclass.beta.kubernetes.io/is-default-class");
    let name = text_or(&class["metadata"]["name"], "");
    vec![
        if default { format!("{name} (default)").into() } else { name.into() },
        text_or(&class["provisioner"], "").into(),
        text_or(&class["reclaimPolicy"], "Delete").into(),
        text_or(&class["volumeBindingMode"], "Immediate").into(),
        (class["allowVolumeExpansion"] == true).into(),
        age::of(class),
    ]
}

pub(super) fn storage_class(old: Option<&Value>, new: &Value, causes: &mut Causes) {
    let root = At::root(new);
    provisioner(&root.field("provisioner"), causes);
    parameters(&root.field("parameters"), causes);
    let (policy, mode) = (root.field("reclaimPolicy"), root.field("volumeBindingMode"));
    if !policy.is_empty() {
        policy.one_of(causes, &["Delete", "Retain"]);
    }
    match mode.is_set() {
        true => mode.one_of(causes, &["Immediate", "WaitForFirstConsumer"]),
        false => mode.missing(causes, ""),
    }
    topologies(&root.field("allowedTopologies"), causes);
    if let Some(old) = old {
        for field in ["parameters", "provisioner", "reclaimPolicy", "volumeBindingMode"] {
            root.field(field).immutable(causes, &old[field]);
        }
    }
}

fn provisioner(at: &At<'_, '_>, causes: &mut Causes) {
    if at.required(causes, "") {
        let lower = at.text().to_lowercase();
        for why in names::qualified_name(&lower) {
            at.invalid_value(causes, lower.as_str(), &why);
        }
    }
}

fn parameters(at: &At<'_, '_>, causes: &mut Causes) {
    if at.len() > 512 {
        at.too_long(causes, 512);
        return;
    }
    if at.entries().any(|(key, _)| key.is_empty()) {
        at.invalid_value(causes, "", "field can not be empty.");
    }
    if bytes(at) > MAX_BYTES {
        at.too_long(causes, MAX_BYTES);
    }
}

fn bytes(map: &At<'_, '_>) -> usize {
    map.entries().map(|(key, value)| key.len() + value.text().len()).sum()
}

fn topologies(terms: &At<'_, '_>, causes: &mut Causes) {
    let mut seen: BTreeSet<BTreeMap<&str, BTreeSet<&str>>> = BTreeSet::new();
    for term in terms.items() {
        let mut keys = BTreeMap::new();
        let expressions = term.field("matchLabelExpressions");
        for expression in expressions.items() {
            let (key, values) = (expression.field("key"), expression.field("values"));
            let mut given = BTreeSet::new();
            values.required(causes, "");
            for value in values.items() {
                if !given.insert(value.text()) {
                    value.duplicate(causes);
                }
            }
            label_key(&key, causes);
            if keys.insert(key.text(), given).is_some() {
                key.duplicate(causes);
            }
        }
        if !seen.insert(keys) {
            expressions.duplicate_value(causes, "");
        }
    }
}

fn class_warnings(class: &Value) -> Vec<String> {
    let root = At::root(class);
    let mut said = Vec::new();
    for term in root.field("allowedTopologies").items() {
        for expression in term.field("matchLabelExpressions").items() {
            let key = expression.field("key");
            said.extend(node_label(key.text()).map(|why| format!("{}: {why}", key.path())));
        }
    }
    said
}

/// `volumeattributesclasses.storage.k8s.io`
pub const VOLUME_ATTRIBUTES_CLASS: Simple = Simple::new(
    &[NAME, ("DriverName", "The driver that these attributes are for."), AGE],
    |class| vec![cells::name(class), text_or(&class["driverName"], "").into(), age::of(class)],
    volume_attributes_class,
);

pub(super) fn volume_attributes_class(old: Option<&Value>, new: &Value, causes: &mut Causes) {
    let root = At::root(new);
    let (driver, given) = (root.field("driverName"), root.field("parameters"));
    if let Some(old) = old {
        if driver.value != &old["driverName"] {
            driver.forbidden(causes, "updates to driverName are forbidden.");
        }
        if given.value != &old["parameters"] {
            given.forbidden(causes, "updates to parameters are forbidden.");
        }
    }
    provisioner(&driver, causes);
    parameters(&given, causes);
    if given.is_empty() {
        given.missing(causes, "must contain at least one key/value pair");
    }
}

/// `csinodes.storage.k8s.io`
pub const CSI_NODE: Simple = Simple::new(
    &[NAME, ("#Drivers", "How many drivers the node has."), AGE],
    |node| vec![cells::name(node), list(&node["spec"]["drivers"]).len().into(), age::of(node)],
    csi_node,
);

pub(super) fn csi_node(old: Option<&Value>, new: &Value, causes: &mut Causes) {
    let root = At::root(new);
    let spec = root.field("spec");
    let drivers = spec.field("drivers");
    let mut seen = BTreeSet::new();
    for driver in drivers.items() {
        let (name, id) = (driver.field("name"), driver.field("nodeID"));
        driver_name(&name, causes);
        id.required(causes, "");
        if id.len() > 256 {
            id.invalid(causes, "must be 256 characters or less");
        }
        driver.field("allocatable").field("count").non_negative(causes);
        if !seen.insert(name.text()) {
            name.duplicate(causes);
        }
        let mut keys = BTreeSet::new();
        for key in driver.field("topologyKeys").items() {
            // Upstream names this place without the list.
            let at = driver.with(key.value);
            at.required(causes, "");
            if !keys.insert(key.text()) {
                at.duplicate(causes);
            }
            at.syntax(causes, names::qualified_name);
        }
    }
    // All but the number of volumes is fixed while a driver is there.
    let fixed = |driver: &Value| {
        let mut driver = driver.clone();
        driver.as_object_mut().map(|driver| driver.remove("allocatable"));
        driver
    };
    for before in old.map_or(&[][..], |old| list(&old["spec"]["drivers"])) {
        for now in drivers.items().filter(|now| now.value["name"] == before["name"] && fixed(now.value) != fixed(before)) {
            drivers.with(now.value).invalid(causes, "field is immutable");
        }
    }
}

/// `csidrivers.storage.k8s.io`
pub const CSI_DRIVER: Simple = Simple::new(
    &[
        NAME,
        ("?AttachRequired", "Whether volumes are attached to a node before they are mounted."),
        ("?PodInfoOnMount", "Whether the driver is told of the pod."),
        ("?StorageCapacity", "Whether pods are placed by the capacity that is left."),
        ("TokenRequests", "Audiences of the service account tokens that it is given."),
        ("?RequiresRepublish", "Whether it is called again and again."),
        ("Modes", "Kinds of volumes that it serves."),
        AGE,
    ],
    driver_row,
    csi_driver,
)
.preparing(driver_generation)
.warning(driver_warnings);

fn driver_row(driver: &Value) -> Vec<Value> {
    let spec = &driver["spec"];
    let modes = list(&spec["volumeLifecycleModes"]).iter().filter_map(Value::as_str).collect::<Vec<_>>().join(",");
    let requests = &spec["tokenRequests"];
    vec![
        cells::name(driver),
        (spec["attachRequired"] != false).into(),
        (spec["podInfoOnMount"] == true).into(),
        (spec["storageCapacity"] == true).into(),
        if requests.is_array() { cells::joined(requests, "audience").into() } else { "<unset>".into() },
        (spec["requiresRepublish"] == true).into(),
        if modes.is_empty() { "<none>".into() } else { modes.into() },
        age::of(driver),
    ]
}

/// Drivers have no generation until what they are given at a mount changes.
fn driver_generation(old: Option<&Value>, new: &mut Value) {
    let Some(old) = old else { return };
    if ["tokenRequests", "requiresRepublish", "seLinuxMount", "serviceAccountTokenInSecrets"].iter().any(|f| old["spec"][*f] != new["spec"][*f]) {
        let generation = old["metadata"]["generation"].as_i64().unwrap_or_default() + 1;
        metadata::of(new).insert("generation".into(), generation.into());
    }
}

pub(super) fn csi_driver(old: Option<&Value>, new: &Value, causes: &mut Causes) {
    let root = At::root(new);
    let spec = root.field("spec");
    // Upstream writes this place so.
    let attach = spec.field("attachedRequired");
    let attach = attach.with(&new["spec"]["attachRequired"]);
    for at in [attach, spec.field("podInfoOnMount"), spec.field("storageCapacity")] {
        at.required(causes, "");
    }
    spec.field("fsGroupPolicy").one_of(causes, &["File", "None", "ReadWriteOnceWithFSType"]);
    let requests = spec.field("tokenRequests");
    let mut audiences = BTreeSet::new();
    for request in requests.items() {
        let (audience, seconds) = (request.field("audience"), request.field("expirationSeconds"));
        if !audiences.insert(audience.text()) {
            audience.duplicate_value(causes, audience.text());
            continue;
        }
        match seconds.int() {
            Some(n) if n < 600 => seconds.invalid(causes, "may not specify a duration less than 10 minutes"),
            Some(n) if n > 1 << 32 => seconds.invalid(causes, "may not specify a duration larger than 2^32 seconds"),
            _ => {}
        }
    }
    let modes = spec.field("volumeLifecycleModes");
    for mode in modes.items().filter(|mode| !matches!(mode.text(), "Persistent" | "Ephemeral")) {
        modes.with(mode.value).unsupported(causes, &["Persistent", "Ephemeral"]);
    }
    spec.field("seLinuxMount").required(causes, "");
    let period = spec.field("nodeAllocatableUpdatePeriodSeconds");
    if period.int().is_some_and(|seconds| seconds < 10) {
        period.invalid(causes, "must be greater than or equal to 10 seconds");
    }
    let secrets = spec.field("serviceAccountTokenInSecrets");
    if secrets.is_set() && requests.is_empty() {
        secrets.invalid(causes, "serviceAccountTokenInSecrets is set but no tokenRequests are specified");
    }
    if let Some(old) = old {
        attach.immutable(causes, &old["spec"]["attachRequired"]);
        modes.immutable(causes, &old["spec"]["volumeLifecycleModes"]);
    }
}

fn driver_warnings(driver: &Value) -> Vec<String> {
    let spec = &driver["spec"];
    match !list(&spec["tokenRequests"]).is_empty() && spec["serviceAccountTokenInSecrets"].is_null() {
        true => vec!["spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, set to true to prevent possible logging of tokens in volume attributes".into()],
        false => Vec::new(),
    }
}

/// `csistoragecapacities.storage.k8s.io`
pub const CSI_STORAGE_CAPACITY: Simple = Simple::new(
    &[NAME, ("StorageClassName", "The class that it is about."), ("Capacity", "How much is left.")],
    |capacity| vec![cells::name(capacity), text_or(&capacity["storageClassName"], "").into(), text_or(&capacity["capacity"], "<unset>").into()],
    storage_capacity,
)
.warning(|capacity| {
    let root = At::root(capacity);
    let topology = root.field("nodeTopology");
    let mut said = Vec::new();
    for expression in topology.field("matchExpressions").items() {
        let key = expression.field("key");
        said.extend(node_label(key.text()).map(|why| format!("{}: {} is {why}", key.path(), key.text())));
    }
    let labels = topology.field("matchLabels");
    said.extend(labels.entries().filter_map(|(key, _)| node_label(key).map(|why| format!("{}.{key}: {why}", labels.path()))));
    said
});

pub(super) fn storage_capacity(old: Option<&Value>, new: &Value, causes: &mut Causes) {
    let root = At::root(new);
    let (topology, class) = (root.field("nodeTopology"), root.field("storageClassName"));
    selector(&topology, causes);
    for why in names::dns_subdomain(class.text()) {
        class.invalid_value(causes, class.text(), &why);
    }
    quantities::non_negative(&root.field("capacity"), causes);
    if let Some(old) = old {
        topology.immutable(causes, &old["nodeTopology"]);
        class.immutable(causes, &old["storageClassName"]);
    }
}

/// Hooks of `volumeattachments.storage.k8s.io`.
pub struct VolumeAttachment;

const ATTACHMENT: &[Heading] = &[
    NAME,
    ("Attacher", "The driver that attaches."),
    ("PV", "The volume."),
    ("Node", "The node that it is attached to."),
    ("?Attached", "Whether it is attached now."),
    AGE,
];

impl Hooks for VolumeAttachment {
    fn prepare_update(&self, cx: &Cx<'_>, old: &Value, new: &mut Value) -> Result<(), Status> {
        if cx.subresource() == "status" {
            metadata::keep(old, new);
        }
        Ok(())
    }
    fn validate(&self, _cx: &Cx<'_>, old: Option<&Value>, new: &Value, causes: &mut Vec<Cause>) {
        volume_attachment(old, new, causes);
    }
    fn columns(&self) -> Option<Vec<Column>> {
        Some(cells::columns(ATTACHMENT))
    }
    fn cells(&self, object: &Value) -> Vec<Value> {
        let spec = &object["spec"];
        vec![
            cells::name(object),
            text_or(&spec["attacher"], "").into(),
            text_or(&spec["source"]["persistentVolumeName"], "").into(),
            text_or(&spec["nodeName"], "").into(),
            (object["status"]["attached"] == true).into(),
            age::of(object),
        ]
    }
}

pub(super) fn volume_attachment(old: Option<&Value>, new: &Value, causes: &mut Causes) {
    let root = At::root(new);
    let spec = root.field("spec");
    driver_name(&spec.field("attacher"), causes);
    attached(&spec.field("source"), causes);
    let node = spec.field("nodeName");
    for why in names::dns_subdomain(node.text()) {
        node.invalid_value(causes, node.text(), &why);
    }
    let status = root.field("status");
    let notes = status.field("attachmentMetadata");
    if bytes(&notes) > MAX_BYTES {
        notes.too_long(causes, MAX_BYTES);
    }
    for field in ["attachError", "detachError"] {
        let error = status.field(field);
        let (message, code) = (error.field("message"), error.field("errorCode"));
        if message.len() > 1024 {
            message.too_long(causes, MAX_BYTES);
        }
        if code.int().is_some_and(|code| code < 0) {
            code.invalid(causes, "must be between 0 and 2147483647, inclusive");
        }
    }
    if let Some(old) = old {
        spec.immutable(causes, &old["spec"]);
    }
}

fn attached(source: &At<'_, '_>, causes: &mut Causes) {
    let (inline, name) = (source.field("inlineVolumeSpec"), source.field("persistentVolumeName"));
    match (inline.is_set(), name.is_set()) {
        (false, false) => source.missing(causes, "must specify exactly one of inlineVolumeSpec and persistentVolumeName"),
        (true, true) => source.forbidden(causes, "must specify exactly one of inlineVolumeSpec and persistentVolumeName"),
        (true, false) => persistent::inline(&inline, causes),
        (false, true) => {
            name.required(causes, "must specify non empty persistentVolumeName");
            name.syntax(causes, names::dns_subdomain);
        }
    }
}

#[cfg(test)]
mod tests;
