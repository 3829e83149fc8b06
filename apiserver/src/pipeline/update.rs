//! Update and patch, of an object or of a subresource that is stored in it (`status`, `scale`, `finalize`).
//!
//! Each attempt starts from the current object: a patch is applied again, an update compared again, until the compare-and-set holds.

use super::{
    Answer, Body, Core, PatchKind, Request,
    change::{Wanted, keep_what_is_not_theirs},
    handle, metadata, object, scale,
};
use crate::custom;
use coracle_api::{registry::Resource, status::Status};
use coracle_schema::managed;
use coracle_store::{Error, Expect, Object, Op, Snapshot, Txn};
use std::{borrow::Cow, sync::Arc, time::Instant};

/// What an update makes if it is not there, as upstream's strategies allow it.
fn made_by_update(row: &Resource) -> bool {
    matches!(
        (&*row.group, &*row.plural),
        ("", "endpoints" | "events" | "limitranges" | "services")
            | ("coordination.k8s.io", "leases")
            | ("events.k8s.io", "events")
            | ("node.k8s.io", "runtimeclasses")
            | ("rbac.authorization.k8s.io", "clusterrolebindings" | "clusterroles" | "rolebindings" | "roles")
    )
}

pub(super) const MODIFIED: &str = "the object has been modified; please apply your changes to the latest version and try again";

impl Core {
    pub(super) async fn update(self: &Arc<Self>, request: &Request) -> Result<Answer, Status> {
        let mut wanted = match self.wanted(request) {
            // A patch is looked at once there is something to patch; what is applied may make it.
            Err(wrong) if matches!(&request.body, Body::Patch { kind, .. } if *kind != PatchKind::Apply) => {
                let there = self.fresh().await?.get(&handle::key(request)).is_some();
                return Err(if there { wrong } else { handle::missing(request) });
            }
            wanted => wanted?,
        };
        let mut request = Cow::Borrowed(request);
        let until = Instant::now() + handle::DEADLINE;
        loop {
            match self.try_update(&request, &wanted).await? {
                Some(answer) => return Ok(answer),
                None if Instant::now() < until => {
                    // The kind itself may have changed: then what was sent means something else.
                    if let Some(renewed) = self.renewed(&request)? {
                        request.warnings.take();
                        wanted = self.wanted(&renewed)?;
                        request = Cow::Owned(renewed);
                    }
                }
                None => return Err(conflict(&request, MODIFIED)),
            }
        }
    }

