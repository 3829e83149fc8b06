//! The agent's end of a control socket: requests and their answers, events in between, and the other side's life.

use super::{
    Answered, Refusal, Reply, Request,
    socket::{AsyncLink, Link},
};
use parking_lot::Mutex;
use serde::{Serialize, de::DeserializeOwned};
use std::{
    collections::{HashMap, VecDeque},
    io,
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

type Answer<R> = Result<(R, Vec<OwnedFd>), Refusal>;
type Waiting<R> = HashMap<u64, oneshot::Sender<Answer<R>>>;
type Outgoing<A> = (Request<A>, Vec<Arc<OwnedFd>>);

/// A connection over which `A` is asked and answered with `R`, and which brings events; calls may come from many tasks.
pub struct Connection<A, R> {
    next: AtomicU64,
    waiting: Mutex<Waiting<R>>,
    outgoing: Mutex<VecDeque<Outgoing<A>>>,
    wake: Notify,
    lost: CancellationToken,
    dismissed: AtomicBool,
}

/// Answers to what an earlier agent asked may still be under way: no two connections count alike.
fn first_id() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or_default()
}

impl<A, R> Connection<A, R>
where
    A: Serialize + Send + Sync + 'static,
    R: DeserializeOwned + Send + 'static,
{
    /// Over a connected socket, within a tokio runtime. Events go to `events`, which ends with the connection.
    ///
    /// # Errors
    /// The socket cannot be watched.
    pub fn new<E: DeserializeOwned + Send + 'static>(fd: OwnedFd, events: mpsc::UnboundedSender<E>) -> io::Result<Arc<Self>> {
        let link = AsyncLink::new(Link::new(fd))?;
        let connection = Arc::new(Self {
            next: AtomicU64::new(first_id()),
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

    async fn drive<E: DeserializeOwned>(&self, mut link: AsyncLink, events: mpsc::UnboundedSender<E>) -> io::Result<()> {
        loop {
            self.send(link.link())?;
            link.flush()?;
            tokio::select! {
                () = self.wake.notified() => {}
                turned = link.turn() => {
                    turned?;
                    while let Some((answered, fds)) = link.link().receive::<Answered<R, E>>()? {
                        match answered {
                            Answered::Event(happened) => _ = events.send(happened),
                            Answered::Reply(Reply { id, result }) => {
                                if let Some(waiting) = self.waiting.lock().remove(&id) {
                                    _ = waiting.send(result.map(|answer| (answer, fds)));
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

    /// Queues what is to be sent, as far as there is room.
    fn send(&self, link: &mut Link) -> io::Result<()> {
        while link.has_room() {
            let Some((request, fds)) = self.outgoing.lock().pop_front() else { break };
            match link.send(&request, fds) {
                // The trouble of who asked, not of everybody.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                    let refusal = Refusal { reason: "RunContainerError".to_owned(), message: error.to_string(), fatal: true };
                    if let Some(waiting) = self.waiting.lock().remove(&request.id) {
                        _ = waiting.send(Err(refusal));
                    }
                }
                sent => sent?,
            }
        }
        Ok(())
    }

    /// Asks, and waits for the answer. `None` when the other side is gone.
    pub async fn ask(&self, ask: A, fds: Vec<Arc<OwnedFd>>) -> Option<Result<R, Refusal>> {
        Some(self.ask_for(ask, fds).await?.map(|(answer, _)| answer))
    }

    /// The same for an answer that brings descriptors.
    pub async fn ask_for(&self, ask: A, fds: Vec<Arc<OwnedFd>>) -> Option<Answer<R>> {
        let (sender, receiver) = oneshot::channel();
        let id = self.next.fetch_add(1, Relaxed);
        self.waiting.lock().insert(id, sender);
        if self.lost.is_cancelled() {
            self.waiting.lock().remove(&id);
            return None;
        }
        self.outgoing.lock().push_back((Request { id, ask }, fds));
        self.wake.notify_one();
        receiver.await.ok()
    }

    /// Has it gone?
    pub fn is_lost(&self) -> bool {
        self.lost.is_cancelled()
    }

    /// Hangs up for good.
    pub fn dismiss(&self) {
        self.dismissed.store(true, Relaxed);
        self.lost.cancel();
    }

    /// Hangs up on who does not answer: whoever waits learns that nothing will come, as if the other side had gone.
    pub fn give_up(&self) {
        self.lost.cancel();
    }

    /// Was it we who hung up for good?
    pub fn is_dismissed(&self) -> bool {
        self.dismissed.load(Relaxed)
    }
}
