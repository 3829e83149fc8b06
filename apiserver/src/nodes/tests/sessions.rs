//! Sessions, logs and proxying over a link in memory with a real HTTP server behind it.

use super::*;
use crate::{
    Tasks,
    auth::User,
    nodes::session::{Call, Options},
    pipeline::{Body as RequestBody, HttpParts, Request, Verb},
};
use bytes::Bytes;
use coracle_api::registry::Registry;
use coracle_link::{memory, pki::Subject};
use futures::FutureExt;
use http_body_util::BodyExt;
use std::collections::BTreeMap;

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
        warnings: Default::default(),
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
    let refused = get("web", &[("stream", "Stdin")]).await.unwrap_err();
    assert_eq!(
        refused.message,
        "PodLogOptions \"web\" is invalid: stream: Unsupported value: \"Stdin\": supported values: \"All\", \"Stderr\", \"Stdout\""
    );
    let refused = get("web", &[("stream", "Stdout"), ("tailLines", "1")]).await.unwrap_err();
    assert!(refused.message.ends_with("Forbidden: `tailLines` and specific `stream` are mutually exclusive for now"), "{}", refused.message);
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
        ("pods", "https:web:8080", 502, "pod a/web port 8080"),
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
    let response = get("").await.unwrap();
    let to = response.headers()["location"].to_str().unwrap();
    assert!(response.status() == 301 && to.ends_with("/nodes/n1/proxy/?a=b"), "{to}");
    let response = get("metrics/cadvisor").await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/plain");
    assert_eq!(&response.into_body().collect().await.unwrap().to_bytes()[..], b"metrics/cadvisor?a=b");
    let error = get("exec/a/b/c").await.unwrap_err();
    assert_eq!((error.code, error.message.as_str()), (404, "plain words"));
}
