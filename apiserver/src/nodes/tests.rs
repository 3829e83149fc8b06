//! The feed against a real store, sessions and proxying over a link in memory with a real HTTP server behind it.

use super::{
    feed,
    session::{Call, Options},
    *,
};
use crate::{
    Tasks,
    auth::User,
    pipeline::{Body as RequestBody, HttpParts, Request, Verb},
};
use bytes::Bytes;
use coracle_api::registry::Registry;
use coracle_link::{Error, SendHalf, memory, pki::Subject, protocol::Feed};
use coracle_store::{Draft, Expect, Key, Meta, Op, Store, Txn};
use futures::FutureExt;
use http_body_util::BodyExt;
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};
use std::{collections::BTreeMap, time::Duration};
use tokio::sync::mpsc;

struct World {
    _dir: tempfile::TempDir,
    store: Store,
}

impl World {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(coracle_store::Options::new(dir.path())).await.unwrap();
        Self { _dir: dir, store }
    }
    async fn put(&self, resource: &str, namespace: &str, name: &str, object: Value) -> u64 {
        self.commit(vec![Op::Put { key: Key::new(resource, namespace, name), expect: Expect::Any, draft: draft(object) }]).await
    }
    async fn delete(&self, resource: &str, namespace: &str, name: &str) -> u64 {
        self.commit(vec![Op::Delete { key: Key::new(resource, namespace, name), expect: Expect::Any }]).await
    }
    async fn commit(&self, ops: Vec<Op>) -> u64 {
        self.store.commit(Txn { ops }).await.map(|c| c.revision).unwrap_or_default()
    }
}

fn draft(mut object: Value) -> Draft {
    object["metadata"]["resourceVersion"] = "".into();
    let mut labels: Vec<(Box<str>, Box<str>)> = Vec::new();
    for (k, v) in object["metadata"]["labels"].as_object().into_iter().flatten() {
        labels.push((k.as_str().into(), v.as_str().unwrap().into()));
    }
    let mut fields: Vec<(Box<str>, Box<str>)> = Vec::new();
    if let Some(node) = object["spec"]["nodeName"].as_str() {
        fields.push(("spec.nodeName".into(), node.into()));
    }
    let uid = object["metadata"]["uid"].as_str().unwrap_or("u").into();
    let json = object.to_string();
    let mark = "\"resourceVersion\":\"";
    let hole = (json.find(mark).unwrap() + mark.len()) as u32;
    Draft { json: json.into(), hole, meta: Meta { uid, labels, fields, owners: vec![] }.into() }
}

fn pod(node: &str, secrets: &[&str]) -> Value {
    let volumes: Vec<Value> = secrets.iter().map(|s| json!({"name": s, "secret": {"secretName": s}})).collect();
    let containers = json!([{"name": "c", "ports": [{"name": "web", "containerPort": 8080}]}]);
    json!({"metadata": {"uid": "pod-uid"}, "spec": {"nodeName": node, "serviceAccountName": "default", "volumes": volumes, "containers": containers}})
}

/// A subscription's far end: messages in a bounded channel.
struct Pipe(mpsc::Sender<Feed>);

#[async_trait]
impl SendHalf for Pipe {
    async fn send(&mut self, frame: Bytes) -> Result<(), Error> {
        let message = Feed::decode(&frame)?;
        self.0.send(message).await.map_err(|_| Error::Closed("the reader is gone".into()))
    }
    async fn finish(&mut self) -> Result<(), Error> {
        Ok(())
    }
}

/// A node's mirror: what was synced, and what came since.
#[derive(Default)]
struct Mirror {
    synced: (u64, u64),
    held: BTreeMap<String, Bytes>,
    pending: Vec<Feed>,
}

impl Mirror {
    fn take(&mut self, message: Feed) {
        match message {
            Feed::Synced { epoch, revision } => {
                for message in std::mem::take(&mut self.pending) {
                    match message {
                        Feed::Reset { .. } => self.held.clear(),
                        Feed::Upsert { resource, namespace, name, json } => {
                            let old = self.held.insert(format!("{resource}/{namespace}/{name}"), json.clone());
                            assert_ne!(old, Some(json), "{resource}/{namespace}/{name} came twice");
                        }
                        Feed::Remove { resource, namespace, name } => {
                            let key = format!("{resource}/{namespace}/{name}");
                            assert!(self.held.remove(&key).is_some(), "{key} was removed and never there");
                        }
                        Feed::Synced { .. } => unreachable!(),
                    }
                }
                self.synced = (epoch, revision);
            }
            other => self.pending.push(other),
        }
    }
    fn keys(&self) -> Vec<&str> {
        self.held.keys().map(String::as_str).collect()
    }
}

