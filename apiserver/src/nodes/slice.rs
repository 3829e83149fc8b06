//! What one node is entitled to see, and how that changes: pure over snapshots.
//!
//! Its pods; the secrets, config maps and service accounts that they name; its own Node; every service, endpoint slice and runtime
//! class. Level-triggered: a watch only says which keys may have changed; what is sent is the difference between the snapshot and
//! what was sent before. So a change that is seen twice is sent once, and resuming, starting and catching up are one piece of code.

use crate::auth::node::{names, on};
use coracle_link::protocol::Feed;
use coracle_store::{Key, Scope, Snapshot};
use std::collections::{BTreeSet, HashMap, HashSet};

/// Kinds of which every node sees everything.
const SHARED: [&str; 3] = ["services", "endpointslices.discovery.k8s.io", "runtimeclasses.node.k8s.io"];

/// See the module.
pub struct Slice {
    node: String,
    /// What the node has, and at which revision.
    sent: HashMap<Key, u64>,
    /// What each pod names.
    named: HashMap<Key, Vec<Key>>,
    /// By how many pods something is named.
    wanted: HashMap<Key, usize>,
}

/// How the set of named things changed.
#[derive(Default)]
pub struct Named {
    /// Named now and not before: to be watched from this snapshot on.
    pub added: Vec<Key>,
    /// No longer named by any pod.
    pub gone: Vec<Key>,
}

impl Slice {
    /// The slice of a node that has nothing yet.
    pub fn new(node: &str) -> Self {
        Self { node: node.into(), sent: HashMap::new(), named: HashMap::new(), wanted: HashMap::new() }
    }

    /// What to watch besides the things that pods name.
    pub fn scopes(&self) -> Vec<Scope> {
        let mut scopes: Vec<Scope> = SHARED.iter().map(|r| Scope::resource(*r)).collect();
        scopes.push(Scope { field: Some(("spec.nodeName".into(), self.node.as_str().into())), ..Scope::resource("pods") });
        scopes.push(Scope { name: Some(self.node.as_str().into()), ..Scope::resource("nodes") });
        scopes
    }

    /// Everything that may be in the slice: its content in this snapshot and what was sent.
    pub fn everything(&self, snapshot: &Snapshot) -> BTreeSet<Key> {
        let pods = snapshot.range("pods", None, None).filter(|pod| on(pod, &self.node)).map(|pod| pod.key.clone());
        let mut keys: BTreeSet<Key> = pods.collect();
        for resource in SHARED {
            keys.extend(snapshot.range(resource, None, None).map(|o| o.key.clone()));
        }
        keys.insert(Key::new("nodes", "", self.node.as_str()));
        keys.extend(self.sent.keys().cloned());
        keys.extend(self.wanted.keys().cloned());
        keys
    }

    /// First step: takes in what the changed pods name now.
    pub fn pods<'a>(&mut self, snapshot: &Snapshot, changed: impl IntoIterator<Item = &'a Key>) -> Named {
        let mut touched = HashMap::<Key, bool>::new();
        for key in changed.into_iter().filter(|k| &*k.resource == "pods") {
            let now = snapshot.get(key).filter(|pod| on(pod, &self.node)).map(|pod| refs(&pod.json, &key.namespace));
            let before = match &now {
                Some(now) if self.named.get(key) == Some(now) => continue,
                Some(now) => self.named.insert(key.clone(), now.clone()),
                None => self.named.remove(key),
            };
            for named in now.into_iter().flatten() {
                let count = self.wanted.entry(named.clone()).or_default();
                touched.entry(named).or_insert(*count > 0);
                *count += 1;
            }
            for named in before.into_iter().flatten() {
                touched.entry(named.clone()).or_insert(true);
                if let Some(count) = self.wanted.get_mut(&named) {
                    *count = count.saturating_sub(1);
                    if *count == 0 {
                        self.wanted.remove(&named);
                    }
                }
            }
        }
        let mut result = Named::default();
        for (key, before) in touched {
            match (before, self.wanted.contains_key(&key)) {
                (false, true) => result.added.push(key),
                (true, false) => result.gone.push(key),
                _ => {}
            }
        }
        result
    }

    /// Second step, of the same snapshot: what to tell the node about these keys, so that it has what the snapshot holds.
    pub fn tell(&mut self, snapshot: &Snapshot, keys: impl IntoIterator<Item = Key>) -> Vec<Feed> {
        let mut out = Vec::new();
        for key in keys {
            let entitled = match &*key.resource {
                "pods" => self.named.contains_key(&key),
                "nodes" => *key.name == *self.node,
                shared if SHARED.contains(&shared) => true,
                _ => self.wanted.contains_key(&key),
            };
            let text = |s: &str| s.to_string();
            let (resource, namespace, name) = (text(&key.resource), text(&key.namespace), text(&key.name));
            let object = snapshot.get(&key).filter(|_| entitled);
            match object {
                Some(object) => {
                    if self.sent.insert(key, object.revision) != Some(object.revision) {
                        out.push(Feed::Upsert { resource, namespace, name, json: object.json.clone() });
                    }
                }
                None => {
                    if self.sent.remove(&key).is_some() {
                        out.push(Feed::Remove { resource, namespace, name });
                    }
                }
            }
        }
        out
    }

    /// Takes a snapshot in whole, as if it had been sent: what a node has that was synced at it.
    pub fn assume(&mut self, snapshot: &Snapshot) {
        let keys = self.everything(snapshot);
        let named = self.pods(snapshot, &keys);
        self.tell(snapshot, keys.into_iter().chain(named.added));
    }

    /// Everything that pods of this node name.
    pub fn wanted(&self) -> impl Iterator<Item = &Key> {
        self.wanted.keys()
    }
}

fn refs(pod: &[u8], namespace: &std::sync::Arc<str>) -> Vec<Key> {
    let mut found = HashSet::new();
    names(pod, &mut |resource, name| {
        found.insert((resource, name.to_string()));
    });
    let mut keys: Vec<Key> = found.into_iter().map(|(resource, name)| Key::new(resource, namespace.clone(), name)).collect();
    keys.sort();
    keys
}
