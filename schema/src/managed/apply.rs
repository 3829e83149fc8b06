//! Server-side apply: what a manager wants is merged in, what it wanted before and nobody else has goes.

use super::compare::{Delta, places, same};
use super::entries::{self, Entry};
use super::fields::FieldSet;
use super::{Deltas, Writer, last_applied, list_of, put, remove};
use crate::Schema;
use coracle_api::status::{Cause, Details, Status};
use serde_json::Value;

/// Why an apply was refused.
#[derive(Debug)]
pub(super) enum Refused {
    /// Others manage these fields: the entry as messages name it, the place as the set knows it, and as messages show it.
    Conflicts(Vec<Conflict>),
    /// Anything else.
    Status(Status),
}

/// A field that somebody else manages.
#[derive(Debug)]
pub(super) struct Conflict {
    manager: String,
    keys: Vec<String>,
    path: String,
}

impl From<Refused> for Status {
    fn from(refused: Refused) -> Status {
        match refused {
            Refused::Status(status) => status,
            Refused::Conflicts(conflicts) => conflict(&conflicts),
        }
    }
}

/// 409 in upstream's words, a cause a field.
fn conflict(conflicts: &[Conflict]) -> Status {
    let message = match conflicts {
        [one] => format!("Apply failed with 1 conflict: conflict with {}: {}", one.manager, one.path),
        many => {
            let mut lines = Vec::with_capacity(many.len() + 1);
            let mut last = None;
            for conflict in many {
                if last != Some(&conflict.manager) {
                    lines.push(format!("conflicts with {}:", conflict.manager));
                    last = Some(&conflict.manager);
                }
                lines.push(format!("- {}", conflict.path));
            }
            format!("Apply failed with {} conflicts: {}", many.len(), lines.join("\n"))
        }
    };
    let causes = conflicts.iter().map(|conflict| Cause {
        reason: "FieldManagerConflict".into(),
        message: format!("conflict with {}", conflict.manager),
        field: conflict.path.clone(),
    });
    let mut status = Status::new(409, "Conflict", message);
    status.details = Some(Box::new(Details { causes: causes.collect(), ..Details::default() }));
    status
}

/// An error of upstream's that has no reason of its own.
fn unnamed(message: String) -> Refused {
    Refused::Status(Status::new(500, "", message))
}

impl Schema {
    /// Applies `config` to what is stored (None: to nothing) for a manager: the object to write, with its `managedFields`; neither canonical nor defaulted yet.
    ///
    /// # Errors
    /// 409 with a cause a field that others manage, unless `force`; 400 for another kind or version and for a configuration with managed
    /// fields; 500 in upstream's words for one that does not fit the schema.
    pub fn apply(&self, live: Option<&Value>, config: &Value, writer: &Writer<'_>, force: bool) -> Result<Value, Status> {
        self.check(config)?;
        let nothing;
        let live = match live {
            Some(live) => live,
            None => {
                nothing = self.nothing();
                &nothing
            }
        };
        let result = self.apply_once(live, config, writer, force);
        let mut object = match result {
            // What kubectl applied itself, before it did so on the server, is kubectl's own.
            Err(Refused::Conflicts(conflicts)) if writer.manager == last_applied::MANAGER => {
                let Some(own) = last_applied::own(self, live) else { return Err(Refused::Conflicts(conflicts).into()) };
                let others: Vec<Conflict> =
                    conflicts.into_iter().filter(|c| !own.has(&c.keys.iter().map(String::as_str).collect::<Vec<_>>())).collect();
                if !others.is_empty() {
                    return Err(Refused::Conflicts(others).into());
                }
                self.apply_once(live, config, writer, true)?
            }
            other => other?,
        };
        if writer.manager == last_applied::MANAGER {
            last_applied::update(&mut object, config);
        }
        Ok(object)
    }

    fn check(&self, config: &Value) -> Result<(), Refused> {
        let said = |key: &str| config.get(key).and_then(Value::as_str).unwrap_or_default();
        let (group, version) = said("apiVersion").split_once('/').unwrap_or(("", said("apiVersion")));
        let gvk = format!("{group}/{version}, Kind={}", said("kind"));
        if said("apiVersion") != self.api_version() || said("kind") != self.kind() {
            return Err(Refused::Status(Status::bad_request(format!("invalid object type: {gvk}"))));
        }
        if list_of(config).is_some_and(|list| !list.is_null()) {
            return Err(Refused::Status(Status::bad_request("metadata.managedFields must be nil")));
        }
        match super::check(self.view(), config) {
            None => Ok(()),
            Some(why) => {
                let metadata = |key: &str| config.pointer(&format!("/metadata/{key}")).and_then(Value::as_str).unwrap_or_default();
                Err(unnamed(format!("failed to create typed patch object ({}/{}; {gvk}): {why}", metadata("namespace"), metadata("name"))))
            }
        }
    }

