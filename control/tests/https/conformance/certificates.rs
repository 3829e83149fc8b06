//! auth/certificates: requests for certificates as objects. What signers make of them is told by `groups`.

use super::{items, made, ok, patched, put};
use crate::cluster::{Cluster, Peer};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";

pub async fn all(cluster: &Cluster) {
    let mut admin = cluster.admin().await;
    the_group_is_discovered(&mut admin).await;
    requests_have_a_life(&mut admin).await;
}

async fn the_group_is_discovered(admin: &mut Peer) {
    let groups = admin.get("/apis").await.body;
    let group = groups["groups"].as_array().expect("groups").iter().find(|group| group["name"] == "certificates.k8s.io").cloned();
    assert_eq!(group.expect("the group")["versions"][0]["version"], "v1");
    assert_eq!(admin.get("/apis/certificates.k8s.io").await.body["versions"][0]["version"], "v1");
    let resources = admin.get("/apis/certificates.k8s.io/v1").await.body["resources"].clone();
    for name in ["certificatesigningrequests", "certificatesigningrequests/approval", "certificatesigningrequests/status"] {
        assert!(resources.as_array().expect("resources").iter().any(|one| one["name"] == name), "{name}: {resources}");
    }
}

fn kinds(request: &Value) -> Vec<&str> {
    request["status"]["conditions"].as_array().into_iter().flatten().filter_map(|one| one["type"].as_str()).collect()
}

async fn requests_have_a_life(admin: &mut Peer) {
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut params = rcgen::CertificateParams::new(vec!["e2e.example.com".into()]).expect("parameters");
    params.distinguished_name.push(rcgen::DnType::CommonName, "e2e.example.com");
    let request = STANDARD.encode(params.serialize_request(&key).and_then(|request| request.pem()).expect("a request"));
    let certificate = STANDARD.encode(params.self_signed(&key).expect("a certificate").pem());
    let usages = ["digital signature", "key encipherment", "server auth"];
    let template = json!({"metadata": {"generateName": "e2e-example-csr-"},
        "spec": {"request": request, "signerName": "example.com/e2e", "expirationSeconds": 3600, "usages": usages}});
    for _ in 0..2 {
        made(admin, REQUESTS, template.clone()).await;
    }
    let created = made(admin, REQUESTS, template).await;
    let one = format!("{REQUESTS}/{}", super::name(&created));
    let got = admin.get(&one).await.body;
    assert_eq!((&got["metadata"]["uid"], &got["spec"]["expirationSeconds"]), (&created["metadata"]["uid"], &json!(3600)));

    let signer = format!("{REQUESTS}?fieldSelector=spec.signerName%3Dexample.com%2Fe2e");
    let list = admin.get(&signer).await.body;
    assert_eq!(list["items"].as_array().map(Vec::len), Some(3));
    let revision = list["metadata"]["resourceVersion"].as_str().expect("a revision").to_owned();
    let watch = format!("{REQUESTS}?watch=true&resourceVersion={revision}&fieldSelector=metadata.name%3D{}", super::name(&created));
    let mut events = admin.watch(&watch).await;

    let mut object = patched(admin, &one, "merge", json!({"metadata": {"annotations": {"patched": "true"}}})).await;
    object["metadata"]["annotations"]["updated"] = "true".into();
    assert_eq!(put(admin, &one, &object).await["metadata"]["annotations"], json!({"patched": "true", "updated": "true"}));
    let event = events.next().await.expect("an event");
    assert_eq!((&event["type"], &event["object"]["metadata"]["annotations"]["patched"]), (&json!("MODIFIED"), &json!("true")));

    let approval = format!("{one}/approval");
    let got = admin.get(&approval).await.body;
    assert_eq!((&got["kind"], &got["metadata"]["uid"]), (&json!("CertificateSigningRequest"), &created["metadata"]["uid"]));
    let condition = json!({"type": "ApprovalPatch", "status": "True", "reason": "e2e"});
    let patch = json!({"metadata": {"annotations": {"patchedapproval": "true"}}, "status": {"conditions": [condition]}});
    let mut object = patched(admin, &approval, "merge", patch).await;
    assert_eq!((kinds(&object), &object["metadata"]["annotations"]["patchedapproval"]), (vec!["ApprovalPatch"], &json!("true")));
    let conditions = object["status"]["conditions"].as_array_mut().expect("conditions");
    conditions.push(json!({"type": "Approved", "status": "True", "reason": "E2E", "message": "Set from an e2e test"}));
    assert_eq!(kinds(&put(admin, &approval, &object).await), ["ApprovalPatch", "Approved"]);

    let status = format!("{one}/status");
    assert_eq!(admin.get(&status).await.body["metadata"]["uid"], created["metadata"]["uid"]);
    let patch = json!({"metadata": {"annotations": {"patchedstatus": "true"}}, "status": {"certificate": certificate}});
    let mut object = patched(admin, &status, "merge", patch).await;
    assert_eq!((&object["status"]["certificate"], &object["metadata"]["annotations"]["patchedstatus"]), (&json!(certificate), &json!("true")));
    let conditions = object["status"]["conditions"].as_array_mut().expect("conditions");
    conditions.push(json!({"type": "StatusUpdate", "status": "True", "reason": "E2E", "message": "Set from an e2e test"}));
    assert_eq!(kinds(&put(admin, &status, &object).await), ["ApprovalPatch", "Approved", "StatusUpdate"]);

    ok(&admin.send("DELETE", &one, "", String::new()).await);
    assert_eq!(admin.get(&one).await.code, 404);
    assert_eq!(items(admin, &signer).await.len(), 2);
    ok(&admin.send("DELETE", &signer, "", String::new()).await);
    assert_eq!(items(admin, &signer).await.len(), 0);
}
