use super::*;
use serde_json::json;
use std::fs;
use tokio::sync::mpsc;

fn limit(path: &Path, bytes: u64) -> Vec<Limit> {
    vec![Limit { name: "cache".into(), path: path.into(), bytes, text: "1Mi".into() }]
}

#[tokio::test]
async fn a_volume_that_grows_is_seen_and_a_quiet_one_is_not_looked_at() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits::new();
    let (sender, mut told) = mpsc::unbounded_channel();
    let cancel = CancellationToken::new();
    let running = tokio::spawn(limits.clone().run(cancel.clone(), async move |uid, verdict| _ = sender.send((uid, verdict))));
    limits.watch("u", limit(dir.path(), 1 << 20));
    let looked = || limits.shared.state.lock().pods.get("u").is_some_and(|watched| watched.due.is_none());
    let settled = || async {
        while !looked() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    settled().await;
    assert_eq!(limits.shared.next(), None, "nothing to do until something is written");
    // In a directory that is new since the last look, by a file that stays open.
    fs::create_dir_all(dir.path().join("a/b")).unwrap();
    tokio::time::timeout(Duration::from_secs(20), async {
        while looked() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        settled().await;
    })
    .await
    .expect("the new directory is seen, and looked at");
    assert!(told.try_recv().is_err());
    let mut file = fs::File::create(dir.path().join("a/b/c")).unwrap();
    std::io::Write::write_all(&mut file, &vec![1; 2 << 20]).unwrap();
    let (uid, verdict) = tokio::time::timeout(Duration::from_secs(20), told.recv()).await.expect("in time").unwrap();
    assert_eq!((&*uid, verdict.verdict.reason.as_str()), ("u", "Evicted"));
    assert_eq!(verdict.verdict.message, "Usage of EmptyDir volume \"cache\" exceeds the limit \"1Mi\". ");
    limits.forget("u");
    assert_eq!(limits.shared.next(), None);
    cancel.cancel();
    running.await.unwrap();
}

#[test]
fn only_limited_volumes_of_pods_that_may_be_evicted() {
    let mut pod: Pod = serde_json::from_value(json!({ "metadata": {}, "spec": { "volumes": [
        { "name": "a", "emptyDir": { "sizeLimit": "1536Ki" } }, { "name": "b", "emptyDir": {} }, { "name": "c", "emptyDir": { "sizeLimit": "0" } },
        { "name": "d", "emptyDir": { "medium": "Memory", "sizeLimit": 5 } }, { "name": "e", "configMap": { "name": "x" } },
    ] } }))
    .unwrap();
    let found = of_pod(&pod, Path::new("/v"), |name| name != "d");
    assert_eq!(found, [Limit { name: "a".into(), path: "/v/a".into(), bytes: 1536 << 10, text: "1536Ki".into() }]);
    assert_eq!(of_pod(&pod, Path::new("/v"), |_| true).len(), 2);
    pod.spec.priority = crate::eviction::rank::CRITICAL;
    assert!(of_pod(&pod, Path::new("/v"), |_| true).is_empty());
}
