//! Kinds through the whole pipeline of a real control plane: admission, what is prepared, rules, allocation under races, special subresources.
//!
//! One control plane for all cases; each case has a namespace of its own.

use coracle_api::Status;
use coracle_apiserver::client::{Client, DeleteOptions};
use coracle_control::{Control, Options};
use coracle_link::pki::Authority;
use coracle_store::Object;
use serde_json::{Value, json};
use std::collections::BTreeSet;

fn value(object: &Object) -> Value {
    serde_json::from_slice(&object.json).expect("stored JSON")
}

/// A namespace whose default service account exists (its controller may be quicker).
async fn namespace(client: &Client, name: &str) {
    client.create("namespaces", "", json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})).await.expect("namespace");
    match client.create("serviceaccounts", name, json!({"metadata": {"name": "default"}})).await {
        Err(status) if status.reason != "AlreadyExists" => panic!("{status}"),
        _ => {}
    }
}

fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}}, "spec": {"containers": [{"name": "c", "image": "web:1"}]}})
}

fn service(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kinds() {
    let dir = tempfile::tempdir().expect("directory");
    let options = Options {
        data_dir: dir.path().into(),
        api_addr: ([127, 0, 0, 1], 0).into(),
        link_addr: ([127, 0, 0, 1], 0).into(),
        pod_cidr: "10.244.0.0/16".into(),
        service_cidr: "10.96.0.0/24".into(),
        authority: Authority::open(&dir.path().join("pki")).expect("authority"),
        settings: Default::default(),
    };
    let control = Control::start(options).await.expect("control plane");
    let client = control.client();
    a_new_pod_is_admitted(client).await;
    pods_are_bound_once_and_evicted(client).await;
    services_never_share_an_address(client).await;
    addresses_come_back(client).await;
    namespaces_have_a_life(client).await;
    a_pod_may_follow_its_namespace(client).await;
    rules_are_upstreams(client).await;
    jobs_know_their_pods(client).await;
    assert_eq!(control.stop().await, Vec::<&str>::new());
}

async fn a_new_pod_is_admitted(client: &Client) {
    namespace(client, "pods").await;
    let stored = value(&client.create("pods", "pods", pod("a")).await.expect("created"));
    let spec = &stored["spec"];
    let volume = spec["volumes"][0]["name"].as_str().expect("token volume").to_string();
    assert!(volume.starts_with("kube-api-access-"), "{volume}");
    assert_eq!(
        *spec,
        json!({
            "containers": [{"name": "c", "image": "web:1", "imagePullPolicy": "IfNotPresent", "resources": {}, "terminationMessagePath": "/dev/termination-log",
                "terminationMessagePolicy": "File",
                "volumeMounts": [{"name": volume, "readOnly": true, "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}]}],
            "dnsPolicy": "ClusterFirst", "enableServiceLinks": true, "preemptionPolicy": "PreemptLowerPriority", "priority": 0, "restartPolicy": "Always",
            "schedulerName": "default-scheduler", "securityContext": {}, "serviceAccount": "default", "serviceAccountName": "default",
            "terminationGracePeriodSeconds": 30,
            "tolerations": [
                {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300},
                {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}],
            "volumes": [{"name": volume, "projected": {"defaultMode": 420, "sources": [
                {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
                {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}}]}}],
        })
    );
    assert_eq!((&stored["status"]["phase"], &stored["status"]["qosClass"]), (&json!("Pending"), &json!("BestEffort")));

    let refused = async |change: fn(&mut Value)| -> Status {
        let mut pod = pod("b");
        change(&mut pod["spec"]);
        client.create("pods", "pods", pod).await.expect_err("refused")
    };
    let status = refused(|spec| spec["serviceAccountName"] = "x".into()).await;
    assert_eq!(
        (status.code, status.message.as_str()),
        (403, "pods \"b\" is forbidden: error looking up service account pods/x: serviceaccount \"x\" not found")
    );
    let status = refused(|spec| spec["priorityClassName"] = "x".into()).await;
    assert_eq!(status.message, "pods \"b\" is forbidden: no PriorityClass with name x was found");
    let status = refused(|spec| spec["runtimeClassName"] = "x".into()).await;
    assert_eq!(status.message, "pods \"b\" is forbidden: pod rejected: RuntimeClass \"x\" not found");
    let status = refused(|spec| spec["containers"] = json!([])).await;
    assert_eq!((status.code, status.message.as_str()), (422, "Pod \"b\" is invalid: spec.containers: Required value"));

    let mut changed = value(&client.get("pods", "pods", "a").expect("there"));
    changed["spec"]["hostname"] = "h".into();
    let status = client.update("pods", changed).await.expect_err("refused");
    assert!(
        status.message.starts_with("Pod \"a\" is invalid: spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,"),
        "{status}"
    );
}

async fn pods_are_bound_once_and_evicted(client: &Client) {
    namespace(client, "bind").await;
    // Only by hand: no scheduler is asked.
    let mut waiting = pod("a");
    waiting["spec"]["schedulerName"] = "nobody".into();
    client.create("pods", "bind", waiting).await.expect("created");
    let binding = |node: &str| json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "a"}, "target": {"kind": "Node", "name": node}});
    let answer = client.create_subresource("pods", "bind", "a", "binding", binding("n1")).await.expect("bound");
    assert_eq!((&answer["status"], &answer["code"]), (&json!("Success"), &json!(201)));
    let stored = value(&client.get("pods", "bind", "a").expect("there"));
    assert_eq!(stored["spec"]["nodeName"], "n1");
    assert_eq!(stored["status"]["conditions"][0]["type"], "PodScheduled");
    let status = client.create_subresource("pods", "bind", "a", "binding", binding("n2")).await.expect_err("bound already");
    assert_eq!(
        (status.code, status.message.as_str()),
        (409, "Operation cannot be fulfilled on pods/binding \"a\": pod a is already assigned to node \"n1\"")
    );
    let mut waiting = pod("m");
    waiting["spec"]["schedulerName"] = "nobody".into();
    client.create("pods", "bind", waiting).await.expect("created");
    let mut mirror = binding("n1");
    mirror["metadata"] = json!({"name": "m", "annotations": {"kubernetes.io/config.mirror": "x"}});
    let status = client.create_subresource("pods", "bind", "m", "binding", mirror).await.expect_err("a mirror is made, not bound");
    assert_eq!(status.code, 422, "{status}");
    assert!(status.message.ends_with("metadata.annotations[kubernetes.io/config.mirror]: Forbidden: may not add mirror pod annotation"), "{status}");
    assert_eq!(value(&client.get("pods", "bind", "m").expect("there"))["spec"]["nodeName"], Value::Null, "nothing was bound");

    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "a"}, "deleteOptions": {"gracePeriodSeconds": 7}});
    client.create_subresource("pods", "bind", "a", "eviction", eviction).await.expect("evicted");
    let stored = value(&client.get("pods", "bind", "a").expect("still ending"));
    assert_eq!(stored["metadata"]["deletionGracePeriodSeconds"], 7);
    assert!(stored["status"]["conditions"].as_array().expect("conditions").iter().any(|c| c["type"] == "DisruptionTarget"));
    let status = client.create_subresource("pods", "bind", "none", "binding", json!({"target": {"name": "n1"}})).await.expect_err("no such pod");
    assert_eq!(status.code, 404);
}

