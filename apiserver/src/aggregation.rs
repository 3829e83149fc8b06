//! Group versions that other servers serve (Kubernetes' aggregation layer, APIService): which they are, how requests reach them, and what they said of themselves.
//!
//! Which group versions are remote is read from the stored APIServices at each request that nothing local answers, so that there is no table to keep in step.
//! What a remote server says of its resources is kept in memory by the availability controller and outlives an outage. A group version that this server serves itself is never
//! given away.

pub(crate) mod client;
pub(crate) mod discovery;
pub(crate) mod openapi;
pub(crate) mod swagger;

use crate::{
    auth::{Attributes, User},
    pipeline::{Core, object},
};
use bytes::Bytes;
use coracle_api::{registry::newest_first, status::Status};
use coracle_link::pki::{self, Authority, Identity};
use coracle_store::{Key, Object, Snapshot, Store};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, OnceLock},
};

/// Resource id of APIServices.
pub const API_SERVICES: &str = "apiservices.apiregistration.k8s.io";
/// Label: who keeps an APIService; `true` for those of definitions, `onstart` for built-in ones.
pub const MANAGED: &str = "kube-aggregator.kubernetes.io/automanaged";
/// The name that remote servers know this one by.
const FRONT_PROXY: &str = "front-proxy-client";

/// A view of an APIService.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ApiService {
    /// Spec.
    pub spec: Spec,
    status: State,
}

/// `APIServiceSpec`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Spec {
    /// Where it is; none for what is served here.
    pub service: Option<Place>,
    /// Group.
    pub group: String,
    /// Version.
    pub version: String,
    #[serde(rename = "insecureSkipTLSVerify")]
    insecure_skip_tls_verify: bool,
    ca_bundle: String,
    group_priority_minimum: i64,
    version_priority: i64,
}

