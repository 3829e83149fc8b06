//! Ingress and IngressClass.

use super::path_name;
use crate::resources::{
    age,
    cells::{self, AGE, NAME, list, text_or},
    rules::{At, Causes, syntax},
    simple::Simple,
};
use coracle_api::names;
use serde_json::Value;
use std::collections::BTreeSet;

/// `ingresses.networking.k8s.io`
pub const INGRESS: Simple = Simple::new(
    &[
        NAME,
        ("Class", "The class of controllers that serve it."),
        ("Hosts", "The hosts that it routes."),
        ("Address", "Where it is reached."),
        ("Ports", "The ports that it listens on."),
        AGE,
    ],
    row,
    ingress,
)
.with_status(status)
.warning(warnings);

/// The class, by the way before there were classes.
pub const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";

fn row(ingress: &Value) -> Vec<Value> {
    let spec = &ingress["spec"];
    let rules = list(&spec["rules"]);
    let named: Vec<&str> = rules.iter().filter_map(|rule| rule["host"].as_str()).filter(|host| !host.is_empty()).collect();
    // Upstream counts the rules that follow the third host, named or not.
    let mut found = 0;
    let more = rules.iter().any(|rule| {
        let full = found == 3;
        found += usize::from(rule["host"].as_str().is_some_and(|host| !host.is_empty()));
        full
    });
    let hosts = match named.len() {
        0 => "*".to_string(),
        len => named[..len.min(3)].join(",") + &if more { format!(" + {} more...", rules.len() - 3) } else { String::new() },
    };
    let addresses: BTreeSet<&str> = list(&ingress["status"]["loadBalancer"]["ingress"])
        .iter()
        .filter_map(|at| [&at["ip"], &at["hostname"]].into_iter().filter_map(Value::as_str).find(|text| !text.is_empty()))
        .collect();
    vec![
        cells::name(ingress),
        spec["ingressClassName"].as_str().unwrap_or("<none>").into(),
        hosts.into(),
        addresses.into_iter().collect::<Vec<_>>().join(",").into(),
        if list(&spec["tls"]).is_empty() { "80".into() } else { "80, 443".into() },
        age::of(ingress),
    ]
}

fn warnings(ingress: &Value) -> Vec<String> {
    let old_way = ingress["metadata"]["annotations"].get(CLASS_ANNOTATION).is_some() && ingress["spec"]["ingressClassName"].is_null();
    // Only a new one is warned about.
    match old_way && ingress["metadata"]["resourceVersion"].is_null() {
        true => vec![format!("annotation {CLASS_ANNOTATION:?} is deprecated, please use 'spec.ingressClassName' instead")],
        false => Vec::new(),
    }
}

pub(in crate::resources) fn ingress(old: Option<&Value>, new: &Value, causes: &mut Causes) {
    let root = At::root(new);
    let spec = root.field("spec");
    let (backend, rules, class) = (spec.field("defaultBackend"), spec.field("rules"), spec.field("ingressClassName"));
    if rules.is_empty() && !backend.is_set() {
        spec.invalid_value(causes, Value::Null, "either `defaultBackend` or `rules` must be specified");
    }
    if backend.is_set() {
        check_backend(&backend, causes);
    }
    for rule in rules.items() {
        check_rule(&rule, causes);
    }
    for tls in spec.field("tls").items() {
        for host in tls.field("hosts").items() {
            host.syntax(causes, if host.text().contains('*') { syntax::wildcard_domain } else { names::dns_subdomain });
        }
        tls.field("secretName").optional_syntax(causes, names::dns_subdomain);
    }
    if class.is_set() {
        class.syntax(causes, names::dns_subdomain);
    }
    let annotation = &new["metadata"]["annotations"][CLASS_ANNOTATION];
    if old.is_none() && annotation.is_string() && class.is_set() && annotation != class.value {
        let annotations = root.field("annotations");
        let at = annotations.field(CLASS_ANNOTATION);
        at.with(annotation).invalid(causes, "must match `ingressClassName` when both are specified");
    }
}

