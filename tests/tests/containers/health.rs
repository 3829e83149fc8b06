//! A gRPC server in a container: this program itself, in an image with the libraries it needs, answers health checks (grpc.health.v1).

use super::events;
use anyhow::{Context, ensure};
use bytes::Bytes;
use coracle_tests::{Cluster, Output, Result, archive, eventually, has};
use futures::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::{Request, Response, body::Frame, body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use std::{convert::Infallible, env, fs, process::Command};
use tokio::net::TcpListener;

/// The argument with which this program is that server.
pub const SERVE: &str = "--serve-health";
const PORT: u16 = 50051;

/// Serves for ever: as a whole it is well, its part `database` is not, and others it does not know.
pub fn serve() -> Result {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let listener = TcpListener::bind(("0.0.0.0", PORT)).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            tokio::spawn(http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service_fn(check)));
        }
    })
}

async fn check(request: Request<Incoming>) -> Result<Response<impl hyper::body::Body<Data = Bytes, Error = Infallible>>> {
    let path = request.uri().path().to_owned();
    let asked = request.into_body().collect().await?.to_bytes();
    // Five bytes of a frame's head, then field 1: its key, its length, the name.
    let service = asked.get(7..).map(String::from_utf8_lossy).unwrap_or_default();
    let (status, code) = match (&*path, &*service) {
        ("/grpc.health.v1.Health/Check", "") => (Some(1), "0"),
        ("/grpc.health.v1.Health/Check", "database") => (Some(2), "0"),
        ("/grpc.health.v1.Health/Check", _) => (None, "5"),
        _ => (None, "12"),
    };
    let answer = status.map(|status| Frame::data(Bytes::copy_from_slice(&[0, 0, 0, 0, 2, 0x08, status])));
    let mut trailers = hyper::HeaderMap::new();
    trailers.insert("grpc-status", code.parse()?);
    trailers.insert("grpc-message", "unknown%20service".parse()?);
    let frames = answer.into_iter().chain([Frame::trailers(trailers)]).map(Ok);
    Ok(Response::builder().header("content-type", "application/grpc").body(StreamBody::new(stream::iter(frames)))?)
}

/// The image of that server.
fn image(cluster: &Cluster) -> Result<&'static str> {
    const NAME: &str = "health:v1";
    let root = cluster.dir().join("health");
    let own = env::current_exe()?;
    let libraries = Output::of(Command::new("ldd").arg(&own), "")?.ok()?;
    fs::create_dir_all(root.join("bin"))?;
    fs::copy(&own, root.join("bin/health"))?;
    for library in libraries.split_whitespace().filter(|word| word.starts_with('/')) {
        let place = root.join(library.trim_start_matches('/'));
        fs::create_dir_all(place.parent().context("no folder")?)?;
        fs::copy(library, place)?;
    }
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let config = json!({ "architecture": architecture, "os": "linux", "config": { "Entrypoint": ["/bin/health", SERVE], "User": "1234:5678" } });
    let archive = archive::of(&cluster.dir(), &root, NAME, config)?;
    cluster.coracle(&["image", "import", &archive.to_string_lossy()])?.ok()?;
    Ok(NAME)
}

pub fn servers_are_asked_for_their_health(cluster: &Cluster) -> Result {
    let ns = cluster.namespace("health")?;
    let image = image(cluster)?;
    let often = |service: Value| json!({ "grpc": { "port": PORT, "service": service }, "periodSeconds": 1, "failureThreshold": 30 });
    let container = |probes: Value| {
        let mut container = json!({ "name": "main", "image": image, "imagePullPolicy": "Never" });
        container.as_object_mut().into_iter().for_each(|fields| fields.extend(probes.as_object().cloned().unwrap_or_default()));
        json!({ "terminationGracePeriodSeconds": 1, "containers": [container] })
    };
    let whole = often(Value::Null);
    for (name, probes) in [
        ("well", json!({ "startupProbe": whole, "readinessProbe": whole, "livenessProbe": whole })),
        ("ill", json!({ "readinessProbe": often(json!("database")) })),
        ("unknown", json!({ "readinessProbe": often(json!("nobody")) })),
    ] {
        cluster.apply(
            &json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "namespace": ns }, "spec": container(probes) }).to_string(),
        )?;
    }
    cluster.ready(&ns, "well")?;
    // As kubelet words them.
    for (name, words) in [
        ("ill", r#"Readiness probe failed: service unhealthy (responded with "NOT_SERVING")"#),
        ("unknown", "Readiness probe failed: error: health rpc probe failed: rpc error: code = NotFound desc = unknown service"),
    ] {
        eventually("why it is not ready", 60, || has(&events(cluster, &ns, name)?, &["Unhealthy", words]))?;
        let status = cluster.status(&ns, name)?;
        let main = &status["containerStatuses"][0];
        ensure!(main["ready"] == false && main["started"] == true && main["restartCount"] == 0, "{status}");
    }
    let status = cluster.status(&ns, "well")?;
    let main = &status["containerStatuses"][0];
    ensure!(main["ready"] == true && main["restartCount"] == 0, "{status}");
    ensure!(main["user"] == json!({ "linux": { "uid": 1234, "gid": 5678, "supplementalGroups": [5678] } }), "{status}");
    Ok(())
}
