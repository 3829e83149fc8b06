//! The order of a request: authorize, then what its verb does, then audit. What did not come over HTTP, where a record begins earlier, begins it here.

use super::{Answer, Core, Request, Verb, told};
use crate::{
    auth::{self, Attributes, Decision, User},
    resources::Cx,
};
use coracle_api::{names, status::Status};
use coracle_store::{Error, Key, Snapshot};
use futures::future::BoxFuture;
use jiff::Timestamp;
use serde_json::Value;
use std::{sync::Arc, time::Duration};

/// How long a write tries again after lost races, and a read waits for a revision.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// 404 for a path that names nothing the server knows.
pub fn no_such_path() -> Status {
    Status::new(404, "NotFound", "the server could not find the requested resource")
}

impl Core {
    /// Serves one request about a resource. Boxed: controllers hold this future in theirs, many levels deep.
    pub fn handle(self: &Arc<Self>, request: Request) -> BoxFuture<'static, Result<Answer, Status>> {
        let core = self.clone();
        Box::pin(async move {
            let began = std::time::Instant::now();
            let result = match &core.audit {
                Some(log) if !crate::audit::is_decided() => told::serve(&core, log, &request).await,
                _ => core.serve(&request).await,
            };
            if !matches!(request.verb, Verb::Get | Verb::List | Verb::Watch) {
                audit(&request, &result, began.elapsed());
            }
            result
        })
    }

    pub(super) async fn serve(self: &Arc<Self>, request: &Request) -> Result<Answer, Status> {
        let row = &request.resource;
        if !crate::nodes::kubelet::may_read(self, request) {
            self.authorize(&request.user, &attributes(request))?;
        }
        let serves = match &*request.subresource {
            "" => row.serves(request.verb.as_str()),
            "proxy" if request.verb == Verb::Proxy => row.subresource("proxy").is_some(),
            name => row.subresource(name).ok_or_else(no_such_path)?.verbs.iter().any(|verb| **verb == *request.verb.as_str()),
        };
        if !serves {
            return Err(Status::method_not_allowed());
        }
        if let (true, Some(wrong)) = (row.stored() && !request.name.is_empty(), names::path_segment(&request.name).first()) {
            return Err(Status::bad_request(format!("Name parameter invalid: {:?}: {wrong}", request.name)));
        }
        if request.connects() && &*request.subresource != "proxy" && request.verb != Verb::Create {
            // Whoever asks for a WebSocket says GET; to be in a container is more than to look at one.
            self.authorize(&request.user, &Attributes { verb: Verb::Create.as_str(), ..attributes(request) })?;
        }
        if request.connects() {
            self.admit(request, crate::admission::connect_options(request)).await?;
        }
        if let Some(answer) = crate::nodes::serve(self, request).await {
            return answer;
        }
        if let Some(answer) = self.hooks_of(row).call(self, request).await {
            return answer;
        }
        if !row.stored() {
            let body = super::decode::body(self, request)?;
            let review = self.auth.review(&request.user, &row.kind, &request.namespace, &body);
            let value = review.unwrap_or_else(|| Err(Status::internal(format_args!("{} has no handler", row.plural))))?;
            return Ok(Answer::Value { code: 201, value });
        }
        if (&*row.plural, &*request.subresource, request.verb) == ("serviceaccounts", "token", Verb::Create) {
            let body = super::decode::body(self, request)?;
            let body = self.admit(request, body).await?;
            let value = self.auth.token_request(&request.user, &request.namespace, &request.name, &body)?;
            return Ok(Answer::Value { code: 201, value });
        }
        match request.verb {
            Verb::Get => self.get(request).await,
            Verb::List => self.list(request).await.map(|page| Answer::List(Box::new(page))),
            Verb::Watch => self.watch(request).await.map(|stream| Answer::Watch(Box::new(stream))),
            Verb::Create if request.subresource.is_empty() => self.create(request).await,
            Verb::Update | Verb::Patch => self.update(request).await,
            Verb::Delete if request.subresource.is_empty() => self.delete(request).await,
            Verb::DeleteCollection => self.delete_collection(request).await,
            Verb::Create | Verb::Delete | Verb::Proxy => Err(Status::method_not_allowed()),
        }
    }

    /// Admission of a body that is not stored itself: of a subresource, or the options of a connection. The body as it is admitted.
    pub(crate) async fn admit(self: &Arc<Self>, request: &Request, mut body: Value) -> Result<Value, Status> {
        let snapshot = self.store.snapshot();
        let cx = self.cx(request, &snapshot);
        self.admission.mutate(&cx, None, Some(&mut body)).await?;
        self.admission.validate(&cx, None, Some(&body)).await?;
        Ok(body)
    }

    /// 403 in upstream's words unless a rule allows it.
    pub fn authorize(&self, user: &User, asked: &Attributes<'_>) -> Result<(), Status> {
        let decision = self.auth.authorize(user, asked);
        auth::audit::decision(user, asked, &decision);
        match decision {
            Decision::Allow { .. } => Ok(()),
            Decision::Deny { reason } => Err(forbidden(asked, &reason)),
        }
    }

    /// What hooks and admission look at.
    pub(super) fn cx<'a>(self: &'a Arc<Self>, request: &'a Request, snapshot: &'a Snapshot) -> Cx<'a> {
        Cx { core: self, request, snapshot, now: Timestamp::now(), again: Default::default() }
    }
}

