//! What is given back when a pod ends, and what nobody owns any more.

use super::Work;
use crate::{
    pods::{
        ended,
        machine::Event,
        orphans,
        spec::{Pod, StoredStatus},
    },
    volumes,
};
use coracle_runtime::{ContainerStatus, remove::remove_tree};
use std::path::Path;

impl Work {
    /// Keeps the last status of a pod that is over for the next agent.
    pub async fn keep_end(&self, uid: &str, status: serde_json::Value) -> Result<(), String> {
        let dir = self.directory(uid);
        tokio::task::spawn_blocking(move || ended::keep(&dir, status)).await.unwrap_or_else(|why| Err(why.to_string()))
    }

    /// The status that an agent before this one kept.
    pub fn ended(&self, uid: &str) -> Option<StoredStatus> {
        ended::kept(&self.directory(uid))
    }

    /// `give_back` does what is to be done with its volumes.
    pub(super) async fn tear_down(&self, pod: &Pod, give_back: fn(&Path) -> std::io::Result<()>) -> Event {
        let uid = &pod.metadata.uid;
        for runtime in &self.runtimes {
            if let Err(why) = runtime.remove_sandbox(uid).await {
                return Event::TeardownFailed(why.message);
            }
        }
        self.limits.forget(uid);
        let dir = self.directory(uid);
        let unmounted = tokio::task::spawn_blocking({
            let dir = dir.clone();
            move || give_back(&dir)
        });
        if let Err(why) = unmounted.await.unwrap_or_else(|why| Err(std::io::Error::other(why))) {
            return Event::TeardownFailed(format!("remove {}: {why}", volumes::directory(&dir).display()));
        }
        self.network.release(uid).await;
        if pod.host_ports().next().is_some() {
            self.services_changed();
        }
        Event::TornDown
    }

    /// Everything of a pod that is gone. Its directory goes last, and stays where something else does: whoever comes next tries again.
    pub async fn remove_orphan(&self, uid: &str) {
        self.network.release(uid).await;
        for runtime in &self.runtimes {
            if let Err(why) = runtime.remove_sandbox(&uid.to_string()).await {
                return tracing::warn!(%why, uid, "remove what is left of a pod that is gone");
            }
        }
        self.remove_directory(uid).await;
    }

    /// Containers that others came after, and an agent that was killed then did not remove.
    pub async fn remove_superseded(&self, uid: &str, containers: &[ContainerStatus]) {
        let Some(runtime) = self.runtimes.iter().find(|runtime| runtime.holds(uid)) else { return };
        for id in orphans::superseded(containers) {
            if let Err(why) = runtime.remove_container(&id).await {
                tracing::warn!(%why, id, "remove a container that another came after");
            }
        }
    }

    /// Names below `pods/`.
    pub fn directories(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.options.data_dir.join("pods")).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }

    /// Everything that is left of a pod on disk.
    pub async fn remove_directory(&self, uid: &str) {
        let Ok(name) = volumes::paths::name(uid) else { return };
        let dir = self.directory(name);
        let removed = tokio::task::spawn_blocking(move || match volumes::unmount(&dir).and_then(|()| remove_tree(&dir)) {
            Err(why) if why.kind() != std::io::ErrorKind::NotFound => tracing::warn!(%why, dir = %dir.display(), "remove what is left of a pod"),
            _ => {}
        });
        _ = removed.await;
    }
}
