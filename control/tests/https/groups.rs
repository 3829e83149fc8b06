//! What is special about single groups of the API, over real HTTP.

use crate::cluster::{Cluster, Peer};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use coracle_link::pki::KeyPair;
use rcgen::{CertificateParams, DistinguishedName, DnType};
use serde_json::{Value, json};

const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
const NODE_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups() {
    let cluster = Cluster::start().await;
    let mut admin = cluster.admin().await;
    approved_requests_become_certificates_that_sign_in(&cluster, &mut admin).await;
    requests_need_rights_over_signers(&mut admin).await;
    what_nodes_ask_for_is_approved(&mut admin).await;
    services_get_addresses_of_added_ranges(&mut admin).await;
    levels_and_schemas_are_there(&mut admin).await;
    endpoints_that_users_write_are_shown_as_slices(&mut admin).await;
    assert_eq!(cluster.control.stop().await, Vec::<&str>::new());
}

/// Sends, as this user when one is named.
async fn send(admin: &mut Peer, user: &str, method: &str, path: &str, body: &Value) -> crate::cluster::Answer {
    admin.headers = if user.is_empty() { Vec::new() } else { vec![("Impersonate-User".into(), user.into())] };
    let answer = admin.send(method, path, "application/json", body.to_string()).await;
    admin.headers.clear();
    answer
}

/// Waits for a state of one object.
async fn until(admin: &mut Peer, collection: &str, name: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let mut events = admin.watch(&format!("{collection}?watch=true&fieldSelector=metadata.name%3D{name}")).await;
    loop {
        let event = events.next().await.unwrap_or_else(|| panic!("{name}: {what}"));
        if wanted(&event["object"]) {
            return event["object"].clone();
        }
    }
}

/// A key and the base64 of a request for it.
fn request(user: &str, groups: &[&str]) -> (rcgen::KeyPair, String) {
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, user);
    for (group, kind) in groups.iter().zip([DnType::OrganizationName, DnType::CustomDnType(vec![2, 5, 4, 10])]) {
        params.distinguished_name.push(kind, *group);
    }
    let pem = params.serialize_request(&key).and_then(|request| request.pem()).expect("a request");
    (key, STANDARD.encode(pem))
}

fn signing_request(name: &str, signer: &str, request: &str) -> Value {
    let usages = ["digital signature", "key encipherment", "client auth"];
    json!({"metadata": {"name": name}, "spec": {"request": request, "signerName": signer, "usages": usages, "expirationSeconds": 3600}})
}

/// What `kubectl certificate approve` sends.
async fn decide(admin: &mut Peer, user: &str, name: &str, kind: &str) -> crate::cluster::Answer {
    let mut request = admin.get(&format!("{REQUESTS}/{name}")).await.body;
    request["status"]["conditions"] = json!([{"type": kind, "status": "True", "reason": "Test", "message": "by hand"}]);
    send(admin, user, "PUT", &format!("{REQUESTS}/{name}/approval"), &request).await
}

async fn approved_requests_become_certificates_that_sign_in(cluster: &Cluster, admin: &mut Peer) {
    let (key, pem) = request("jane", &["dev", "ops"]);
    let made = admin.post(REQUESTS, signing_request("jane", CLIENT, &pem)).await;
    assert_eq!((made.code, made.body["spec"]["username"].as_str()), (201, Some("kubernetes-admin")), "{}", made.body);
    assert_eq!(decide(admin, "", "jane", "Approved").await.code, 200);
    let issued = until(admin, REQUESTS, "jane", "no certificate", |request| request["status"]["certificate"].is_string()).await;
    let pem = STANDARD.decode(issued["status"]["certificate"].as_str().expect("text")).expect("base64");
    let identity = KeyPair { cert_pem: String::from_utf8(pem).expect("PEM"), key_pem: key.serialize_pem() };
    let mut jane = cluster.connect(Some(identity)).await;
    let review = jane.post("/apis/authentication.k8s.io/v1/selfsubjectreviews", json!({})).await;
    assert_eq!(review.body["status"]["userInfo"]["username"], "jane", "{}", review.body);
    assert_eq!(review.body["status"]["userInfo"]["groups"], json!(["dev", "ops", "system:authenticated"]));
    // The one decision stays.
    let denied = decide(admin, "", "jane", "Denied").await;
    assert_eq!((denied.code, denied.reason()), (422, "Invalid"), "{}", denied.body);
    let table = admin.accept(REQUESTS, "application/json;as=Table;g=meta.k8s.io;v=v1").await;
    assert_eq!(table.body["rows"][0]["cells"][5], "Approved,Issued", "{}", table.body);
}

