//! Webhooks of admission, as objects (`admissionregistration.k8s.io`): whom the server asks about which requests.

use super::{
    age,
    cells::{self, AGE, Heading, NAME, list},
    rules::{
        At, Causes,
        admission::{OPERATIONS, client_config, match_conditions, rule, static_name},
        labels::selector,
    },
    simple::Simple,
};
use crate::admission::policy::environment::Scope;
use coracle_api::names;
use coracle_cel::Env;
use serde_json::Value;
use std::{collections::BTreeSet, sync::LazyLock};

/// `mutatingwebhookconfigurations.admissionregistration.k8s.io`
pub const MUTATING: Simple = Simple::new(HEADINGS, row, |_, new, causes| webhooks(new, true, causes)).warning(static_name);
/// `validatingwebhookconfigurations.admissionregistration.k8s.io`
pub const VALIDATING: Simple = Simple::new(HEADINGS, row, |_, new, causes| webhooks(new, false, causes)).warning(static_name);

const HEADINGS: &[Heading] = &[NAME, ("#Webhooks", "How many webhooks it registers."), AGE];
/// Versions of AdmissionReview that this server speaks.
const VERSIONS: [&str; 2] = ["v1", "v1beta1"];

/// What the match conditions of a webhook may use.
static CONDITIONS: LazyLock<Env> = LazyLock::new(|| Scope::new(false).environment(true));

fn row(configuration: &Value) -> Vec<Value> {
    vec![cells::name(configuration), list(&configuration["webhooks"]).len().into(), age::of(configuration)]
}

fn webhooks(new: &Value, mutating: bool, causes: &mut Causes) {
    let mut seen = BTreeSet::new();
    for hook in At::root(new).field("webhooks").items() {
        webhook(&hook, causes);
        if mutating {
            hook.field("reinvocationPolicy").one_of(causes, &["IfNeeded", "Never"]);
        }
        review_versions(&hook.field("admissionReviewVersions"), causes);
        let name = hook.field("name");
        if !name.is_empty() && !seen.insert(name.text()) {
            name.duplicate(causes);
        }
    }
}

fn webhook(hook: &At<'_, '_>, causes: &mut Causes) {
    let name = hook.field("name");
    if name.required(causes, "") {
        let wrong = names::dns_subdomain(name.text());
        if !wrong.is_empty() {
            name.invalid(causes, &wrong.join(","));
        } else if name.text().split('.').count() < 3 {
            name.invalid(causes, "should be a domain with at least three segments separated by dots");
        }
    }
    for item in hook.field("rules").items() {
        rule(&item, OPERATIONS, causes);
    }
    hook.field("failurePolicy").one_of(causes, &["Fail", "Ignore"]);
    hook.field("matchPolicy").one_of(causes, &["Equivalent", "Exact"]);
    let effects = hook.field("sideEffects");
    match effects.is_set() {
        true => effects.one_of(causes, &["None", "NoneOnDryRun"]),
        false => effects.missing(causes, "must specify one of None, NoneOnDryRun"),
    }
    let timeout = hook.field("timeoutSeconds");
    if timeout.int().is_some_and(|seconds| !(1..=30).contains(&seconds)) {
        timeout.invalid(causes, "the timeout value must be between 1 and 30 seconds");
    }
    selector(&hook.field("namespaceSelector"), causes);
    selector(&hook.field("objectSelector"), causes);
    client_config(&hook.field("clientConfig"), causes);
    match_conditions(&hook.field("matchConditions"), &CONDITIONS, causes);
}

