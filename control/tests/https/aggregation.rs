//! Group versions that another server serves: a real TLS server in this process behind a Service.

use crate::cluster::{Cluster, Peer, eventually};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
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
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

const SERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";
const WARDLE: &str = "/apis/wardle.example.com/v1alpha1";
const DAY: Duration = Duration::from_secs(86_400);

type Body = BoxBody<Bytes, Infallible>;

fn whole(value: &Value) -> Body {
    Full::from(value.to_string()).boxed()
}

/// What the tests know and say of the other server.
#[derive(Default)]
struct Remote {
    ill: AtomicBool,
    /// Paths that it was asked for, but for checks and documents.
    asked: Mutex<Vec<String>>,
}

/// Answers as a server behind the aggregation layer does, and tells who it was asked by.
async fn serve(remote: Arc<Remote>, mut request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    if let Some(wanted) = request.headers().get("upgrade").cloned() {
        let (upgraded, refused) = (hyper::upgrade::on(&mut request), request.uri().path().ends_with("/refused"));
        tokio::spawn(async move {
            let Ok(upgraded) = upgraded.await else { return };
            let (mut read, mut write) = tokio::io::split(TokioIo::new(upgraded));
            write.write_all(b"hello ").await.expect("written");
            tokio::io::copy(&mut read, &mut write).await.expect("echoed");
            write.shutdown().await.expect("an end");
        });
        let answer = Response::builder().header("connection", "Upgrade").header("upgrade", wanted);
        let answer = if refused { Response::builder().status(403) } else { answer.status(101) };
        return Ok(answer.body(Full::from("no").boxed()).expect("a response"));
    }
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let answer = |code: u16, body: Body| Response::builder().status(code).header("content-type", "application/json").body(body).expect("a response");
    if remote.ill.load(SeqCst) {
        return Ok(answer(500, whole(&json!({}))));
    }
    let path = parts.uri.path();
    if path != WARDLE && !path.starts_with("/openapi/") {
        remote.asked.lock().expect("a list").push(path.to_owned());
    }
    let flunders = format!("{WARDLE}/namespaces/default/flunders");
    if path.starts_with("/openapi/") {
        let asked = parts.headers.get("if-none-match").is_some_and(|tag| tag == "\"two\"");
        let definition =
            json!({"type": "object", "x-kubernetes-group-version-kind": [{"group": "wardle.example.com", "version": "v1alpha1", "kind": "Flunder"}]});
        return Ok(match (path, asked) {
            ("/openapi/v3", _) => {
                let url = |name: &str| json!({"serverRelativeURL": format!("/openapi/v3/{name}?hash=A1B2")});
                answer(
                    200,
                    whole(&json!({"paths": {"apis/wardle.example.com/v1alpha1": url("apis/wardle.example.com/v1alpha1"), "api/v1": url("api/v1")}})),
                )
            }
            ("/openapi/v3/apis/wardle.example.com/v1alpha1", _) => {
                answer(200, whole(&json!({"openapi": "3.0.0", "components": {"schemas": {"Flunder": definition}}})))
            }
            ("/openapi/v2", true) => answer(304, whole(&Value::Null)),
            ("/openapi/v2", false) => {
                let get = json!({"get": {"responses": {"200": {"description": "OK", "schema": {"$ref": "#/definitions/Flunder"}}}}});
                let meta = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
                let document = json!({
                    "swagger": "2.0", "info": {"title": "wardle", "version": "1"},
                    "paths": {format!("{WARDLE}/flunders"): get, "/api/v1/pods": get},
                    "definitions": {"Flunder": {"properties": {"metadata": {"$ref": format!("#/definitions/{meta}")}}}, meta: {"description": "theirs"}},
                });
                let mut whole = answer(200, whole(&document));
                whole.headers_mut().insert("etag", http::HeaderValue::from_static("\"two\""));
                whole
            }
            _ => answer(404, whole(&Value::Null)),
        });
    }
    if let Some(rest) =
        path.strip_prefix("/apis/custom.metrics.k8s.io/v1beta2").or_else(|| path.strip_prefix("/apis/external.metrics.k8s.io/v1beta1"))
    {
        let all = |name: &str| parts.headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect::<Vec<_>>().join(",");
        let at = "2026-01-02T03:04:05Z";
        // Only who is allowed to ask, and asks for the right thing, is told.
        let scaler = all("x-remote-user") == "system:serviceaccount:kube-system:horizontal-pod-autoscaler";
        return Ok(match (rest, parts.uri.query()) {
            ("", _) => answer(200, whole(&json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "g/v", "resources": []}))),
            ("/namespaces/default/ingresses.networking.k8s.io/main/hits", None) if scaler => {
                let item =
                    json!({"describedObject": {"kind": "Ingress", "name": "main"}, "metric": {"name": "hits"}, "timestamp": at, "value": "60"});
                answer(200, whole(&json!({"items": [item]})))
            }
            ("/namespaces/default/depth", Some("labelSelector=queue%3Djobs")) if scaler => {
                let item = |value: &str| json!({"metricName": "depth", "metricLabels": {"queue": "jobs"}, "timestamp": at, "value": value});
                answer(200, whole(&json!({"items": [item("1500m"), item("500m")]})))
            }
            _ => answer(
                404,
                whole(
                    &json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "the server could not find the metric", "code": 404}),
                ),
            ),
        });
    }
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
        let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let all = |name: &str| parts.headers.get_all(name).iter().map(text).collect::<Vec<_>>().join(",");
        let sent: Value = serde_json::from_slice(&body).unwrap_or_default();
        let told = json!({
            "user": all("x-remote-user"), "groups": all("x-remote-group"), "method": parts.method.as_str(), "authorization": all("authorization"), "sent": sent,
        });
        answer(if parts.method == "POST" { 201 } else { 200 }, whole(&told))
    })
}

