//! apimachinery/watch, chunking, table_conversion, discovery, aggregated_discovery and field_validation: what readers and strict writers see.

use super::{made, name, namespace, ok, patched, template};
use crate::cluster::{Cluster, Events, Peer};
use serde_json::{Value, json};

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

pub async fn all(cluster: &Cluster) {
    let mut admin = cluster.admin().await;
    watches_tell_what_they_select(&mut admin).await;
    watches_start_and_go_on_at_versions(&mut admin).await;
    what_is_selected_no_more_is_deleted(&mut admin).await;
    watches_agree_on_the_order(cluster, &mut admin).await;
    chunks_are_of_one_revision(&mut admin).await;
    preferred_versions_and_resources_exist(&mut admin).await;
    groups_hold_what_everybody_asks_for(&mut admin).await;
    aggregated_documents_hold_the_same(&mut admin).await;
    strict_writers_are_told_of_every_field(&mut admin).await;
}

fn map(name: &str, label: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"watch-this-configmap": label}}})
}

async fn told(events: &mut Events, kind: &str, name: &str) -> Value {
    let event = events.next().await.expect("an event");
    assert_eq!((event["type"].as_str(), event["object"]["metadata"]["name"].as_str()), (Some(kind), Some(name)), "{event}");
    event["object"].clone()
}

async fn mutate(admin: &mut Peer, path: &str, value: &str) -> Value {
    super::patched(admin, path, "merge", json!({"data": {"mutation": value}})).await
}

/// Additions, changes and deletions, for one label, for another, and for both.
async fn watches_tell_what_they_select(admin: &mut Peer) {
    namespace(admin, "watch-labels").await;
    let path = "/api/v1/namespaces/watch-labels/configmaps";
    let selecting = |labels: &str| format!("{path}?watch=true&labelSelector=watch-this-configmap%20in%20({labels})");
    let mut a = admin.watch(&selecting("A")).await;
    let mut b = admin.watch(&selecting("B")).await;
    let mut both = admin.watch(&selecting("A,B")).await;
    made(admin, path, map("a", "A")).await;
    mutate(admin, &format!("{path}/a"), "1").await;
    mutate(admin, &format!("{path}/a"), "2").await;
    ok(&admin.send("DELETE", &format!("{path}/a"), "application/json", String::new()).await);
    made(admin, path, map("b", "B")).await;
    ok(&admin.send("DELETE", &format!("{path}/b"), "application/json", String::new()).await);
    for events in [&mut a, &mut both] {
        told(events, "ADDED", "a").await;
        assert_eq!(told(events, "MODIFIED", "a").await["data"]["mutation"], "1");
        assert_eq!(told(events, "MODIFIED", "a").await["data"]["mutation"], "2");
        assert_eq!(told(events, "DELETED", "a").await["data"]["mutation"], "2");
    }
    for events in [&mut b, &mut both] {
        told(events, "ADDED", "b").await;
        told(events, "DELETED", "b").await;
    }
}

async fn watches_start_and_go_on_at_versions(admin: &mut Peer) {
    namespace(admin, "watch-versions").await;
    let path = "/api/v1/namespaces/watch-versions/configmaps";
    made(admin, path, map("m", "V")).await;
    let first = mutate(admin, &format!("{path}/m"), "1").await;
    mutate(admin, &format!("{path}/m"), "2").await;
    ok(&admin.send("DELETE", &format!("{path}/m"), "application/json", String::new()).await);
    let at = |object: &Value| format!("{path}?watch=true&resourceVersion={}", object["metadata"]["resourceVersion"].as_str().expect("a version"));
    let mut events = admin.watch(&at(&first)).await;
    let second = told(&mut events, "MODIFIED", "m").await;
    drop(events);
    let mut rest = admin.watch(&at(&second)).await;
    let gone = told(&mut rest, "DELETED", "m").await;
    assert_eq!(gone["data"]["mutation"], "2");
}