async fn services_never_share_an_address(client: &Client) {
    namespace(client, "services").await;
    let creates = (0..60).map(|n| {
        let client = client.clone();
        let spec = json!({"type": if n % 2 == 0 { "NodePort" } else { "ClusterIP" }, "selector": {"app": "a"}, "ports": [{"port": 80}]});
        tokio::spawn(async move { client.create("services", "services", service(&format!("s{n}"), spec)).await })
    });
    let mut stored = Vec::new();
    for create in creates.collect::<Vec<_>>() {
        stored.push(value(&create.await.expect("task").expect("created")));
    }
    let ips: BTreeSet<&str> = stored.iter().filter_map(|service| service["spec"]["clusterIP"].as_str()).collect();
    let ports: BTreeSet<i64> = stored.iter().filter_map(|service| service["spec"]["ports"][0]["nodePort"].as_i64()).collect();
    assert_eq!((ips.len(), ports.len()), (60, 30));
    let first = stored.iter().find(|service| service["metadata"]["name"] == "s0").expect("s0");
    let (ip, port) = (&first["spec"]["clusterIP"], &first["spec"]["ports"][0]["nodePort"]);
    assert_eq!(
        first["spec"],
        json!({"type": "NodePort", "clusterIP": ip, "clusterIPs": [ip], "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack", "selector": {"app": "a"},
            "sessionAffinity": "None", "internalTrafficPolicy": "Cluster", "externalTrafficPolicy": "Cluster",
            "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80, "nodePort": port}]})
    );
}

async fn addresses_come_back(client: &Client) {
    namespace(client, "again").await;
    let fixed = json!({"clusterIP": "10.96.0.9", "ports": [{"port": 80}]});
    client.create("services", "again", service("a", fixed.clone())).await.expect("free");
    let status = client.create("services", "again", service("b", fixed.clone())).await.expect_err("taken");
    assert_eq!(
        status.message,
        "Service \"b\" is invalid: spec.clusterIPs: Invalid value: [\"10.96.0.9\"]: failed to allocate IP 10.96.0.9: provided IP is already allocated"
    );
    let mut moved = value(&client.get("services", "again", "a").expect("there"));
    moved["spec"]["clusterIP"] = "10.96.0.8".into();
    let status = client.update("services", moved).await.expect_err("fixed");
    assert!(status.message.ends_with("may not change once set"), "{status}");
    client.delete("services", "again", "a", DeleteOptions::default()).await.expect("deleted");
    client.create("services", "again", service("b", fixed)).await.expect("free again");
    let mut named = value(&client.get("services", "again", "b").expect("there"));
    named["spec"]["type"] = "ExternalName".into();
    named["spec"]["externalName"] = "example.com".into();
    let named = value(&client.update("services", named).await.expect("renamed"));
    assert!(named["spec"].get("clusterIP").is_none(), "{named}");
    assert!(client.get("ipaddresses.networking.k8s.io", "", "10.96.0.9").is_none(), "the address is given back");
}

async fn namespaces_have_a_life(client: &Client) {
    let status = client.create("pods", "nowhere", pod("a")).await.expect_err("no namespace");
    assert_eq!((status.code, status.message.as_str()), (404, "namespaces \"nowhere\" not found"));
    let status = client.delete("namespaces", "", "kube-system", DeleteOptions::default()).await.expect_err("immortal");
    assert_eq!((status.code, status.message.as_str()), (403, "namespaces \"kube-system\" is forbidden: this namespace may not be deleted"));
    namespace(client, "ending").await;
    let mut held = value(&client.get("namespaces", "", "ending").expect("there"));
    assert_eq!(held["metadata"]["labels"]["kubernetes.io/metadata.name"], "ending");
    assert_eq!((&held["status"]["phase"], &held["spec"]["finalizers"]), (&json!("Active"), &json!(["kubernetes"])));
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    client.update("namespaces", held).await.expect("held");
    client.delete("namespaces", "", "ending", DeleteOptions::default()).await.expect("begun");
    let status = client.create("configmaps", "ending", json!({"metadata": {"name": "a"}})).await.expect_err("terminating");
    assert_eq!(status.message, "configmaps \"a\" is forbidden: unable to create new content in namespace ending because it is being terminated");
    assert_eq!(status.details.expect("details").causes[0].reason, "NamespaceTerminating");
}

/// One manifest holds a namespace and a pod in it.
async fn a_pod_may_follow_its_namespace(client: &Client) {
    for n in 0..5 {
        let name = format!("new-{n}");
        client.create("namespaces", "", json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})).await.expect("namespace");
        client.create("pods", &name, pod("a")).await.expect("a pod at once");
    }
}

