//! Paths: what can be done with each resource, and with which parameters.

use super::components::Components;
use super::{Dialect, member};
use coracle_api::registry::{Resource, ResourceRef, Subresource};
use serde_json::{Map, Value, json};

/// Query parameters: name, type, what it is for.
type Parameter = (&'static str, &'static str, &'static str);

const PRETTY: Parameter = ("pretty", "string", "Indent the answer for people: 'true' or 'false'.");
const DRY_RUN: Parameter = ("dryRun", "string", "'All' runs every check and changes nothing.");
const FIELD_MANAGER: Parameter = ("fieldManager", "string", "Name of the program or person that makes the change.");
const FIELD_VALIDATION: Parameter =
    ("fieldValidation", "string", "What to do about unknown and duplicate fields: 'Ignore', 'Warn' (the default) or 'Strict'.");
const FORCE: Parameter = ("force", "boolean", "Apply only: take over fields that others own.");
const WRITE: &[Parameter] = &[DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION];
const PATCH: &[Parameter] = &[DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION, FORCE];
const DELETE: &[Parameter] = &[
    DRY_RUN,
    ("gracePeriodSeconds", "integer", "Seconds until the object is gone; 0 is at once. Left out, the kind's default counts."),
    ("orphanDependents", "boolean", "Deprecated: use propagationPolicy."),
    ("propagationPolicy", "string", "What becomes of the objects it owns: 'Orphan', 'Background' or 'Foreground'."),
];
const SELECT: &[Parameter] = &[
    ("continue", "string", "The token of the previous page."),
    ("fieldSelector", "string", "Only objects whose fields match."),
    ("labelSelector", "string", "Only objects whose labels match."),
    ("limit", "integer", "At most so many objects; the answer then holds a token to continue with."),
    ("resourceVersion", "string", "The state of the cluster to answer from; see the API concepts of Kubernetes."),
    ("resourceVersionMatch", "string", "How resourceVersion counts for lists: 'Exact' or 'NotOlderThan'."),
    ("sendInitialEvents", "boolean", "Begin a watch with the objects that exist."),
    ("timeoutSeconds", "integer", "End a list or watch after so many seconds."),
];
const WATCH: &[Parameter] = &[
    ("allowWatchBookmarks", "boolean", "Send bookmarks now and then, from which a watch can go on."),
    ("watch", "boolean", "Send changes as they happen instead of the list."),
];
const LOG: &[Parameter] = &[
    ("container", "string", "The container; needed where the pod has several."),
    ("follow", "boolean", "Go on with what is written later."),
    ("limitBytes", "integer", "End after so many bytes."),
    ("previous", "boolean", "The log of the container's previous run."),
    ("sinceSeconds", "integer", "Only lines of the last so many seconds."),
    ("sinceTime", "string", "Only lines written since, as an RFC 3339 time."),
    ("stream", "string", "'All', 'Stdout' or 'Stderr'."),
    ("tailLines", "integer", "Only the last so many lines."),
    ("timestamps", "boolean", "Begin each line with its time."),
];
const EXEC: &[Parameter] = &[
    ("command", "string", "The program and its arguments, one parameter each."),
    ("container", "string", "The container; needed where the pod has several."),
    ("stderr", "boolean", "Send standard error."),
    ("stdin", "boolean", "Read standard input."),
    ("stdout", "boolean", "Send standard output."),
    ("tty", "boolean", "Give the program a terminal."),
];
const PORTS: &[Parameter] = &[("ports", "integer", "Ports to forward; needed with WebSockets.")];
const PATH: &[Parameter] = &[("path", "string", "The path to ask of the target.")];

/// Writes the paths of resources as members of an object, and refers to what they need in `components`.
pub(super) fn write<'a>(resources: impl Iterator<Item = &'a ResourceRef>, components: &mut Components<'_>, out: &mut Vec<u8>) {
    let mut first = true;
    for resource in resources {
        let mut writer = Writer { resource, components, out: &mut *out, first: &mut first };
        writer.collection();
        writer.item();
        for subresource in &resource.subresources {
            writer.subresource(subresource);
        }
    }
}

struct Writer<'w, 'c> {
    resource: &'w Resource,
    components: &'w mut Components<'c>,
    out: &'w mut Vec<u8>,
    first: &'w mut bool,
}

