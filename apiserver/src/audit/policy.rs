//! How much is kept of which request (`audit.k8s.io/v1 Policy`): the first rule that matches decides; what none matches is not kept.

use super::Asked;
use crate::auth::User;
use serde::Deserialize;

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub enum Level {
    /// Nothing.
    None,
    /// Who, what, when, and the outcome.
    Metadata,
    /// And what was sent.
    Request,
    /// And what was answered.
    RequestResponse,
}

impl Level {
    /// `Metadata`, as it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Level::None => "None",
            Level::Metadata => "Metadata",
            Level::Request => "Request",
            Level::RequestResponse => "RequestResponse",
        }
    }
}

/// A moment in the life of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Stage {
    /// It came.
    RequestReceived,
    /// A watch or stream begins.
    ResponseStarted,
    /// It is done.
    ResponseComplete,
    /// It broke the server.
    Panic,
}

impl Stage {
    /// `ResponseComplete`, as it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Stage::RequestReceived => "RequestReceived",
            Stage::ResponseStarted => "ResponseStarted",
            Stage::ResponseComplete => "ResponseComplete",
            Stage::Panic => "Panic",
        }
    }
}

/// See the module.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Policy {
    api_version: String,
    kind: String,
    #[serde(default)]
    #[allow(dead_code, reason = "a policy may have a name")]
    metadata: serde_json::Value,
    #[serde(default)]
    omit_stages: Vec<Stage>,
    #[serde(default)]
    omit_managed_fields: bool,
    #[serde(default)]
    rules: Vec<Rule>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rule {
    level: Level,
    #[serde(default)]
    users: Vec<String>,
    #[serde(default)]
    user_groups: Vec<String>,
    #[serde(default)]
    verbs: Vec<String>,
    #[serde(default)]
    resources: Vec<GroupResources>,
    #[serde(default)]
    namespaces: Vec<String>,
    #[serde(default, rename = "nonResourceURLs")]
    paths: Vec<String>,
    #[serde(default)]
    omit_stages: Vec<Stage>,
    omit_managed_fields: Option<bool>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct GroupResources {
    #[serde(default)]
    group: String,
    #[serde(default)]
    resources: Vec<String>,
    #[serde(default)]
    resource_names: Vec<String>,
}

/// What the policy says of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// How much.
    pub level: Level,
    /// Moments that are not written.
    pub omit: Vec<Stage>,
    /// Whether `metadata.managedFields` is left out of objects.
    pub omit_managed_fields: bool,
}

impl Default for Policy {
    /// Everything at `Metadata`, when it is done.
    fn default() -> Self {
        let all = Rule {
            level: Level::Metadata,
            users: Vec::new(),
            user_groups: Vec::new(),
            verbs: Vec::new(),
            resources: Vec::new(),
            namespaces: Vec::new(),
            paths: Vec::new(),
            omit_stages: vec![Stage::RequestReceived],
            omit_managed_fields: None,
        };
        Self {
            api_version: String::new(),
            kind: String::new(),
            metadata: serde_json::Value::Null,
            omit_stages: Vec::new(),
            omit_managed_fields: false,
            rules: vec![all],
        }
    }
}

fn has(list: &[String], word: &str) -> bool {
    list.iter().any(|item| item == word)
}

impl GroupResources {
    fn matches(&self, asked: &Asked) -> bool {
        if self.group != asked.group {
            return false;
        }
        let named = self.resource_names.is_empty() || has(&self.resource_names, &asked.name);
        let is = |wanted: &String| match wanted.split_once('/') {
            None => wanted == "*" || (asked.subresource.is_empty() && *wanted == asked.resource),
            Some(("*", sub)) => !asked.subresource.is_empty() && sub == asked.subresource,
            Some((resource, "*")) => resource == asked.resource,
            Some((resource, sub)) => resource == asked.resource && sub == asked.subresource,
        };
        self.resources.is_empty() || (named && self.resources.iter().any(is))
    }
}

impl Rule {
    fn matches(&self, user: &User, asked: &Asked) -> bool {
        let of_user = (self.users.is_empty() || has(&self.users, &user.name))
            && (self.user_groups.is_empty() || user.groups.iter().any(|group| has(&self.user_groups, group)))
            && (self.verbs.is_empty() || has(&self.verbs, &asked.verb));
        if !of_user {
            return false;
        }
        let about_resources = !self.namespaces.is_empty() || !self.resources.is_empty();
        if about_resources {
            return !asked.resource.is_empty()
                && (self.namespaces.is_empty() || has(&self.namespaces, &asked.namespace))
                && (self.resources.is_empty() || self.resources.iter().any(|resources| resources.matches(asked)));
        }
        let path = |wanted: &String| match wanted.strip_suffix('*') {
            Some(prefix) => asked.path.starts_with(prefix),
            None => *wanted == asked.path,
        };
        self.paths.is_empty() || (asked.resource.is_empty() && self.paths.iter().any(path))
    }
}

impl Policy {
    /// Reads a policy in YAML or JSON.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(text: &str) -> Result<Self, String> {
        let policy: Self = serde_norway::from_str(text).map_err(|error| error.to_string())?;
        if policy.kind != "Policy" || policy.api_version != "audit.k8s.io/v1" {
            return Err(format!("not a Policy of audit.k8s.io/v1: {} of {}", policy.kind, policy.api_version));
        }
        if policy.rules.is_empty() {
            return Err("a policy without rules keeps nothing".to_owned());
        }
        for (index, rule) in policy.rules.iter().enumerate() {
            if !rule.paths.is_empty() && (!rule.resources.is_empty() || !rule.namespaces.is_empty()) {
                return Err(format!("rules[{index}].nonResourceURLs: rules cannot apply to both regular resources and non-resource URLs"));
            }
            for path in &rule.paths {
                let star = path.find('*').is_some_and(|at| at + 1 != path.len());
                if path != "*" && (!path.starts_with('/') || star) {
                    return Err(format!("rules[{index}].nonResourceURLs: {path:?} must begin with '/' and may have a '*' only at its end"));
                }
            }
            for group in &rule.resources {
                if !group.resource_names.is_empty() && group.resources.is_empty() {
                    return Err(format!("rules[{index}].resources: resourceNames without resources"));
                }
            }
        }
        Ok(policy)
    }

    /// What is kept of a request; None for nothing.
    pub fn of(&self, user: &User, asked: &Asked) -> Option<Kept> {
        let rule = self.rules.iter().find(|rule| rule.matches(user, asked)).filter(|rule| rule.level != Level::None)?;
        let omit = self.omit_stages.iter().chain(&rule.omit_stages).copied().collect();
        Some(Kept { level: rule.level, omit, omit_managed_fields: rule.omit_managed_fields.unwrap_or(self.omit_managed_fields) })
    }
}
