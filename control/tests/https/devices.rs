//! Devices that pods ask for: claims are made from templates, given devices by the scheduler, and give them back.

use crate::cluster::{Cluster, Peer};
use serde_json::{Value, json};

const GROUP: &str = "/apis/resource.k8s.io/v1";
const CLAIMS: &str = "/apis/resource.k8s.io/v1/namespaces/default/resourceclaims";
/// To tell what was waited for in vain.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);
const PODS: &str = "/api/v1/namespaces/default/pods";

async fn made(admin: &mut Peer, path: &str, object: Value) -> Value {
    let answer = admin.post(path, object).await;
    assert_eq!(answer.code, 201, "{}", answer.body);
    answer.body
}

async fn merge(admin: &mut Peer, path: &str, patch: Value) -> Value {
    let answer = admin.send("PATCH", path, "application/merge-patch+json", patch.to_string()).await;
    assert_eq!(answer.code, 200, "{}", answer.body);
    answer.body
}

/// Waits for an object of a collection.
async fn until(admin: &mut Peer, path: &str, name: &str, is: impl Fn(&Value) -> bool) -> Value {
    let mut events = admin.watch(&format!("{path}?watch=true&fieldSelector=metadata.name%3D{name}")).await;
    let mut last = Value::Null;
    loop {
        let next = tokio::time::timeout(PATIENCE, events.next()).await;
        let event = next.unwrap_or_else(|_| panic!("{name} stays as it is: {last}")).expect("an event");
        if event["type"] != "BOOKMARK" && is(&event["object"]) {
            return event["object"].clone();
        }
        last = event["object"].clone();
    }
}

/// A node, and what its driver says of its devices.
async fn node(admin: &mut Peer, name: &str, devices: Value) {
    made(admin, "/api/v1/nodes", json!({"metadata": {"name": name}})).await;
    let room = json!({"cpu": "4", "memory": "8Gi", "pods": "110"});
    merge(admin, &format!("/api/v1/nodes/{name}/status"), json!({"status": {"allocatable": room, "capacity": room}})).await;
    let pool = json!({"name": name, "generation": 1, "resourceSliceCount": 1});
    let spec = json!({"driver": "gpu.example.com", "pool": pool, "nodeName": name, "devices": devices});
    made(admin, &format!("{GROUP}/resourceslices"), json!({"metadata": {"name": format!("{name}-gpus")}, "spec": spec})).await;
}

fn device(name: &str, model: &str, memory: &str) -> Value {
    json!({"name": name, "attributes": {"model": {"string": model}}, "capacity": {"memory": {"value": memory}}})
}

fn pod(name: &str, claim: Value) -> Value {
    let resources = json!({"claims": [{"name": "gpu"}]});
    json!({"metadata": {"name": name}, "spec": {"tolerations": [{"operator": "Exists"}], "resourceClaims": [claim],
        "containers": [{"name": "c", "image": "i", "resources": resources}]}})
}

fn from_template(name: &str) -> Value {
    pod(name, json!({"name": "gpu", "resourceClaimTemplateName": "one-gpu"}))
}