/// One operation on its way into a document.
struct Operation<'a> {
    /// `x-kubernetes-action`.
    action: &'a str,
    /// Verb of the operation id, such as `replace`.
    id: &'a str,
    /// What the id ends with, such as `Scale`.
    suffix: String,
    gvk: (&'a str, &'a str, &'a str),
    parameters: Vec<Parameter>,
    body: Option<Value>,
    /// Media types of the body.
    consumes: &'static [&'static str],
    /// HTTP codes of success.
    codes: &'static [&'static str],
    answer: Value,
    produces: &'static [&'static str],
}

const ANY: &[&str] = &["*/*"];
const JSON: &[&str] = &["application/json", "application/yaml"];
const STREAM: &[&str] = &["application/json", "application/json;stream=watch", "application/yaml"];
const TEXT: &[&str] = &["text/plain"];
const PATCHES: &[&str] = &["application/json-patch+json", "application/merge-patch+json", "application/strategic-merge-patch+json"];

impl Writer<'_, '_> {
    fn base(&self) -> String {
        let r = self.resource;
        if r.group.is_empty() { format!("/api/{}", r.version) } else { format!("/apis/{}/{}", r.group, r.version) }
    }

    fn object(&mut self) -> Value {
        self.components.object_of(self.resource)
    }

    fn meta(&mut self, kind: &str) -> Value {
        self.components.kind("", "v1", kind)
    }

    fn collection(&mut self) {
        let r = self.resource;
        let gvk = (&*r.group, &*r.version, &*r.kind);
        let mut item = Map::new();
        let list = r.serves("list").then(|| {
            let list = self.components.list_of(r);
            Operation {
                action: "list",
                id: "list",
                suffix: String::new(),
                gvk,
                parameters: [SELECT, WATCH].concat(),
                body: None,
                consumes: ANY,
                codes: &["200"],
                answer: list,
                produces: STREAM,
            }
        });
        if let Some(list) = &list {
            item.insert("get".into(), self.operation(list, r.namespaced()));
        }
        if r.serves("create") {
            let object = self.object();
            let create = Operation {
                action: "post",
                id: "create",
                suffix: String::new(),
                gvk,
                parameters: WRITE.to_vec(),
                body: Some(object.clone()),
                consumes: ANY,
                codes: &["200", "201", "202"],
                answer: object,
                produces: JSON,
            };
            item.insert("post".into(), self.operation(&create, r.namespaced()));
        }
        if r.serves("deletecollection") {
            let delete = Operation {
                action: "deletecollection",
                id: "deleteCollection",
                suffix: String::new(),
                gvk,
                parameters: [DELETE, SELECT].concat(),
                body: Some(self.meta("DeleteOptions")),
                consumes: ANY,
                codes: &["200"],
                answer: self.meta("Status"),
                produces: JSON,
            };
            item.insert("delete".into(), self.operation(&delete, r.namespaced()));
        }
        let base = self.base();
        if r.namespaced() {
            self.path(&format!("{base}/namespaces/{{namespace}}/{}", r.plural), item, &["namespace"]);
            if let Some(mut list) = list {
                list.suffix = "ForAllNamespaces".into();
                let all = Map::from_iter([("get".to_owned(), self.operation(&list, false))]);
                self.path(&format!("{base}/{}", r.plural), all, &[]);
            }
        } else {
            self.path(&format!("{base}/{}", r.plural), item, &[]);
        }
    }

    fn item(&mut self) {
        let r = self.resource;
        let object = self.object();
        let mut item = self.object_operations(&r.verbs, (&r.group, &r.version, &r.kind), &object, "");
        if r.serves("delete") {
            let delete = Operation {
                action: "delete",
                id: "delete",
                suffix: String::new(),
                gvk: (&r.group, &r.version, &r.kind),
                parameters: DELETE.to_vec(),
                body: Some(self.meta("DeleteOptions")),
                consumes: ANY,
                codes: &["200", "202"],
                answer: self.meta("Status"),
                produces: JSON,
            };
            item.insert("delete".into(), self.operation(&delete, r.namespaced()));
        }
        if !item.is_empty() {
            let path = self.item_path();
            self.path(&path, item, self.item_parameters());
        }
    }

