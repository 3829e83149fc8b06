//! Rules of a definition's specification (`apiextensions/validation`).
//!
//! Upstream looks at an internal form, in which what all versions have in common stands once, at the top. Its messages name the places of that form: of a definition
//! with one version the schema is `spec.validation`. So do these.

use super::{
    fields::{columns, selectable, subresources},
    schema,
};
use crate::{
    custom::conditions::{Approval, approval_state, is_protected, is_true},
    resources::rules::{At, Causes, quote},
    webhook,
};
use coracle_api::{
    cause::{Mistake, Path},
    names,
    status::Cause,
};
use serde_json::Value;

const APPROVED: &str = "api-approved.kubernetes.io";

/// What a rule may know besides the definition.
#[derive(Clone, Copy, Default)]
pub(super) struct Before<'a> {
    /// The definition before an update.
    pub old: Option<&'a Value>,
}

impl Before<'_> {
    /// Whether a version has the schema it had.
    fn unchanged(self, version: &Value) -> bool {
        let old = self.old.map(|old| crate::resources::cells::list(&old["spec"]["versions"])).unwrap_or_default();
        old.iter().any(|old| old["name"] == version["name"] && old["schema"] == version["schema"])
    }

    fn established(self) -> bool {
        self.old.is_some_and(|old| is_true(&old["status"], "Established"))
    }
}

/// What all versions have alike, by field; None where they differ.
pub(super) struct Common<'v> {
    pub schema: Option<&'v Value>,
    pub subresources: Option<&'v Value>,
    pub columns: Option<&'v Value>,
    pub selectable: Option<&'v Value>,
}

impl<'v> Common<'v> {
    fn of(versions: &'v [Value]) -> Self {
        let common = |field: &str| -> Option<&'v Value> {
            let first = versions.first().map(|version| &version[field])?;
            versions.iter().all(|version| version[field] == *first).then_some(first)
        };
        Self {
            schema: common("schema"),
            subresources: common("subresources"),
            columns: common("additionalPrinterColumns"),
            selectable: common("selectableFields"),
        }
    }
}

fn label(at: &At<'_, '_>, value: &str, causes: &mut Causes) {
    let wrong = names::dns1035_label(value);
    if !wrong.is_empty() {
        at.invalid(causes, &wrong.join(","));
    }
}

