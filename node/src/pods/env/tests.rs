use super::*;
use crate::mirror::Key;
use bytes::Bytes;
use serde_json::{Value, json};

struct Fixed(Vec<(Key, Value)>);

impl Objects for Fixed {
    fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Bytes> {
        let key = Key::new(resource, namespace, name);
        self.0.iter().find(|(k, _)| *k == key).map(|(_, v)| Bytes::from(v.to_string()))
    }
    fn list(&self, resource: &str, namespace: Option<&str>) -> Vec<(Key, Bytes)> {
        let matches = |k: &Key| k.resource == resource && namespace.is_none_or(|n| k.namespace == n);
        self.0.iter().filter(|(k, _)| matches(k)).map(|(k, v)| (k.clone(), Bytes::from(v.to_string()))).collect()
    }
}

fn run(container: Value, objects: Vec<(Key, Value)>, services: Env) -> Result<Env, Error> {
    let pod: Pod = serde_json::from_value(json!({ "metadata": { "name": "p", "namespace": "ns" }, "spec": { "containers": [container] } })).unwrap();
    resolve(&pod, &pod.spec.containers[0], &Facts::sample(), &services, &Fixed(objects), Path::new("/nowhere"))
}

#[test]
fn expansion_follows_the_documented_rules() {
    let lookup = |name: &str| match name {
        "A" => Some("1"),
        "B_C" => Some("two"),
        "" => Some("empty"),
        _ => None,
    };
    for (text, want) in [
        ("$(A)", "1"),
        ("x$(A)y$(B_C)z", "x1ytwoz"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$$$$(A)", "$$(A)"),
        ("$(NONE)", "$(NONE)"),
        ("$A", "$A"),
        ("$", "$"),
        ("$(A", "$(A"),
        ("a$(", "a$("),
        ("$()", "empty"),
        ("é$(A)ß", "é1ß"),
        ("$(A$(B_C))", "$(A$(B_C))"),
        ("${A}", "${A}"),
    ] {
        assert_eq!(expand(text, lookup), want, "{text}");
    }
}

#[test]
fn later_definitions_win_and_see_earlier_ones_only() {
    let objects = vec![
        (Key::new("configmaps", "ns", "c"), json!({ "data": { "K": "from-map", "A": "map" } })),
        (Key::new("secrets", "ns", "s"), json!({ "data": { "P": "c2VjcmV0" } })),
    ];
    let container = json!({
        "name": "c",
        "envFrom": [{ "configMapRef": { "name": "c" } }, { "prefix": "S_", "secretRef": { "name": "s" } }, { "configMapRef": { "name": "no", "optional": true } }],
        "env": [
            { "name": "A", "value": "$(K)-$(B)-$(SVC)" }, { "name": "B", "value": "b" }, { "name": "C", "value": "$(B)$(S_P)" },
            { "name": "D", "valueFrom": { "secretKeyRef": { "name": "s", "key": "P" } } },
            { "name": "E", "valueFrom": { "configMapKeyRef": { "name": "c", "key": "none", "optional": true } } },
            { "name": "F", "valueFrom": { "fieldRef": { "fieldPath": "status.podIP" } } },
        ],
    });
    let env = run(container, objects, vec![("SVC".into(), "svc".into()), ("B".into(), "service".into())]).unwrap();
    let get = |name: &str| env.iter().find(|(k, _)| k == name).map(|(_, v)| v.as_str());
    assert_eq!(get("A"), Some("from-map-service-svc"));
    assert_eq!(get("B"), Some("b"));
    assert_eq!(get("C"), Some("bsecret"));
    assert_eq!(get("D"), Some("secret"));
    assert_eq!(get("E"), None);
    assert_eq!(get("F"), Some("10.1.0.2"));
    assert_eq!(get("SVC"), Some("svc"));
}

#[test]
fn what_is_missing_is_named() {
    let objects = || vec![(Key::new("configmaps", "ns", "c"), json!({ "data": {} }))];
    for (container, want) in [
        (json!({ "envFrom": [{ "configMapRef": { "name": "x" } }] }), "configmap \"x\" not found"),
        (json!({ "envFrom": [{ "secretRef": { "name": "x" } }] }), "secret \"x\" not found"),
        (
            json!({ "env": [{ "name": "A", "valueFrom": { "configMapKeyRef": { "name": "c", "key": "k" } } }] }),
            "couldn't find key k in ConfigMap ns/c",
        ),
    ] {
        assert_eq!(run(container, objects(), Env::new()).unwrap_err().to_string(), want);
    }
}

#[test]
fn service_variables_are_docker_links_shape() {
    let service = |name: &str, ip: &str, ports: Value| json!({ "metadata": { "name": name }, "spec": { "clusterIP": ip, "ports": ports } });
    let objects = Fixed(vec![
        (
            Key::new("services", "default", "kubernetes"),
            service("kubernetes", "10.96.0.1", json!([{ "name": "https", "port": 443, "protocol": "TCP" }])),
        ),
        (Key::new("services", "ns", "redis-primary"), service("redis-primary", "10.0.0.11", json!([{ "port": 6379, "protocol": "TCP" }]))),
        (Key::new("services", "ns", "headless"), service("headless", "None", json!([{ "port": 1 }]))),
    ]);
    let mut pod = Pod::default();
    pod.metadata.namespace = "ns".into();
    let env = services(&pod, &objects, None);
    let get = |name: &str| env.iter().find(|(k, _)| k == name).map(|(_, v)| v.as_str());
    assert_eq!(get("KUBERNETES_SERVICE_HOST"), Some("10.96.0.1"));
    assert_eq!(get("KUBERNETES_SERVICE_PORT_HTTPS"), Some("443"));
    assert_eq!(get("REDIS_PRIMARY_SERVICE_HOST"), Some("10.0.0.11"));
    assert_eq!(get("REDIS_PRIMARY_PORT"), Some("tcp://10.0.0.11:6379"));
    assert_eq!(get("REDIS_PRIMARY_PORT_6379_TCP_ADDR"), Some("10.0.0.11"));
    assert!(!env.iter().any(|(k, _)| k.starts_with("HEADLESS")));
    pod.spec.enable_service_links = Some(false);
    let env = services(&pod, &objects, Some("127.0.0.1:6443".parse().unwrap()));
    let names: Vec<&str> = env.iter().map(|(k, _)| k.as_str()).collect();
    assert!(names.contains(&"KUBERNETES_SERVICE_PORT") && !names.iter().any(|n| n.starts_with("REDIS")));
    assert!(env.contains(&("KUBERNETES_SERVICE_HOST".into(), "127.0.0.1".into())));
}
