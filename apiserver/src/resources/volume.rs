//! PersistentVolume and PersistentVolumeClaim: what they may say, and what sources of storage look like wherever they are named.

pub mod claim;
pub mod persistent;
pub mod source;

use super::{
    cells::list,
    rules::{At, Causes},
};
use coracle_api::names;
use serde_json::Value;

/// The class of a claim or volume in the form before `storageClassName`.
pub const BETA_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

const MODES: &[(&str, &str)] = &[("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP")];

/// `RWO,ROX,RWX,RWOP`, as far as they are there.
fn shown_modes(modes: &Value) -> String {
    MODES.iter().filter(|(mode, _)| list(modes).iter().any(|given| given == mode)).map(|(_, short)| *short).collect::<Vec<_>>().join(",")
}

fn access_modes(at: &At<'_, '_>, none: &str, causes: &mut Causes) {
    at.required(causes, none);
    let known = |mode: &Value| MODES.iter().any(|(name, _)| mode == name);
    for mode in at.items().filter(|mode| !known(mode.value)) {
        at.with(mode.value).unsupported(causes, &["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"]);
    }
    let given = list(at.value);
    if given.iter().any(|mode| mode == "ReadWriteOncePod") && given.iter().any(|mode| mode != "ReadWriteOncePod" && known(mode)) {
        at.forbidden(causes, "may not use ReadWriteOncePod with other access modes");
    }
}

fn volume_mode(at: &At<'_, '_>, causes: &mut Causes) {
    at.one_of(causes, &["Block", "Filesystem"]);
}

/// The class by either way of naming it; the annotation wins.
pub fn class_of(object: &Value) -> &str {
    match object["metadata"]["annotations"][BETA_CLASS].as_str() {
        Some(class) => class,
        None => object["spec"]["storageClassName"].as_str().unwrap_or_default(),
    }
}

/// `<unset>` or the text there.
fn unset(value: &Value) -> String {
    value.as_str().unwrap_or("<unset>").to_string()
}

/// The phase, or that it is about to go.
fn phase(object: &Value) -> String {
    match object["metadata"]["deletionTimestamp"].is_string() {
        true => "Terminating".into(),
        false => object["status"]["phase"].as_str().unwrap_or_default().to_string(),
    }
}

/// A whole reference to a secret.
fn secret_reference(at: &At<'_, '_>, causes: &mut Causes) {
    if !at.is_set() {
        return;
    }
    let (name, namespace) = (at.field("name"), at.field("namespace"));
    if name.required(causes, "") {
        name.syntax(causes, names::dns_subdomain);
    }
    if namespace.required(causes, "") {
        namespace.syntax(causes, names::dns_label);
    }
}
