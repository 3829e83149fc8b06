//! What upstream's specs see refused and no other file here asks for: common/storage (`immutable`), common/node/pod_hostnameoverride, node/{runtimeclass, pod_resize}, auth/node_authz,
//! apps/cronjob, network/service (node ports), apimachinery/{resource_quota, protocol}, kubectl/kubectl (quotas).

use super::{made, namespace, ok, patched, put, reached};
use crate::cluster::{Answer, Cluster, Peer, eventually};
use serde_json::{Value, json};

const PODS: &str = "/api/v1/namespaces/refusals/pods";

pub async fn all(cluster: &Cluster) {
    let mut admin = cluster.admin().await;
    namespace(&mut admin, "refusals").await;
    what_is_immutable_stays(&mut admin).await;
    names_of_hosts_go_together(&mut admin).await;
    node_ports_are_had_once(&mut admin).await;
    a_class_and_its_pod_agree_on_nodes(&mut admin).await;
    nodes_see_what_is_theirs(cluster, &mut admin).await;
    changes_in_place_are_bounded(&mut admin).await;
    what_is_in_a_scope_is_bounded(&mut admin).await;
    what_means_nothing_is_refused(&mut admin).await;
}

#[track_caller]
fn refused(answer: &Answer, code: u16, why: &[&str]) {
    let reason = match code {
        403 => "Forbidden",
        406 => "NotAcceptable",
        415 => "UnsupportedMediaType",
        _ => "Invalid",
    };
    assert_eq!((answer.code, answer.reason()), (code, reason), "{}", answer.body);
    why.iter().for_each(|part| assert!(answer.message().contains(part), "{part}: {}", answer.message()));
}

fn pod(key: &str, spec: Value) -> Value {
    let mut pod = json!({"metadata": {"name": key}, "spec": {"terminationGracePeriodSeconds": 1, "containers": [{"name": "c1", "image": "run"}]}});
    for (field, value) in spec.as_object().into_iter().flatten() {
        pod["spec"][field] = value.clone();
    }
    pod
}

/// "should be immutable if `immutable` field is set", of ConfigMaps and Secrets.
async fn what_is_immutable_stays(admin: &mut Peer) {
    for kind in ["configmaps", "secrets"] {
        let path = format!("/api/v1/namespaces/refusals/{kind}");
        let one = format!("{path}/immutable");
        let mut object = made(admin, &path, json!({"metadata": {"name": "immutable"}, "data": {"data-1": "dmFsdWU="}})).await;
        object["data"]["data-4"] = "dmFsdWU=".into();
        let mut object = put(admin, &one, &object).await;
        object["immutable"] = true.into();
        let object = put(admin, &one, &object).await;
        let changed = async |admin: &mut Peer, field: &str, value: Value| {
            let mut object = object.clone();
            object[field] = value;
            admin.send("PUT", &one, "application/json", object.to_string()).await
        };
        refused(&changed(admin, "data", json!({"data-5": "dmFsdWU="})).await, 422, &["data: Forbidden: field is immutable when `immutable` is set"]);
        refused(&changed(admin, "immutable", json!(false)).await, 422, &["immutable: Forbidden: field is immutable when `immutable` is set"]);
        patched(admin, &one, "merge", json!({"metadata": {"labels": {"label1": "value1"}}})).await;
        ok(&admin.send("DELETE", &one, "", String::new()).await);
    }
}

async fn names_of_hosts_go_together(admin: &mut Peer) {
    for spec in [
        json!({"setHostnameAsFQDN": true, "hostnameOverride": "override-host"}),
        json!({"hostNetwork": true, "hostnameOverride": "override-host"}),
        json!({"hostnameOverride": "Not-RFC1123"}),
    ] {
        refused(&admin.post(PODS, pod("hosts", spec)).await, 422, &["hostnameOverride"]);
    }
}

/// "should prevent NodePort collisions", "should check NodePort out-of-range".
async fn node_ports_are_had_once(admin: &mut Peer) {
    let path = "/api/v1/namespaces/refusals/services";
    let service =
        |name: &str, port: u64| json!({"metadata": {"name": name}, "spec": {"type": "NodePort", "ports": [{"port": 80, "nodePort": port}]}});
    let mut first = made(admin, path, service("nodeport-1", 0)).await;
    let port = first["spec"]["ports"][0]["nodePort"].as_u64().expect("a port");
    let taken = format!("spec.ports[0].nodePort: Invalid value: {port}: provided port is already allocated");
    refused(&admin.post(path, service("nodeport-2", port)).await, 422, &[&taken]);
    let outside = "spec.ports[0].nodePort: Invalid value: 4000: provided port is not in the valid range";
    first["spec"]["ports"][0]["nodePort"] = 4000.into();
    refused(&admin.send("PUT", &format!("{path}/nodeport-1"), "application/json", first.to_string()).await, 422, &[outside]);
    refused(&admin.post(path, service("nodeport-2", 4000)).await, 422, &[outside]);
    ok(&admin.send("DELETE", &format!("{path}/nodeport-1"), "", String::new()).await);
    made(admin, path, service("nodeport-2", port)).await;
}

