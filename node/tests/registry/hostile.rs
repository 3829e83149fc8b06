//! Images against registries of our own that do what no registry should.

use super::{Node, WASM, content, keyring};
use coracle_node::images::{Images, Options, credentials::Keyring};
use sha2::{Digest, Sha256};
use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};

enum Body {
    Whole(Vec<u8>),
    Endless,
}

type Reply = (&'static str, String, Body);

/// A server that answers (target, authorization) as `answer` says; its address, and a count of the bytes of endless bodies.
async fn serve(answer: impl Fn(&str, &str, &str) -> Reply + Send + Sync + 'static) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (sent, answer, own) = (Arc::new(AtomicUsize::new(0)), Arc::new(answer), address.clone());
    let count = sent.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (answer, count, own) = (answer.clone(), count.clone(), own.clone());
            tokio::spawn(async move { converse(stream, &own, &*answer, &count).await });
        }
    });
    (address, sent)
}

async fn converse(stream: TcpStream, own: &str, answer: &(dyn Fn(&str, &str, &str) -> Reply + Send + Sync), sent: &AtomicUsize) -> Option<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let (mut target, mut authorization, mut line) = (String::new(), String::new(), String::new());
        loop {
            line.clear();
            if stream.read_line(&mut line).await.ok()? == 0 {
                return None;
            }
            let text = line.trim_end();
            if text.is_empty() {
                break;
            }
            if let Some(value) = text.to_lowercase().strip_prefix("authorization: ") {
                authorization = text[text.len() - value.len()..].to_owned();
            } else if let Some(rest) = text.strip_prefix("GET ") {
                target = rest.split(' ').next()?.to_owned();
            }
        }
        let (status, headers, body) = answer(own, &target, &authorization);
        match body {
            Body::Whole(bytes) => {
                let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n{headers}\r\n", bytes.len());
                stream.write_all(head.as_bytes()).await.ok()?;
                stream.write_all(&bytes).await.ok()?;
            }
            Body::Endless => {
                stream.write_all(format!("HTTP/1.1 {status}\r\nconnection: close\r\n{headers}\r\n").as_bytes()).await.ok()?;
                let part = vec![b' '; 64 << 10];
                loop {
                    stream.write_all(&part).await.ok()?;
                    sent.fetch_add(part.len(), Relaxed);
                }
            }
        }
    }
}

