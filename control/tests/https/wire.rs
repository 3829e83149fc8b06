//! What HTTP itself refuses, before anything of Kubernetes is looked at: heads that are too large, requests for no host.

use crate::cluster::{Cluster, Peer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

pub async fn all(cluster: &Cluster) {
    large_heads_are_refused(&mut cluster.admin().await).await;
    requests_name_their_host(cluster).await;
    documents_are_readable(&mut cluster.admin().await).await;
}

/// In lines for programs whose readers have eyes; a watch is none.
async fn documents_are_readable(admin: &mut Peer) {
    let list = "/api/v1/namespaces/default/configmaps";
    let compact = admin.get(list).await;
    admin.headers = vec![("user-agent".into(), "curl/8.5.0".into())];
    for path in [list, "/version", "/api/v1/namespaces/none/configmaps/none"] {
        let answer = admin.get(path).await;
        assert!(answer.body.is_object() && answer.bytes.starts_with(b"{\n  \"") && answer.bytes.ends_with(b"\n}"), "{path}: {:?}", answer.bytes);
    }
    assert_eq!(admin.get(&format!("{list}?pretty=false")).await.bytes, compact.bytes);
    let event = admin.watch(&format!("{list}?watch=1")).await.next().await.expect("an event in a line");
    assert_eq!(event["type"], "ADDED");
    admin.headers.clear();
    assert!(admin.get(&format!("{list}?pretty=true")).await.bytes.starts_with(b"{\n  \""));
}

/// Over HTTP/2, where the connection is others' too: it goes on.
async fn large_heads_are_refused(admin: &mut Peer) {
    let one = |bytes: usize| vec![("x-long".to_owned(), "x".repeat(bytes))];
    let many = |bytes: usize| (0..bytes / 100).map(|at| (format!("x-long-{at}"), "x".repeat(60))).collect::<Vec<_>>();
    for size in [130 << 10, 170 << 10] {
        for headers in [one(size), many(size)] {
            let count = headers.len();
            admin.headers = headers;
            assert_eq!(admin.get("/version").await.code, 431, "{size} bytes in {count}");
            admin.headers.clear();
            assert_eq!(admin.get("/version").await.code, 200, "after {size} bytes in {count}");
        }
    }
    admin.headers = one(100 << 10);
    assert_eq!(admin.get("/version").await.code, 200);
}

async fn requests_name_their_host(cluster: &Cluster) {
    let asked = async |head: &str| {
        let mut stream = cluster.bare().await;
        stream.write_all(format!("GET /version {head}\r\n\r\n").as_bytes()).await.expect("written");
        let mut answer = String::new();
        // What ends without a goodbye is still an answer.
        _ = stream.read_to_string(&mut answer).await;
        answer
    };
    let nowhere = asked("HTTP/1.1").await;
    assert!(nowhere.starts_with("HTTP/1.1 400 Bad Request\r\n") && nowhere.ends_with("400 Bad Request: missing required Host header"), "{nowhere}");
    assert!(nowhere.contains("connection: close"), "{nowhere}");
    assert!(asked("HTTP/1.1\r\nHost: a\r\nHost: a").await.ends_with("too many Host headers"));
    assert!(asked("HTTP/1.0").await.starts_with("HTTP/1.0 200 OK"));
    assert!(asked("HTTP/1.1\r\nHost: localhost\r\nConnection: close").await.starts_with("HTTP/1.1 200 OK"));
}
