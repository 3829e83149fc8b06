//! A webhook over TLS in this process: what it answers is in the path it is called by. Not every test file uses all of it.

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use coracle_link::pki::Authority;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::net::{TcpListener, UdpSocket};
use tokio_rustls::TlsAcceptor;

const DAY: Duration = Duration::from_secs(86_400);

/// What upstream's test server looks for in labels and data.
const MARK: &str = "webhook-e2e-test";

/// Reviews with the paths they came by.
type Log = Arc<Mutex<Vec<(String, Value)>>>;

pub struct Server {
    address: SocketAddr,
    bundle: String,
    log: Log,
}

fn authority() -> Authority {
    let dir = tempfile::tempdir().expect("a directory");
    Authority::open(dir.path()).expect("an authority")
}

/// An address of this host that is not loopback's, if it has one: where packets to the outside would come from. Nothing is sent.
async fn host_address() -> Option<std::net::IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").await.ok()?;
    socket.connect("192.0.2.1:9").await.ok()?;
    socket.local_addr().ok().map(|address| address.ip())
}

impl Server {
    /// TLS under these names, by an authority of its own.
    pub fn tls(names: &[String]) -> (Arc<rustls::ServerConfig>, Authority) {
        let authority = authority();
        let (chain, key) = authority.server(names, DAY).expect("a certificate").to_der().expect("a key pair");
        let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("protocols")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("a certificate");
        (Arc::new(config), authority)
    }

    pub async fn start() -> Server {
        let ip = host_address().await.unwrap_or([127, 0, 0, 1].into());
        let (config, authority) = Self::tls(&[ip.to_string(), "hook.default.svc".to_string()]);
        let listener = TcpListener::bind((ip, 0)).await.expect("an address");
        let address = listener.local_addr().expect("an address");
        let (acceptor, log) = (TlsAcceptor::from(config), Log::default());
        let seen = log.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, seen) = (acceptor.clone(), seen.clone());
                tokio::spawn(async move {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        let service = service_fn(move |request| serve(request, seen.clone()));
                        let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                    }
                });
            }
        });
        Server { address, bundle: STANDARD.encode(authority.ca_pem()), log }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn bundle(&self) -> &str {
        &self.bundle
    }

    /// Somebody else's `caBundle`.
    pub fn another_authority() -> Value {
        STANDARD.encode(authority().ca_pem()).into()
    }

    /// A `clientConfig` that leads to a path of this server.
    pub fn config(&self, path: &str) -> Value {
        json!({"url": format!("https://{}{path}", self.address), "caBundle": self.bundle})
    }

    /// The last review about an object of this name that came by a path.
    pub fn review(&self, path: &str, name: &str) -> Value {
        let log = self.log.lock();
        log.iter().rev().find(|(by, review)| by == path && review["request"]["name"] == name).map(|(_, review)| review.clone()).unwrap_or_default()
    }

    /// Its request.
    pub fn last(&self, path: &str, name: &str) -> Value {
        self.review(path, name)["request"].clone()
    }

    pub fn count(&self, path: &str) -> usize {
        self.log.lock().iter().filter(|(by, _)| by == path).count()
    }
}

async fn serve(request: Request<Incoming>, log: Log) -> Result<Response<Full<Bytes>>, io::Error> {
    let path = request.uri().path().to_string();
    let body = request.into_body().collect().await.map_err(io::Error::other)?.to_bytes();
    let review: Value = serde_json::from_slice(&body).unwrap_or_default();
    log.lock().push((path.clone(), review.clone()));
    let response = |code: u16, body: String| Ok(Response::builder().status(code).body(Full::from(body)).expect("a response"));
    if path == "/slow" {
        tokio::time::sleep(Duration::from_millis(1_500)).await;
    }
    match path.as_str() {
        "/unwanted" if review["request"]["object"]["metadata"]["labels"][MARK] == "wait" => match std::future::pending::<Infallible>().await {},
        "/hang" => match std::future::pending::<Infallible>().await {},
        "/garbage" => response(200, "<html>".into()),
        "/huge" => response(200, "x".repeat(5 << 20)),
        "/broken" => response(500, "out of order".into()),
        "/closed" => Err(io::ErrorKind::ConnectionAborted.into()),
        "/crdconvert" => response(200, converted(&review).to_string()),
        _ => response(200, answer(&path, &review).to_string()),
    }
}

/// A `ConversionReview` between a version with `hostPort` and one with `host` and `port`, as upstream's test server answers it.
fn converted(review: &Value) -> Value {
    let request = &review["request"];
    let to_second = request["desiredAPIVersion"].as_str().is_some_and(|version| version.ends_with("/v2"));
    let convert = |object: &Value| {
        let mut object = object.clone();
        object["apiVersion"] = request["desiredAPIVersion"].clone();
        let Some(fields) = object.as_object_mut() else { return object };
        let mut take = |field: &str| fields.remove(field).and_then(|value| value.as_str().map(str::to_owned));
        let (joined, host, port) = (take("hostPort"), take("host"), take("port"));
        match to_second {
            true => {
                if let Some((host, port)) = joined.as_deref().and_then(|joined| joined.split_once(':')) {
                    fields.insert("host".into(), host.into());
                    fields.insert("port".into(), port.into());
                }
            }
            false if host.is_some() || port.is_some() => {
                fields.insert("hostPort".into(), format!("{}:{}", host.unwrap_or_default(), port.unwrap_or_default()).into());
            }
            false => {}
        }
        object
    };
    let objects: Vec<Value> = request["objects"].as_array().into_iter().flatten().map(convert).collect();
    let response = json!({"uid": request["uid"], "convertedObjects": objects, "result": {"status": "Success"}});
    json!({"kind": "ConversionReview", "apiVersion": review["apiVersion"], "response": response})
}