struct Subscription {
    messages: mpsc::Receiver<Feed>,
    task: tokio::task::JoinHandle<()>,
}

impl Subscription {
    fn start(store: &Store, node: &'static str, from: (u64, u64)) -> Self {
        let (to, messages) = mpsc::channel(8);
        let store = store.clone();
        let task = tokio::spawn(async move {
            let _ = feed::run(&store, 7, node, from, &mut Pipe(to)).await;
        });
        Self { messages, task }
    }
    /// Reads until what the mirror has synced is at least `revision`.
    async fn upto(&mut self, mirror: &mut Mirror, revision: u64) {
        let read = async {
            while mirror.synced.1 < revision {
                mirror.take(self.messages.recv().await.expect("the feed ended"));
            }
        };
        tokio::time::timeout(Duration::from_secs(20), read).await.expect("the feed never got there");
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[tokio::test]
async fn a_node_sees_its_slice_and_no_more() {
    let world = World::new().await;
    let plain = || json!({"metadata": {}});
    for (resource, namespace, name) in [
        ("nodes", "", "n1"),
        ("nodes", "", "n2"),
        ("services", "a", "s"),
        ("endpointslices.discovery.k8s.io", "a", "s-1"),
        ("runtimeclasses.node.k8s.io", "", "wasm"),
        ("namespaces", "", "a"),
        ("secrets", "a", "mine"),
        ("secrets", "a", "later"),
        ("secrets", "a", "others"),
        ("secrets", "b", "mine"),
        ("serviceaccounts", "a", "default"),
        ("serviceaccounts", "b", "default"),
        ("configmaps", "a", "unused"),
    ] {
        world.put(resource, namespace, name, plain()).await;
    }
    world.put("pods", "a", "p1", pod("n1", &["mine", "missing"])).await;
    let revision = world.put("pods", "a", "p2", pod("n2", &["others"])).await;
    let (mut mirror, mut feed) = (Mirror::default(), Subscription::start(&world.store, "n1", (0, 0)));
    feed.upto(&mut mirror, revision).await;
    let shared = ["endpointslices.discovery.k8s.io/a/s-1", "nodes//n1", "pods/a/p1", "runtimeclasses.node.k8s.io//wasm"];
    let mut want: Vec<&str> = [&shared[..], &["secrets/a/mine", "serviceaccounts/a/default", "services/a/s"]].concat();
    assert_eq!(mirror.keys(), want);
    let json: Value = serde_json::from_slice(&mirror.held["pods/a/p1"]).unwrap();
    assert_eq!(json["metadata"]["resourceVersion"], (revision - 1).to_string());

    // a named secret that appears, and a pod that names another
    world.put("secrets", "a", "missing", plain()).await;
    let revision = world.put("pods", "a", "p1", pod("n1", &["missing", "later"])).await;
    feed.upto(&mut mirror, revision).await;
    want = [&shared[..], &["secrets/a/later", "secrets/a/missing", "serviceaccounts/a/default", "services/a/s"]].concat();
    assert_eq!(mirror.keys(), want);

    // no longer named: changes of it are not seen; the pod goes, and all it named with it
    world.put("secrets", "a", "mine", json!({"metadata": {}, "data": {"a": "b"}})).await;
    let revision = world.delete("pods", "a", "p1").await;
    feed.upto(&mut mirror, revision).await;
    want = ["endpointslices.discovery.k8s.io/a/s-1", "nodes//n1", "runtimeclasses.node.k8s.io//wasm", "services/a/s"].into();
    assert_eq!(mirror.keys(), want);
}

#[tokio::test]
async fn resuming_sends_the_difference_and_an_old_mirror_begins_anew() {
    let world = World::new().await;
    world.put("services", "a", "kept", json!({"metadata": {}})).await;
    world.put("services", "a", "gone", json!({"metadata": {}})).await;
    let revision = world.put("pods", "a", "p", pod("n1", &["s"])).await;
    let mut mirror = Mirror::default();
    Subscription::start(&world.store, "n1", (0, 0)).upto(&mut mirror, revision).await;
    assert_eq!(mirror.synced.0, 7);

    world.delete("services", "a", "gone").await;
    world.put("secrets", "a", "s", json!({"metadata": {}})).await;
    let revision = world.put("pods", "a", "moved", pod("n1", &[])).await;
    let mut feed = Subscription::start(&world.store, "n1", mirror.synced);
    let mut seen = Vec::new();
    while mirror.synced.1 < revision {
        let message = tokio::time::timeout(Duration::from_secs(10), feed.messages.recv()).await.unwrap().unwrap();
        if let Feed::Upsert { resource, name, .. } | Feed::Remove { resource, name, .. } = &message {
            seen.push(format!("{resource}/{name}"));
        }
        assert!(!matches!(message, Feed::Reset { .. }));
        mirror.take(message);
    }
    seen.sort();
    assert_eq!(seen, ["pods/moved", "secrets/s", "services/gone"]);

    for stale in [(8, mirror.synced.1), (7, 1_000_000)] {
        let mut feed = Subscription::start(&world.store, "n1", stale);
        assert_eq!(feed.messages.recv().await, Some(Feed::Reset { epoch: 7 }));
    }
}

/// Writers at full speed, a mirror that loses its connection at any moment: at the end it holds exactly its slice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_doubled_over_broken_connections() {
    for seed in 0..4 {
        let world = std::sync::Arc::new(World::new().await);
        let writer = {
            let world = world.clone();
            tokio::spawn(async move {
                let mut random = StdRng::seed_from_u64(seed);
                let secret = |n: u32| ["s0", "s1", "s2", "s3", "s4"][n as usize];
                for _ in 0..400 {
                    let name = format!("o{}", random.random_range(0..6));
                    match random.random_range(0..10) {
                        0..4 => {
                            let node = ["n1", "n2"][random.random_range(0..2)];
                            let named = [secret(random.random_range(0..5)), secret(random.random_range(0..5))];
                            world.put("pods", "a", &name, pod(node, &named)).await;
                        }
                        4 => drop(world.delete("pods", "a", &name).await),
                        5..8 => {
                            let value: u32 = random.random();
                            world.put("secrets", "a", secret(random.random_range(0..5)), json!({"metadata": {}, "data": value})).await;
                        }
                        8 => drop(world.delete("secrets", "a", secret(random.random_range(0..5))).await),
                        _ => drop(world.put("services", "a", &name, json!({"metadata": {}, "n": random.random::<u32>()})).await),
                    }
                }
            })
        };
        // one subscription that is never broken, in parallel
        let steady = {
            let (world, mut feed) = (world.clone(), Subscription::start(&world.store, "n1", (0, 0)));
            let (end, mut ended) = tokio::sync::watch::channel(0);
            let task = tokio::spawn(async move {
                let mut mirror = Mirror::default();
                loop {
                    let upto = *ended.borrow();
                    if upto > 0 {
                        feed.upto(&mut mirror, upto).await;
                        drop(world);
                        return mirror.held;
                    }
                    tokio::select! {
                        message = feed.messages.recv() => mirror.take(message.expect("the feed ended")),
                        _ = ended.changed() => {}
                    }
                }
            });
            (end, task)
        };
        let mut random = StdRng::seed_from_u64(seed + 100);
        let mut mirror = Mirror::default();
        while !writer.is_finished() {
            mirror.pending.clear();
            let mut feed = Subscription::start(&world.store, "n1", mirror.synced);
            for _ in 0..random.random_range(1..60) {
                match tokio::time::timeout(Duration::from_millis(50), feed.messages.recv()).await {
                    Ok(Some(message)) => mirror.take(message),
                    _ => break,
                }
            }
        }
        writer.await.unwrap();
        // something that concerns the node: a quiet feed says its revision only every other minute
        world.put("services", "a", "last", json!({"metadata": {}})).await;
        mirror.pending.clear();
        let end = world.store.snapshot();
        Subscription::start(&world.store, "n1", mirror.synced).upto(&mut mirror, end.revision()).await;
        let mut fresh = Mirror::default();
        Subscription::start(&world.store, "n1", (0, 0)).upto(&mut fresh, end.revision()).await;
        assert_eq!(mirror.held, fresh.held, "seed {seed}");
        steady.0.send(end.revision()).unwrap();
        assert_eq!(steady.1.await.unwrap(), fresh.held, "seed {seed}, unbroken");
        for (key, json) in &mirror.held {
            let parts: Vec<&str> = key.split('/').collect();
            assert_eq!(end.get(&Key::new(parts[0], parts[1], parts[2])).unwrap().json, json);
        }
    }
}

fn named(user: &str, groups: &[&str]) -> Subject {
    Subject { common_name: user.into(), organizations: groups.iter().map(|g| g.to_string()).collect() }
}

/// A node's end of a connection that `sessions` has taken in.
fn connect(sessions: &Sessions, world: &World, tasks: &Tasks, user: &str, groups: &[&str]) -> Arc<dyn Connection> {
    let (ours, theirs) = memory::pair(named(user, groups), named("coracle", &[]));
    let call = Arc::new(|call: Call| {
        async move {
            let body = format!("{} {} {} {}", call.user.name, call.method, call.path, call.body.len());
            if call.path == "/big" { (200, Bytes::from(vec![0; 5 << 20])) } else { (201, body.into()) }
        }
        .boxed()
    });
    sessions.admit(ours, &Options { store: world.store.clone(), call, tasks: tasks.clone() });
    theirs
}

#[tokio::test]
async fn sessions_take_in_nodes_only_and_serve_their_calls() {
    let (world, sessions, tasks) = (World::new().await, Sessions::default(), Tasks::default());
    for (user, groups) in [("jane", &["system:nodes"][..]), ("system:node:n1", &[]), ("system:node:", &["system:nodes"])] {
        let stranger = connect(&sessions, &world, &tasks, user, groups);
        assert!(stranger.closed().await.contains("only nodes"));
    }
    assert!(sessions.connected().is_empty());

    let node = connect(&sessions, &world, &tasks, "system:node:n1", &["system:nodes"]);
    assert_eq!(sessions.connected(), ["n1"]);
    let ask = |open: Open| {
        let node = node.clone();
        async move {
            let mut stream = node.open().await.unwrap();
            stream.send(open.encode()).await.unwrap();
            Reply::decode(&stream.recv().await.unwrap().unwrap()).unwrap()
        }
    };
    let call = |path: &str| Open::Call { method: "POST".into(), path: path.into(), content_type: String::new(), body: Bytes::from_static(b"abc") };
    let reply = ask(call("/x?y=1")).await;
    assert_eq!((reply.code, &reply.body[..]), (201, &b"system:node:n1 POST /x?y=1 3"[..]));
    assert_eq!(ask(call("/big")).await.code, 413);
    assert_eq!(ask(Open::Stats).await.code, 400);

    // the same node dials anew: the old connection is closed, and its end does not remove the new one
    let again = connect(&sessions, &world, &tasks, "system:node:n1", &["system:nodes"]);
    assert!(node.closed().await.contains("replaced"));
    assert_eq!(sessions.connected(), ["n1"]);
    again.close("bye");
    let left = async {
        while !sessions.connected().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), left).await.unwrap();
    let error = sessions.stats("n1").await.unwrap_err();
    assert!(error.code == 503 && error.message.contains("not connected"), "{error}");
    assert!(tasks.shutdown(Duration::from_secs(5)).await.is_empty());
}