async fn rules_are_upstreams(client: &Client) {
    namespace(client, "rules").await;
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {"selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "db"}}, "spec": {"containers": [{"name": "a", "image": "x"}]}}}});
    let status = client.create("deployments.apps", "rules", deployment.clone()).await.expect_err("labels");
    assert_eq!(
        status.message,
        "Deployment.apps \"web\" is invalid: spec.template.metadata.labels: Invalid value: {\"app\":\"db\"}: `selector` does not match template `labels`"
    );
    let mut good = deployment;
    good["spec"]["template"]["metadata"]["labels"]["app"] = "web".into();
    good["spec"]["replicas"] = 0.into();
    client.create("deployments.apps", "rules", good).await.expect("good");
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"a": "b"}});
    let stored = value(&client.create("secrets", "rules", secret).await.expect("secret"));
    assert_eq!((&stored["type"], &stored["data"]), (&json!("Opaque"), &json!({"a": "Yg=="})));
    let frozen = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": {"a": "1"}, "immutable": true});
    let mut frozen = value(&client.create("configmaps", "rules", frozen).await.expect("map"));
    frozen["data"]["a"] = "2".into();
    let status = client.update("configmaps", frozen).await.expect_err("frozen");
    assert_eq!(status.message, "ConfigMap \"m\" is invalid: data: Forbidden: field is immutable when `immutable` is set");
    let class = json!({"metadata": {"name": "high"}, "value": 100, "globalDefault": true});
    client.create("priorityclasses.scheduling.k8s.io", "", class).await.expect("class");
    let second = json!({"metadata": {"name": "higher"}, "value": 200, "globalDefault": true});
    let status = client.create("priorityclasses.scheduling.k8s.io", "", second).await.expect_err("second default");
    assert_eq!(
        status.message,
        "priorityclasses.scheduling.k8s.io \"higher\" is forbidden: PriorityClass high is already marked as default. Only one default can exist"
    );
    let stored = value(&client.create("pods", "rules", pod("p")).await.expect("pod"));
    assert_eq!((&stored["spec"]["priority"], &stored["spec"]["priorityClassName"]), (&json!(100), &json!("high")));
    client.delete("priorityclasses.scheduling.k8s.io", "", "high", DeleteOptions::default()).await.expect("deleted");
    let node = json!({"metadata": {"name": "n9"}});
    let stored = value(&client.create("nodes", "", node).await.expect("node"));
    assert_eq!(stored["spec"]["taints"], json!([{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]));
}

async fn jobs_know_their_pods(client: &Client) {
    namespace(client, "jobs").await;
    let job = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "pi"}, "spec": {"suspend": true,
        "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "pi", "image": "pi"}]}}}});
    let stored = value(&client.create("jobs.batch", "jobs", job.clone()).await.expect("job"));
    let uid = &stored["metadata"]["uid"];
    assert_eq!(stored["spec"]["selector"], json!({"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}));
    assert_eq!(
        stored["spec"]["template"]["metadata"]["labels"],
        json!({"batch.kubernetes.io/controller-uid": uid, "batch.kubernetes.io/job-name": "pi", "controller-uid": uid, "job-name": "pi"})
    );
    assert_eq!(
        (&stored["spec"]["completions"], &stored["spec"]["completionMode"], &stored["spec"]["backoffLimit"]),
        (&json!(1), &json!("NonIndexed"), &json!(6))
    );
    let mut always = job;
    always["metadata"]["name"] = "bad".into();
    always["spec"]["template"]["spec"]["restartPolicy"] = Value::Null;
    let status = client.create("jobs.batch", "jobs", always).await.expect_err("always");
    assert_eq!(
        status.message,
        "Job.batch \"bad\" is invalid: spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\""
    );
}