fn answer(path: &str, review: &Value) -> Value {
    let request = &review["request"];
    let name = request["name"].as_str().unwrap_or_default();
    let mut response = json!({"uid": request["uid"], "allowed": true});
    let patch = |operations: Value| json!({"patchType": "JSONPatch", "patch": STANDARD.encode(operations.to_string())});
    let mut version = review["apiVersion"].clone();
    match path {
        "/deny" => match name {
            "denied" => {
                response["status"] = json!({"code": 403, "reason": "Forbidden", "message": "this name is denied"});
                response["warnings"] = json!(["no name like this"]);
            }
            "fine" => response["warnings"] = json!(["think twice"]),
            _ => {}
        },
        "/note" => response["auditAnnotations"] = json!({"seen": "yes"}),
        "/unwanted" => {
            if let Some(why) = unwanted(name, request) {
                response["status"] = json!({"message": why});
                response["allowed"] = json!(false);
            }
        }
        "/stage-1" | "/stage-2" => {
            let (after, adds) = if path == "/stage-1" { ("mutation-start", "mutation-stage-1") } else { ("mutation-stage-1", "mutation-stage-2") };
            if request["object"]["data"][after] == "yes" {
                add(&mut response, patch(json!([{"op": "add", "path": format!("/data/{adds}"), "value": "yes"}])));
            }
        }
        "/wrong-uid" => response["uid"] = json!("another"),
        "/wrong-version" => version = json!("admission.k8s.io/v7"),
        "/empty" => response = Value::Null,
        "/patch" => add(&mut response, patch(json!([{"op": "add", "path": "/data/x", "value": "y"}]))),
        "/mutate" => add(&mut response, patch(mutation(name, request))),
        "/step/first" | "/step/second" => {
            let step = path.trim_start_matches("/step/");
            let steps = match request["object"]["data"]["steps"].as_str() {
                Some(before) => format!("{before} {step}"),
                None => step.to_string(),
            };
            add(&mut response, patch(json!([{"op": "add", "path": "/data/steps", "value": steps}])));
        }
        _ => {}
    }
    let refused = match path {
        "/never" => true,
        "/deny" => name == "denied" || (name == "kept" && request["operation"] == "DELETE"),
        _ => false,
    };
    if refused {
        response["allowed"] = json!(false);
    }
    json!({"kind": "AdmissionReview", "apiVersion": version, "response": response})
}

/// Why upstream's test server refuses something.
fn unwanted(name: &str, request: &Value) -> Option<String> {
    let (object, old) = (&request["object"], &request["oldObject"]);
    let labelled = object["metadata"]["labels"][MARK] == "webhook-disallow";
    let kind = request["kind"]["kind"].as_str().unwrap_or_default();
    match kind {
        "PodAttachOptions" => Some(format!("attaching to pod '{name}' is not allowed")),
        "Pod" => {
            let container = object["spec"]["containers"].as_array().is_some_and(|all| all.iter().any(|one| one["name"] == "webhook-disallow"));
            let why = [(container, "the pod contains unwanted container name; "), (labelled, "the pod contains unwanted label; ")];
            Some(why.iter().filter(|(is, _)| *is).map(|(_, text)| *text).collect::<String>()).filter(|text| !text.is_empty())
        }
        "CustomResourceDefinition" => labelled.then(|| "the crd contains unwanted label".into()),
        _ if request["operation"] == "DELETE" => (old["data"][MARK] == "webhook-nondeletable")
            .then(|| "the custom resource cannot be deleted because it contains unwanted key and value".into()),
        "ConfigMap" => (object["data"][MARK] == "webhook-disallow").then(|| "the configmap contains unwanted key and value".into()),
        _ => (object["data"][MARK] == "webhook-disallow").then(|| "the custom resource contains unwanted data".into()),
    }
}

fn add(response: &mut Value, more: Value) {
    for (name, value) in more.as_object().into_iter().flatten() {
        response[name] = value.clone();
    }
}

fn mutation(name: &str, request: &Value) -> Value {
    if request["kind"]["kind"] == "Pod" {
        return json!([{"op": "add", "path": "/spec/initContainers", "value": [{"name": "added", "image": "i"}]}]);
    }
    match name {
        "invalid" => json!([{"op": "add", "path": "/data/a key", "value": "x"}]),
        "forged" => json!([{"op": "add", "path": "/metadata/uid", "value": "forged"}]),
        "moved" => json!([{"op": "add", "path": "/metadata/namespace", "value": "default"}]),
        "mistyped" => json!([{"op": "replace", "path": "/data", "value": "x"}]),
        "untestable" => json!([{"op": "test", "path": "/data/k", "value": "another"}]),
        _ => json!([{"op": "add", "path": "/data/mutated", "value": request["operation"]}, {"op": "add", "path": "/pruned", "value": true}]),
    }
}
