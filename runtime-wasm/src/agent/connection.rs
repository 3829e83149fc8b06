//! The agent's end of the control socket: requests and their answers, events in between, and the supervisor's life.

use crate::wire::{
    Answer, Answered, Ask, Happened, Refusal, Reply, Request,
    socket::{AsyncLink, Link},
};
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    io,
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

type Waiting = HashMap<u64, oneshot::Sender<Result<Answer, Refusal>>>;
type Outgoing = (Request, Vec<Arc<OwnedFd>>);

/// A connection; calls may come from many tasks.
pub struct Connection {
    next: AtomicU64,
    waiting: Mutex<Waiting>,
    outgoing: Mutex<Vec<Outgoing>>,
    wake: Notify,
    lost: CancellationToken,
    dismissed: AtomicBool,
}

impl Connection {
    /// Over a connected socket. Events go to `events`.
    pub fn new(fd: OwnedFd, events: mpsc::UnboundedSender<Happened>) -> io::Result<Arc<Self>> {
        let link = AsyncLink::new(Link::new(fd))?;
        let connection = Arc::new(Self {
            next: AtomicU64::new(1),
            waiting: Mutex::default(),
            outgoing: Mutex::default(),
            wake: Notify::new(),
            lost: CancellationToken::new(),
            dismissed: AtomicBool::new(false),
        });
        let driver = connection.clone();
        tokio::spawn(async move {
            let lost = driver.lost.clone();
            _ = lost.run_until_cancelled(driver.drive(link, events)).await;
            driver.lost.cancel();
            // Whoever waits for an answer learns that none will come.
            driver.waiting.lock().clear();
        });
        Ok(connection)
    }

    async fn drive(&self, mut link: AsyncLink, events: mpsc::UnboundedSender<Happened>) -> io::Result<()> {
        loop {
            tokio::select! {
                () = self.wake.notified() => {
                    let outgoing = std::mem::take(&mut *self.outgoing.lock());
                    for (request, fds) in outgoing {
                        link.link().send(&request, fds)?;
                    }
                    link.flush()?;
                }
                turned = link.turn() => {
                    turned?;
                    while let Some((answered, _)) = link.link().receive::<Answered>()? {
                        match answered {
                            Answered::Event(happened) => _ = events.send(happened),
                            Answered::Reply(Reply { id, result }) => {
                                if let Some(waiting) = self.waiting.lock().remove(&id) {
                                    _ = waiting.send(result);
                                }
                            }
                        }
                    }
                    if link.link().closed() {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Asks, and waits for the answer. `None` when the supervisor is gone.
    pub async fn ask(&self, ask: Ask, fds: Vec<Arc<OwnedFd>>) -> Option<Result<Answer, Refusal>> {
        let (sender, receiver) = oneshot::channel();
        let id = self.next.fetch_add(1, Relaxed);
        self.waiting.lock().insert(id, sender);
        if self.lost.is_cancelled() {
            self.waiting.lock().remove(&id);
            return None;
        }
        self.outgoing.lock().push((Request { id, ask }, fds));
        self.wake.notify_one();
        receiver.await.ok()
    }

    /// Has it gone?
    pub fn is_lost(&self) -> bool {
        self.lost.is_cancelled()
    }

    /// Hangs up.
    pub fn dismiss(&self) {
        self.dismissed.store(true, Relaxed);
        self.lost.cancel();
    }

    /// Was it we who hung up?
    pub fn is_dismissed(&self) -> bool {
        self.dismissed.load(Relaxed)
    }
}
