//! Policies in tables; the file and its bounds.

use super::*;
use serde_json::Value;

fn asked(verb: &str, group: &str, resource: &str, namespace: &str, name: &str) -> Asked {
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    Asked {
        id: "id".into(),
        uri: "/x".into(),
        path: "/x".into(),
        verb: verb.into(),
        group: group.into(),
        resource: resource.into(),
        subresource: subresource.into(),
        namespace: namespace.into(),
        name: name.into(),
        ..Asked::default()
    }
}

fn level(rule: &str, user: &User, asked: &Asked) -> Option<Level> {
    let text = format!("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n- {rule}\n");
    Policy::read(&text).expect("a policy").of(user, asked).map(|kept| kept.level)
}

#[test]
fn rules_match_as_upstream() {
    let user = User { name: "jane".into(), groups: vec!["dev".into()], ..User::default() };
    let secret = asked("get", "", "secrets", "n", "s");
    let status = asked("patch", "apps", "deployments/status", "n", "d");
    let path = Asked { path: "/healthz/ping".into(), resource: String::new(), ..asked("get", "", "", "", "") };
    for (rule, asked, matches) in [
        ("{level: Metadata}", &secret, true),
        ("{level: None}", &secret, false),
        ("{level: Metadata, users: [jane]}", &secret, true),
        ("{level: Metadata, users: [bob]}", &secret, false),
        ("{level: Metadata, userGroups: [ops, dev]}", &secret, true),
        ("{level: Metadata, verbs: [list]}", &secret, false),
        ("{level: Metadata, namespaces: [n]}", &secret, true),
        ("{level: Metadata, namespaces: ['']}", &secret, false),
        ("{level: Metadata, namespaces: [n]}", &path, false),
        ("{level: Metadata, resources: [{group: ''}]}", &secret, true),
        ("{level: Metadata, resources: [{resources: [secrets]}]}", &secret, true),
        ("{level: Metadata, resources: [{resources: [secrets], resourceNames: [t]}]}", &secret, false),
        ("{level: Metadata, resources: [{group: apps, resources: [deployments]}]}", &status, false),
        ("{level: Metadata, resources: [{group: apps, resources: [deployments/status]}]}", &status, true),
        ("{level: Metadata, resources: [{group: apps, resources: ['deployments/*']}]}", &status, true),
        ("{level: Metadata, resources: [{group: apps, resources: ['*/status']}]}", &status, true),
        ("{level: Metadata, resources: [{group: apps, resources: ['*']}]}", &status, true),
        ("{level: Metadata, resources: [{resources: ['*']}]}", &status, false),
        ("{level: Metadata, nonResourceURLs: ['/healthz*']}", &path, true),
        ("{level: Metadata, nonResourceURLs: ['/healthz']}", &path, false),
        ("{level: Metadata, nonResourceURLs: ['*']}", &secret, false),
    ] {
        assert_eq!(level(rule, &user, asked).is_some(), matches, "{rule}");
    }
    assert_eq!(Policy::default().of(&user, &secret).map(|kept| kept.level), Some(Level::Metadata));
}

#[test]
fn broken_policies_are_refused_with_the_place() {
    let wrong = |rules: &str| Policy::read(&format!("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: {rules}\n")).expect_err("refused");
    assert!(wrong("[{level: Everything}]").contains("unknown variant `Everything`"));
    assert!(wrong("[{level: None, nonResourceURLs: [/x], namespaces: [n]}]").contains("cannot apply to both"));
    assert!(wrong("[{level: None, nonResourceURLs: ['/*/x']}]").contains("may have a '*' only at its end"));
    assert!(wrong("[{level: None, resources: [{resourceNames: [x]}]}]").contains("resourceNames without resources"));
    assert!(wrong("[]").contains("without rules"));
    assert!(Policy::read("apiVersion: v1\nkind: Pod\n").is_err());
}

fn log(dir: &std::path::Path, policy: &str, max_bytes: u64, max_backups: usize) -> Log {
    let policy = Policy::read(&format!("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n- {policy}\n")).expect("a policy");
    let file = sink::Options { path: dir.join("audit.log"), max_bytes, max_backups };
    Log::open(Options { policy, file }).expect("a log")
}

fn lines(dir: &std::path::Path) -> Vec<Value> {
    let text = std::fs::read_to_string(dir.join("audit.log")).expect("the log");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[tokio::test]
async fn a_request_is_told_from_its_beginning_to_its_end() {
    let dir = tempfile::tempdir().expect("a directory");
    let log = log(dir.path(), "{level: RequestResponse, omitManagedFields: true}", 0, 0);
    let user = User { name: "jane".into(), groups: vec!["dev".into()], ..User::default() };
    let record = log.begin(&user, asked("create", "", "pods", "n", "")).expect("kept");
    within(Some(Arc::clone(&record)), async {
        annotate("authorization.k8s.io/decision", || "allow".into());
        annotate("authorization.k8s.io/decision", || "forbid".into());
        impersonated(&User { name: "bob".into(), ..User::default() });
    })
    .await;
    record.request(br#"{"metadata": {"name": "p", "managedFields": [{}]}}"#);
    record.response(b"kind: Pod");
    record.complete(201);
    drop(record);
    drop(log.begin(&user, asked("get", "", "pods", "n", "p")).expect("kept"));
    log.flush();
    let lines = lines(dir.path());
    let stages: Vec<&str> = lines.iter().filter_map(|line| line["stage"].as_str()).collect();
    assert_eq!(stages, ["RequestReceived", "ResponseComplete", "RequestReceived", "ResponseComplete"]);
    let done = &lines[1];
    assert_eq!((&done["user"]["username"], &done["impersonatedUser"]["username"]), (&"jane".into(), &"bob".into()));
    assert_eq!(done["annotations"]["authorization.k8s.io/decision"], "allow");
    assert_eq!(done["requestObject"], serde_json::json!({"metadata": {"name": "p"}}));
    assert_eq!((&done["responseObject"]["kind"], &done["responseStatus"]["code"]), (&"Pod".into(), &201.into()));
    assert_eq!(done["objectRef"], serde_json::json!({"resource": "pods", "namespace": "n"}));
    assert_eq!(lines[3]["responseStatus"]["code"], 499, "whoever goes away is told of too");
}

#[test]
fn a_full_file_makes_way_and_old_ones_go() {
    let dir = tempfile::tempdir().expect("a directory");
    let log = log(dir.path(), "{level: Metadata, omitStages: [RequestReceived]}", 2_000, 2);
    for _ in 0..40 {
        log.begin(&User::default(), asked("get", "", "pods", "n", "p")).expect("kept").complete(200);
    }
    log.flush();
    let files = std::fs::read_dir(dir.path()).expect("readable").map(|entry| entry.expect("an entry").metadata().expect("metadata").len());
    let files: Vec<u64> = files.collect();
    assert_eq!(files.len(), 3, "the log and two old ones");
    assert!(files.iter().all(|bytes| *bytes <= 2_000), "{files:?}");
}

#[test]
fn clients_may_name_their_requests() {
    let with = |value: &str| {
        let mut headers = HeaderMap::new();
        headers.insert(AUDIT_ID, value.parse().expect("a value"));
        id(&headers)
    };
    assert_eq!(with("mine"), "mine");
    assert_eq!(with(&"x".repeat(65)).len(), 36);
    assert_eq!(with("two words").len(), 36);
}