/// Everything that can be wrong with a new or changed definition, but for its metadata.
pub(super) fn definition(definition: &Value, before: Before<'_>, causes: &mut Causes) {
    let root = At::root(definition);
    let (metadata, spec, status) = (root.field("metadata"), root.field("spec"), root.field("status"));
    let (group, plural) = (spec.field("group"), spec.field("names"));
    let plural = plural.field("plural");
    let name = metadata.field("name");
    if before.old.is_none() && name.text() != format!("{}.{}", plural.text(), group.text()) {
        name.invalid(causes, r#"must be spec.names.plural+"."+spec.group"#);
    }
    check_spec(&spec, before, causes);
    if let Some(old) = before.old {
        let old = &old["spec"];
        if before.established() {
            spec.field("scope").immutable(causes, &old["scope"]);
            let names = spec.field("names");
            names.field("kind").immutable(causes, &old["names"]["kind"]);
        }
        group.immutable(causes, &old["group"]);
        plural.immutable(causes, &old["names"]["plural"]);
    }
    accepted_names(&status, causes);
    stored_versions(&status.field("storedVersions"), &spec.field("versions"), causes);
    approval(definition, before, causes);
    if spec.field("preserveUnknownFields").is_true() {
        let why = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
        spec.field("preserveUnknownFields").invalid(causes, why);
    }
}

/// The names in a status.
pub(super) fn accepted_names(status: &At<'_, '_>, causes: &mut Causes) {
    check_names(&status.field("acceptedNames"), causes);
}

fn check_spec(spec: &At<'_, '_>, before: Before<'_>, causes: &mut Causes) {
    let group = spec.field("group");
    if group.required(causes, "") {
        let wrong = names::dns_subdomain(group.text());
        if !wrong.is_empty() {
            group.invalid(causes, &wrong.join(","));
        } else if !group.text().contains('.') {
            group.invalid(causes, "should be a domain with at least one dot");
        }
    }
    spec.field("scope").required_one_of(causes, &["Cluster", "Namespaced"]);

    let versions = spec.field("versions");
    let list = versions.value.as_array().map(Vec::as_slice).unwrap_or_default();
    let common = Common::of(list);
    for version in versions.items() {
        let schema = version.field("schema");
        schema.field("openAPIV3Schema").required(causes, "");
    }
    let mut seen: Vec<&str> = Vec::new();
    for version in versions.items() {
        let name = version.field("name");
        label(&name, name.text(), causes);
        check_version(&version, &common, before, causes);
        if !seen.contains(&name.text()) {
            seen.push(name.text());
        }
    }
    if seen.len() != list.len() {
        versions.invalid(causes, "must contain unique version names");
    }
    if list.iter().filter(|version| version["storage"] == true).count() != 1 {
        versions.invalid(causes, "must have exactly one version marked as storage version");
    }
    if let Some(first) = list.first() {
        let place = spec.field("version");
        let place = place.with(&first["name"]);
        label(&place, place.text(), causes);
    }

    let names = spec.field("names");
    for field in ["plural", "singular", "kind", "listKind"] {
        names.field(field).required(causes, "");
    }
    check_names(&names, causes);
    if let Some(shared) = common.schema.filter(|schema| !schema.is_null()) {
        let status = list.iter().any(|version| !version["subresources"]["status"].is_null());
        let place = spec.field("validation");
        let unchanged = list.first().is_some_and(|version| before.unchanged(version));
        schema::validation(&place.with(shared), status, unchanged, causes);
    }
    if let Some(shared) = common.subresources {
        let place = spec.field("subresources");
        subresources(&place.with(shared), causes);
    }
    if let Some(shared) = common.columns {
        let place = spec.field("additionalPrinterColumns");
        columns(&place.with(shared), causes);
    }
    if let Some(shared) = common.selectable.filter(|fields| fields.as_array().is_some_and(|list| !list.is_empty())) {
        let place = spec.field("selectableFields");
        let place = place.with(shared);
        match common.schema.filter(|schema| !schema.is_null()) {
            Some(schema) => selectable(&place, &schema["openAPIV3Schema"], causes),
            None => place.invalid_value(causes, "", "may only be set when validations.schema is included"),
        }
    }
    conversion(&spec.field("conversion"), before, causes);
}

/// What a version does not share with all others.
fn check_version(version: &At<'_, '_>, common: &Common<'_>, before: Before<'_>, causes: &mut Causes) {
    deprecation(version, causes);
    let schema = version.field("schema");
    if common.schema.is_none() && schema.is_set() {
        let subresources = version.field("subresources");
        let status = subresources.field("status").is_set();
        schema::validation(&schema, status, before.unchanged(version.value), causes);
    }
    if common.subresources.is_none() {
        subresources(&version.field("subresources"), causes);
    }
    if common.columns.is_none() {
        columns(&version.field("additionalPrinterColumns"), causes);
    }
    let fields = version.field("selectableFields");
    if common.selectable.is_none() && !fields.is_empty() {
        match common.schema.is_none() && schema.field("openAPIV3Schema").is_set() {
            true => selectable(&fields, &schema.value["openAPIV3Schema"], causes),
            false => fields.invalid_value(causes, "", "may only be set when `version.schema.openAPIV3Schema` is not included"),
        }
    }
}

fn deprecation(version: &At<'_, '_>, causes: &mut Causes) {
    let warning = version.field("deprecationWarning");
    let Some(text) = warning.value.as_str() else { return };
    if !version.field("deprecated").is_true() {
        warning.invalid(causes, "can only be set for deprecated versions");
        return;
    }
    if text.len() > 256 {
        warning.invalid(causes, "must be <= 256 characters long");
    }
    if text.is_empty() {
        warning.invalid(causes, "must not be an empty string");
    }
    if let Some((at, _)) = text.char_indices().find(|(_, c)| c.is_control() || (c.is_whitespace() && *c != ' ')) {
        warning.invalid(causes, &format!("must only contain printable UTF-8 characters; non-printable character found at index {at}"));
    }
}

fn check_names(names: &At<'_, '_>, causes: &mut Causes) {
    for field in ["plural", "singular"] {
        let name = names.field(field);
        if !name.text().is_empty() {
            label(&name, name.text(), causes);
        }
    }
    for field in ["kind", "listKind"] {
        let name = names.field(field);
        let wrong = names::dns1035_label(&name.text().to_lowercase());
        if !name.text().is_empty() && !wrong.is_empty() {
            name.invalid(causes, &format!("may have mixed case, but should otherwise match: {}", wrong.join(",")));
        }
    }
    let short = names.field("shortNames");
    short.items().for_each(|name| label(&name, name.text(), causes));
    let (kind, list) = (names.field("kind"), names.field("listKind"));
    if !kind.text().is_empty() && kind.text() == list.text() {
        list.invalid(causes, "kind and listKind may not be the same");
    }
    let categories = names.field("categories");
    categories.items().for_each(|name| label(&name, name.text(), causes));
}

fn stored_versions(stored: &At<'_, '_>, versions: &At<'_, '_>, causes: &mut Causes) {
    if stored.is_empty() {
        stored.invalid_value(causes, Value::Array(Vec::new()), "must have at least one stored version");
        return;
    }
    let named = |name: &str| stored.items().any(|version| version.text() == name);
    for version in versions.items() {
        let name = version.field("name");
        if version.field("storage").is_true() && !named(name.text()) {
            stored.invalid(causes, &format!("must have the storage version {}", name.text()));
        }
    }
    for version in stored.items() {
        let name = version.text();
        if !versions.items().any(|known| known.field("name").text() == name) {
            version.invalid(causes, &format!("missing from spec.versions; {name} was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in {name} and removes {name} from status.storedVersions"));
        }
    }
}

fn approval(definition: &Value, before: Before<'_>, causes: &mut Causes) {
    let annotation = |definition: &Value| definition["metadata"]["annotations"][APPROVED].as_str().unwrap_or_default().to_owned();
    if !is_protected(definition["spec"]["group"].as_str().unwrap_or_default()) {
        return;
    }
    let said = annotation(definition);
    let (state, why) = approval_state(&said);
    if before.old.is_some_and(|old| approval_state(&annotation(old)).0 == state) {
        return;
    }
    let metadata = Path::Root.field("metadata");
    let annotations = metadata.field("annotations");
    let place = annotations.key(APPROVED);
    match state {
        Approval::Approved | Approval::Bypassed => {}
        Approval::Missing => causes.push(Cause::of(Mistake::Required, place, None, &why)),
        Approval::Invalid => causes.push(Cause::of(Mistake::Invalid, place, Some(&said.into()), &why)),
    }
}

/// `spec.conversion`, whose parts the internal form keeps in other places.
fn conversion(conversion: &At<'_, '_>, before: Before<'_>, causes: &mut Causes) {
    if !conversion.is_set() {
        return;
    }
    let strategy = conversion.field("strategy");
    strategy.required_one_of(causes, &["None", "Webhook"]);
    let webhook = &conversion.value["webhook"];
    let (config, versions) = (conversion.field("webhookClientConfig"), conversion.field("conversionReviewVersions"));
    let (config, versions) = (config.with(&webhook["clientConfig"]), versions.with(&webhook["conversionReviewVersions"]));
    if strategy.text() != "Webhook" {
        if config.is_set() {
            config.forbidden(causes, "should not be set when strategy is not set to Webhook");
        }
        if !versions.is_empty() {
            versions.forbidden(causes, "should not be set when strategy is not set to Webhook");
        }
        return;
    }
    if config.is_set() {
        client_config(&config, before, causes);
    } else {
        config.missing(causes, "required when strategy is set to Webhook");
    }
    if versions.required(causes, "") {
        let mut seen = Vec::new();
        for version in versions.items() {
            if seen.contains(&version.text()) {
                version.invalid(causes, "duplicate version");
                continue;
            }
            seen.push(version.text());
            version.syntax(causes, names::dns1035_label);
        }
        if !seen.iter().any(|version| matches!(*version, "v1" | "v1beta1")) {
            versions.invalid(causes, "must include at least one of v1, v1beta1");
        }
    }
}

fn client_config(config: &At<'_, '_>, before: Before<'_>, causes: &mut Causes) {
    let (url, service) = (config.field("url"), config.field("service"));
    match (url.is_set(), service.is_set()) {
        (true, false) => webhook_url(&url, causes),
        (false, true) => webhook_service(&service, causes),
        _ => config.missing(causes, "exactly one of url or service is required"),
    }
    let bundle = config.field("caBundle");
    let was_bad = before.old.is_some_and(|old| {
        let old = old["spec"]["conversion"]["webhook"]["clientConfig"]["caBundle"].as_str().unwrap_or_default();
        webhook::check_bundle(old).is_err()
    });
    // A definition that is not served yet may be mended later; it is not established before.
    if before.established()
        && !was_bad
        && let Err(why) = webhook::check_bundle(bundle.text())
    {
        bundle.invalid(causes, &why);
    }
}

/// `https://host[:port][/path]` and nothing else.
fn webhook_url(url: &At<'_, '_>, causes: &mut Causes) {
    const FORM: &str = "; desired format: https://host[/path]";
    let text = url.text();
    let (scheme, rest) = text.split_once("://").map_or(("", text), |(scheme, rest)| (scheme, rest));
    if text.contains(char::is_control) || text.contains(' ') {
        url.missing(causes, &format!("url must be a valid URL: parse {}: net/url: invalid control character in URL{FORM}", quote(text)));
        return;
    }
    let scheme = if scheme.is_empty() { text.split_once(':').map_or("", |(scheme, _)| scheme) } else { scheme };
    if !scheme.eq_ignore_ascii_case("https") {
        url.invalid_value(causes, scheme, &format!("'https' is the only allowed URL scheme{FORM}"));
    }
    let authority = if text.contains("://") { rest.split(['/', '?', '#']).next().unwrap_or_default() } else { "" };
    let (user, host) = authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host));
    if host.is_empty() {
        url.invalid_value(causes, "", &format!("host must be specified{FORM}"));
    }
    if let Some(user) = user {
        url.invalid_value(causes, user, "user information is not permitted in the URL");
    }
    let (before_fragment, fragment) = rest.split_once('#').unwrap_or((rest, ""));
    if !fragment.is_empty() {
        url.invalid_value(causes, fragment, "fragments are not permitted in the URL");
    }
    if let Some((_, query)) = before_fragment.split_once('?').filter(|(_, query)| !query.is_empty()) {
        url.invalid_value(causes, query, "query parameters are not permitted in the URL");
    }
}

fn webhook_service(service: &At<'_, '_>, causes: &mut Causes) {
    // Upstream has the two exchanged here.
    for (asked, named) in [("namespace", "name"), ("name", "namespace")] {
        if service.field(asked).text().is_empty() {
            service.field(named).missing(causes, "");
        }
    }
    let port = service.field("port");
    if !matches!(port.int(), Some(1..=65535)) {
        port.invalid_value(causes, port.int().unwrap_or_default(), "port is not valid: must be between 1 and 65535, inclusive");
    }
    let path = service.field("path");
    match path.text() {
        "" | "/" => {}
        "//" => path.invalid(causes, "segment[0] may not be empty"),
        text => {
            if !text.starts_with('/') {
                path.invalid(causes, "must start with a '/'");
            }
            let steps = text.get(1..).unwrap_or_default();
            for (at, step) in steps.strip_suffix('/').unwrap_or(steps).split('/').enumerate() {
                if step.is_empty() {
                    path.invalid(causes, &format!("segment[{at}] may not be empty"));
                    continue;
                }
                for why in names::dns_subdomain(step) {
                    path.invalid(causes, &format!("segment[{at}]: {why}"));
                }
            }
        }
    }
}
