//! emptyDir volumes on disk that may grow only so large (`sizeLimit`): measured when something was written to them, not by the clock.
//!
//! One inotify instance serves all of them. Every directory of such a volume has a watch that speaks once; when one speaks, the pod is due for a look a moment
//! later, and looking (a walk that counts as `du` does) sets the watches again, each before its directory is read, so that nothing is missed in between. A
//! quiet volume costs nothing, a busy one a walk now and then. Where the kernel has no watches left, the pod is looked at as often as kubelet does.

use super::walk;
use crate::{
    eviction::rank::critical,
    pods::{machine::Eviction, spec::Pod},
};
use coracle_api::{amounts::quantity, names::quote};
use futures::StreamExt;
use inotify::{EventMask, EventOwned, EventStream, Inotify, WatchDescriptor, WatchMask, Watches};
use parking_lot::Mutex;
use std::{
    cell::Cell,
    collections::HashMap,
    os::fd::{AsRawFd, BorrowedFd},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

/// From the first write to the look.
const SETTLE: Duration = Duration::from_secs(1);
/// Between looks where nothing can be watched: kubelet's period.
const PERIOD: Duration = Duration::from_secs(10);
/// A walk rests for so many times what it took.
const REST: u32 = 20;

/// A volume and its bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// The volume's name.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
    /// The most bytes.
    pub bytes: u64,
    /// The same as the pod's spec says it.
    pub text: String,
}

/// The volumes of a pod that are to be watched; `volumes` is their directory, `on_disk` says which have no memory of their own.
pub fn of_pod(pod: &Pod, volumes: &Path, on_disk: impl Fn(&str) -> bool) -> Vec<Limit> {
    if critical(pod) {
        return Vec::new();
    }
    let limited = pod.spec.volumes.iter().filter_map(|volume| {
        let limit = quantity(volume.empty_dir.as_ref()?.size_limit.as_ref()?);
        let bytes = u64::try_from(limit.units()).ok().filter(|bytes| *bytes > 0)?;
        let name = super::paths::name(&volume.name).ok()?;
        on_disk(name).then(|| Limit { name: name.into(), path: volumes.join(name), bytes, text: limit.to_string() })
    });
    limited.collect()
}

#[derive(Default)]
struct State {
    pods: HashMap<Arc<str>, Watched>,
    watches: HashMap<WatchDescriptor, Arc<str>>,
}

struct Watched {
    limits: Vec<Limit>,
    /// The next look, once something was written.
    due: Option<Instant>,
    /// No look before.
    rests: Instant,
}

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct Limits {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    changed: Notify,
    watches: Option<Watches>,
    /// Until it is run.
    events: Mutex<Option<Events>>,
}

type Events = EventStream<Vec<u8>>;

impl Limits {
    /// Watches nothing yet. Within a tokio runtime.
    pub fn new() -> Self {
        let events = Inotify::init().and_then(|inotify| inotify.into_event_stream(vec![0; 4096]));
        if let Err(why) = &events {
            tracing::warn!(%why, "emptyDir volumes are measured by the clock: no inotify instance (fs.inotify.max_user_instances)");
        }
        let events = events.ok();
        let watches = events.as_ref().map(EventStream::watches);
        Self { shared: Arc::new(Shared { state: Mutex::default(), changed: Notify::new(), watches, events: Mutex::new(events) }) }
    }

    /// From now on these are the pod's limits. Idempotent.
    pub fn watch(&self, uid: &str, limits: Vec<Limit>) {
        let mut state = self.shared.state.lock();
        if limits.is_empty() {
            state.pods.remove(uid);
            return;
        }
        if state.pods.get(uid).is_some_and(|watched| watched.limits == limits) {
            return;
        }
        let now = Instant::now();
        state.pods.insert(uid.into(), Watched { limits, due: Some(now), rests: now });
        drop(state);
        self.shared.changed.notify_one();
    }

    /// The pod's volumes are gone.
    pub fn forget(&self, uid: &str) {
        self.shared.state.lock().pods.remove(uid);
    }

