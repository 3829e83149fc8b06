//! The review kinds: questions about identities and rights, answered and never stored.
//!
//! `authentication.k8s.io/v1` TokenReview, SelfSubjectReview; `authorization.k8s.io/v1` SubjectAccessReview,
//! LocalSubjectAccessReview, SelfSubjectAccessReview, SelfSubjectRulesReview.

use super::{Attributes, Auth, Decision, MASTERS, User, rbac::Rule};
use coracle_api::status::{Cause, Status};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct AccessSpec {
    resource_attributes: Option<ResourceAttributes>,
    non_resource_attributes: Option<NonResourceAttributes>,
    user: String,
    groups: Option<Vec<String>>,
    uid: String,
    extra: Option<BTreeMap<String, Vec<String>>>,
}
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ResourceAttributes {
    namespace: String,
    verb: String,
    group: String,
    version: String,
    resource: String,
    subresource: String,
    name: String,
    field_selector: Option<SelectorAttributes>,
    label_selector: Option<SelectorAttributes>,
}
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct SelectorAttributes {
    raw_selector: String,
    requirements: Vec<Requirement>,
}
#[derive(Deserialize, Default)]
#[serde(default)]
struct Requirement {
    key: String,
    operator: String,
    values: Vec<String>,
}

impl SelectorAttributes {
    /// Rules of a selector in a review. Operators that are not known are let through, so that newer clients may ask.
    fn validate(&self, at: &str, causes: &mut Vec<Cause>) {
        let mut wrong = |reason: &str, field: String, message: String| causes.push(Cause { reason: reason.into(), message, field });
        if !self.raw_selector.is_empty() && !self.requirements.is_empty() {
            let message = format!("Invalid value: {:?}: may not specified at the same time as requirements", self.raw_selector);
            wrong("FieldValueInvalid", format!("{at}.rawSelector"), message);
        }
        if self.raw_selector.is_empty() && self.requirements.is_empty() {
            let message = format!("Required value: when {at} is specified, requirements or rawSelector is required");
            wrong("FieldValueRequired", format!("{at}.requirements"), message);
        }
        for (index, requirement) in self.requirements.iter().enumerate() {
            let at = format!("{at}.requirements[{index}]");
            if requirement.key.is_empty() {
                wrong("FieldValueRequired", format!("{at}.key"), "Required value: must be specified".into());
            }
            match requirement.operator.as_str() {
                "In" | "NotIn" if requirement.values.is_empty() => {
                    let message = "Required value: must be specified when `operator` is 'In' or 'NotIn'";
                    wrong("FieldValueRequired", format!("{at}.values"), message.into());
                }
                "Exists" | "DoesNotExist" if !requirement.values.is_empty() => {
                    let message = "Forbidden: may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                    wrong("FieldValueForbidden", format!("{at}.values"), message.into());
                }
                "" => wrong("FieldValueRequired", format!("{at}.operator"), "Required value: must be specified".into()),
                _ => {}
            }
        }
    }

    /// As a list would be asked for it: what holds for one value exactly. The rest narrows further, and is left out.
    fn text(&self) -> String {
        let exact = |requirement: &Requirement| match (requirement.operator.as_str(), requirement.values.as_slice()) {
            ("In", [only]) => Some(format!("{}={only}", requirement.key)),
            _ => None,
        };
        match self.requirements.is_empty() {
            true => self.raw_selector.clone(),
            false => self.requirements.iter().filter_map(exact).collect::<Vec<_>>().join(","),
        }
    }
}
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct NonResourceAttributes {
    path: String,
    verb: String,
}
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct TokenSpec {
    token: String,
    audiences: Option<Vec<String>>,
}

impl Auth {
    /// POST of a review kind; the answer's body. `namespace` is the request's (LocalSubjectAccessReview). `None` when `kind` is no
    /// review.
    ///
    /// # Errors
    /// 400 and 422 for a spec that asks nothing or too much.
    pub fn review(&self, user: &User, kind: &str, namespace: &str, body: &Value) -> Option<Result<Value, Status>> {
        Some(match kind {
            "TokenReview" => self.token_review(body),
            "SelfSubjectReview" => Ok(answer(body, "authentication.k8s.io/v1", kind, json!({"userInfo": info(user)}))),
            "SelfSubjectRulesReview" => self.rules_review(user, body),
            "SelfSubjectAccessReview" => self.access_review(kind, body, Some(user), None),
            "SubjectAccessReview" => self.access_review(kind, body, None, None),
            "LocalSubjectAccessReview" => self.access_review(kind, body, None, Some(namespace)),
            _ => return None,
        })
    }

    fn token_review(&self, body: &Value) -> Result<Value, Status> {
        let spec: TokenSpec = spec(body)?;
        if spec.token.is_empty() {
            return Err(Status::bad_request("token is required for TokenReview in authentication"));
        }
        let status = match self.token_user(&spec.token, spec.audiences.as_deref().unwrap_or_default()) {
            Ok((user, audiences)) => json!({"authenticated": true, "user": info(&user), "audiences": audiences}),
            Err(error) => json!({"user": {}, "error": error.to_string()}),
        };
        Ok(answer(body, "authentication.k8s.io/v1", "TokenReview", status))
    }