fn digest(content: &[u8]) -> String {
    format!("sha256:{}", Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

fn manifest(layers: &[(&str, &str, usize)]) -> Vec<u8> {
    let layers: Vec<_> = layers.iter().map(|(kind, digest, size)| serde_json::json!({ "mediaType": kind, "digest": digest, "size": size })).collect();
    let config = serde_json::json!({ "mediaType": "application/vnd.wasm.config.v0+json", "digest": digest(b"{}"), "size": 2 });
    let json =
        serde_json::json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": layers });
    json.to_string().into_bytes()
}

const TAR: &str = "application/vnd.oci.image.layer.v1.tar";

fn found(body: Vec<u8>) -> Reply {
    ("200 OK", String::new(), Body::Whole(body))
}

fn missing() -> Reply {
    ("404 Not Found", String::new(), Body::Whole(br#"{"errors":[{"code":"BLOB_UNKNOWN","message":"blob unknown to registry"}]}"#.to_vec()))
}

fn kept(node: &Node) -> usize {
    fs::read_dir(node.dir.path().join("images/blobs/sha256")).unwrap().count()
}

async fn refused(address: &str, options: Options) -> String {
    let error = Images::open(options).unwrap().pull(&format!("{address}/a:v1"), Keyring::default()).await.unwrap_err();
    assert_eq!(error.reason, "ErrImagePull");
    error.message
}

#[tokio::test]
async fn endless_answers_are_not_read_to_an_end() {
    let node = Node::new();
    let challenge = |own: &str| format!("www-authenticate: Bearer realm=\"http://{own}/token\",service=\"x\"\r\n");
    let manifest_of = |layer: &str, size: usize| manifest(&[("application/wasm", layer, size)]);
    let blob = digest(WASM);
    let asked = blob.clone();
    let cases: Vec<(&str, (String, Arc<AtomicUsize>))> = vec![
        ("allowed", serve(|_, _, _| ("200 OK", String::new(), Body::Endless)).await),
        ("404", serve(|_, _, _| ("404 Not Found", String::new(), Body::Endless)).await),
        (
            "token",
            serve(move |own, target, _| match target.starts_with("/token") {
                true => ("200 OK", String::new(), Body::Endless),
                false => ("401 Unauthorized", challenge(own), Body::Endless),
            })
            .await,
        ),
        (
            "allowed",
            serve(move |_, target, _| match target.contains("/manifests/") {
                true => found(manifest_of(&asked, WASM.len())),
                false => ("200 OK", String::new(), Body::Endless),
            })
            .await,
        ),
    ];
    for (what, (address, sent)) in cases {
        let message = refused(&address, node.options()).await;
        assert!(message.contains(what), "{message}");
        // What was sent and not taken waits in the sockets' buffers, some megabytes.
        assert!(sent.load(Relaxed) < 64 << 20, "{what}: {} bytes were sent", sent.load(Relaxed));
        assert_eq!(kept(&node), 0, "{what}");
    }
}

#[tokio::test]
async fn what_is_not_what_was_promised_is_not_kept() {
    let node = Node::new();
    let tar_of = digest(b"tar");
    // One layer comes, the other does not.
    let (first, second) = (tar_of.clone(), digest(b"nowhere"));
    let half = serve(move |_, target, _| match target {
        target if target.contains("/manifests/") => found(manifest(&[(TAR, &first, 3), (TAR, &second, 7)])),
        target if target.ends_with(&first) => found(b"tar".to_vec()),
        _ => missing(),
    });
    let message = refused(&half.await.0, node.options()).await;
    assert!(message.contains("blob unknown"), "{message}");
    assert_eq!(kept(&node), 0);
    // An index that names a digest, and another manifest behind it.
    let wanted = digest(b"another");
    let index = serde_json::json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [{ "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": wanted, "size": 4096 }] });
    let swapped = serve(move |_, target, _| match target.ends_with("/v1") {
        true => found(index.to_string().into_bytes()),
        false => found(manifest(&[("application/wasm", &digest(WASM), WASM.len())])),
    });
    let message = refused(&swapped.await.0, node.options()).await;
    assert!(message.contains(&format!("answered for {wanted}")), "{message}");
    assert_eq!(kept(&node), 0);
    // Layers that are more than a disk.
    let large = serve(move |_, _, _| found(manifest(&[(TAR, &digest(b"1"), 1 << 30), (TAR, &digest(b"2"), 1 << 30), (TAR, &digest(b"3"), 1 << 30)])));
    let message = refused(&large.await.0, node.options()).await;
    assert!(message.contains("together"), "{message}");
    assert_eq!(kept(&node), 0);
}

#[tokio::test]
async fn tokens_are_got_with_the_credentials_and_used() {
    let layer = digest(WASM);
    let server = serve(move |own, target, authorization| {
        if let Some(query) = target.strip_prefix("/token?") {
            // user:secret
            return match authorization {
                "Basic dXNlcjpzZWNyZXQ=" if query.contains("scope=repository%3Ateam%2Fa%3Apull") && query.contains("service=r") => {
                    found(br#"{"access_token":"good"}"#.to_vec())
                }
                _ => ("401 Unauthorized", String::new(), Body::Whole(br#"{"errors":[{"code":"UNAUTHORIZED"}]}"#.to_vec())),
            };
        }
        match (authorization, target.contains("/manifests/")) {
            ("Bearer good", true) => found(manifest(&[("application/wasm", &layer, WASM.len())])),
            ("Bearer good", false) => found(WASM.to_vec()),
            _ => ("401 Unauthorized", format!("www-authenticate: Bearer realm=\"http://{own}/token\",service=\"r\"\r\n"), Body::Whole(Vec::new())),
        }
    });
    let (address, _) = server.await;
    let node = Node::new();
    let name = format!("{address}/team/a:v1");
    let mut both = keyring(&address, "user", "secret");
    assert_eq!(content(&node.images().pull(&name, both.clone()).await.unwrap().image), WASM);
    let wrong = node.images().pull(&name, keyring(&address, "user", "wrong")).await.unwrap_err();
    assert!(wrong.message.contains("401") && wrong.message.contains("UNAUTHORIZED"), "{wrong}");
    // The more specific one is tried first and is wrong; the other is right.
    let specific = serde_json::json!({ "auths": { format!("{address}/team"): { "username": "user", "password": "wrong" } } });
    both.add(&[(".dockerconfigjson".to_owned(), specific.to_string().into_bytes())].into());
    assert_eq!(content(&Node::new().images().pull(&name, both).await.unwrap().image), WASM);
}
