//! One stored object in several forms, over real HTTP: events in two groups, autoscalers in two versions.

use crate::cluster::{Cluster, Peer};
use serde_json::{Value, json};

const OLDER: &str = "/api/v1/namespaces/default/events";
const NEWER: &str = "/apis/events.k8s.io/v1/namespaces/default/events";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forms() {
    let cluster = Cluster::start().await;
    let mut admin = cluster.admin().await;
    an_event_is_one_object_in_two_groups(&mut admin).await;
    the_newer_group_is_strict(&mut admin).await;
    an_autoscaler_is_one_object_in_two_versions(&mut admin).await;
    documents_name_both(&mut admin).await;
    assert_eq!(cluster.control.stop().await, Vec::<&str>::new());
}

fn event(name: &str) -> Value {
    json!({
        "metadata": {"name": name, "labels": {"testevent-constant": "true"}}, "regarding": {"kind": "Pod", "name": "p", "namespace": "default"},
        "eventTime": "2017-09-19T13:49:16.000000Z", "note": "This is a test event", "reason": "Test", "type": "Normal", "action": "Do",
        "reportingController": "test-controller", "reportingInstance": "test-node",
    })
}

fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().into_iter().flatten().filter_map(|item| item["metadata"]["name"].as_str()).collect()
}

async fn an_event_is_one_object_in_two_groups(admin: &mut Peer) {
    let mut watch = admin.watch(&format!("{NEWER}?watch=true&fieldSelector=regarding.name%3Dp")).await;
    let made = admin.post(NEWER, event("e")).await;
    assert_eq!(
        (made.code, &made.body["apiVersion"], &made.body["note"]),
        (201, &json!("events.k8s.io/v1"), &json!("This is a test event")),
        "{}",
        made.body
    );
    let seen = watch.next().await.expect("an event");
    assert_eq!((&seen["type"], &seen["object"]), (&json!("ADDED"), &made.body), "a watch shows what was answered");

    let older = admin.get(&format!("{OLDER}/e")).await.body;
    assert_eq!(
        (&older["apiVersion"], &older["message"], &older["involvedObject"]["name"]),
        (&json!("v1"), &json!("This is a test event"), &json!("p"))
    );
    assert_eq!((&older["reportingComponent"], &older["note"]), (&json!("test-controller"), &Value::Null));
    assert_eq!(older["metadata"], made.body["metadata"]);
    for (path, selector, found) in [
        (OLDER, "source=test-controller", true),
        (OLDER, "involvedObject.kind=Pod,reportingComponent=test-controller", true),
        (OLDER, "source=other", false),
        (NEWER, "reportingController=test-controller,regarding.kind=Pod", true),
        (NEWER, "regarding.kind=Node", false),
        ("/apis/events.k8s.io/v1/events", "metadata.name=e", true),
    ] {
        let list = admin.get(&format!("{path}?fieldSelector={}", selector.replace('=', "%3D").replace(',', "%2C"))).await;
        assert_eq!((list.code, names(&list.body)), (200, if found { vec!["e"] } else { vec![] }), "{path} {selector}");
    }
    let wrong = admin.get(&format!("{NEWER}?fieldSelector=involvedObject.name%3Dp")).await;
    assert_eq!((wrong.code, wrong.message()), (400, "field label not supported: involvedObject.name"));

    let series = json!({"series": {"count": 2, "lastObservedTime": "2017-09-19T13:49:11.000000Z"}}).to_string();
    let patched = admin.send("PATCH", &format!("{NEWER}/e"), "application/strategic-merge-patch+json", series).await;
    assert_eq!((patched.code, &patched.body["series"]["count"]), (200, &json!(2)), "{}", patched.body);
    assert_eq!(watch.next().await.expect("a change")["object"]["note"], "This is a test event");
    // What was written in one form is counted up in the other.
    let counted = admin.send("PATCH", &format!("{OLDER}/e"), "application/merge-patch+json", json!({"count": 7}).to_string()).await;
    assert_eq!((counted.code, &counted.body["count"]), (200, &json!(7)));
    assert_eq!(admin.get(&format!("{NEWER}/e")).await.body["deprecatedCount"], 7);
    let mut whole = admin.get(&format!("{NEWER}/e")).await.body;
    whole["series"]["count"] = 100.into();
    let put = admin.send("PUT", &format!("{NEWER}/e"), "application/json", whole.to_string()).await;
    assert_eq!((put.code, &put.body["series"]["count"], &put.body["deprecatedCount"]), (200, &json!(100), &json!(7)), "{}", put.body);

    let table = admin.accept(&format!("{NEWER}/e"), "application/json;as=Table;g=meta.k8s.io;v=v1").await.body;
    assert_eq!((&table["rows"][0]["cells"][3], &table["rows"][0]["cells"][6]), (&json!("pod/p"), &json!("This is a test event")), "{table}");
    let gone = admin.send("DELETE", &format!("{NEWER}?labelSelector=testevent-constant%3Dtrue"), "application/json", String::new()).await;
    assert_eq!(gone.code, 200);
    assert_eq!(admin.get(&format!("{OLDER}/e")).await.code, 404);
}

