//! What a pod contributes to a Service: an address, its state, and the numbers its named ports have there.

use crate::view::View;
use coracle_apiserver::view::{Condition, Map, Text, condition, parse};
use coracle_store::Object;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A narrow view of `core/v1 Service`.
pub type Service<'a> = View<'a, ServiceSpec<'a>>;
/// The part of `core/v1 ServiceSpec` that decides on endpoints.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceSpec<'a> {
    /// `ClusterIP`, `NodePort`, `LoadBalancer`, `ExternalName`.
    #[serde(borrow, rename = "type")]
    pub kind: Text<'a>,
    /// Labels of its pods.
    pub selector: Map<'a>,
    /// `None` for headless Services.
    #[serde(rename = "clusterIP")]
    pub cluster_ip: Text<'a>,
    /// `IPv4`, `IPv6`.
    pub ip_families: Vec<Text<'a>>,
    /// Ports.
    pub ports: Vec<ServicePort<'a>>,
    /// Pods count as ready whatever they say.
    pub publish_not_ready_addresses: bool,
}
/// `core/v1 ServicePort`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServicePort<'a> {
    /// Name; empty if there is only one.
    #[serde(borrow)]
    pub name: Text<'a>,
    /// `TCP`, `UDP`, `SCTP`.
    pub protocol: Text<'a>,
    /// Port of the Service.
    pub port: i64,
    /// Number or name of the pod's port; the Service's own number unless given.
    pub target_port: Option<Value>,
    /// What is spoken on it.
    pub app_protocol: Option<Text<'a>>,
}

impl Service<'_> {
    /// Address types of its slices.
    pub fn families(&self) -> Vec<&'static str> {
        let known = |family: &Text<'_>| match &**family {
            "IPv4" => Some("IPv4"),
            "IPv6" => Some("IPv6"),
            _ => None,
        };
        let families: Vec<_> = self.spec.ip_families.iter().filter_map(known).collect();
        if families.is_empty() { vec!["IPv4"] } else { families }
    }
}

/// A narrow view of `core/v1 Pod`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub struct Pod<'a> {
    #[serde(borrow)]
    metadata: PodMeta<'a>,
    /// Spec.
    pub spec: PodSpec<'a>,
    status: PodStatus<'a>,
}
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
struct PodMeta<'a> {
    #[serde(borrow)]
    name: Text<'a>,
    namespace: Text<'a>,
    uid: Text<'a>,
    deletion_timestamp: Option<Text<'a>>,
}
/// The part of a pod's spec that endpoints depend on.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSpec<'a> {
    /// Where it runs.
    #[serde(borrow)]
    pub node_name: Text<'a>,
    hostname: Text<'a>,
    subdomain: Text<'a>,
    containers: Vec<Container<'a>>,
    init_containers: Vec<Container<'a>>,
}
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
struct Container<'a> {
    #[serde(borrow)]
    restart_policy: Text<'a>,
    ports: Vec<ContainerPort<'a>>,
}
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
struct ContainerPort<'a> {
    #[serde(borrow)]
    name: Text<'a>,
    container_port: i64,
    protocol: Text<'a>,
}
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
struct PodStatus<'a> {
    #[serde(borrow)]
    phase: Text<'a>,
    #[serde(rename = "podIP")]
    pod_ip: Text<'a>,
    #[serde(rename = "podIPs")]
    pod_ips: Vec<PodIp<'a>>,
    conditions: Vec<Condition<'a>>,
}
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
struct PodIp<'a> {
    #[serde(borrow)]
    ip: Text<'a>,
}

impl Pod<'_> {
    fn ready(&self) -> bool {
        condition(&self.status.conditions, "Ready").is_some_and(Condition::is_true)
    }
}

/// Whether two versions of a pod make the same endpoints (most changes of a pod do).
pub fn same(a: &Object, b: &Object) -> bool {
    let (Ok(mut a), Ok(mut b)) = (parse::<Pod<'_>>(a), parse::<Pod<'_>>(b)) else { return false };
    for pod in [&mut a, &mut b] {
        let ready = pod.ready();
        pod.status.conditions = if ready { vec![Condition { kind: "Ready".into(), ..Condition::default() }] } else { Vec::new() };
        if pod.status.phase != "Failed" && pod.status.phase != "Succeeded" {
            pod.status.phase = Text::default();
        }
    }
    a == b
}

/// The ports of a slice: `discovery.k8s.io/v1 EndpointPort`, in the Service's order.
pub type Ports = Vec<Port>;

/// One port of a slice.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "camelCase", default)]
pub struct Port {
    /// The Service port's name; empty if it has none.
    pub name: String,
    /// `TCP`, `UDP`, `SCTP`.
    pub protocol: String,
    /// Number on the pod.
    pub port: i64,
    /// What is spoken on it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app_protocol: Option<String>,
}

/// `discovery.k8s.io/v1 Endpoint`, one per pod.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct Backend {
    /// The pod's address (one).
    pub addresses: Vec<String>,
    /// Its state.
    pub conditions: State,
    /// For headless Services: the pod's own name in DNS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Where it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,
    /// The pod.
    pub target_ref: Target,
    /// The node's zone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
}

/// `discovery.k8s.io/v1 EndpointConditions`.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(default)]
pub struct State {
    /// Gets traffic.
    pub ready: bool,
    /// Would answer, even if it is being deleted.
    pub serving: bool,
    /// Is being deleted.
    pub terminating: bool,
}

/// The pod behind an endpoint (`core/v1 ObjectReference`).
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(default)]
pub struct Target {
    /// `Pod`.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its identity.
    pub uid: String,
}