async fn requests_need_rights_over_signers(admin: &mut Peer) {
    let (_, pem) = request("joe", &["system:masters"]);
    let refused = admin.post(REQUESTS, signing_request("joe", CLIENT, &pem)).await;
    assert_eq!(refused.code, 403);
    assert!(refused.message().contains("system:masters"), "{}", refused.message());
    let (_, pem) = request("joe", &["dev"]);
    assert_eq!(admin.post(REQUESTS, signing_request("joe", CLIENT, &pem)).await.code, 201);
    let rule = json!({"apiGroups": ["certificates.k8s.io"], "resources": ["certificatesigningrequests/approval"], "verbs": ["update"]});
    let role = json!({"metadata": {"name": "approver"}, "rules": [rule]});
    assert_eq!(admin.post("/apis/rbac.authorization.k8s.io/v1/clusterroles", role).await.code, 201);
    let binding = |role: &str| {
        json!({"metadata": {"name": role}, "subjects": [{"kind": "User", "name": "ann", "apiGroup": "rbac.authorization.k8s.io"}],
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role}})
    };
    let bindings = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
    assert_eq!(admin.post(bindings, binding("approver")).await.code, 201);
    let refused = decide(admin, "ann", "joe", "Approved").await;
    assert_eq!(refused.code, 403);
    assert!(refused.message().contains("not permitted to approve requests with signerName"), "{}", refused.message());
    assert_eq!(admin.post(bindings, binding("system:certificates.k8s.io:kube-apiserver-client-approver")).await.code, 201);
    assert_eq!(decide(admin, "ann", "joe", "Denied").await.code, 200);
}

