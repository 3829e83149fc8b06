//! The thread of Raft: its core, the writer of its log and its state machine take turns on one thread.
//!
//! A write passes through all three, and each waits for the one before. On threads of their own they would wake one another five times for every write, which
//! costs more than what they do. Here two are left: the one that proposes wakes this thread, and this thread wakes it. While it waits for the disk, proposals
//! gather, and go to the disk together.

use parking_lot::Mutex;
use std::future::Future;
use std::io;
use std::thread::JoinHandle;
use tokio::runtime::{Builder, Handle};
use tokio_util::sync::CancellationToken;

/// See the module. What was spawned on it ends with it.
pub(crate) struct RaftThread {
    tasks: Handle,
    end: CancellationToken,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl RaftThread {
    pub fn start() -> io::Result<RaftThread> {
        let runtime = Builder::new_current_thread().enable_time().build()?;
        let (tasks, end) = (runtime.handle().clone(), CancellationToken::new());
        let ended = end.clone();
        let thread = std::thread::Builder::new().name("coracle-raft".into()).spawn(move || runtime.block_on(ended.cancelled()))?;
        Ok(RaftThread { tasks, end, thread: Mutex::new(Some(thread)) })
    }

    /// Runs a future there. What it spawns runs there too. None when the thread ended before it.
    pub async fn run<T: Send + 'static>(&self, future: impl Future<Output = T> + Send + 'static) -> Option<T> {
        self.tasks.spawn(future).await.ok()
    }

    /// Ends the thread and what runs on it. Blocks until it is gone.
    pub fn end(&self) {
        self.end.cancel();
        if let Some(thread) = self.thread.lock().take() {
            let _ = thread.join();
        }
    }
}
