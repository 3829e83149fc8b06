//! Watches: where they start, what of the store's changes a selector lets through, bookmarks, the end.

use super::{
    Core, Request, handle,
    list::{self, Filter, ListOptions},
};
use crate::custom;
use coracle_api::{registry::ResourceRef, status::Status};
use coracle_store::{Change, Error, Object, Scope, Snapshot, Watch};
use std::{collections::VecDeque, sync::Arc, time::Duration};
use tokio::time::{Instant, sleep_until};

/// Upstream sends bookmarks about once a minute.
const BOOKMARK: Duration = Duration::from_secs(60);
/// Without `timeoutSeconds` a watch lasts this long and up to as long again.
const LASTS: Duration = Duration::from_secs(1800);
/// What `timeoutSeconds` can ask for at most.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// What a watcher is told.
#[derive(Debug)]
pub enum Event {
    /// Came into being, or into the selection.
    Added(Arc<Object>),
    /// Changed within it.
    Modified(Arc<Object>),
    /// Went, or left the selection; carries the revision at which it did.
    Deleted(Arc<Object>),
    /// Everything up to this revision was sent. `initial` ends the initial events.
    Bookmark {
        /// The revision.
        revision: u64,
        /// `k8s.io/initial-events-end`
        initial: bool,
    },
    /// The watch ends with this.
    Error(Status),
}

/// A watch that is under way.
pub struct Stream {
    row: ResourceRef,
    filter: Filter,
    ready: VecDeque<Event>,
    /// Changes of objects of a kind with several versions, not yet looked at as this one shows them.
    raw: Vec<Arc<Change>>,
    core: Arc<Core>,
    watch: Option<Watch>,
    /// Last revision that was told by a bookmark.
    told: u64,
    pace: Pace,
}

/// When a watch says something by itself: a pure function of the clock.
#[derive(Debug)]
struct Pace {
    bookmarks: bool,
    next_bookmark: Instant,
    ends: Instant,
}

/// What is due then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    Bookmark,
    /// Of the watch.
    End,
}

impl Pace {
    fn new(bookmarks: bool, now: Instant, lasts: Duration) -> Self {
        Self { bookmarks, next_bookmark: now + BOOKMARK, ends: now + lasts.min(LONGEST) }
    }

    fn next(&self) -> (Instant, Due) {
        match self.bookmarks && self.next_bookmark < self.ends {
            true => (self.next_bookmark, Due::Bookmark),
            false => (self.ends, Due::End),
        }
    }

    /// A bookmark was sent.
    fn told(&mut self, now: Instant) {
        self.next_bookmark = now + BOOKMARK;
    }
}

/// What the store is asked to wake this watch for.
fn scope(request: &Request, filter: &Filter) -> Scope {
    let mut scope = Scope { resource: Some(request.resource.id().into()), namespace: None, name: None, field: None };
    if !request.namespace.is_empty() {
        scope.namespace = Some(request.namespace.as_str().into());
    } else if let Some(namespace) = filter.fields.exact("metadata.namespace") {
        scope.namespace = Some(namespace.into());
    }
    if let Some(name) = filter.fields.exact("metadata.name") {
        scope.name = Some(name.into());
    } else if !request.name.is_empty() {
        scope.name = Some(request.name.as_str().into());
    }
    // What is indexed is the stored form; a kind whose objects are converted may have the field in the form that is asked for alone.
    let node = filter.fields.exact("spec.nodeName").filter(|node| !node.is_empty() && !request.resource.converted());
    if let Some(node) = node {
        scope.field = Some(("spec.nodeName".into(), node.into()));
    }
    scope
}

/// Answers a watch request.
pub async fn start(core: &Arc<Core>, request: &Request) -> Result<Stream, Status> {
    let options = ListOptions::of(request)?;
    if !request.name.is_empty() && options.filter.fields.exact("metadata.name").is_some_and(|name| name != request.name) {
        return Err(Status::bad_request("fieldSelector metadata.name doesn't match requested name"));
    }
    let lasts = match options.timeout {
        0 => LASTS + Duration::from_millis(rand::random_range(0..LASTS.as_millis() as u64)),
        seconds => Duration::from_secs(u64::try_from(seconds).unwrap_or(0)),
    };
    let mut stream = Stream {
        row: request.resource.clone(),
        filter: options.filter,
        ready: VecDeque::new(),
        raw: Vec::new(),
        core: core.clone(),
        watch: None,
        told: 0,
        pace: Pace::new(options.bookmarks, Instant::now(), lasts),
    };
    let scope = scope(request, &stream.filter);
    // An error about the revision comes as the watch's only event, as upstream sends it.
    if options.revision != Some(0)
        && let Err(status) = list::snapshot(core, options.revision, false).await
    {
        stream.ready.push_back(Event::Error(status));
        return Ok(stream);
    }
    match options.revision {
        Some(revision) if revision > 0 && options.initial != Some(true) => match core.store.watch(scope, revision) {
            Ok(watch) => {
                stream.told = revision;
                stream.watch = Some(watch);
            }
            Err(error) => stream.ready.push_back(Event::Error(too_old(error))),
        },
        _ => {
            let (snapshot, watch) = core.store.list_watch(scope.clone());
            if options.initial == Some(true) {
                stream.begin(&snapshot, &scope).await?;
            }
            stream.told = snapshot.revision();
            stream.watch = Some(watch);
        }
    }
    Ok(stream)
}

