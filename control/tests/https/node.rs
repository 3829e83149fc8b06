//! A node as the control plane sees it: real QUIC, the whole pipeline behind its calls, streams to it behind the API.

use crate::{
    cluster::{Cluster, Peer},
    server::Server,
};
use bytes::Bytes;
use coracle_link::{
    ByteStream, Connection,
    protocol::{Feed, Open, Reply},
};
use serde_json::{Value, json};
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;

const PATIENCE: Duration = Duration::from_secs(20);

async fn within<T>(what: &str, f: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, f).await.unwrap_or_else(|_| panic!("{what}: too long"))
}

async fn call(node: &Arc<dyn Connection>, method: &str, path: &str, content_type: &str, body: Value) -> (u16, Value) {
    let body = if body.is_null() { Bytes::new() } else { body.to_string().into() };
    let open = Open::Call { method: method.into(), path: path.into(), content_type: content_type.into(), body };
    let mut stream = node.open().await.expect("a stream");
    stream.send(open.encode()).await.expect("sent");
    let frame = within(path, stream.recv()).await.expect("a frame").expect("an answer");
    let reply = Reply::decode(&frame).expect("a reply");
    (reply.code, serde_json::from_slice(&reply.body).unwrap_or(Value::Null))
}

async fn post(node: &Arc<dyn Connection>, path: &str, body: Value) -> (u16, Value) {
    call(node, "POST", path, "application/json", body).await
}

async fn patch(node: &Arc<dyn Connection>, path: &str, body: Value) -> u16 {
    call(node, "PATCH", path, "application/merge-patch+json", body).await.0
}

/// Reads the feed until `wanted` of what it brought holds.
async fn feed(stream: &mut dyn coracle_link::Stream, have: &mut BTreeSet<String>, wanted: impl Fn(&BTreeSet<String>) -> bool) {
    let read = async {
        loop {
            match Feed::decode(&stream.recv().await.expect("a frame").expect("more")).expect("a message") {
                Feed::Reset { .. } => have.clear(),
                Feed::Upsert { resource, namespace, name, .. } => drop(have.insert(format!("{resource}/{namespace}/{name}"))),
                Feed::Remove { resource, namespace, name } => drop(have.remove(&format!("{resource}/{namespace}/{name}"))),
                Feed::Synced { .. } if wanted(have) => return,
                Feed::Synced { .. } => {}
            }
        }
    };
    if tokio::time::timeout(PATIENCE, read).await.is_err() {
        panic!("the feed brought only {have:?}");
    }
}