async fn what_nodes_ask_for_is_approved(admin: &mut Peer) {
    let binding = json!({"metadata": {"name": "nodes-renew"},
        "subjects": [{"kind": "User", "name": "system:node:n9", "apiGroup": "rbac.authorization.k8s.io"}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient"}});
    assert_eq!(admin.post("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding).await.code, 201);
    let (_, pem) = request("system:node:n9", &["system:nodes"]);
    // Nodes may send requests by what binds their bootstrap tokens; here the administrator stands in for both.
    let rule = json!({"apiGroups": ["certificates.k8s.io"], "resources": ["certificatesigningrequests"], "verbs": ["create"]});
    let roles = "/apis/rbac.authorization.k8s.io/v1";
    assert_eq!(admin.post(&format!("{roles}/clusterroles"), json!({"metadata": {"name": "asker"}, "rules": [rule]})).await.code, 201);
    let binding = json!({"metadata": {"name": "asker"},
        "subjects": [{"kind": "User", "name": "system:node:n9", "apiGroup": "rbac.authorization.k8s.io"}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "asker"}});
    assert_eq!(admin.post(&format!("{roles}/clusterrolebindings"), binding).await.code, 201);
    let made = send(admin, "system:node:n9", "POST", REQUESTS, &signing_request("n9", NODE_CLIENT, &pem)).await;
    assert_eq!((made.code, made.body["spec"]["username"].as_str()), (201, Some("system:node:n9")), "{}", made.body);
    let issued = until(admin, REQUESTS, "n9", "no certificate", |request| request["status"]["certificate"].is_string()).await;
    assert_eq!(issued["status"]["conditions"][0]["reason"], "AutoApproved");
    // A name that is not the requester's is somebody's own business.
    let (_, pem) = request("jane", &[]);
    assert_eq!(admin.post(REQUESTS, signing_request("wrong", NODE_CLIENT, &pem)).await.code, 201);
    assert_eq!(decide(admin, "", "wrong", "Approved").await.code, 200);
    let failed = until(admin, REQUESTS, "wrong", "nothing failed", |request| request["status"]["conditions"][1]["type"] == "Failed").await;
    assert_eq!(failed["status"]["conditions"][1]["reason"], "SignerValidationFailure");
}

async fn services_get_addresses_of_added_ranges(admin: &mut Peer) {
    let ranges = "/apis/networking.k8s.io/v1/servicecidrs";
    let addresses = "/apis/networking.k8s.io/v1/ipaddresses";
    let of = |name: &str, ip: &str| json!({"metadata": {"name": name}, "spec": {"clusterIP": ip, "ports": [{"port": 80}]}});
    let services = "/api/v1/namespaces/default/services";
    let outside = admin.post(services, of("outside", "198.51.100.7")).await;
    assert_eq!(outside.code, 422, "{}", outside.body);
    assert_eq!(admin.post(ranges, json!({"metadata": {"name": "more"}, "spec": {"cidrs": ["198.51.100.0/28"]}})).await.code, 201);
    until(admin, ranges, "more", "never ready", |range| range["status"]["conditions"][0]["status"] == "True").await;
    let made = admin.post(services, of("outside", "198.51.100.7")).await;
    assert_eq!(made.code, 201, "{}", made.body);
    let address = admin.get(&format!("{addresses}/198.51.100.7")).await.body;
    assert_eq!(address["spec"]["parentRef"], json!({"resource": "services", "namespace": "default", "name": "outside"}));
    // An address that is deleted while its Service has it comes back.
    assert_eq!(admin.send("DELETE", &format!("{addresses}/198.51.100.7"), "", String::new()).await.code, 200);
    let again = until(admin, addresses, "198.51.100.7", "not made again", |again| again["metadata"]["uid"] != address["metadata"]["uid"]).await;
    assert_eq!((&again["spec"]["parentRef"]["name"], &again["metadata"]["labels"]), (&json!("outside"), &address["metadata"]["labels"]));
    assert_eq!(admin.post(services, of("another", "198.51.100.7")).await.code, 422, "it is taken");
    // A range that is used stays until it is not.
    assert_eq!(admin.send("DELETE", &format!("{ranges}/more"), "", String::new()).await.code, 200);
    let kept = until(admin, ranges, "more", "gone", |range| range["status"]["conditions"][0]["reason"] == "Terminating").await;
    assert_eq!(kept["status"]["conditions"][0]["status"], "False");
    assert_eq!(admin.post(services, of("late", "198.51.100.8")).await.code, 422, "a range that ends gives nothing");
    let mut events = admin.watch(&format!("{ranges}?watch=true&fieldSelector=metadata.name%3Dmore")).await;
    assert_eq!(admin.send("DELETE", &format!("{services}/outside"), "", String::new()).await.code, 200);
    while events.next().await.expect("the range goes")["type"] != "DELETED" {}
    assert_eq!(admin.get(&format!("{addresses}/198.51.100.7")).await.code, 404);
}

async fn levels_and_schemas_are_there(admin: &mut Peer) {
    let group = "/apis/flowcontrol.apiserver.k8s.io/v1";
    let schema =
        until(admin, &format!("{group}/flowschemas"), "system-nodes", "no condition", |schema| schema["status"]["conditions"].is_array()).await;
    assert_eq!((&schema["spec"]["matchingPrecedence"], &schema["status"]["conditions"][0]["status"]), (&json!(500), &json!("False")));
    let table = admin.accept(&format!("{group}/prioritylevelconfigurations/exempt"), "application/json;as=Table;g=meta.k8s.io;v=v1").await;
    assert_eq!(table.body["rows"][0]["cells"][1], "Exempt", "{}", table.body);
    // The mandatory ones come back.
    let uid = admin.get(&format!("{group}/flowschemas/catch-all")).await.body["metadata"]["uid"].clone();
    assert_eq!(admin.send("DELETE", &format!("{group}/flowschemas/catch-all"), "", String::new()).await.code, 200);
    until(admin, &format!("{group}/flowschemas"), "catch-all", "did not come back", |schema| schema["metadata"]["uid"] != uid).await;
}

async fn endpoints_that_users_write_are_shown_as_slices(admin: &mut Peer) {
    const ENDPOINTS: &str = "/api/v1/namespaces/default/endpoints";
    const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
    let own = admin.get(&format!("{ENDPOINTS}/kubernetes")).await;
    assert_eq!(own.header("warning"), "299 - \"v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice\"");
    assert_eq!(own.body["subsets"][0]["ports"][0]["name"], "https");

    let service = json!({"metadata": {"name": "db"}, "spec": {"ports": [{"name": "sql", "port": 80}]}});
    assert_eq!(admin.post("/api/v1/namespaces/default/services", service).await.code, 201);
    let mut slices = admin.watch(&format!("{SLICES}?watch=true&labelSelector=kubernetes.io/service-name%3Ddb")).await;
    let endpoints = json!({"metadata": {"name": "db"}, "subsets": [{"addresses": [{"ip": "10.1.2.3"}], "ports": [{"name": "sql", "port": 80}]}]});
    assert_eq!(admin.post(ENDPOINTS, endpoints).await.code, 201);
    let made = slices.next().await.expect("a slice");
    assert_eq!((&made["type"], &made["object"]["endpoints"][0]["addresses"]), (&json!("ADDED"), &json!(["10.1.2.3"])), "{made}");
    assert_eq!(made["object"]["ports"], json!([{"name": "sql", "port": 80, "protocol": "TCP"}]));
    let patch = json!([{"op": "replace", "path": "/subsets/0/addresses/0/ip", "value": "10.2.3.4"}]).to_string();
    assert_eq!(admin.send("PATCH", &format!("{ENDPOINTS}/db"), "application/json-patch+json", patch).await.code, 200);
    let changed = slices.next().await.expect("a change");
    assert_eq!(changed["object"]["metadata"]["uid"], made["object"]["metadata"]["uid"]);
    assert_eq!(changed["object"]["endpoints"][0]["addresses"], json!(["10.2.3.4"]));
    let table = admin.accept(&format!("{ENDPOINTS}/db"), "application/json;as=Table;g=meta.k8s.io;v=v1").await.body;
    assert_eq!(table["rows"][0]["cells"][1], "10.2.3.4:80");
    // The Service takes its Endpoints with it, and they their slice.
    assert_eq!(admin.send("DELETE", "/api/v1/namespaces/default/services/db", "application/json", String::new()).await.code, 200);
    loop {
        if slices.next().await.expect("the end")["type"] == "DELETED" {
            break;
        }
    }
    // Which of the two goes first is nobody's promise.
    crate::cluster::eventually(async || admin.get(&format!("{ENDPOINTS}/db")).await, |endpoints| endpoints.code == 404).await;
}