/// A node that answers logs with two pieces and dials to a real HTTP server.
async fn fake_node(node: Arc<dyn Connection>) {
    while let Ok(mut stream) = node.accept().await {
        tokio::spawn(async move {
            let ok = |body: &'static str| Reply { code: 200, body: body.into() }.encode();
            match Open::decode(&stream.recv().await.unwrap().unwrap()).unwrap() {
                Open::Logs { container, options, .. } if container == "c" => {
                    stream.send(ok("")).await.unwrap();
                    stream.send("one\n".into()).await.unwrap();
                    stream.send(format!("tail {:?}\n", options.tail_lines).into()).await.unwrap();
                    if options.follow {
                        // to the reader's end
                        let _ = stream.recv().await;
                        return;
                    }
                    stream.finish().await.unwrap();
                }
                Open::Dial { port: 8080, uid, .. } if uid == "pod-uid" => {
                    stream.send(ok("")).await.unwrap();
                    let service = hyper::service::service_fn(|request: hyper::Request<hyper::body::Incoming>| async move {
                        let (parts, body) = request.into_parts();
                        let body = body.collect().await?.to_bytes();
                        let headers: BTreeMap<String, String> =
                            parts.headers.iter().map(|(k, v)| (k.to_string(), v.to_str().unwrap().to_string())).collect();
                        let seen = json!({"method": parts.method.as_str(), "path": parts.uri.to_string(), "headers": headers, "body": String::from_utf8_lossy(&body)});
                        let response = hyper::Response::builder().status(302).header("location", "/next").header("connection", "keep-alive");
                        let big = parts.uri.path() == "/big";
                        let text = if big { "x".repeat(3 << 20) } else { seen.to_string() };
                        Ok::<_, hyper::Error>(response.body(axum::body::Body::from(text)).unwrap())
                    });
                    let io = hyper_util::rt::TokioIo::new(ByteStream::new(stream));
                    let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, service).await;
                }
                Open::Dial { .. } => {
                    let body = Status::new(502, "BadGateway", "nothing listens there").to_json().to_string();
                    stream.send(Reply { code: 502, body: body.into() }.encode()).await.unwrap();
                }
                Open::Stats => stream.send(ok("{\"node\":{}}")).await.unwrap(),
                Open::Get { path, query } if path.starts_with("metrics") => {
                    stream.send(ok("text/plain")).await.unwrap();
                    stream.send(format!("{path}?{query}").into()).await.unwrap();
                    stream.finish().await.unwrap();
                }
                _ => stream.send(Reply { code: 404, body: "plain words".into() }.encode()).await.unwrap(),
            }
        });
    }
}