fn pod(name: &str, node: &str) -> Value {
    let volumes = json!([{"name": "s", "secret": {"secretName": "mine"}}]);
    let containers = json!([{"name": "c", "image": "hello:1", "ports": [{"containerPort": 8080}]}]);
    json!({"metadata": {"name": name}, "spec": {"nodeName": node, "containers": containers, "volumes": volumes}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_over_the_link() {
    let cluster = Cluster::start().await;
    let mut admin = cluster.admin().await;
    let node = cluster.node("n1").await;
    registers(&node).await;

    for name in ["mine", "other"] {
        let secret = json!({"metadata": {"name": name}, "stringData": {"k": "v"}});
        assert_eq!(admin.post("/api/v1/namespaces/default/secrets", secret).await.code, 201);
    }
    let mut stream = node.open().await.expect("a stream");
    stream.send(Open::Subscribe { epoch: 0, revision: 0 }.encode()).await.expect("sent");
    let mut have = BTreeSet::new();
    feed(&mut *stream, &mut have, |have| have.contains("nodes//n1")).await;
    assert!(have.contains("services/default/kubernetes") && have.contains("runtimeclasses.node.k8s.io//wasm"), "{have:?}");
    let made = admin.post("/api/v1/namespaces/default/pods", pod("p", "n1")).await;
    assert_eq!(made.code, 201, "{}", made.body);
    assert_eq!(admin.post("/api/v1/namespaces/default/pods", pod("q", "n2")).await.code, 201);
    let named = ["pods/default/p", "secrets/default/mine", "serviceaccounts/default/default", "configmaps/default/kube-root-ca.crt"];
    feed(&mut *stream, &mut have, |have| named.iter().all(|n| have.contains(*n))).await;
    assert!(!have.contains("pods/default/q") && !have.contains("secrets/default/other"));

    reports(&node, &made.body).await;
    streams(&cluster, &node, &mut admin).await;

    // its last word: the pod is gone, and with it what it named
    let end = json!({"gracePeriodSeconds": 0, "preconditions": {"uid": made.body["metadata"]["uid"]}});
    let (code, body) = call(&node, "DELETE", "/api/v1/namespaces/default/pods/p", "application/json", end).await;
    assert_eq!(code, 200, "{body}");
    feed(&mut *stream, &mut have, |have| named.iter().all(|n| !have.contains(*n))).await;
    assert_eq!(call(&node, "DELETE", "/api/v1/namespaces/default/pods/p", "", Value::Null).await.0, 404);

    assert_eq!(cluster.control.stop().await, Vec::<&str>::new());
    assert!(within("goodbye", node.closed()).await.contains("gone"), "the node is told");
}

/// What an agent does at its start, and what it may not do.
async fn registers(node: &Arc<dyn Connection>) {
    assert_eq!(patch(node, "/api/v1/nodes/n1/status", json!({"status": {}})).await, 404);
    let (code, body) = post(node, "/api/v1/nodes", json!({"metadata": {"name": "n1"}})).await;
    assert_eq!(code, 201, "{body}");
    let (code, body) = post(node, "/api/v1/nodes", json!({"metadata": {"name": "n2"}})).await;
    assert_eq!((code, body["reason"].as_str()), (403, Some("Forbidden")), "{body}");
    let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
    assert_eq!(patch(node, "/api/v1/nodes/n1/status", ready).await, 200);
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    assert_eq!(post(node, leases, json!({"metadata": {"name": "n1"}, "spec": {"holderIdentity": "n1"}})).await.0, 201);
    assert_eq!(post(node, leases, json!({"metadata": {"name": "n2"}, "spec": {"holderIdentity": "n2"}})).await.0, 403);
    assert_eq!(patch(node, &format!("{leases}/n1"), json!({"spec": {"leaseDurationSeconds": 40}})).await, 200);
    for path in ["/api/v1/secrets", "/api/v1/namespaces/default/pods", "/apis/apps/v1/deployments", "/api/v1/nodes/n2"] {
        let (code, body) = call(node, "GET", path, "", Value::Null).await;
        assert_eq!(code, 403, "{path} {body}");
        assert!(body["message"].as_str().is_some_and(|m| m.contains("User \"system:node:n1\" cannot")), "{body}");
    }
    assert_eq!(call(node, "GET", "/nowhere", "", Value::Null).await.0, 403);
    assert_eq!(call(node, "BR EW", "/", "", Value::Null).await.0, 405);
}

async fn reports(node: &Arc<dyn Connection>, pod: &Value) {
    let uid = &pod["metadata"]["uid"];
    let running = json!({"metadata": {"uid": uid}, "status": {"phase": "Running", "podIP": "10.244.0.2"}});
    assert_eq!(patch(node, "/api/v1/namespaces/default/pods/p/status", running.clone()).await, 200);
    assert_eq!(patch(node, "/api/v1/namespaces/default/pods/q/status", running.clone()).await, 403);
    assert_eq!(patch(node, "/api/v1/namespaces/default/pods/none/status", running).await, 404);
    let get = |path: &'static str| call(node, "GET", path, "", Value::Null);
    assert_eq!(get("/api/v1/namespaces/default/secrets/mine").await.0, 200);
    assert_eq!(get("/api/v1/namespaces/default/secrets/other").await.0, 403);
    let about = json!({"kind": "Pod", "namespace": "default", "name": "p", "uid": uid});
    let event = json!({"metadata": {"name": "p.1", "namespace": "default"}, "involvedObject": about, "reason": "Pulled", "type": "Normal"});
    let (code, body) = post(node, "/api/v1/namespaces/default/events", event).await;
    assert_eq!(code, 201, "{body}");
    let path = "/api/v1/namespaces/default/serviceaccounts/default/token";
    let bound = |name: &str| json!({"spec": {"audiences": [], "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": name}}});
    let (code, body) = post(node, path, bound("p")).await;
    assert!(code == 201 && body["status"]["token"].is_string(), "{code} {body}");
    assert_eq!(post(node, path, bound("q")).await.0, 403);
    assert_eq!(post(node, path, json!({"spec": {}})).await.0, 403);
}

/// Logs and proxied requests, asked for over HTTPS.
async fn streams(cluster: &Cluster, node: &Arc<dyn Connection>, admin: &mut Peer) {
    let at_node = node.clone();
    let served = tokio::spawn(async move {
        for _ in 0..3 {
            let mut stream = at_node.accept().await.expect("a stream");
            let ok = Reply { code: 200, body: Bytes::new() }.encode();
            match Open::decode(&stream.recv().await.expect("a frame").expect("a message")).expect("an open") {
                Open::Logs { container, options, .. } => {
                    stream.send(ok).await.expect("sent");
                    stream.send(format!("{container} {:?}\n", options.tail_lines).into()).await.expect("sent");
                    stream.finish().await.expect("finished");
                }
                Open::Dial { port, .. } => {
                    stream.send(ok).await.expect("sent");
                    let mut io = ByteStream::new(stream);
                    let head = head(&mut io).await;
                    let first = head.lines().next().unwrap_or_default();
                    let body = format!("{port} {first}");
                    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                    io.write_all(answer.as_bytes()).await.expect("written");
                    io.flush().await.expect("flushed");
                }
                other => panic!("{other:?}"),
            }
        }
    });
    assert_eq!(admin.text("/api/v1/namespaces/default/pods/p/log?tailLines=3", "").await, "c Some(3)\n");
    assert_eq!(admin.text("/api/v1/namespaces/default/pods/p/proxy/a/b?c=d", "").await, "8080 GET /a/b?c=d HTTP/1.1");
    assert_eq!(admin.text("/api/v1/namespaces/default/pods/p:9090/proxy/", "").await, "9090 GET / HTTP/1.1");
    within("the node", served).await.expect("served");
    proxied_otherwise(cluster, node, admin).await;
    let absent = admin.get("/api/v1/namespaces/default/pods/q/log").await;
    assert!(absent.code == 503 && absent.message().contains("\"n2\" is not connected"), "{}", absent.body);
}

/// The head of a request or an answer.
async fn head(io: &mut (impl AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(io.read_u8().await.expect("a byte"));
    }
    String::from_utf8(head).expect("text")
}

/// Over TLS, where a pod's certificate is its own, and changed over to another protocol.
async fn proxied_otherwise(cluster: &Cluster, node: &Arc<dyn Connection>, admin: &mut Peer) {
    let dialed = async |node: Arc<dyn Connection>| {
        let mut stream = node.accept().await.expect("a stream");
        let open = Open::decode(&stream.recv().await.expect("a frame").expect("a message")).expect("an open");
        assert!(matches!(open, Open::Dial { .. }), "{open:?}");
        stream.send(Reply { code: 200, body: Bytes::new() }.encode()).await.expect("sent");
        ByteStream::new(stream)
    };
    let served = async {
        let io = TlsAcceptor::from(Server::tls(&["p".into()]).0).accept(dialed(node.clone()).await).await;
        let mut io = io.expect("a handshake");
        assert_eq!(io.get_ref().1.server_name(), None);
        assert!(head(&mut io).await.starts_with("GET /x HTTP/1.1"));
        io.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nover TLS").await.expect("written");
        io.flush().await.expect("flushed");
        io
    };
    let asked = admin.text("/api/v1/namespaces/default/pods/https:p:8443/proxy/x", "");
    let (text, _kept) = within("over TLS", async { tokio::join!(asked, served) }).await;
    assert_eq!(text, "over TLS");
    let served = async {
        let mut io = dialed(node.clone()).await;
        let asked = head(&mut io).await.to_lowercase();
        assert!(asked.contains("upgrade: websocket") && asked.contains("connection: upgrade") && !asked.contains("authorization"), "{asked}");
        io.write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n").await.expect("written");
        io.flush().await.expect("flushed");
        let mut said = [0; 4];
        io.read_exact(&mut said).await.expect("read");
        io.write_all(&said).await.expect("written");
        io.flush().await.expect("flushed");
        io
    };
    let asked = async {
        let mut io = cluster.bare().await;
        let path = "/api/v1/namespaces/default/pods/p/proxy/ws";
        let asked =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nAuthorization: Basic eA==\r\n\r\n");
        io.write_all(asked.as_bytes()).await.expect("asked");
        assert!(head(&mut io).await.starts_with("HTTP/1.1 101"));
        io.write_all(b"echo").await.expect("said");
        let mut said = [0; 4];
        io.read_exact(&mut said).await.expect("heard");
        said
    };
    let (said, _kept) = within("another protocol", async { tokio::join!(asked, served) }).await;
    assert_eq!(&said, b"echo");
}
