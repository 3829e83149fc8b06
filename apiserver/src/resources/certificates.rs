//! CertificateSigningRequest: who asks is written by the server, who may approve or sign is told by rights over signers, and what is decided stays.

use super::{
    Cx, Hooks, age,
    cells::{self, AGE, Heading, NAME, list, text_or},
    rules::{At, Causes},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use coracle_api::{
    names,
    registry::Column,
    status::{Cause, Status},
};
use coracle_link::pki::{self, CertificateRequest};
use jiff::SignedDuration;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Resource id.
pub const REQUESTS: &str = "certificatesigningrequests.certificates.k8s.io";

/// Hooks of `certificatesigningrequests.certificates.k8s.io`.
pub struct CertificateSigningRequest;

const HEADINGS: &[Heading] = &[
    NAME,
    AGE,
    ("SignerName", "Who is asked to sign."),
    ("Requestor", "Who asks."),
    ("RequestedDuration", "How long the certificate shall hold."),
    ("Condition", "What became of it."),
];

impl Hooks for CertificateSigningRequest {
    fn prepare_create(&self, cx: &Cx<'_>, new: &mut Value) -> Result<(), Status> {
        let user = cx.user();
        let spec = &mut new["spec"];
        if !spec.is_object() {
            *spec = json!({});
        }
        let extra: serde_json::Map<String, Value> = user.extra.iter().map(|(key, values)| (key.clone(), json!(values))).collect();
        for (field, value) in
            [("username", json!(user.name)), ("uid", json!(user.uid)), ("groups", json!(user.groups)), ("extra", Value::Object(extra))]
        {
            let empty = value.as_str().is_some_and(str::is_empty) || value.as_array().is_some_and(Vec::is_empty) || value == json!({});
            match spec.as_object_mut() {
                Some(spec) if empty => drop(spec.remove(field)),
                Some(spec) => drop(spec.insert(field.into(), value)),
                None => {}
            }
        }
        new["status"] = json!({});
        Ok(())
    }
    fn prepare_update(&self, cx: &Cx<'_>, old: &Value, new: &mut Value) -> Result<(), Status> {
        prepare_update(cx.subresource(), &cx.timestamp(), old, new);
        Ok(())
    }
    fn validate(&self, cx: &Cx<'_>, old: Option<&Value>, new: &Value, causes: &mut Vec<Cause>) {
        validate(cx.subresource(), old, new, causes);
    }
    fn columns(&self) -> Option<Vec<Column>> {
        Some(cells::columns(HEADINGS))
    }
    fn cells(&self, object: &Value) -> Vec<Value> {
        let spec = &object["spec"];
        let duration = spec["expirationSeconds"].as_i64().map_or("<none>".to_string(), |seconds| age::human(SignedDuration::from_secs(seconds)));
        vec![
            cells::name(object),
            age::of(object),
            text_or(&spec["signerName"], "<none>").into(),
            text_or(&spec["username"], "").into(),
            duration.into(),
            state(object).into(),
        ]
    }
}

/// Conditions of this type.
fn conditions<'v>(object: &'v Value, kind: &str) -> Vec<&'v Value> {
    list(&object["status"]["conditions"]).iter().filter(|condition| condition["type"] == kind).collect()
}

/// `Approved,Issued`
fn state(request: &Value) -> String {
    let has = |kind: &str| !conditions(request, kind).is_empty();
    let mut words = vec![match (has("Denied"), has("Approved")) {
        (true, _) => "Denied",
        (_, true) => "Approved",
        _ => "Pending",
    }];
    words.extend(has("Failed").then_some("Failed"));
    words.extend((!text_or(&request["status"]["certificate"], "").is_empty()).then_some("Issued"));
    words.join(",")
}

fn prepare_update(subresource: &str, now: &str, old: &Value, new: &mut Value) {
    let sent = std::mem::take(&mut new["status"]);
    new["spec"] = old["spec"].clone();
    new["status"] = old["status"].clone();
    let mut given: Vec<Value> = list(&sent["conditions"]).to_vec();
    timed(now, old, &mut given);
    match subresource {
        "approval" => put(&mut new["status"], "conditions", Value::Array(given)),
        "status" => {
            new["status"] = sent;
            // What was approved or denied is not the signer's to reword; more or fewer of them is for the rules to refuse.
            for kind in ["Approved", "Denied"] {
                let before = conditions(old, kind);
                let places: Vec<usize> = given.iter().enumerate().filter(|(_, c)| c["type"] == kind).map(|(place, _)| place).collect();
                if before.len() == places.len() {
                    for (place, before) in places.into_iter().zip(before) {
                        given[place] = before.clone();
                    }
                }
            }
            put(&mut new["status"], "conditions", Value::Array(given));
        }
        _ => {}
    }
}

fn put(status: &mut Value, field: &str, value: Value) {
    if !status.is_object() {
        *status = json!({});
    }
    if let Some(status) = status.as_object_mut() {
        match value.as_array().is_some_and(Vec::is_empty) {
            true => status.remove(field),
            false => status.insert(field.into(), value),
        };
    }
}

/// Every condition says when it was written and when it became so.
fn timed(now: &str, old: &Value, given: &mut [Value]) {
    for condition in given {
        if condition["lastUpdateTime"].is_null() {
            condition["lastUpdateTime"] = now.into();
        }
        if condition["lastTransitionTime"].is_null() {
            let same = |before: &&Value| before["type"] == condition["type"] && before["status"] == condition["status"];
            let since = list(&old["status"]["conditions"]).iter().find(same).map(|before| before["lastTransitionTime"].clone());
            condition["lastTransitionTime"] = since.filter(Value::is_string).unwrap_or_else(|| now.into());
        }
    }
}