fn check_rule(rule: &At<'_, '_>, causes: &mut Causes) {
    let host = rule.field("host");
    if !host.is_empty() {
        if host.text().parse::<std::net::IpAddr>().is_ok() {
            host.invalid(causes, "must be a DNS name, not an IP address");
        }
        host.syntax(causes, if host.text().contains('*') { syntax::wildcard_domain } else { names::dns_subdomain });
    }
    let http = rule.field("http");
    if http.is_set() {
        let paths = http.field("paths");
        paths.required(causes, "");
        for path in paths.items() {
            check_path(&path, causes);
        }
    }
}

fn check_path(at: &At<'_, '_>, causes: &mut Causes) {
    let (kind, path) = (at.field("pathType"), at.field("path"));
    if !kind.is_set() {
        kind.missing(causes, "pathType must be specified");
        return;
    }
    let text = path.text();
    match kind.text() {
        "Exact" | "Prefix" => {
            if !text.starts_with('/') {
                path.invalid_value(causes, text, "must be an absolute path");
            }
            for sequence in ["//", "/./", "/../", "%2f", "%2F"].iter().filter(|sequence| text.contains(**sequence)) {
                path.invalid(causes, &format!("must not contain '{sequence}'"));
            }
            for end in ["/..", "/."].iter().filter(|end| text.ends_with(**end)) {
                path.invalid(causes, &format!("cannot end with '{end}'"));
            }
        }
        "ImplementationSpecific" => {
            if !text.is_empty() && !text.starts_with('/') {
                path.invalid(causes, "must be an absolute path");
            }
        }
        _ => kind.unsupported(causes, &["Exact", "ImplementationSpecific", "Prefix"]),
    }
    check_backend(&at.field("backend"), causes);
}

fn check_backend(at: &At<'_, '_>, causes: &mut Causes) {
    let (resource, service) = (at.field("resource"), at.field("service"));
    match (resource.is_set(), service.is_set()) {
        (true, true) => at.invalid_value(causes, "", "cannot set both resource and service backends"),
        (true, false) => {
            let group = resource.field("apiGroup");
            if group.is_set() {
                group.syntax(causes, names::dns_subdomain);
            }
            path_name(&resource.field("kind"), causes);
            path_name(&resource.field("name"), causes);
        }
        (false, true) => {
            let (name, port) = (service.field("name"), service.field("port"));
            if name.required(causes, "") {
                name.syntax(causes, names::dns_label);
            }
            let (port_name, number) = (port.field("name"), port.field("number"));
            match (!port_name.is_empty(), number.int().unwrap_or_default() != 0) {
                (true, true) => at.invalid_value(causes, "", "cannot set both port name & port number"),
                (true, false) => port_name.syntax(causes, syntax::port_name),
                (false, true) => number.port(causes),
                (false, false) => at.missing(causes, "port name or number is required"),
            }
        }
        (false, false) => at.invalid_value(causes, "", "resource or service backend is required"),
    }
}

fn status(old: Option<&Value>, new: &Value, causes: &mut Causes) {
    let root = At::root(new);
    let status = root.field("status");
    let balancer = status.field("loadBalancer");
    let before = old.map_or(&Value::Null, |old| &old["status"]["loadBalancer"]["ingress"]);
    for at in balancer.field("ingress").items() {
        reached_at(&at, before, causes);
    }
}

/// One address or name of a load balancer; addresses that were there before are left alone.
pub fn reached_at(at: &At<'_, '_>, before: &Value, causes: &mut Causes) {
    let (ip, host) = (at.field("ip"), at.field("hostname"));
    if !list(before).iter().any(|old| &old["ip"] == ip.value) {
        ip.optional_syntax(causes, syntax::ip);
    }
    host.optional_syntax(causes, names::dns_subdomain);
    if host.text().parse::<std::net::IpAddr>().is_ok() {
        host.invalid(causes, "must be a DNS name, not an IP address");
    }
}

/// `ingressclasses.networking.k8s.io`
pub const INGRESS_CLASS: Simple = Simple::new(
    &[NAME, ("Controller", "The controller that serves the class."), ("Parameters", "An object with more configuration."), AGE],
    class_row,
    class,
);

