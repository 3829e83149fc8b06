//! What the node counts as it goes: probes, starts, evictions.

use crate::pods::{probes::Kind, spec::Pod};
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

/// Outcomes of a container's probe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcomes {
    /// Went well.
    pub successful: u64,
    /// Did not.
    pub failed: u64,
}

/// A container's probe.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Probed {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The container's name.
    pub container: String,
    /// `Liveness`, `Readiness` or `Startup`.
    pub kind: &'static str,
}

/// Everything that is counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// By pod's uid, for as long as the pod is there.
    pub probes: HashMap<String, BTreeMap<Probed, Outcomes>>,
    /// Containers that were to be started.
    pub started: u64,
    /// Of these, those that could not be.
    pub start_errors: u64,
    /// Pods whose sandbox was to be made.
    pub pods: u64,
    /// Evictions by signal.
    pub evictions: BTreeMap<&'static str, u64>,
}

/// Counts. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Counters(Arc<Mutex<Counts>>);

impl Counters {
    /// As it stands.
    pub fn read(&self) -> Counts {
        self.0.lock().clone()
    }

    /// Counts something.
    pub fn count(&self, what: impl FnOnce(&mut Counts)) {
        what(&mut self.0.lock());
    }

    /// A probe came back.
    pub fn probed(&self, pod: &Pod, container: &str, kind: Kind, well: bool) {
        let meta = &pod.metadata;
        let probed = Probed { namespace: meta.namespace.clone(), pod: meta.name.clone(), container: container.into(), kind: kind.title() };
        let mut counts = self.0.lock();
        let outcomes = counts.probes.entry(meta.uid.clone()).or_default().entry(probed).or_default();
        *(if well { &mut outcomes.successful } else { &mut outcomes.failed }) += 1;
    }

    /// The pod is gone.
    pub fn forget(&self, uid: &str) {
        self.0.lock().probes.remove(uid);
    }
}
