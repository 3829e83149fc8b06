//! The tracked set of tasks: one token cancels them all, and one that is late at shutdown is named.

use parking_lot::Mutex;
use std::{collections::BTreeMap, future::Future, sync::Arc, time::Duration};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Cheap clone; no task of the control plane runs outside it.
#[derive(Clone, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    token: CancellationToken,
    names: Arc<Mutex<BTreeMap<u64, &'static str>>>,
    next: Arc<std::sync::atomic::AtomicU64>,
}

struct Named {
    names: Arc<Mutex<BTreeMap<u64, &'static str>>>,
    id: u64,
}
impl Drop for Named {
    fn drop(&mut self) {
        self.names.lock().remove(&self.id);
    }
}

impl Tasks {
    /// Cancelled at shutdown; long waits select on it.
    pub fn token(&self) -> &CancellationToken {
        &self.token
    }

    /// Whether a task of this name was started and has not ended.
    pub fn runs(&self, name: &str) -> bool {
        self.names.lock().values().any(|one| *one == name)
    }

    /// Runs until it ends by itself or the set is cancelled, at whichever of its awaits comes first.
    pub fn spawn(&self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        let token = self.token.clone();
        self.spawn_draining(name, async move {
            tokio::select! {
                () = token.cancelled() => {}
                () = work => {}
            }
        });
    }

    /// For work that watches [`Tasks::token`] itself and finishes in its own way.
    pub fn spawn_draining(&self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        let id = self.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.names.lock().insert(id, name);
        let named = Named { names: self.names.clone(), id };
        self.tracker.spawn(async move {
            let _named = named;
            work.await;
        });
    }

    /// For libraries that start tasks of their own (hyper's HTTP/2 streams): tracked, without a name.
    pub fn executor(&self) -> Executor {
        Executor(self.tracker.clone())
    }

    /// Cancels everything and waits; the names of tasks that were still running after `within`.
    pub async fn shutdown(&self, within: Duration) -> Vec<&'static str> {
        self.token.cancel();
        self.tracker.close();
        match tokio::time::timeout(within, self.tracker.wait()).await {
            Ok(()) => Vec::new(),
            Err(_) => self.names.lock().values().copied().collect(),
        }
    }
}

/// Starts tracked tasks for hyper.
#[derive(Clone)]
pub struct Executor(TaskTracker);

impl<F> hyper::rt::Executor<F> for Executor
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, work: F) {
        self.0.spawn(work);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_late_task_is_named() {
        let tasks = Tasks::default();
        tasks.spawn("prompt", std::future::pending());
        tasks.spawn_draining("late", std::future::pending());
        assert!(tasks.runs("late") && !tasks.runs("early"));
        assert_eq!(tasks.shutdown(Duration::from_millis(20)).await, vec!["late"]);
    }
}
