//! ResourceQuotas and LimitRanges as clients see them (the behaviours of upstream's `test/e2e/apimachinery/resource_quota.go` and `scheduling/limit_range.go`).

use crate::cluster::{Answer, Cluster, Peer};
use serde_json::{Value, json};

fn path(namespace: &str, resource: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/{resource}")
}

async fn made(admin: &mut Peer, path: &str, object: Value) -> Value {
    let answer = admin.post(path, object).await;
    assert_eq!(answer.code, 201, "{}", answer.body);
    answer.body
}

async fn namespace(admin: &mut Peer, name: &str) {
    made(admin, "/api/v1/namespaces", json!({"metadata": {"name": name}})).await;
    account(admin, name).await;
}

/// Waits for the account that pods run as.
async fn account(admin: &mut Peer, namespace: &str) {
    let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts?watch=true&fieldSelector=metadata.name=default");
    admin.watch(&path).await.next().await.expect("an account");
}

async fn delete(admin: &mut Peer, path: &str) -> Answer {
    let answer = admin.send("DELETE", path, "application/json", json!({"gracePeriodSeconds": 0}).to_string()).await;
    assert_eq!(answer.code, 200, "{}", answer.body);
    answer
}

async fn merge(admin: &mut Peer, path: &str, patch: Value) -> Answer {
    admin.send("PATCH", path, "application/merge-patch+json", patch.to_string()).await
}

/// A quota whose status says what is used.
async fn quota(admin: &mut Peer, namespace: &str, spec: Value) {
    let hard = spec["hard"].clone();
    made(admin, &path(namespace, "resourcequotas"), json!({"metadata": {"name": "q"}, "spec": spec})).await;
    until(admin, namespace, |status| {
        status["hard"] == hard && status["used"].as_object().map(|used| used.len()) == hard.as_object().map(|hard| hard.len())
    })
    .await;
}

/// Waits until the quota's status is as wanted; the status.
async fn until(admin: &mut Peer, namespace: &str, holds: impl Fn(&Value) -> bool) -> Value {
    let mut events = admin.watch(&format!("{}?watch=true&fieldSelector=metadata.name=q", path(namespace, "resourcequotas"))).await;
    loop {
        let event = events.next().await.expect("the watch goes on");
        if holds(&event["object"]["status"]) {
            return event["object"]["status"].clone();
        }
    }
}

async fn used(admin: &mut Peer, namespace: &str) -> Value {
    admin.get(&format!("{}/q", path(namespace, "resourcequotas"))).await.body["status"]["used"].clone()
}

fn pod(name: &str, resources: Value) -> Value {
    json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i", "resources": resources}]}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quotas() {
    let cluster = Cluster::start().await;
    let mut admin = cluster.admin().await;
    pods(&mut admin).await;
    objects(&mut admin).await;
    changes(&mut admin).await;
    scopes(&mut admin).await;
    together(&cluster).await;
    limits(&mut admin).await;
}

