//! common/node/{pods,runtimeclass,sysctl,lease,podtemplates,secrets,configmap}, node/{pods,node_lifecycle}, scheduling/limit_range and storage/{csi_inline,persistent_volumes}: objects around pods.

use super::{gone, items, made, namespace, ok, patched, put, reached, settled};
use crate::cluster::{Cluster, Peer};
use serde_json::{Value, json};

pub async fn all(cluster: &Cluster) {
    let mut admin = cluster.admin().await;
    namespace(&mut admin, "pods").await;
    statuses_and_collections(&mut admin).await;
    generations_count_changes_of_the_spec(&mut admin).await;
    deadlines_shorten(&mut admin).await;
    classes_of_runtimes_are_looked_up(&mut admin).await;
    what_is_no_name_is_refused(&mut admin).await;
    leases_keep_their_times(&mut admin).await;
    nodes_have_a_life(&mut admin).await;
    limits_are_defaults(&mut admin).await;
    volumes_and_claims(&mut admin).await;
}

const PODS: &str = "/api/v1/namespaces/pods/pods";

fn pod(key: &str) -> Value {
    json!({"metadata": {"name": key, "labels": {"type": "Testing"}}, "spec": {"terminationGracePeriodSeconds": 1, "containers": [{"name": "c", "image": "run"}]}})
}

async fn running(admin: &mut Peer, key: &str) -> Value {
    reached(admin, PODS, key, "it runs", |pod| pod["status"]["phase"] == "Running").await
}

async fn statuses_and_collections(admin: &mut Peer) {
    let mut events = admin.watch(&format!("{PODS}?watch=true&labelSelector=type%3DTesting")).await;
    for key in ["one", "two", "three"] {
        made(admin, PODS, pod(key)).await;
    }
    for key in ["one", "two", "three"] {
        running(admin, key).await;
    }
    let image = json!({"metadata": {"labels": {"which": "patched"}}, "spec": {"terminationGracePeriodSeconds": 1, "containers": [{"name": "c", "image": "run:2"}]}});
    let answer = patched(admin, &format!("{PODS}/one"), "strategic-merge", image).await;
    assert_eq!((&answer["metadata"]["labels"]["which"], &answer["spec"]["containers"][0]["image"]), (&json!("patched"), &json!("run:2")));
    let mut status = admin.get(&format!("{PODS}/one/status")).await.body;
    for condition in status["status"]["conditions"].as_array_mut().expect("conditions") {
        if matches!(condition["type"].as_str(), Some("Ready" | "ContainersReady")) {
            condition["status"] = "False".into();
        }
    }
    let written = put(admin, &format!("{PODS}/one/status"), &status).await;
    let unready = written["status"]["conditions"].as_array().expect("conditions").iter().filter(|one| one["status"] == "False").count();
    assert_eq!(unready, 2);
    let patch = json!({"metadata": {"annotations": {"patchedstatus": "true"}}, "status": {"message": "Patched by e2e test", "reason": "E2E"}});
    let answer = patched(admin, &format!("{PODS}/two/status"), "merge", patch).await;
    assert_eq!((&answer["status"]["message"], &answer["status"]["reason"]), (&json!("Patched by e2e test"), &json!("E2E")));
    let all = format!("{PODS}?labelSelector=type%3DTesting");
    ok(&admin.send("DELETE", &all, "application/json", json!({"gracePeriodSeconds": 1}).to_string()).await);
    gone(&mut events, "one").await;
    settled(admin, &all, "all go", |pods| pods.is_empty()).await;
}

