//! What is told of requests: the audit log, the headers that name a request, priority levels; and who may ask what about whom.

use crate::cluster::{Answer, Cluster, Peer, eventually};
use coracle_apiserver::audit;
use coracle_control::Settings;
use serde_json::{Value, json};
use std::time::Duration;

const FLOW: &str = "/apis/flowcontrol.apiserver.k8s.io/v1";
const REVIEWS: &str = "/apis/authorization.k8s.io/v1/subjectaccessreviews";

async fn made(admin: &mut Peer, path: &str, object: Value) -> Value {
    let answer = admin.post(path, object).await;
    assert_eq!(answer.code, 201, "{}", answer.body);
    answer.body
}

/// A peer that acts as somebody else.
async fn as_user(cluster: &Cluster, headers: &[(&str, &str)]) -> Peer {
    let mut peer = cluster.admin().await;
    peer.headers = headers.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    peer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn told() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("audit.log");
    let policy = "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nomitManagedFields: true\nrules:\n- {level: None, users: ['system:anonymous']}\n- {level: RequestResponse, resources: [{resources: [configmaps]}]}\n- {level: Metadata}\n";
    let file = audit::sink::Options { path: path.clone(), max_bytes: 0, max_backups: 0 };
    let policy = audit::Policy::read(policy).expect("a policy");
    let settings = Settings { audit: Some(audit::Options { policy, file }), ..Settings::default() };
    let cluster = Cluster::with(dir, settings).await;
    requests_are_named(&cluster).await;
    levels_send_away_who_is_too_many(&cluster).await;
    who_acts_as_somebody_may(&cluster).await;
    reviews_know_selectors(&cluster).await;
    nodes_may_what_is_theirs(&cluster).await;
    let ids = audited(&cluster).await;
    monitoring_is_told(&cluster).await;
    // The log is whole once the control plane has stopped.
    assert_eq!(cluster.control.stop().await, Vec::<&str>::new());
    let text = std::fs::read_to_string(&path).expect("the log");
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    the_log_tells(&lines, &ids);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_renewed_while_it_runs() {
    use x509_parser::prelude::{FromDer, X509Certificate};
    let settings = Settings { certificate_life: Duration::from_secs(3), ..Settings::default() };
    let cluster = Cluster::with(tempfile::tempdir().expect("a directory"), settings).await;
    let mut held = cluster.admin().await;
    let shown = async || {
        let stream = cluster.bare().await;
        let (_, session) = stream.get_ref();
        session.peer_certificates().and_then(|chain| chain.first()).expect("a certificate").to_vec()
    };
    let first = shown().await;
    // A handshake would fail with one that has ended; who is connected stays so.
    let second = eventually(shown, |second| *second != first).await;
    let end = |certificate: &[u8]| X509Certificate::from_der(certificate).expect("a certificate").1.validity().not_after.timestamp();
    assert!(end(&second) > end(&first));
    assert_eq!(held.get("/version").await.code, 200);
    cluster.node("n1").await;
    assert_eq!(cluster.control.stop().await, Vec::<&str>::new());
}

async fn requests_are_named(cluster: &Cluster) {
    let mut admin = as_user(cluster, &[("audit-id", "my-request")]).await;
    let answer = admin.get("/api/v1/namespaces/default").await;
    assert_eq!(answer.header("audit-id"), "my-request");
    let level = admin.get(&format!("{FLOW}/prioritylevelconfigurations/exempt")).await;
    assert_eq!(answer.header("x-kubernetes-pf-prioritylevel-uid"), level.body["metadata"]["uid"]);
    let mut nobody = cluster.nobody().await;
    let refused = nobody.get("/api/v1/pods").await;
    assert_eq!((refused.code, refused.header("audit-id").len()), (403, 36));
}

async fn levels_send_away_who_is_too_many(cluster: &Cluster) {
    let mut admin = cluster.admin().await;
    let limited = json!({"nominalConcurrencyShares": 0, "limitResponse": {"type": "Reject"}});
    let level = json!({"metadata": {"name": "nothing"}, "spec": {"type": "Limited", "limited": limited}});
    let level = made(&mut admin, &format!("{FLOW}/prioritylevelconfigurations"), level).await;
    let everything = json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "clusterScope": true, "namespaces": ["*"]});
    let rules = json!([{"subjects": [{"kind": "User", "user": {"name": "crowd"}}], "resourceRules": [everything]}]);
    let spec = json!({"priorityLevelConfiguration": {"name": "nothing"}, "matchingPrecedence": 50, "rules": rules});
    let schema = made(&mut admin, &format!("{FLOW}/flowschemas"), json!({"metadata": {"name": "crowd"}, "spec": spec})).await;
    let mut crowd = as_user(cluster, &[("impersonate-user", "crowd")]).await;
    // The rules are read by watch.
    let refused: Answer = loop {
        let answer = crowd.get("/api/v1/pods").await;
        if answer.code == 429 {
            break answer;
        }
        assert_eq!(answer.code, 403, "{}", answer.body);
        tokio::task::yield_now().await;
    };
    assert_eq!((refused.message(), refused.header("retry-after")), ("Too many requests, please try again later.", "1"));
    assert_eq!(refused.header("x-kubernetes-pf-flowschema-uid"), schema["metadata"]["uid"]);
    assert_eq!(refused.header("x-kubernetes-pf-prioritylevel-uid"), level["metadata"]["uid"]);
    assert_eq!(as_user(cluster, &[("impersonate-user", "other")]).await.get("/api/v1/pods").await.code, 403, "others go on");
}

