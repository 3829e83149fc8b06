//! A pod that follows its namespace at once (one manifest holds both) finds no default service account yet. It waits for it a moment, as upstream does,
//! instead of being refused.

use crate::pipeline::Core;
use coracle_store::{Key, Scope};
use std::{sync::Arc, time::Duration};

/// About as long as upstream tries.
const PATIENCE: Duration = Duration::from_millis(1500);

/// Returns when the namespace has its default service account, has none to wait for, or patience ends; admission decides then.
pub async fn settle(core: &Arc<Core>, namespace: &str) {
    let key = Key::new("serviceaccounts", namespace, "default");
    let exists = || core.store.snapshot().get(&key).is_some();
    if exists() || core.store.snapshot().get(&Key::new("namespaces", "", namespace)).is_none() {
        return;
    }
    let scope = Scope { resource: Some(key.resource.clone()), namespace: Some(key.namespace.clone()), name: Some(key.name.clone()), field: None };
    let (_, mut watch) = core.store.list_watch(scope);
    let made = async { while !exists() && watch.next().await.is_ok() {} };
    // Too late is no error here: what is missing is refused by name.
    let _ = tokio::time::timeout(PATIENCE, made).await;
}
