//! The audit log: who asked for what, when, from where, and what came of it (`audit.k8s.io/v1 Event`, one JSON line each).
//!
//! A [`Policy`] says how much is kept of which request. What is kept is gathered in a [`Record`] while the request is served; finished
//! lines go through a bounded queue to one thread that writes a rotated file ([`sink`]). Requests never wait for the log: what finds
//! the queue full is counted, and the count is written into the log itself as soon as there is room. Without a log file nothing is
//! gathered at all.

pub mod policy;
mod record;
pub mod sink;

pub use policy::{Level, Policy, Stage};
pub use record::{Asked, Record, Until};

use crate::auth::User;
use http::HeaderMap;
use std::sync::Arc;

/// The header that names a request, in the answer and, if the client wants, in the request.
pub const AUDIT_ID: &str = "audit-id";
/// Longest name that a client may give its request.
const LONGEST_ID: usize = 64;

/// What is to be logged, and where.
#[derive(Clone, Debug)]
pub struct Options {
    /// How much of which request.
    pub policy: Policy,
    /// Where to.
    pub file: sink::Options,
}

/// The log. Cheap to clone.
#[derive(Clone)]
pub struct Log {
    policy: Arc<Policy>,
    sink: sink::Sink,
}

/// The name of a request: the client's own if it gave a good one, else a fresh one.
pub fn id(headers: &HeaderMap) -> String {
    let given = headers.get(AUDIT_ID).and_then(|id| id.to_str().ok());
    let good = |id: &&str| !id.is_empty() && id.len() <= LONGEST_ID && id.bytes().all(|byte| byte.is_ascii_graphic());
    given.filter(good).map_or_else(|| uuid::Uuid::new_v4().to_string(), str::to_owned)
}

impl Log {
    /// Opens the file and starts its writer.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn open(options: Options) -> std::io::Result<Self> {
        Ok(Self { policy: Arc::new(options.policy), sink: sink::Sink::open(options.file)? })
    }

    /// Begins the record of a request; none if the policy keeps nothing of it.
    pub fn begin(&self, user: &User, asked: Asked) -> Option<Arc<Record>> {
        let rule = self.policy.of(user, &asked)?;
        let record = Arc::new(Record::new(rule, user, asked, self.sink.clone()));
        record.stage(Stage::RequestReceived, None);
        Some(record)
    }

    /// Writes what is queued, and waits for it.
    pub fn flush(&self) {
        self.sink.flush();
    }
}

tokio::task_local! {
    /// None while a request is served of which nothing is kept.
    static CURRENT: Option<Arc<Record>>;
}

/// Serves a request within its record, so that what decides about it can annotate it; without one, that nothing of it is kept is decided.
pub async fn within<F: Future>(record: Option<Arc<Record>>, request: F) -> F::Output {
    CURRENT.scope(record, request).await
}

/// Whether a request is being served whose record was begun, or of which nothing is kept.
pub fn is_decided() -> bool {
    CURRENT.try_with(|_| ()).is_ok()
}

fn with(note: impl FnOnce(&Record)) {
    let _outside = CURRENT.try_with(|record| record.as_deref().map(note));
}

/// Notes something about the request that is being served, if it is recorded. What was said first stays.
pub fn annotate(key: &str, value: impl FnOnce() -> String) {
    with(|record| record.annotate(key, value()));
}

/// Notes something that tells of what was sent, if that is kept.
pub fn annotate_content(key: &str, value: impl FnOnce() -> String) {
    with(|record| {
        if record.wants_request() {
            record.annotate(key, value());
        }
    });
}

/// Notes as whom the request that is being served goes on.
pub fn impersonated(user: &User) {
    with(|record| record.impersonated(user));
}

#[cfg(test)]
mod tests;