async fn who_acts_as_somebody_may(cluster: &Cluster) {
    let headers = [
        ("impersonate-user", "jane"),
        ("impersonate-group", "dev"),
        ("impersonate-uid", "42"),
        ("impersonate-extra-example.com%2fproject", "x"),
        ("impersonate-extra-scopes", "view"),
    ];
    let mut jane = as_user(cluster, &headers).await;
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let answer = jane.post("/apis/authentication.k8s.io/v1/selfsubjectreviews", review).await;
    jane.headers.extend([("impersonate-user", "root"), ("impersonate-uid", "0")].map(|(name, value)| (name.to_owned(), value.to_owned())));
    let again = jane.post("/apis/authentication.k8s.io/v1/selfsubjectreviews", json!({"kind": "SelfSubjectReview"})).await;
    assert_eq!(again.body["status"], answer.body["status"], "who is named first counts");
    let info = &answer.body["status"]["userInfo"];
    assert_eq!((&info["username"], &info["uid"]), (&"jane".into(), &"42".into()), "{}", answer.body);
    assert_eq!(info["groups"], json!(["dev", "system:authenticated"]));
    assert_eq!(info["extra"], json!({"example.com/project": ["x"], "scopes": ["view"]}));
}

async fn review(cluster: &Cluster, user: &str, groups: &[&str], attributes: Value) -> Answer {
    let mut admin = cluster.admin().await;
    let spec = json!({"user": user, "groups": groups, "resourceAttributes": attributes});
    admin.post(REVIEWS, json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec})).await
}

async fn reviews_know_selectors(cluster: &Cluster) {
    let with = |selector: Value| json!({"verb": "list", "resource": "pods", "fieldSelector": selector});
    let node = |selector: Value| review(cluster, "system:node:n1", &["system:nodes"], with(selector));
    let requirement = |value: &str| json!({"requirements": [{"key": "spec.nodeName", "operator": "In", "values": [value]}]});
    for (selector, allowed) in [
        (requirement("n1"), true),
        (requirement("n2"), false),
        (json!({"rawSelector": "spec.nodeName=n1"}), true),
        (json!({"rawSelector": "spec.nodeName!=n1"}), false),
        (json!({"requirements": [{"key": "spec.nodeName", "operator": "Like", "values": ["n1"]}]}), false),
    ] {
        assert_eq!(node(selector.clone()).await.body["status"]["allowed"], allowed, "{selector}");
    }
    for (selector, field, message) in [
        (
            json!({}),
            "requirements",
            "Required value: when spec.resourceAttributes.fieldSelector is specified, requirements or rawSelector is required",
        ),
        (
            json!({"rawSelector": "a=b", "requirements": [{"key": "a", "operator": "In", "values": ["b"]}]}),
            "rawSelector",
            "Invalid value: \"a=b\": may not specified at the same time as requirements",
        ),
        (
            json!({"requirements": [{"key": "a", "operator": "In"}]}),
            "requirements[0].values",
            "Required value: must be specified when `operator` is 'In' or 'NotIn'",
        ),
    ] {
        let answer = node(selector).await;
        let cause = &answer.body["details"]["causes"][0];
        assert_eq!((answer.code, &cause["message"]), (422, &message.into()), "{}", answer.body);
        assert_eq!(cause["field"], format!("spec.resourceAttributes.fieldSelector.{field}"));
    }
}