/// "should observe an object deletion if it stops meeting the requirements of the selector"
async fn what_is_selected_no_more_is_deleted(admin: &mut Peer) {
    namespace(admin, "watch-selector").await;
    let path = "/api/v1/namespaces/watch-selector/configmaps";
    let mut events = admin.watch(&format!("{path}?watch=true&labelSelector=watch-this-configmap%3Dlabel-changed-and-restored")).await;
    let one = format!("{path}/m");
    let label = async |admin: &mut Peer, label: &str| {
        super::patched(admin, &one, "merge", json!({"metadata": {"labels": {"watch-this-configmap": label}}})).await
    };
    made(admin, path, map("m", "label-changed-and-restored")).await;
    mutate(admin, &one, "1").await;
    let left = label(admin, "wrong-value").await;
    mutate(admin, &one, "2").await;
    label(admin, "label-changed-and-restored").await;
    mutate(admin, &one, "3").await;
    ok(&admin.send("DELETE", &one, "application/json", String::new()).await);
    assert!(told(&mut events, "ADDED", "m").await["data"].is_null());
    assert_eq!(told(&mut events, "MODIFIED", "m").await["data"]["mutation"], "1");
    let gone = told(&mut events, "DELETED", "m").await;
    assert_eq!(gone["metadata"]["labels"]["watch-this-configmap"], "label-changed-and-restored", "as it was when it was selected");
    assert_eq!((&gone["data"]["mutation"], &gone["metadata"]["resourceVersion"]), (&json!("1"), &left["metadata"]["resourceVersion"]));
    assert_eq!(told(&mut events, "ADDED", "m").await["data"]["mutation"], "2");
    assert_eq!(told(&mut events, "MODIFIED", "m").await["data"]["mutation"], "3");
    told(&mut events, "DELETED", "m").await;
}

async fn watches_agree_on_the_order(cluster: &Cluster, admin: &mut Peer) {
    namespace(admin, "watch-order").await;
    let path = "/api/v1/namespaces/watch-order/configmaps";
    let version = admin.get(path).await.body["metadata"]["resourceVersion"].as_str().expect("a version").to_owned();
    // Every watch starts where an event of the first one was.
    let mut first = admin.watch(&format!("{path}?watch=true&resourceVersion={version}")).await;
    let writing = async {
        let mut peer = cluster.admin().await;
        for at in 0..20 {
            let name = format!("cm-{at}");
            made(&mut peer, path, map(&name, "order")).await;
            mutate(&mut peer, &format!("{path}/{name}"), "x").await;
            if at % 3 == 0 {
                ok(&peer.send("DELETE", &format!("{path}/{name}"), "application/json", String::new()).await);
            }
        }
    };
    let reading = async {
        let mut versions = vec![version.clone()];
        while versions.len() < 48 {
            let event = first.next().await.expect("an event");
            versions.push(event["object"]["metadata"]["resourceVersion"].as_str().expect("a version").to_owned());
        }
        versions
    };
    let ((), versions) = tokio::join!(writing, reading);
    for (at, from) in versions.iter().enumerate().take(47).step_by(5) {
        let mut events = admin.watch(&format!("{path}?watch=true&resourceVersion={from}")).await;
        for expected in &versions[at + 1..] {
            assert_eq!(events.next().await.expect("an event")["object"]["metadata"]["resourceVersion"].as_str(), Some(expected.as_str()));
        }
    }
}

async fn chunks_are_of_one_revision(admin: &mut Peer) {
    namespace(admin, "chunks").await;
    let path = "/api/v1/namespaces/chunks/podtemplates";
    for at in 0..40 {
        let template = json!({"metadata": {"name": format!("template-{at:04}")}, "template": super::template(&json!({}))});
        made(admin, path, template).await;
    }
    let (mut found, mut token, mut version) = (0, String::new(), Value::Null);
    loop {
        let limit = 7;
        let page = admin.get(&format!("{path}?limit={limit}&continue={token}")).await;
        ok(&page);
        let (items, meta) = (page.body["items"].as_array().expect("items"), &page.body["metadata"]);
        for item in items {
            assert_eq!(super::name(item), format!("template-{found:04}"));
            found += 1;
        }
        version = if version.is_null() { meta["resourceVersion"].clone() } else { version };
        assert_eq!(meta["resourceVersion"], version);
        let Some(next) = meta["continue"].as_str() else {
            assert!(meta["remainingItemCount"].is_null());
            break;
        };
        assert_eq!(meta["remainingItemCount"].as_i64(), Some(40 - found));
        token = next.to_owned();
    }
    assert_eq!(found, 40);
    let all = admin.get(&format!("{path}?limit=500")).await;
    assert_eq!(all.body["items"].as_array().map(Vec::len), Some(40));
}

