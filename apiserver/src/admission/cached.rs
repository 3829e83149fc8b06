//! What is made of the stored objects of a few resources, kept as long as none of them changes.

use coracle_store::Snapshot;
use parking_lot::Mutex;
use std::sync::Arc;

/// A value that is made of all objects of some resources: policies with their bindings, webhooks.
pub struct Cached<T> {
    resources: &'static [&'static str],
    known: Mutex<Known<T>>,
}

struct Known<T> {
    /// The revision of every object that the value was made of.
    stamp: Vec<u64>,
    value: Arc<T>,
}

impl<T: Default> Cached<T> {
    /// Nothing is made yet.
    pub fn new(resources: &'static [&'static str]) -> Cached<T> {
        Cached { resources, known: Mutex::new(Known { stamp: Vec::new(), value: Arc::default() }) }
    }

    /// The value of a snapshot; `make` is given the last one and makes it anew only when an object changed.
    pub fn of(&self, snapshot: &Snapshot, make: impl FnOnce(&T) -> T) -> Arc<T> {
        let stamp = || self.resources.iter().flat_map(|resource| snapshot.range(resource, None, None)).map(|object| object.revision);
        let last = {
            let known = self.known.lock();
            if stamp().eq(known.stamp.iter().copied()) {
                return known.value.clone();
            }
            known.value.clone()
        };
        let value = Arc::new(make(&last));
        *self.known.lock() = Known { stamp: stamp().collect(), value: value.clone() };
        value
    }
}
