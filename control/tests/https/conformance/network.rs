//! network/service, endpoints, endpointslice, service_cidrs and apiserver: what the API has of services whose traffic nobody sends here.

use super::{gone, items, made, name, namespace, ok, patched, put, reached, settled};
use crate::cluster::{Cluster, Peer};
use serde_json::{Value, json};
use std::collections::BTreeSet;

pub async fn all(cluster: &Cluster) {
    let mut admin = cluster.admin().await;
    the_server_is_a_service(&mut admin).await;
    types_change(&mut admin).await;
    a_service_has_a_status(&mut admin).await;
    services_are_deleted_by_label(&mut admin).await;
    proxies_take_every_method(&mut admin).await;
    a_service_of_no_pods_has_empty_endpoints(&mut admin).await;
    endpoints_follow_pods(&mut admin).await;
    addresses_are_objects(&mut admin).await;
    what_nobody_acts_on_is_said(&mut admin).await;
}

fn services(place: &str) -> String {
    format!("/api/v1/namespaces/{place}/services")
}

fn slices(place: &str, service: &str) -> String {
    format!("/apis/discovery.k8s.io/v1/namespaces/{place}/endpointslices?labelSelector=kubernetes.io/service-name%3D{service}")
}

async fn the_server_is_a_service(admin: &mut Peer) {
    let all = items(admin, "/api/v1/services").await;
    assert!(all.iter().any(|service| name(service) == "kubernetes" && service["metadata"]["namespace"] == "default"));
    let endpoints = admin.get("/api/v1/namespaces/default/endpoints/kubernetes").await.body;
    let old: BTreeSet<_> = endpoints["subsets"][0]["addresses"].as_array().expect("addresses").iter().map(|one| one["ip"].to_string()).collect();
    let slices = items(admin, &slices("default", "kubernetes")).await;
    let new: BTreeSet<_> = slices
        .iter()
        .flat_map(|slice| slice["endpoints"].as_array().cloned().unwrap_or_default())
        .map(|one| one["addresses"][0].to_string())
        .collect();
    assert_eq!(old, new);
    assert_eq!(endpoints["subsets"][0]["ports"][0]["port"], slices[0]["ports"][0]["port"]);
}

async fn types_change(admin: &mut Peer) {
    namespace(admin, "svc-types").await;
    let path = services("svc-types");
    let port = json!([{"port": 80, "name": "http", "protocol": "TCP", "targetPort": 9376}]);
    for kind in ["ClusterIP", "NodePort"] {
        let key = format!("from-name-{}", kind.to_lowercase());
        let mut service =
            made(admin, &path, json!({"metadata": {"name": key}, "spec": {"type": "ExternalName", "externalName": "foo.example.com"}})).await;
        assert_eq!(service["spec"]["clusterIP"], Value::Null);
        service["spec"] = json!({"type": kind, "ports": port});
        let service = put(admin, &format!("{path}/{key}"), &service).await;
        assert!(service["spec"]["clusterIP"].as_str().is_some_and(|ip| ip.starts_with("10.96.")), "{service}");
        assert_eq!(service["spec"]["ports"][0]["nodePort"].is_u64(), kind == "NodePort");
        // And back: a changed type gives up what it does not have.
        let key = format!("to-name-{}", kind.to_lowercase());
        let mut service = made(admin, &path, json!({"metadata": {"name": key}, "spec": {"type": kind, "ports": [{"port": 80}]}})).await;
        let (ip, node_port) = (service["spec"]["clusterIP"].clone(), service["spec"]["ports"][0]["nodePort"].clone());
        service["spec"]["type"] = "ExternalName".into();
        service["spec"]["externalName"] = "foo.example.com".into();
        let service = put(admin, &format!("{path}/{key}"), &service).await;
        assert_eq!((&service["spec"]["clusterIP"], &service["spec"]["ports"][0]["nodePort"]), (&Value::Null, &Value::Null), "{service}");
        let mut again = json!({"metadata": {"name": format!("{key}-again")}, "spec": {"type": kind, "clusterIP": ip, "ports": [{"port": 80}]}});
        if node_port.is_u64() {
            again["spec"]["ports"][0]["nodePort"] = node_port;
        }
        made(admin, &path, again).await;
    }
}

