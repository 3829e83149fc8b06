//! What the audit log tells of decisions, and of those who ask within the control plane.

use crate::cluster::{Cluster, Peer};
use crate::server::Server;
use coracle_apiserver::audit;
use coracle_control::Settings;
use serde_json::{Value, json};

const ADMISSION: &str = "/apis/admissionregistration.k8s.io/v1";
const MAPS: &str = "/api/v1/namespaces/audited/configmaps";
const PODS: &str = "/api/v1/namespaces/audited/pods";

async fn made(admin: &mut Peer, path: &str, object: Value) -> String {
    let answer = admin.post(path, object).await;
    assert_eq!(answer.code, 201, "{}", answer.body);
    answer.header("audit-id").to_owned()
}

/// The lines of a log.
struct Lines(Vec<Value>);

impl Lines {
    fn of(&self, id: &str) -> &Value {
        self.0.iter().find(|line| line["auditID"] == id).expect("a line")
    }
    fn annotation(&self, id: &str, key: &str) -> &Value {
        &self.of(id)["annotations"][key]
    }
    fn read(&self, id: &str, key: &str) -> Value {
        serde_json::from_str(self.annotation(id, key).as_str().unwrap_or("null")).expect("JSON")
    }
    /// One that a component wrote.
    fn by(&self, user: &str, verb: &str, resource: &str) -> &Value {
        let found = self.0.iter().find(|line| line["user"]["username"] == user && line["verb"] == verb && line["objectRef"]["resource"] == resource);
        found.unwrap_or_else(|| panic!("{user} did {verb} {resource}"))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn decisions_are_in_the_log() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("audit.log");
    let policy = "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules:\n- {level: None, resources: [{resources: [serviceaccounts]}]}\n- {level: Request, namespaces: [audited], resources: [{resources: [configmaps]}, {group: apps, resources: [replicasets]}]}\n- {level: Metadata}\n";
    let file = audit::sink::Options { path: path.clone(), max_bytes: 0, max_backups: 0 };
    let policy = audit::Policy::read(policy).expect("a policy");
    let cluster = Cluster::with(dir, Settings { audit: Some(audit::Options { policy, file }), ..Settings::default() }).await;
    let server = Server::start().await;
    let mut admin = cluster.admin().await;
    let labels = json!({"test": "audited", "pod-security.kubernetes.io/enforce": "baseline", "pod-security.kubernetes.io/audit": "restricted"});
    made(&mut admin, "/api/v1/namespaces", json!({"metadata": {"name": "audited", "labels": labels}})).await;

    let pod = pods(&mut admin).await;
    let policies = policies(&mut admin).await;
    let webhooks = webhooks(&mut admin, &server).await;
    workloads(&mut admin).await;

    assert_eq!(cluster.control.stop().await, Vec::<&str>::new());
    let text = std::fs::read_to_string(&path).expect("the log");
    let lines = Lines(text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect());

    assert_eq!(lines.annotation(&pod, "pod-security.kubernetes.io/enforce-policy"), "baseline:latest");
    let violations = lines.annotation(&pod, "pod-security.kubernetes.io/audit-violations").as_str().expect("violations");
    assert!(violations.starts_with("would violate PodSecurity \"restricted:latest\": allowPrivilegeEscalation != false"), "{violations}");
    assert_eq!(lines.annotation(&pod, "authorization.k8s.io/decision"), "allow");

    let failure = lines.read(&policies, "validation.policy.admission.k8s.io/validation_failure");
    let told = json!([{"message": "no k", "policy": "few-keys", "binding": "few-keys", "expressionIndex": 1, "validationActions": ["Audit"]}]);
    assert_eq!(failure, told);
    assert_eq!(lines.annotation(&policies, "few-keys/keys"), "1 keys");

    let of = |key: &str| lines.read(&webhooks, key);
    let hook = |name: &str| format!("{name}.example.com");
    assert_eq!(
        of("mutation.webhook.admission.k8s.io/round_0_index_0"),
        json!({"configuration": "changing", "webhook": hook("patch"), "mutated": true})
    );
    let patch = of("patch.webhook.admission.k8s.io/round_0_index_0");
    assert_eq!((&patch["patchType"], &patch["patch"][0]["path"]), (&json!("JSONPatch"), &json!("/data/x")));
    assert_eq!(of("mutation.webhook.admission.k8s.io/round_0_index_1")["mutated"], false);
    assert_eq!(lines.annotation(&webhooks, "failed-open.mutation.webhook.admission.k8s.io/round_0_index_1"), &hook("broken"));
    assert_eq!(lines.annotation(&webhooks, "note.example.com/seen"), "yes");
    assert_eq!(lines.annotation(&webhooks, "failed-open.validating.webhook.admission.k8s.io/round_0_index_1"), &hook("away"));

    let set = lines.by("system:serviceaccount:kube-system:deployment-controller", "create", "replicasets");
    assert_eq!((&set["level"], &set["requestURI"]), (&json!("Request"), &json!("/apis/apps/v1/namespaces/audited/replicasets")));
    assert_eq!((&set["requestObject"]["kind"], &set["responseStatus"]["code"]), (&json!("ReplicaSet"), &json!(201)));
    assert_eq!(set["annotations"]["authorization.k8s.io/decision"], "allow");
    assert!(set["userAgent"].as_str().is_some_and(|agent| agent.starts_with("kube-controller-manager/v1.")), "{set}");
    assert!(set.get("sourceIPs").is_none(), "it came from nowhere");
    let pod = lines.by("system:serviceaccount:kube-system:replicaset-controller", "create", "pods");
    assert_eq!(pod["annotations"]["pod-security.kubernetes.io/enforce-policy"], "baseline:latest", "admission tells of controllers too");
    assert_eq!(lines.by("system:kube-scheduler", "patch", "pods")["objectRef"]["subresource"], "status");
    assert_eq!(lines.by("system:kube-scheduler", "create", "events")["objectRef"]["namespace"], "audited");
    assert!(lines.0.iter().all(|line| line["objectRef"]["resource"] != "serviceaccounts"), "nothing is kept of what the policy leaves out");
}

async fn pods(admin: &mut Peer) -> String {
    // The account that pods run as.
    admin.watch("/api/v1/namespaces/audited/serviceaccounts?watch=true&fieldSelector=metadata.name=default").await.next().await.expect("an account");
    made(admin, PODS, json!({"metadata": {"name": "loose"}, "spec": {"containers": [{"name": "c", "image": "i"}]}})).await
}

async fn policies(admin: &mut Peer) -> String {
    let rules = json!([{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"], "operations": ["CREATE"]}]);
    let spec = json!({
        "matchConstraints": {"resourceRules": rules, "namespaceSelector": {"matchLabels": {"test": "audited"}}},
        "validations": [{"expression": "true"}, {"expression": "!('k' in object.data)", "message": "no k"}],
        "auditAnnotations": [{"key": "keys", "valueExpression": "string(object.data.size()) + ' keys'"}],
    });
    made(admin, &format!("{ADMISSION}/validatingadmissionpolicies"), json!({"metadata": {"name": "few-keys"}, "spec": spec})).await;
    let spec = json!({"policyName": "few-keys", "validationActions": ["Audit"]});
    made(admin, &format!("{ADMISSION}/validatingadmissionpolicybindings"), json!({"metadata": {"name": "few-keys"}, "spec": spec})).await;
    made(admin, MAPS, json!({"metadata": {"name": "noted"}, "data": {"k": "v"}})).await
}

async fn webhooks(admin: &mut Peer, server: &Server) -> String {
    let hook = |name: &str, path: &str| {
        json!({"name": format!("{name}.example.com"), "admissionReviewVersions": ["v1"], "sideEffects": "None", "failurePolicy": "Ignore",
            "clientConfig": server.config(path), "namespaceSelector": {"matchLabels": {"test": "audited"}},
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"], "operations": ["CREATE"]}]})
    };
    let changing = json!({"metadata": {"name": "changing"}, "webhooks": [hook("patch", "/patch"), hook("broken", "/broken")]});
    made(admin, &format!("{ADMISSION}/mutatingwebhookconfigurations"), changing).await;
    let looking = json!({"metadata": {"name": "looking"}, "webhooks": [hook("note", "/note"), hook("away", "/broken")]});
    made(admin, &format!("{ADMISSION}/validatingwebhookconfigurations"), looking).await;
    made(admin, MAPS, json!({"metadata": {"name": "hooked"}, "data": {"k": "v"}})).await
}

/// A Deployment whose pod no node has room for, until the scheduler has said so.
async fn workloads(admin: &mut Peer) {
    let template = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let spec = json!({"replicas": 1, "selector": {"matchLabels": {"app": "web"}}, "template": template});
    made(admin, "/apis/apps/v1/namespaces/audited/deployments", json!({"metadata": {"name": "web"}, "spec": spec})).await;
    let mut pods = admin.watch(&format!("{PODS}?watch=true&labelSelector=app%3Dweb")).await;
    while pods.next().await.expect("a pod")["object"]["status"]["conditions"][0]["reason"] != "Unschedulable" {}
    drop(pods);
    let mut events = admin.watch("/api/v1/namespaces/audited/events?watch=true").await;
    while events.next().await.expect("an event")["object"]["reason"] != "FailedScheduling" {}
}