async fn pods(admin: &mut Peer) {
    namespace(admin, "pods").await;
    let hard = json!({"pods": "3", "cpu": "1", "memory": "500Mi", "limits.memory": "1Gi", "requests.example.com/dongle": "2"});
    quota(admin, "pods", json!({"hard": hard})).await;
    let all = path("pods", "pods");
    let asks = |cpu: &str, memory: &str| json!({"requests": {"cpu": cpu, "memory": memory, "example.com/dongle": "1"}, "limits": {"memory": memory, "example.com/dongle": "1"}});
    made(admin, &all, pod("a", asks("500m", "252Mi"))).await;
    assert_eq!(
        used(admin, "pods").await,
        json!({"pods": "1", "cpu": "500m", "memory": "252Mi", "limits.memory": "252Mi", "requests.example.com/dongle": "1"}),
        "charged with the write itself"
    );
    let refused = admin.post(&all, pod("b", asks("600m", "100Mi"))).await;
    assert_eq!((refused.code, refused.reason()), (403, "Forbidden"), "{}", refused.body);
    assert_eq!(refused.message(), "pods \"b\" is forbidden: exceeded quota: q, requested: cpu=600m, used: cpu=500m, limited: cpu=1");
    let refused = admin.post(&all, pod("b", json!({}))).await;
    assert_eq!(refused.message(), "pods \"b\" is forbidden: failed quota: q: must specify cpu for: c; limits.memory for: c; memory for: c");
    let dry = admin.post(&format!("{all}?dryRun=All"), pod("b", asks("100m", "1Mi"))).await;
    assert_eq!(dry.code, 201, "{}", dry.body);
    assert_eq!(used(admin, "pods").await["pods"], "1", "a dry run takes nothing");
    assert_eq!(admin.post(&format!("{all}?dryRun=All"), pod("b", asks("600m", "1Mi"))).await.code, 403);
    // A pod that ended gives back what it had, one that is gone its place as well.
    let ended = merge(admin, &format!("{all}/a/status"), json!({"status": {"phase": "Succeeded"}})).await;
    assert_eq!(ended.code, 200, "{}", ended.body);
    until(admin, "pods", |status| status["used"]["cpu"] == "0" && status["used"]["pods"] == "0").await;
    made(admin, &all, pod("b", asks("600m", "100Mi"))).await;
    delete(admin, &format!("{all}/b")).await;
    let status = until(admin, "pods", |status| status["used"]["cpu"] == "0").await;
    assert_eq!(status["used"], json!({"pods": "0", "cpu": "0", "memory": "0", "limits.memory": "0", "requests.example.com/dongle": "0"}));
}