/// Marks the class of ingresses that name none.
pub const DEFAULT_CLASS: &str = "ingressclass.kubernetes.io/is-default-class";

fn class_row(class: &Value) -> Vec<Value> {
    let (name, spec) = (text_or(&class["metadata"]["name"], ""), &class["spec"]);
    let default = class["metadata"]["annotations"][DEFAULT_CLASS] == "true";
    let parameters = &spec["parameters"];
    let parameters = match (parameters.is_object(), parameters["apiGroup"].as_str()) {
        (false, _) => "<none>".to_string(),
        (true, Some(group)) => format!("{}.{group}/{}", text_or(&parameters["kind"], ""), text_or(&parameters["name"], "")),
        (true, None) => format!("{}/{}", text_or(&parameters["kind"], ""), text_or(&parameters["name"], "")),
    };
    vec![
        if default { format!("{name} (default)").into() } else { name.into() },
        text_or(&spec["controller"], "").into(),
        parameters.into(),
        age::of(class),
    ]
}

pub(in crate::resources) fn class(old: Option<&Value>, new: &Value, causes: &mut Causes) {
    let root = At::root(new);
    let spec = root.field("spec");
    let controller = spec.field("controller");
    if let Some(old) = old {
        controller.immutable(causes, &old["spec"]["controller"]);
    }
    if controller.len() > 250 {
        controller.too_long(causes, 250);
    }
    if controller.required(causes, "") {
        syntax::domain_path(&controller, causes);
    }
    let parameters = spec.field("parameters");
    if !parameters.is_set() {
        return;
    }
    let group = parameters.field("apiGroup");
    if group.is_set() {
        group.syntax(causes, names::dns_subdomain);
    }
    path_name(&parameters.field("kind"), causes);
    path_name(&parameters.field("name"), causes);
    let (scope, namespace) = (parameters.field("scope"), parameters.field("namespace"));
    match scope.value.as_str() {
        None => scope.missing(causes, ""),
        Some("Namespace") if !namespace.is_set() => namespace.missing(causes, "`parameters.scope` is set to 'Namespace'"),
        Some("Namespace") => namespace.syntax(causes, names::dns_label),
        Some("Cluster") if namespace.is_set() => namespace.forbidden(causes, "`parameters.scope` is set to 'Cluster'"),
        Some("Cluster") => {}
        Some(_) => scope.unsupported(causes, &["Cluster", "Namespace"]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::rules::lines;
    use serde_json::json;

    fn wrong(rule: fn(Option<&Value>, &Value, &mut Causes), old: Option<Value>, new: Value) -> Vec<String> {
        let mut causes = Vec::new();
        rule(old.as_ref(), &new, &mut causes);
        lines(&causes)
    }

    fn routed(path: Value) -> Vec<String> {
        wrong(ingress, None, json!({"spec": {"rules": [{"http": {"paths": [path]}}]}}))
    }

    #[test]
    fn ingresses_route_to_something() {
        let service = json!({"service": {"name": "web", "port": {"number": 80}}});
        assert_eq!(routed(json!({"path": "/", "pathType": "Prefix", "backend": service})), Vec::<String>::new());
        assert_eq!(wrong(ingress, None, json!({"spec": {}})), ["spec: Invalid value: null: either `defaultBackend` or `rules` must be specified"]);
        assert_eq!(
            routed(json!({"path": "a//b/.", "pathType": "Exact", "backend": {}})),
            [
                "spec.rules[0].http.paths[0].path: Invalid value: \"a//b/.\": must be an absolute path",
                "spec.rules[0].http.paths[0].path: Invalid value: \"a//b/.\": must not contain '//'",
                "spec.rules[0].http.paths[0].path: Invalid value: \"a//b/.\": cannot end with '/.'",
                "spec.rules[0].http.paths[0].backend: Invalid value: \"\": resource or service backend is required",
            ]
        );
        assert_eq!(
            routed(json!({"pathType": "x", "backend": {"service": {"name": "web"}}})),
            [
                "spec.rules[0].http.paths[0].pathType: Unsupported value: \"x\": supported values: \"Exact\", \"ImplementationSpecific\", \"Prefix\"",
                "spec.rules[0].http.paths[0].backend: Required value: port name or number is required",
            ]
        );
        let hosts = json!({"spec": {"defaultBackend": service, "rules": [{"host": "10.0.0.1"}, {"host": "*.a.com"}, {"host": "a.*.com"}]},
            "metadata": {"annotations": {CLASS_ANNOTATION: "x"}}});
        let mut named = hosts.clone();
        named["spec"]["ingressClassName"] = "y".into();
        let causes = wrong(ingress, None, named.clone());
        assert_eq!(causes[0], "spec.rules[0].host: Invalid value: \"10.0.0.1\": must be a DNS name, not an IP address");
        assert!(
            causes[1].starts_with("spec.rules[2].host: Invalid value: \"a.*.com\": a wildcard DNS-1123 subdomain must start with '*.'"),
            "{causes:?}"
        );
        assert_eq!(causes[2], "annotations.kubernetes.io/ingress.class: Invalid value: \"x\": must match `ingressClassName` when both are specified");
        assert_eq!(wrong(ingress, Some(named.clone()), named).len(), 2, "not of one that is there");
        assert_eq!(warnings(&hosts), ["annotation \"kubernetes.io/ingress.class\" is deprecated, please use 'spec.ingressClassName' instead"]);
    }

    #[test]
    fn statuses_hold_addresses_and_names() {
        assert_eq!(
            wrong(status, None, json!({"status": {"loadBalancer": {"ingress": [{"ip": "10.0.0.1"}, {"ip": "x"}, {"hostname": "10.0.0.1"}]}}})),
            [
                "status.loadBalancer.ingress[1].ip: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
                "status.loadBalancer.ingress[2].hostname: Invalid value: \"10.0.0.1\": must be a DNS name, not an IP address",
            ]
        );
    }

    #[test]
    fn classes_name_their_controller() {
        let good = json!({"spec": {"controller": "example.com/c", "parameters": {"kind": "K", "name": "n", "scope": "Cluster"}}});
        assert_eq!(wrong(class, None, good.clone()), Vec::<String>::new());
        let mut other = good.clone();
        other["spec"]["controller"] = "x".into();
        assert_eq!(
            wrong(class, Some(good), other),
            [
                "spec.controller: Invalid value: \"x\": field is immutable",
                "spec.controller: Invalid value: \"x\": must be a domain-prefixed path (such as \"acme.io/foo\")"
            ]
        );
        assert_eq!(
            wrong(class, None, json!({"spec": {"controller": "e.com/c", "parameters": {"scope": "Namespace"}}})),
            [
                "spec.parameters.kind: Required value",
                "spec.parameters.name: Required value",
                "spec.parameters.namespace: Required value: `parameters.scope` is set to 'Namespace'"
            ]
        );
    }

    #[test]
    fn rows_read_as_kubectl_prints_them() {
        let ingress = json!({"metadata": {"name": "i"}, "spec": {"ingressClassName": "c", "tls": [{}],
            "rules": [{"host": "a"}, {"host": "b"}, {"host": "c"}, {"host": "d"}, {}]}, "status": {"loadBalancer": {"ingress": [{"ip": "1.2.3.4"}]}}});
        assert_eq!(cells::golden(&row(&ingress), "2026-01-02T03:04:05Z"), "i | c | a,b,c + 2 more... | 1.2.3.4 | 80, 443 | <unknown>");
        assert_eq!(cells::golden(&row(&json!({"metadata": {"name": "i"}})), "2026-01-02T03:04:05Z"), "i | <none> | * |  | 80 | <unknown>");
        let class = json!({"metadata": {"name": "c", "annotations": {DEFAULT_CLASS: "true"}}, "spec": {"controller": "e.com/c",
            "parameters": {"apiGroup": "g", "kind": "K", "name": "n"}}});
        assert_eq!(cells::golden(&class_row(&class), "2026-01-02T03:04:05Z"), "c (default) | e.com/c | K.g/n | <unknown>");
    }
}