/// The request of an object, checked.
pub fn request_of(object: &Value) -> Result<CertificateRequest, pki::Error> {
    let pem = object["spec"]["request"].as_str().and_then(|text| STANDARD.decode(text).ok()).unwrap_or_default();
    CertificateRequest::from_pem(&pem)
}

pub(super) fn validate(subresource: &str, old: Option<&Value>, new: &Value, causes: &mut Causes) {
    let root = At::root(new);
    let spec = root.field("spec");
    // The specification never changes, so it is looked at once.
    if old.is_none() {
        new_request(&spec, new, causes);
    }
    let status = root.field("status");
    let at = status.field("conditions");
    each_condition(&at, old, causes);
    let certificate = status.field("certificate");
    if old.is_none_or(|old| &old["status"]["certificate"] != certificate.value)
        && let Err(why) = check_certificate(certificate.text())
    {
        certificate.invalid_value(causes, "<certificate data>", &why);
    }
    let Some(old) = old else { return };
    for kind in ["Approved", "Denied", "Failed"] {
        if conditions(new, kind).len() < conditions(old, kind).len() {
            at.forbidden(causes, &format!("updates may not remove a condition of type {kind:?}"));
        }
    }
    if subresource != "approval" {
        for kind in ["Approved", "Denied"] {
            let (before, now) = (conditions(old, kind), conditions(new, kind));
            if now.len() > before.len() {
                at.forbidden(causes, &format!("updates may not add a condition of type {kind:?}"));
            } else if now.len() == before.len() && now != before {
                at.forbidden(causes, &format!("updates may not modify a condition of type {kind:?}"));
            }
        }
    }
    let before = &old["status"]["certificate"];
    if certificate.value != before {
        if subresource != "status" {
            certificate.forbidden(causes, "updates may not set certificate content");
        } else if !text_or(before, "").is_empty() {
            certificate.forbidden(causes, "updates may not modify existing certificate content");
        }
    }
}

fn new_request(spec: &At<'_, '_>, new: &Value, causes: &mut Causes) {
    if let Err(why) = request_of(new) {
        spec.field("request").invalid(causes, &why.to_string());
    }
    let usages = spec.field("usages");
    usages.required(causes, "");
    let mut known: Vec<&str> = pki::usages().collect();
    known.sort_unstable();
    let mut seen = BTreeSet::new();
    for usage in usages.items() {
        usage.one_of(causes, &known);
        if !seen.insert(usage.text()) {
            usage.duplicate(causes);
        }
    }
    let signer = spec.field("signerName");
    match signer.text() {
        "kubernetes.io/legacy-unknown" => signer.invalid(causes, "the legacy signerName is not allowed via this API version"),
        _ => signer_name(&signer, causes),
    }
    let seconds = spec.field("expirationSeconds");
    if seconds.int().is_some_and(|seconds| seconds < 600) {
        seconds.invalid(causes, "may not specify a duration less than 600 seconds (10 minutes)");
    }
}

/// `example.com/signer`
fn signer_name(at: &At<'_, '_>, causes: &mut Causes) {
    if !at.required(causes, "") {
        return;
    }
    let parts: Vec<&str> = at.text().split('/').collect();
    let [domain, path] = parts[..] else {
        at.invalid(causes, "must be a fully qualified domain and path of the form 'example.com/signer-name'");
        return;
    };
    if domain.len() > 253 {
        at.too_long(causes, 253);
    }
    let labels: Vec<&str> = domain.split('.').collect();
    for (whole, labels, rule) in
        [(domain, labels.clone(), names::dns_label as fn(&str) -> Vec<String>), (path, path.split('.').collect(), names::dns_subdomain)]
    {
        if let Some((label, wrong)) = labels.iter().map(|label| (label, rule(label))).find(|(_, wrong)| !wrong.is_empty()) {
            for why in wrong {
                at.invalid_value(causes, whole, &format!("validating label {label:?}: {why}"));
            }
        }
        if whole == domain && labels.len() < 2 {
            at.invalid_value(causes, domain, "should be a domain with at least two segments separated by dots");
        }
    }
    if path.len() > 253 + 63 + 1 {
        at.too_long(causes, 253 + 63 + 1);
    }
}

fn each_condition(at: &At<'_, '_>, old: Option<&Value>, causes: &mut Causes) {
    let mut seen = BTreeSet::new();
    for condition in at.items() {
        let (kind, status) = (condition.field("type"), condition.field("status"));
        kind.required(causes, "");
        let decided = matches!(kind.text(), "Approved" | "Denied" | "Failed");
        status.required_one_of(causes, if decided { &["True"] } else { &["False", "True", "Unknown"] });
        let other = match kind.text() {
            "Approved" => "Denied",
            "Denied" => "Approved",
            _ => "",
        };
        let both = old.is_some_and(|old| !conditions(old, "Approved").is_empty() && !conditions(old, "Denied").is_empty());
        if !both && seen.contains(other) {
            at.invalid_value(causes, kind.text(), "Approved and Denied conditions are mutually exclusive");
        }
        if !seen.insert(kind.text()) {
            kind.duplicate(causes);
        }
    }
}

/// One or more certificates in PEM and nothing else, base64 around it.
fn check_certificate(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Ok(());
    }
    let bytes = STANDARD.decode(text).map_err(|error| error.to_string())?;
    let mut found = 0;
    for section in x509_parser::pem::Pem::iter_from_buffer(&bytes) {
        let section = section.map_err(|error| error.to_string())?;
        if section.label != "CERTIFICATE" {
            return Err(format!("only CERTIFICATE PEM blocks are allowed, found {:?}", section.label));
        }
        section.parse_x509().map_err(|error| error.to_string())?;
        found += 1;
    }
    if found == 0 { Err("must contain at least one CERTIFICATE PEM block".into()) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