async fn preferred_versions_and_resources_exist(admin: &mut Peer) {
    let groups = admin.get("/apis").await.body;
    assert_eq!(groups["kind"], "APIGroupList");
    for group in groups["groups"].as_array().expect("groups") {
        let named = group["name"].as_str().expect("a name");
        let own = admin.get(&format!("/apis/{named}/")).await;
        assert_eq!((own.code, &own.body["name"]), (200, &group["name"]), "a slash at the end is nothing");
        assert!(group["versions"].as_array().expect("versions").contains(&group["preferredVersion"]), "{group}");
        for version in group["versions"].as_array().into_iter().flatten() {
            let version = version["groupVersion"].as_str().expect("a version");
            let list = admin.get(&format!("/apis/{version}")).await;
            assert_eq!((list.code, &list.body["groupVersion"]), (200, &json!(version)));
            assert!(!list.body["resources"].as_array().expect("resources").is_empty());
        }
    }
    let missing = admin.get("/apis/apps/v0").await;
    assert_eq!(missing.code, 404);
    let version = admin.get("/version").await.body;
    assert_eq!((&version["major"], &version["minor"]), (&json!("1"), &json!("36")));
    let review = json!({"spec": {"nonResourceAttributes": {"path": "/", "verb": "get"}}}).to_string();
    let review = admin
        .ask(
            "POST",
            "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
            "application/json",
            "application/json;as=Table;v=v1;g=meta.k8s.io",
            review,
        )
        .await;
    assert_eq!(review.code, 406);
}

/// "should locate the groupVersion and a resource within each APIGroup"
async fn groups_hold_what_everybody_asks_for(admin: &mut Peer) {
    for (group, version, resource) in [
        ("", "v1", "namespaces"),
        ("admissionregistration.k8s.io", "v1", "validatingwebhookconfigurations"),
        ("apiextensions.k8s.io", "v1", "customresourcedefinitions"),
        ("apiregistration.k8s.io", "v1", "apiservices"),
        ("apps", "v1", "deployments"),
        ("authentication.k8s.io", "v1", "tokenreviews"),
        ("authorization.k8s.io", "v1", "selfsubjectaccessreviews"),
        ("autoscaling", "v1", "horizontalpodautoscalers"),
        ("autoscaling", "v2", "horizontalpodautoscalers"),
        ("batch", "v1", "jobs"),
        ("certificates.k8s.io", "v1", "certificatesigningrequests"),
        ("coordination.k8s.io", "v1", "leases"),
        ("discovery.k8s.io", "v1", "endpointslices"),
        ("events.k8s.io", "v1", "events"),
        ("flowcontrol.apiserver.k8s.io", "v1", "flowschemas"),
        ("networking.k8s.io", "v1", "ingresses"),
        ("node.k8s.io", "v1", "runtimeclasses"),
        ("policy", "v1", "poddisruptionbudgets"),
        ("rbac.authorization.k8s.io", "v1", "clusterroles"),
        ("resource.k8s.io", "v1", "deviceclasses"),
        ("scheduling.k8s.io", "v1", "priorityclasses"),
        ("storage.k8s.io", "v1", "csinodes"),
    ] {
        let path = if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") };
        let list = admin.get(&path).await.body;
        let there = list["resources"].as_array().is_some_and(|all| all.iter().any(|one| one["name"] == resource));
        assert!(
            there && format!("/apis/{}", list["groupVersion"].as_str().unwrap_or_default()).ends_with(path.trim_start_matches("/api")),
            "{path}: {list}"
        );
    }
}

async fn aggregated_documents_hold_the_same(admin: &mut Peer) {
    for (root, least) in [("/api", "namespaces"), ("/apis", "deployments")] {
        let document = admin.accept(root, AGGREGATED).await;
        assert_eq!(
            (document.code, &document.body["kind"], &document.body["apiVersion"]),
            (200, &json!("APIGroupDiscoveryList"), &json!("apidiscovery.k8s.io/v2"))
        );
        assert_eq!(document.header("content-type"), AGGREGATED);
        let mut found = false;
        for group in document.body["items"].as_array().expect("groups") {
            for version in group["versions"].as_array().expect("versions") {
                assert_eq!(version["freshness"], "Current", "{group}");
                let path = match group["metadata"]["name"].as_str() {
                    Some(name) if !name.is_empty() => format!("/apis/{name}/{}", version["version"].as_str().expect("a version")),
                    _ => format!("/api/{}", version["version"].as_str().expect("a version")),
                };
                let plain = admin.get(&path).await.body;
                let mut plain: Vec<&str> =
                    plain["resources"].as_array().into_iter().flatten().filter_map(|resource| resource["name"].as_str()).collect();
                let mut names = Vec::new();
                for resource in version["resources"].as_array().expect("resources") {
                    let name = resource["resource"].as_str().expect("a name");
                    found |= name == least;
                    names.push(name.to_owned());
                    for sub in resource["subresources"].as_array().into_iter().flatten() {
                        names.push(format!("{name}/{}", sub["subresource"].as_str().expect("a name")));
                    }
                }
                plain.sort_unstable();
                names.sort_unstable();
                assert_eq!(names, plain, "{path}");
            }
        }
        assert!(found, "{least} in {root}");
    }
}

