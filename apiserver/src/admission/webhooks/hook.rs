//! One webhook of a configuration, read and compiled.

use crate::{
    admission::{
        constraints::Constraints,
        policy::{conditions::Conditions, environment::Scope},
    },
    webhook::ClientConfig,
};
use coracle_store::{Object, Snapshot};
use serde_json::Value;
use std::{sync::Arc, time::Duration};

/// The webhooks of all configurations of one kind, in the order of the configurations' names.
#[derive(Default)]
pub(super) struct Hooks(pub Vec<Hook>);

pub(super) struct Hook {
    /// As written.
    pub name: String,
    pub configuration: String,
    /// Tells it from all others of its kind.
    pub key: String,
    pub constraints: Result<Constraints, String>,
    pub conditions: Conditions,
    pub config: ClientConfig,
    pub timeout: Duration,
    /// `failurePolicy: Ignore`
    pub lenient: bool,
    /// The first version of AdmissionReview that it reads and this server speaks.
    pub review: Option<&'static str>,
    /// It has no side effects, or none in a dry run.
    pub dry_run: bool,
    /// `reinvocationPolicy: IfNeeded`
    pub again: bool,
}

impl Hooks {
    pub fn of(snapshot: &Snapshot, resource: &str) -> Hooks {
        let read = |object: &Arc<Object>| serde_json::from_slice::<Value>(&object.json).ok();
        let hooks = snapshot.range(resource, None, None).filter_map(read).flat_map(|configuration| {
            let name = configuration["metadata"]["name"].as_str().unwrap_or_default();
            let hooks = configuration["webhooks"].as_array().into_iter().flatten().enumerate();
            hooks.map(|(at, hook)| Hook::of(name, at, hook)).collect::<Vec<_>>()
        });
        Hooks(hooks.collect())
    }
}

impl Hook {
    fn of(configuration: &str, at: usize, hook: &Value) -> Hook {
        let name = hook["name"].as_str().unwrap_or_default();
        let known = |version: &str| match version {
            "v1" => Some("v1"),
            "v1beta1" => Some("v1beta1"),
            _ => None,
        };
        Hook {
            name: name.into(),
            configuration: configuration.into(),
            key: format!("{configuration}/{name}/{at}"),
            constraints: Constraints::of_webhook(hook),
            conditions: Conditions::of(&Scope::new(false).environment(true), &hook["matchConditions"]),
            // Validation lets nothing else in; one without a place says so when it is called.
            config: serde_json::from_value(hook["clientConfig"].clone()).unwrap_or_default(),
            timeout: Duration::from_secs(hook["timeoutSeconds"].as_u64().unwrap_or(10).clamp(1, 30)),
            lenient: hook["failurePolicy"] == "Ignore",
            review: hook["admissionReviewVersions"].as_array().into_iter().flatten().filter_map(Value::as_str).find_map(known),
            dry_run: matches!(hook["sideEffects"].as_str(), Some("None" | "NoneOnDryRun")),
            again: hook["reinvocationPolicy"] == "IfNeeded",
        }
    }
}
