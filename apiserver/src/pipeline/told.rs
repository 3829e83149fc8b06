//! The audit log's record of a request that did not come over HTTP: of a controller, of the scheduler.

use super::{
    Answer, Body, Core, Request,
    handle::{attributes, code_of},
    managers,
};
use crate::{
    audit::{self, Asked, Log, Record, Stage},
    http::version,
};
use coracle_api::status::Status;
use std::sync::Arc;

/// The path that names what is asked for.
fn path(request: &Request) -> String {
    let row = &request.resource;
    let mut path = if row.group.is_empty() { format!("/api/{}", row.version) } else { format!("/apis/{}/{}", row.group, row.version) };
    let namespace = if row.namespaced() { request.namespace.as_str() } else { "" };
    for (before, part) in [("/namespaces", namespace), ("", &*row.plural), ("", &request.name), ("", &*request.subresource)] {
        if !part.is_empty() {
            path.extend([before, "/", part]);
        }
    }
    path
}

fn begin(log: &Log, request: &Request) -> Option<Arc<Record>> {
    let a = attributes(request);
    let path = path(request);
    let record = log.begin(
        &request.user,
        Asked {
            id: uuid::Uuid::new_v4().to_string(),
            uri: path.clone(),
            path,
            verb: a.verb.into(),
            group: a.group.into(),
            version: a.version.into(),
            resource: a.resource.into(),
            subresource: a.subresource.into(),
            namespace: a.namespace.into(),
            name: a.name.into(),
            from: Vec::new(),
            agent: format!("{}/{}", managers::of_user(&request.user), version()["gitVersion"].as_str().unwrap_or_default()),
        },
    )?;
    match &request.body {
        Body::Object(value) => record.request_value(|| value.clone()),
        Body::Patch { bytes, .. } | Body::Raw { bytes, .. } => record.request_value(|| serde_json::from_slice(bytes).unwrap_or_default()),
        Body::None => {}
    }
    Some(record)
}

fn end(record: &Record, result: &Result<Answer, Status>) {
    match result {
        Err(status) => record.stage(Stage::ResponseComplete, Some(status.to_json())),
        Ok(answer) => {
            if record.wants_response() {
                match answer {
                    Answer::Object { object, .. } => record.response(&object.json),
                    Answer::Value { value, .. } => record.response(value.to_string().as_bytes()),
                    Answer::List(_) | Answer::Watch(_) | Answer::Response(_) => {}
                }
            }
            record.complete(code_of(result));
        }
    }
}

/// Serves a request and tells the log of it.
pub(super) async fn serve(core: &Arc<Core>, log: &Log, request: &Request) -> Result<Answer, Status> {
    let record = begin(log, request);
    let result = audit::within(record.clone(), core.serve(request)).await;
    if let Some(record) = record {
        end(&record, &result);
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::Verb;

    #[test]
    fn requests_have_the_paths_that_clients_ask_for() {
        let rows = coracle_api::registry::builtin();
        let path = |plural: &str, namespace: &str, name: &str, subresource: &str| {
            let row = rows.iter().find(|row| &*row.plural == plural).expect("a row").clone();
            path(&Request {
                user: Default::default(),
                verb: Verb::Get,
                resource: Arc::new(row),
                subresource: subresource.into(),
                namespace: namespace.into(),
                name: name.into(),
                query: Vec::new(),
                write: Default::default(),
                body: Body::None,
                http: None,
                warnings: Default::default(),
            })
        };
        assert_eq!(path("pods", "default", "a", "status"), "/api/v1/namespaces/default/pods/a/status");
        assert_eq!(path("deployments", "default", "", ""), "/apis/apps/v1/namespaces/default/deployments");
        assert_eq!(path("nodes", "", "n", ""), "/api/v1/nodes/n");
    }
}