async fn the_newer_group_is_strict(admin: &mut Peer) {
    let mut loose = event("loose");
    loose.as_object_mut().expect("an object").remove("action");
    loose["deprecatedCount"] = 1.into();
    let refused = admin.post(NEWER, loose).await;
    assert_eq!((refused.code, refused.reason()), (422, "Invalid"));
    assert_eq!(
        refused.message(),
        "Event.events.k8s.io \"loose\" is invalid: [action: Required value, count: Invalid value: \"\": needs to be unset]"
    );
    let old = json!({"metadata": {"name": "loose"}, "involvedObject": {"namespace": "default"}, "count": 1});
    assert_eq!(admin.post(OLDER, old).await.code, 201, "the older group takes it");
    let dry = admin.post(&format!("{NEWER}?dryRun=All"), event("dry")).await;
    assert_eq!((dry.code, &dry.body["note"], &dry.body["message"]), (201, &json!("This is a test event"), &Value::Null), "{}", dry.body);
}

async fn an_autoscaler_is_one_object_in_two_versions(admin: &mut Peer) {
    const V1: &str = "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers";
    const V2: &str = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers";
    let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "none"});
    let plain = admin.post(V1, json!({"metadata": {"name": "a"}, "spec": {"scaleTargetRef": target, "maxReplicas": 3}})).await;
    assert_eq!((plain.code, &plain.body["spec"]["targetCPUUtilizationPercentage"]), (201, &json!(80)), "{}", plain.body);
    let newer = admin.get(&format!("{V2}/a")).await.body;
    assert_eq!(newer["spec"]["metrics"][0]["resource"]["target"], json!({"type": "Utilization", "averageUtilization": 80}));
    let behavior = json!({"spec": {"behavior": {"scaleDown": {"stabilizationWindowSeconds": 5}}}}).to_string();
    let patched = admin.send("PATCH", &format!("{V2}/a"), "application/merge-patch+json", behavior).await;
    assert_eq!((patched.code, &patched.body["spec"]["behavior"]["scaleUp"]["policies"][0]["value"]), (200, &json!(4)), "{}", patched.body);
    // A writer of the older version keeps what it does not know.
    let more = json!({"spec": {"maxReplicas": 9}}).to_string();
    let older = admin.send("PATCH", &format!("{V1}/a"), "application/merge-patch+json", more).await;
    assert_eq!((older.code, &older.body["spec"]["behavior"]), (200, &Value::Null), "{}", older.body);
    let newer = admin.get(&format!("{V2}/a")).await.body;
    assert_eq!((&newer["spec"]["maxReplicas"], &newer["spec"]["behavior"]["scaleDown"]["stabilizationWindowSeconds"]), (&json!(9), &json!(5)));
    let groups = admin.get("/apis/autoscaling").await.body;
    assert_eq!((&groups["preferredVersion"]["version"], groups["versions"].as_array().map(Vec::len)), (&json!("v2"), Some(2)));
    let table = admin.accept(&format!("{V1}/a"), "application/json;as=Table;g=meta.k8s.io;v=v1").await.body;
    assert_eq!(table["rows"][0]["cells"][2], "cpu: <unknown>/80%");
}

async fn documents_name_both(admin: &mut Peer) {
    for (path, kind) in [
        ("events.k8s.io/v1", "io.k8s.api.events.v1.Event"),
        ("autoscaling/v1", "io.k8s.api.autoscaling.v1.HorizontalPodAutoscaler"),
        ("autoscaling/v2", "io.k8s.api.autoscaling.v2.HorizontalPodAutoscaler"),
    ] {
        let document = admin.get(&format!("/openapi/v3/apis/{path}")).await.body;
        assert!(document["components"]["schemas"][kind].is_object(), "{kind}");
    }
    let hash = |list: &Value| list["resources"][0]["storageVersionHash"].clone();
    let (older, newer) = (admin.get("/apis/autoscaling/v1").await.body, admin.get("/apis/autoscaling/v2").await.body);
    assert_eq!(hash(&older), hash(&newer), "one version is stored");
}