/// What a pod contributes in an address family: the slice's ports and its endpoint. None while it has no address, and once it has ended.
pub fn resolve(service: &Service<'_>, pod: &Pod<'_>, family: &str, zone: Option<&str>) -> Option<(Ports, Backend)> {
    if pod.status.phase == "Failed" || pod.status.phase == "Succeeded" {
        return None;
    }
    let ips = pod.status.pod_ips.iter().map(|ip| &*ip.ip).chain([&*pod.status.pod_ip]);
    let address = ips.filter(|ip| !ip.is_empty()).find(|ip| ip.contains(':') == (family == "IPv6"))?;
    let serving = pod.ready();
    let terminating = pod.metadata.deletion_timestamp.is_some();
    let ready = service.spec.publish_not_ready_addresses || (serving && !terminating);
    let hostname =
        (!pod.spec.hostname.is_empty() && pod.spec.subdomain == service.metadata.name && pod.metadata.namespace == service.metadata.namespace)
            .then(|| pod.spec.hostname.to_string());
    let backend = Backend {
        addresses: vec![address.to_owned()],
        conditions: State { ready, serving, terminating },
        hostname,
        node_name: (!pod.spec.node_name.is_empty()).then(|| pod.spec.node_name.to_string()),
        target_ref: Target {
            kind: "Pod".to_owned(),
            namespace: pod.metadata.namespace.to_string(),
            name: pod.metadata.name.to_string(),
            uid: pod.metadata.uid.to_string(),
        },
        zone: zone.map(str::to_owned),
    };
    let ports = service.spec.ports.iter().filter_map(|port| {
        Some(Port {
            name: port.name.to_string(),
            protocol: protocol(&port.protocol).to_owned(),
            port: number(port, pod)?,
            app_protocol: port.app_protocol.as_ref().map(|text| text.to_string()),
        })
    });
    Some((ports.collect(), backend))
}

fn protocol<'p>(text: &'p Text<'_>) -> &'p str {
    if text.is_empty() { "TCP" } else { text }
}

/// The number of a Service's port on this pod; a name that the pod does not have leaves the port out there.
fn number(port: &ServicePort<'_>, pod: &Pod<'_>) -> Option<i64> {
    let name = match &port.target_port {
        None => return Some(port.port),
        Some(Value::Number(number)) => return number.as_i64().map(|number| if number == 0 { port.port } else { number }),
        Some(Value::String(name)) => name,
        Some(_) => return None,
    };
    let sidecars = pod.spec.init_containers.iter().filter(|c| c.restart_policy == "Always");
    let mut ports = pod.spec.containers.iter().chain(sidecars).flat_map(|container| &container.ports);
    ports.find(|p| *p.name == **name && protocol(&p.protocol) == protocol(&port.protocol)).map(|p| p.container_port)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(json: &str) -> Service<'_> {
        serde_json::from_str(json).expect("service")
    }
    fn pod(json: &str) -> Pod<'_> {
        serde_json::from_str(json).expect("pod")
    }

    const RUNNING: &str = r#"{"metadata":{"name":"p","namespace":"n","uid":"u"},
        "spec":{"nodeName":"n1","containers":[{"ports":[{"name":"web","containerPort":8080},{"name":"web","containerPort":53,"protocol":"UDP"}]}]},
        "status":{"phase":"Running","podIP":"10.0.0.1","podIPs":[{"ip":"10.0.0.1"},{"ip":"fd00::1"}],"conditions":[{"type":"Ready","status":"True"}]}}"#;

    #[test]
    fn named_ports_resolve_on_each_pod() {
        let service = service(
            r#"{"metadata":{"name":"s","namespace":"n"},"spec":{"ports":[
            {"name":"a","port":80,"targetPort":"web"},{"name":"b","port":81,"targetPort":82},{"name":"c","port":83},
            {"name":"d","port":84,"targetPort":"gone"},{"name":"e","port":53,"protocol":"UDP","targetPort":"web"}]}}"#,
        );
        let (ports, backend) = resolve(&service, &pod(RUNNING), "IPv4", Some("z")).expect("an endpoint");
        let numbers: Vec<_> = ports.iter().map(|p| (&*p.name, p.port)).collect();
        assert_eq!(numbers, [("a", 8080), ("b", 82), ("c", 83), ("e", 53)]);
        assert_eq!(backend.addresses, ["10.0.0.1"]);
        assert_eq!((backend.node_name.as_deref(), backend.zone.as_deref()), (Some("n1"), Some("z")));
        let (_, six) = resolve(&service, &pod(RUNNING), "IPv6", None).expect("an endpoint");
        assert_eq!(six.addresses, ["fd00::1"]);
    }

    #[test]
    fn conditions_tell_what_traffic_may_do() {
        let plain = service("{}");
        let publish = service(r#"{"spec":{"publishNotReadyAddresses":true}}"#);
        let dying = RUNNING.replace(r#""uid":"u""#, r#""uid":"u","deletionTimestamp":"2026-01-01T00:00:00Z""#);
        let unready = RUNNING.replace("True", "False");
        for (service, json, expected) in [
            (&plain, RUNNING, (true, true, false)),
            (&plain, &*dying, (false, true, true)),
            (&plain, &*unready, (false, false, false)),
            (&publish, &*unready, (true, false, false)),
        ] {
            let (_, backend) = resolve(service, &pod(json), "IPv4", None).expect("an endpoint");
            let State { ready, serving, terminating } = backend.conditions;
            assert_eq!((ready, serving, terminating), expected, "{json}");
        }
        assert!(resolve(&plain, &pod(&RUNNING.replace("Running", "Succeeded")), "IPv4", None).is_none());
        assert!(resolve(&plain, &pod(r#"{"status":{"phase":"Pending"}}"#), "IPv4", None).is_none());
    }
}
