//! Delete and deletecollection: preconditions, grace, propagation, finalizers.

use super::{Answer, Body, Core, Request, Verb, decode, handle, metadata, object, update::conflict};
use crate::resources::Deletion;
use coracle_api::{names, status::Cause, status::Status};
use coracle_store::{Expect, Op};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{borrow::Cow, sync::Arc, time::Instant};

/// `metav1.DeleteOptions`, from the body or the query.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Options {
    grace_period_seconds: Option<i64>,
    preconditions: Option<Preconditions>,
    orphan_dependents: Option<bool>,
    propagation_policy: Option<String>,
    dry_run: Option<Vec<String>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Preconditions {
    uid: Option<String>,
    resource_version: Option<String>,
}

const JOB_ORPHANS: &str = "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or set propagationPolicy=Orphan to suppress this warning";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Propagation {
    Background,
    Foreground,
    Orphan,
}

impl Options {
    /// From a request; what cannot be read is 400, what contradicts itself 422.
    pub fn of(core: &Core, request: &Request) -> Result<Self, Status> {
        let read = |error: serde_json::Error| Status::bad_request(format!("the delete options cannot be read: {error}"));
        let mut options: Options = match &request.body {
            Body::Raw { content_type, bytes } => serde_json::from_value(decode::options(core, content_type, bytes)?).map_err(read)?,
            Body::Object(value) => serde_json::from_value(value.clone()).map_err(read)?,
            Body::None | Body::Patch { .. } => Options::default(),
        };
        if let Some(text) = request.param("gracePeriodSeconds") {
            options.grace_period_seconds =
                Some(text.parse().map_err(|_| Status::bad_request(format!("gracePeriodSeconds must be a whole number, not \"{text}\"")))?);
        }
        if let Some(text) = request.param("propagationPolicy") {
            options.propagation_policy = Some(text.into());
        }
        if let Some(text) = request.param("orphanDependents") {
            options.orphan_dependents = Some(text == "true");
        }
        if let Some(list) = &options.dry_run
            && let Some(other) = list.iter().find(|item| *item != "All")
        {
            return Err(unsupported("dryRun", other, "\"All\""));
        }
        if let (Some(policy), Some(_)) = (&options.propagation_policy, options.orphan_dependents) {
            let why = format!("Invalid value: \"{policy}\": orphanDependents and deletionPropagation cannot be both set");
            return Err(wrong("propagationPolicy", "FieldValueInvalid", why));
        }
        options.propagation()?;
        Ok(options)
    }

    fn propagation(&self) -> Result<Option<Propagation>, Status> {
        match (self.propagation_policy.as_deref(), self.orphan_dependents) {
            (None, None) => Ok(None),
            (None, Some(true)) | (Some("Orphan"), _) => Ok(Some(Propagation::Orphan)),
            (None, Some(false)) | (Some("Background"), _) => Ok(Some(Propagation::Background)),
            (Some("Foreground"), _) => Ok(Some(Propagation::Foreground)),
            (Some(other), _) => Err(unsupported("propagationPolicy", other, "\"Foreground\", \"Background\", \"Orphan\", \"nil\"")),
        }
    }

    fn dry_run(&self) -> bool {
        self.dry_run.as_ref().is_some_and(|list| !list.is_empty())
    }
}

fn wrong(field: &str, reason: &str, message: String) -> Status {
    Status::invalid("meta.k8s.io", "DeleteOptions", "", vec![Cause { reason: reason.into(), message, field: field.into() }])
}

fn unsupported(field: &str, value: &str, supported: &str) -> Status {
    wrong(field, "FieldValueNotSupported", format!("Unsupported value: \"{value}\": supported values: {supported}"))
}

/// What the first delete writes into the object that stays.
fn mark(object: &mut Value, deletion: Deletion, now: Timestamp) {
    let grace = seconds(deletion);
    let until = now.checked_add(SignedDuration::from_secs(grace)).unwrap_or(now);
    let generation = object["metadata"]["generation"].as_i64();
    let metadata = metadata::of(object);
    metadata.insert("deletionTimestamp".into(), Value::String(names::rfc3339(until)));
    if deletion == Deletion::Held {
        return;
    }
    metadata.insert("deletionGracePeriodSeconds".into(), json!(grace));
    if let Some(generation) = generation {
        metadata.insert("generation".into(), json!(generation + 1));
    }
}