    /// Runs until cancelled; `exceeded` is told of pods that are over a limit, again and again until they are forgotten.
    pub async fn run(self, cancel: CancellationToken, exceeded: impl AsyncFn(Arc<str>, Eviction)) {
        let mut events = self.shared.events.lock().take();
        loop {
            let next = self.shared.next();
            tokio::select! {
                () = cancel.cancelled() => return,
                () = self.shared.changed.notified() => {}
                event = heard(&mut events) => match event {
                    Some(event) => self.shared.spoke(&event),
                    None => events = None,
                },
                () = tokio::time::sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {
                    for (uid, limits) in self.shared.due() {
                        let (shared, of) = (self.shared.clone(), uid.clone());
                        let began = Instant::now();
                        let looked = tokio::task::spawn_blocking(move || shared.look(&of, &limits)).await;
                        let Ok((over, watched)) = looked else { continue };
                        self.shared.rest(&uid, began.elapsed(), over.is_some() || !watched);
                        if let Some(message) = over {
                            exceeded(uid, Eviction::of(message)).await;
                        }
                    }
                }
            }
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::new()
    }
}

impl Shared {
    fn next(&self) -> Option<Instant> {
        self.state.lock().pods.values().filter_map(|watched| watched.due).min()
    }

    fn due(&self) -> Vec<(Arc<str>, Vec<Limit>)> {
        let now = Instant::now();
        let mut state = self.state.lock();
        let due = state.pods.iter_mut().filter(|(_, watched)| watched.due.is_some_and(|due| due <= now));
        let take = |(uid, watched): (&Arc<str>, &mut Watched)| {
            watched.due = None;
            (uid.clone(), watched.limits.clone())
        };
        due.map(take).collect()
    }

    fn rest(&self, uid: &str, took: Duration, again: bool) {
        let mut state = self.state.lock();
        let Some(watched) = state.pods.get_mut(uid) else { return };
        let now = Instant::now();
        watched.rests = now + took * REST;
        watched.due = watched.due.map(|due| due.max(watched.rests));
        if again {
            watched.due = Some(now + PERIOD.max(took * REST));
        }
    }

    /// Takes in what a watch says.
    fn spoke(&self, event: &EventOwned) {
        let due = Instant::now() + SETTLE;
        let mut state = self.state.lock();
        let State { pods, watches } = &mut *state;
        let look = |watched: &mut Watched| _ = watched.due.get_or_insert(due.max(watched.rests));
        if event.mask.contains(EventMask::Q_OVERFLOW) {
            pods.values_mut().for_each(look);
        } else if let Some(watched) = watches.remove(&event.wd).and_then(|uid| pods.get_mut(&uid)) {
            // It speaks once, and a directory that is removed takes its watch along: either way it is over.
            look(watched);
        }
    }

    /// What is wrong with a pod's volumes, if anything, and whether they are watched from here on.
    fn look(&self, uid: &Arc<str>, limits: &[Limit]) -> (Option<String>, bool) {
        let unwatched = Cell::new(self.watches.is_none());
        let mut watch = |directory: BorrowedFd<'_>| {
            let Some(mut watches) = self.watches.clone() else { return };
            let path = format!("/proc/self/fd/{}", directory.as_raw_fd());
            // Under the lock, so that what it says at once finds whose it is.
            let mut state = self.state.lock();
            match watches.add(path, WatchMask::MODIFY | WatchMask::CREATE | WatchMask::MOVED_TO | WatchMask::ONESHOT) {
                Ok(descriptor) => _ = state.watches.insert(descriptor, uid.clone()),
                Err(_) => unwatched.set(true),
            }
        };
        let mut over = None;
        for limit in limits {
            match walk::usage(&limit.path, &mut watch) {
                Ok(used) if used.bytes <= limit.bytes => {}
                Ok(_) => over = Some(format!("Usage of EmptyDir volume {} exceeds the limit {}. ", quote(&limit.name), quote(&limit.text))),
                Err(walk::Error::Deep) => {
                    over = Some(format!("Usage of EmptyDir volume {} cannot be measured: {}. ", quote(&limit.name), walk::Error::Deep));
                }
                Err(walk::Error::Io(why)) => {
                    tracing::debug!(%why, volume = %limit.path.display(), "measure a volume");
                    unwatched.set(true);
                }
            }
        }
        (over, !unwatched.get())
    }
}

/// The next event; none when there are no more.
async fn heard(events: &mut Option<Events>) -> Option<EventOwned> {
    match events {
        Some(events) => events.next().await.and_then(Result::ok),
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