fn request(resource: &str, name: &str, subresource: &str, query: &[(&str, &str)], http: Option<HttpParts>) -> Request {
    Request {
        user: User::masters().into(),
        verb: Verb::Get,
        resource: Registry::builtin().by_id(resource).unwrap(),
        subresource: subresource.into(),
        namespace: "a".into(),
        name: name.into(),
        query: query.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(),
        write: Default::default(),
        body: RequestBody::Raw { content_type: "text/plain".into(), bytes: Bytes::from_static(b"ping") },
        http: http.map(Arc::new),
    }
}

async fn cluster() -> (World, Sessions, Tasks) {
    let (world, sessions, tasks) = (World::new().await, Sessions::default(), Tasks::default());
    let node = connect(&sessions, &world, &tasks, "system:node:n1", &["system:nodes"]);
    tokio::spawn(fake_node(node));
    world.put("pods", "a", "web", pod("n1", &[])).await;
    world.put("pods", "a", "far", pod("n2", &[])).await;
    world.put("pods", "a", "waits", pod("", &[])).await;
    let ports = json!([{"name": "main", "port": 80}]);
    world.put("services", "a", "svc", json!({"metadata": {}, "spec": {"ports": ports}})).await;
    world.put("services", "a", "empty", json!({"metadata": {}, "spec": {"ports": ports}})).await;
    let slice = json!({"metadata": {"labels": {"kubernetes.io/service-name": "svc"}}, "ports": [{"name": "main", "port": 8080}], "endpoints": [
        {"addresses": ["10.0.0.9"], "conditions": {"ready": false}, "targetRef": {"kind": "Pod", "name": "far"}},
        {"addresses": ["10.0.0.1"], "conditions": {"ready": true}, "targetRef": {"kind": "Pod", "name": "web"}},
    ]});
    world.put("endpointslices.discovery.k8s.io", "a", "svc-1", slice).await;
    (world, sessions, tasks)
}