async fn a_service_has_a_status(admin: &mut Peer) {
    namespace(admin, "svc-status").await;
    let path = services("svc-status");
    let mut events = admin.watch(&format!("{path}?watch=true&labelSelector=test-service-static%3Dtrue")).await;
    let spec =
        json!({"type": "LoadBalancer", "loadBalancerClass": "example.com/internal-vip", "ports": [{"name": "http", "port": 80, "targetPort": 80}]});
    made(admin, &path, json!({"metadata": {"name": "s", "labels": {"test-service-static": "true"}}, "spec": spec})).await;
    assert_eq!(events.next().await.expect("an event")["type"], "ADDED");
    let status = format!("{path}/s/status");
    assert_eq!(admin.get(&status).await.body["status"], json!({"loadBalancer": {}}));
    let patch = json!({"metadata": {"annotations": {"patchedstatus": "true"}}, "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.1"}]}}});
    let mut answer = patched(admin, &status, "merge", patch).await;
    assert_eq!(answer["metadata"]["annotations"]["patchedstatus"], "true");
    assert_eq!(answer["status"]["loadBalancer"]["ingress"][0], json!({"ip": "203.0.113.1", "ipMode": "VIP"}));
    answer["status"]["conditions"] = json!([{"type": "StatusUpdate", "status": "True", "reason": "E2E", "message": "Set from e2e test", "lastTransitionTime": "2026-01-01T00:00:00Z"}]);
    put(admin, &status, &answer).await;
    super::told_of(&mut events, "StatusUpdate").await;
    let answer = patched(
        admin,
        &format!("{path}/s"),
        "strategic-merge",
        json!({"metadata": {"labels": {"test-service": "patched"}}, "status": {"loadBalancer": {}}}),
    )
    .await;
    assert_eq!(answer["status"]["loadBalancer"]["ingress"][0]["ip"], "203.0.113.1");
    ok(&admin.send("DELETE", &format!("{path}/s"), "application/json", String::new()).await);
    gone(&mut events, "s").await;
}

async fn services_are_deleted_by_label(admin: &mut Peer) {
    namespace(admin, "svc-many").await;
    for (key, label) in [("a", "delete"), ("b", "delete"), ("c", "keep")] {
        let service = json!({"metadata": {"name": key, "labels": {"e2e-test-service": label}}, "spec": {"type": "ClusterIP", "ports": [{"name": "http", "port": 8001}]}});
        made(admin, &services("svc-many"), service).await;
    }
    let all = format!("{}?labelSelector=e2e-test-service%3Ddelete", services("svc-many"));
    ok(&admin.send("DELETE", &all, "application/json", String::new()).await);
    let left = items(admin, &services("svc-many")).await;
    assert_eq!(left.iter().map(name).collect::<Vec<_>>(), ["c"]);
}