    fn apply_once(&self, live: &Value, config: &Value, writer: &Writer<'_>, force: bool) -> Result<Value, Refused> {
        let view = self.view();
        let api_version = self.api_version();
        let mut entries = list_of(live).cloned().map(entries::stored).unwrap_or_default();
        if entries.is_empty() {
            // Whoever made the object so far is not known.
            let before = Writer { manager: "before-first-apply", ..*writer };
            let nothing = self.nothing();
            let mut deltas = Deltas::new(&before, &nothing, live, api_version.clone(), before.delta(self, &nothing, live));
            self.note(&mut entries, &mut deltas, &before);
        }
        for entry in entries.iter_mut().filter(|entry| entry.api_version == api_version) {
            super::reconcile::reconcile(view, entry.fields.root_mut());
        }

        let merged = super::merge(view, live, config).map_err(|why| unnamed(format!("failed to merge config: {why}")))?;
        let mut mine = writer.entry(true, api_version.clone());
        mine.fields = places(view, config);
        writer.limit(&mut mine.fields);
        let last = entries.iter().position(|entry| entry.is_of(&mine)).map(|at| entries.remove(at));
        mine.time = last.as_ref().and_then(|last| last.time.clone());

        let new = match &last {
            Some(last) => self.prune(merged, &entries, &mine, last, writer),
            None => merged,
        };
        let mut deltas = Deltas::new(writer, live, &new, api_version.clone(), writer.delta(self, live, &new));
        if !force {
            let conflicts = conflicts(&mut entries, &mut deltas);
            if !conflicts.is_empty() {
                return Err(Refused::Conflicts(conflicts));
            }
        }
        entries.retain_mut(|entry| {
            match deltas.at(&entry.api_version) {
                Some(delta) => delta.take_from(&mut entry.fields),
                None => return false,
            }
            !entry.fields.is_empty()
        });
        mine.strip();
        // An apply that changes nothing of the object has no time of its own.
        let changed = !same(live, &new);
        if changed {
            mine.time = Some(writer.now.into());
        }
        if !mine.fields.is_empty() {
            entries.push(mine);
        }
        let mut object = if changed { new } else { live.clone() };
        put(&mut object, entries::write(entries));
        Ok(object)
    }

    /// Takes out what the manager applied last time, does not apply now, and nobody else manages.
    fn prune(&self, merged: Value, entries: &[Entry], mine: &Entry, last: &Entry, writer: &Writer<'_>) -> Value {
        let mut dropped = last.fields.clone();
        if last.api_version == mine.api_version {
            dropped.subtract(&mine.fields);
            if dropped.is_empty() {
                return merged;
            }
        }
        // In the version it was applied in.
        let (schema, object) = if last.api_version == mine.api_version {
            (None, merged)
        } else {
            match writer.versions.at(&last.api_version, &merged) {
                Some((schema, object)) => (Some(schema), object),
                None => return merged,
            }
        };
        let pruned = schema.as_deref().unwrap_or(self).prune_in(&object, entries, mine, last, writer);
        match schema {
            None => pruned,
            Some(_) => writer.versions.at(&mine.api_version, &pruned).map_or(object, |(_, back)| back),
        }
    }

    fn prune_in(&self, merged: &Value, entries: &[Entry], mine: &Entry, last: &Entry, writer: &Writer<'_>) -> Value {
        let view = self.view();
        let named = |set: &FieldSet| FieldSet::of(remove::with_named(view, set.root()));
        let last_set = named(&last.fields);
        let mut pruned = remove::remove(view, merged, last_set.root());

        // Back comes what somebody has, version by version, the one it is in first.
        let mut versions: Vec<&str> = vec![&last.api_version];
        for entry in entries.iter().chain([mine]) {
            if !versions.contains(&&*entry.api_version) {
                versions.push(&entry.api_version);
            }
        }
        for version in versions {
            let owned = entries.iter().chain([mine]).filter(|entry| entry.api_version == version).map(|entry| entry.fields.clone());
            let Some(owned) = owned.reduce(|mut all, more| {
                all.unite(more);
                all
            }) else {
                continue;
            };
            if version == last.api_version {
                pruned = self.add_back(merged, &pruned, &owned);
            } else if let (Some((other, merged)), Some((_, before))) = (writer.versions.at(version, merged), writer.versions.at(version, &pruned)) {
                let after = other.add_back(&merged, &before, &owned);
                if let Some((_, back)) = writer.versions.at(&last.api_version, &after) {
                    pruned = back;
                }
            }
        }

        // And what the manager never had.
        let mut gone = named(&places(view, merged));
        gone.subtract(&named(&places(view, &pruned)));
        remove::remove(view, merged, gone.common(&last_set).root())
    }

    fn add_back(&self, merged: &Value, pruned: &Value, owned: &FieldSet) -> Value {
        let view = self.view();
        let named = |set: &FieldSet| FieldSet::of(remove::with_named(view, set.root()));
        let mut gone = named(&places(view, merged));
        gone.subtract(&named(&places(view, pruned)));
        gone.subtract(&named(owned));
        remove::remove(view, merged, gone.root())
    }
}

/// What others manage of what is about to change, manager by manager.
fn conflicts(entries: &mut [Entry], deltas: &mut Deltas<'_>) -> Vec<Conflict> {
    let mut conflicts = Vec::new();
    entries.sort_by(|a, b| (&a.manager, &a.api_version, &a.subresource, a.apply).cmp(&(&b.manager, &b.api_version, &b.subresource, b.apply)));
    for entry in entries {
        let Some(Delta { touched, .. }) = deltas.at(&entry.api_version) else { continue };
        for (keys, path) in entry.fields.common(touched).paths() {
            conflicts.push(Conflict { manager: entry.shown(), keys: keys.into_iter().map(str::to_owned).collect(), path });
        }
    }
    conflicts
}