async fn strict_writers_are_told_of_every_field(admin: &mut Peer) {
    namespace(admin, "strict").await;
    let path = "/apis/apps/v1/namespaces/strict/deployments?fieldValidation=Strict&fieldManager=field_validation_mgr";
    let rest =
        r#""selector":{"matchLabels":{"app":"n"}},"template":{"metadata":{"labels":{"app":"n"}},"spec":{"containers":[{"name":"n","image":"n"}]}}"#;
    for (metadata, spec, why) in [
        (
            "",
            r#""unknownField":"foo","replicas":2,"replicas":3,"#,
            r#"strict decoding error: unknown field "spec.unknownField", duplicate field "spec.replicas""#,
        ),
        (r#""unknownMeta":"foo","#, "", r#"strict decoding error: unknown field "metadata.unknownMeta""#),
    ] {
        let body = format!(
            r#"{{"apiVersion":"apps/v1","kind":"Deployment","metadata":{{{metadata}"name":"my-dep","labels":{{"app":"n"}}}},"spec":{{{spec}{rest}}}}}"#
        );
        let refused = admin.send("POST", path, "application/json", body).await;
        assert_eq!(refused.code, 400);
        assert!(refused.message().contains(why), "{}", refused.message());
    }
}

/// "should support continue listing from the last key if the original version has been compacted away, though the list is inconsistent"
pub async fn chunks_go_on() {
    const COUNT: usize = 40;
    const MOST: usize = 60;
    const TEMPLATES: &str = "/api/v1/namespaces/compacted/podtemplates";
    let cluster = Cluster::start().await;
    let mut admin = cluster.admin().await;
    namespace(&mut admin, "compacted").await;
    for nth in 0..COUNT {
        let template = json!({"metadata": {"name": format!("template-{nth:04}")}, "template": template(&json!({}))});
        made(&mut admin, TEMPLATES, template).await;
    }
    let first = admin.get(&format!("{TEMPLATES}?limit=4")).await.body;
    let (token, revision) = (first["metadata"]["continue"].as_str().expect("a token").to_owned(), first["metadata"]["resourceVersion"].clone());
    assert_eq!((first["items"].as_array().map(Vec::len), &first["metadata"]["remainingItemCount"]), (Some(4), &json!(COUNT - 4)));
    // One that comes before the first page is not seen any more, one that comes after it is.
    for name in ["a-template", "z-template"] {
        made(&mut admin, TEMPLATES, json!({"metadata": {"name": name}, "template": template(&json!({}))})).await;
    }
    made(&mut admin, "/api/v1/namespaces/compacted/configmaps", json!({"metadata": {"name": "large"}})).await;
    // Changes push the revision of the first page out of what is kept: some megabytes.
    let mut expired = admin.get(&format!("{TEMPLATES}?limit=4&continue={token}")).await;
    for nth in 0..MOST {
        if expired.code != 200 {
            break;
        }
        let text = nth.to_string().repeat(400 << 10);
        patched(&mut admin, "/api/v1/namespaces/compacted/configmaps/large", "merge", json!({"data": {"large": text}})).await;
        expired = admin.get(&format!("{TEMPLATES}?limit=4&continue={token}")).await;
    }
    assert_eq!((expired.code, expired.reason()), (410, "Expired"), "{}", expired.body);
    let mut token = expired.body["metadata"]["continue"].as_str().unwrap_or_else(|| panic!("a token: {}", expired.body)).to_owned();
    let (mut found, mut last) = (4, None);
    loop {
        let page = admin.get(&format!("{TEMPLATES}?limit=4&continue={token}")).await;
        ok(&page);
        let metadata = &page.body["metadata"];
        assert_ne!(metadata["resourceVersion"], revision);
        assert_eq!(
            *last.get_or_insert_with(|| metadata["resourceVersion"].clone()),
            metadata["resourceVersion"],
            "the pages that follow are of one revision"
        );
        for item in page.body["items"].as_array().expect("items") {
            assert_eq!(name(item), if found == COUNT { "z-template".into() } else { format!("template-{found:04}") });
            found += 1;
        }
        match metadata["continue"].as_str().filter(|next| !next.is_empty()) {
            Some(next) => {
                assert_eq!(metadata["remainingItemCount"], COUNT + 1 - found);
                token = next.to_owned();
            }
            None => break,
        }
    }
    assert_eq!(found, COUNT + 1);
}