    /// None after a lost race.
    async fn try_update(self: &Arc<Self>, request: &Request, wanted: &Wanted) -> Result<Option<Answer>, Status> {
        let row = &request.resource;
        let mut snapshot = self.store.snapshot();
        let mut found = snapshot.get(&handle::key(request));
        if found.is_none() {
            // Absence is only believed after a linearizable look.
            snapshot = self.fresh().await?;
            found = snapshot.get(&handle::key(request));
        }
        let stored = match (found, wanted) {
            (Some(stored), _) => stored,
            (None, Wanted::Config(config)) if request.subresource.is_empty() => return self.create_applied(request, config).await,
            (None, Wanted::Object(value)) if request.subresource.is_empty() && made_by_update(row) => {
                return self.create_updated(request, value).await;
            }
            (None, _) => return Err(handle::missing(request)),
        };
        let old = object::parse(&*self.worked_on(row, stored.clone()).await?)?;
        let cx = self.cx(request, &snapshot);
        let mut new = self.change(request, &stored, &old, wanted, &cx.timestamp()).await?;
        metadata::prepare_update(&old, &mut new);

        let hooks = self.hooks_of(row);
        let scaled = &*request.subresource == "scale";
        if scaled {
            // Admission sees a scale as what it is.
            let mut sent = scale::view(row, &new);
            if self.admission.mutate(&cx, Some(&scale::view(row, &old)), Some(&mut sent)).await? {
                let list = managed::take(&mut new);
                new = scale::merge(row, &old, &sent)?;
                managed::put(&mut new, list);
                metadata::prepare_update(&old, &mut new);
            }
        } else if self.admission.mutate(&cx, Some(&old), Some(&mut new)).await? {
            // What is not a client's to change is not a webhook's either.
            metadata::agree_with_path(&mut new, &request.namespace, &request.name)?;
            let list = managed::take(&mut new);
            keep_what_is_not_theirs(request, &old, &mut new);
            managed::put(&mut new, list);
            metadata::prepare_update(&old, &mut new);
        }
        hooks.prepare_update(&cx, &old, &mut new)?;
        metadata::bump_generation(row, &old, &mut new);

        let mut causes = Vec::new();
        metadata::validate(row, Some(&old), &new, &mut causes);
        hooks.validate(&cx, Some(&old), &new, &mut causes);
        if !causes.is_empty() {
            return Err(Status::invalid(&row.group, &row.kind, &request.name, causes));
        }
        request.warnings.extend(hooks.warnings(&cx, Some(&old), &new));
        if &*row.group == "rbac.authorization.k8s.io" {
            self.auth.check_escalation(&request.user, &row.plural, Some(&old), &new)?;
        }
        match scaled {
            true => self.admission.validate(&cx, Some(&scale::view(row, &old)), Some(&scale::view(row, &new))).await?,
            false => self.admission.validate(&cx, Some(&old), Some(&new)).await?,
        }

        let gone = metadata::deleting(&new)
            && metadata::finalizers(&new).is_empty()
            && !hooks.held(&new)
            && new["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) == 0;
        managed::keep_times(&old, &mut new);
        let draft = self.draft(row, &new).await?;
        if !gone && object::unchanged(&stored, &draft) {
            return Ok(Some(self.answer(request, stored).await?));
        }
        let mut charges = Vec::new();
        self.admission.charge(&cx, Some(&old), &new, &mut charges)?;
        if request.write.dry_run {
            let value = object::with_revision(new, stored.revision);
            let value = if scaled { scale::view(row, &value) } else { self.shown(row, value)? };
            return Ok(Some(Answer::Value { code: 200, value }));
        }

        let key = stored.key.clone();
        let expect = Expect::Revision(stored.revision);
        let mut ops = vec![if gone { Op::Delete { key, expect } } else { Op::Put { key, expect, draft } }];
        ops.extend(custom::guard(row));
        ops.extend(charges);
        hooks.also(&cx, Some(&old), (!gone).then_some(&new), &mut ops)?;
        match self.commit_first(request, ops).await? {
            Some(object) => Ok(Some(self.answer(request, object).await?)),
            None => Ok(None),
        }
    }

    /// Commits; the first operation's object, or None after a lost race.
    pub(super) async fn commit_first(&self, request: &Request, ops: Vec<Op>) -> Result<Option<Arc<Object>>, Status> {
        // A node's lease has time: it is valid four times as long as it takes to be renewed.
        let renewal = &*request.resource.plural == "leases" && request.user.node_name().is_some();
        let committed = if renewal { self.store.commit_patiently(Txn { ops }).await } else { self.store.commit(Txn { ops }).await };
        match committed {
            Ok(committed) => match committed.objects.into_iter().next().flatten() {
                Some(object) => Ok(Some(object)),
                None => Err(Status::internal("the store did not return what it wrote")),
            },
            Err(Error::Precondition { .. }) => Ok(None),
            Err(error) => Err(handle::store_error(error)),
        }
    }

    /// The stored object as this subresource shows it.
    pub(super) async fn answer(&self, request: &Request, object: Arc<Object>) -> Result<Answer, Status> {
        let object = self.view(&request.resource, object).await?;
        if &*request.subresource == "scale" {
            let value = scale::view(&request.resource, &object::parse(&object)?);
            return Ok(Answer::Value { code: 200, value });
        }
        Ok(Answer::Object { object, created: false })
    }

    /// A consistent look for a read.
    pub(crate) async fn fresh(&self) -> Result<Snapshot, Status> {
        self.store.barrier().await.map_err(handle::store_error)?;
        Ok(self.store.snapshot())
    }
}

pub(super) fn conflict(request: &Request, why: &str) -> Status {
    Status::conflict(&request.resource.group, &request.resource.plural, &request.name, why)
}
