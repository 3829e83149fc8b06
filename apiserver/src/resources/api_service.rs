//! APIService: who serves a group version. The rules, the table, and the status that only its own subresource writes.

use super::{
    Cx, Hooks, age,
    cells::{self, AGE, Heading, NAME, list, text_or},
    rules::{At, Causes},
};
use crate::aggregation;
use coracle_api::{
    names,
    registry::Column,
    status::{Cause, Status},
};
use serde_json::{Value, json};

/// Hooks of `apiservices.apiregistration.k8s.io`.
pub struct ApiService;

const HEADINGS: &[Heading] = &[NAME, ("Service", "Where the group version is served; Local is this server."), ("Available", "Whether it is."), AGE];

impl Hooks for ApiService {
    fn prepare_create(&self, cx: &Cx<'_>, new: &mut Value) -> Result<(), Status> {
        if new["spec"]["service"].is_null() {
            new["status"] = json!({"conditions": [aggregation::local(&cx.timestamp())]});
        }
        Ok(())
    }
    fn prepare_update(&self, cx: &Cx<'_>, old: &Value, new: &mut Value) -> Result<(), Status> {
        if cx.subresource() == "status" {
            // Its metadata is not the status' business.
            for field in ["labels", "annotations", "finalizers", "ownerReferences"] {
                match &old["metadata"][field] {
                    Value::Null => drop(new["metadata"].as_object_mut().and_then(|metadata| metadata.remove(field))),
                    kept => new["metadata"][field] = kept.clone(),
                }
            }
        }
        Ok(())
    }
    fn validate(&self, cx: &Cx<'_>, _old: Option<&Value>, new: &Value, causes: &mut Vec<Cause>) {
        match cx.subresource() {
            "status" => conditions(new, causes),
            _ => validate(new, causes),
        }
    }
    fn columns(&self) -> Option<Vec<Column>> {
        Some(cells::columns(HEADINGS))
    }
    fn cells(&self, object: &Value) -> Vec<Value> {
        row(object)
    }
}

fn row(object: &Value) -> Vec<Value> {
    let service = &object["spec"]["service"];
    let place = match service.is_object() {
        true => format!("{}/{}", text_or(&service["namespace"], ""), text_or(&service["name"], "")),
        false => "Local".into(),
    };
    let available = list(&object["status"]["conditions"]).iter().find(|condition| condition["type"] == "Available");
    let shown = match available {
        None => "Unknown".into(),
        Some(condition) => match (text_or(&condition["status"], ""), text_or(&condition["reason"], "")) {
            (status, reason) if status == "True" || reason.is_empty() => status,
            (status, reason) => format!("{status} ({reason})"),
        },
    };
    vec![cells::name(object), place.into(), shown.into(), age::of(object)]
}

fn conditions(new: &Value, causes: &mut Causes) {
    let root = At::root(new);
    let status = root.field("status");
    for condition in status.field("conditions").items() {
        let status = condition.field("status");
        if !matches!(status.text(), "True" | "False" | "Unknown") {
            status.unsupported(causes, &["False", "True", "Unknown"]);
        }
    }
}

pub(super) fn validate(new: &Value, causes: &mut Causes) {
    let root = At::root(new);
    let (spec, metadata) = (root.field("spec"), root.field("metadata"));
    let (group, version, name) = (spec.field("group"), spec.field("version"), metadata.field("name"));
    let required = format!("{}.{}", version.text(), group.text());
    if name.text() != required {
        name.invalid(causes, &format!("must be `spec.version+\".\"+spec.group`: {}", names::quote(&required)));
    }
    if group.is_empty() && version.text() != "v1" {
        group.missing(causes, "only v1 may have an empty group and it better be legacy kube");
    }
    group.optional_syntax(causes, names::dns_subdomain);
    version.syntax(causes, names::dns1035_label);
    for (field, most) in [("groupPriorityMinimum", 20_000), ("versionPriority", 1000)] {
        let at = spec.field(field);
        if !(1..=most).contains(&at.int().unwrap_or(0)) {
            at.invalid_value(causes, at.int().unwrap_or(0), &format!("must be positive and less than {most}"));
        }
    }
    let (service, bundle, insecure) = (spec.field("service"), spec.field("caBundle"), spec.field("insecureSkipTLSVerify"));
    if !service.is_set() {
        if !bundle.is_empty() {
            bundle.invalid_value(causes, format!("{} bytes", bundle.len() / 4 * 3), "local APIServices may not have a caBundle");
        }
        if insecure.is_true() {
            insecure.invalid(causes, "local APIServices may not have insecureSkipTLSVerify");
        }
        return;
    }
    service.field("namespace").required(causes, "");
    service.field("name").required(causes, "");
    let port = service.field("port");
    if !matches!(port.int().unwrap_or(443), 1..=65535) {
        port.invalid(causes, "port is not valid: must be between 1 and 65535, inclusive");
    }
    if insecure.is_true() && !bundle.is_empty() {
        insecure.invalid(causes, "may not be true if caBundle is present");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::rules::lines;

    fn wrong(object: Value) -> Vec<String> {
        let mut causes = Vec::new();
        validate(&object, &mut causes);
        lines(&causes)
    }

    #[test]
    fn rules() {
        let spec = json!({"group": "example.com", "version": "v1", "groupPriorityMinimum": 1, "versionPriority": 1});
        assert_eq!(wrong(json!({"metadata": {"name": "v1.example.com"}, "spec": spec})), Vec::<String>::new());
        assert_eq!(
            wrong(json!({"metadata": {"name": "x"}, "spec": {"version": "v2", "insecureSkipTLSVerify": true, "versionPriority": 1001}})),
            [
                "metadata.name: Invalid value: \"x\": must be `spec.version+\".\"+spec.group`: \"v2.\"",
                "spec.group: Required value: only v1 may have an empty group and it better be legacy kube",
                "spec.groupPriorityMinimum: Invalid value: 0: must be positive and less than 20000",
                "spec.versionPriority: Invalid value: 1001: must be positive and less than 1000",
                "spec.insecureSkipTLSVerify: Invalid value: true: local APIServices may not have insecureSkipTLSVerify",
            ]
        );
        let remote = json!({"group": "a.b", "version": "v1", "groupPriorityMinimum": 1, "versionPriority": 1, "caBundle": "YQ==",
            "insecureSkipTLSVerify": true, "service": {"port": 70_000}});
        assert_eq!(
            wrong(json!({"metadata": {"name": "v1.a.b"}, "spec": remote})),
            [
                "spec.service.namespace: Required value",
                "spec.service.name: Required value",
                "spec.service.port: Invalid value: 70000: port is not valid: must be between 1 and 65535, inclusive",
                "spec.insecureSkipTLSVerify: Invalid value: true: may not be true if caBundle is present",
            ]
        );
    }

    #[test]
    fn rows_say_where_and_whether() {
        let shown = |object: Value| cells::golden(&row(&object), "2026-01-02T03:04:05Z");
        let condition = |status: &str, reason: &str| json!({"conditions": [{"type": "Available", "status": status, "reason": reason}]});
        assert_eq!(shown(json!({"metadata": {"name": "v1."}, "status": condition("True", "Local")})), "v1. | Local | True | <unknown>");
        let remote = json!({"metadata": {"name": "v1.a"}, "spec": {"service": {"namespace": "n", "name": "s"}}, "status": condition("False", "MissingEndpoints")});
        assert_eq!(shown(remote), "v1.a | n/s | False (MissingEndpoints) | <unknown>");
        assert_eq!(shown(json!({})), "null | Local | Unknown | <unknown>");
    }
}
