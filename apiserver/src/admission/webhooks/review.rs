//! `AdmissionReview`: what a webhook is sent and what it may answer (`admission.k8s.io/v1` and `v1beta1`). Pure.

use base64::{Engine, engine::general_purpose::STANDARD};
use coracle_api::status::{Details, Status};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Review<'a> {
    kind: &'static str,
    api_version: &'a str,
    request: Asked<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Asked<'a> {
    uid: &'a str,
    #[serde(flatten)]
    rest: &'a Value,
    object: Option<&'a Value>,
    old_object: Option<&'a Value>,
}

/// The body of a question; `rest` is the request without its uid and objects.
pub fn request(version: &str, uid: &str, rest: &Value, new: Option<&Value>, old: Option<&Value>) -> Vec<u8> {
    let api_version = &format!("admission.k8s.io/{version}");
    let review = Review { kind: "AdmissionReview", api_version, request: Asked { uid, rest, object: new, old_object: old } };
    // Writing values that were read before cannot fail.
    serde_json::to_vec(&review).unwrap_or_default()
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    api_version: Option<String>,
    kind: Option<String>,
    response: Option<Response>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Response {
    uid: Option<String>,
    allowed: Option<bool>,
    status: Option<Denied>,
    patch: Option<String>,
    patch_type: Option<String>,
    audit_annotations: Option<BTreeMap<String, Option<String>>>,
    warnings: Option<Vec<String>>,
}

/// The `Status` that a webhook gives with its no.
#[derive(Debug, Default, Deserialize)]
pub struct Denied {
    message: Option<String>,
    reason: Option<String>,
    code: Option<i32>,
    details: Option<Details>,
}

/// What a webhook says.
#[derive(Debug, Default)]
pub struct Verdict {
    /// Set when it says no.
    pub denied: Option<Denied>,
    /// A JSON patch, not empty.
    pub patch: Option<Vec<u8>>,
    /// For the client.
    pub warnings: Vec<String>,
    /// For the audit record.
    pub annotations: BTreeMap<String, String>,
}

/// Reads an answer.
///
/// # Errors
/// Why it is none, as upstream words it after `failed calling webhook "x": `.
pub fn verdict(body: &[u8], version: &str, uid: &str, mutating: bool) -> Result<Verdict, String> {
    let answer: Answer =
        serde_json::from_slice(body).map_err(|error| format!("failed to call webhook: couldn't get version/kind; json parse error: {error}"))?;
    let invalid = |why: String| Err(format!("received invalid webhook response: {why}"));
    let Some(response) = answer.response else { return invalid("webhook response was absent".into()) };
    // The older version was never checked for these.
    let strict = version == "v1";
    let got = response.uid.unwrap_or_default();
    if strict && got != uid {
        return invalid(format!("expected response.uid={uid:?}, got {got:?}"));
    }
    let (said, kind) = (answer.api_version.unwrap_or_default(), answer.kind.unwrap_or_default());
    if strict && (said != "admission.k8s.io/v1" || kind != "AdmissionReview") {
        let shown = if said.contains('/') { said } else { format!("/{said}") };
        return invalid(format!("expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got {shown}, Kind={kind}"));
    }
    let patch = response.patch.filter(|patch| !patch.is_empty());
    let patch = match (mutating, patch, response.patch_type) {
        (false, Some(_), _) if strict => return invalid("validating webhook may not return response.patch".into()),
        (false, None, Some(_)) if strict => return invalid("validating webhook may not return response.patchType".into()),
        (false, _, _) => None,
        (true, Some(_), None) if strict => return invalid("webhook returned response.patch but not response.patchType".into()),
        (true, None, Some(_)) if strict => return invalid("webhook returned response.patchType but not response.patch".into()),
        (true, Some(_), Some(kind)) if strict && kind.is_empty() => return invalid("webhook returned invalid response.patchType of \"\"".into()),
        (true, Some(_), Some(kind)) if strict && kind != "JSONPatch" && response.allowed == Some(true) => {
            return Err(format!("unsupported patch type {kind:?}"));
        }
        (true, patch, _) => patch,
    };
    let patch = patch.map(|text| STANDARD.decode(text)).transpose();
    let patch = patch.map_err(|error| format!("failed to call webhook: the patch is no base64: {error}"))?;
    let annotations = response.audit_annotations.unwrap_or_default();
    Ok(Verdict {
        denied: (response.allowed != Some(true)).then(|| response.status.unwrap_or_default()),
        patch,
        warnings: response.warnings.unwrap_or_default(),
        annotations: annotations.into_iter().map(|(key, value)| (key, value.unwrap_or_default())).collect(),
    })
}

/// Reasons of `metav1.StatusReason`, the only ones that clients act on.
const REASONS: &[&str] = &[
    "AlreadyExists",
    "BadRequest",
    "Conflict",
    "Expired",
    "Forbidden",
    "Gone",
    "InternalError",
    "Invalid",
    "MethodNotAllowed",
    "NotAcceptable",
    "NotFound",
    "RequestEntityTooLarge",
    "ServerTimeout",
    "ServiceUnavailable",
    "StoreReadError",
    "Timeout",
    "TooManyRequests",
    "Unauthorized",
    "UnsupportedMediaType",
];

impl Denied {
    /// What the client is told: never a success, whatever the webhook says. A reason that no client knows is in the message alone.
    pub fn status(&self, webhook: &str) -> Status {
        let text = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let message = match text(&self.message).or_else(|| text(&self.reason)) {
            Some(why) => format!("admission webhook {webhook:?} denied the request: {why}"),
            None => format!("admission webhook {webhook:?} denied the request without explanation"),
        };
        let code = self.code.and_then(|code| u16::try_from(code).ok()).filter(|code| (400..600).contains(code)).unwrap_or(400);
        let reason = REASONS.iter().find(|known| Some(**known) == self.reason.as_deref()).copied().unwrap_or_default();
        Status { details: self.details.clone().map(Box::new), ..Status::new(code, reason, message) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(response: Value, mutating: bool) -> Result<Verdict, String> {
        let answer = json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "response": response});
        verdict(answer.to_string().as_bytes(), "v1", "u", mutating)
    }

    #[test]
    fn a_question_names_everything() {
        let object = json!({"metadata": {}});
        let body = request("v1", "u", &json!({"operation": "DELETE", "name": "a"}), None, Some(&object));
        let read: Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(
            read,
            json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1",
                "request": {"uid": "u", "operation": "DELETE", "name": "a", "object": null, "oldObject": {"metadata": {}}}})
        );
    }

    #[test]
    fn answers_that_are_none_are_named() {
        let why = |response: Value, mutating: bool| read(response, mutating).expect_err("no answer");
        assert_eq!(why(Value::Null, true), "received invalid webhook response: webhook response was absent");
        assert_eq!(why(json!({"uid": "v"}), true), "received invalid webhook response: expected response.uid=\"u\", got \"v\"");
        assert!(why(json!({"uid": "u", "patch": "W10="}), true).ends_with("webhook returned response.patch but not response.patchType"));
        assert!(why(json!({"uid": "u", "patchType": "JSONPatch"}), true).ends_with("webhook returned response.patchType but not response.patch"));
        assert!(
            why(json!({"uid": "u", "patch": "W10=", "patchType": "JSONPatch"}), false).ends_with("validating webhook may not return response.patch")
        );
        assert!(why(json!({"uid": "u", "patchType": "JSONPatch"}), false).ends_with("validating webhook may not return response.patchType"));
        assert_eq!(why(json!({"uid": "u", "allowed": true, "patch": "W10=", "patchType": "Merge"}), true), "unsupported patch type \"Merge\"");
        assert!(why(json!({"uid": "u", "patch": "%", "patchType": "JSONPatch"}), true).contains("no base64"));
        assert!(verdict(b"<html>", "v1", "u", true).expect_err("no JSON").contains("json parse error"));
        let other = json!({"kind": "Pod", "apiVersion": "v1", "response": {"uid": "u"}}).to_string();
        assert_eq!(
            verdict(other.as_bytes(), "v1", "u", true).expect_err("another kind"),
            "received invalid webhook response: expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got /v1, Kind=Pod"
        );
        let older = verdict(br#"{"response": {"allowed": true}}"#, "v1beta1", "u", true).expect("the older version is not checked");
        assert!(older.denied.is_none());
    }

    #[test]
    fn a_no_is_never_a_success() {
        let told = |status: Value| read(json!({"uid": "u", "status": status}), false).expect("readable").denied.expect("a no").status("a.b.c");
        let status = told(json!({"message": "because", "code": 403, "reason": "Forbidden", "details": {"name": "x"}}));
        assert_eq!((status.code, status.reason), (403, "Forbidden"));
        assert_eq!(status.message, "admission webhook \"a.b.c\" denied the request: because");
        assert_eq!(status.details.map(|details| details.name), Some("x".into()));
        let status = told(json!({"reason": "the word", "code": 200}));
        assert_eq!((status.code, status.reason, &*status.message), (400, "", "admission webhook \"a.b.c\" denied the request: the word"));
        assert_eq!(told(Value::Null).message, "admission webhook \"a.b.c\" denied the request without explanation");
        assert_eq!(told(json!({"code": 70_000})).code, 400);
    }
}
