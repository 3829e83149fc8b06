//! Mirror pods: by them the API knows of static pods. What is to be done is a pure function of what shall be and what is there.

use super::{MIRROR, mirrored};
use crate::{
    mirror::Objects,
    pods::spec::{Metadata, Pod},
    session::Link,
};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// First and longest wait before what failed is tried again.
const AGAIN: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));

/// Namespace and name.
pub type Name = (String, String);
/// The static pods that there are, by name.
pub type Wanted = BTreeMap<Name, Arc<Value>>;

/// Something to ask of the API.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Create(Name),
    /// That of this uid.
    Delete(Name, String),
}

/// `there` is what the API has by a name.
fn steps<'a>(wanted: &Wanted, known: &BTreeSet<Name>, there: impl Fn(&Name) -> Option<&'a Metadata>) -> Vec<Step> {
    let step = |name: &Name| {
        let hash = wanted.get(name).map(|pod| pod["metadata"]["uid"].as_str().unwrap_or_default());
        match there(name) {
            None => hash.map(|_| Step::Create(name.clone())),
            // Somebody else's pod of that name is not ours to remove.
            Some(metadata) => mirrored(metadata)
                .filter(|mirrored| hash != Some(*mirrored) || metadata.deletion_timestamp.is_some())
                .map(|_| Step::Delete(name.clone(), metadata.uid.clone())),
        }
    };
    known.iter().filter_map(step).collect()
}

/// The mirror of a static pod. The node owns it, so that it goes with the node.
fn mirror(pod: &Value, node: &str, node_uid: &str) -> Value {
    let mut mirror = pod.clone();
    let metadata = &mut mirror["metadata"];
    metadata["annotations"][MIRROR] = metadata["uid"].clone();
    metadata["ownerReferences"] = json!([{ "apiVersion": "v1", "kind": "Node", "name": node, "uid": node_uid, "controller": true }]);
    if let Some(metadata) = metadata.as_object_mut() {
        metadata.remove("uid");
    }
    mirror
}

/// Keeps the API's mirrors as they shall be.
pub struct Mirrors {
    /// What the API has.
    pub objects: Arc<dyn Objects>,
    /// The API.
    pub link: Link,
    /// The node's name.
    pub node: String,
    /// What shall be.
    pub wanted: watch::Receiver<Wanted>,
    /// Tells when what the API has is another.
    pub changed: watch::Receiver<u64>,
}

impl Mirrors {
    /// Until cancelled.
    pub async fn run(mut self, cancel: CancellationToken) {
        let pods = self.objects.list("pods", None).into_iter().filter_map(|(_, json)| Pod::parse(&json).ok());
        let ours = pods.filter(|pod| pod.spec.node_name == self.node && mirrored(&pod.metadata).is_some());
        let mut known: BTreeSet<Name> = ours.map(|pod| (pod.metadata.namespace, pod.metadata.name)).collect();
        let mut wait = AGAIN.0;
        loop {
            let wanted = self.wanted.borrow_and_update().clone();
            self.changed.borrow_and_update();
            known.extend(wanted.keys().cloned());
            let there: BTreeMap<&Name, Metadata> = known.iter().filter_map(|name| Some((name, self.there(name)?))).collect();
            let steps = steps(&wanted, &known, |name| there.get(name));
            let mut failed = false;
            for step in &steps {
                failed |= !self.take(step, &wanted).await;
            }
            let gone: Vec<Name> = known.iter().filter(|name| !wanted.contains_key(*name) && !there.contains_key(*name)).cloned().collect();
            for name in gone {
                known.remove(&name);
            }
            if !failed {
                wait = AGAIN.0;
            }
            let link = &self.link;
            let later = async {
                tokio::time::sleep(wait).await;
                link.connected().await;
            };
            tokio::select! {
                () = cancel.cancelled() => return,
                more = self.wanted.changed() => if more.is_err() { return },
                // Without static pods changes of the API are nothing to us.
                more = self.changed.changed(), if !known.is_empty() => if more.is_err() { return },
                () = later, if failed => wait = (wait * 2).min(AGAIN.1),
            }
        }
    }

