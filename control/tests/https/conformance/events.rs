//! instrumentation/core_events and instrumentation/events, as far as `forms` does not tell.

use super::{items, made, name, namespace, ok, patched, put};
use crate::cluster::{Cluster, Peer};
use serde_json::{Value, json};

const CORE: &str = "/api/v1/namespaces/told/events";
const NEWER: &str = "/apis/events.k8s.io/v1/namespaces/told/events";

pub async fn all(cluster: &Cluster) {
    let mut admin = cluster.admin().await;
    namespace(&mut admin, "told").await;
    core_events_have_a_life(&mut admin).await;
    newer_events_are_written_whole(&mut admin).await;
    collections_go(&mut admin).await;
}

/// As clients compare: without what the server sets.
fn plain(mut event: Value) -> Value {
    for field in ["resourceVersion", "managedFields"] {
        event["metadata"].as_object_mut().expect("metadata").remove(field);
    }
    event
}

fn core(name: &str, label: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {label: "true"}}, "message": "This is a test event", "reason": "Test", "type": "Normal", "count": 1,
        "involvedObject": {"namespace": "told"}})
}

fn newer(name: &str, label: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {label: "true"}}, "regarding": {"namespace": "told"}, "eventTime": "2017-09-19T13:49:16.000000Z",
        "note": format!("This is {name}"), "action": "Do", "reason": "Test", "type": "Normal",
        "reportingController": "test-controller", "reportingInstance": "test-node"})
}

async fn core_events_have_a_life(admin: &mut Peer) {
    const ALL: &str = "/api/v1/events?labelSelector=testevent-constant%3Dtrue";
    made(admin, CORE, core("event-test", "testevent-constant")).await;
    let found = items(admin, ALL).await;
    assert_eq!((found.len(), name(&found[0])), (1, "event-test"));
    let one = format!("{CORE}/event-test");
    patched(admin, &one, "strategic-merge", json!({"message": "This is a test event - patched"})).await;
    let mut event = plain(admin.get(&one).await.body);
    assert_eq!(event["message"], "This is a test event - patched");
    // Written back without a revision, it is what was sent.
    event["series"] = json!({"count": 100, "lastObservedTime": "2017-09-19T13:49:16.000000Z"});
    put(admin, &one, &event).await;
    assert_eq!(plain(admin.get(&one).await.body), event);
    ok(&admin.send("DELETE", &one, "", String::new()).await);
    assert_eq!(items(admin, ALL).await.len(), 0);
}

async fn newer_events_are_written_whole(admin: &mut Peer) {
    made(admin, NEWER, newer("event-test", "testevent-constant")).await;
    let one = format!("{NEWER}/event-test");
    let mut event = plain(admin.get(&one).await.body);
    event["series"] = json!({"count": 2, "lastObservedTime": "2017-09-19T13:49:11.000000Z"});
    patched(admin, &one, "strategic-merge", json!({"series": event["series"]})).await;
    assert_eq!(plain(admin.get(&one).await.body), event);
    event["series"] = json!({"count": 100, "lastObservedTime": "2017-09-19T13:49:16.000000Z"});
    put(admin, &one, &event).await;
    assert_eq!(plain(admin.get(&one).await.body), event);
    ok(&admin.send("DELETE", &one, "", String::new()).await);
    for path in ["/apis/events.k8s.io/v1/events", NEWER] {
        assert_eq!(items(admin, &format!("{path}?labelSelector=testevent-constant%3Dtrue")).await.len(), 0);
    }
}

async fn collections_go(admin: &mut Peer) {
    for path in [CORE, NEWER] {
        for name in ["test-event-1", "test-event-2", "test-event-3"] {
            let event = if path == CORE { core(name, "testevent-set") } else { newer(name, "testevent-set") };
            made(admin, path, event).await;
        }
        let set = format!("{path}?labelSelector=testevent-set%3Dtrue");
        assert_eq!(items(admin, &set).await.len(), 3);
        ok(&admin.send("DELETE", &set, "", String::new()).await);
        assert_eq!(items(admin, &set).await.len(), 0);
    }
}
