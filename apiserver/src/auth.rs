//! Who asks, and may they: authentication, RBAC, the node authorizer, tokens, reviews, audit.
//!
//! [`Auth`] is one handle for the pipeline. Decisions are synchronous and pure over an index in memory ([`rbac::Index`]) that a task
//! ([`Auth::run`]) keeps in step with the store by watch; nothing is read from the store per request but the one object that a
//! token or a node's right hangs on. Order of authorizers: `system:masters`, then (for nodes) the node authorizer, then RBAC; what
//! none of them allows is denied. (Webhook authorizers and a configurable chain are left out until somebody needs them: every
//! authorizer more is a place that can fail open.)

pub mod audit;
pub mod certificate;
pub mod impersonate;
pub mod node;
pub mod oidc;
pub mod policy;
pub mod rbac;
pub mod reviews;
pub mod token_request;
pub mod tokens;

use coracle_api::status::Status;
use coracle_store::{Snapshot, Store};
use parking_lot::RwLock;
use std::{path::PathBuf, sync::Arc};

/// The group whose members may do everything, whatever RBAC says.
pub const MASTERS: &str = "system:masters";
/// The group of node identities.
pub const NODES: &str = "system:nodes";
/// Every user but the anonymous one is in this group.
pub const AUTHENTICATED: &str = "system:authenticated";
/// Prefix of a node's user name.
pub const NODE_USER: &str = "system:node:";
/// What names the credential in what is told of a user.
const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";
const ANONYMOUS: &str = "system:anonymous";
const UNAUTHENTICATED: &str = "system:unauthenticated";

/// Who asks (`authentication.k8s.io/v1 UserInfo`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// `jane`, `system:node:n1`, `system:serviceaccount:default:builder`.
    pub name: String,
    /// The service account's uid; empty for certificates.
    pub uid: String,
    /// With `system:authenticated` where it is due.
    pub groups: Vec<String>,
    /// Such as `authentication.kubernetes.io/pod-name`.
    pub extra: Vec<(String, Vec<String>)>,
}

impl User {
    /// A service account, with the groups Kubernetes gives it.
    pub fn service_account(namespace: &str, name: &str) -> User {
        User {
            name: format!("system:serviceaccount:{namespace}:{name}"),
            groups: vec!["system:serviceaccounts".into(), format!("system:serviceaccounts:{namespace}"), AUTHENTICATED.into()],
            ..User::default()
        }
    }

    /// A node's identity.
    pub fn node(name: &str) -> User {
        User { name: format!("{NODE_USER}{name}"), groups: vec![NODES.into(), AUTHENTICATED.into()], ..User::default() }
    }

    /// Somebody who showed no credentials.
    pub fn anonymous() -> User {
        User { name: ANONYMOUS.into(), groups: vec![UNAUTHENTICATED.into()], ..User::default() }
    }

    /// The API server itself: bootstrap and what it does for others.
    pub fn masters() -> User {
        User { name: "system:apiserver".into(), groups: vec![MASTERS.into(), AUTHENTICATED.into()], ..User::default() }
    }

    /// True for a member of `group`.
    pub fn in_group(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }

    /// The node's name, when this is a node.
    pub fn node_name(&self) -> Option<&str> {
        self.name.strip_prefix(NODE_USER).filter(|name| !name.is_empty() && self.in_group(NODES))
    }
}

/// What is asked, in RBAC's words.
#[derive(Clone, Debug, Default)]
pub struct Attributes<'a> {
    /// `get`, `list`, …; for non-resource requests the HTTP method in lower case.
    pub verb: &'a str,
    /// Empty group/resource with a `path` for non-resource requests.
    pub group: &'a str,
    /// The API version; no rule looks at it.
    pub version: &'a str,
    /// The plural.
    pub resource: &'a str,
    /// Empty for the main resource.
    pub subresource: &'a str,
    /// Empty for cluster-scoped and for all namespaces.
    pub namespace: &'a str,
    /// Empty where none is named.
    pub name: &'a str,
    /// Only for non-resource requests.
    pub path: &'a str,
    /// The field selector of a list or watch, as it was given: nodes may look at what is theirs.
    pub fields: &'a str,
}

impl Attributes<'_> {
    /// The one value that the field selector lets a field have, if it does.
    pub fn field(&self, path: &str) -> Option<&str> {
        let terms = self.fields.split(',').filter_map(|term| term.split_once('=')).filter(|(key, _)| *key == path);
        let mut values = terms.map(|(_, value)| value.strip_prefix('=').unwrap_or(value));
        values.next().filter(|value| !value.is_empty() && !value.contains('\\'))
    }
}

/// May they.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Yes, and by what.
    Allow {
        /// For audit and reviews: `RBAC: allowed by …`.
        reason: String,
    },
    /// No.
    Deny {
        /// Upstream's words: `User "jane" cannot list resource "pods" in API group "" in the namespace "default"`.
        reason: String,
    },
}

impl Decision {
    /// True for `Allow`.
    pub fn allowed(&self) -> bool {
        matches!(self, Decision::Allow { .. })
    }
}