#[tokio::test]
async fn logs_stream_and_end_with_their_reader() {
    let (world, sessions, _tasks) = cluster().await;
    let get = |name: &'static str, query: &'static [(&str, &str)]| {
        let (store, sessions) = (world.store.clone(), sessions.clone());
        async move { logs::serve(&store, &sessions, &request("pods", name, "log", query, None)).await }
    };
    let response = get("web", &[("tailLines", "5")]).await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/plain");
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "one\ntail Some(5)\n");

    let mut body = get("web", &[("follow", "true")]).await.unwrap().into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "one\n");
    drop(body);

    assert_eq!(get("nowhere", &[]).await.unwrap_err().code, 404);
    assert_eq!(get("web", &[("container", "z")]).await.unwrap_err().code, 400);
    assert_eq!(get("web", &[("tailLines", "many")]).await.unwrap_err().code, 400);
    assert_eq!(get("web", &[("tailLines", "-1")]).await.unwrap_err().code, 422);
    assert_eq!(get("far", &[]).await.unwrap_err().code, 503);
    assert!(get("waits", &[]).await.unwrap().into_body().collect().await.unwrap().to_bytes().is_empty());
}

#[tokio::test]
async fn requests_are_proxied_to_a_real_server() {
    let (world, sessions, _tasks) = cluster().await;
    let go = |resource: &'static str, name: &'static str, rest: &'static str| {
        let (store, sessions) = (world.store.clone(), sessions.clone());
        let mut headers = http::HeaderMap::new();
        for (key, value) in [("authorization", "Bearer secret"), ("x-mine", "1"), ("host", "api:6443"), ("content-length", "4")] {
            headers.insert(key, http::HeaderValue::from_static(value));
        }
        let http = HttpParts { method: http::Method::POST, headers, rest: rest.into(), raw_query: "q=%20".into(), upgrade: None };
        async move { proxy::serve(&store, &sessions, &request(resource, name, "proxy", &[], Some(http))).await }
    };
    for (resource, name, prefix) in [
        ("pods", "web", "/api/v1/namespaces/a/pods/web/proxy"),
        ("pods", "web:8080", "/api/v1/namespaces/a/pods/web:8080/proxy"),
        ("pods", "http:web:web", "/api/v1/namespaces/a/pods/http:web:web/proxy"),
        ("services", "svc", "/api/v1/namespaces/a/services/svc/proxy"),
        ("services", "svc:80", "/api/v1/namespaces/a/services/svc:80/proxy"),
        ("services", "svc:main", "/api/v1/namespaces/a/services/svc:main/proxy"),
    ] {
        let response = go(resource, name, "x/y").await.unwrap();
        assert_eq!(response.status(), 302, "{name}");
        assert_eq!(response.headers()["location"], format!("{prefix}/next"));
        assert!(response.headers().get("connection").is_none());
        let seen: Value = serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap();
        assert_eq!((&seen["method"], &seen["path"], &seen["body"]), (&json!("POST"), &json!("/x/y?q=%20"), &json!("ping")));
        let headers = &seen["headers"];
        assert_eq!((&headers["x-mine"], &headers["host"], &headers["content-length"]), (&json!("1"), &json!("web:8080"), &json!("4")));
        assert_eq!(headers["x-forwarded-uri"], format!("{prefix}/x/y"));
        assert_eq!(headers["authorization"], Value::Null);
    }
    let big = go("pods", "web", "big").await.unwrap().into_body().collect().await.unwrap().to_bytes();
    assert_eq!(big.len(), 3 << 20);

    for (resource, name, code, words) in [
        ("pods", "nowhere", 404, "not found"),
        ("pods", "far", 503, "\"n2\" is not connected"),
        ("pods", "web:81", 502, "nothing listens there"),
        ("pods", "web:none", 400, "no port named"),
        ("pods", "https:web:8080", 400, "https"),
        ("services", "empty", 503, "no endpoints available"),
        ("services", "svc:99", 503, "no service port 99"),
    ] {
        let error = go(resource, name, "").await.unwrap_err();
        assert!(error.code == code && error.message.contains(words), "{name}: {} {error}", error.code);
    }
    assert_eq!(&sessions.stats("n1").await.unwrap()[..], b"{\"node\":{}}");
    assert_eq!(go("nodes", "n1", "runningpods").await.unwrap_err().code, 405, "it is a POST");
    let get = |rest: &'static str| {
        let (store, sessions) = (world.store.clone(), sessions.clone());
        let http =
            HttpParts { method: http::Method::GET, headers: http::HeaderMap::new(), rest: rest.into(), raw_query: "a=b".into(), upgrade: None };
        async move { proxy::serve(&store, &sessions, &request("nodes", "n1", "proxy", &[], Some(http))).await }
    };
    let response = get("metrics/cadvisor").await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/plain");
    assert_eq!(&response.into_body().collect().await.unwrap().to_bytes()[..], b"metrics/cadvisor?a=b");
    let error = get("exec/a/b/c").await.unwrap_err();
    assert_eq!((error.code, error.message.as_str()), (404, "plain words"));
}
