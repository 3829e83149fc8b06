//! ComponentStatus: long deprecated, only read, and never stored. Upstream's three components are parts of this one server, so that each is as well as the
//! server is; the store is asked.

use super::{
    Hooks,
    cells::{self, NAME, list, text_or},
};
use crate::pipeline::{
    Answer, Core, Request, Verb, handle,
    list::{Filter, Page},
    object,
};
use async_trait::async_trait;
use coracle_api::{registry::Column, status::Status};
use coracle_store::{Key, Object};
use serde_json::{Value, json};
use std::sync::Arc;

/// Hooks of `componentstatuses`.
pub struct ComponentStatus;

const COMPONENTS: &[&str] = &["controller-manager", "etcd-0", "scheduler"];

#[async_trait]
impl Hooks for ComponentStatus {
    fn columns(&self) -> Option<Vec<Column>> {
        Some(cells::columns(&[NAME, ("Status", "Whether it works."), ("Message", "What it says of itself."), ("Error", "What is wrong with it.")]))
    }
    fn cells(&self, status: &Value) -> Vec<Value> {
        let healthy = list(&status["conditions"]).iter().find(|condition| condition["type"] == "Healthy");
        let text = |field: &str| healthy.map_or_else(String::new, |condition| text_or(&condition[field], ""));
        let word = match healthy.map(|condition| condition["status"] == "True") {
            None => "Unknown",
            Some(true) => "Healthy",
            Some(false) => "Unhealthy",
        };
        vec![cells::name(status), word.into(), text("message").into(), text("error").into()]
    }
    async fn call(&self, core: &Arc<Core>, request: &Request) -> Option<Result<Answer, Status>> {
        let health = core.store.barrier().await.map_err(handle::store_error);
        Some(answer(request, &health))
    }
}

fn answer(request: &Request, health: &Result<(), Status>) -> Result<Answer, Status> {
    match request.verb {
        Verb::Get if COMPONENTS.contains(&request.name.as_str()) => {
            Ok(Answer::Object { object: component(request, &request.name, health), created: false })
        }
        Verb::Get => Err(Status::not_found("", "componentstatus", &request.name)),
        Verb::List => {
            let filter = Filter::of(request)?;
            let items = COMPONENTS.iter().map(|name| component(request, name, health)).filter(|object| filter.matches(object)).collect();
            let page = Page { row: request.resource.clone(), revision: 0, next: String::new(), remaining: None, items };
            Ok(Answer::List(Box::new(page)))
        }
        _ => Err(Status::method_not_allowed()),
    }
}

fn component(request: &Request, name: &str, health: &Result<(), Status>) -> Arc<Object> {
    let condition = match health {
        Ok(()) => json!({"type": "Healthy", "status": "True", "message": "ok"}),
        Err(status) => json!({"type": "Healthy", "status": "False", "error": status.message}),
    };
    let value = json!({"apiVersion": "v1", "kind": "ComponentStatus", "metadata": {"name": name}, "conditions": [condition]});
    Object::from_draft(Key::new("componentstatuses", "", name), &object::draft(&request.resource, &value), 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_api::Registry;

    fn request(verb: Verb, name: &str) -> Request {
        Request {
            user: Default::default(),
            verb,
            resource: Registry::builtin().by_id("componentstatuses").expect("row"),
            subresource: "".into(),
            namespace: String::new(),
            name: name.into(),
            query: vec![("fieldSelector".into(), if verb == Verb::List { "metadata.name!=scheduler".into() } else { String::new() })],
            write: Default::default(),
            body: crate::pipeline::Body::None,
            http: None,
            warnings: Default::default(),
        }
    }

    #[test]
    fn components_are_as_well_as_the_store() {
        let Ok(Answer::List(page)) = answer(&request(Verb::List, ""), &Ok(())) else { panic!("a list") };
        let names: Vec<&str> = page.items.iter().map(|object| &*object.key.name).collect();
        assert_eq!(names, ["controller-manager", "etcd-0"]);
        let ill = Err(Status::internal("no disk"));
        let Ok(Answer::Object { object, .. }) = answer(&request(Verb::Get, "etcd-0"), &ill) else { panic!("an object") };
        let value: Value = serde_json::from_slice(&object.json).expect("JSON");
        assert_eq!(ComponentStatus.cells(&value), ["etcd-0", "Unhealthy", "", "Internal error occurred: no disk"]);
        assert_eq!(answer(&request(Verb::Get, "x"), &Ok(())).err().map(|status| status.code), Some(404));
    }
}
