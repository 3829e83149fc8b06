//! One at a time for each layer: images that are pulled at once share what they have in common.

use parking_lot::Mutex;
use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};
use tokio::sync::OwnedMutexGuard;

type Gate = tokio::sync::Mutex<()>;

/// See the module.
#[derive(Debug, Default)]
pub struct Turns {
    gates: Mutex<HashMap<String, Weak<Gate>>>,
}

impl Turns {
    /// Waits for the turn of `key`; it is over when the guard is dropped.
    pub async fn take(&self, key: &str) -> OwnedMutexGuard<()> {
        let gate = {
            let mut gates = self.gates.lock();
            gates.retain(|_, gate| gate.strong_count() > 0);
            match gates.get(key).and_then(Weak::upgrade) {
                Some(gate) => gate,
                None => {
                    let gate = Arc::new(Gate::default());
                    gates.insert(key.into(), Arc::downgrade(&gate));
                    gate
                }
            }
        };
        gate.lock_owned().await
    }
}
