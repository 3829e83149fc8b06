//! Admission webhooks: others are asked about a write (`MutatingWebhookConfiguration`, `ValidatingWebhookConfiguration`; upstream's
//! `apiserver/pkg/admission/plugin/webhook`).
//!
//! Mutating ones are asked one after the other in the order of their configurations' names and may patch the object; validating ones are asked together. What one
//! may cost is bounded: its time by its own timeout and by that of the whole request, its answer by a length, how many are asked at once by a number.

mod annotations;
mod hook;
pub mod review;

use super::{
    attributes::{self, Attributes},
    audit,
    cached::Cached,
    lookup,
    policy::context::Subject,
};
use crate::{
    pipeline::{
        Core, PatchKind, decode,
        patch::{self, Patch},
    },
    resources::Cx,
    webhook,
};
use coracle_api::{registry::ResourceRef, status::Status};
use coracle_schema::{FieldValidation, managed};
use futures::{StreamExt, future::BoxFuture, stream};
use hook::{Hook, Hooks};
use review::Verdict;
use serde_json::{Value, json};
use std::{collections::HashSet, time::Duration};
use tokio::time::Instant;

const MUTATING: &str = "mutatingwebhookconfigurations.admissionregistration.k8s.io";
const VALIDATING: &str = "validatingwebhookconfigurations.admissionregistration.k8s.io";

/// Longest answer, bytes: an object of the largest size as a patch, in base64.
const MAX_ANSWER: usize = 4 << 20;
/// Validating webhooks that are asked at once for one request.
const MAX_AT_ONCE: usize = 32;
/// All mutating webhooks of one attempt together.
const PATIENCE: Duration = Duration::from_secs(34);

/// The webhooks of both kinds.
pub struct Webhooks {
    mutating: Cached<Hooks>,
    validating: Cached<Hooks>,
}

/// What the mutating webhooks of one attempt have done so far, for `reinvocationPolicy: IfNeeded`.
pub struct Session {
    until: Instant,
    /// Webhooks that may be asked again and saw the object as it is.
    asked: HashSet<String>,
    /// Webhooks after which the object changed.
    stale: HashSet<String>,
    /// The object as the webhooks left it.
    left: Option<Value>,
}

impl Default for Session {
    fn default() -> Self {
        Session { until: Instant::now() + PATIENCE, asked: HashSet::new(), stale: HashSet::new(), left: None }
    }
}

impl Session {
    fn changed(&mut self) {
        self.stale.extend(self.asked.drain());
    }
}

/// A request as one webhook is shown it: under an equivalent version of its resource if that is what the rules name.
struct Question {
    /// In whose form it is shown, where that is not the one that the pipeline works on.
    row: Option<ResourceRef>,
    /// The old and the new object in that form.
    converted: Option<(Option<Value>, Option<Value>)>,
    request: Value,
}

/// What came of asking.
enum Failure {
    /// The webhook could not be asked, or its answer is none; `failurePolicy` decides.
    Call(String),
    /// It decides, or the server cannot go on.
    Status(Status),
}

impl Default for Webhooks {
    fn default() -> Self {
        Webhooks { mutating: Cached::new(&[MUTATING]), validating: Cached::new(&[VALIDATING]) }
    }
}

impl Webhooks {
    /// Asks the mutating webhooks; true if one of them changed the object. In a second round (`cx.again`) only those are asked that want to be, and only
    /// about what changed since.
    pub async fn mutate(&self, cx: &Cx<'_>, old: Option<&Value>, mut new: Option<&mut Value>, session: &mut Session) -> Result<bool, Status> {
        let hooks = self.mutating.of(cx.snapshot, |_| Hooks::of(cx.snapshot, MUTATING));
        if hooks.0.is_empty() || Attributes::of(cx, old, new.as_deref()).is_none() {
            return Ok(false);
        }
        let namespace = attributes::namespace_object(cx)?;
        if cx.again.get() && session.left.as_ref() != new.as_deref() {
            session.changed();
        }
        let mut changed = false;
        for (index, hook) in hooks.0.iter().enumerate() {
            let Some(a) = Attributes::of(cx, old, new.as_deref()) else { break };
            if cx.again.get() && !session.stale.contains(&hook.key) {
                continue;
            }
            let Some(question) = question(cx, &a, hook, &namespace).await? else { continue };
            let left = session.until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Status::new(504, "Timeout", "Timeout: request did not complete within requested timeout"));
            }
            let answer = ask(cx, &a, hook, &question, hook.timeout.min(left), true).await;
            let note = annotations::Note { hook, round: u8::from(cx.again.get()), index };
            let patched = match answer {
                Ok(Verdict { patch: Some(patch), .. }) => {
                    let after = target(hook, question.after(&a)).and_then(|object| patched(cx, &question, object, &patch));
                    if let Ok(Some(after)) = &after {
                        note.patch(&patch);
                        note.mutated(cx, question.after(&a) != Some(after));
                    } else {
                        note.mutated(cx, false);
                    }
                    after
                }
                other => {
                    note.mutated(cx, false);
                    other.map(|_| None)
                }
            };
            if let Some(after) = patched.or_else(|failure| forgive(cx, &note.failed_open(true), hook, failure).map(|()| None))? {
                let after = match &question.row {
                    Some(shown_by) => cx.core.back_from(shown_by, cx.row(), after).await?,
                    None => after,
                };
                if let Some(new) = new.as_deref_mut()
                    && *new != after
                {
                    *new = after;
                    session.changed();
                    changed = true;
                }
            }
            if hook.again {
                session.asked.insert(hook.key.clone());
            }
        }
        session.left = new.as_deref().cloned();
        Ok(changed)
    }

    /// Asks the validating webhooks, together; of several denials the first by name counts.
    pub async fn validate(&self, cx: &Cx<'_>, old: Option<&Value>, new: Option<&Value>) -> Result<(), Status> {
        let hooks = self.validating.of(cx.snapshot, |_| Hooks::of(cx.snapshot, VALIDATING));
        if hooks.0.is_empty() {
            return Ok(());
        }
        let Some(a) = Attributes::of(cx, old, new) else { return Ok(()) };
        let namespace = attributes::namespace_object(cx)?;
        let mut asked = Vec::new();
        for hook in &hooks.0 {
            if let Some(question) = question(cx, &a, hook, &namespace).await? {
                asked.push((hook, question));
            }
        }
        let mut calls = Vec::new();
        for (index, (hook, question)) in asked.iter().enumerate() {
            calls.push(approve(cx, &a, (index, hook), question));
        }
        let answers: Vec<Result<(), Status>> = stream::iter(calls).buffered(MAX_AT_ONCE).collect().await;
        answers.into_iter().collect()
    }
}