fn too_old(error: Error) -> Status {
    match error {
        Error::Gone { wanted, oldest } => Status::expired(format!("too old resource version: {wanted} ({oldest})")),
        error => handle::store_error(error),
    }
}

impl Stream {
    /// What is there, in the order of a list, and the bookmark that says so.
    async fn begin(&mut self, snapshot: &Snapshot, scope: &Scope) -> Result<(), Status> {
        let named = |object: &Object| scope.name.as_ref().is_none_or(|name| *name == object.key.name);
        let id = self.row.id();
        let objects = snapshot.range(&id, scope.namespace.as_deref(), None).filter(|object| named(object));
        self.ready = match self.row.converted() {
            // Fields are selected as the version shows them.
            true => {
                let shown = self.core.views(&self.row, objects.cloned().collect()).await?;
                shown.into_iter().filter(|object| self.filter.matches(object)).map(Event::Added).collect()
            }
            false => objects.filter(|object| self.filter.matches(object)).map(|object| Event::Added(object.clone())).collect(),
        };
        if self.pace.bookmarks {
            self.ready.push_back(Event::Bookmark { revision: snapshot.revision(), initial: true });
        }
        Ok(())
    }

    /// The next event; None at the end. Cancel safe.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                if matches!(event, Event::Error(_)) {
                    self.watch = None;
                }
                return Some(event);
            }
            if !self.raw.is_empty() {
                match self.shown().await {
                    Ok(events) => self.ready.extend(events),
                    Err(status) => self.ready.push_back(Event::Error(status)),
                }
                self.raw.clear();
                continue;
            }
            let watch = self.watch.as_mut()?;
            let (at, due) = self.pace.next();
            let alive = custom::version_of(&self.row).map(|version| version.alive().clone());
            let gone = async {
                match &alive {
                    Some(alive) => alive.cancelled().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                changes = watch.next() => match changes {
                    Ok(changes) if self.row.converted() => self.raw.extend(changes.iter().cloned()),
                    Ok(changes) => self.ready.extend(changes.iter().filter_map(|change| filtered(&self.filter, change))),
                    Err(error) => self.ready.push_back(Event::Error(too_old(error))),
                },
                // The kind is no more.
                () = gone => return None,
                () = sleep_until(at) => {
                    if self.pace.bookmarks {
                        self.bookmark();
                    }
                    match due {
                        Due::Bookmark => self.pace.told(Instant::now()),
                        Due::End => self.watch = None,
                    }
                }
            }
        }
    }

    /// The raw changes as the newest state of the kind shows their objects.
    async fn shown(&self) -> Result<Vec<Event>, Status> {
        let newest = self.core.registry.by_path(&self.row.group, &self.row.version, &self.row.plural);
        let row = newest.as_ref().unwrap_or(&self.row);
        let objects = self.raw.iter().flat_map(|change| [&change.prev, &change.new]).flatten().cloned().collect();
        let mut shown = self.core.views(row, objects).await?.into_iter();
        let mut events = Vec::new();
        for change in &self.raw {
            let prev = change.prev.as_ref().and_then(|_| shown.next());
            let new = change.new.as_ref().and_then(|_| shown.next());
            events.extend(filtered(&self.filter, &Change { revision: change.revision, prev, new }));
        }
        Ok(events)
    }

    /// Whether `next` would not wait: events are at hand.
    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    fn bookmark(&mut self) {
        if let Some(watch) = &self.watch {
            self.told = self.told.max(watch.progress());
            self.ready.push_back(Event::Bookmark { revision: self.told, initial: false });
        }
    }
}

/// A change as seen through a selector: what moves into the selection is added, what moves out is deleted.
fn filtered(filter: &Filter, change: &Change) -> Option<Event> {
    let before = change.prev.as_ref().filter(|object| filter.matches(object));
    let after = change.new.as_ref().filter(|object| filter.matches(object));
    match (before, after) {
        (None, Some(new)) => Some(Event::Added(new.clone())),
        (Some(_), Some(new)) => Some(Event::Modified(new.clone())),
        (Some(prev), None) => Some(Event::Deleted(prev.at_revision(change.revision))),
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is due, and after how many seconds, with a clock that jumps from one to the next.
    fn played(bookmarks: bool, lasts: u64) -> Vec<(u64, Due)> {
        let began = Instant::now();
        let mut pace = Pace::new(bookmarks, began, Duration::from_secs(lasts));
        let mut all = Vec::new();
        loop {
            let (at, due) = pace.next();
            all.push(((at - began).as_secs(), due));
            match due {
                Due::Bookmark => pace.told(at),
                Due::End => return all,
            }
        }
    }

    #[test]
    fn bookmarks_come_once_a_minute_until_the_end() {
        assert_eq!(played(true, 150), [(60, Due::Bookmark), (120, Due::Bookmark), (150, Due::End)]);
        assert_eq!(played(true, 120), [(60, Due::Bookmark), (120, Due::End)], "the end has one of its own");
        assert_eq!(played(true, 5), [(5, Due::End)]);
        assert_eq!(played(false, 1800), [(1800, Due::End)]);
        assert_eq!(played(false, u64::MAX), [(LONGEST.as_secs(), Due::End)]);
    }
}
