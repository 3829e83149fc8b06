//! What is known about a write when it is matched against policies and webhooks (`admission.Attributes`).

use crate::auth::User;
use crate::pipeline::{Body, Request, Verb, decode};
use crate::resources::Cx;
use coracle_api::registry::Resource;
use coracle_api::status::Status;
use serde_json::{Value, json};

/// What is done, in the words of `admissionregistration.k8s.io`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Operation {
    Create,
    Update,
    Delete,
    Connect,
}

impl Operation {
    /// `CREATE`, `UPDATE`, `DELETE`, `CONNECT`
    pub fn as_str(self) -> &'static str {
        match self {
            Operation::Create => "CREATE",
            Operation::Update => "UPDATE",
            Operation::Delete => "DELETE",
            Operation::Connect => "CONNECT",
        }
    }
}

/// A write as rules, selectors and conditions see it.
#[derive(Clone, Debug)]
pub struct Attributes<'a> {
    /// What is done.
    pub operation: Operation,
    /// To objects of which resource.
    pub row: &'a Resource,
    /// Group, version and kind of the body: of the object, or of a subresource such as `scale`.
    pub kind: (Box<str>, Box<str>, Box<str>),
    /// Empty for the object itself.
    pub subresource: &'a str,
    /// Empty for cluster-scoped objects.
    pub namespace: &'a str,
    /// Empty when the server makes the name.
    pub name: &'a str,
    /// Who does it.
    pub user: &'a User,
    /// Nothing will be stored.
    pub dry_run: bool,
    /// `CreateOptions`, `UpdateOptions` or `DeleteOptions`; null for connections.
    pub options: Value,
    /// What is there; none on create.
    pub old: Option<&'a Value>,
    /// What shall be there; none on delete.
    pub new: Option<&'a Value>,
}

/// Resources that no policy and no webhook sees, so that a bad one can always be taken away.
const EXEMPT: [&str; 6] = [
    "mutatingadmissionpolicies",
    "mutatingadmissionpolicybindings",
    "mutatingwebhookconfigurations",
    "validatingadmissionpolicies",
    "validatingadmissionpolicybindings",
    "validatingwebhookconfigurations",
];

impl<'a> Attributes<'a> {
    /// Of an attempt to write; None for what nothing may intercept.
    pub fn of(cx: &'a Cx<'_>, old: Option<&'a Value>, new: Option<&'a Value>) -> Option<Attributes<'a>> {
        let request = cx.request;
        let row: &Resource = &request.resource;
        if &*row.group == "admissionregistration.k8s.io" && EXEMPT.contains(&&*row.plural) {
            return None;
        }
        let operation = match (old, new) {
            _ if request.connects() => Operation::Connect,
            (None, _) => Operation::Create,
            (Some(_), Some(_)) if !deletes(request) => Operation::Update,
            (Some(_), _) => Operation::Delete,
        };
        let metadata = new.or(old).map_or(&Value::Null, |object| &object["metadata"]);
        let generated = operation == Operation::Create && metadata["generateName"].as_str().is_some_and(|base| !base.is_empty());
        let name = match (request.name.as_str(), metadata["name"].as_str()) {
            ("", Some(name)) if !generated => name,
            (name, _) => name,
        };
        // A namespace is in itself.
        let namespace = if is_namespace(row) { name } else { &request.namespace };
        Some(Attributes {
            operation,
            row,
            kind: decode::kind_of(request),
            options: options(cx, operation),
            subresource: &request.subresource,
            namespace,
            name,
            user: &request.user,
            dry_run: request.write.dry_run,
            old,
            new,
        })
    }

    /// Whether the object is a namespace.
    pub fn is_namespace(&self) -> bool {
        is_namespace(self.row)
    }

    /// The request as `admission.k8s.io/v1 AdmissionRequest` shows it, without the objects.
    pub fn request(&self) -> Value {
        let (group, version, kind) = &self.kind;
        let kind = json!({"group": group, "version": version, "kind": kind});
        let resource = json!({"group": self.row.group, "version": self.row.version, "resource": self.row.plural});
        let extra: serde_json::Map<String, Value> = self.user.extra.iter().map(|(key, values)| (key.clone(), json!(values))).collect();
        let mut user = json!({"username": self.user.name, "groups": self.user.groups, "extra": extra});
        let mut request = json!({"kind": kind, "resource": resource, "requestKind": kind, "requestResource": resource,
            "operation": self.operation.as_str(), "dryRun": self.dry_run, "options": self.options});
        for (name, text) in
            [("subResource", self.subresource), ("requestSubResource", self.subresource), ("name", self.name), ("namespace", self.namespace)]
        {
            if !text.is_empty() {
                request[name] = text.into();
            }
        }
        if !self.user.uid.is_empty() {
            user["uid"] = self.user.uid.as_str().into();
        }
        request["userInfo"] = user;
        request
    }
}

fn deletes(request: &Request) -> bool {
    matches!(request.verb, Verb::Delete | Verb::DeleteCollection)
}

/// The options of a request as the object that upstream makes of them.
fn options(cx: &Cx<'_>, operation: Operation) -> Value {
    let request = cx.request;
    let (kind, mut options) = match operation {
        Operation::Connect => return Value::Null,
        Operation::Create => ("CreateOptions", json!({})),
        Operation::Update => ("UpdateOptions", json!({})),
        Operation::Delete => ("DeleteOptions", if deletes(request) { delete_options(cx) } else { json!({}) }),
    };
    if !options.is_object() {
        options = json!({});
    }
    options["kind"] = kind.into();
    options["apiVersion"] = "meta.k8s.io/v1".into();
    if operation != Operation::Delete {
        for (name, text) in ["fieldManager", "fieldValidation"].map(|name| (name, request.param(name).unwrap_or_default())) {
            if !text.is_empty() {
                options[name] = text.into();
            }
        }
    }
    if request.write.dry_run {
        options["dryRun"] = json!(["All"]);
    }
    options
}

/// The body of a delete with what its query says; it has been read before, so that what cannot be read is nothing.
fn delete_options(cx: &Cx<'_>) -> Value {
    let request = cx.request;
    let mut options = match &request.body {
        Body::Raw { content_type, bytes } => decode::options(cx.core, content_type, bytes).unwrap_or_default(),
        Body::Object(value) => value.clone(),
        Body::None | Body::Patch { .. } => json!({}),
    };
    if let Some(seconds) = request.param("gracePeriodSeconds").and_then(|text| text.parse::<i64>().ok()) {
        options["gracePeriodSeconds"] = seconds.into();
    }
    if let Some(policy) = request.param("propagationPolicy") {
        options["propagationPolicy"] = policy.into();
    }
    options
}

fn is_namespace(row: &Resource) -> bool {
    &*row.plural == "namespaces" && row.group.is_empty()
}

/// The namespace that the object of a request lives in: null for cluster-scoped objects and for namespaces themselves.
///
/// # Errors
/// 404 when it is not there.
pub fn namespace_object(cx: &Cx<'_>) -> Result<Value, Status> {
    let name = cx.request.namespace.as_str();
    if name.is_empty() || !cx.row().namespaced() {
        return Ok(Value::Null);
    }
    super::lookup::object(cx, "namespaces", "", name)?.ok_or_else(|| Status::not_found("", "namespaces", name))
}
