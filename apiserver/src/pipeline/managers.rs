//! Field managers: what a writer is called in `managedFields`, and what its write can manage at all.

use super::{Core, Request, Verb};
use crate::{
    auth::User,
    custom::{self, Version},
};
use coracle_api::{
    registry::Resource,
    status::{Cause, Status},
};
use coracle_schema::{
    Schema,
    managed::{Reach, Versions, Writer},
};
use parking_lot::Mutex;
use serde_json::Value;
use std::sync::Arc;

/// Longest name of a manager, bytes.
const MAX_NAME: usize = 128;

/// What callers in process and nodes are called: as the components are that do their work in Kubernetes, since tools look for these names.
pub fn of_user(user: &User) -> &'static str {
    match user.name.as_str() {
        "system:kube-scheduler" => "kube-scheduler",
        name if name.starts_with("system:node:") => "kubelet",
        name if name.starts_with("system:serviceaccount:kube-system:") => "kube-controller-manager",
        _ => "kube-apiserver",
    }
}

/// The manager of a write: the one that is named, or else the user agent up to its first slash.
///
/// # Errors
/// 422 for a name that is too long or unprintable, for an apply without a name, and for `force` without an apply.
pub fn named(verb: Verb, applies: bool, name: Option<&str>, force: Option<bool>, agent: Option<&str>, user: &User) -> Result<String, Status> {
    let options = match verb {
        Verb::Create => "CreateOptions",
        Verb::Update => "UpdateOptions",
        Verb::Patch => "PatchOptions",
        _ => return Ok(String::new()),
    };
    let name = name.unwrap_or_default();
    let mut causes = Vec::new();
    let mut wrong = |reason: &str, field: &str, message: String| causes.push(Cause { reason: reason.into(), message, field: field.into() });
    if applies && name.is_empty() {
        wrong("FieldValueRequired", "fieldManager", "Required value: is required for apply patch".into());
    }
    if verb == Verb::Patch && !applies && force.is_some() {
        wrong("FieldValueForbidden", "force", "Forbidden: may not be specified for non-apply patch".into());
    }
    if name.len() > MAX_NAME {
        wrong("FieldValueTooLong", "fieldManager", format!("Too long: may not be more than {MAX_NAME} bytes"));
    }
    if let Some((at, c)) = name.char_indices().find(|(_, c)| !printable(*c)) {
        let message = format!("Invalid value: {name:?}: should only contain printable characters (invalid character at index {at}: {c:?})");
        wrong("FieldValueInvalid", "fieldManager", message);
    }
    if !causes.is_empty() {
        return Err(Status::invalid("meta.k8s.io", options, "", causes));
    }
    Ok(match (name, agent) {
        ("", Some(agent)) => of_agent(agent),
        ("", None) => of_user(user).into(),
        (name, _) => name.into(),
    })
}

fn printable(c: char) -> bool {
    !c.is_control() && (c == ' ' || !c.is_whitespace())
}

/// `kubectl/v1.36.0 (linux/amd64)` is kubectl.
fn of_agent(agent: &str) -> String {
    let mut name = String::new();
    for c in agent.split('/').next().unwrap_or_default().chars().filter(|c| printable(*c)) {
        if name.len() + c.len_utf8() > MAX_NAME {
            break;
        }
        name.push(c);
    }
    name
}

/// What a write through this path can change, as the strategies of upstream's kinds list it (`GetResetFields`, `GetResetFieldsFilter`).
pub fn reach(row: &Resource, subresource: &str) -> Reach<'static> {
    const RESIZE: [&str; 4] =
        ["spec.containers.*.resources", "spec.containers.*.resizePolicy", "spec.initContainers.*.resources", "spec.initContainers.*.resizePolicy"];
    Reach::Without(match (&*row.group, &*row.plural, subresource) {
        ("", "pods", "ephemeralcontainers") => return Reach::Only(&["spec.ephemeralContainers"]),
        ("", "pods", "resize") => return Reach::Only(&RESIZE),
        ("certificates.k8s.io", "certificatesigningrequests", "") => &["spec", "status"],
        ("certificates.k8s.io", "certificatesigningrequests", "status") => &["spec", "status.conditions"],
        ("certificates.k8s.io", "certificatesigningrequests", "approval") => &["spec", "status.certificate"],
        ("apps", "deployments", "status") => &["spec", "metadata.labels"],
        ("", "pods", "status") => &["spec", "metadata.deletionTimestamp", "metadata.ownerReferences"],
        (
            "admissionregistration.k8s.io"
            | "apiregistration.k8s.io"
            | "flowcontrol.apiserver.k8s.io"
            | "networking.k8s.io"
            | "resource.k8s.io"
            | "storage.k8s.io",
            plural,
            "status",
        ) if plural != "ingresses" => &["metadata", "spec"],
        (_, _, "status") if row.custom.is_some() => &["metadata", "spec"],
        (_, _, "status") => &["spec"],
        (_, _, "scale") => &[],
        _ if row.has_status() => &["status"],
        _ => &[],
    })
}