/// "should reject a Pod requesting a RuntimeClass with conflicting node selector".
async fn a_class_and_its_pod_agree_on_nodes(admin: &mut Peer) {
    let class = json!({"metadata": {"name": "conflicts"}, "handler": "h", "scheduling": {"nodeSelector": {"foo": "conflict"}}});
    made(admin, "/apis/node.k8s.io/v1/runtimeclasses", class).await;
    let one = pod("conflicts", json!({"runtimeClassName": "conflicts", "nodeSelector": {"foo": "bar"}}));
    refused(&admin.post(PODS, one).await, 403, &["conflict"]);
}

/// auth/node_authz: what a node has nothing to do with is forbidden, whether it is there or not.
async fn nodes_see_what_is_theirs(cluster: &Cluster, admin: &mut Peer) {
    let mut node = cluster.admin().await;
    node.headers = [("impersonate-user", "system:node:n1"), ("impersonate-group", "system:nodes")].map(|(k, v)| (k.into(), v.into())).into();
    for kind in ["secrets", "configmaps"] {
        let path = format!("/api/v1/namespaces/refusals/{kind}");
        refused(&node.get(&format!("{path}/foo")).await, 403, &["cannot get resource"]);
        made(admin, &path, json!({"metadata": {"name": "node-auth"}})).await;
        refused(&node.get(&format!("{path}/node-auth")).await, 403, &["cannot get resource"]);
    }
    let volumes = json!([{"name": "v", "secret": {"secretName": "node-auth"}}]);
    made(admin, PODS, pod("pause", json!({"nodeName": "n1", "volumes": volumes}))).await;
    eventually(async || node.get("/api/v1/namespaces/refusals/secrets/node-auth").await.code, |code| *code == 200).await;
    refused(&node.get("/api/v1/namespaces/refusals/configmaps/node-auth").await, 403, &[]);
    refused(&node.post("/api/v1/nodes", json!({"metadata": {"name": "foo"}})).await, 403, &[]);
    refused(&node.send("DELETE", "/api/v1/nodes/foo", "", String::new()).await, 403, &[]);
}

/// node/pod_resize: quotas and limits hold for changes in place.
async fn changes_in_place_are_bounded(admin: &mut Peer) {
    let of = |cpu: &str, memory: &str| {
        let list = json!({"cpu": cpu, "memory": memory});
        json!([{"name": "c1", "image": "run", "resources": {"requests": list, "limits": list}}])
    };
    let limits = json!({"type": "Container", "max": {"cpu": "500m", "memory": "500Mi"}, "min": {"cpu": "50m", "memory": "50Mi"}});
    let bounds =
        [("quota", "resourcequotas", json!({"hard": {"cpu": "800m", "memory": "800Mi"}})), ("range", "limitranges", json!({"limits": [limits]}))];
    for (place, kind, spec) in bounds {
        namespace(admin, &format!("resize-{place}")).await;
        let of_place = |kind: &str| format!("/api/v1/namespaces/resize-{place}/{kind}");
        made(admin, &of_place(kind), json!({"metadata": {"name": "resize"}, "spec": spec})).await;
        if place == "quota" {
            reached(admin, &of_place(kind), "resize", "it is counted", |quota| quota["status"]["used"]["cpu"] == "0").await;
        }
        for name in ["testpod1", "testpod2"] {
            made(admin, &of_place("pods"), pod(name, json!({"schedulerName": "nobody", "containers": of("300m", "300Mi")}))).await;
        }
        let path = format!("{}/testpod1/resize", of_place("pods"));
        let cases: &[(&str, &str, &[&str])] = match place {
            "quota" => &[
                ("300m", "750Mi", &["exceeded quota: resize, requested: memory=450Mi, used: memory=600Mi, limited: memory=800Mi"]),
                ("600m", "750Mi", &["requested: cpu=300m,memory=450Mi, used: cpu=600m,memory=600Mi, limited: cpu=800m,memory=800Mi"]),
            ],
            _ => &[
                ("250m", "750Mi", &["forbidden: maximum memory usage per Container is 500Mi, but limit is 750Mi"]),
                ("600m", "600Mi", &["maximum cpu usage per Container is 500m, but limit is 600m", "maximum memory usage per Container is 500Mi"]),
                ("10m", "400Mi", &["forbidden: minimum cpu usage per Container is 50m, but request is 10m"]),
                ("10m", "10Mi", &["minimum cpu usage per Container is 50m", "minimum memory usage per Container is 50Mi, but request is 10Mi"]),
            ],
        };
        for (cpu, memory, why) in cases {
            let patch = json!({"spec": {"containers": of(cpu, memory)}}).to_string();
            refused(&admin.send("PATCH", &path, "application/strategic-merge-patch+json", patch).await, 403, why);
        }
        let kept = admin.get(&format!("{}/testpod1", of_place("pods"))).await.body;
        assert_eq!(kept["spec"]["containers"][0]["resources"]["limits"], json!({"cpu": "300m", "memory": "300Mi"}));
        patched(admin, &path, "strategic-merge", json!({"spec": {"containers": of("400m", "400Mi")}})).await;
    }
}

