use super::*;
use coracle_link::pki::Authority;
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
};

/// Answers each connection with what `answer` makes of its request; its port.
async fn server(answer: impl Fn(&str) -> String + Send + Sync + 'static, tls: Option<tokio_rustls::TlsAcceptor>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            match &tls {
                None => serve(stream, &answer).await,
                Some(acceptor) => {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        serve(stream, &answer).await;
                    }
                }
            }
        }
    });
    port
}

async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, answer: &impl Fn(&str) -> String) {
    let mut request = vec![0; 1024];
    let n = stream.read(&mut request).await.unwrap_or(0);
    let answer = answer(&String::from_utf8_lossy(&request[..n]));
    if answer.is_empty() {
        std::future::pending::<()>().await;
    }
    let _ = stream.write_all(answer.as_bytes()).await;
    let _ = stream.shutdown().await;
}

async fn run(value: Value) -> Result<Option<String>, String> {
    let outcome = probe(&Container::default(), &serde_json::from_value(value).unwrap(), [127, 0, 0, 1].into(), None).await;
    outcome.map_err(|why| match why {
        Trouble::Failed(why) | Trouble::Unknown(why) => why,
    })
}

fn always(answer: &'static str) -> impl Fn(&str) -> String {
    move |_| answer.to_owned()
}

#[tokio::test]
async fn http_codes_and_words() {
    let port = server(always("HTTP/1.1 204 No Content\r\n\r\n"), None).await;
    assert_eq!(run(json!({ "httpGet": { "path": "/x", "port": port } })).await, Ok(None));
    assert_eq!(run(json!({ "tcpSocket": { "port": port } })).await, Ok(None));
    let port = server(always("HTTP/1.1 500 Oops\r\nContent-Length: 2\r\n\r\nno"), None).await;
    assert_eq!(run(json!({ "httpGet": { "port": port } })).await.unwrap_err(), "HTTP probe failed with statuscode: 500");
}

#[tokio::test]
async fn refused_silent_and_unknown_ports() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let error = run(json!({ "httpGet": { "path": "/", "port": closed } })).await.unwrap_err();
    assert_eq!(error, format!("Get \"http://127.0.0.1:{closed}/\": dial tcp 127.0.0.1:{closed}: connect: connection refused"));
    let silent = server(always(""), None).await;
    let error = run(json!({ "httpGet": { "port": silent }, "timeoutSeconds": 1 })).await.unwrap_err();
    assert!(error.contains("context deadline exceeded"), "{error}");
    assert!(run(json!({ "tcpSocket": { "port": "web" } })).await.unwrap_err().contains("couldn't find port"));
}

#[tokio::test]
async fn what_is_sent_is_what_kubelet_sends() {
    let seen = |path: &'static str, headers: Value| async move {
        let (sender, mut requests) = tokio::sync::mpsc::unbounded_channel();
        let answer = move |request: &str| {
            sender.send(request.to_lowercase()).unwrap();
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_owned()
        };
        let port = server(answer, None).await;
        run(json!({ "httpGet": { "path": path, "port": port, "httpHeaders": headers } })).await.unwrap();
        (port, requests.recv().await.unwrap())
    };
    let (port, request) = seen("a b?c=d#e", json!([])).await;
    assert!(request.starts_with("get /a%20b?c=d"), "{request}");
    for line in [&format!("host: 127.0.0.1:{port}\r\n"), "user-agent: kube-probe/1.36\r\n", "accept: */*\r\n", "connection: close\r\n"] {
        assert!(request.contains(line), "{line:?} in {request}");
    }
    let headers =
        json!([{ "name": "Host", "value": "web" }, { "name": "accept", "value": "" }, { "name": "X", "value": "1" }, { "name": "X", "value": "2" }]);
    let (_, request) = seen("//evil.example/x", headers).await;
    assert!(request.starts_with("get //evil.example/x ") && request.contains("host: web\r\n") && !request.contains("accept:"), "{request}");
    assert_eq!(request.matches("\r\nx: ").count(), 2, "{request}");
}

#[tokio::test]
async fn redirects_are_followed_on_the_same_host_only() {
    let to = |location: &str| format!("HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n");
    let answer = move |request: &str| match request.split(' ').nth(1).unwrap_or_default() {
        "/near" => to("/gone?x"),
        "/far" => to("http://0.0.0.0/"),
        "/round" => to("round"),
        "/bare" => "HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n".to_owned(),
        _ => "HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n".to_owned(),
    };
    let port = server(answer, None).await;
    let get = |path: &str| run(json!({ "httpGet": { "path": path, "port": port } }));
    assert_eq!(get("/near").await.unwrap_err(), "HTTP probe failed with statuscode: 410");
    assert_eq!(get("/far").await, Ok(Some("Probe terminated redirects".into())));
    assert_eq!(get("/bare").await, Ok(None));
    let error = get("/round").await.unwrap_err();
    assert!(error.ends_with("stopped after 10 redirects"), "{error}");
}

#[tokio::test]
async fn https_takes_any_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::open(dir.path()).unwrap();
    // For another name, by an authority that nobody knows.
    let pair = authority.server(&["elsewhere.example".to_string()], Duration::from_secs(3600)).unwrap();
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
    let chain = CertificateDer::pem_slice_iter(pair.cert_pem.as_bytes()).collect::<Result<Vec<_>, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_slice(pair.key_pem.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = Arc::new(config.with_no_client_auth().with_single_cert(chain, key).unwrap());
    let port = server(always("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), Some(config.into())).await;
    assert_eq!(run(json!({ "httpGet": { "port": port, "scheme": "HTTPS" } })).await, Ok(None));
    let plain = server(always("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), None).await;
    let error = run(json!({ "httpGet": { "port": plain, "scheme": "HTTPS" } })).await.unwrap_err();
    assert_eq!(error, format!("Get \"https://127.0.0.1:{plain}/\": http: server gave HTTP response to HTTPS client"));
}