/// Other versions of a row's kind, for decisions that are pure and at once, although a webhook's conversions are neither.
pub struct Others<'a> {
    core: &'a Core,
    row: &'a Resource,
    webhook: Mutex<Webhook>,
}

/// What a webhook had to convert so far.
#[derive(Default)]
struct Webhook {
    done: Vec<Conversion>,
    /// Asked for, and not done.
    missing: Option<(Arc<Version>, Value)>,
}

/// An object, and what it is in another version.
struct Conversion {
    version: Arc<Version>,
    from: Value,
    to: Value,
}

impl Versions for Others<'_> {
    fn at(&self, api_version: &str, object: &Value) -> Option<(Arc<Schema>, Value)> {
        let Some(kind) = custom::of(self.row) else {
            let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
            let schema = self.core.schemas.get(group, version, &self.row.kind)?;
            return Some((schema, self.core.reformed(self.row, (group, version), object)));
        };
        let version = kind.by_api_version(api_version)?;
        if let Some(object) = kind.rename(version, object) {
            return Some((version.schema().clone(), object));
        }
        let mut webhook = self.webhook.lock();
        let known = webhook.done.iter().find(|known| Arc::ptr_eq(&known.version, version) && known.from == *object);
        match known.map(|known| known.to.clone()) {
            Some(object) => Some((version.schema().clone(), object)),
            None => {
                webhook.missing.get_or_insert_with(|| (version.clone(), object.clone()));
                None
            }
        }
    }
}

impl Others<'_> {
    /// Decides, and again after every conversion that was found missing; what is decided without one does not count.
    pub async fn settle<T>(&self, decide: impl Fn() -> T) -> Result<T, Status> {
        loop {
            let decided = decide();
            let missing = self.webhook.lock().missing.take();
            let (Some((version, from)), Some(kind)) = (missing, custom::of(self.row)) else { return Ok(decided) };
            let mut to = from.clone();
            kind.convert(self.core, &version, std::slice::from_mut(&mut to)).await?;
            self.webhook.lock().done.push(Conversion { version, from, to });
        }
    }
}

impl Core {
    /// The versions in which a request's kind is known.
    pub(super) fn versions<'a>(&'a self, request: &'a Request) -> Others<'a> {
        Others { core: self, row: &request.resource, webhook: Mutex::default() }
    }
}

/// A request as a writer of fields.
pub fn writer<'a>(request: &'a Request, now: &'a str, versions: &'a dyn Versions) -> Writer<'a> {
    Writer {
        manager: &request.write.field_manager,
        subresource: &request.subresource,
        now,
        reach: reach(&request.resource, &request.subresource),
        versions,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(verb: Verb, applies: bool, name: Option<&str>, agent: Option<&str>) -> Result<String, String> {
        named(verb, applies, name, None, agent, &User::default()).map_err(|status| status.message)
    }

    #[test]
    fn managers_are_named_or_known_by_their_agent() {
        assert_eq!(name(Verb::Create, false, Some("me"), Some("kubectl/v1")).as_deref(), Ok("me"));
        assert_eq!(name(Verb::Update, false, Some(""), Some("kubectl/v1 (linux)")).as_deref(), Ok("kubectl"));
        assert_eq!(name(Verb::Update, false, None, Some(&"ä".repeat(100))).as_deref(), Ok(&*"ä".repeat(64)));
        assert_eq!(name(Verb::Patch, false, None, None).as_deref(), Ok("kube-apiserver"));
        let message = "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch";
        assert_eq!(name(Verb::Patch, true, None, Some("kubectl")), Err(message.into()));
        assert!(name(Verb::Create, false, Some(&"x".repeat(129)), None).is_err());
        assert!(name(Verb::Create, false, Some("a\nb"), None).is_err());
        let forced = named(Verb::Patch, false, Some("me"), Some(false), None, &User::default());
        assert!(forced.is_err_and(|status| status.message.ends_with("force: Forbidden: may not be specified for non-apply patch")));
    }
}
