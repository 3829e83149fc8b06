//! Group versions that another server serves: a real TLS server in this process behind a Service.

#[path = "api/cluster.rs"]
mod cluster;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use cluster::{Cluster, Peer};
use coracle_link::pki::{self, Authority};
use http::{Request, Response};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use rustls::{RootCertStore, ServerConfig, server::WebPkiClientVerifier};
use serde_json::{Value, json};
use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

const SERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";
const WARDLE: &str = "/apis/wardle.example.com/v1alpha1";
const DAY: Duration = Duration::from_secs(86_400);

type Body = BoxBody<Bytes, Infallible>;

fn whole(value: &Value) -> Body {
    Full::from(value.to_string()).boxed()
}

/// Answers as a server behind the aggregation layer does, and tells who it was asked by.
async fn serve(ill: Arc<AtomicBool>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let answer = |code: u16, body: Body| Response::builder().status(code).header("content-type", "application/json").body(body).expect("a response");
    if ill.load(SeqCst) {
        return Ok(answer(500, whole(&json!({}))));
    }
    let path = parts.uri.path();
    let flunders = format!("{WARDLE}/namespaces/default/flunders");
    Ok(if path == WARDLE {
        let flunder =
            json!({"name": "flunders", "singularName": "flunder", "namespaced": true, "kind": "Flunder", "verbs": ["create", "get", "watch"]});
        answer(
            200,
            whole(&json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "wardle.example.com/v1alpha1", "resources": [flunder]})),
        )
    } else if path != flunders {
        answer(404, whole(&json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404})))
    } else if parts.uri.query().is_some_and(|query| query.contains("watch=true")) {
        let frame = |name: &str| Bytes::from(format!("{}\n", json!({"type": "ADDED", "object": {"metadata": {"name": name}}})));
        let stream = futures::stream::unfold(0, move |nth| async move {
            match nth {
                0 => Some((Ok(hyper::body::Frame::data(frame("one"))), 1)),
                // Open for ever: what came is passed on all the same.
                _ => std::future::pending().await,
            }
        });
        answer(200, BodyExt::boxed(StreamBody::new(Box::pin(stream) as std::pin::Pin<Box<dyn futures::Stream<Item = _> + Send + Sync>>)))
    } else {
        let all = |name: &str| parts.headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect::<Vec<_>>().join(",");
        let sent: Value = serde_json::from_slice(&body).unwrap_or_default();
        let told = json!({
            "user": all("x-remote-user"), "groups": all("x-remote-group"), "method": parts.method.as_str(), "authorization": all("authorization"), "sent": sent,
        });
        answer(if parts.method == "POST" { 201 } else { 200 }, whole(&told))
    })
}

/// A server that takes only those who have the front proxy's certificate.
async fn server(authority: &Authority, front_proxy: &str, ill: Arc<AtomicBool>) -> SocketAddr {
    let identity = authority.server(&["wardle.default.svc".into()], DAY).expect("a certificate");
    let mut roots = RootCertStore::empty();
    for certificate in pki::certificates(front_proxy).expect("the front proxy's CA") {
        roots.add(certificate).expect("a root");
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().expect("a verifier");
    let (chain, key) = identity.to_der().expect("a key pair");
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("protocols")
        .with_client_cert_verifier(clients)
        .with_single_cert(chain, key)
        .expect("a certificate");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("an address");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, ill) = (acceptor.clone(), ill.clone());
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let service = service_fn(move |request| serve(ill.clone(), request));
                let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    address
}