async fn nodes_may_what_is_theirs(cluster: &Cluster) {
    let mut admin = cluster.admin().await;
    let volumes = json!([{"name": "v", "persistentVolumeClaim": {"claimName": "mine"}}]);
    let pod = json!({"metadata": {"name": "user"}, "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}], "volumes": volumes}});
    made(&mut admin, "/api/v1/namespaces/default/pods", pod).await;
    for (verb, group, resource, subresource, name, allowed) in [
        ("get", "", "persistentvolumeclaims", "", "mine", true),
        ("get", "", "persistentvolumeclaims", "", "other", false),
        ("list", "", "persistentvolumeclaims", "", "", false),
        ("patch", "", "persistentvolumeclaims", "status", "mine", true),
        ("delete", "", "persistentvolumeclaims", "", "mine", false),
        ("update", "storage.k8s.io", "csinodes", "", "n1", true),
        ("update", "storage.k8s.io", "csinodes", "", "n2", false),
        ("create", "resource.k8s.io", "resourceslices", "", "", true),
        ("delete", "resource.k8s.io", "resourceslices", "", "foreign", false),
    ] {
        let attributes =
            json!({"verb": verb, "group": group, "resource": resource, "subresource": subresource, "name": name, "namespace": "default"});
        let answer = review(cluster, "system:node:n1", &["system:nodes"], attributes).await;
        assert_eq!(answer.body["status"]["allowed"], allowed, "{verb} {resource}/{subresource} {name}");
    }
}

/// The value of a sample whose labels contain these.
fn sample(text: &str, name: &str, labels: &[&str]) -> Option<f64> {
    let of =
        |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])) && labels.iter().all(|label| line.contains(label));
    text.lines().find(of)?.rsplit(' ').next()?.parse().ok()
}