/// The question to the authorizer. A list or watch of one name is a question about that name, as upstream asks it.
pub(super) fn attributes(request: &Request) -> Attributes<'_> {
    let row = &request.resource;
    let name = match request.verb {
        Verb::List | Verb::Watch | Verb::DeleteCollection if request.name.is_empty() => request
            .param("fieldSelector")
            .and_then(|text| text.strip_prefix("metadata.name="))
            .filter(|name| !name.contains([',', '=', '\\']))
            .unwrap_or(""),
        _ => &request.name,
    };
    Attributes {
        verb: request.verb.as_str(),
        group: &row.group,
        version: &row.version,
        resource: &row.plural,
        subresource: &request.subresource,
        // A namespace is asked about within itself, so that a Role in it can allow it.
        namespace: if &*row.plural == "namespaces" && row.group.is_empty() { name } else { &request.namespace },
        name,
        fields: request.param("fieldSelector").unwrap_or_default(),
        ..Attributes::default()
    }
}

/// `pods "a" is forbidden: User "u" cannot get resource "pods" in API group "" in the namespace "default"`; the reason is the authorizer's sentence.
fn forbidden(asked: &Attributes<'_>, reason: &str) -> Status {
    if asked.resource.is_empty() {
        return Status::new(403, "Forbidden", format!("forbidden: {reason}"));
    }
    Status::forbidden(asked.group, asked.resource, asked.name, reason)
}

/// The HTTP status of what came of a request.
pub(super) fn code_of(result: &Result<Answer, Status>) -> u16 {
    match result {
        Ok(Answer::Value { code, .. }) => *code,
        Ok(Answer::Object { created: true, .. }) => 201,
        Ok(Answer::Response(response)) => response.status().as_u16(),
        Ok(_) => 200,
        Err(status) => status.code,
    }
}

fn audit(request: &Request, result: &Result<Answer, Status>, took: Duration) {
    let code = code_of(result);
    tracing::debug!(
        target: "coracle::audit",
        user = %request.user.name, verb = request.verb.as_str(), resource = %request.resource.id(), subresource = %request.subresource,
        namespace = %request.namespace, name = %request.name, dry_run = request.write.dry_run, code, micros = took.as_micros() as u64,
    );
}

/// The key of the object that a request names.
pub(super) fn key(request: &Request) -> Key {
    Key::new(request.resource.id(), request.namespace.as_str(), request.name.as_str())
}

/// 404 for the object that a request names.
pub(super) fn missing(request: &Request) -> Status {
    Status::not_found(&request.resource.group, &request.resource.plural, &request.name)
}

/// A store error that is no lost race, as the client sees it.
pub fn store_error(error: Error) -> Status {
    match error {
        Error::Gone { wanted, oldest } => Status::expired(format!("too old resource version: {wanted} ({oldest})")),
        Error::NotLeader => retry_later("this server does not lead the cluster at the moment; try again"),
        Error::Closed => retry_later("the server is shutting down"),
        Error::DiskFull(why) => Status::new(
            507,
            "InternalError",
            format!("the disk under the data directory is full ({why}): free some space; nothing that was acknowledged is lost"),
        ),
        Error::TooLarge(why) => super::patch::too_large(why),
        Error::Precondition { .. } => Status::internal("a precondition failed that nobody asked for"),
        Error::Failed(why) => Status::internal(why),
    }
}

fn retry_later(why: &str) -> Status {
    let mut status = Status::new(503, "ServiceUnavailable", why);
    status.details = Some(Box::new(coracle_api::status::Details { retry_after_seconds: 1, ..Default::default() }));
    status
}
