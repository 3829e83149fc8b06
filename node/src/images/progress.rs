//! How far a pull is: counted by it, read by whoever tells the user.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// See the module.
#[derive(Debug, Default)]
pub struct Progress {
    layers: AtomicU64,
    layers_done: AtomicU64,
    bytes: AtomicU64,
    bytes_done: AtomicU64,
}

impl Progress {
    /// What there is to do.
    pub fn expect(&self, layers: usize, bytes: u64) {
        self.layers.store(layers as u64, Relaxed);
        self.bytes.store(bytes, Relaxed);
        self.layers_done.store(0, Relaxed);
        self.bytes_done.store(0, Relaxed);
    }

    /// So many bytes came.
    pub fn received(&self, bytes: u64) {
        self.bytes_done.fetch_add(bytes, Relaxed);
    }

    /// A layer is in its place.
    pub fn unpacked(&self) {
        self.layers_done.fetch_add(1, Relaxed);
    }

    /// For a human; none before it is known what there is to do.
    pub fn text(&self) -> Option<String> {
        let mib = |bytes: &AtomicU64| bytes.load(Relaxed) >> 20;
        let layers = self.layers.load(Relaxed);
        let done = self.layers_done.load(Relaxed);
        (layers > 0).then(|| format!("{} of {} MiB received, {done} of {layers} layers unpacked", mib(&self.bytes_done), mib(&self.bytes)))
    }
}
