//! What the audit log is told of webhooks, under upstream's keys: which of them changed the object, how, and which could not be asked.

use super::{super::audit, hook::Hook};
use crate::resources::Cx;
use serde::Serialize;
use serde_json::value::RawValue;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Annotation<'a> {
    configuration: &'a str,
    webhook: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    mutated: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch_type: Option<&'static str>,
}

/// One call of a webhook.
pub(super) struct Note<'a> {
    pub hook: &'a Hook,
    /// 0, or 1 when it is asked again.
    pub round: u8,
    /// Its place among the webhooks.
    pub index: usize,
}

impl Note<'_> {
    fn key(&self, prefix: &str) -> String {
        format!("{prefix}.webhook.admission.k8s.io/round_{}_index_{}", self.round, self.index)
    }

    fn value(&self, mutated: Option<bool>, patch: Option<&RawValue>) -> String {
        let (configuration, webhook) = (self.hook.configuration.as_str(), self.hook.name.as_str());
        let note = Annotation { configuration, webhook, mutated, patch, patch_type: patch.map(|_| "JSONPatch") };
        // Texts and what was read as JSON can be written.
        serde_json::to_string(&note).unwrap_or_default()
    }

    /// Whether it changed the object.
    pub fn mutated(&self, cx: &Cx<'_>, mutated: bool) {
        audit(cx, &self.key("mutation"), &self.value(Some(mutated), None));
    }

    /// How it changed the object; kept where what is sent is kept.
    pub fn patch(&self, patch: &[u8]) {
        crate::audit::annotate_content(&self.key("patch"), || self.value(None, serde_json::from_slice(patch).ok()));
    }

    /// The key under which it is noted that it could not be asked.
    pub fn failed_open(&self, mutating: bool) -> String {
        self.key(if mutating { "failed-open.mutation" } else { "failed-open.validating" })
    }
}
