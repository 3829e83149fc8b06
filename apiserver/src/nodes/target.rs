//! Where a proxied request goes: a pod's port, found by name through the pod or through a Service's endpoint slices.

use super::logs::Pod;
use coracle_api::status::Status;
use coracle_store::{Key, Snapshot};
use serde::Deserialize;

/// `[scheme:]name[:port]`, as in `services/http:web:8080/proxy`.
#[derive(Debug, PartialEq, Eq)]
pub struct Name<'a> {
    /// `http`, `https` or empty.
    pub scheme: &'a str,
    /// The object's name.
    pub name: &'a str,
    /// A port's number or name; empty for the default.
    pub port: &'a str,
}

/// Splits the name segment of a proxy path.
///
/// # Errors
/// 400 for anything else.
pub fn split(id: &str) -> Result<Name<'_>, Status> {
    let parts: Vec<&str> = id.split(':').collect();
    let name = match parts[..] {
        [name] => Name { scheme: "", name, port: "" },
        [name, port] if !port.is_empty() => Name { scheme: "", name, port },
        [scheme @ ("" | "http" | "https"), name, port] => Name { scheme, name, port },
        _ => return Err(Status::bad_request(format!("invalid request {id:?}: want [scheme:]name[:port] with scheme http or https"))),
    };
    match name.name.is_empty() {
        true => Err(Status::bad_request(format!("invalid request {id:?}: the name is empty"))),
        false => Ok(name),
    }
}

/// A TCP port of a running pod.
#[derive(Debug, PartialEq, Eq)]
pub struct Target {
    /// Where it runs.
    pub node: String,
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The pod's uid.
    pub uid: String,
    /// The port on the pod's address.
    pub port: u16,
}

fn unavailable(why: String) -> Status {
    Status::new(503, "ServiceUnavailable", why)
}

/// A pod's port by number or name; by default its first.
///
/// # Errors
/// 404, 400 for a port it does not have, 503 when it is on no node.
pub fn pod(snapshot: &Snapshot, namespace: &str, to: &Name<'_>) -> Result<Target, Status> {
    let object = snapshot.get(&Key::new("pods", namespace, to.name)).ok_or_else(|| Status::not_found("", "pods", to.name))?;
    let pod: Pod = serde_json::from_slice(&object.json).map_err(Status::internal)?;
    if pod.spec.node_name.is_empty() {
        return Err(unavailable(format!("pod {:?} is not scheduled yet", to.name)));
    }
    let mut ports = pod.spec.containers.iter().flat_map(|c| &c.ports);
    let port = match to.port {
        "" => ports.next().map_or(80, |p| p.container_port),
        named => match named.parse::<u16>() {
            Ok(port) => port,
            Err(_) => ports
                .find(|p| p.name == named)
                .map(|p| p.container_port)
                .ok_or_else(|| Status::bad_request(format!("pod {:?} has no port named {named:?}", to.name)))?,
        },
    };
    Ok(Target { node: pod.spec.node_name, namespace: namespace.into(), pod: to.name.into(), uid: object.meta.uid.to_string(), port })
}

#[derive(Deserialize)]
struct Service {
    spec: ServiceSpec,
}
#[derive(Deserialize, Default)]
#[serde(default)]
struct ServiceSpec {
    ports: Vec<ServicePort>,
}
#[derive(Deserialize, Default)]
#[serde(default)]
struct ServicePort {
    name: String,
    port: u16,
}
#[derive(Deserialize, Default)]
#[serde(default)]
struct Endpoints {
    endpoints: Option<Vec<Endpoint>>,
    ports: Option<Vec<EndpointPort>>,
}
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Endpoint {
    addresses: Vec<String>,
    conditions: Conditions,
    target_ref: Option<TargetRef>,
}
#[derive(Deserialize, Default)]
#[serde(default)]
struct Conditions {
    ready: Option<bool>,
}
#[derive(Deserialize, Default)]
#[serde(default)]
struct TargetRef {
    kind: String,
    name: String,
}
#[derive(Deserialize, Default)]
#[serde(default)]
struct EndpointPort {
    name: Option<String>,
    port: Option<u16>,
}

/// Where one endpoint of a Service is.
#[derive(Debug, PartialEq, Eq)]
pub enum Reached {
    /// A pod, to be reached through its node.
    Pod(Target),
    /// `address:port` of something that is no pod.
    Address(String),
}