async fn generations_count_changes_of_the_spec(admin: &mut Peer) {
    let mut first = pod("generation");
    first["metadata"]["generation"] = 100.into();
    first["spec"]["schedulerName"] = "nobody".into();
    first["spec"]["initContainers"] = json!([{"name": "init", "image": "i:1"}]);
    first["spec"]["containers"][0]["resources"] =
        json!({"limits": {"cpu": "100m", "memory": "100Mi"}, "requests": {"cpu": "100m", "memory": "100Mi"}});
    first["spec"]["initContainers"][0]["resources"] = first["spec"]["containers"][0]["resources"].clone();
    let made = made(admin, PODS, first).await;
    assert_eq!((&made["metadata"]["generation"], &made["status"]["qosClass"]), (&json!(1), &json!("Guaranteed")));
    let mut wanted = 1;
    for (pointer, value, counts) in [
        ("/spec/tolerations", json!([{"key": "foo", "operator": "Equal", "value": "bar", "effect": "NoSchedule"}]), true),
        ("/spec/activeDeadlineSeconds", json!(5000), true),
        ("/spec/containers/0/image", json!("i:2"), true),
        ("/spec/initContainers/0/image", json!("i:2"), true),
        ("/metadata/annotations", json!({"key": "value"}), false),
        ("/metadata/generation", json!(1), false),
    ] {
        let mut current = admin.get(&format!("{PODS}/generation")).await.body;
        let (parent, field) = pointer.rsplit_once('/').expect("a field");
        let mut added = value;
        if field == "tolerations" {
            let mut all = current["spec"]["tolerations"].as_array().cloned().unwrap_or_default();
            all.extend(added.as_array().cloned().unwrap_or_default());
            added = all.into();
        }
        current.pointer_mut(parent).expect("a parent")[field] = added;
        let written = put(admin, &format!("{PODS}/generation"), &current).await;
        wanted += u32::from(counts);
        assert_eq!(written["metadata"]["generation"], wanted, "{pointer}");
    }
    // Being told to go is a change of its own.
    let mut held = pod("held");
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    super::made(admin, PODS, held).await;
    running(admin, "held").await;
    ok(&admin.send("DELETE", &format!("{PODS}/held?gracePeriodSeconds=60"), "", String::new()).await);
    let going = admin.get(&format!("{PODS}/held")).await.body;
    assert!(going["metadata"]["generation"].as_u64() >= Some(2), "{}", going["metadata"]);
    patched(admin, &format!("{PODS}/held"), "merge", json!({"metadata": {"finalizers": null}})).await;
}

async fn deadlines_shorten(admin: &mut Peer) {
    let mut one = pod("deadline");
    one["spec"]["activeDeadlineSeconds"] = 500.into();
    made(admin, PODS, one).await;
    let path = format!("{PODS}/deadline");
    let shorter = patched(admin, &path, "merge", json!({"spec": {"activeDeadlineSeconds": 5}})).await;
    assert_eq!(shorter["spec"]["activeDeadlineSeconds"], 5);
    let longer = admin.send("PATCH", &path, "application/merge-patch+json", json!({"spec": {"activeDeadlineSeconds": 50}}).to_string()).await;
    assert_eq!(longer.code, 422, "{}", longer.body);
}

async fn classes_of_runtimes_are_looked_up(admin: &mut Peer) {
    let classes = "/apis/node.k8s.io/v1/runtimeclasses";
    made(admin, classes, json!({"metadata": {"name": "plain"}, "handler": "h"})).await;
    made(admin, classes, json!({"metadata": {"name": "heavy"}, "handler": "h", "overhead": {"podFixed": {"cpu": "10m", "memory": "1Mi"}}})).await;
    for (class, overhead) in [("plain", Value::Null), ("heavy", json!({"cpu": "10m", "memory": "1Mi"}))] {
        let mut one = pod(&format!("class-{class}"));
        one["spec"]["runtimeClassName"] = class.into();
        made(admin, PODS, one).await;
        let scheduled = reached(admin, PODS, &format!("class-{class}"), "it is scheduled", |pod| pod["spec"]["nodeName"].is_string()).await;
        assert_eq!(scheduled["spec"]["overhead"], overhead);
    }
    ok(&admin.send("DELETE", &format!("{classes}/plain"), "", String::new()).await);
    for class in ["plain", "never-was"] {
        let mut one = pod("rejected");
        one["spec"]["runtimeClassName"] = class.into();
        let refused = admin.post(PODS, one).await;
        assert_eq!((refused.code, refused.reason()), (403, "Forbidden"), "{}", refused.body);
        assert!(refused.message().contains(&format!("RuntimeClass \"{class}\" not found")), "{}", refused.message());
    }
}

