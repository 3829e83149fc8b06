//! Rights over every kind: nothing of the API is open to whoever has none.

use crate::cluster::Cluster;
use coracle_api::{Registry, registry::Resource};

/// What everybody may ask about themselves (`system:basic-user`).
fn about_oneself(plural: &str) -> bool {
    matches!(plural, "selfsubjectaccessreviews" | "selfsubjectrulesreviews" | "selfsubjectreviews")
}

/// Every way to ask for a kind: method, path, media type of the body.
fn ways(row: &Resource) -> Vec<(&'static str, String, &'static str)> {
    const JSON: &str = "application/json";
    const PATCHES: [&str; 4] =
        ["application/json-patch+json", "application/merge-patch+json", "application/strategic-merge-patch+json", "application/apply-patch+yaml"];
    let base = if row.group.is_empty() { format!("/api/{}", row.version) } else { format!("/apis/{}/{}", row.group, row.version) };
    let within = if row.namespaced() { "/namespaces/default" } else { "" };
    let all = format!("{base}{within}/{}", row.plural);
    let one = format!("{all}/default");
    let mut ways = vec![
        ("GET", format!("{base}/{}", row.plural), ""),
        ("GET", all.clone(), ""),
        ("HEAD", all.clone(), ""),
        ("GET", format!("{all}?fieldSelector=metadata.name%3Ddefault&limit=1"), ""),
        ("GET", format!("{all}?watch=true"), ""),
        ("GET", format!("{all}?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan"), ""),
        ("GET", format!("{base}/watch{within}/{}", row.plural), ""),
        ("GET", one.clone(), ""),
        ("GET", format!("{one}/"), ""),
        ("GET", format!("{base}{within}//{}///default", row.plural), ""),
        ("POST", all.clone(), JSON),
        ("POST", format!("{all}?dryRun=All"), JSON),
        ("PUT", one.clone(), JSON),
        ("DELETE", one.clone(), JSON),
        ("DELETE", all, JSON),
    ];
    ways.extend(PATCHES.map(|media| ("PATCH", one.clone(), media)));
    for sub in &row.subresources {
        let path = format!("{one}/{}", sub.name);
        ways.extend(["GET", "POST", "PUT", "DELETE"].map(|method| (method, path.clone(), JSON)));
        ways.extend(PATCHES.map(|media| ("PATCH", path.clone(), media)));
    }
    ways
}

/// Whoever has no rights is refused, whatever the kind and the verb, and before what was sent is looked at.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_kind_bypasses_authorization() {
    let cluster = Cluster::start().await;
    let mut powerless = cluster.admin().await;
    powerless.headers = vec![("Impersonate-User".into(), "powerless".into())];
    let mut nobody = cluster.nobody().await;
    let mut tried = 0_usize;
    let before = cluster.control.client().store().snapshot().count("namespaces", None);
    for row in Registry::builtin().all() {
        for (method, path, media) in ways(&row) {
            tried += 1;
            // Nobody has no more rights than a user: some of the ways are tried as the one, the others as the other.
            let (peer, who) = if tried.is_multiple_of(4) { (&mut nobody, "nobody") } else { (&mut powerless, "a user") };
            let code = peer.raw(method, &path, media, "", "{").await.status().as_u16();
            let own = about_oneself(&row.plural) && method == "POST" && who == "a user";
            // What was sent is no JSON: who is let in hears of that.
            assert_eq!(code, if own { 400 } else { 403 }, "{method} {path} ({media}) by {who}");
        }
    }
    assert!(tried > 1_500, "{tried} ways were tried");
    assert_eq!(cluster.control.client().store().snapshot().count("namespaces", None), before);
    assert_eq!(cluster.control.stop().await, Vec::<&str>::new());
}