/// Asks one validating webhook.
fn approve<'a>(cx: &'a Cx<'_>, a: &'a Attributes<'_>, (index, hook): (usize, &'a Hook), question: &'a Question) -> BoxFuture<'a, Result<(), Status>> {
    Box::pin(async move {
        let answer = ask(cx, a, hook, question, hook.timeout, false).await;
        answer.map(drop).or_else(|failure| forgive(cx, &annotations::Note { hook, round: 0, index }.failed_open(false), hook, failure))
    })
}

/// A failed call of a webhook that is not needed is passed over, and noted under this key.
fn forgive(cx: &Cx<'_>, key: &str, hook: &Hook, failure: Failure) -> Result<(), Status> {
    match failure {
        Failure::Status(status) => Err(status),
        Failure::Call(why) if hook.lenient => {
            tracing::warn!(webhook = hook.name, configuration = hook.configuration, error = %why, "failed calling a webhook, which is not needed");
            audit(cx, key, &hook.name);
            Ok(())
        }
        Failure::Call(why) => Err(Status::internal(format_args!("failed calling webhook {:?}: {why}", hook.name))),
    }
}

/// What a webhook is to be asked; None when it is about something else.
async fn question(cx: &Cx<'_>, a: &Attributes<'_>, hook: &Hook, namespace: &Value) -> Result<Option<Question>, Status> {
    let constraints = hook.constraints.as_ref().map_err(Status::internal)?;
    let Some(version) = constraints.matched(a, namespace, &cx.core.registry) else { return Ok(None) };
    let mut question = Question { row: None, converted: None, request: a.request() };
    let row = match version == a.row.version {
        true => Some(cx.request.resource.clone()),
        false => cx.core.registry.by_path(&a.row.group, &version, &a.row.plural),
    };
    let row = row.ok_or_else(|| Status::internal(format_args!("unable to convert to {}/{version}: unknown kind", a.row.group)))?;
    if version != a.row.version || row.stored_as.is_some() {
        question.request["resource"]["version"] = row.version.as_ref().into();
        // A subresource of another kind is the same in every version.
        if *a.kind.2 == *a.row.kind {
            question.request["kind"]["version"] = row.version.as_ref().into();
            question.converted = Some((shown_as(cx.core, &row, a.old).await?, shown_as(cx.core, &row, a.new).await?));
            question.row = Some(row);
        }
    }
    match hook.conditions.is_empty() || conditions_hold(cx, a, hook, &question)? {
        true => Ok(Some(question)),
        false => Ok(None),
    }
}

async fn shown_as(core: &Core, row: &ResourceRef, value: Option<&Value>) -> Result<Option<Value>, Status> {
    match value {
        Some(value) => core.as_version(row, value.clone()).await.map(Some),
        None => Ok(None),
    }
}

impl Question {
    fn before<'a>(&'a self, a: &Attributes<'a>) -> Option<&'a Value> {
        self.converted.as_ref().map_or(a.old, |(old, _)| old.as_ref())
    }
    fn after<'a>(&'a self, a: &Attributes<'a>) -> Option<&'a Value> {
        self.converted.as_ref().map_or(a.new, |(_, new)| new.as_ref())
    }
}

