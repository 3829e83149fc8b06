//! Errors as Kubernetes gives them: `metav1.Status`.

use serde::{Deserialize, Serialize};

/// One cause within [`Details`] (`metav1.StatusCause`).
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
pub struct Cause {
    /// Machine-readable word, such as `FieldValueInvalid`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Sentence for a person.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// JSON path of the field, such as `spec.replicas`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub field: String,
}

/// What a [`Status`] is about (`metav1.StatusDetails`).
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Details {
    /// Object's name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// API group.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// Resource (plural) or kind, as upstream puts it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// Object's uid.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// What went wrong, field by field.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<Cause>,
    /// When to try again, in seconds.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub retry_after_seconds: u32,
    /// Goes into `metadata.continue`: where an expired list can go on inconsistently.
    #[serde(skip)]
    pub continue_token: String,
}

fn is_zero(n: &u32) -> bool {
    *n == 0
}

/// A failed request, as the body Kubernetes would send. `code` is the HTTP status.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{message}")]
pub struct Status {
    /// HTTP status code.
    pub code: u16,
    /// CamelCase reason, such as `NotFound`.
    pub reason: &'static str,
    /// Sentence for a person.
    pub message: String,
    /// What it is about.
    pub details: Option<Box<Details>>,
}

impl Status {
    /// A status without details.
    pub fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), details: None }
    }

    /// 404 for an object: `pods "a" not found`. `resource` is the plural, `group` may be empty.
    pub fn not_found(group: &str, resource: &str, name: &str) -> Self {
        Self::about(404, "NotFound", format!("{} \"{name}\" not found", qualified(group, resource)), group, resource, name)
    }

    /// 409 on create: `pods "a" already exists`.
    pub fn already_exists(group: &str, resource: &str, name: &str) -> Self {
        Self::about(409, "AlreadyExists", format!("{} \"{name}\" already exists", qualified(group, resource)), group, resource, name)
    }

    /// 409 on a lost race or a failed precondition.
    pub fn conflict(group: &str, resource: &str, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {} \"{name}\": {why}", qualified(group, resource));
        Self::about(409, "Conflict", message, group, resource, name)
    }

    /// 422 with one cause a field, as `apierrors.NewInvalid` words it. `kind` is the kind, such as `Pod`.
    pub fn invalid(group: &str, kind: &str, name: &str, causes: Vec<Cause>) -> Self {
        let list: Vec<String> =
            causes.iter().map(|c| if c.field.is_empty() { c.message.clone() } else { format!("{}: {}", c.field, c.message) }).collect();
        let list = if list.len() == 1 { list[0].clone() } else { format!("[{}]", list.join(", ")) };
        let message = format!("{} \"{name}\" is invalid: {list}", qualified(group, kind));
        let mut status = Self::about(422, "Invalid", message, group, kind, name);
        if let Some(details) = &mut status.details {
            details.causes = causes;
        }
        status
    }

    /// 403: `pods "a" is forbidden: why`.
    pub fn forbidden(group: &str, resource: &str, name: &str, why: &str) -> Self {
        let message = match name {
            "" => format!("{} is forbidden: {why}", qualified(group, resource)),
            name => format!("{} \"{name}\" is forbidden: {why}", qualified(group, resource)),
        };
        Self::about(403, "Forbidden", message, group, resource, name)
    }

    /// 400.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// 401.
    pub fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    /// 405.
    pub fn method_not_allowed() -> Self {
        Self::new(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
    }

    /// 410 for watches and continue tokens whose revision is gone.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    /// 500 with upstream's wording.
    pub fn internal(why: impl std::fmt::Display) -> Self {
        Self::new(500, "InternalError", format!("Internal error occurred: {why}"))
    }

    /// True for the reason `Conflict` of a lost compare-and-set (not for `AlreadyExists`).
    pub fn is_conflict(&self) -> bool {
        self.reason == "Conflict"
    }

    /// True for 404.
    pub fn is_not_found(&self) -> bool {
        self.code == 404
    }

    fn about(code: u16, reason: &'static str, message: String, group: &str, kind: &str, name: &str) -> Self {
        let details = Details { name: name.into(), group: group.into(), kind: kind.into(), ..Details::default() };
        Self { code, reason, message, details: Some(Box::new(details)) }
    }

    /// The body: `{"kind":"Status","apiVersion":"v1",…}`.
    pub fn to_json(&self) -> serde_json::Value {
        let mut body = serde_json::json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "code": self.code,
        });
        if let Some(details) = &self.details {
            if !details.continue_token.is_empty() {
                body["metadata"]["continue"] = details.continue_token.as_str().into();
            }
            if **details != (Details { continue_token: details.continue_token.clone(), ..Details::default() }) {
                body["details"] = serde_json::to_value(details).unwrap_or_default();
            }
        }
        body
    }
}

fn qualified(group: &str, resource: &str) -> String {
    if group.is_empty() { resource.to_string() } else { format!("{resource}.{group}") }
}
