//! Every stored kind of the registry supports the operations of the API: the sequence of upstream's "should support … API operations", over real HTTP.
//!
//! A kind without an example in the table fails the test, so that none is left out.

mod examples;

use crate::cluster::{Cluster, Peer};
use coracle_api::{
    Registry,
    registry::{Resource, ResourceRef},
};
use futures::StreamExt as _;
use serde_json::{Value, json};

const NAMESPACE: &str = "operations";
const LABEL: &str = "special-label";
/// What an update makes that is not there, by upstream's strategies.
const MADE_BY_UPDATE: &[&str] = &[
    "clusterrolebindings.rbac.authorization.k8s.io",
    "clusterroles.rbac.authorization.k8s.io",
    "endpoints",
    "events",
    "events.events.k8s.io",
    "leases.coordination.k8s.io",
    "limitranges",
    "rolebindings.rbac.authorization.k8s.io",
    "roles.rbac.authorization.k8s.io",
    "runtimeclasses.node.k8s.io",
    "services",
];

/// One kind under test.
struct Case<'a> {
    row: &'a Resource,
    id: String,
    names: [&'static str; 3],
    /// Of the objects of one namespace.
    path: String,
    /// Of the objects of all namespaces.
    all: String,
}

impl<'a> Case<'a> {
    fn new(row: &'a Resource) -> Self {
        let base = if row.group.is_empty() { format!("/api/{}", row.version) } else { format!("/apis/{}/{}", row.group, row.version) };
        let all = format!("{base}/{}", row.plural);
        let path = if row.namespaced() { format!("{base}/namespaces/{NAMESPACE}/{}", row.plural) } else { all.clone() };
        let id = examples::id(row);
        Self { row, names: examples::names(&id), id, path, all }
    }

    fn object(&self, nth: usize) -> Value {
        let mut object =
            examples::body(&self.id, nth).unwrap_or_else(|| panic!("{} has no example: give it one in tests/operations/examples.rs", self.id));
        object["apiVersion"] = self.row.api_version().into();
        object["kind"] = self.row.kind.to_string().into();
        object["metadata"] = json!({"name": self.names[nth], "labels": {LABEL: "yes"}});
        object
    }

    fn one(&self, nth: usize) -> String {
        format!("{}/{}", self.path, self.names[nth])
    }
}

fn listed(list: &Value) -> Vec<&str> {
    let mut names: Vec<&str> = list["items"].as_array().expect("items").iter().filter_map(|item| item["metadata"]["name"].as_str()).collect();
    names.sort_unstable();
    names
}

async fn put(admin: &mut Peer, path: &str, object: &Value) -> crate::cluster::Answer {
    admin.send("PUT", path, "application/json", object.to_string()).await
}

async fn merge(admin: &mut Peer, path: &str, patch: Value) -> crate::cluster::Answer {
    admin.send("PATCH", path, "application/merge-patch+json", patch.to_string()).await
}

/// Writes again what lost a race against a controller.
async fn update(admin: &mut Peer, path: &str, change: impl Fn(&mut Value)) -> Value {
    loop {
        let mut object = admin.get(path).await.body;
        change(&mut object);
        let answer = put(admin, path, &object).await;
        match answer.code {
            200 => return answer.body,
            409 => {}
            _ => panic!("{path}: {}", answer.body),
        }
    }
}