/// `ServiceReference`
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub struct Place {
    /// Namespace of the Service.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its port; 443 unless given.
    pub port: Option<u16>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct State {
    conditions: Vec<Condition>,
}
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Condition {
    r#type: String,
    status: String,
}

impl ApiService {
    /// Reads a stored one.
    pub fn of(object: &Object) -> Option<Self> {
        serde_json::from_slice(&object.json).ok()
    }

    /// Whether requests may be passed on.
    fn available(&self) -> bool {
        self.status.conditions.iter().any(|condition| condition.r#type == "Available" && condition.status == "True")
    }
}

/// The condition of a group version that this server serves itself.
pub fn local(now: &str) -> Value {
    json!({
        "type": "Available", "status": "True", "reason": "Local", "message": "Local APIServices are always available", "lastTransitionTime": now,
    })
}

/// The APIService of a group version that is served here.
pub fn local_service(group: &str, version: &str, (group_priority, version_priority): (i64, i64), managed: &str) -> Value {
    let mut spec = json!({"version": version, "groupPriorityMinimum": group_priority, "versionPriority": version_priority});
    if !group.is_empty() {
        spec["group"] = group.into();
    }
    json!({
        "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
        "metadata": {"name": format!("{version}.{group}"), "labels": {MANAGED: managed}}, "spec": spec,
    })
}

/// Where groups stand in what clients show, as upstream orders its own.
pub fn priority(group: &str, version: &str) -> (i64, i64) {
    let of_group = match group {
        "" => return (18_000, 1),
        "apps" => 17_800,
        "events.k8s.io" => 17_750,
        "authentication.k8s.io" => 17_700,
        "authorization.k8s.io" => 17_600,
        "autoscaling" => 17_500,
        "batch" => 17_400,
        "certificates.k8s.io" => 17_300,
        "networking.k8s.io" => 17_200,
        "policy" => 17_100,
        "rbac.authorization.k8s.io" => 17_000,
        "storage.k8s.io" => 16_800,
        "apiextensions.k8s.io" | "admissionregistration.k8s.io" => 16_700,
        "scheduling.k8s.io" => 16_600,
        "coordination.k8s.io" => 16_500,
        "node.k8s.io" => 16_300,
        "discovery.k8s.io" | "resource.k8s.io" => 16_200,
        "flowcontrol.apiserver.k8s.io" => 16_100,
        _ => 100,
    };
    let of_version = match (group, version) {
        ("autoscaling", "v2") => 30,
        ("resource.k8s.io" | "flowcontrol.apiserver.k8s.io", _) => 21,
        _ => 15,
    };
    (of_group, of_version)
}

/// What a remote server said of its resources.
#[derive(Clone, Debug)]
pub(crate) struct Document {
    /// `APIResourceList`
    pub list: Arc<Value>,
    /// Whether it was told at the last look.
    pub current: bool,
}

/// What this server needs to speak with others, and what they said.
#[derive(Default)]
pub struct Aggregation {
    identity: OnceLock<(Arc<Identity>, String)>,
    documents: Mutex<HashMap<String, Document>>,
    published: Mutex<HashMap<String, openapi::Published>>,
    merged: Mutex<Option<(String, Bytes)>>,
}

/// What is learned of an APIService while it is being deleted is not kept: nobody would forget it. Asked under the lock that [`Aggregation::forget`] takes after the deletion.
fn is_stored(store: &Store, name: &str) -> bool {
    store.snapshot().get(&Key::new(API_SERVICES, "", name)).is_some()
}

impl Aggregation {
    /// Takes the identity by which remote servers know this one, from an authority that signs nothing else; it is to be kept fresh.
    ///
    /// # Errors
    /// Signing failed.
    pub fn identify(&self, authority: Authority) -> Result<Arc<Identity>, pki::Error> {
        let ca = authority.ca_pem().to_owned();
        let identity = Identity::new(Authority::LEAF_VALID, move || authority.client(FRONT_PROXY, &[], Authority::LEAF_VALID))?;
        // A second call changes nothing: connections use the first.
        Ok(self.identity.get_or_init(|| (identity, ca)).0.clone())
    }

    /// `kube-system/extension-apiserver-authentication`: how remote servers tell who asks.
    pub fn authentication(&self, client_ca: &str) -> Option<Value> {
        let (_, ca) = self.identity.get()?;
        Some(json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "extension-apiserver-authentication", "namespace": "kube-system"},
            "data": {
                "client-ca-file": client_ca,
                "requestheader-client-ca-file": ca,
                "requestheader-allowed-names": json!([FRONT_PROXY]).to_string(),
                "requestheader-username-headers": json!(["X-Remote-User"]).to_string(),
                "requestheader-uid-headers": json!(["X-Remote-Uid"]).to_string(),
                "requestheader-group-headers": json!(["X-Remote-Group"]).to_string(),
                "requestheader-extra-headers-prefix": json!(["X-Remote-Extra-"]).to_string(),
            },
        }))
    }

    /// A server told of its resources.
    pub fn told(&self, store: &Store, name: &str, list: Value) {
        let mut documents = self.documents.lock();
        if is_stored(store, name) {
            documents.insert(name.to_owned(), Document { list: Arc::new(list), current: true });
        }
    }

    /// A server did not tell: what it said before is old.
    pub fn silent(&self, name: &str) {
        if let Some(document) = self.documents.lock().get_mut(name) {
            document.current = false;
        }
    }

    /// There is no such APIService any more.
    pub fn forget(&self, name: &str) {
        self.documents.lock().remove(name);
        self.published.lock().remove(name);
        *self.merged.lock() = None;
    }

    /// What a server publishes of its OpenAPI.
    pub(crate) fn published(&self, name: &str) -> openapi::Published {
        self.published.lock().get(name).cloned().unwrap_or_default()
    }

    /// Keeps what a server publishes; that it was fetched alone, if there is no room.
    fn publish(&self, store: &Store, name: &str, published: openapi::Published) {
        let mut all = self.published.lock();
        let others: usize = all.iter().filter(|(its, _)| *its != name).map(|(_, published)| published.bytes()).sum();
        let fits = others + published.bytes() <= openapi::MAX_KEPT;
        if !fits {
            tracing::warn!(name, "the OpenAPI documents of remote servers are too large together; that of this one is left out");
        }
        if is_stored(store, name) {
            all.insert(name.to_owned(), if fits { published } else { published.without_documents() });
        }
    }

    /// The document that this hash names, made if it is not the one that was asked for last.
    pub(crate) fn merged(&self, hash: &str, make: impl FnOnce() -> Result<Vec<u8>, String>) -> Result<Bytes, String> {
        // Whoever asks for the same meanwhile waits for it: to make it twice takes longer.
        let mut kept = self.merged.lock();
        if let Some((_, document)) = kept.as_ref().filter(|(its, _)| its == hash) {
            return Ok(document.clone());
        }
        *kept = None;
        let document = Bytes::from(make()?);
        if document.len() <= openapi::MAX_KEPT {
            *kept = Some((hash.to_owned(), document.clone()));
        }
        Ok(document)
    }

    fn document(&self, name: &str) -> Option<Document> {
        self.documents.lock().get(name).cloned()
    }
}

/// A group that other servers serve.
#[derive(Debug)]
pub(crate) struct RemoteGroup {
    pub name: String,
    /// Versions, the preferred one first, with what is known of each.
    pub versions: Vec<(String, Option<Document>)>,
}

