//! Lists: revision rules, selectors, chunks, and the page that comes of them.

pub mod options;
mod token;

use super::{Core, Request, handle, object};
use coracle_api::{
    registry::{Resource, ResourceRef},
    selector::{FieldSelector, Selector},
    status::Status,
};
use coracle_store::{Error, Object, Snapshot};
pub use options::{ListOptions, Match};
use std::{sync::Arc, time::Duration};
pub use token::Token;

/// How long a read waits for a revision that this server has not applied yet, as upstream.
const WAIT: Duration = Duration::from_secs(3);

/// What a list or watch selects.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// `labelSelector`
    pub labels: Selector,
    /// `fieldSelector`
    pub fields: FieldSelector,
}

impl Filter {
    /// From the query; a field that the kind cannot be selected by is 400.
    pub fn of(request: &Request) -> Result<Self, Status> {
        let labels = Selector::parse(request.param("labelSelector").unwrap_or("")).map_err(|error| Status::bad_request(error.to_string()))?;
        let fields = FieldSelector::parse(request.param("fieldSelector").unwrap_or("")).map_err(|error| Status::bad_request(error.to_string()))?;
        let row = &request.resource;
        if let Some(term) = fields.terms().iter().find(|term| !selectable(row, &term.field)) {
            return Err(Status::bad_request(match &*row.selectable {
                [] => format!("\"{}\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\"", term.field),
                _ => format!("field label not supported: {}", term.field),
            }));
        }
        Ok(Self { labels, fields })
    }

    /// Whether an object is selected.
    pub fn matches(&self, object: &Object) -> bool {
        self.labels.matches_pairs(&object.meta.labels) && (self.fields.is_everything() || self.fields.matches(|field| field_of(object, field)))
    }

    /// Whether it selects everything.
    pub fn is_everything(&self) -> bool {
        self.labels.is_everything() && self.fields.is_everything()
    }
}

fn selectable(row: &Resource, field: &str) -> bool {
    field == "metadata.name" || field == "metadata.namespace" || row.selectable.iter().any(|entry| object::selectable(entry).0 == field)
}

fn field_of<'a>(object: &'a Object, field: &str) -> Option<&'a str> {
    match field {
        "metadata.name" => Some(&object.key.name),
        "metadata.namespace" => Some(&object.key.namespace),
        field => object.meta.fields.iter().find(|(label, _)| **label == *field).map(|(_, value)| &**value),
    }
}

/// One page of a list.
pub struct Page {
    /// The row.
    pub row: ResourceRef,
    /// `metadata.resourceVersion`
    pub revision: u64,
    /// `metadata.continue`, or empty.
    pub next: String,
    /// `metadata.remainingItemCount`
    pub remaining: Option<u64>,
    /// The objects, in key order.
    pub items: Vec<Arc<Object>>,
}

/// The snapshot a list at this revision reads; `exact` by `resourceVersionMatch`.
pub async fn snapshot(core: &Core, revision: Option<u64>, exact: bool) -> Result<Snapshot, Status> {
    match revision {
        None => core.fresh().await,
        Some(0) => Ok(core.store.snapshot()),
        Some(wanted) => {
            let newest = core.store.applied(wanted, WAIT).await.map_err(|error| match error {
                Error::Gone { .. } | Error::Failed(_) => too_large(wanted, core.store.snapshot().revision()),
                error => handle::store_error(error),
            })?;
            if !exact || newest.revision() == wanted {
                return Ok(newest);
            }
            core.store.snapshot_at(wanted).map_err(|error| match error {
                Error::Gone { .. } => Status::expired("The resourceVersion for the provided list is too old."),
                error => handle::store_error(error),
            })
        }
    }
}

/// 504 for a revision from the future, as upstream's watch cache words it.
pub fn too_large(wanted: u64, current: u64) -> Status {
    let mut status = Status::new(504, "Timeout", format!("Too large resource version: {wanted}, current: {current}"));
    status.details = Some(Box::new(coracle_api::status::Details {
        causes: vec![coracle_api::status::Cause {
            reason: "ResourceVersionTooLarge".into(),
            message: "Too large resource version".into(),
            field: String::new(),
        }],
        retry_after_seconds: 1,
        ..Default::default()
    }));
    status
}