    fn item_path(&self) -> String {
        let namespace = if self.resource.namespaced() { "/namespaces/{namespace}" } else { "" };
        format!("{}{namespace}/{}/{{name}}", self.base(), self.resource.plural)
    }

    fn item_parameters(&self) -> &'static [&'static str] {
        if self.resource.namespaced() { &["name", "namespace"] } else { &["name"] }
    }

    /// Get, update and patch of an object or of a subresource that looks like one.
    fn object_operations(&mut self, verbs: &[Box<str>], gvk: (&str, &str, &str), object: &Value, suffix: &str) -> Map<String, Value> {
        let namespaced = self.resource.namespaced();
        // A custom kind has no merge strategies.
        let patches = if self.resource.custom.is_some() { PATCHES.get(..2).unwrap_or_default() } else { PATCHES };
        let mut item = Map::new();
        let make = |action, id, parameters: &[Parameter], body, consumes, codes| Operation {
            action,
            id,
            suffix: suffix.to_owned(),
            gvk,
            parameters: parameters.to_vec(),
            body,
            consumes,
            codes,
            answer: object.clone(),
            produces: JSON,
        };
        for verb in verbs {
            let (method, operation) = match &**verb {
                "get" => ("get", make("get", "read", &[], None, ANY, &["200"])),
                "update" => ("put", make("put", "replace", WRITE, Some(object.clone()), ANY, &["200", "201"])),
                "patch" => ("patch", make("patch", "patch", PATCH, Some(self.meta("Patch")), patches, &["200", "201"])),
                _ => continue,
            };
            item.insert(method.into(), self.operation(&operation, namespaced));
        }
        item
    }

    fn subresource(&mut self, sub: &Subresource) {
        let r = self.resource;
        let (group, version, kind) = (&*sub.gvk.0, &*sub.gvk.1, &*sub.gvk.2);
        let suffix = capitalised(&sub.name);
        let path = format!("{}/{}", self.item_path(), sub.name);
        let text = json!({ "type": "string" });
        let connect: Option<&[Parameter]> = match &*sub.name {
            "exec" => Some(EXEC),
            "attach" => EXEC.get(1..),
            "portforward" => Some(PORTS),
            "proxy" => Some(PATH),
            _ => None,
        };
        let mut item = Map::new();
        if let Some(parameters) = connect {
            let methods: &[&str] = if &*sub.name == "proxy" { &["delete", "get", "patch", "post", "put"] } else { &["get", "post"] };
            for method in methods {
                let operation = Operation {
                    action: "connect",
                    id: &format!("connect{}", capitalised(method)),
                    suffix: suffix.clone(),
                    gvk: (group, version, kind),
                    parameters: parameters.to_vec(),
                    body: None,
                    consumes: ANY,
                    codes: &["200"],
                    answer: text.clone(),
                    produces: ANY,
                };
                item.insert((*method).into(), self.operation(&operation, r.namespaced()));
            }
        } else if &*sub.name == "log" {
            let operation = Operation {
                action: "get",
                id: "read",
                suffix,
                gvk: (&r.group, &r.version, &r.kind),
                parameters: LOG.to_vec(),
                body: None,
                consumes: ANY,
                codes: &["200"],
                answer: text,
                produces: TEXT,
            };
            item.insert("get".into(), self.operation(&operation, r.namespaced()));
        } else {
            let own = kind == &*r.kind && group == &*r.group;
            let object = if own { self.object() } else { self.components.kind(group, version, kind) };
            item = self.object_operations(&sub.verbs, (group, version, kind), &object, &suffix);
            if sub.verbs.iter().any(|v| &**v == "create") {
                let operation = Operation {
                    action: "post",
                    id: "create",
                    suffix,
                    gvk: (group, version, kind),
                    parameters: WRITE.to_vec(),
                    body: Some(object.clone()),
                    consumes: ANY,
                    codes: &["200", "201", "202"],
                    answer: object,
                    produces: JSON,
                };
                item.insert("post".into(), self.operation(&operation, r.namespaced()));
            }
        }
        self.path(&path, item, self.item_parameters());
    }

    fn operation(&self, operation: &Operation<'_>, namespaced: bool) -> Value {
        let r = self.resource;
        let group = if r.group.is_empty() { "core" } else { r.group.strip_suffix(".k8s.io").unwrap_or(&r.group) };
        let camel: String = group.split(['.', '-']).map(capitalised).collect();
        let scope = if namespaced { "Namespaced" } else { "" };
        // `deleteCollection` names the group in its middle: deleteAppsV1CollectionNamespacedDeployment.
        let (id, middle) = if operation.id == "deleteCollection" { ("delete", "Collection") } else { (operation.id, "") };
        let id = match id.strip_prefix("connect") {
            Some(method) => format!("connect{camel}{}{method}{scope}{}{}", capitalised(&r.version), r.kind, operation.suffix),
            None => format!("{id}{camel}{}{middle}{scope}{}{}", capitalised(&r.version), r.kind, operation.suffix),
        };
        let mut parameters: Vec<Value> = operation.parameters.iter().map(|p| self.parameter(*p)).collect();
        let mut value = json!({
            "operationId": id,
            "tags": [format!("{}{}_{}", &camel.get(..1).unwrap_or_default().to_lowercase(), camel.get(1..).unwrap_or_default(), r.version)],
            "x-kubernetes-action": operation.action,
            "x-kubernetes-group-version-kind": { "group": operation.gvk.0, "version": operation.gvk.1, "kind": operation.gvk.2 },
        });
        let content = |types: &[&str], schema: &Value| -> Value {
            Value::Object(types.iter().map(|t| ((*t).to_owned(), json!({ "schema": schema }))).collect())
        };
        let required = operation.action != "delete" && operation.action != "deletecollection";
        let mut responses = Map::new();
        for code in operation.codes {
            let description = match *code {
                "201" => "Created",
                "202" => "Accepted",
                _ => "OK",
            };
            let response = match self.components.dialect {
                Dialect::V3 => json!({ "description": description, "content": content(operation.produces, &operation.answer) }),
                Dialect::V2 => json!({ "description": description, "schema": operation.answer }),
            };
            responses.insert((*code).into(), response);
        }
        responses.insert("401".into(), json!({ "description": "Unauthorized" }));
        value["responses"] = Value::Object(responses);
        match (self.components.dialect, &operation.body) {
            (Dialect::V3, Some(body)) => {
                value["requestBody"] = json!({ "content": content(operation.consumes, body) });
                if required {
                    value["requestBody"]["required"] = true.into();
                }
            }
            (Dialect::V2, body) => {
                if let Some(body) = body {
                    let mut parameter = json!({ "in": "body", "name": "body", "schema": body });
                    if required {
                        parameter["required"] = true.into();
                    }
                    parameters.push(parameter);
                }
                value["consumes"] = operation.consumes.into();
                value["produces"] = operation.produces.into();
                value["schemes"] = json!(["https"]);
            }
            (Dialect::V3, None) => {}
        }
        if !parameters.is_empty() {
            value["parameters"] = parameters.into();
        }
        value
    }

    fn parameter(&self, (name, kind, description): Parameter) -> Value {
        match self.components.dialect {
            Dialect::V3 => json!({ "in": "query", "name": name, "description": description, "schema": { "type": kind, "uniqueItems": true } }),
            Dialect::V2 => json!({ "in": "query", "name": name, "description": description, "type": kind, "uniqueItems": true }),
        }
    }

    /// Writes one path with its operations and the parameters they share.
    fn path(&mut self, path: &str, mut item: Map<String, Value>, names: &[&str]) {
        if item.is_empty() {
            return;
        }
        let mut parameters: Vec<Value> = Vec::new();
        for name in names {
            let description = if *name == "name" { format!("Name of the {}.", self.resource.kind) } else { "The namespace.".to_owned() };
            parameters.push(match self.components.dialect {
                Dialect::V3 => {
                    json!({ "in": "path", "name": name, "required": true, "description": description, "schema": { "type": "string", "uniqueItems": true } })
                }
                Dialect::V2 => json!({ "in": "path", "name": name, "required": true, "description": description, "type": "string", "uniqueItems": true }),
            });
        }
        parameters.push(self.parameter(PRETTY));
        item.insert("parameters".into(), parameters.into());
        member(self.out, self.first, path, &Value::Object(item));
    }
}

fn capitalised(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}