fn message(pod: &Value) -> &str {
    pod["status"]["conditions"][0]["message"].as_str().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_are_given_devices() {
    let cluster = Cluster::start().await;
    let mut admin = cluster.admin().await;
    admin.watch("/api/v1/namespaces/default/serviceaccounts?watch=true&fieldSelector=metadata.name=default").await.next().await.expect("an account");
    node(&mut admin, "small", json!([device("g0", "a100", "40Gi")])).await;
    node(&mut admin, "large", json!([device("g0", "h100", "80Gi"), device("g1", "a100", "40Gi")])).await;
    mistakes(&mut admin).await;
    templates(&mut admin).await;
    shared(&mut admin).await;
    assert_eq!(cluster.control.stop().await, Vec::<&str>::new());
}

async fn mistakes(admin: &mut Peer) {
    let both = pod("both", json!({"name": "gpu", "resourceClaimName": "a", "resourceClaimTemplateName": "b"}));
    let answer = admin.post(PODS, both).await;
    assert!(answer.code == 422 && answer.message().contains("at most one of `resourceClaimName` or `resourceClaimTemplateName`"), "{}", answer.body);
    let mut other = from_template("other");
    other["spec"]["containers"][0]["resources"]["claims"][0]["name"] = json!("another");
    assert!(admin.post(PODS, other).await.message().contains("spec.containers[0].resources.claims[0].name: Not found"));
    let class = json!({"metadata": {"name": "bad"}, "spec": {"selectors": [{"cel": {"expression": "device."}}]}});
    let answer = admin.post(&format!("{GROUP}/deviceclasses"), class).await;
    assert!(answer.message().contains("spec.selectors[0].cel.expression: Invalid value: \"device.\": compilation failed"), "{}", answer.body);
}

async fn templates(admin: &mut Peer) {
    let selector = "device.driver == 'gpu.example.com' && device.capacity['gpu.example.com'].memory.compareTo(quantity('80Gi')) >= 0";
    let big = json!({"metadata": {"name": "big"}, "spec": {"selectors": [{"cel": {"expression": selector}}]}});
    let request = json!({"name": "gpu", "exactly": {"deviceClassName": "big"}});
    let template =
        json!({"metadata": {"name": "one-gpu"}, "spec": {"metadata": {"labels": {"made": "here"}}, "spec": {"devices": {"requests": [request]}}}});
    // The pod is first: its template is not there, and then the class is not.
    made(admin, PODS, from_template("first")).await;
    let why = "0/2 nodes are available: pod \"default/first\": ResourceClaim not created yet.";
    until(admin, PODS, "first", |pod| message(pod).starts_with(why)).await;
    made(admin, &format!("{GROUP}/namespaces/default/resourceclaimtemplates"), template).await;
    until(admin, PODS, "first", |pod| message(pod).starts_with("0/2 nodes are available: request gpu: device class big does not exist.")).await;
    made(admin, &format!("{GROUP}/deviceclasses"), big).await;
    let first = until(admin, PODS, "first", |pod| pod["spec"]["nodeName"].is_string()).await;
    assert_eq!(first["spec"]["nodeName"], "large", "only there is a big one");
    let name = first["status"]["resourceClaimStatuses"][0]["resourceClaimName"].as_str().expect("a claim").to_owned();
    assert!(name.starts_with("first-gpu-"), "{name}");
    let claim = admin.get(&format!("{CLAIMS}/{name}")).await.body;
    let status = &claim["status"];
    assert_eq!(status["allocation"]["devices"]["results"], json!([{"request": "gpu", "driver": "gpu.example.com", "pool": "large", "device": "g0"}]));
    assert_eq!(status["allocation"]["nodeSelector"]["nodeSelectorTerms"][0]["matchFields"][0]["values"], json!(["large"]));
    assert_eq!(status["reservedFor"], json!([{"resource": "pods", "name": "first", "uid": first["metadata"]["uid"]}]));
    assert_eq!(
        (&claim["metadata"]["finalizers"], &claim["metadata"]["labels"]["made"]),
        (&json!(["resource.kubernetes.io/delete-protection"]), &json!("here"))
    );
    assert_eq!(claim["metadata"]["ownerReferences"][0]["name"], "first");

    // The second has to wait until the first is done.
    made(admin, PODS, from_template("second")).await;
    until(admin, PODS, "second", |pod| message(pod).starts_with("0/2 nodes are available: 2 cannot allocate all claims.")).await;
    merge(admin, &format!("{PODS}/first/status"), json!({"status": {"phase": "Succeeded"}})).await;
    let second = until(admin, PODS, "second", |pod| pod["spec"]["nodeName"].is_string()).await;
    assert_eq!(second["spec"]["nodeName"], "large");
    let gone = admin.send("DELETE", &format!("{PODS}/second?gracePeriodSeconds=0"), "", String::new()).await;
    assert_eq!(gone.code, 200);
    let claims = admin.watch(&format!("{CLAIMS}?watch=true&labelSelector=made%3Dhere")).await;
    nothing_is_left(admin, claims).await;
}

/// The claims that were made for pods go with their pods.
async fn nothing_is_left(admin: &mut Peer, mut events: crate::cluster::Events) {
    while admin.get(&format!("{CLAIMS}?labelSelector=made%3Dhere")).await.body["items"].as_array().is_none_or(|items| !items.is_empty()) {
        events.next().await.expect("an event");
    }
}

async fn shared(admin: &mut Peer) {
    made(admin, &format!("{GROUP}/deviceclasses"), json!({"metadata": {"name": "any"}, "spec": {}})).await;
    let a100 = json!([{"cel": {"expression": "device.attributes['gpu.example.com'].model == 'a100'"}}]);
    let option =
        |name: &str, count: u8| json!({"name": name, "deviceClassName": "any", "allocationMode": "ExactCount", "count": count, "selectors": a100});
    let requests = json!([{"name": "gpu", "firstAvailable": [option("two", 2), option("one", 1)]}]);
    made(admin, CLAIMS, json!({"metadata": {"name": "ours"}, "spec": {"devices": {"requests": requests}}})).await;
    let ours = |name: &str| pod(name, json!({"name": "gpu", "resourceClaimName": "ours"}));
    made(admin, PODS, ours("one")).await;
    let one = until(admin, PODS, "one", |pod| pod["spec"]["nodeName"].is_string()).await;
    let claim = admin.get(&format!("{CLAIMS}/ours")).await.body;
    let results = claim["status"]["allocation"]["devices"]["results"].clone();
    assert_eq!((results.as_array().map(Vec::len), &results[0]["request"]), (Some(1), &json!("gpu/one")), "no node has two: {claim}");
    // Whoever shares the claim goes to the same node, and the devices stay with who is left.
    made(admin, PODS, ours("two")).await;
    let two = until(admin, PODS, "two", |pod| pod["spec"]["nodeName"].is_string()).await;
    assert_eq!(one["spec"]["nodeName"], two["spec"]["nodeName"]);
    merge(admin, &format!("{PODS}/one/status"), json!({"status": {"phase": "Failed"}})).await;
    let left = until(admin, CLAIMS, "ours", |claim| claim["status"]["reservedFor"].as_array().map(Vec::len) == Some(1)).await;
    assert_eq!((&left["status"]["reservedFor"][0]["name"], &left["status"]["allocation"]["devices"]["results"]), (&json!("two"), &results));
    merge(admin, &format!("{PODS}/two/status"), json!({"status": {"phase": "Succeeded"}})).await;
    let free = until(admin, CLAIMS, "ours", |claim| claim["status"]["allocation"].is_null() && claim["metadata"]["finalizers"].is_null()).await;
    assert!(free["status"]["reservedFor"].is_null(), "{free}");
}