fn seconds(deletion: Deletion) -> i64 {
    match deletion {
        Deletion::Now | Deletion::Held => 0,
        Deletion::Grace(seconds) => seconds.max(0),
    }
}

/// A later delete can only shorten the grace. True if it did.
fn shorten(object: &mut Value, grace: i64) -> bool {
    let had = object["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0);
    if grace >= had {
        return false;
    }
    let at: Option<Timestamp> = object["metadata"]["deletionTimestamp"].as_str().and_then(|text| text.parse().ok());
    let metadata = metadata::of(object);
    if let Some(at) = at.and_then(|at| at.checked_sub(SignedDuration::from_secs(had - grace)).ok()) {
        metadata.insert("deletionTimestamp".into(), Value::String(names::rfc3339(at)));
    }
    metadata.insert("deletionGracePeriodSeconds".into(), json!(grace));
    true
}

/// The finalizers of the garbage collector follow the propagation that was asked for.
fn propagate(object: &mut Value, propagation: Option<Propagation>) {
    let Some(propagation) = propagation else { return };
    let mut list: Vec<String> =
        metadata::finalizers(object).into_iter().filter(|f| !matches!(*f, "orphan" | "foregroundDeletion")).map(str::to_string).collect();
    match propagation {
        Propagation::Background => {}
        Propagation::Foreground => list.push("foregroundDeletion".into()),
        Propagation::Orphan => list.push("orphan".into()),
    }
    let metadata = metadata::of(object);
    if list.is_empty() {
        metadata.remove("finalizers");
    } else {
        metadata.insert("finalizers".into(), json!(list));
    }
}

impl Core {
    pub(super) async fn delete(self: &Arc<Self>, request: &Request) -> Result<Answer, Status> {
        self.remove(request, true).await
    }

    /// A delete that was admitted as something else.
    pub(crate) async fn evict(self: &Arc<Self>, request: &Request) -> Result<Answer, Status> {
        self.remove(request, false).await
    }

    async fn remove(self: &Arc<Self>, request: &Request, admit: bool) -> Result<Answer, Status> {
        let options = Options::of(self, request)?;
        let mut request = Cow::Borrowed(request);
        if options.dry_run() && !request.write.dry_run {
            request.to_mut().write.dry_run = true;
        }
        let until = Instant::now() + handle::DEADLINE;
        loop {
            if let Some(answer) = self.try_delete(&request, &options, admit).await? {
                return Ok(answer);
            }
            if Instant::now() >= until {
                return Err(conflict(&request, "the object is changing too fast; try again"));
            }
        }
    }

    async fn try_delete(self: &Arc<Self>, request: &Request, options: &Options, admit: bool) -> Result<Option<Answer>, Status> {
        let row = &request.resource;
        let dry_run = request.write.dry_run;
        let snapshot = self.fresh().await?;
        let stored = snapshot.get(&handle::key(request)).ok_or_else(|| handle::missing(request))?;
        if let Some(wanted) = &options.preconditions {
            if let Some(uid) = wanted.uid.as_deref().filter(|uid| **uid != *stored.meta.uid) {
                let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {}", stored.meta.uid);
                return Err(conflict(request, &why));
            }
            if let Some(revision) = wanted.resource_version.as_deref().filter(|rv| **rv != stored.revision.to_string()) {
                let why =
                    format!("Precondition failed: ResourceVersion in precondition: {revision}, ResourceVersion in object meta: {}", stored.revision);
                return Err(conflict(request, &why));
            }
        }
        let hooks = self.hooks_of(row);
        let cx = self.cx(request, &snapshot);
        let old = object::parse(&stored)?;
        if admit {
            let seen = object::parse(&*self.worked_on(row, stored.clone()).await?)?;
            self.admission.mutate(&cx, Some(&seen), None).await?;
            self.admission.validate(&cx, Some(&seen), None).await?;
        }

        let mut new = old.clone();
        // A negative grace is one second, as upstream reads it.
        let asked = options.grace_period_seconds.map(|grace| if grace < 0 { 1 } else { grace });
        let deletion = hooks.delete(&cx, &mut new, asked)?;
        let propagation = match options.propagation()? {
            // What these kinds do for the sake of older clients.
            None if &*row.plural == "jobs" && &*row.group == "batch" && !metadata::deleting(&old) => {
                request.warnings.add(JOB_ORPHANS.into());
                Some(Propagation::Orphan)
            }
            None if &*row.plural == "replicationcontrollers" && !metadata::deleting(&old) => Some(Propagation::Orphan),
            asked => asked,
        };
        propagate(&mut new, propagation);
        if metadata::deleting(&old) {
            shorten(&mut new, seconds(deletion));
        } else {
            mark(&mut new, deletion, cx.now);
        }
        let left = new["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0);
        let gone = left == 0 && metadata::finalizers(&new).is_empty() && !hooks.held(&new);

        let expect = Expect::Revision(stored.revision);
        if gone {
            if !dry_run {
                let mut ops = vec![Op::Delete { key: stored.key.clone(), expect }];
                hooks.also(&cx, Some(&old), None, &mut ops)?;
                if self.commit_first(request, ops).await?.is_none() {
                    return Ok(None);
                }
            }
            return Ok(Some(Answer::Value { code: 200, value: success(request, &stored.meta.uid) }));
        }
        let draft = object::draft(&self.stored_row(row), &new);
        if object::unchanged(&stored, &draft) {
            return Ok(Some(Answer::Object { object: self.view(row, stored).await?, created: false }));
        }
        if dry_run {
            return Ok(Some(Answer::Value { code: 200, value: self.shown(row, object::with_revision(new, stored.revision))? }));
        }
        let mut ops = vec![Op::Put { key: stored.key.clone(), expect, draft }];
        hooks.also(&cx, Some(&old), Some(&new), &mut ops)?;
        match self.commit_first(request, ops).await? {
            Some(object) => Ok(Some(Answer::Object { object: self.view(row, object).await?, created: false })),
            None => Ok(None),
        }
    }

    /// Deletes what a list of the same options shows, a page of it if there is a limit; answers with that list, as it was.
    pub(super) async fn delete_collection(self: &Arc<Self>, request: &Request) -> Result<Answer, Status> {
        Options::of(self, request)?;
        let page = self.list(request).await?;
        for object in &page.items {
            let one =
                Request { verb: Verb::Delete, namespace: object.key.namespace.to_string(), name: object.key.name.to_string(), ..request.clone() };
            match self.delete(&one).await {
                Err(status) if !status.is_not_found() => return Err(status),
                _ => {}
            }
        }
        Ok(Answer::List(Box::new(page)))
    }
}

fn success(request: &Request, uid: &str) -> Value {
    let row = &request.resource;
    let mut details = json!({"name": request.name, "kind": row.plural, "uid": uid});
    if !row.group.is_empty() {
        details["group"] = json!(row.group);
    }
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn propagation_rules_the_collectors_finalizers() {
        let mut object = json!({"metadata": {"finalizers": ["a/b", "orphan"]}});
        propagate(&mut object, None);
        assert_eq!(metadata::finalizers(&object), ["a/b", "orphan"]);
        propagate(&mut object, Some(Propagation::Foreground));
        assert_eq!(metadata::finalizers(&object), ["a/b", "foregroundDeletion"]);
        propagate(&mut object, Some(Propagation::Background));
        assert_eq!(metadata::finalizers(&object), ["a/b"]);
    }

    #[test]
    fn grace_is_marked_once_and_only_shortened() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().expect("valid");
        let mut object = json!({"metadata": {"generation": 1}});
        mark(&mut object, Deletion::Grace(30), now);
        assert_eq!(object["metadata"], json!({"deletionTimestamp": "2026-01-01T00:00:30Z", "deletionGracePeriodSeconds": 30, "generation": 2}));
        assert!(!shorten(&mut object, 60));
        assert!(shorten(&mut object, 5));
        assert_eq!(object["metadata"]["deletionTimestamp"], "2026-01-01T00:00:05Z");
        assert!(shorten(&mut object, 0));
        assert_eq!(object["metadata"]["deletionGracePeriodSeconds"], 0);
        let marked = |deletion| {
            let mut object = json!({"metadata": {"generation": 1}});
            mark(&mut object, deletion, now);
            object["metadata"].take()
        };
        assert_eq!(marked(Deletion::Now), json!({"deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": 0, "generation": 2}));
        assert_eq!(marked(Deletion::Held), json!({"deletionTimestamp": "2026-01-01T00:00:00Z", "generation": 1}), "no grace");
    }
}