/// network/proxy, but for what a pod answers.
async fn proxies_take_every_method(admin: &mut Peer) {
    namespace(admin, "svc-proxy").await;
    made(admin, &services("svc-proxy"), json!({"metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}]}})).await;
    let path = format!("{}/web/proxy", services("svc-proxy"));
    for method in ["GET", "HEAD"] {
        let moved = admin.send(method, &format!("{path}?a=b"), "", String::new()).await;
        assert_eq!((moved.code, moved.header("location")), (301, &*format!("{path}/?a=b")), "{method}");
    }
    for method in ["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"] {
        // It got as far as looking for a pod.
        assert_eq!(admin.send(method, &format!("{path}/x"), "", String::new()).await.code, 503, "{method}");
    }
}

async fn a_service_of_no_pods_has_empty_endpoints(admin: &mut Peer) {
    const PLACE: &str = "svc-empty";
    namespace(admin, PLACE).await;
    let spec = json!({"selector": {"does-not-match": "anything"}, "ports": [{"name": "example", "port": 80}]});
    made(admin, &services(PLACE), json!({"metadata": {"name": "empty"}, "spec": spec})).await;
    let slice = settled(admin, &slices(PLACE, "empty"), "there is a slice", |list| list.len() == 1).await.remove(0);
    assert_eq!(slice["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"], "endpointslice-controller.k8s.io");
    assert!(slice["endpoints"].as_array().is_none_or(Vec::is_empty), "{slice}");
    let endpoints = format!("/api/v1/namespaces/{PLACE}/endpoints");
    settled(admin, &endpoints, "there are endpoints", |list| list.iter().any(|one| name(one) == "empty")).await;
    ok(&admin.send("DELETE", &format!("{}/empty", services(PLACE)), "application/json", String::new()).await);
    settled(admin, &slices(PLACE, "empty"), "the slice goes", |list| list.is_empty()).await;
    settled(admin, &endpoints, "the endpoints go", |list| list.is_empty()).await;
}

async fn endpoints_follow_pods(admin: &mut Peer) {
    const PLACE: &str = "svc-pods";
    namespace(admin, PLACE).await;
    let pods = format!("/api/v1/namespaces/{PLACE}/pods");
    for (key, ports) in [
        ("pod1", json!([{"name": "example-name", "containerPort": 3000}])),
        ("pod2", json!([{"name": "example-name", "containerPort": 3001}, {"name": "other-port", "containerPort": 3002}])),
    ] {
        let pod = json!({"metadata": {"name": key, "labels": {key: "on", "shared12": "on"}}, "spec": {"containers": [{"name": "c", "image": "run", "ports": ports}]}});
        made(admin, &pods, pod).await;
    }
    let service = |key: &str, label: &str, port: &str, target: Value| json!({"metadata": {"name": key}, "spec": {"selector": {label: "on"}, "publishNotReadyAddresses": true, "ports": [{"name": port, "port": 80, "targetPort": target}]}});
    made(admin, &services(PLACE), service("one", "pod1", "example", json!(3000))).await;
    made(admin, &services(PLACE), service("both", "shared12", "http", json!("example-name"))).await;
    let there =
        settled(admin, &pods, "both have addresses", |list| list.len() == 2 && list.iter().all(|pod| pod["status"]["podIP"].is_string())).await;
    let ip = |key: &str| there.iter().find(|pod| name(pod) == key).expect("the pod")["status"]["podIP"].clone();
    let (first, second) = (ip("pod1"), ip("pod2"));

    let is_one = |list: &[Value]| list.len() == 1 && list[0]["endpoints"][0]["addresses"] == json!([first]) && list[0]["ports"][0]["port"] == 3000;
    let slice = settled(admin, &slices(PLACE, "one"), "one pod", is_one).await.remove(0);
    let target = &slice["endpoints"][0]["targetRef"];
    assert_eq!((&target["kind"], &target["name"], &slice["addressType"]), (&json!("Pod"), &json!("pod1"), &json!("IPv4")));
    assert_eq!((&slice["ports"][0]["name"], &slice["endpoints"][0]["nodeName"]), (&json!("example"), &json!("n1")));
    // A named port is another number in each pod: each has a slice of its own.
    let is_both = |list: &[Value]| {
        let found: BTreeSet<_> =
            list.iter().map(|slice| (slice["endpoints"][0]["addresses"][0].to_string(), slice["ports"][0]["port"].as_u64())).collect();
        list.len() == 2 && found == BTreeSet::from([(first.to_string(), Some(3000)), (second.to_string(), Some(3001))])
    };
    settled(admin, &slices(PLACE, "both"), "both pods", is_both).await;
    ok(&admin.send("DELETE", &slices(PLACE, "both"), "application/json", String::new()).await);
    settled(admin, &slices(PLACE, "both"), "both pods again", is_both).await;

    let endpoints = format!("/api/v1/namespaces/{PLACE}/endpoints");
    let has_both = |one: &Value| one["subsets"].as_array().map(Vec::len) == Some(2);
    let old = reached(admin, &endpoints, "both", "two subsets", has_both).await;
    let found: BTreeSet<_> = old["subsets"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|subset| (subset["addresses"][0]["ip"].to_string(), subset["ports"][0]["port"].as_u64()))
        .collect();
    assert_eq!(found, BTreeSet::from([(first.to_string(), Some(3000)), (second.to_string(), Some(3001))]));
    ok(&admin.send("DELETE", &format!("{endpoints}/both"), "application/json", String::new()).await);
    reached(admin, &endpoints, "both", "two subsets again", |one| has_both(one) && one["metadata"]["uid"] != old["metadata"]["uid"]).await;
}

async fn addresses_are_objects(admin: &mut Peer) {
    let range = admin.get("/apis/networking.k8s.io/v1/servicecidrs/kubernetes").await;
    ok(&range);
    let status = admin.get("/apis/networking.k8s.io/v1/servicecidrs/kubernetes/status").await.body;
    assert_eq!((&status["kind"], &status["metadata"]["uid"]), (&json!("ServiceCIDR"), &range.body["metadata"]["uid"]));
    let addresses = "/apis/networking.k8s.io/v1/ipaddresses";
    let parent = json!({"parentRef": {"group": "mygroup", "resource": "myresources", "namespace": "foo", "name": "bar"}});
    for (key, kind) in [("255.255.255.255", "broadcast"), ("fe80::42:1dff:fe84:f9e2", "link-local")] {
        made(admin, addresses, json!({"metadata": {"name": key, "labels": {"type": kind}}, "spec": parent})).await;
    }
    let one = format!("{addresses}/fe80::42:1dff:fe84:f9e2");
    patched(admin, &one, "merge", json!({"metadata": {"annotations": {"patched": "true"}}})).await;
    let changed = admin.send("PATCH", &one, "application/merge-patch+json", json!({"spec": {"parentRef": {"name": "other"}}}).to_string()).await;
    assert_eq!(changed.code, 422, "{}", changed.body);
    // Those of Services are as any client would write them, so that they can be written again.
    let service = json!({"metadata": {"name": "addressed"}, "spec": {"ports": [{"port": 80}]}});
    let ip = made(admin, &services("default"), service).await["spec"]["clusterIP"].as_str().expect("an address").to_owned();
    let mut own = admin.get(&format!("{addresses}/{ip}")).await.body;
    assert_eq!(own["spec"]["parentRef"], json!({"resource": "services", "namespace": "default", "name": "addressed"}));
    let version = own["metadata"]["resourceVersion"].clone();
    own = put(admin, &format!("{addresses}/{ip}"), &own).await;
    assert_eq!(own["metadata"]["resourceVersion"], version, "nothing changed");
    own["metadata"]["labels"]["seen"] = "yes".into();
    put(admin, &format!("{addresses}/{ip}"), &own).await;
    ok(&admin.send("DELETE", &format!("{}/addressed", services("default")), "application/json", String::new()).await);
    ok(&admin.send("DELETE", &format!("{addresses}?labelSelector=type%3Dlink-local"), "application/json", String::new()).await);
    assert!(items(admin, &format!("{addresses}?labelSelector=type%3Dlink-local")).await.is_empty());
    ok(&admin.send("DELETE", &format!("{addresses}/255.255.255.255"), "application/json", String::new()).await);
}

async fn what_nobody_acts_on_is_said(admin: &mut Peer) {
    namespace(admin, "not-served").await;
    let port = json!([{"port": 80}]);
    for (path, object) in [
        (services("not-served"), json!({"metadata": {"name": "balanced"}, "spec": {"type": "LoadBalancer", "ports": port}})),
        (services("not-served"), json!({"metadata": {"name": "plain"}, "spec": {"ports": port}})),
        (
            "/apis/networking.k8s.io/v1/namespaces/not-served/networkpolicies".into(),
            json!({"metadata": {"name": "deny"}, "spec": {"podSelector": {}}}),
        ),
        (
            "/apis/networking.k8s.io/v1/namespaces/not-served/ingresses".into(),
            json!({"metadata": {"name": "shop"}, "spec": {"defaultBackend": {"service": {"name": "plain", "port": {"number": 80}}}}}),
        ),
        (
            "/api/v1/namespaces/not-served/persistentvolumeclaims".into(),
            json!({"metadata": {"name": "disk"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}),
        ),
    ] {
        made(admin, &path, object).await;
    }
    let told = |events: &[Value]| -> BTreeSet<String> {
        let about = events.iter().filter(|event| event["reason"] == "NotServed");
        about.map(|event| event["involvedObject"]["name"].as_str().unwrap_or_default().to_owned()).collect()
    };
    let events = settled(admin, "/api/v1/namespaces/not-served/events", "four objects are told of", |events| told(events).len() == 4).await;
    assert_eq!(told(&events), ["balanced", "deny", "disk", "shop"].map(String::from).into());
}