async fn monitoring_is_told(cluster: &Cluster) {
    let mut nobody = cluster.nobody().await;
    assert_eq!(nobody.get("/metrics").await.code, 403);
    let mut monitor = as_user(cluster, &[("impersonate-user", "prometheus"), ("impersonate-group", "system:monitoring")]).await;
    let mut admin = cluster.admin().await;
    assert_eq!(admin.get("/api/v1/namespaces/default/nothings/made-up").await.code, 404);
    let watching = admin.watch("/api/v1/namespaces/default/secrets?watch=1").await;
    let told = monitor.get("/metrics").await;
    assert_eq!((told.code, told.header("content-type")), (200, "text/plain; version=0.0.4"));
    let text = String::from_utf8(told.bytes.to_vec()).expect("text");
    let at_least = |least: f64, name: &str, labels: &[&str]| {
        let value = sample(&text, name, labels);
        assert!(value.is_some_and(|value| value >= least), "{name} {labels:?}: {value:?}");
    };
    let maps = ["resource=\"configmaps\"", "group=\"\"", "version=\"v1\"", "component=\"apiserver\"", "dry_run=\"\""];
    at_least(4.0, "apiserver_request_total", &[&maps[..], &["verb=\"POST\"", "code=\"201\"", "scope=\"resource\""]].concat());
    at_least(1.0, "apiserver_request_total", &[&maps[..], &["verb=\"LIST\"", "code=\"200\"", "scope=\"namespace\""]].concat());
    at_least(4.0, "apiserver_request_duration_seconds_count", &[&maps[..], &["verb=\"POST\""]].concat());
    at_least(1.0, "apiserver_request_duration_seconds_bucket", &["le=\"+Inf\"", "verb=\"WATCH\"", "resource=\"configmaps\""]);
    at_least(1.0, "apiserver_longrunning_requests", &["verb=\"WATCH\"", "resource=\"secrets\""]);
    at_least(1.0, "apiserver_current_inflight_requests", &["request_kind=\"readOnly\""]);
    at_least(1.0, "apiserver_request_total", &["subresource=\"/metrics\"", "code=\"403\""]);
    at_least(1.0, "apiserver_request_total", &["verb=\"GET\"", "resource=\"\"", "code=\"404\"", "scope=\"resource\""]);
    assert!(!text.contains("nothings"), "what clients make up is no label");
    at_least(1.0, "apiserver_flowcontrol_rejected_requests_total", &["priority_level=\"nothing\"", "flow_schema=\"crowd\"", "reason=\"queue-full\""]);
    at_least(1.0, "apiserver_flowcontrol_dispatched_requests_total", &["priority_level=\"exempt\"", "flow_schema=\"exempt\""]);
    at_least(1.0, "apiserver_flowcontrol_nominal_limit_seats", &["priority_level=\"global-default\""]);
    at_least(1.0, "apiserver_flowcontrol_current_executing_requests", &["flow_schema=\"global-default\""]);
    at_least(1.0, "workqueue_adds_total", &["name=\"namespace-controller\""]);
    at_least(0.0, "workqueue_depth", &["name=\"deployment-controller\""]);
    at_least(1.0, "workqueue_work_duration_seconds_count", &["name=\"service-account-controller\""]);
    at_least(0.0, "scheduler_pending_pods", &["queue=\"unschedulable\""]);
    at_least(4.0, "apiserver_resource_objects", &["group=\"\"", "resource=\"configmaps\""]);
    at_least(1.0, "coracle_store_log_commits_total", &[]);
    at_least(1.0, "process_resident_memory_bytes", &[]);
    at_least(1.0, "kubernetes_build_info", &["major=\"1\""]);
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        assert!(line.rsplit(' ').next().is_some_and(|value| value.parse::<f64>().is_ok()), "{line}");
    }
    drop(watching);

    let mut raw = async |path: &str| (admin.raw("GET", path, "", "", "").await.status().as_u16(), admin.text(path, "").await);
    assert_eq!(raw("/livez").await, (200, "ok".into()));
    let live = raw("/livez?verbose").await;
    assert!(live.0 == 200 && live.1.starts_with("[+]ping ok\n[+]log ok\n[+]etcd ok\n") && live.1.ends_with("livez check passed\n"), "{live:?}");
    assert!(live.1.contains("[+]poststarthook/rbac/bootstrap-roles ok\n") && !live.1.contains("[-]"), "every task that is named is there: {live:?}");
    for one in ["/readyz/etcd", "/readyz/informer-sync", "/livez/poststarthook/rbac/bootstrap-roles", "/healthz/autoregister-completion"] {
        assert_eq!(raw(one).await, (200, "ok".into()), "{one}");
    }
    let some = raw("/readyz?verbose&exclude=etcd&exclude=nothing").await;
    assert!(
        some.1.contains("[+]etcd excluded: ok\n") && some.1.contains("no matches for \"nothing\"") && some.1.ends_with("readyz check passed\n"),
        "{some:?}"
    );
    for none in ["/readyz/nothing", "/readyz/poststarthook/nothing", "/livez/shutdown"] {
        assert_eq!(raw(none).await.0, 404, "{none}");
    }
    assert_eq!(nobody.get("/metrics/slis").await.code, 403);
    let checked = raw("/metrics/slis").await;
    for (name, least) in [("kubernetes_healthcheck", 1.0), ("kubernetes_healthchecks_total", 1.0)] {
        let value = sample(&checked.1, name, &["name=\"etcd\"", "type=\"livez\""]);
        assert!(checked.0 == 200 && value.is_some_and(|value| value >= least), "{name}: {checked:?}");
    }
    assert!(sample(&checked.1, "process_start_time_seconds", &[]).is_some() && !checked.1.contains("apiserver_"), "{checked:?}");
    assert_eq!((nobody.get("/readyz").await.code, nobody.get("/readyz/etcd").await.code), (200, 403), "one by one is for monitoring");
}