/// Waits for the condition `Available` of an APIService.
async fn until(admin: &mut Peer, name: &str, status: &str, reason: &str) -> Value {
    let mut events = admin.watch(&format!("{SERVICES}?watch=true&fieldSelector=metadata.name%3D{name}")).await;
    loop {
        let event = events.next().await.unwrap_or_else(|| panic!("{name}: {reason}"));
        let conditions = event["object"]["status"]["conditions"].as_array().cloned().unwrap_or_default();
        if let Some(condition) = conditions.into_iter().find(|condition| condition["type"] == "Available")
            && (condition["status"].as_str(), condition["reason"].as_str()) == (Some(status), Some(reason))
        {
            return condition;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn aggregation() {
    let cluster = Cluster::on_loopback().await;
    let mut admin = cluster.admin().await;
    groups_of_this_server_are_local(&mut admin).await;
    definitions_are_registered(&mut admin).await;
    another_server_is_discovered_and_asked(&mut admin).await;
    assert_eq!(cluster.control.stop().await, Vec::<&str>::new());
}

async fn groups_of_this_server_are_local(admin: &mut Peer) {
    let local = admin.get(&format!("{SERVICES}/v1.apps")).await.body;
    assert_eq!((&local["spec"]["groupPriorityMinimum"], &local["status"]["conditions"][0]["reason"]), (&json!(17_800), &json!("Local")), "{local}");
    assert_eq!(admin.get(&format!("{SERVICES}/v1.")).await.body["metadata"]["labels"]["kube-aggregator.kubernetes.io/automanaged"], "onstart");
    let table = admin.accept(&format!("{SERVICES}/v1."), "application/json;as=Table;g=meta.k8s.io;v=v1").await.body;
    assert_eq!((&table["rows"][0]["cells"][1], &table["rows"][0]["cells"][2]), (&json!("Local"), &json!("True")));
}

async fn definitions_are_registered(admin: &mut Peer) {
    let schema = json!({"openAPIV3Schema": {"type": "object"}});
    let definition = json!({"metadata": {"name": "foos.stable.example.com"}, "spec": {
        "group": "stable.example.com", "scope": "Namespaced", "names": {"plural": "foos", "singular": "foo", "kind": "Foo", "listKind": "FooList"},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": schema}],
    }});
    const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    assert_eq!(admin.post(DEFINITIONS, definition).await.code, 201);
    until(admin, "v1.stable.example.com", "True", "Local").await;
    let mut events = admin.watch(&format!("{SERVICES}?watch=true&fieldSelector=metadata.name%3Dv1.stable.example.com")).await;
    let gone = admin.send("DELETE", &format!("{DEFINITIONS}/foos.stable.example.com"), "application/json", String::new()).await;
    assert_eq!(gone.code, 200);
    while events.next().await.expect("the end")["type"] != "DELETED" {}
}

async fn another_server_is_discovered_and_asked(admin: &mut Peer) {
    let trust = admin.get("/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication").await.body;
    assert_eq!(trust["data"]["requestheader-allowed-names"], "[\"front-proxy-client\"]");
    let front_proxy = trust["data"]["requestheader-client-ca-file"].as_str().expect("a CA");
    let dir = tempfile::tempdir().expect("a directory");
    let authority = Authority::open(dir.path()).expect("an authority");
    let ill = Arc::new(AtomicBool::new(false));
    let address = server(&authority, front_proxy, ill.clone()).await;

    let spec = json!({
        "group": "wardle.example.com", "version": "v1alpha1", "groupPriorityMinimum": 2000, "versionPriority": 200,
        "caBundle": STANDARD.encode(authority.ca_pem()), "service": {"namespace": "default", "name": "wardle"},
    });
    const NAME: &str = "v1alpha1.wardle.example.com";
    assert_eq!(admin.post(SERVICES, json!({"metadata": {"name": NAME}, "spec": spec})).await.code, 201);
    until(admin, NAME, "False", "ServiceNotFound").await;
    let early = admin.get(&format!("{WARDLE}/namespaces/default/flunders")).await;
    assert_eq!((early.code, early.message()), (503, "service unavailable"));
    let service = json!({"metadata": {"name": "wardle"}, "spec": {"ports": [{"port": 443}]}});
    assert_eq!(admin.post("/api/v1/namespaces/default/services", service).await.code, 201);
    until(admin, NAME, "False", "EndpointsNotFound").await;
    let slice = json!({
        "metadata": {"name": "wardle-1", "labels": {"kubernetes.io/service-name": "wardle"}}, "addressType": "IPv4",
        "endpoints": [{"addresses": [address.ip()]}], "ports": [{"port": address.port()}],
    });
    let made = admin.post("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", slice).await;
    assert_eq!(made.code, 201, "{}", made.body);
    assert_eq!(until(admin, NAME, "True", "Passed").await["message"], "all checks passed");

    // discovery, in both forms, and the server's own
    let groups = admin.get("/apis").await.body;
    assert!(groups["groups"].as_array().expect("groups").iter().any(|group| group["name"] == "wardle.example.com"), "{groups}");
    assert_eq!(admin.get("/apis/wardle.example.com").await.body["preferredVersion"]["version"], "v1alpha1");
    assert_eq!(admin.get(WARDLE).await.body["resources"][0]["kind"], "Flunder");
    let aggregated = admin.accept("/apis", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList").await.body;
    let group =
        aggregated["items"].as_array().expect("items").iter().find(|item| item["metadata"]["name"] == "wardle.example.com").expect("the group");
    assert_eq!((&group["versions"][0]["freshness"], &group["versions"][0]["resources"][0]["resource"]), (&json!("Current"), &json!("flunders")));

    // requests, in the user's name
    let made = admin.post(&format!("{WARDLE}/namespaces/default/flunders"), json!({"kind": "Flunder"})).await;
    assert_eq!(
        (made.code, &made.body["user"], &made.body["method"], &made.body["sent"]["kind"]),
        (201, &json!("kubernetes-admin"), &json!("POST"), &json!("Flunder"))
    );
    assert!(made.body["groups"].as_str().is_some_and(|groups| groups.contains("system:masters")), "{}", made.body);
    admin.headers = vec![("Impersonate-User".into(), "jane".into()), ("X-Remote-User".into(), "root".into())];
    let refused = admin.get(&format!("{WARDLE}/namespaces/default/flunders")).await;
    assert_eq!((refused.code, refused.reason()), (403, "Forbidden"), "this server authorizes first");
    admin.headers = vec![
        ("Impersonate-User".into(), "jane".into()),
        ("Impersonate-Group".into(), "system:masters".into()),
        ("X-Remote-User".into(), "root".into()),
    ];
    let asked = admin.get(&format!("{WARDLE}/namespaces/default/flunders")).await;
    assert_eq!((asked.code, &asked.body["user"], &asked.body["authorization"]), (200, &json!("jane"), &json!("")));
    admin.headers.clear();
    assert_eq!(admin.get(&format!("{WARDLE}/nothing")).await.code, 404, "its own answer");
    let mut watch = admin.watch(&format!("{WARDLE}/namespaces/default/flunders?watch=true")).await;
    assert_eq!(watch.next().await.expect("an event")["object"]["metadata"]["name"], "one");
    drop(watch);

    // status is written apart, metadata by the object alone
    let status =
        json!({"metadata": {"labels": {"a": "b"}}, "status": {"conditions": [{"type": "StatusUpdated", "status": "True", "reason": "E2E"}]}});
    let patched = admin.send("PATCH", &format!("{SERVICES}/{NAME}/status"), "application/strategic-merge-patch+json", status.to_string()).await;
    assert_eq!(
        (patched.code, patched.body["status"]["conditions"].as_array().map(Vec::len), &patched.body["metadata"]["labels"]),
        (200, Some(2), &Value::Null)
    );

    // it falls ill: what it said is kept, requests are refused
    ill.store(true, SeqCst);
    let touch = json!({"spec": {"versionPriority": 400}}).to_string();
    assert_eq!(admin.send("PATCH", &format!("{SERVICES}/{NAME}"), "application/merge-patch+json", touch).await.code, 200);
    let condition = until(admin, NAME, "False", "FailedDiscoveryCheck").await;
    assert!(condition["message"].as_str().is_some_and(|message| message.contains("500")), "{condition}");
    assert_eq!(admin.get(&format!("{WARDLE}/namespaces/default/flunders")).await.code, 503);
    let aggregated = admin.accept("/apis", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList").await.body;
    let group =
        aggregated["items"].as_array().expect("items").iter().find(|item| item["metadata"]["name"] == "wardle.example.com").expect("the group");
    assert_eq!((&group["versions"][0]["freshness"], &group["versions"][0]["resources"][0]["resource"]), (&json!("Stale"), &json!("flunders")));
    assert_eq!(admin.send("DELETE", &format!("{SERVICES}/{NAME}"), "application/json", String::new()).await.code, 200);
    assert_eq!(admin.get(WARDLE).await.code, 404);
}
