//! First start, second start, and a start under another address.
use super::*;
use crate::{
    auth::{Attributes, Auth, User},
    resources,
};
use coracle_api::Registry;
use coracle_schema::Schemas;
use coracle_store::Store;
use serde_json::json;
use std::{net::SocketAddr, path::Path};

pub(crate) async fn core(store: &Store, dir: &Path, address: &str) -> Core {
    let issuer = "https://kubernetes.default.svc.cluster.local".to_string();
    let options = crate::auth::Options { store: store.clone(), pki_dir: dir.into(), issuer: issuer.clone(), audiences: vec![] };
    let registry = Registry::builtin();
    Core {
        store: store.clone(),
        schemas: Schemas::builtin(),
        registry: registry.clone(),
        customs: crate::custom::Kinds::new(store.clone(), registry),
        webhooks: Default::default(),
        aggregation: Default::default(),
        metrics: Default::default(),
        hooks: resources::Table::new(resources::builtin()),
        admission: crate::admission::Admission::of(Vec::new()),
        auth: Auth::open(options).unwrap(),
        config: Config {
            service_cidr: "10.96.0.0/16".into(),
            pod_cidr: "10.244.0.0/16".into(),
            node_ports: (30_000, 32_767),
            domain: "cluster.local".into(),
            issuer,
            ca_pem: "CA".into(),
            api_addr: address.parse::<SocketAddr>().unwrap(),
        },
        inflight: crate::http::inflight::Limits::new(1).expect("limits"),
        telemetry: crate::telemetry::Telemetry::new().expect("counters"),
        audit: None,
        tasks: Default::default(),
        nodes: Default::default(),
    }
}

fn get(store: &Store, resource: &str, namespace: &str, name: &str) -> Value {
    let object = store.snapshot().get(&Key::new(resource, namespace, name)).unwrap_or_else(|| panic!("{resource} {namespace}/{name}"));
    serde_json::from_slice(&object.json).unwrap()
}

#[tokio::test]
async fn a_cluster_begins_with_all_it_needs_and_is_left_alone_after() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(coracle_store::Options::new(dir.path())).await.unwrap();
    let server = core(&store, dir.path(), "127.0.0.1:6443").await;
    run(&server).await.unwrap();
    let transactions = store.snapshot().revision();
    assert!(transactions <= 4, "{transactions} transactions");

    for namespace in objects::NAMESPACES {
        assert_eq!(get(&store, "namespaces", "", namespace)["status"]["phase"], "Active");
        assert!(get(&store, "serviceaccounts", namespace, "default")["metadata"]["uid"].is_string());
        assert_eq!(get(&store, "configmaps", namespace, "kube-root-ca.crt")["data"]["ca.crt"], "CA");
    }
    let service = get(&store, "services", "default", "kubernetes");
    assert_eq!((&service["spec"]["clusterIP"], &service["spec"]["ports"][0]["targetPort"]), (&json!("10.96.0.1"), &json!(6443)));
    let slice = get(&store, "endpointslices.discovery.k8s.io", "default", "kubernetes");
    assert_eq!(slice["endpoints"][0]["addresses"], json!(["127.0.0.1"]));
    assert_eq!(get(&store, "runtimeclasses.node.k8s.io", "", "wasm")["handler"], "wasm");
    assert_eq!(get(&store, "priorityclasses.scheduling.k8s.io", "", "system-node-critical")["value"], 2_000_001_000);
    assert_eq!(get(&store, "ipaddresses.networking.k8s.io", "", "10.96.0.1")["spec"]["parentRef"]["name"], "kubernetes");
    assert_eq!(get(&store, "servicecidrs.networking.k8s.io", "", "kubernetes")["spec"]["cidrs"], json!(["10.96.0.0/16"]));

    // the rules are in force for an authorizer opened afterwards
    let rules = core(&store, dir.path(), "127.0.0.1:6443").await.auth;
    let account = User::service_account("default", "default");
    let ask = |verb, resource| Attributes { verb, group: "authorization.k8s.io", resource, ..Attributes::default() };
    assert!(rules.authorize(&account, &ask("create", "selfsubjectaccessreviews")).allowed());
    assert!(!rules.authorize(&account, &ask("create", "subjectaccessreviews")).allowed());

    run(&server).await.unwrap();
    assert_eq!(store.snapshot().revision(), transactions, "a second start writes nothing");

    // somebody took a rule from a default role; another address is configured
    let row = server.registry.by_id("clusterroles.rbac.authorization.k8s.io").unwrap();
    let mut role = get(&store, "clusterroles.rbac.authorization.k8s.io", "", "system:basic-user");
    role["rules"].as_array_mut().unwrap().remove(0);
    let key = Key::new(row.id(), "", "system:basic-user");
    store.commit(Txn { ops: vec![Op::Put { key, expect: Expect::Any, draft: object::draft(&row, &role) }] }).await.unwrap();
    let moved = core(&store, dir.path(), "192.0.2.1:7443").await;
    run(&moved).await.unwrap();
    assert_eq!(get(&store, "clusterroles.rbac.authorization.k8s.io", "", "system:basic-user")["rules"].as_array().unwrap().len(), 2);
    let slice = get(&store, "endpointslices.discovery.k8s.io", "default", "kubernetes");
    assert_eq!((&slice["endpoints"][0]["addresses"], &slice["ports"][0]["port"]), (&json!(["192.0.2.1"]), &json!(7443)));
    assert_eq!(get(&store, "services", "default", "kubernetes")["spec"]["ports"][0]["targetPort"], 7443);
}

#[tokio::test]
async fn everything_made_at_first_start_passes_its_own_schema() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(coracle_store::Options::new(dir.path())).await.unwrap();
    let server = core(&store, dir.path(), "127.0.0.1:6443").await;
    run(&server).await.unwrap();
    let snapshot = store.snapshot();
    let mut seen = 0;
    for row in server.registry.all() {
        for stored in snapshot.range(&row.id(), None, None) {
            let schema = server.schemas.get(&row.group, &row.version, &row.kind).unwrap_or_else(|| panic!("schema of {}", row.kind));
            let (read, warnings) =
                schema.decode(&stored.json, coracle_schema::FieldValidation::Strict).unwrap_or_else(|e| panic!("{:?}: {e}", stored.key));
            assert!(warnings.is_empty(), "{warnings:?}");
            let mut defaulted = read.clone();
            schema.default(&mut defaulted);
            assert_eq!(defaulted, read, "{:?} lacks defaults", stored.key);
            seen += 1;
        }
    }
    assert!(seen > 100, "{seen}");
}