    fn there(&self, (namespace, name): &Name) -> Option<Metadata> {
        Some(Pod::parse(&self.objects.get("pods", namespace, name)?).ok()?.metadata)
    }

    /// False: it is to be tried again.
    async fn take(&self, step: &Step, wanted: &Wanted) -> bool {
        let (done, what) = match step {
            Step::Create(name) => {
                let Some(pod) = wanted.get(name) else { return true };
                let node = self.objects.get("nodes", "", &self.node).and_then(|json| serde_json::from_slice::<Value>(&json).ok());
                let Some(uid) = node.as_ref().and_then(|node| node["metadata"]["uid"].as_str()) else { return false };
                let body = mirror(pod, &self.node, uid).to_string().into_bytes();
                (self.link.call("POST", &format!("/api/v1/namespaces/{}/pods", name.0), "application/json", body).await, name)
            }
            Step::Delete(name, uid) => {
                let body = json!({ "apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0, "preconditions": { "uid": uid } });
                let path = format!("/api/v1/namespaces/{}/pods/{}", name.0, name.1);
                (self.link.call("DELETE", &path, "application/json", body.to_string().into_bytes()).await, name)
            }
        };
        match done {
            Ok(_) => true,
            // It is there, or gone, or another: the feed says so in a moment.
            Err(why) if matches!((step, why.code()), (Step::Create(_), Some(409)) | (Step::Delete(..), Some(404 | 409))) => true,
            Err(why) => {
                if !why.transient() {
                    tracing::warn!(%why, namespace = what.0, pod = what.1, "the API does not take the mirror of a static pod; it is tried again");
                }
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_follow_their_pods() {
        let name = |name: &str| ("d".to_owned(), name.to_owned());
        let wanted = Wanted::from([(name("a"), Arc::new(json!({ "metadata": { "uid": "h1" } })))]);
        let pod = |hash: Option<&str>, deleting: bool| Metadata {
            uid: "u".into(),
            annotations: hash.map(|hash| (MIRROR.to_owned(), hash.to_owned())).into_iter().collect(),
            deletion_timestamp: deleting.then(|| "2026-01-01T00:00:00Z".into()),
            ..Metadata::default()
        };
        let known = BTreeSet::from([name("a")]);
        let steps = |wanted: &Wanted, there: Option<Metadata>| steps(wanted, &known, |_| there.as_ref());
        assert_eq!(steps(&wanted, None), [Step::Create(name("a"))]);
        assert_eq!(steps(&wanted, Some(pod(Some("h1"), false))), []);
        let delete = [Step::Delete(name("a"), "u".into())];
        assert_eq!(steps(&wanted, Some(pod(Some("h1"), true))), delete, "who deletes it gets a new one");
        assert_eq!(steps(&wanted, Some(pod(Some("h0"), false))), delete, "the file was changed");
        assert_eq!(steps(&Wanted::new(), Some(pod(Some("h1"), false))), delete, "the file is gone");
        assert_eq!(steps(&wanted, Some(pod(None, false))), [], "a pod of somebody else's");
        assert_eq!(steps(&Wanted::new(), None), []);
    }

    #[test]
    fn a_mirror_is_the_nodes() {
        let pod = json!({ "metadata": { "name": "a", "uid": "h", "annotations": { "x": "y" } }, "spec": {} });
        let owner = json!([{ "apiVersion": "v1", "kind": "Node", "name": "n", "uid": "nu", "controller": true }]);
        let expected = json!({ "metadata": { "name": "a", "annotations": { "x": "y", MIRROR: "h" }, "ownerReferences": owner }, "spec": {} });
        assert_eq!(mirror(&pod, "n", "nu"), expected);
    }
}