/// How [`Auth`] is made.
pub struct Options {
    /// Where rules, service accounts, pods are read.
    pub store: Store,
    /// `<data-dir>/pki`: holds `sa.key`, made at first start.
    pub pki_dir: PathBuf,
    /// `iss` of service-account tokens and first audience of the API: `https://kubernetes.default.svc.cluster.local`.
    pub issuer: String,
    /// Audiences the API server accepts besides the issuer; usually none.
    pub audiences: Vec<String>,
}

/// Cheap clone; shared by everything that asks.
#[derive(Clone)]
pub struct Auth {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    rules: RwLock<rbac::Index>,
    tokens: tokens::Tokens,
}

impl Auth {
    /// Reads the key and the rules that are there; from then on [`Auth::run`] must be running.
    ///
    /// # Errors
    /// An unreadable or broken `sa.key`.
    pub fn open(options: Options) -> Result<Auth, tokens::Error> {
        let tokens = tokens::Tokens::open(&options.pki_dir, options.issuer, options.audiences)?;
        let rules = rbac::Index::of(&options.store.snapshot());
        Ok(Auth { inner: Arc::new(Inner { store: options.store, rules: RwLock::new(rules), tokens }) })
    }

    /// Reads the rules anew: after a first start has written them, before anybody asks.
    pub fn reload(&self) {
        let fresh = rbac::Index::of(&self.inner.store.snapshot());
        *self.inner.rules.write() = fresh;
    }

    /// Keeps the rules in step with the store; ends when the store is closed.
    pub async fn run(&self) {
        rbac::follow(&self.inner.store, &self.inner.rules).await;
    }

    /// From the verified client certificate (DER), else the bearer token, else anonymous (`system:anonymous`, `system:unauthenticated`).
    ///
    /// # Errors
    /// 401 for a bad token or a certificate that names nobody; never anonymous instead.
    pub async fn authenticate(&self, client_certificate: Option<&[u8]>, authorization: Option<&str>) -> Result<Arc<User>, Status> {
        if let Some(der) = client_certificate {
            return certificate::user(der, jiff::Timestamp::now().as_second()).map(Arc::new);
        }
        let Some(authorization) = authorization else { return Ok(Arc::new(User::anonymous())) };
        let token = match authorization.split_once(' ') {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim(),
            _ => return Err(Status::unauthorized()),
        };
        self.token_user(token, &[]).map(|(user, _)| user).map_err(|error| {
            tracing::debug!(%error, "token refused");
            Status::unauthorized()
        })
    }

    /// The user of a service-account token that is good now, for these audiences (none: the API server's), and those audiences
    /// of the asked ones that the token has.
    ///
    /// # Errors
    /// Why it is not good.
    pub fn token_user(&self, token: &str, audiences: &[String]) -> Result<(Arc<User>, Vec<String>), tokens::Error> {
        let now = jiff::Timestamp::now().as_second();
        let claims = self.inner.tokens.verify(token, now)?;
        let audiences = claims.audiences_among(if audiences.is_empty() { self.inner.tokens.audiences() } else { audiences })?;
        let user = claims.live_user(&self.inner.store.snapshot(), token)?;
        Ok((Arc::new(user), audiences))
    }

    /// Pure over what is in memory; cheap enough for every request.
    pub fn authorize(&self, user: &User, attributes: &Attributes<'_>) -> Decision {
        if user.in_group(MASTERS) {
            return Decision::Allow { reason: String::new() };
        }
        if let Some(node) = user.node_name()
            && let Some(decision) = node::authorize(node, attributes, &self.inner.store)
        {
            return decision;
        }
        self.inner.rules.read().authorize(user, attributes)
    }

    /// May `user` write this object of `rbac.authorization.k8s.io` without gaining what they do not have? `resource` is the plural,
    /// `object` the whole new object. For create, update and patch of the four kinds; a no-op for others, and for a write that leaves
    /// what is granted as it was in `old` (labels, the garbage collector's finalizers).
    ///
    /// # Errors
    /// 403 naming the rules that are missing.
    pub fn check_escalation(&self, user: &User, resource: &str, old: Option<&serde_json::Value>, object: &serde_json::Value) -> Result<(), Status> {
        if old.is_some_and(|old| rbac::escalation::same_grant(old, object)) {
            return Ok(());
        }
        rbac::escalation::check(&self.inner.rules.read(), user, resource, object)
    }

    fn snapshot(&self) -> Snapshot {
        self.inner.store.snapshot()
    }
}

/// Upstream's sentence for a refusal.
pub fn refusal(user: &User, a: &Attributes<'_>) -> String {
    if !a.path.is_empty() {
        return format!("User {:?} cannot {} path {:?}", user.name, a.verb, a.path);
    }
    let resource = if a.subresource.is_empty() { a.resource.to_string() } else { format!("{}/{}", a.resource, a.subresource) };
    let place = if a.namespace.is_empty() { "at the cluster scope".to_string() } else { format!("in the namespace {:?}", a.namespace) };
    format!("User {:?} cannot {} resource {resource:?} in API group {:?} {place}", user.name, a.verb, a.group)
}

#[cfg(test)]
mod tests;