/// apimachinery/resource_quota: the second of what a scope has room for one of.
async fn what_is_in_a_scope_is_bounded(admin: &mut Peer) {
    const PLACE: &str = "refusals-scopes";
    namespace(admin, PLACE).await;
    let of_place = |kind: &str| format!("/api/v1/namespaces/{PLACE}/{kind}");
    let class = |name: &str| json!({"metadata": {"name": name}, "value": 1000});
    made(admin, "/apis/scheduling.k8s.io/v1/priorityclasses", class("refusals-first")).await;
    let only = |scope: &str, value: &str| json!({"scopeSelector": {"matchExpressions": [{"scopeName": scope, "operator": "In", "values": [value]}]}});
    let quotas = [
        ("class", json!({"pods": "1"}), only("PriorityClass", "refusals-first")),
        ("gold", json!({"persistentvolumeclaims": "1"}), only("VolumeAttributesClass", "gold")),
        ("ends", json!({"pods": "1"}), json!({"scopes": ["Terminating"]})),
    ];
    for (name, hard, mut spec) in quotas {
        spec["hard"] = hard;
        made(admin, &of_place("resourcequotas"), json!({"metadata": {"name": name}, "spec": spec})).await;
        reached(admin, &of_place("resourcequotas"), name, "it is counted", |quota| quota["status"]["used"].is_object()).await;
    }
    let important = |name: &str| pod(name, json!({"priorityClassName": "refusals-first"}));
    made(admin, &of_place("pods"), important("first")).await;
    refused(
        &admin.post(&of_place("pods"), important("second")).await,
        403,
        &["exceeded quota: class, requested: pods=1, used: pods=1, limited: pods=1"],
    );
    let claim = |name: &str| {
        let asked = json!({"requests": {"storage": "1Gi"}});
        json!({"metadata": {"name": name}, "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "", "volumeAttributesClassName": "gold", "resources": asked}})
    };
    made(admin, &of_place("persistentvolumeclaims"), claim("first")).await;
    let second = admin.post(&of_place("persistentvolumeclaims"), claim("second")).await;
    refused(&second, 403, &["exceeded quota: gold, requested: persistentvolumeclaims=1"]);
    // A pod that gets an end comes into the scope.
    made(admin, &of_place("pods"), pod("long-running", json!({}))).await;
    patched(admin, &format!("{}/long-running", of_place("pods")), "merge", json!({"spec": {"activeDeadlineSeconds": 3600}})).await;
    let ends = pod("ends", json!({"activeDeadlineSeconds": 3600}));
    refused(&admin.post(&of_place("pods"), ends).await, 403, &["exceeded quota: ends, requested: pods=1, used: pods=1, limited: pods=1"]);
}

/// apps/cronjob "should support timezone", kubectl "should reject quota with invalid scopes", apimachinery/protocol: CBOR, which upstream speaks behind a gate.
async fn what_means_nothing_is_refused(admin: &mut Peer) {
    let job = json!({"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}});
    let spec = json!({"schedule": "*/1 * * * ?", "timeZone": "bad-time-zone", "jobTemplate": {"spec": job}});
    let cron = admin.post("/apis/batch/v1/namespaces/refusals/cronjobs", json!({"metadata": {"name": "bad"}, "spec": spec})).await;
    refused(&cron, 422, &["spec.timeZone: Invalid value: \"bad-time-zone\": unknown time zone bad-time-zone"]);
    let quota = json!({"metadata": {"name": "bad"}, "spec": {"hard": {"pods": "1000000"}, "scopes": ["Foo"]}});
    refused(&admin.post("/api/v1/namespaces/refusals/resourcequotas", quota).await, 422, &["spec.scopes", "Foo"]);
    let maps = "/api/v1/namespaces/refusals/configmaps";
    refused(&admin.ask("POST", maps, "application/cbor", "application/cbor, application/json;q=0.9", &b"\xd9\xd9\xf7\xa0"[..]).await, 415, &[]);
    refused(&admin.accept(maps, "application/cbor").await, 406, &[]);
    assert_eq!(admin.accept(maps, "application/cbor, application/json;q=0.9").await.code, 200);
}