    fn access_review(&self, kind: &str, body: &Value, myself: Option<&User>, namespace: Option<&str>) -> Result<Value, Status> {
        let spec: AccessSpec = spec(body)?;
        let bad = |field: &str, message: &str| {
            let cause = Cause { reason: "FieldValueInvalid".into(), message: format!("Invalid value: {message}"), field: field.into() };
            Err(Status::invalid("authorization.k8s.io", kind, "", vec![cause]))
        };
        let other;
        let user = match myself {
            Some(user) => user,
            None if spec.user.is_empty() && spec.groups.as_ref().is_none_or(Vec::is_empty) => {
                return bad("spec.user", "\"\": at least one of user or group must be specified");
            }
            None => {
                let extra = spec.extra.unwrap_or_default().into_iter().collect();
                other = User { name: spec.user, uid: spec.uid, groups: spec.groups.unwrap_or_default(), extra };
                &other
            }
        };
        let decision = match (&spec.resource_attributes, &spec.non_resource_attributes) {
            (Some(r), None) => {
                if namespace.is_some_and(|ns| ns != r.namespace) {
                    return bad("spec.resourceAttributes.namespace", &format!("{:?}: must match metadata.namespace", r.namespace));
                }
                let mut causes = Vec::new();
                for (name, selector) in [("fieldSelector", &r.field_selector), ("labelSelector", &r.label_selector)] {
                    if let Some(selector) = selector {
                        selector.validate(&format!("spec.resourceAttributes.{name}"), &mut causes);
                    }
                }
                if !causes.is_empty() {
                    return Err(Status::invalid("authorization.k8s.io", kind, "", causes));
                }
                let fields = r.field_selector.as_ref().map(SelectorAttributes::text).unwrap_or_default();
                self.authorize(
                    user,
                    &Attributes {
                        verb: &r.verb,
                        group: &r.group,
                        version: &r.version,
                        resource: &r.resource,
                        subresource: &r.subresource,
                        namespace: &r.namespace,
                        name: &r.name,
                        fields: &fields,
                        ..Attributes::default()
                    },
                )
            }
            (None, Some(n)) if namespace.is_none() => self.authorize(user, &Attributes { verb: &n.verb, path: &n.path, ..Attributes::default() }),
            (None, Some(_)) => return bad("spec.nonResourceAttributes", "disallowed on this kind of request"),
            (Some(_), Some(_)) => return bad("spec.nonResourceAttributes", "cannot be specified in combination with resourceAttributes"),
            (None, None) => return bad("spec.resourceAttributes", "exactly one of nonResourceAttributes or resourceAttributes must be specified"),
        };
        let mut status = Map::new();
        status.insert("allowed".into(), decision.allowed().into());
        if let Decision::Allow { reason } = decision
            && !reason.is_empty()
        {
            status.insert("reason".into(), reason.into());
        }
        Ok(answer(body, "authorization.k8s.io/v1", kind, status.into()))
    }

    fn rules_review(&self, user: &User, body: &Value) -> Result<Value, Status> {
        let namespace = body.pointer("/spec/namespace").and_then(Value::as_str).unwrap_or_default();
        if namespace.is_empty() {
            return Err(Status::bad_request("no namespace on request"));
        }
        let index = self.inner.rules.read();
        let masters = User { groups: vec![MASTERS.into()], ..User::default() };
        // `system:masters` has everything even where no binding says so: show it as cluster-admin's rules
        let asked = if user.in_group(MASTERS) { &masters } else { user };
        let (mut resources, mut paths) = (Vec::new(), Vec::new());
        for Rule { verbs, api_groups, resources: names, resource_names, non_resource_urls } in index.rules_for(asked, namespace) {
            if !names.is_empty() {
                let mut rule = json!({"verbs": verbs, "apiGroups": api_groups, "resources": names});
                if !resource_names.is_empty() {
                    rule["resourceNames"] = json!(resource_names);
                }
                resources.push(rule);
            }
            if !non_resource_urls.is_empty() {
                paths.push(json!({"verbs": verbs, "nonResourceURLs": non_resource_urls}));
            }
        }
        let mut status = json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": false});
        if user.node_name().is_some() {
            status["incomplete"] = true.into();
            status["evaluationError"] = "node authorizer does not support user rule resolution".into();
        }
        Ok(answer(body, "authorization.k8s.io/v1", "SelfSubjectRulesReview", status))
    }
}

fn spec<T: for<'de> Deserialize<'de> + Default>(body: &Value) -> Result<T, Status> {
    match body.get("spec") {
        None | Some(Value::Null) => Ok(T::default()),
        Some(spec) => T::deserialize(spec).map_err(|e| Status::bad_request(format!("the review's spec cannot be read: {e}"))),
    }
}

fn answer(body: &Value, api_version: &str, kind: &str, status: Value) -> Value {
    let mut metadata = body.get("metadata").filter(|m| m.is_object()).cloned().unwrap_or_else(|| json!({}));
    if kind == "SelfSubjectReview"
        && let Some(m) = metadata.as_object_mut()
    {
        m.insert("creationTimestamp".into(), jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string().into());
    }
    let mut out = json!({"kind": kind, "apiVersion": api_version, "metadata": metadata, "status": status});
    if let Some(spec) = body.get("spec") {
        out["spec"] = spec.clone();
    }
    out
}

/// `authentication.k8s.io/v1 UserInfo`.
fn info(user: &User) -> Value {
    let mut info = json!({"username": user.name, "groups": user.groups});
    if !user.uid.is_empty() {
        info["uid"] = user.uid.as_str().into();
    }
    if !user.extra.is_empty() {
        info["extra"] = user.extra.iter().map(|(k, v)| (k.clone(), json!(v))).collect::<Map<_, _>>().into();
    }
    info
}
