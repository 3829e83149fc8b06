//! What others may look at while pods change: where a pod's logs are, whether its containers still run, its address.

use super::time::Time;
use parking_lot::RwLock;
use std::{collections::HashMap, net::IpAddr, sync::Arc};
use tokio::sync::watch;

/// One container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerView {
    /// Name.
    pub name: String,
    /// Its number.
    pub attempt: u32,
    /// A container with that number has existed.
    pub created: bool,
    /// The number of the one that its last state tells of.
    pub previous: Option<u32>,
    /// It runs, or is about to.
    pub alive: bool,
    /// Nothing more will be run under that name.
    pub over: bool,
    /// Its waiting reason, while it waits.
    pub waiting: Option<String>,
    /// Since when it runs, milliseconds since 1970.
    pub started: Option<Time>,
    /// As the pod names it.
    pub image: String,
    /// `limits.memory`, bytes.
    pub memory_limit: Option<u64>,
}

/// One pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Uid.
    pub uid: Arc<str>,
    /// Address.
    pub ip: Option<IpAddr>,
    /// Init containers, then containers.
    pub containers: Vec<ContainerView>,
    /// RFC 3339.
    pub start_time: String,
    /// It runs or may yet run.
    pub active: bool,
    /// It is a file's: the API knows it by the uid of its mirror.
    pub from_file: bool,
}

/// All pods on this node. Cheap to clone.
#[derive(Clone)]
pub struct Views {
    pods: Arc<RwLock<HashMap<Arc<str>, Arc<View>>>>,
    version: Arc<watch::Sender<u64>>,
}

impl Default for Views {
    fn default() -> Self {
        Self { pods: Arc::default(), version: Arc::new(watch::Sender::new(0)) }
    }
}

impl Views {
    /// A pod is now this.
    pub fn set(&self, view: View) {
        let mut pods = self.pods.write();
        if pods.get(&view.uid).is_some_and(|old| **old == view) {
            return;
        }
        pods.insert(view.uid.clone(), Arc::new(view));
        drop(pods);
        self.version.send_modify(|v| *v += 1);
    }

    /// A pod is gone.
    pub fn remove(&self, uid: &str) {
        self.pods.write().remove(uid);
        self.version.send_modify(|v| *v += 1);
    }

    /// By uid.
    pub fn get(&self, uid: &str) -> Option<Arc<View>> {
        self.pods.read().get(uid).cloned()
    }

    /// By name: the one that runs, if there are two.
    pub fn find(&self, namespace: &str, name: &str) -> Option<Arc<View>> {
        let pods = self.pods.read();
        let mut named = pods.values().filter(|v| v.namespace == namespace && v.name == name);
        let first = named.next()?;
        Some(named.find(|v| v.active).unwrap_or(first).clone())
    }

    /// All of them.
    pub fn all(&self) -> Vec<Arc<View>> {
        self.pods.read().values().cloned().collect()
    }

    /// Changes with every change.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }
}