async fn objects(admin: &mut Peer) {
    namespace(admin, "objects").await;
    let definition = json!({"metadata": {"name": "widgets.quota.example.com"}, "spec": {"group": "quota.example.com", "scope": "Namespaced",
        "names": {"plural": "widgets", "kind": "Widget"}, "versions": [{"name": "v1", "served": true, "storage": true,
            "schema": {"openAPIV3Schema": {"type": "object"}}}]}});
    made(admin, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition).await;
    let mut events = admin.watch("/apis/apiextensions.k8s.io/v1/customresourcedefinitions?watch=true").await;
    while !events.next().await.expect("the watch goes on")["object"]["status"]["conditions"].to_string().contains("InitialNamesAccepted") {}
    let hard = json!({"services": "2", "services.nodeports": "1", "services.loadbalancers": "1", "secrets": "5", "count/configmaps": "3",
        "count/replicasets.apps": "1", "count/widgets.quota.example.com": "1", "resourcequotas": "1", "persistentvolumeclaims": "2",
        "count/resourceclaims.resource.k8s.io": "3", "gpus.deviceclass.resource.k8s.io/devices": "2",
        "requests.storage": "1Gi", "gold.storageclass.storage.k8s.io/requests.storage": "500Mi"});
    quota(admin, "objects", json!({"hard": hard})).await;
    until(admin, "objects", |status| status["used"]["resourcequotas"] == "1" && status["used"]["count/configmaps"] == "1").await;
    let refused = admin.post(&path("objects", "resourcequotas"), json!({"metadata": {"name": "r"}, "spec": {"hard": {"pods": "1"}}})).await;
    assert!(
        refused.message().contains("exceeded quota: q, requested: resourcequotas=1, used: resourcequotas=1, limited: resourcequotas=1"),
        "{}",
        refused.body
    );

    let services = path("objects", "services");
    let service = |name: &str, kind: &str| json!({"metadata": {"name": name}, "spec": {"type": kind, "ports": [{"port": 80}]}});
    made(admin, &services, service("a", "NodePort")).await;
    assert!(admin.post(&services, service("b", "LoadBalancer")).await.message().contains("requested: services.nodeports=1"));
    made(admin, &services, service("b", "ClusterIP")).await;
    assert!(
        admin.post(&services, service("c", "ClusterIP")).await.message().contains("requested: services=1, used: services=2, limited: services=2")
    );
    let changed = merge(admin, &format!("{services}/a"), json!({"spec": {"type": "ClusterIP", "ports": [{"port": 80, "nodePort": null}]}})).await;
    assert_eq!(changed.code, 200, "{}", changed.body);
    until(admin, "objects", |status| status["used"]["services.nodeports"] == "0").await;

    let widgets = "/apis/quota.example.com/v1/namespaces/objects/widgets";
    let widget = |name: &str| json!({"apiVersion": "quota.example.com/v1", "kind": "Widget", "metadata": {"name": name}});
    made(admin, widgets, widget("a")).await;
    let refused = admin.post(widgets, widget("b")).await;
    assert_eq!(
        refused.message(),
        "widgets.quota.example.com \"b\" is forbidden: exceeded quota: q, requested: count/widgets.quota.example.com=1, used: count/widgets.quota.example.com=1, limited: count/widgets.quota.example.com=1"
    );
    delete(admin, &format!("{widgets}/a")).await;
    until(admin, "objects", |status| status["used"]["count/widgets.quota.example.com"] == "0").await;
    made(admin, widgets, widget("b")).await;

    let devices = "/apis/resource.k8s.io/v1/namespaces/objects/resourceclaims";
    let wants = |name: &str, count: u8| json!({"metadata": {"name": name}, "spec": {"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "gpus", "count": count}}]}}});
    made(admin, devices, wants("two", 2)).await;
    assert_eq!(
        admin.post(devices, wants("more", 1)).await.message(),
        "resourceclaims.resource.k8s.io \"more\" is forbidden: exceeded quota: q, requested: gpus.deviceclass.resource.k8s.io/devices=1, used: gpus.deviceclass.resource.k8s.io/devices=2, limited: gpus.deviceclass.resource.k8s.io/devices=2"
    );
    assert_eq!(used(admin, "objects").await["count/resourceclaims.resource.k8s.io"], "1");
    delete(admin, &format!("{devices}/two")).await;
    until(admin, "objects", |status| status["used"]["gpus.deviceclass.resource.k8s.io/devices"] == "0").await;
    made(admin, devices, wants("again", 2)).await;

    let claims = path("objects", "persistentvolumeclaims");
    let claim = |name: &str, size: &str, class: &str| json!({"metadata": {"name": name}, "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": class, "resources": {"requests": {"storage": size}}}});
    made(admin, &claims, claim("a", "300Mi", "gold")).await;
    assert!(admin.post(&claims, claim("b", "300Mi", "gold")).await.message().contains(
        "requested: gold.storageclass.storage.k8s.io/requests.storage=300Mi, used: gold.storageclass.storage.k8s.io/requests.storage=300Mi, limited: gold.storageclass.storage.k8s.io/requests.storage=500Mi"
    ));
    made(admin, &claims, claim("b", "300Mi", "silver")).await;
    assert_eq!(used(admin, "objects").await["requests.storage"], "600Mi");
}

async fn changes(admin: &mut Peer) {
    namespace(admin, "changes").await;
    quota(admin, "changes", json!({"hard": {"count/secrets": "1"}})).await;
    let secrets = path("changes", "secrets");
    made(admin, &secrets, json!({"metadata": {"generateName": "s-"}})).await;
    let refused = admin.post(&secrets, json!({"metadata": {"generateName": "s-"}})).await;
    assert!(refused.message().starts_with("secrets \"s-\" is forbidden: exceeded quota: q, requested: count/secrets=1"), "{}", refused.body);
    let quota = format!("{}/q", path("changes", "resourcequotas"));
    assert_eq!(merge(admin, &quota, json!({"spec": {"hard": {"count/secrets": "2", "pods": "0"}}})).await.code, 200);
    until(admin, "changes", |status| status["hard"]["count/secrets"] == "2" && status["used"] == json!({"count/secrets": "1", "pods": "0"})).await;
    made(admin, &secrets, json!({"metadata": {"generateName": "s-"}})).await;
    assert_eq!(admin.send("DELETE", &secrets, "", String::new()).await.code, 200);
    until(admin, "changes", |status| status["used"]["count/secrets"] == "0").await;
}

async fn scopes(admin: &mut Peer) {
    namespace(admin, "scopes").await;
    quota(admin, "scopes", json!({"hard": {"pods": "1"}, "scopes": ["BestEffort", "NotTerminating"]})).await;
    let all = path("scopes", "pods");
    let asks = json!({"requests": {"cpu": "1m"}, "limits": {"cpu": "1m", "memory": "1Mi"}});
    made(admin, &all, pod("asks", asks)).await;
    let mut ends = pod("ends", json!({}));
    ends["spec"]["activeDeadlineSeconds"] = json!(3600);
    made(admin, &all, ends).await;
    assert_eq!(used(admin, "scopes").await["pods"], "0");
    made(admin, &all, pod("idle", json!({}))).await;
    assert_eq!(admin.post(&all, pod("more", json!({}))).await.code, 403);
    // A pod that gets an end leaves the scope.
    assert_eq!(merge(admin, &format!("{all}/idle"), json!({"spec": {"activeDeadlineSeconds": 3600}})).await.code, 200);
    until(admin, "scopes", |status| status["used"]["pods"] == "0").await;
    made(admin, &all, pod("more", json!({}))).await;
}

/// Writes at the same time do not pass a quota together, and none of what fits is lost.
async fn together(cluster: &Cluster) {
    let mut admin = cluster.admin().await;
    namespace(&mut admin, "together").await;
    quota(&mut admin, "together", json!({"hard": {"count/leases.coordination.k8s.io": "10"}})).await;
    let mut peers = Vec::new();
    for peer in 0..5 {
        let mut client = cluster.admin().await;
        peers.push(tokio::spawn(async move {
            let mut made = 0;
            for at in 0..5 {
                let lease = json!({"metadata": {"name": format!("l-{peer}-{at}")}});
                let answer = client.post("/apis/coordination.k8s.io/v1/namespaces/together/leases", lease).await;
                assert!(matches!(answer.code, 201 | 403), "{}", answer.body);
                made += usize::from(answer.code == 201);
            }
            made
        }));
    }
    let mut total = 0;
    for peer in peers {
        total += peer.await.expect("it ran");
    }
    assert_eq!(total, 10);
    assert_eq!(used(&mut admin, "together").await["count/leases.coordination.k8s.io"], "10");
}

async fn limits(admin: &mut Peer) {
    namespace(admin, "limits").await;
    let limits = json!([
        {"type": "Container", "min": {"cpu": "50m", "memory": "100Mi"}, "max": {"cpu": "500m", "memory": "500Mi"},
            "default": {"cpu": "500m", "memory": "500Mi"}, "defaultRequest": {"cpu": "100m", "memory": "200Mi"}},
        {"type": "PersistentVolumeClaim", "max": {"storage": "1Gi"}}]);
    made(admin, &path("limits", "limitranges"), json!({"metadata": {"name": "l"}, "spec": {"limits": limits}})).await;
    let all = path("limits", "pods");
    let stored = made(admin, &all, pod("none", json!({}))).await;
    assert_eq!(
        stored["spec"]["containers"][0]["resources"],
        json!({"requests": {"cpu": "100m", "memory": "200Mi"}, "limits": {"cpu": "500m", "memory": "500Mi"}})
    );
    assert_eq!(
        stored["metadata"]["annotations"]["kubernetes.io/limit-ranger"],
        "LimitRanger plugin set: cpu, memory request for container c; cpu, memory limit for container c"
    );
    let stored = made(admin, &all, pod("part", json!({"requests": {"cpu": "300m", "memory": "150Mi"}, "limits": {"cpu": "300m"}}))).await;
    assert_eq!(
        stored["spec"]["containers"][0]["resources"],
        json!({"requests": {"cpu": "300m", "memory": "150Mi"}, "limits": {"cpu": "300m", "memory": "500Mi"}})
    );
    let refused = admin.post(&all, pod("small", json!({"requests": {"cpu": "10m"}}))).await;
    assert_eq!((refused.code, refused.reason()), (403, "Forbidden"));
    assert_eq!(refused.message(), "pods \"small\" is forbidden: minimum cpu usage per Container is 50m, but request is 10m");
    let refused = admin.post(&all, pod("large", json!({"limits": {"memory": "600Mi"}}))).await;
    assert_eq!(refused.message(), "pods \"large\" is forbidden: maximum memory usage per Container is 500Mi, but limit is 600Mi");
    let claim = json!({"metadata": {"name": "c"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "2Gi"}}}});
    let refused = admin.post(&path("limits", "persistentvolumeclaims"), claim).await;
    assert_eq!(
        refused.message(),
        "persistentvolumeclaims \"c\" is forbidden: maximum storage usage per PersistentVolumeClaim is 1Gi, but request is 2Gi"
    );
}
