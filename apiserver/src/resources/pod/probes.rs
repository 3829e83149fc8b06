//! Probes and lifecycle handlers: exactly one handler, and thresholds that make sense.

use crate::resources::rules::{At, Causes, syntax};

/// Probes and lifecycle of a container that runs beside others.
pub fn of_container(container: &At<'_, '_>, grace: Option<i64>, causes: &mut Causes) {
    let lifecycle = container.field("lifecycle");
    for name in ["postStart", "preStop"] {
        let at = lifecycle.field(name);
        if at.is_set() {
            handler(&at, &["exec", "httpGet", "tcpSocket", "sleep"], grace, causes);
        }
    }
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let at = container.field(name);
        if at.is_set() {
            probe(&at, name == "readinessProbe", grace, causes);
        }
    }
}

fn probe(at: &At<'_, '_>, readiness: bool, grace: Option<i64>, causes: &mut Causes) {
    handler(at, &["exec", "httpGet", "tcpSocket", "grpc"], grace, causes);
    for name in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"] {
        at.field(name).non_negative(causes);
    }
    let period = at.field("terminationGracePeriodSeconds");
    period.positive(causes);
    let successes = at.field("successThreshold");
    if readiness {
        if period.is_set() {
            period.invalid(causes, "must not be set for readinessProbes");
        }
    } else if successes.int().is_some_and(|n| n != 1) {
        successes.invalid(causes, "must be 1");
    }
}

fn handler(at: &At<'_, '_>, kinds: &[&str], grace: Option<i64>, causes: &mut Causes) {
    let mut found = false;
    for kind in kinds {
        let action = at.field(kind);
        if !action.is_set() {
            continue;
        }
        if found {
            action.forbidden(causes, "may not specify more than 1 handler type");
            continue;
        }
        found = true;
        match *kind {
            "exec" => drop(action.field("command").required(causes, "")),
            "httpGet" => http(&action, causes),
            "sleep" => sleep(&action, grace, causes),
            "grpc" => action.field("port").port(causes),
            _ => action.field("port").port_or_name(causes),
        }
    }
    if !found {
        at.missing(causes, "must specify a handler type");
    }
}

fn http(action: &At<'_, '_>, causes: &mut Causes) {
    action.field("port").port_or_name(causes);
    action.field("scheme").one_of(causes, &["HTTP", "HTTPS"]);
    let headers = action.field("httpHeaders");
    for header in headers.items() {
        for why in syntax::header_name(header.field("name").text()) {
            headers.invalid_value(causes, header.field("name").text(), &why);
        }
    }
}

fn sleep(action: &At<'_, '_>, grace: Option<i64>, causes: &mut Causes) {
    let seconds = action.field("seconds").int().unwrap_or_default();
    if let Some(grace) = grace.filter(|grace| seconds < 0 || seconds > *grace) {
        action.invalid_value(causes, seconds, &format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::rules::lines;
    use serde_json::json;

    #[test]
    fn one_handler_and_sane_thresholds() {
        let container = json!({
            "livenessProbe": {"exec": {}, "httpGet": {"port": 80}, "successThreshold": 2, "periodSeconds": -1},
            "readinessProbe": {"terminationGracePeriodSeconds": 5},
            "startupProbe": {"httpGet": {"port": "HTTP", "scheme": "FTP", "httpHeaders": [{"name": "a b"}]}},
            "lifecycle": {"preStop": {"sleep": {"seconds": 31}}}});
        let mut causes = Vec::new();
        of_container(&At::root(&container), Some(30), &mut causes);
        assert_eq!(
            lines(&causes),
            [
                "lifecycle.preStop.sleep: Invalid value: 31: must be non-negative and less than terminationGracePeriodSeconds (30)",
                "livenessProbe.exec.command: Required value",
                "livenessProbe.httpGet: Forbidden: may not specify more than 1 handler type",
                "livenessProbe.periodSeconds: Invalid value: -1: must be greater than or equal to 0",
                "livenessProbe.successThreshold: Invalid value: 2: must be 1",
                "readinessProbe: Required value: must specify a handler type",
                "readinessProbe.terminationGracePeriodSeconds: Invalid value: 5: must not be set for readinessProbes",
                "startupProbe.httpGet.port: Invalid value: \"HTTP\": must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",
                "startupProbe.httpGet.port: Invalid value: \"HTTP\": must contain at least one letter (a-z)",
                "startupProbe.httpGet.scheme: Unsupported value: \"FTP\": supported values: \"HTTP\", \"HTTPS\"",
                "startupProbe.httpGet.httpHeaders: Invalid value: \"a b\": a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')",
            ]
        );
    }
}
