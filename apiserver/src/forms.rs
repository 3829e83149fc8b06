//! Built-in kinds with several forms of one stored object: events in two groups, autoscalers in two versions.
//!
//! What differs between the forms is the kind's business ([`Form`]); here is when it is converted. The pipeline works on the stored form alone, as upstream works on
//! its internal types: a body is converted once it is decoded and its fields have their managers, an object when it is shown. Custom kinds are converted by [`crate::custom`] instead, since
//! their versions have schemas of their own that come and go.

use crate::{
    pipeline::{Core, decode, object},
    resources::Form,
};
use coracle_api::{
    registry::{Resource, ResourceRef},
    status::Status,
};
use coracle_schema::{FieldValidation, Schema};
use coracle_store::Object;
use serde_json::Value;
use std::{borrow::Cow, sync::Arc};

impl Core {
    /// How the objects of a row are converted; None where they are stored as they are shown.
    pub(crate) fn form_of(&self, row: &Resource) -> Option<&'static Form> {
        row.stored_as.as_ref()?;
        let wanted = row.api_version();
        self.hooks.get(&row.id()).forms().iter().find(|form| form.api_version == wanted)
    }

    /// The row in whose form the objects of this one are stored.
    pub(crate) fn stored_row<'a>(&self, row: &'a Resource) -> Cow<'a, Resource> {
        match self.storing(row) {
            Some(stored) => Cow::Owned(Resource::clone(&stored)),
            None => Cow::Borrowed(row),
        }
    }

    fn storing(&self, row: &Resource) -> Option<ResourceRef> {
        let (group, version) = row.stored_as.as_ref()?;
        self.registry.by_path(group, version, &row.plural)
    }

    /// The schema of the stored form.
    pub(crate) fn stored_schema(&self, row: &Resource) -> Option<Arc<Schema>> {
        match &row.stored_as {
            Some((group, version)) => self.schemas.get(group, version, &row.kind),
            None => self.schema_of(row),
        }
    }

    /// Brings a value of the row's form into the stored one.
    pub(crate) fn to_stored(&self, row: &Resource, value: &mut Value) -> Result<(), Status> {
        let (Some(form), Some(stored)) = (self.form_of(row), self.storing(row)) else { return Ok(()) };
        (form.store)(value);
        value["apiVersion"] = stored.api_version().into();
        if let Some(schema) = self.schema_of(&stored) {
            schema.canonicalize(value, FieldValidation::Ignore)?;
            schema.default(value);
        }
        Ok(())
    }

    /// A value of the stored form as the row shows it.
    pub(crate) fn shown(&self, row: &Resource, mut value: Value) -> Result<Value, Status> {
        let Some(form) = self.form_of(row) else { return Ok(value) };
        (form.show)(&mut value);
        value["apiVersion"] = form.api_version.into();
        if let Some(schema) = self.schema_of(row) {
            schema.canonicalize(&mut value, FieldValidation::Ignore)?;
        }
        Ok(value)
    }

    /// A value of the row's form in that of another group and version. Where no form is known of, versions of one kind differ in what they allow and not in where things are.
    pub(crate) fn reformed(&self, row: &Resource, (group, version): (&str, &str), value: &Value) -> Value {
        let mut value = value.clone();
        let other =
            self.registry.by_path(group, version, &row.plural).filter(|other| other.id() == row.id() && other.api_version() != row.api_version());
        if let Some(other) = other {
            if let Some(form) = self.form_of(row) {
                (form.store)(&mut value);
            }
            if let Some(form) = self.form_of(&other) {
                (form.show)(&mut value);
            }
        }
        value["apiVersion"] = decode::api_version(group, version).into();
        value
    }

    /// A stored object as the row shows it, with what the row's field selectors look at.
    pub(crate) fn formed(&self, row: &Resource, object: Arc<Object>) -> Result<Arc<Object>, Status> {
        if self.form_of(row).is_none() {
            return Ok(object);
        }
        let value = self.shown(row, object::parse(&object)?)?;
        Ok(Object::from_draft(object.key.clone(), &object::draft(row, &value), object.revision))
    }
}
