//! A stored object as a version of its kind shows it.
//!
//! Objects are stored in one version and shown in any. Most need nothing done to them: written under the schema that is in force, in the version that is asked for, they
//! go out as the bytes they are. Others are read in the schema of the version they were stored in (what that schema has forgotten goes, what it has learnt to default
//! is filled in), converted, and cut to the schema of the version that is asked for; the outcome is an object of its own, kept for the next reader.

use super::{Kind, Version, of};
use crate::pipeline::{Core, object};
use coracle_api::{registry::Resource, status::Status};
use coracle_store::{Draft, Object};
use parking_lot::Mutex;
use serde_json::Value;
use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

/// Bytes of objects that are kept for one kind.
const MAX_KEPT: usize = 2 << 20;

/// Objects as they are shown, by uid, revision and version; the oldest go first.
#[derive(Clone, Default)]
pub(super) struct Cache(Arc<Mutex<Kept>>);

type Name = (Box<str>, u64, Box<str>);

#[derive(Default)]
struct Kept {
    objects: HashMap<Name, Arc<Object>>,
    order: VecDeque<Name>,
    bytes: usize,
}

impl Cache {
    fn get(&self, object: &Object, version: &Version) -> Option<Arc<Object>> {
        self.0.lock().objects.get(&(object.meta.uid.clone(), object.revision, version.name.clone())).cloned()
    }

    fn put(&self, object: &Object, version: &Version, shown: Arc<Object>) {
        let name = (object.meta.uid.clone(), object.revision, version.name.clone());
        let mut kept = self.0.lock();
        kept.bytes += shown.json.len();
        if let Some(before) = kept.objects.insert(name.clone(), shown) {
            kept.bytes -= before.json.len();
        } else {
            kept.order.push_back(name);
        }
        while kept.bytes > MAX_KEPT {
            let Some(oldest) = kept.order.pop_front() else { break };
            if let Some(gone) = kept.objects.remove(&oldest) {
                kept.bytes -= gone.json.len();
            }
        }
    }
}

impl Kind {
    /// Whether the stored bytes are what this version shows.
    fn is_shown(&self, object: &Object, version: &Version) -> bool {
        object.revision > self.settled && version.storage && is_of(object, version)
    }
}

/// Whether an object's bytes say that it is of this version; false may also mean that it takes a closer look.
fn is_of(object: &Object, version: &Version) -> bool {
    let rest = object.json.strip_prefix(br#"{"apiVersion":""#);
    rest.and_then(|rest| rest.strip_prefix(version.api_version.as_bytes())).is_some_and(|rest| rest.starts_with(b"\""))
}

impl Core {
    /// An object as the row's version shows it.
    pub(crate) async fn view(&self, row: &Resource, object: Arc<Object>) -> Result<Arc<Object>, Status> {
        match row.converted() {
            false => Ok(object),
            true => self.views(row, vec![object]).await?.pop().ok_or_else(|| Status::internal("a conversion lost an object")),
        }
    }

    /// As [`Core::view`], for several at once, in their order.
    pub(crate) async fn views(&self, row: &Resource, mut objects: Vec<Arc<Object>>) -> Result<Vec<Arc<Object>>, Status> {
        let (Some(kind), Some(version)) = (of(row), super::version_of(row)) else {
            return objects.into_iter().map(|object| self.formed(row, object)).collect();
        };
        let (mut places, mut values) = (Vec::new(), Vec::new());
        for (at, object) in objects.iter_mut().enumerate() {
            if kind.is_shown(object, version) {
                continue;
            }
            match kind.views.get(object, version) {
                Some(kept) => *object = kept,
                None => {
                    let mut value = object::parse(object)?;
                    kind.restore(&mut value);
                    places.push(at);
                    values.push(value);
                }
            }
        }
        kind.convert(self, version, &mut values).await?;
        for (at, value) in places.into_iter().zip(values) {
            let Some(object) = objects.get_mut(at) else { continue };
            let draft = object::draft(row, &value);
            let shown = match object::unchanged(object, &draft) && object.meta == draft.meta {
                true => object.clone(),
                false => Object::from_draft(object.key.clone(), &draft, object.revision),
            };
            kind.views.put(object, version, shown.clone());
            *object = shown;
        }
        Ok(objects)
    }

    /// An object that the pipeline works on, as a row of its kind shows it.
    pub(crate) async fn as_version(&self, row: &Resource, mut value: Value) -> Result<Value, Status> {
        match (of(row), super::version_of(row)) {
            (Some(kind), Some(version)) => kind.convert(self, version, std::slice::from_mut(&mut value)).await.map(|()| value),
            _ => self.shown(row, value),
        }
    }

    /// What the pipeline works on in a request to a row, of an object as another row of the kind (or the same) shows it.
    pub(crate) async fn back_from(&self, shown_by: &Resource, row: &Resource, mut value: Value) -> Result<Value, Status> {
        match of(row) {
            Some(_) => self.as_version(row, value).await,
            None => self.to_stored(shown_by, &mut value).map(|()| value),
        }
    }

    /// An object as the pipeline works on it: custom kinds in the version that is asked for, built-in ones as they are stored.
    pub(crate) async fn worked_on(&self, row: &Resource, object: Arc<Object>) -> Result<Arc<Object>, Status> {
        if row.stored_as.is_some() { Ok(object) } else { self.view(row, object).await }
    }

    /// What the store keeps of a value that the pipeline worked on.
    pub(crate) async fn draft(&self, row: &Resource, value: &Value) -> Result<Draft, Status> {
        match of(row).and_then(|kind| Some((kind, kind.stored()?))) {
            Some((kind, stored)) => {
                let mut value = value.clone();
                kind.convert(self, stored, std::slice::from_mut(&mut value)).await?;
                // Who reads it as it is stored selects it by that version's fields.
                Ok(object::draft_by(&stored.selectable, &value))
            }
            None => Ok(object::draft(&self.stored_row(row), value)),
        }
    }
}

impl Kind {
    /// What a stored object is by the schema of its own version.
    fn restore(&self, value: &mut Value) {
        if let Some(version) = value["apiVersion"].as_str().and_then(|api_version| self.by_api_version(api_version)) {
            version.schema().restore(value);
        }
    }
}