/// A server that takes only those who have the front proxy's certificate.
async fn server(authority: &Authority, front_proxy: &str, remote: Arc<Remote>) -> SocketAddr {
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
            let (acceptor, remote) = (acceptor.clone(), remote.clone());
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let service = service_fn(move |request| serve(remote.clone(), request));
                let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades().await;
            });
        }
    });
    address
}

/// Sends a request to upgrade a connection, by hand; the head of the answer, and what comes after it until the end once `sent` was sent.
async fn upgrade(cluster: &Cluster, path: &str, to: &str, sent: &[u8]) -> (String, String) {
    let mut stream = cluster.bare().await;
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive, Upgrade\r\nUpgrade: {to}\r\nX-Remote-User: root\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("asked");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("a head"));
    }
    let head = String::from_utf8(head).expect("text");
    let mut rest = String::new();
    if head.starts_with("HTTP/1.1 101") {
        stream.write_all(sent).await.expect("sent");
        stream.shutdown().await.expect("an end");
        let read = tokio::time::timeout(Duration::from_secs(20), stream.read_to_string(&mut rest)).await.expect("in time");
        // An end without a last word of TLS is an end.
        assert!(read.is_ok() || !rest.is_empty(), "{read:?}");
    }
    (head.to_lowercase(), rest)
}

/// What is authorized is what the other server is asked for: it decodes paths before it splits them, as Go's servers do.
async fn paths_are_read_in_one_way(cluster: &Cluster, remote: &Remote) {
    let mut admin = cluster.admin().await;
    let rule = json!({"apiGroups": ["wardle.example.com"], "resources": ["flunders"], "verbs": ["get", "create", "watch"]});
    const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/mine";
    assert_eq!(admin.post("/api/v1/namespaces", json!({"metadata": {"name": "mine"}})).await.code, 201);
    assert_eq!(admin.post(&format!("{RBAC}/roles"), json!({"metadata": {"name": "own"}, "rules": [rule]})).await.code, 201);
    let subject = json!({"kind": "User", "name": "jürgen", "apiGroup": "rbac.authorization.k8s.io"});
    let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "own"});
    let binding = json!({"metadata": {"name": "own"}, "subjects": [subject], "roleRef": role});
    assert_eq!(admin.post(&format!("{RBAC}/rolebindings"), binding).await.code, 201);
    let mut user = cluster.admin().await;
    user.headers = vec![("Impersonate-User".into(), "jürgen".into())];
    // The role is in force once what is its own can be asked for; the name goes on as it is.
    eventually(async || user.get(&format!("{WARDLE}/namespaces/mine/flunders/a")).await, |answer| answer.code != 403).await;
    remote.asked.lock().expect("a list").clear();
    for path in [
        "namespaces/mine/flunders/a%2F..%2F..%2F..%2Fdefault%2Fflunders%2Fb",
        "namespaces/mine/flunders/..%2F..%2Fdefault/flunders",
        "namespaces/mine%2Fflunders%2Fa/flunders/b",
        "namespaces/mine/flunders/../../default/flunders/b",
        "namespaces/mine//flunders/a",
        "namespaces/mine/flunders/a/",
        "/namespaces/mine/flunders/a",
        "namespaces/mine/flunders/%2e%2e",
        "namespaces/mine/flunders/a%252Fb",
        "namespaces/mine/flunders/a%20b",
    ] {
        for (peer, who) in [(&mut user, "user"), (&mut admin, "administrator")] {
            let code = peer.get(&format!("{WARDLE}/{path}")).await.code;
            let plain = ["a/", "a%252Fb", "a%20b"].iter().any(|end| path.ends_with(end));
            assert_eq!(code, if plain { 404 } else { 400 }, "{path} of the {who}");
        }
    }
    let asked = std::mem::take(&mut *remote.asked.lock().expect("a list"));
    let own = |name: &str| format!("{WARDLE}/namespaces/mine/flunders/{name}");
    assert_eq!(asked, ["a/", "a/", "a%252Fb", "a%252Fb", "a%20b", "a%20b"].map(own), "nothing else went out");
    let told = user.post(&format!("{WARDLE}/namespaces/default/flunders"), json!({})).await;
    assert_eq!(told.code, 403);
    admin.headers = vec![("Impersonate-User".into(), "jürgen".into()), ("Impersonate-Group".into(), "system:masters".into())];
    assert_eq!(admin.get(&format!("{WARDLE}/namespaces/default/flunders")).await.body["user"], "jürgen");
}