/// A ready pod behind a Service's port (by number or name; a single port needs neither). `choose` picks one of that many.
///
/// # Errors
/// 404, 503 for a port it does not have and for no ready endpoint.
pub fn service(snapshot: &Snapshot, namespace: &str, to: &Name<'_>, choose: impl FnOnce(usize) -> usize) -> Result<Target, Status> {
    let (mut ready, none) = endpoints(snapshot, namespace, to)?;
    ready.retain(|(endpoint, _)| endpoint.pod().is_some());
    match pick(snapshot, namespace, to, ready, none, choose)? {
        Reached::Pod(target) => Ok(target),
        Reached::Address(_) => Err(Status::internal("an endpoint changed its kind")),
    }
}

/// As [`service`], of any endpoints: those that are no pods too.
///
/// # Errors
/// As [`service`].
pub fn any(snapshot: &Snapshot, namespace: &str, to: &Name<'_>, choose: impl FnOnce(usize) -> usize) -> Result<Reached, Status> {
    let (ready, none) = endpoints(snapshot, namespace, to)?;
    pick(snapshot, namespace, to, ready, none, choose)
}

fn pick(
    snapshot: &Snapshot,
    namespace: &str,
    to: &Name<'_>,
    mut ready: Vec<(Endpoint, u16)>,
    none: Status,
    choose: impl FnOnce(usize) -> usize,
) -> Result<Reached, Status> {
    if ready.is_empty() {
        return Err(none);
    }
    let chosen = choose(ready.len()) % ready.len();
    let (endpoint, port) = ready.swap_remove(chosen);
    match (endpoint.pod(), endpoint.addresses.first()) {
        (Some(name), _) => pod(snapshot, namespace, &Name { scheme: to.scheme, name, port: &port.to_string() }).map(Reached::Pod),
        (None, Some(address)) if address.contains(':') => Ok(Reached::Address(format!("[{address}]:{port}"))),
        (None, Some(address)) => Ok(Reached::Address(format!("{address}:{port}"))),
        (None, None) => Err(none),
    }
}

/// The ready endpoints behind a Service's port, and what is said when there are none.
fn endpoints(snapshot: &Snapshot, namespace: &str, to: &Name<'_>) -> Result<(Vec<(Endpoint, u16)>, Status), Status> {
    let object = snapshot.get(&Key::new("services", namespace, to.name)).ok_or_else(|| Status::not_found("", "services", to.name))?;
    let service: Service = serde_json::from_slice(&object.json).map_err(Status::internal)?;
    let wanted = match (to.port, &service.spec.ports[..]) {
        ("", [only]) => only.name.as_str(),
        (port, ports) => match port.parse::<u16>() {
            Ok(number) => ports
                .iter()
                .find(|p| p.port == number)
                .map(|p| p.name.as_str())
                .ok_or_else(|| unavailable(format!("no service port {number} found for service {:?}", to.name)))?,
            Err(_) => port,
        },
    };
    let mut ready = Vec::new();
    let mine = |meta: &coracle_store::Meta| meta.labels.iter().any(|(k, v)| &**k == "kubernetes.io/service-name" && &**v == to.name);
    for slice in snapshot.range("endpointslices.discovery.k8s.io", Some(namespace), None).filter(|s| mine(&s.meta)) {
        let Ok(slice) = serde_json::from_slice::<Endpoints>(&slice.json) else { continue };
        let Some(port) = slice.ports.iter().flatten().find(|p| p.name.as_deref().unwrap_or_default() == wanted).and_then(|p| p.port) else {
            continue;
        };
        let serving = slice.endpoints.into_iter().flatten().filter(|e| e.conditions.ready != Some(false));
        ready.extend(serving.map(|endpoint| (endpoint, port)));
    }
    Ok((ready, unavailable(format!("no endpoints available for service {:?}", to.name))))
}

impl Endpoint {
    /// The pod it is, if it is one.
    fn pod(&self) -> Option<&str> {
        self.target_ref.as_ref().filter(|target| target.kind == "Pod").map(|target| target.name.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_split_as_upstream_splits_them() {
        let name = |scheme, name, port| Name { scheme, name, port };
        assert_eq!(split("web").unwrap(), name("", "web", ""));
        assert_eq!(split("web:80").unwrap(), name("", "web", "80"));
        assert_eq!(split("http:web:named").unwrap(), name("http", "web", "named"));
        assert_eq!(split("https:web:").unwrap(), name("https", "web", ""));
        assert_eq!(split(":web:80").unwrap(), name("", "web", "80"));
        for bad in ["", "web:", "ftp:web:80", "a:b:c:d", "http::80"] {
            assert_eq!(split(bad).unwrap_err().code, 400, "{bad}");
        }
    }
}