/// Versions of AdmissionReview that the webhook reads, at least one of which is spoken here.
fn review_versions(versions: &At<'_, '_>, causes: &mut Causes) {
    if versions.is_empty() {
        return versions.missing(causes, "must specify one of v1, v1beta1");
    }
    let mut seen = BTreeSet::new();
    for version in versions.items() {
        match seen.insert(version.text()) {
            true => version.syntax(causes, names::dns1035_label),
            false => version.invalid(causes, "duplicate version"),
        }
    }
    if !VERSIONS.iter().any(|version| seen.contains(version)) {
        versions.invalid(causes, "must include at least one of v1, v1beta1");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::rules::lines;
    use serde_json::json;

    fn good() -> Value {
        json!({"webhooks": [{
            "name": "a.example.com", "admissionReviewVersions": ["v1"], "sideEffects": "None",
            "clientConfig": {"service": {"name": "s", "namespace": "n", "port": 443, "path": "/a/b"}},
            "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods", "pods/status"], "scope": "*"}],
            "matchConditions": [{"name": "c", "expression": "true"}],
        }]})
    }

    fn found(object: &Value, mutating: bool) -> Vec<String> {
        let mut causes = Causes::new();
        webhooks(object, mutating, &mut causes);
        lines(&causes)
    }

    #[test]
    fn webhooks_say_whom_to_ask_and_when() {
        assert_eq!(found(&good(), true), Vec::<String>::new());
        let bad = json!({"webhooks": [
            {"name": "a.b", "reinvocationPolicy": "Often", "failurePolicy": "Retry", "sideEffects": "Some", "timeoutSeconds": 31,
                "clientConfig": {"url": "http://u@/x?q#f"}, "admissionReviewVersions": ["v2", "v2"],
                "rules": [{"operations": ["*", "GET"], "apiGroups": ["*", "a"], "apiVersions": [""], "resources": ["pods/*", "pods/x", "*/x", "y/x", "*", "z"]}],
                "matchConditions": [{"name": "c"}, {"name": "c", "expression": "1"}]},
            {"name": "a.b", "clientConfig": {"service": {"path": "a//B"}}},
        ]});
        assert_eq!(
            found(&bad, true),
            [
                "webhooks[0].name: Invalid value: \"a.b\": should be a domain with at least three segments separated by dots",
                "webhooks[0].rules[0].operations: Invalid value: [\"*\",\"GET\"]: if '*' is present, must not specify other operations",
                "webhooks[0].rules[0].operations[1]: Unsupported value: \"GET\": supported values: \"*\", \"CONNECT\", \"CREATE\", \"DELETE\", \"UPDATE\"",
                "webhooks[0].rules[0].apiGroups: Invalid value: [\"*\",\"a\"]: if '*' is present, must not specify other API groups",
                "webhooks[0].rules[0].apiVersions[0]: Required value",
                "webhooks[0].rules[0].resources[1]: Invalid value: \"pods/x\": if 'pods/*' is present, must not specify pods/x",
                "webhooks[0].rules[0].resources[3]: Invalid value: \"y/x\": if '*/x' is present, must not specify y/x",
                "webhooks[0].rules[0].resources: Invalid value: [\"pods/*\",\"pods/x\",\"*/x\",\"y/x\",\"*\",\"z\"]: if '*' is present, must not specify other resources without subresources",
                "webhooks[0].failurePolicy: Unsupported value: \"Retry\": supported values: \"Fail\", \"Ignore\"",
                "webhooks[0].sideEffects: Unsupported value: \"Some\": supported values: \"None\", \"NoneOnDryRun\"",
                "webhooks[0].timeoutSeconds: Invalid value: 31: the timeout value must be between 1 and 30 seconds",
                "webhooks[0].clientConfig.url: Invalid value: \"http\": 'https' is the only allowed URL scheme; desired format: https://host[/path]",
                "webhooks[0].clientConfig.url: Invalid value: \"\": host must be specified; desired format: https://host[/path]",
                "webhooks[0].clientConfig.url: Invalid value: \"u\": user information is not permitted in the URL",
                "webhooks[0].clientConfig.url: Invalid value: \"f\": fragments are not permitted in the URL",
                "webhooks[0].clientConfig.url: Invalid value: \"q\": query parameters are not permitted in the URL",
                "webhooks[0].matchConditions[0].expression: Required value",
                "webhooks[0].matchConditions[1].expression: Invalid value: \"1\": must evaluate to bool but got int",
                "webhooks[0].matchConditions[1].name: Duplicate value: \"c\"",
                "webhooks[0].reinvocationPolicy: Unsupported value: \"Often\": supported values: \"IfNeeded\", \"Never\"",
                "webhooks[0].admissionReviewVersions[1]: Invalid value: \"v2\": duplicate version",
                "webhooks[0].admissionReviewVersions: Invalid value: [\"v2\",\"v2\"]: must include at least one of v1, v1beta1",
                "webhooks[1].name: Invalid value: \"a.b\": should be a domain with at least three segments separated by dots",
                "webhooks[1].sideEffects: Required value: must specify one of None, NoneOnDryRun",
                "webhooks[1].clientConfig.service.name: Required value",
                "webhooks[1].clientConfig.service.namespace: Required value",
                "webhooks[1].clientConfig.service.port: Invalid value: 0: port is not valid: must be between 1 and 65535, inclusive",
                "webhooks[1].clientConfig.service.path: Invalid value: \"a//B\": must start with a '/'",
                "webhooks[1].clientConfig.service.path: Invalid value: \"a//B\": segment[0] may not be empty",
                "webhooks[1].clientConfig.service.path: Invalid value: \"a//B\": segment[1]: a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
                "webhooks[1].admissionReviewVersions: Required value: must specify one of v1, v1beta1",
                "webhooks[1].name: Duplicate value: \"a.b\"",
            ]
        );
        let mut fine = good();
        fine["webhooks"][0]["reinvocationPolicy"] = "Often".into();
        assert_eq!(found(&fine, false), Vec::<String>::new(), "only mutating webhooks are called again");
    }
}