impl Core {
    /// Who serves a group version that this server does not.
    pub(crate) fn remote(&self, group: &str, version: &str) -> Option<ApiService> {
        if group.is_empty() {
            return None;
        }
        let object = self.store.snapshot().get(&Key::new(API_SERVICES, "", format!("{version}.{group}")))?;
        let service = ApiService::of(&object).filter(|service| service.spec.service.is_some())?;
        self.registry.of(group, version).is_empty().then_some(service)
    }

    /// Which of these versions of a group another server serves: the preferred one, or else the first that there is.
    pub fn remote_version<'v>(&self, group: &str, known: &[&'v str]) -> Option<&'v str> {
        let groups = self.remote_groups(&self.store.snapshot());
        let versions = &groups.iter().find(|its| its.name == group)?.versions;
        versions.iter().find_map(|(version, _)| known.iter().find(|known| **known == *version).copied())
    }

    /// All groups of other servers, by priority.
    pub(crate) fn remote_groups(&self, snapshot: &Snapshot) -> Vec<RemoteGroup> {
        let mut groups: BTreeMap<String, Vec<Spec>> = BTreeMap::new();
        for object in snapshot.range(API_SERVICES, None, None) {
            let Some(ApiService { spec, .. }) = ApiService::of(object).filter(|service| service.spec.service.is_some()) else { continue };
            if self.registry.of(&spec.group, &spec.version).is_empty() {
                groups.entry(spec.group.clone()).or_default().push(spec);
            }
        }
        let mut groups: Vec<(i64, RemoteGroup)> = groups
            .into_iter()
            .map(|(name, mut specs)| {
                specs.sort_by(|a, b| b.version_priority.cmp(&a.version_priority).then_with(|| newest_first(&a.version, &b.version)));
                let priority = specs.iter().map(|spec| spec.group_priority_minimum).max().unwrap_or(0);
                let versions = specs.into_iter().map(|spec| (spec.version.clone(), self.aggregation.document(&format!("{}.{name}", spec.version))));
                let versions = versions.collect();
                (priority, RemoteGroup { name, versions })
            })
            .collect();
        groups.sort_by(|(a, x), (b, y)| b.cmp(a).then_with(|| x.name.cmp(&y.name)));
        groups.into_iter().map(|(_, group)| group).collect()
    }

    /// What other servers publish of their OpenAPI, by group and version, the more important group first.
    pub(crate) fn remote_openapi(&self, snapshot: &Snapshot) -> Vec<(String, String, openapi::Published)> {
        let groups = self.remote_groups(snapshot).into_iter();
        let all = groups.flat_map(|RemoteGroup { name, versions }| versions.into_iter().map(move |(version, _)| (name.clone(), version)));
        let published = |(group, version): (String, String)| {
            let published = self.aggregation.published(&format!("{version}.{group}"));
            (group, version, published)
        };
        all.map(published).collect()
    }

    /// Passes an authorized request on and gives the answer as it comes.
    ///
    /// # Errors
    /// 503 while the server is not available or does not answer.
    pub(crate) async fn pass_on(
        &self,
        remote: &ApiService,
        user: &User,
        request: client::Passed<'_>,
    ) -> Result<http::Response<axum::body::Body>, Status> {
        let unavailable = |why: String| Status::new(503, "ServiceUnavailable", why);
        if !remote.available() {
            return Err(unavailable("service unavailable".into()));
        }
        self.ask_remote(&remote.spec, user, request).await.map_err(|why| unavailable(format!("error trying to reach service: {why}")))
    }

    /// Asks a remote server for its resources: the check of its availability.
    ///
    /// # Errors
    /// Why there is no answer that could be used.
    pub async fn discover(&self, remote: &ApiService) -> Result<Value, String> {
        client::discover(self, &remote.spec).await
    }

    /// Authorization of a path that a remote server answers.
    pub(crate) fn authorize_path(&self, user: &User, verb: &str, path: &str) -> Result<(), Status> {
        self.authorize(user, &Attributes { verb, path, ..Attributes::default() })
    }
}

/// The object's status with this condition in it; None if it says so already.
pub fn with_condition(stored: &Object, condition: &Value) -> Result<Option<Value>, Status> {
    let value = object::parse(stored)?;
    let mut status = value["status"].clone();
    if !status["conditions"].is_array() {
        status = json!({"conditions": []});
    }
    let Some(conditions) = status["conditions"].as_array_mut() else { return Ok(None) };
    match conditions.iter_mut().find(|its| its["type"] == condition["type"]) {
        Some(its) => {
            let mut new = condition.clone();
            if its["status"] == new["status"] && !its["lastTransitionTime"].is_null() {
                new["lastTransitionTime"] = its["lastTransitionTime"].clone();
            }
            *its = new;
        }
        None => conditions.push(condition.clone()),
    }
    Ok((status != value["status"]).then_some(status))
}