async fn what_is_no_name_is_refused(admin: &mut Peer) {
    let mut one = pod("sysctls");
    let of = |name: &str| json!({"name": name, "value": "1"});
    one["spec"]["securityContext"] = json!({"sysctls": [of("foo-"), of("kernel.shmmax"), of("safe-and-unsafe"), of("bar..")]});
    let refused = admin.post(PODS, one).await;
    assert_eq!(refused.code, 422);
    let message = refused.message();
    assert!(message.contains(r#"Invalid value: "foo-""#) && message.contains(r#"Invalid value: "bar..""#), "{message}");
    assert!(!message.contains("safe-and-unsafe") && !message.contains("kernel.shmmax"), "{message}");
    for (kind, data) in [("configmaps", json!({"": "value"})), ("secrets", json!({"": "dmFsdWU="}))] {
        let refused = admin.post(&format!("/api/v1/namespaces/pods/{kind}"), json!({"metadata": {"name": "empty-key"}, "data": data})).await;
        assert_eq!((refused.code, refused.reason()), (422, "Invalid"), "{}", refused.body);
    }
    let secrets = "/api/v1/namespaces/pods/secrets";
    made(
        admin,
        secrets,
        json!({"metadata": {"name": "s", "labels": {"testsecret-constant": "true"}}, "data": {"key": "dmFsdWU="}, "type": "Opaque"}),
    )
    .await;
    let patch = json!({"metadata": {"labels": {"testsecret": "true"}}, "data": {"key": "dmFsdWUx"}});
    patched(admin, &format!("{secrets}/s"), "strategic-merge", patch).await;
    let found = items(admin, "/api/v1/secrets?labelSelector=testsecret%3Dtrue").await;
    assert_eq!((found.len(), &found[0]["data"]["key"]), (1, &json!("dmFsdWUx")));
    ok(&admin.send("DELETE", &format!("{secrets}?labelSelector=testsecret-constant%3Dtrue"), "", String::new()).await);
    assert!(items(admin, "/api/v1/secrets?labelSelector=testsecret%3Dtrue").await.is_empty());
    let templates = "/api/v1/namespaces/pods/podtemplates";
    let mut template = json!({"metadata": {"name": "t"}, "template": {"metadata": {"labels": {"a": "b"}}, "spec": pod("")["spec"]}});
    template["metadata"]["labels"] = json!({"podtemplate-set": "true"});
    made(admin, templates, template.clone()).await;
    template["metadata"]["annotations"] = json!({"updated": "true"});
    assert_eq!(put(admin, &format!("{templates}/t"), &template).await["metadata"]["annotations"]["updated"], "true");
    assert_eq!(items(admin, "/api/v1/podtemplates?labelSelector=podtemplate-set%3Dtrue").await.len(), 1);
}

async fn leases_keep_their_times(admin: &mut Peer) {
    let leases = "/apis/coordination.k8s.io/v1/namespaces/pods/leases";
    let spec = |holder: &str, second: u32| {
        json!({"holderIdentity": holder, "leaseDurationSeconds": 30, "acquireTime": format!("0001-01-01T00:00:{second:02}.000000Z"),
            "renewTime": format!("0001-01-01T00:00:{second:02}.123456Z"), "leaseTransitions": second})
    };
    let mut lease = made(admin, leases, json!({"metadata": {"name": "lease"}, "spec": spec("holder", 2)})).await;
    assert_eq!(lease["spec"], spec("holder", 2));
    lease["spec"] = spec("holder2", 20);
    assert_eq!(put(admin, &format!("{leases}/lease"), &lease).await["spec"], spec("holder2", 20));
    patched(admin, &format!("{leases}/lease"), "strategic-merge", json!({"spec": spec("holder3", 50)})).await;
    assert_eq!(admin.get(&format!("{leases}/lease")).await.body["spec"], spec("holder3", 50));
}

async fn nodes_have_a_life(admin: &mut Peer) {
    let nodes = "/api/v1/nodes";
    let ready = json!([{"type": "Ready", "status": "True", "reason": "E2E", "message": "Set from e2e test"}]);
    let node = made(
        admin,
        nodes,
        json!({"metadata": {"name": "fake"}, "spec": {"unschedulable": true}, "status": {"phase": "Running", "conditions": ready}}),
    )
    .await;
    assert_eq!(node["status"]["conditions"][0]["reason"], "E2E", "a node may be made with its status");
    patched(admin, &format!("{nodes}/fake"), "strategic-merge", json!({"metadata": {"labels": {"fake": "patched"}}})).await;
    assert_eq!(items(admin, &format!("{nodes}?labelSelector=fake%3Dpatched")).await.len(), 1);
    ok(&admin.send("DELETE", &format!("{nodes}/fake"), "", String::new()).await);
    assert_eq!(admin.get(&format!("{nodes}/fake")).await.code, 404);
}

async fn limits_are_defaults(admin: &mut Peer) {
    namespace(admin, "limits").await;
    let path = "/api/v1/namespaces/limits/limitranges";
    let list = |cpu: &str, memory: &str, storage: &str| json!({"cpu": cpu, "memory": memory, "ephemeral-storage": storage});
    let limits = json!({"type": "Container", "min": list("50m", "100Mi", "100Gi"), "max": list("500m", "500Mi", "500Gi"),
        "default": list("500m", "500Mi", "500Gi"), "defaultRequest": list("100m", "200Mi", "200Gi")});
    let range = made(admin, path, json!({"metadata": {"name": "range"}, "spec": {"limits": [limits]}})).await;
    let create = async |admin: &mut Peer, key: &str, resources: Value| {
        let mut pod = pod(key);
        pod["spec"]["schedulerName"] = "nobody".into();
        pod["spec"]["containers"][0]["resources"] = resources;
        admin.post("/api/v1/namespaces/limits/pods", pod).await
    };
    let none = create(admin, "none", json!({})).await.body["spec"]["containers"][0]["resources"].clone();
    assert_eq!(none, json!({"limits": list("500m", "500Mi", "500Gi"), "requests": list("100m", "200Mi", "200Gi")}));
    let partial = json!({"requests": {"memory": "150Mi", "ephemeral-storage": "150Gi"}, "limits": {"cpu": "300m"}});
    let partial = create(admin, "partial", partial).await.body["spec"]["containers"][0]["resources"].clone();
    assert_eq!(partial, json!({"limits": list("300m", "500Mi", "500Gi"), "requests": list("300m", "150Mi", "150Gi")}));
    let (little, much) = (json!({"requests": list("10m", "50Mi", "50Gi")}), json!({"requests": list("600m", "600Mi", "600Gi")}));
    for wrong in [&little, &much] {
        assert_eq!(create(admin, "wrong", wrong.clone()).await.code, if wrong == &much { 422 } else { 403 });
    }
    let mut changed = range;
    changed["spec"]["limits"][0]["min"] = list("9m", "49Mi", "49Gi");
    put(admin, &format!("{path}/range"), &changed).await;
    assert_eq!(create(admin, "little", little).await.code, 201);
    assert_ne!(create(admin, "much", much.clone()).await.code, 201);
    ok(&admin.send("DELETE", &format!("{path}/range"), "application/json", json!({"gracePeriodSeconds": 30}).to_string()).await);
    assert_eq!(create(admin, "much", much).await.code, 201);
}

async fn volumes_and_claims(admin: &mut Peer) {
    let mut inline = pod("inline");
    let csi = json!([{"name": "one", "csi": {"driver": "e2e.example.com"}}, {"name": "two", "csi": {"driver": "e2e.example.com", "fsType": "ext4", "readOnly": true}}]);
    inline["spec"]["volumes"] = csi;
    inline["spec"]["schedulerName"] = "nobody".into();
    let inline = made(admin, PODS, inline).await;
    assert_eq!(inline["spec"]["volumes"][1]["csi"], json!({"driver": "e2e.example.com", "fsType": "ext4", "readOnly": true}));
    let (volumes, claims) = ("/api/v1/persistentvolumes", "/api/v1/namespaces/pods/persistentvolumeclaims");
    let spec = json!({"capacity": {"storage": "2Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "e2e", "persistentVolumeReclaimPolicy": "Retain",
        "csi": {"driver": "e2e.example.com", "volumeHandle": "e2e-conformance"}});
    made(admin, volumes, json!({"metadata": {"name": "volume", "labels": {"e2e-pv-pool": "x"}}, "spec": spec})).await;
    let spec = json!({"accessModes": ["ReadWriteOnce"], "storageClassName": "e2e", "resources": {"requests": {"storage": "2Gi"}}});
    made(admin, claims, json!({"metadata": {"name": "claim"}, "spec": spec})).await;
    let phase = |answer: Value| answer["status"]["phase"].as_str().unwrap_or_default().to_owned();
    let volume = phase(admin.get(&format!("{volumes}/volume/status")).await.body);
    assert!(["Available", "Bound", "Pending"].contains(&&*volume), "{volume}");
    let claim = phase(admin.get(&format!("{claims}/claim/status")).await.body);
    assert!(["Pending", "Bound"].contains(&&*claim), "{claim}");
    let condition = |kind: &str, reason: &str| json!({"type": kind, "status": "True", "reason": reason, "message": "Set from e2e test"});
    let mut told = patched(
        admin,
        &format!("{claims}/claim/status"),
        "merge",
        json!({"status": {"conditions": [condition("StatusPatched", "E2E patchedStatus")]}}),
    )
    .await;
    assert_eq!(told["status"]["conditions"][0]["reason"], "E2E patchedStatus");
    told["status"]["conditions"].as_array_mut().expect("conditions").push(condition("StatusUpdated", "E2E updateStatus"));
    told["metadata"]["resourceVersion"] = Value::Null;
    let told = put(admin, &format!("{claims}/claim/status"), &told).await;
    assert_eq!(told["status"]["conditions"][1]["type"], "StatusUpdated");
    let told =
        patched(admin, &format!("{volumes}/volume/status"), "merge", json!({"status": {"message": "StatusPatched", "reason": "E2E patchStatus"}}))
            .await;
    assert_eq!((&told["status"]["message"], &told["status"]["reason"]), (&json!("StatusPatched"), &json!("E2E patchStatus")));
    // What nobody uses goes, its protection notwithstanding.
    ok(&admin.send("DELETE", claims, "application/json", String::new()).await);
    settled(admin, claims, "the claim goes", |list| list.is_empty()).await;
    ok(&admin.send("DELETE", &format!("{volumes}?labelSelector=e2e-pv-pool%3Dx"), "application/json", String::new()).await);
    settled(admin, &format!("{volumes}?labelSelector=e2e-pv-pool%3Dx"), "the volume goes", |list| list.is_empty()).await;
}
