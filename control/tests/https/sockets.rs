//! Watches over WebSockets, as pages in browsers have them: a message for each event, and a token among the protocols.

use crate::cluster::{Cluster, Peer, eventually};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use coracle_schema::protobuf::envelope::MAGIC;
use futures::StreamExt;
use http::{Request, Response, header};
use http_body_util::{BodyExt, Empty};
use hyper::{body::Incoming, upgrade::Upgraded};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        protocol::{Role, frame::coding::CloseCode},
    },
};

const PATIENCE: Duration = Duration::from_secs(60);
const SECRETS: &str = "/api/v1/namespaces/sockets/secrets";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

pub async fn all(cluster: &Cluster) {
    let mut admin = cluster.admin().await;
    let made = admin.post("/api/v1/namespaces", json!({"metadata": {"name": "sockets"}})).await;
    assert_eq!(made.code, 201, "{}", made.body);
    events_are_messages(cluster, &mut admin).await;
    refusals_are_answers(cluster).await;
    tokens_are_protocols(cluster, &mut admin).await;
}

/// What is answered to somebody who asks for a WebSocket.
async fn asked(stream: TlsStream<TcpStream>, path: &str, headers: &[(&str, &str)]) -> Response<Incoming> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP/1.1");
    tokio::spawn(connection.with_upgrades());
    let mut request = Request::get(path).header(header::HOST, "localhost").header(header::CONNECTION, "Upgrade").header(header::UPGRADE, "websocket");
    for (name, value) in [("sec-websocket-version", "13"), ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")].iter().chain(headers) {
        request = request.header(*name, *value);
    }
    let request = request.body(Empty::<&[u8]>::new()).expect("a request");
    timeout(PATIENCE, sender.send_request(request)).await.expect("an answer in time").expect("an answer")
}

type Socket = WebSocketStream<TokioIo<Upgraded>>;

async fn socket(answer: Response<Incoming>) -> Socket {
    assert_eq!(answer.status(), 101);
    // The example of RFC 6455.
    assert_eq!(answer.headers()[header::SEC_WEBSOCKET_ACCEPT], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    let upgraded = hyper::upgrade::on(answer).await.expect("a connection");
    WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Client, None).await
}

async fn next(socket: &mut Socket) -> Message {
    timeout(PATIENCE, socket.next()).await.expect("a message in time").expect("a message").expect("a good one")
}

/// The next event, which is one message of text.
async fn event(socket: &mut Socket) -> Value {
    let Message::Text(text) = next(socket).await else { panic!("a text") };
    serde_json::from_str(&text).expect("one event")
}

fn told(event: &Value) -> (&str, &str) {
    (event["type"].as_str().unwrap_or_default(), event["object"]["metadata"]["name"].as_str().unwrap_or_default())
}

async fn events_are_messages(cluster: &Cluster, admin: &mut Peer) {
    let answer = asked(cluster.bare().await, &format!("{SECRETS}?watch=1"), &[("sec-websocket-protocol", "any")]).await;
    assert_eq!(answer.headers()[header::SEC_WEBSOCKET_PROTOCOL], "any");
    let mut all = socket(answer).await;
    let mut bytes = socket(asked(cluster.bare().await, &format!("{SECRETS}?watch=1"), &[("accept", PROTOBUF)]).await).await;
    for name in ["a", "b"] {
        admin.post(SECRETS, json!({"metadata": {"name": name}})).await;
    }
    assert_eq!([told(&event(&mut all).await), told(&event(&mut all).await)], [("ADDED", "a"), ("ADDED", "b")]);
    let Message::Binary(first) = next(&mut bytes).await else { panic!("bytes") };
    // `WatchEvent.type`, and in its second field the object in its envelope: no length before it.
    assert!(first.starts_with(b"\x0a\x05ADDED\x12"), "{first:?}");
    assert!(first.windows(4).any(|four| four == MAGIC));
    // It ends with the time it was asked for, and says that this was meant to be.
    let mut brief = socket(asked(cluster.bare().await, &format!("{SECRETS}?watch=1&resourceVersion=0&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&timeoutSeconds=1"), &[]).await).await;
    assert_eq!([told(&event(&mut brief).await), told(&event(&mut brief).await)], [("ADDED", "a"), ("ADDED", "b")]);
    let marks = [event(&mut brief).await, event(&mut brief).await];
    assert_eq!(marks.each_ref().map(|mark| told(mark).0), ["BOOKMARK", "BOOKMARK"], "the end of the beginning, and the end");
    let Message::Close(Some(frame)) = next(&mut brief).await else { panic!("an end") };
    assert_eq!(frame.code, CloseCode::Normal);
    // What is too old is an event, as everywhere.
    let mut old = socket(asked(cluster.bare().await, &format!("{SECRETS}?watch=1&resourceVersion=999999999"), &[]).await).await;
    let error = event(&mut old).await;
    assert_eq!((error["type"].as_str(), error["object"]["kind"].as_str()), (Some("ERROR"), Some("Status")), "{error}");
    assert!(matches!(next(&mut old).await, Message::Close(_)));
    // A client that leaves is answered, and left.
    all.close(None).await.expect("a goodbye");
    assert!(matches!(next(&mut all).await, Message::Close(_)));
    assert!(timeout(PATIENCE, all.next()).await.expect("an end in time").is_none_or(|said| said.is_err()));
}