fn conditions_hold(cx: &Cx<'_>, a: &Attributes<'_>, hook: &Hook, question: &Question) -> Result<bool, Status> {
    let seen = Attributes { old: question.before(a), new: question.after(a), ..a.clone() };
    let subject = Subject { attributes: &seen, request: &question.request, namespace: &Value::Null, core: cx.core, snapshot: cx.snapshot };
    let outcome = subject.activation(&[], &Value::Null, seen.new).and_then(|activation| hook.conditions.hold(&activation, hook.lenient));
    outcome.map_err(|why| lookup::forbidden(cx, a.new.or(a.old).unwrap_or(&Value::Null), &why))
}

/// Sends the question and reads the answer.
async fn ask(cx: &Cx<'_>, a: &Attributes<'_>, hook: &Hook, question: &Question, within: Duration, mutating: bool) -> Result<Verdict, Failure> {
    if a.dry_run && !hook.dry_run {
        return Err(Failure::Status(Status::bad_request(format!("admission webhook {:?} does not support dry run", hook.name))));
    }
    let Some(version) = hook.review else {
        let why = "could not create admission objects: webhook does not accept known AdmissionReview versions (v1, v1beta1)";
        return Err(Failure::Call(why.into()));
    };
    let uid = uuid::Uuid::new_v4().to_string();
    let body = review::request(version, &uid, &question.request, question.after(a), question.before(a));
    let answer = cx.core.call_webhook(&hook.config, body.into(), webhook::Limits { within, bytes: MAX_ANSWER }).await;
    let answer = answer.map_err(|why| Failure::Call(format!("failed to call webhook: {why}")))?;
    let verdict = review::verdict(&answer, version, &uid, mutating).map_err(Failure::Call)?;
    for (key, value) in &verdict.annotations {
        audit(cx, &format!("{}/{key}", hook.name), value);
    }
    verdict.warnings.iter().for_each(|warning| cx.request.warnings.add(warning.clone()));
    match &verdict.denied {
        Some(denied) => Err(Failure::Status(denied.status(&hook.name))),
        None => Ok(verdict),
    }
}

/// The object that a patch is for.
fn target<'a>(hook: &Hook, object: Option<&'a Value>) -> Result<&'a Value, Failure> {
    object.ok_or_else(|| {
        let why = format_args!("admission webhook {:?} attempted to modify the object, which is not supported for this operation", hook.name);
        Failure::Status(Status::internal(why))
    })
}

/// The object after a webhook's patch, in the form and with the defaults of its schema; None for an empty patch.
fn patched(cx: &Cx<'_>, question: &Question, object: &Value, text: &[u8]) -> Result<Option<Value>, Failure> {
    let operations: Vec<Value> =
        serde_json::from_slice(text).map_err(|error| Failure::Call(format!("received undecodable patch in webhook response: {error}")))?;
    if operations.is_empty() {
        return Ok(None);
    }
    // Only why: that the request is wrong is not so.
    let wrong = |status: Status| Failure::Status(Status::internal(status.message.strip_prefix(patch::REJECTED).unwrap_or(&status.message)));
    let schema = match &question.row {
        Some(row) => cx.core.schema_of(row),
        None => decode::schema_of(cx.core, cx.request),
    };
    let schema = schema.ok_or_else(|| Failure::Status(Status::internal(format_args!("no schema for {}", cx.row().kind))))?;
    let mut after = Patch::read(PatchKind::Json, text).and_then(|patch| patch.apply(object, &schema)).map_err(wrong)?;
    if !after.is_object() {
        return Err(Failure::Status(Status::internal("a webhook's patch leaves no object")));
    }
    for field in ["apiVersion", "kind"] {
        after[field] = object[field].clone();
    }
    schema.canonicalize_patched(&mut after, &[], FieldValidation::Ignore, |why| Status::internal(why)).map_err(Failure::Status)?;
    schema.default(&mut after);
    // Who manages what was noted before; what webhooks set nobody manages, as upstream has it.
    managed::put(&mut after, object.pointer("/metadata/managedFields").cloned());
    if decode::deeper_than(&after, decode::MAX_DEPTH) {
        return Err(Failure::Status(Status::internal(format_args!("the patched object is nested deeper than {} levels", decode::MAX_DEPTH))));
    }
    Ok(Some(after))
}

/// The object of a connection: the options that its query spells out.
pub fn connect_options(request: &crate::pipeline::Request) -> Value {
    let (group, version, kind) = decode::kind_of(request);
    let mut options = json!({"kind": kind, "apiVersion": decode::api_version(&group, &version)});
    if &*request.subresource == "proxy" {
        options["path"] = format!("/{}", request.http.as_ref().map_or("", |http| &http.rest)).into();
        return options;
    }
    for (name, value) in &request.query {
        match name.as_str() {
            "stdin" | "stdout" | "stderr" | "tty" => options[name] = matches!(value.as_str(), "true" | "1" | "").into(),
            "container" => options[name] = value.as_str().into(),
            "command" => push(&mut options["command"], value.as_str().into()),
            "ports" => value.split(',').filter_map(|port| port.parse::<u16>().ok()).for_each(|port| push(&mut options["ports"], port.into())),
            _ => {}
        }
    }
    options
}

fn push(list: &mut Value, item: Value) {
    match list {
        Value::Array(items) => items.push(item),
        other => *other = Value::Array(vec![item]),
    }
}
