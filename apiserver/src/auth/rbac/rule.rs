//! One policy rule and what it matches.

use crate::auth::Attributes;
use serde::{Deserialize, Serialize};

type Words = Box<[Box<str>]>;

/// `rbac/v1 PolicyRule`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Rule {
    /// `get`, `*`.
    #[serde(deserialize_with = "words")]
    pub verbs: Words,
    /// `""`, `apps`, `*`.
    #[serde(deserialize_with = "words", skip_serializing_if = "is_empty")]
    pub api_groups: Words,
    /// `pods`, `pods/log`, `*/scale`, `*`.
    #[serde(deserialize_with = "words", skip_serializing_if = "is_empty")]
    pub resources: Words,
    /// Empty: every name, and requests without one.
    #[serde(deserialize_with = "words", skip_serializing_if = "is_empty")]
    pub resource_names: Words,
    /// `/healthz`, `/healthz/*`, `*`; such a rule matches no resources.
    #[serde(rename = "nonResourceURLs", deserialize_with = "words", skip_serializing_if = "is_empty")]
    pub non_resource_urls: Words,
}

fn is_empty(words: &Words) -> bool {
    words.is_empty()
}

// null reads as empty, as Go's decoder has it
fn words<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Words, D::Error> {
    Option::<Words>::deserialize(d).map(Option::unwrap_or_default)
}

fn any(words: &Words, wanted: &str) -> bool {
    words.iter().any(|w| &**w == "*" || &**w == wanted)
}

impl Rule {
    /// Does this rule allow the request?
    pub fn allows(&self, a: &Attributes<'_>) -> bool {
        if !any(&self.verbs, a.verb) {
            return false;
        }
        if !a.path.is_empty() {
            return self.non_resource_urls.iter().any(|url| url_covers(url, a.path));
        }
        any(&self.api_groups, a.group)
            && self.resources.iter().any(|r| resource_covers(r, a.resource, a.subresource))
            && (self.resource_names.is_empty() || (!a.name.is_empty() && self.resource_names.iter().any(|n| &**n == a.name)))
    }

    /// Splits into rules of one verb and one group+resource+name (or one URL) each.
    pub fn atoms(&self) -> Vec<Rule> {
        let one = |w: &str| -> Words { Box::new([w.into()]) };
        let mut atoms = Vec::new();
        for verb in &self.verbs {
            for url in &self.non_resource_urls {
                atoms.push(Rule { verbs: one(verb), non_resource_urls: one(url), ..Rule::default() });
            }
            for group in &self.api_groups {
                for resource in &self.resources {
                    let base = Rule { verbs: one(verb), api_groups: one(group), resources: one(resource), ..Rule::default() };
                    match self.resource_names.is_empty() {
                        true => atoms.push(base),
                        false => atoms.extend(self.resource_names.iter().map(|n| Rule { resource_names: one(n), ..base.clone() })),
                    }
                }
            }
        }
        atoms
    }

    /// Does this rule give all that `atom` (see [`Rule::atoms`]) gives? A wildcard is covered by a wildcard only.
    pub fn covers(&self, atom: &Rule) -> bool {
        let all = |have: &Words, want: &Words| want.iter().all(|w| any(have, w));
        all(&self.verbs, &atom.verbs)
            && all(&self.api_groups, &atom.api_groups)
            && atom.resources.iter().all(|r| {
                let (resource, subresource) = r.split_once('/').unwrap_or((r, ""));
                self.resources.iter().any(|have| **have == **r || resource_covers(have, resource, subresource))
            })
            && (self.resource_names.is_empty()
                || (!atom.resource_names.is_empty() && atom.resource_names.iter().all(|n| self.resource_names.contains(n))))
            && atom.non_resource_urls.iter().all(|u| self.non_resource_urls.iter().any(|have| **have == **u || url_covers(have, u)))
    }
}

fn resource_covers(rule: &str, resource: &str, subresource: &str) -> bool {
    match (rule, subresource) {
        ("*", _) => true,
        (rule, "") => rule == resource,
        (rule, sub) => match rule.split_once('/') {
            Some((r, s)) => s == sub && (r == resource || r == "*"),
            None => false,
        },
    }
}

fn url_covers(rule: &str, path: &str) -> bool {
    match rule.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix),
        None => rule == path,
    }
}

/// A rule as upstream's messages show it: `{APIGroups:["apps"], Resources:["deployments"], Verbs:["get"]}`.
pub struct Shown<'a>(
    /// The rule.
    pub &'a Rule,
);

impl std::fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let parts = [
            ("APIGroups", &self.0.api_groups),
            ("Resources", &self.0.resources),
            ("ResourceNames", &self.0.resource_names),
            ("NonResourceURLs", &self.0.non_resource_urls),
            ("Verbs", &self.0.verbs),
        ];
        let shown: Vec<String> = parts.iter().filter(|(_, w)| !w.is_empty()).map(|(n, w)| format!("{n}:{w:?}")).collect();
        write!(f, "{{{}}}", shown.join(", "))
    }
}
