use super::*;
use crate::resources::rules::lines;
use rcgen::{CertificateParams, DistinguishedName, DnType};

/// A request in the form it has in an object.
fn request(user: &str, group: &str) -> String {
    let key = rcgen::KeyPair::generate().expect("key");
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, user);
    params.distinguished_name.push(DnType::OrganizationName, group);
    STANDARD.encode(params.serialize_request(&key).expect("request").pem().expect("PEM"))
}

fn good() -> Value {
    json!({"metadata": {"name": "r"}, "spec": {"request": request("jane", "dev"), "signerName": "kubernetes.io/kube-apiserver-client",
        "usages": ["client auth"], "username": "u"}, "status": {}})
}

fn wrong(subresource: &str, old: Option<&Value>, new: &Value) -> Vec<String> {
    let mut causes = Vec::new();
    validate(subresource, old, new, &mut causes);
    lines(&causes)
}

fn changed(object: &Value, change: impl FnOnce(&mut Value)) -> Value {
    let mut object = object.clone();
    change(&mut object);
    object
}

fn condition(kind: &str) -> Value {
    json!({"type": kind, "status": "True", "reason": "R"})
}

#[test]
fn a_request_is_signed_and_says_what_for() {
    assert_eq!(wrong("", None, &good()), Vec::<String>::new());
    assert_eq!(wrong("", None, &json!({"spec": {"request": "eA==", "signerName": "x", "usages": ["fly", "fly"], "expirationSeconds": 1}})).len(), 6);
    let signer = |name: &str| wrong("", None, &changed(&good(), |r| r["spec"]["signerName"] = name.into()));
    assert_eq!(signer("kubernetes.io/legacy-unknown").len(), 1);
    assert_eq!(signer("example/x"), ["spec.signerName: Invalid value: \"example\": should be a domain with at least two segments separated by dots"]);
    assert_eq!(
        signer("a.b.c"),
        ["spec.signerName: Invalid value: \"a.b.c\": must be a fully qualified domain and path of the form 'example.com/signer-name'"]
    );
    assert_eq!(signer("example.com/my.signer"), Vec::<String>::new());
}

#[test]
fn only_approval_approves_and_only_status_issues() {
    let approved = changed(&good(), |r| r["status"]["conditions"] = json!([condition("Approved")]));
    assert_eq!(wrong("approval", Some(&good()), &approved), Vec::<String>::new());
    assert_eq!(wrong("status", Some(&good()), &approved), ["status.conditions: Forbidden: updates may not add a condition of type \"Approved\""]);
    assert_eq!(
        wrong("approval", Some(&approved), &good()),
        ["status.conditions: Forbidden: updates may not remove a condition of type \"Approved\""]
    );
    let both = changed(&good(), |r| r["status"]["conditions"] = json!([condition("Approved"), condition("Denied")]));
    assert_eq!(
        wrong("approval", Some(&approved), &both),
        ["status.conditions: Invalid value: \"Denied\": Approved and Denied conditions are mutually exclusive"]
    );
    let junk = changed(&approved, |r| r["status"]["certificate"] = "eA==".into());
    assert_eq!(
        wrong("status", Some(&approved), &junk),
        ["status.certificate: Invalid value: \"<certificate data>\": must contain at least one CERTIFICATE PEM block"]
    );
    assert!(
        wrong("approval", Some(&approved), &junk).contains(&"status.certificate: Forbidden: updates may not set certificate content".to_string())
    );
    let failed = changed(&good(), |r| {
        r["status"]["conditions"] = json!([{"type": "Failed", "status": "False"}, {"type": "x"}, {"type": "x", "status": "True"}])
    });
    assert_eq!(
        wrong("status", Some(&good()), &failed),
        [
            "status.conditions[0].status: Unsupported value: \"False\": supported values: \"True\"",
            "status.conditions[1].status: Required value",
            "status.conditions[2].type: Duplicate value: \"x\"",
        ]
    );
}

#[test]
fn what_was_decided_is_kept_and_timed() {
    let old = changed(&good(), |r| {
        r["status"]["conditions"] = json!([{"type": "Approved", "status": "True", "reason": "R", "lastUpdateTime": "a", "lastTransitionTime": "a"}]);
    });
    let mut new = changed(&old, |r| {
        r["spec"]["username"] = "other".into();
        r["status"] = json!({"certificate": "C", "conditions": [condition("Approved"), condition("Failed")]});
    });
    prepare_update("status", "now", &old, &mut new);
    assert_eq!((&new["spec"], &new["status"]["certificate"]), (&old["spec"], &json!("C")));
    assert_eq!(new["status"]["conditions"][0], old["status"]["conditions"][0]);
    assert_eq!(new["status"]["conditions"][1]["lastTransitionTime"], "now");
    let mut new = changed(&old, |r| r["status"] = json!({"certificate": "C", "conditions": [condition("Approved"), condition("Denied")]}));
    prepare_update("approval", "now", &old, &mut new);
    assert!(new["status"]["certificate"].is_null());
    assert_eq!(new["status"]["conditions"][0]["lastTransitionTime"], "a");
    let mut new = changed(&old, |r| r["status"] = json!({}));
    prepare_update("", "now", &old, &mut new);
    assert_eq!(new["status"], old["status"]);
}

#[test]
fn rows_read_as_kubectl_prints_them() {
    let issued = changed(&good(), |r| {
        r["spec"]["expirationSeconds"] = 7200.into();
        r["status"] = json!({"conditions": [condition("Approved")], "certificate": "x"});
    });
    assert_eq!(
        cells::golden(&CertificateSigningRequest.cells(&issued), "2026-01-02T03:04:05Z"),
        "r | <unknown> | kubernetes.io/kube-apiserver-client | u | 120m | Approved,Issued"
    );
    assert_eq!(state(&good()), "Pending");
}