async fn refusals_are_answers(cluster: &Cluster) {
    let refused = async |path: &str, headers: &[(&str, &str)]| {
        let answer = asked(cluster.bare().await, path, headers).await;
        let code = answer.status().as_u16();
        let body = answer.into_body().collect().await.expect("a body").to_bytes();
        (code, serde_json::from_slice::<Value>(&body).expect("a Status")["message"].as_str().unwrap_or_default().to_owned())
    };
    let (code, why) = refused(&format!("{SECRETS}?watch=1"), &[("sec-websocket-protocol", "a, b")]).await;
    assert!(code == 400 && why.contains("at most"), "{code} {why}");
    let (code, why) = refused(&format!("{SECRETS}?watch=1&labelSelector=a%20b"), &[]).await;
    assert_eq!(code, 400, "{why}");
    // What is no watch is answered as it is without the wish.
    let list = asked(cluster.bare().await, SECRETS, &[]).await;
    assert_eq!(list.status(), 200);
    let nobody = asked(cluster.bare_nobody().await, &format!("{SECRETS}?watch=1"), &[]).await;
    assert_eq!(nobody.status(), 403);
}

async fn tokens_are_protocols(cluster: &Cluster, admin: &mut Peer) {
    let accounts = "/api/v1/namespaces/sockets/serviceaccounts";
    admin.post(accounts, json!({"metadata": {"name": "page"}})).await;
    let token =
        admin.post(&format!("{accounts}/page/token"), json!({"spec": {}})).await.body["status"]["token"].as_str().expect("a token").to_owned();
    let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "admin"});
    let subject = json!({"kind": "ServiceAccount", "name": "page", "namespace": "sockets"});
    let bindings = "/apis/rbac.authorization.k8s.io/v1/namespaces/sockets/rolebindings";
    let bound = admin.post(bindings, json!({"metadata": {"name": "page"}, "roleRef": role, "subjects": [subject]})).await;
    assert_eq!(bound.code, 201, "{}", bound.body);
    let word = format!("base64url.bearer.authorization.k8s.io.{}", URL_SAFE_NO_PAD.encode(token));
    let watch =
        async |protocols: &str| asked(cluster.bare_nobody().await, &format!("{SECRETS}?watch=1"), &[("sec-websocket-protocol", protocols)]).await;
    let answer = eventually(async || watch(&format!("{word}, page.example.com")).await, |answer| answer.status() == 101).await;
    assert_eq!(answer.headers()[header::SEC_WEBSOCKET_PROTOCOL], "page.example.com");
    assert_eq!(told(&event(&mut socket(answer).await).await), ("ADDED", "a"));
    for bad in [word.clone(), format!("{word}x, page.example.com"), format!("{word}, {word}, page.example.com")] {
        assert_eq!(watch(&bad).await.status(), 401, "{bad}");
    }
}