/// Requests that the log is looked through for.
async fn audited(cluster: &Cluster) -> [String; 5] {
    let mut admin = as_user(cluster, &[("x-forwarded-for", "192.0.2.7, nonsense"), ("user-agent", "test/1")]).await;
    let map = json!({"metadata": {"name": "seen"}, "data": {"k": "v"}});
    let created = admin.post("/api/v1/namespaces/default/configmaps", map).await;
    assert_eq!(created.code, 201);
    let mut bob = as_user(cluster, &[("impersonate-user", "bob")]).await;
    let refused = bob.get("/api/v1/namespaces/default/secrets/s").await;
    assert_eq!(refused.code, 403);
    let mut watcher = as_user(cluster, &[("audit-id", "the-watch")]).await;
    let mut events = watcher.watch("/api/v1/namespaces/default/configmaps?watch=1&resourceVersion=0").await;
    assert!(events.next().await.is_some());
    drop((events, watcher));
    let listed = admin.get("/api/v1/namespaces/default/configmaps?fieldSelector=metadata.name%3Dseen").await;
    let large = json!({"metadata": {"name": "large"}, "data": {"k": "v".repeat(900_000)}});
    for name in ["one", "two", "three"] {
        let mut large = large.clone();
        large["metadata"]["name"] = name.into();
        assert_eq!(admin.post("/api/v1/namespaces/default/configmaps", large).await.code, 201);
    }
    let all = admin.get("/api/v1/namespaces/default/configmaps").await;
    assert!(all.body["items"].as_array().is_some_and(|items| items.len() > 3), "what is not kept goes out all the same");
    [
        created.header("audit-id").into(),
        refused.header("audit-id").into(),
        "the-watch".into(),
        listed.header("audit-id").into(),
        all.header("audit-id").into(),
    ]
}

fn the_log_tells(lines: &[Value], [created, refused, watched, listed, all]: &[String; 5]) {
    let of = |id: &str| lines.iter().filter(|line| line["auditID"] == *id).collect::<Vec<_>>();
    let [created] = of(created)[..] else { panic!("one line: {:?}", of(created)) };
    assert_eq!((&created["level"], &created["stage"], &created["verb"]), (&"RequestResponse".into(), &"ResponseComplete".into(), &"create".into()));
    assert_eq!(created["user"]["username"], "kubernetes-admin");
    assert_eq!((&created["sourceIPs"], &created["userAgent"]), (&json!(["192.0.2.7", "127.0.0.1"]), &"test/1".into()));
    assert_eq!((&created["requestObject"]["data"]["k"], &created["responseStatus"]["code"]), (&"v".into(), &201.into()));
    assert!(created["responseObject"]["metadata"]["uid"].is_string() && created["responseObject"]["metadata"]["managedFields"].is_null());
    assert_eq!(created["annotations"]["authorization.k8s.io/decision"], "allow");
    let [listed] = of(listed)[..] else { panic!("one line") };
    let item = &listed["responseObject"]["items"][0];
    assert_eq!((&item["data"]["k"], &item["metadata"]["managedFields"]), (&"v".into(), &Value::Null), "a list is an answer like others");
    let [all] = of(all)[..] else { panic!("one line") };
    assert_eq!((&all["responseObject"], &all["annotations"]["audit.coracle.dev/response-omitted"]), (&Value::Null, &"too large or too slow".into()));
    let [refused] = of(refused)[..] else { panic!("one line") };
    assert_eq!((&refused["user"]["username"], &refused["impersonatedUser"]["username"]), (&"kubernetes-admin".into(), &"bob".into()));
    assert_eq!(refused["annotations"]["authorization.k8s.io/decision"], "forbid");
    assert_eq!((&refused["responseStatus"]["code"], &refused["objectRef"]["name"]), (&403.into(), &"s".into()));
    let stages: Vec<&str> = of(watched).iter().filter_map(|line| line["stage"].as_str()).collect();
    assert_eq!(stages, ["ResponseStarted", "ResponseComplete"]);
    assert!(lines.iter().all(|line| line["user"]["username"] != "system:anonymous"));
}
