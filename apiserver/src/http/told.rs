//! What is told about a request besides its answer: its record in the audit log, and the headers that name it.

use super::{
    Call,
    begun::{self, Begun},
    bounded,
    fairness::Judged,
    respond,
    route::Route,
    text,
    upgrade::Kept,
};
use crate::{
    audit::{self, Asked, Log, Record, Stage},
    auth::{Attributes, User},
    pipeline::{Core, Warnings},
};
use axum::body::Body;
use bytes::Bytes;
use coracle_api::status::Status;
use http::{HeaderName, HeaderValue, Response, header, request::Parts};
use serde_json::json;
use std::{
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

/// Largest answer that is kept in the log.
const MAX_KEPT: usize = 2 * 1024 * 1024;
/// How long one that another server is still writing is waited for, to be kept.
const PATIENCE: Duration = Duration::from_secs(10);
const SCHEMA: HeaderName = HeaderName::from_static("x-kubernetes-pf-flowschema-uid");
const LEVEL: HeaderName = HeaderName::from_static("x-kubernetes-pf-prioritylevel-uid");

/// A body that keeps something for as long as it lasts.
struct Holding<T>(Body, #[allow(dead_code, reason = "held for its end")] T);

impl<T: Unpin> http_body::Body for Holding<T> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<http_body::Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.0).poll_frame(cx)
    }
    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }
    fn size_hint(&self) -> http_body::SizeHint {
        self.0.size_hint()
    }
}

/// The same answer, holding something until its body ends, or the connection that it upgrades.
pub(super) fn hold<T: Unpin + Send + 'static>(answer: Response<Body>, what: T) -> Response<Body> {
    if let Some(upgraded) = answer.extensions().get::<Kept>() {
        upgraded.keep(what);
        return answer;
    }
    answer.map(|body| Body::new(Holding(body, what)))
}

/// See the module.
pub(super) struct Told {
    log: Option<Log>,
    asked: Asked,
    record: Option<Arc<Record>>,
    judged: Judged,
    warnings: Warnings,
}

fn asked(id: String, uri: String, from: Vec<String>, agent: &str) -> Asked {
    Asked { id, uri, from, agent: agent.to_owned(), ..Asked::default() }
}

impl Asked {
    fn about(&mut self, a: &Attributes<'_>, path: &str) {
        let texts = [
            (&mut self.verb, a.verb),
            (&mut self.group, a.group),
            (&mut self.version, a.version),
            (&mut self.resource, a.resource),
            (&mut self.subresource, a.subresource),
            (&mut self.namespace, a.namespace),
            (&mut self.name, a.name),
            (&mut self.path, path),
        ];
        texts.into_iter().for_each(|(to, text)| text.clone_into(to));
    }
}

impl Told {
    pub(super) fn new(core: &Core, parts: &Parts, from: SocketAddr) -> Self {
        let id = audit::id(&parts.headers);
        let log = core.audit.clone();
        let asked = match &log {
            None => asked(id, String::new(), Vec::new(), ""),
            Some(_) => {
                let said = text(&parts.headers, HeaderName::from_static("x-forwarded-for")).unwrap_or_default().split(',').map(str::trim);
                let mut ips: Vec<String> = said.filter(|ip| ip.parse::<std::net::IpAddr>().is_ok()).map(str::to_owned).collect();
                ips.push(from.ip().to_string());
                asked(
                    id,
                    parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
                    ips,
                    text(&parts.headers, header::USER_AGENT).unwrap_or_default(),
                )
            }
        };
        Self { log, asked, record: None, judged: Judged::default(), warnings: Warnings::default() }
    }

    /// Who asks for what is known: the record begins.
    pub(super) fn begin(&mut self, user: &User, a: &Attributes<'_>) {
        let Some(log) = &self.log else { return };
        let path = self.asked.uri.split('?').next().unwrap_or_default().to_owned();
        self.asked.about(a, &path);
        self.record = log.begin(user, self.asked.clone());
    }

    /// Serves within the record.
    pub(super) async fn within<F: Future>(&self, work: F) -> F::Output {
        match &self.log {
            Some(_) => audit::within(self.record.clone(), work).await,
            None => work.await,
        }
    }

    /// What was sent.
    pub(super) fn request(&self, body: &[u8]) {
        if let Some(record) = self.record.as_ref().filter(|record| record.wants_request()) {
            record.request(body);
        }
    }

    pub(super) fn judged(&mut self, judged: Judged) {
        self.judged = judged;
    }

    /// What came of it.
    pub(super) async fn done(&mut self, answer: Result<Response<Body>, Status>, long: bool) -> Result<Response<Body>, Status> {
        let Some(record) = self.record.take() else { return answer };
        match answer {
            Err(status) => {
                record.stage(Stage::ResponseComplete, Some(status.to_json()));
                Err(status)
            }
            Ok(answer) => Ok(kept(&record, answer, long).await),
        }
    }

    /// What is said to the client besides, by whoever works on the request.
    pub(super) fn warnings(&self) -> Warnings {
        self.warnings.clone()
    }

    /// The headers that name the request and what it was judged by, and the warnings, whatever came of it.
    pub(super) fn headers(&self, answer: &mut Response<Body>) {
        respond::warn(answer, &self.warnings.take());
        let named = [(HeaderName::from_static(audit::AUDIT_ID), self.asked.id.as_str()), (SCHEMA, &self.judged.schema), (LEVEL, &self.judged.level)];
        for (name, value) in named.into_iter().filter(|(_, value)| !value.is_empty()) {
            if let Ok(value) = HeaderValue::from_str(value) {
                answer.headers_mut().insert(name, value);
            }
        }
    }
}

/// Tells of an answer: at once, or for a long one when it begins and when it ends.
async fn kept(record: &Arc<Record>, answer: Response<Body>, long: bool) -> Response<Body> {
    let code = answer.status().as_u16();
    if long {
        record.stage(Stage::ResponseStarted, Some(json!({ "metadata": {}, "code": code })));
        return hold(answer, audit::Until(Arc::clone(record), code));
    }
    if !record.wants_response() || text(answer.headers(), header::CONTENT_TYPE).is_none_or(|kind| !kind.contains("json") && !kind.contains("yaml")) {
        record.complete(code);
        return answer;
    }
    let (parts, body) = answer.into_parts();
    let body = match begun::read(body, MAX_KEPT, PATIENCE).await {
        Begun::Whole(whole) => {
            record.response(&whole);
            Body::from(whole)
        }
        Begun::More(source) => {
            record.annotate("audit.coracle.dev/response-omitted", "too large or too slow".into());
            source.into_body()
        }
    };
    record.complete(code);
    Response::from_parts(parts, body)
}

/// A call of a node on its link, told of in the log like a request.
pub(super) async fn call(core: &Arc<Core>, user: Arc<User>, call: Call<'_>, route: Route, body: Bytes) -> Result<Response<Body>, Status> {
    let Some(log) = &core.audit else { return bounded(core, user, call, route, body).await };
    let uri = if call.raw_query.is_empty() { call.path.to_owned() } else { format!("{}?{}", call.path, call.raw_query) };
    let mut named = asked(audit::id(call.headers), uri, Vec::new(), "");
    named.about(&super::attributes(call, &route), call.path);
    let mut told = Told {
        log: Some(log.clone()),
        record: log.begin(&user, named.clone()),
        asked: named,
        judged: Judged::default(),
        warnings: Warnings::default(),
    };
    told.request(&body);
    let answer = told.within(bounded(core, user, call, route, body)).await;
    told.done(answer, false).await
}
