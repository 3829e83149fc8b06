//! Custom resources: what a CustomResourceDefinition makes of the server (KEP-95, `apiextensions-apiserver`).
//!
//! A definition becomes registry rows, one a version, each of which carries the [`Kind`] made of it: schemas, columns, conversion. Rows are immutable and made anew
//! whenever the stored definition changes ([`Kinds`]), so a request works with one state of its kind from beginning to end. A write also requires of the store that the
//! definition is still the one it was checked against, and starts again with the newer one if it is not: nothing is stored that its schema never saw, and
//! nothing after a definition's instances were cleaned away.

mod columns;
pub mod conditions;
mod convert;
mod definition;
mod hooks;
pub mod jsonpath;
mod kinds;
mod view;

pub use kinds::Kinds;

use crate::{
    pipeline::{Core, Request},
    resources::Hooks,
};
use bytes::Bytes;
use coracle_api::{
    registry::{Column, Resource, ScalePaths},
    status::Status,
};
use coracle_schema::Schema;
use coracle_store::{Expect, Key, Op};
use serde_json::json;
use std::sync::{Arc, OnceLock};
use tokio_util::sync::CancellationToken;

/// Id of the resource that definitions are.
pub const DEFINITIONS: &str = "customresourcedefinitions.apiextensions.k8s.io";
/// Finalizer under which a definition's instances are deleted.
pub const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

/// The store's key of a definition.
pub fn key(definition: &str) -> Key {
    Key::new(DEFINITIONS, "", definition)
}

/// Everything the server knows of one definition, at one revision of it.
pub struct Kind {
    /// Name of the definition, which is also the id of its resource.
    pub definition: Box<str>,
    uid: Box<str>,
    /// Counts changes of its specification.
    generation: i64,
    /// The revision this was made from.
    pub revision: u64,
    /// Objects written after this revision conform to the schemas.
    settled: u64,
    kind: Box<str>,
    versions: Vec<Arc<Version>>,
    conversion: convert::Conversion,
    views: view::Cache,
}

/// One version of a kind.
pub struct Version {
    /// `group/version`
    api_version: Box<str>,
    name: Box<str>,
    storage: bool,
    /// The text of `openAPIV3Schema`, a part of the stored definition.
    open_api: Bytes,
    /// Made of it when it is first needed.
    schema: Arc<OnceLock<Arc<Schema>>>,
    gvk: (Box<str>, Box<str>, Box<str>),
    columns: Vec<columns::Printer>,
    /// Paths of the fields that its objects can be selected by.
    selectable: Vec<Box<str>>,
    scale: Option<ScalePaths>,
    /// Ends when the version is no longer served.
    alive: CancellationToken,
}

impl std::fmt::Debug for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.api_version)
    }
}

/// The kind behind a row; None for built-in ones.
pub fn of(row: &Resource) -> Option<&Kind> {
    row.custom.as_ref()?.kind.downcast_ref()
}

/// The version behind a row; None for built-in kinds.
pub fn version_of(row: &Resource) -> Option<&Arc<Version>> {
    of(row)?.version(&row.version)
}

impl Kind {
    fn version(&self, name: &str) -> Option<&Arc<Version>> {
        self.versions.iter().find(|version| *version.name == *name)
    }

    /// The version with this `apiVersion`.
    pub(crate) fn by_api_version(&self, api_version: &str) -> Option<&Arc<Version>> {
        self.versions.iter().find(|version| *version.api_version == *api_version)
    }

    fn stored(&self) -> Option<&Arc<Version>> {
        self.versions.iter().find(|version| version.storage)
    }
}

impl Version {
    /// The schema, made at the first call.
    pub fn schema(&self) -> &Arc<Schema> {
        self.schema.get_or_init(|| {
            let (group, version, kind) = &self.gvk;
            let made = serde_json::from_slice(&self.open_api)
                .map_err(|error| error.to_string())
                .and_then(|open_api| Schema::custom(group, version, kind, &open_api));
            Arc::new(
                made.or_else(|error| {
                    // Validation of the definition keeps such schemas out; should one be stored all the same, its objects are kept as they are.
                    tracing::error!(%error, kind = %kind, version = %self.api_version, "a stored schema cannot be read");
                    Schema::custom(group, version, kind, &json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}))
                })
                .unwrap_or_else(|_| unreachable!("a schema that keeps everything is structural")),
            )
        })
    }

    /// The text of `openAPIV3Schema`.
    pub fn open_api(&self) -> &Bytes {
        &self.open_api
    }

    /// Ends when the version is no longer served.
    pub fn alive(&self) -> &CancellationToken {
        &self.alive
    }
}

impl Core {
    /// What is special about the kind of a row.
    pub fn hooks_of(&self, row: &Resource) -> Arc<dyn Hooks> {
        match version_of(row) {
            Some(version) => version.clone(),
            None => self.hooks.get(&row.id()).clone(),
        }
    }

    /// The schema of a row's objects.
    pub fn schema_of(&self, row: &Resource) -> Option<Arc<Schema>> {
        match version_of(row) {
            Some(version) => Some(version.schema().clone()),
            None => self.schemas.get(&row.group, &row.version, &row.kind),
        }
    }

    /// The request with the newest state of its custom kind, if that is not the one it has; 404 when the kind is gone.
    pub(crate) fn renewed(&self, request: &Request) -> Result<Option<Request>, Status> {
        let Some(kind) = of(&request.resource) else { return Ok(None) };
        self.customs.refresh(&kind.definition);
        let row = self.registry.by_path(&request.resource.group, &request.resource.version, &request.resource.plural);
        // The version that is stored may be worked on by controllers without being served.
        let row = row.or_else(|| self.registry.by_id(&request.resource.id()).filter(|row| row.version == request.resource.version));
        let row = row.ok_or_else(crate::pipeline::handle::no_such_path)?;
        if of(&row).is_some_and(|newest| newest.revision == kind.revision) {
            return Ok(None);
        }
        Ok(Some(Request { resource: row, ..request.clone() }))
    }
}

/// The store's part of the promise that a write was checked against the definition as it is.
pub(crate) fn guard(row: &Resource) -> Option<Op> {
    let kind = of(row)?;
    Some(Op::Check { key: key(&kind.definition), expect: Expect::Revision(kind.revision) })
}

/// Columns of a version's table.
fn columns_of(version: &Version) -> Vec<Column> {
    version.columns.iter().map(|printer| printer.column.clone()).collect()
}