/// Answers a list request.
pub async fn page(core: &Arc<Core>, request: &Request) -> Result<Page, Status> {
    let options = ListOptions::of(request)?;
    let namespace = (!request.namespace.is_empty()).then_some(request.namespace.as_str());
    let (snapshot, after) = match &options.token {
        None => {
            // What is read in chunks is read at one revision; without a limit "not older" is enough, as it always was.
            let chunked = options.limit > 0 && options.matching.is_none() && options.revision != Some(0);
            (snapshot(core, options.revision, chunked || options.matching == Some(Match::Exact)).await?, None)
        }
        Some(text) => {
            if options.revision.is_some_and(|revision| revision != 0) {
                return Err(Status::bad_request("specifying resource version is not allowed when using continue"));
            }
            let token = Token::read(text, namespace)?;
            let snapshot = match token.revision {
                // The client accepted an inconsistent continuation.
                0 => core.fresh().await?,
                revision => match core.store.snapshot_at(revision) {
                    Ok(snapshot) => snapshot,
                    Err(Error::Gone { .. }) => return Err(token.expired()),
                    Err(error) => return Err(handle::store_error(error)),
                },
            };
            (snapshot, Some(token))
        }
    };
    cut(core, &request.resource, &snapshot, namespace, after.as_ref(), &options).await
}

/// Objects looked at in one go.
const TURN: usize = 1_024;
/// Objects of a kind with several versions that are looked at together.
const BATCH: usize = 500;

async fn cut(
    core: &Core,
    row: &ResourceRef,
    snapshot: &Snapshot,
    namespace: Option<&str>,
    after: Option<&Token>,
    options: &ListOptions,
) -> Result<Page, Status> {
    let id = row.id();
    let filter = &options.filter;
    let mut items: Vec<Arc<Object>> = Vec::new();
    let mut more = false;
    let mut all = snapshot.range(&id, namespace, after.map(Token::position));
    let mut take = |object: &Arc<Object>| {
        if options.limit > 0 && items.len() == options.limit {
            more = true;
        } else {
            items.push(object.clone());
        }
        !more
    };
    if !row.converted() {
        for (seen, object) in all.enumerate() {
            if filter.matches(object) && !take(object) {
                break;
            }
            // Every object is a cache miss or two: others get a turn before a long list is through.
            if seen % TURN == TURN - 1 {
                tokio::task::yield_now().await;
            }
        }
    } else {
        // Fields are selected as the version shows them.
        loop {
            let batch: Vec<Arc<Object>> = all.by_ref().take(BATCH).cloned().collect();
            let last = batch.len() < BATCH;
            let going = core.views(row, batch).await?.iter().filter(|object| filter.matches(object)).all(&mut take);
            if last || !going {
                break;
            }
        }
    }
    let revision = snapshot.revision();
    let before = match after {
        // An inconsistent continuation counts what is there now.
        Some(token) if token.revision == 0 => snapshot.range(&id, namespace, None).take_while(|object| token.is_past(&object.key)).count() as u64,
        Some(token) => token.sent,
        None => 0,
    };
    let sent = before + items.len() as u64;
    let next = match items.last() {
        Some(last) if more => Token { revision, namespace: last.key.namespace.to_string(), name: last.key.name.to_string(), sent }.write(),
        _ => String::new(),
    };
    let remaining = (more && filter.is_everything()).then(|| (snapshot.count(&id, namespace) as u64).saturating_sub(sent)).filter(|count| *count > 0);
    Ok(Page { row: row.clone(), revision, next, remaining, items })
}

/// `metadata` of any list.
pub fn list_metadata(revision: u64, next: &str, remaining: Option<u64>) -> serde_json::Value {
    let mut metadata = serde_json::json!({"resourceVersion": revision.to_string()});
    if !next.is_empty() {
        metadata["continue"] = next.into();
    }
    if let Some(remaining) = remaining {
        metadata["remainingItemCount"] = remaining.into();
    }
    metadata
}