/// Kinds whose operations `conformance` goes through: their objects change what the API does.
fn elsewhere(id: &str) -> bool {
    id == "customresourcedefinitions.apiextensions.k8s.io" || id == "apiservices.apiregistration.k8s.io"
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_supports_the_operations_of_the_api() {
    let rows: Vec<ResourceRef> = Registry::builtin().all().into_iter().filter(|row| !elsewhere(&row.id())).collect();
    let without: Vec<String> =
        rows.iter().filter(|row| row.stored() && examples::body(&examples::id(row), 0).is_none()).map(|row| examples::id(row)).collect();
    assert_eq!(without, Vec::<String>::new(), "kinds without an example in tests/operations/examples.rs");
    let cluster = Cluster::start().await;
    let mut admin = cluster.admin().await;
    let made = admin.post("/api/v1/namespaces", json!({"metadata": {"name": NAMESPACE}})).await;
    assert_eq!(made.code, 201, "{}", made.body);
    // One resource's forms show the same objects: one after the other.
    for other_forms in [false, true] {
        let stored = rows.iter().filter(|row| row.stored() && row.stored_as.is_some() == other_forms);
        // Several at once, so that they share what a write costs.
        futures::stream::iter(stored)
            .for_each_concurrent(8, |row| async {
                let case = Case::new(row);
                let mut admin = cluster.admin().await;
                discovered(&mut admin, &case).await;
                operations(&mut admin, &case).await;
                shown(&mut admin, &case).await;
            })
            .await;
    }
}

/// Discovery tells of the kind with all its verbs and subresources.
async fn discovered(admin: &mut Peer, case: &Case<'_>) {
    let row = case.row;
    let base = case.all.trim_end_matches(&format!("/{}", row.plural)).to_string();
    let list = admin.get(&base).await.body;
    let find = |name: &str| list["resources"].as_array().expect("resources").iter().find(|entry| entry["name"] == name).cloned();
    let entry = find(&row.plural).unwrap_or_else(|| panic!("{} is not in {base}", row.plural));
    assert_eq!((entry["kind"].as_str(), entry["namespaced"].as_bool()), (Some(&*row.kind), Some(row.namespaced())));
    for verb in ["create", "delete", "get", "list", "patch", "update", "watch"] {
        assert!(entry["verbs"].as_array().expect("verbs").iter().any(|its| its == verb), "{}: {verb}", case.id);
    }
    if row.has_status() {
        let status = find(&format!("{}/status", row.plural)).expect("status");
        assert_eq!(status["verbs"], json!(["get", "patch", "update"]));
    }
}

async fn operations(admin: &mut Peer, case: &Case<'_>) {
    let id = &case.id;
    // update of nothing
    let mut absent = case.object(0);
    let made = put(admin, &case.one(0), &absent).await;
    match MADE_BY_UPDATE.contains(&&*case.row.id()) {
        true => {
            assert_eq!((made.code, made.body["metadata"]["name"].as_str()), (201, Some(case.names[0])), "{id}: {}", made.body);
            assert_eq!(admin.send("DELETE", &case.one(0), "application/json", String::new()).await.code, 200, "{id}");
            absent["metadata"]["uid"] = made.body["metadata"]["uid"].clone();
            assert_eq!(put(admin, &case.one(0), &absent).await.code, 409, "{id}: it was about another object");
        }
        false => assert_eq!((made.code, made.reason()), (404, "NotFound"), "{id}: {}", made.body),
    }
    // create
    for nth in 0..3 {
        let created = admin.post(&case.path, case.object(nth)).await;
        assert_eq!(created.code, 201, "{id}: {}", created.body);
        assert_eq!(created.body["metadata"]["name"], case.names[nth], "{id}");
        assert_eq!(null(&created.body), None, "{id}: what nobody set is left out");
        let again = admin.post(&case.path, case.object(nth)).await;
        assert_eq!((again.code, again.reason()), (409, "AlreadyExists"), "{id}: {}", again.body);
    }
    // get, list, list of all namespaces
    let got = admin.get(&case.one(0)).await;
    assert_eq!((got.code, &got.body["kind"]), (200, &json!(case.row.kind)), "{id}: {}", got.body);
    let mut sorted = case.names;
    sorted.sort_unstable();
    let mut revision = String::new();
    for path in [&case.path, &case.all] {
        let list = admin.get(&format!("{path}?labelSelector={LABEL}%3Dyes")).await;
        assert_eq!((list.code, listed(&list.body)), (200, sorted.to_vec()), "{id}");
        assert_eq!(list.body["kind"], format!("{}List", case.row.kind));
        revision = list.body["metadata"]["resourceVersion"].as_str().expect("revision").to_string();
    }
    let named = admin.get(&format!("{}?fieldSelector=metadata.name%3D{}", case.path, case.names[1])).await;
    assert_eq!(listed(&named.body), [case.names[1]], "{id}");
    let mut events = admin.watch(&format!("{}?watch=true&labelSelector={LABEL}%3Dyes&resourceVersion={revision}", case.all)).await;

    // patch, in each of its forms
    let patched = merge(admin, &case.one(0), json!({"metadata": {"annotations": {"patched": "merge"}}})).await;
    assert_eq!((patched.code, &patched.body["metadata"]["annotations"]["patched"]), (200, &json!("merge")), "{id}: {}", patched.body);
    let strategic = json!({"metadata": {"annotations": {"patched": "true"}}}).to_string();
    let patched = admin.send("PATCH", &case.one(0), "application/strategic-merge-patch+json", strategic).await;
    assert_eq!((patched.code, &patched.body["metadata"]["annotations"]["patched"]), (200, &json!("true")), "{id}: {}", patched.body);
    until(&mut events, id, |event| event["type"] == "MODIFIED" && event["object"]["metadata"]["annotations"]["patched"] == "true").await;
    if let Some((field, values)) = examples::changes(id) {
        for value in values {
            let mut patch = value;
            for part in field.split('/').skip(1).collect::<Vec<_>>().into_iter().rev() {
                patch = json!({part: patch});
            }
            let patched = merge(admin, &case.one(0), patch.clone()).await;
            assert_eq!((patched.code, patched.body.pointer(field)), (200, patch.pointer(field)), "{id}: {}", patched.body);
        }
    }
    // update
    let updated = update(admin, &case.one(0), |object| object["metadata"]["annotations"]["updated"] = "true".into()).await;
    assert_eq!(updated["metadata"]["annotations"]["patched"], "true", "{id}");
    until(&mut events, id, |event| event["object"]["metadata"]["annotations"]["updated"] == "true").await;
    let mut stale = updated.clone();
    stale["metadata"]["resourceVersion"] = "1".into();
    assert_eq!(put(admin, &case.one(0), &stale).await.code, 409, "{id}");

    status(admin, case).await;

    // delete
    let gone = admin.send("DELETE", &case.one(0), "application/json", String::new()).await;
    assert_eq!(gone.code, 200, "{id}: {}", gone.body);
    until(&mut events, id, |event| event["type"] == "DELETED" && event["object"]["metadata"]["name"] == case.names[0]).await;
    assert_eq!(admin.get(&case.one(0)).await.code, 404, "{id}");
    let again = admin.send("DELETE", &case.one(0), "application/json", String::new()).await;
    assert_eq!((again.code, again.reason()), (404, "NotFound"), "{id}");
    // deletecollection
    if case.row.serves("deletecollection") {
        let collection = format!("{}?labelSelector={LABEL}%3Dyes", case.path);
        let gone = admin.send("DELETE", &collection, "application/json", String::new()).await;
        let mut rest = case.names[1..].to_vec();
        rest.sort_unstable();
        assert_eq!((gone.code, listed(&gone.body)), (200, rest), "{id}: {}", gone.body);
    } else {
        for nth in 1..3 {
            admin.send("DELETE", &case.one(nth), "application/json", String::new()).await;
        }
    }
    let mut left = vec![case.names[1], case.names[2]];
    while !left.is_empty() {
        let event = events.next().await.expect("an event");
        if event["type"] == "DELETED" {
            left.retain(|name| event["object"]["metadata"]["name"] != *name);
        }
    }
    let list = admin.get(&format!("{}?labelSelector={LABEL}%3Dyes", case.path)).await;
    assert_eq!(listed(&list.body), Vec::<&str>::new(), "{id}");
}

/// Where a null is, if there is one: in the canonical form there is none.
fn null(value: &Value) -> Option<String> {
    match value {
        Value::Null => Some(String::new()),
        Value::Array(items) => items.iter().enumerate().find_map(|(at, item)| Some(format!("[{at}]{}", null(item)?))),
        Value::Object(fields) => fields.iter().find_map(|(name, value)| Some(format!(".{name}{}", null(value)?))),
        _ => None,
    }
}

/// The event that is waited for, whatever controllers do meanwhile.
async fn until(events: &mut crate::cluster::Events, id: &str, wanted: impl Fn(&Value) -> bool) {
    loop {
        let event = events.next().await.unwrap_or_else(|| panic!("{id}: the watch ended"));
        assert_ne!(event["type"], "ERROR", "{id}: {event}");
        if wanted(&event) {
            return;
        }
    }
}

/// The status is written by its own subresource, and by nothing else.
async fn status(admin: &mut Peer, case: &Case<'_>) {
    let id = &case.id;
    if !case.row.has_status() {
        return;
    }
    let wanted = examples::status(id).unwrap_or_else(|| panic!("{id} has a status and no example of one"));
    let path = format!("{}/status", case.one(0));
    let before = admin.get(&case.one(0)).await.body;
    let busy = examples::BUSY.contains(&id.as_str());
    // Not by a write of the object …
    let ignored = merge(admin, &case.one(0), json!({"status": wanted})).await;
    assert_eq!(ignored.code, 200, "{id}: {}", ignored.body);
    if !busy {
        assert_eq!(ignored.body["status"], before["status"], "{id}: the status was written with the object");
    }
    // … but by its own, which keeps the rest.
    let patched = merge(admin, &path, json!({"metadata": {"annotations": {"patchedstatus": "true"}}, "status": wanted})).await;
    assert_eq!(patched.code, 200, "{id}: {}", patched.body);
    for (field, value) in wanted.as_object().expect("fields") {
        if value.is_array() {
            continue;
        }
        assert_eq!(&patched.body["status"][field], value, "{id}.status.{field}");
    }
    let alone = examples::STATUS_ALONE.contains(&id.as_str());
    let annotation = &patched.body["metadata"]["annotations"]["patchedstatus"];
    assert_eq!(annotation.as_str(), (!alone).then_some("true"), "{id}");
    let updated = update(admin, &path, |object| {
        for field in ["spec", "rules", "data"] {
            if object[field].is_object() {
                object[field]["nothing"] = Value::Null;
            }
        }
    })
    .await;
    if !busy {
        assert_eq!(updated["spec"], before["spec"], "{id}: the object was written with the status");
    }
    let got = admin.get(&path).await;
    assert_eq!((got.code, &got.body["kind"]), (200, &json!(case.row.kind)), "{id}");
}

/// Tables and dry runs, which need nothing to be there.
async fn shown(admin: &mut Peer, case: &Case<'_>) {
    let id = &case.id;
    let dry = admin.post(&format!("{}?dryRun=All", case.path), case.object(0)).await;
    assert_eq!(dry.code, 201, "{id}: {}", dry.body);
    assert_eq!(admin.get(&case.one(0)).await.code, 404, "{id}: a dry run stored something");
    let table = admin.accept(&case.path, "application/json;as=Table;g=meta.k8s.io;v=v1,application/json").await;
    assert_eq!((table.code, &table.body["kind"]), (200, &json!("Table")), "{id}");
    let columns = table.body["columnDefinitions"].as_array().expect("columns").len();
    for row in table.body["rows"].as_array().into_iter().flatten() {
        assert_eq!(row["cells"].as_array().expect("cells").len(), columns, "{id}");
    }
}