async fn connections_are_upgraded(cluster: &Cluster) {
    let flunder = format!("{WARDLE}/namespaces/default/flunders/a/attach");
    for to in ["websocket", "SPDY/3.1"] {
        let (head, rest) = upgrade(cluster, &flunder, to, b"and good-bye").await;
        assert!(head.starts_with("http/1.1 101") && head.contains(&format!("upgrade: {}", to.to_lowercase())), "{head}");
        assert_eq!(rest, "hello and good-bye");
    }
    let (head, _) = upgrade(cluster, WARDLE, "websocket", b"").await;
    assert!(head.starts_with("http/1.1 200"), "a list of resources is no stream: {head}");
    let (head, _) = upgrade(cluster, &format!("{WARDLE}/namespaces/default/flunders/a/refused"), "websocket", b"").await;
    assert!(head.starts_with("http/1.1 403"), "its own answer: {head}");
}

/// Metrics of other servers scale a Deployment.
async fn autoscalers_ask_other_servers(admin: &mut Peer, bundle: &str) {
    for (group, version) in [("custom.metrics.k8s.io", "v1beta2"), ("external.metrics.k8s.io", "v1beta1")] {
        let spec = json!({
            "group": group, "version": version, "groupPriorityMinimum": 100, "versionPriority": 100, "caBundle": bundle,
            "service": {"namespace": "default", "name": "wardle"},
        });
        let name = format!("{version}.{group}");
        assert_eq!(admin.post(SERVICES, json!({"metadata": {"name": name}, "spec": spec})).await.code, 201);
        until(admin, &name, "True", "Passed").await;
    }
    let template = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let spec = json!({"replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": template});
    const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
    assert_eq!(admin.post(DEPLOYMENTS, json!({"metadata": {"name": "web"}, "spec": spec})).await.code, 201);
    let mut deployments = admin.watch(&format!("{DEPLOYMENTS}?watch=true")).await;
    while deployments.next().await.expect("a deployment")["object"]["status"]["replicas"] != 2 {}
    let about = json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "name": "main"});
    let target = |value: &str| json!({"type": "AverageValue", "averageValue": value});
    let selector = json!({"matchLabels": {"queue": "jobs"}});
    let metrics = json!([
        {"type": "Object", "object": {"metric": {"name": "hits"}, "describedObject": about, "target": target("20")}},
        {"type": "External", "external": {"metric": {"name": "depth", "selector": selector}, "target": target("1")}},
        {"type": "Pods", "pods": {"metric": {"name": "nothing"}, "target": target("1")}},
    ]);
    let scaled = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"});
    let spec = json!({"scaleTargetRef": scaled, "minReplicas": 1, "maxReplicas": 9, "metrics": metrics});
    const SCALERS: &str = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers";
    assert_eq!(admin.post(SCALERS, json!({"metadata": {"name": "web"}, "spec": spec})).await.code, 201);
    while deployments.next().await.expect("a deployment")["object"]["spec"]["replicas"] != 3 {}
    drop(deployments);
    let mut scalers = admin.watch(&format!("{SCALERS}?watch=true")).await;
    let status = loop {
        let status = scalers.next().await.expect("an autoscaler")["object"]["status"].clone();
        if status["desiredReplicas"] == 3 {
            break status;
        }
    };
    let current = &status["currentMetrics"];
    assert_eq!(
        (&current[0]["object"]["current"]["averageValue"], &current[1]["external"]["current"]["averageValue"]),
        (&json!("30"), &json!("1")),
        "{status}"
    );
    let active = status["conditions"].as_array().expect("conditions").iter().find(|condition| condition["type"] == "ScalingActive").expect("active");
    assert_eq!((&active["status"], &active["reason"]), (&json!("True"), &json!("ValidMetricFound")), "{status}");
    let mut events = admin.watch("/api/v1/namespaces/default/events?watch=true&fieldSelector=reason%3DFailedGetPodsMetric").await;
    let said = events.next().await.expect("an event")["object"]["message"].clone();
    assert_eq!(said, "unable to get metric nothing: unable to fetch metrics from custom metrics API: the server could not find the metric");
}

async fn documents_are_merged(admin: &mut Peer) {
    // They are fetched once the server is known to be available.
    let index = loop {
        let index = admin.get("/openapi/v3").await.body;
        if index["paths"]["apis/wardle.example.com/v1alpha1"].is_object() && admin.get("/openapi/v2").await.body["definitions"]["Flunder"].is_object()
        {
            break index;
        }
        tokio::task::yield_now().await;
    };
    let url = index["paths"]["apis/wardle.example.com/v1alpha1"]["serverRelativeURL"].as_str().expect("a document");
    assert_eq!(url, "/openapi/v3/apis/wardle.example.com/v1alpha1?hash=A1B2");
    assert_ne!(index["paths"]["api/v1"]["serverRelativeURL"], "/openapi/v3/api/v1?hash=A1B2", "it speaks for itself alone");
    let document = admin.get(url).await;
    assert_eq!((document.code, document.header("etag")), (200, "\"A1B2\""));
    assert!(document.body["components"]["schemas"]["Flunder"].is_object() && document.header("cache-control").contains("immutable"));
    admin.headers = vec![("if-none-match".into(), "\"A1B2\"".into())];
    assert_eq!(admin.get(url).await.code, 304);
    admin.headers.clear();
    let moved = admin.get("/openapi/v3/apis/wardle.example.com/v1alpha1?hash=OLD").await;
    assert_eq!((moved.code, moved.header("location")), (301, url));
    let whole = admin.get("/openapi/v2").await.body;
    assert_eq!(whole["info"]["title"], "Kubernetes");
    assert!(whole["paths"][format!("{WARDLE}/flunders")]["get"].is_object());
    assert!(whole["paths"]["/api/v1/pods"]["get"]["operationId"].is_string(), "this server's own");
    let meta = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
    assert_eq!(whole["definitions"]["Flunder"]["properties"]["metadata"]["$ref"], format!("#/definitions/{meta}_v2"));
    assert_eq!(whole["definitions"][format!("{meta}_v2")]["description"], "theirs");
    assert!(whole["definitions"][meta]["properties"].is_object());
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
    another_server_is_discovered_and_asked(&cluster, &mut admin).await;
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

async fn another_server_is_discovered_and_asked(cluster: &Cluster, admin: &mut Peer) {
    let trust = admin.get("/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication").await.body;
    assert_eq!(trust["data"]["requestheader-allowed-names"], "[\"front-proxy-client\"]");
    let front_proxy = trust["data"]["requestheader-client-ca-file"].as_str().expect("a CA");
    let dir = tempfile::tempdir().expect("a directory");
    let authority = Authority::open(dir.path()).expect("an authority");
    let remote = Arc::new(Remote::default());
    let address = server(&authority, front_proxy, remote.clone()).await;

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

    paths_are_read_in_one_way(cluster, &remote).await;
    documents_are_merged(admin).await;
    autoscalers_ask_other_servers(admin, &STANDARD.encode(authority.ca_pem())).await;
    connections_are_upgraded(cluster).await;

    // status is written apart, metadata by the object alone
    let status =
        json!({"metadata": {"labels": {"a": "b"}}, "status": {"conditions": [{"type": "StatusUpdated", "status": "True", "reason": "E2E"}]}});
    let patched = admin.send("PATCH", &format!("{SERVICES}/{NAME}/status"), "application/strategic-merge-patch+json", status.to_string()).await;
    assert_eq!(
        (patched.code, patched.body["status"]["conditions"].as_array().map(Vec::len), &patched.body["metadata"]["labels"]),
        (200, Some(2), &Value::Null)
    );

    // it falls ill: what it said is kept, requests are refused
    remote.ill.store(true, SeqCst);
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
