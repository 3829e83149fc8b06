//! Keeps the number of replicas of what a HorizontalPodAutoscaler names where its metrics want it (Kubernetes' horizontal-pod-autoscaler).
//!
//! [`replicas`] calculates, [`metric`] tells metrics apart, [`behavior`] holds back, [`pass`] makes one look of it; [`remote`] asks other servers, this file reads and writes. Each autoscaler is looked at every fifteen seconds, and
//! at once when it changes. What was recommended of late is kept in memory, as upstream keeps it: after a restart a window begins anew with what is there.

pub mod behavior;
pub mod metric;
pub mod pass;
pub mod remote;
pub mod replicas;

use self::{
    behavior::History,
    pass::{Autoscaler, Look, Selected, Sources},
    remote::{Reading, Readings},
    replicas::{Pod, Used},
};
use super::{
    Context, Kinds,
    action::{Action, perform},
    queue::Next,
    runner::{Controller, Event, every},
};
use async_trait::async_trait;
use coracle_api::{Status, registry::ResourceRef, selector::Selector};
use coracle_apiserver::{
    metrics,
    pipeline::{PatchKind, scale},
    view::parse,
};
use coracle_store::{Key, Object, Snapshot};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};
use std::{collections::HashMap, sync::Arc, time::Duration};

/// Resource id of autoscalers.
pub const AUTOSCALERS: &str = "horizontalpodautoscalers.autoscaling";
/// How often each is looked at, as upstream.
const PERIOD: Duration = Duration::from_secs(15);

/// See the module.
pub struct Autoscalers {
    context: Context,
    kinds: Kinds,
    histories: Mutex<HashMap<Key, History>>,
}

impl Autoscalers {
    /// Acting as `horizontal-pod-autoscaler`.
    pub fn new(context: &Context, kinds: Kinds) -> Self {
        Self { context: context.acting_as("horizontal-pod-autoscaler"), kinds, histories: Mutex::default() }
    }

    /// What an autoscaler names, as a row and its `autoscaling/v1 Scale`.
    fn target(&self, snapshot: &Snapshot, autoscaler: &Autoscaler<'_>) -> Result<(ResourceRef, Value), String> {
        let named = &autoscaler.spec.scale_target_ref;
        let group = named.api_version.split_once('/').map_or("", |(group, _)| group);
        let kinds = (self.kinds)();
        let row = kinds.into_iter().find(|row| *row.group == *group && *row.kind == *named.kind);
        let row = row.ok_or_else(|| format!("no matches for kind \"{}\" in group \"{group}\"", named.kind))?;
        if row.scale.is_none() {
            return Err("the server could not find the requested resource".into());
        }
        let object = snapshot.get(&Key::new(row.id(), &*autoscaler.metadata.namespace, &*named.name));
        let object = object.ok_or_else(|| Status::not_found(&row.group, &row.plural, &named.name).message)?;
        let value: Value = parse(&object).map_err(|status| status.message)?;
        let scale = scale::view(&row, &value);
        Ok((row, scale))
    }

    /// The names of all autoscalers of the namespace that scale pods among these.
    fn claims(&self, snapshot: &Snapshot, namespace: &str, pods: &[Arc<Object>]) -> Vec<String> {
        let selects = |object: &Arc<Object>| {
            let autoscaler: Autoscaler<'_> = parse(object).ok()?;
            let (_, scale) = self.target(snapshot, &autoscaler).ok()?;
            let selector = Selector::parse(scale["status"]["selector"].as_str().filter(|text| !text.is_empty())?).ok()?;
            pods.iter().any(|pod| selector.matches_pairs(&pod.meta.labels)).then(|| object.key.name.to_string())
        };
        snapshot.range(AUTOSCALERS, Some(namespace), None).filter_map(selects).collect()
    }

    /// The pods that a scale selects; why they cannot be told.
    fn select(&self, snapshot: &Snapshot, namespace: &str, scale: &Value, pods: &mut Vec<Arc<Object>>) -> Selected {
        let text = scale["status"]["selector"].as_str().unwrap_or_default();
        if text.is_empty() {
            return Selected::Nothing;
        }
        let selector = match Selector::parse(text) {
            Ok(selector) => selector,
            Err(error) => return Selected::Unreadable(error.to_string()),
        };
        pods.extend(snapshot.range("pods", Some(namespace), None).filter(|pod| selector.matches_pairs(&pod.meta.labels)).cloned());
        let claims = self.claims(snapshot, namespace, pods);
        match claims.len() {
            0 | 1 => Selected::Pods,
            _ => {
                let keys: Vec<String> = claims.iter().map(|name| format!("{{{name} {namespace}}}")).collect();
                Selected::Shared(format!("pods by selector {text} are controlled by multiple HPAs: [{}]", keys.join(" ")))
            }
        }
    }
}

/// What was measured of pods.
struct Measured<'a> {
    metrics: &'a metrics::Metrics,
    pods: &'a [Arc<Object>],
    told: Readings,
    /// Replicas that the target has.
    present: i64,
}

impl Sources for Measured<'_> {
    fn pods(&self, resource: &str, container: Option<&str>) -> Result<Vec<(Pod<'_>, Option<Used>)>, String> {
        let mut all = Vec::new();
        for object in self.pods {
            let pod: Pod<'_> = parse(object).map_err(|status| status.message)?;
            let sample = self.metrics.pod(&pod.spec.node_name, &object.meta.uid);
            let used = sample.and_then(|sample| {
                let mut containers = sample.containers.iter().filter(|(name, _)| container.is_none_or(|wanted| **name == *wanted)).peekable();
                containers.peek()?;
                let value = containers.map(|(_, usage)| usage.millis(resource)).try_fold(0_i64, |sum, value| Some(sum.saturating_add(value?)))?;
                Some(Used { at: sample.at, window: sample.window, value })
            });
            all.push((pod, used));
        }
        Ok(all)
    }

    fn selected(&self) -> Result<Vec<Pod<'_>>, String> {
        self.pods.iter().map(|object| parse(object).map_err(|status| status.message)).collect()
    }

    fn told(&self, metric: usize) -> Result<Reading, String> {
        self.told.get(metric).cloned().unwrap_or(Ok(Reading::Local))
    }

    fn present(&self) -> i64 {
        self.present
    }
}

/// Whether a change is one of the status alone.
fn only_status(prev: &Object, new: &Object) -> bool {
    #[derive(Deserialize)]
    struct Spec<'a> {
        #[serde(borrow)]
        spec: &'a RawValue,
    }
    let spec = |object: &Object| serde_json::from_slice::<Spec<'_>>(&object.json).map(|view| view.spec.get().to_owned()).ok();
    spec(prev) == spec(new)
}

#[async_trait]
impl Controller for Autoscalers {
    fn name(&self) -> &'static str {
        "horizontal-pod-autoscaler"
    }

    fn route(&self, event: &Event<'_>, keys: &mut Vec<Key>) {
        if event.resource == AUTOSCALERS {
            let own = event.prev.zip(event.new).is_some_and(|(prev, new)| only_status(prev, new));
            keys.extend(event.key().filter(|_| !own).cloned());
        }
    }

    fn all(&self, snapshot: &Snapshot, keys: &mut Vec<Key>) {
        every(snapshot, AUTOSCALERS, keys);
    }

    async fn reconcile(&self, key: &Key) -> Result<Next, Status> {
        let client = &self.context.client;
        let metrics = &client.core().metrics;
        if client.store().snapshot().get(key).is_some() {
            metrics.wanted().await;
        }
        let snapshot = client.store().snapshot();
        let Some(object) = snapshot.get(key) else {
            self.histories.lock().remove(key);
            return Ok(Next::Idle);
        };
        let autoscaler: Autoscaler<'_> = parse(&object)?;
        let now = self.context.now();
        let mut look = Look::new(&autoscaler, now);
        let (row, scale) = match self.target(&snapshot, &autoscaler) {
            Ok(found) => found,
            Err(why) => {
                look.no_scale(&why);
                let status = look.status(&autoscaler, None);
                perform(client, Some(&object), actions(look, status)).await?;
                return Ok(Next::After(PERIOD));
            }
        };
        let mut pods = Vec::new();
        let selected = self.select(&snapshot, &key.namespace, &scale, &mut pods);
        let selector = scale["status"]["selector"].as_str().unwrap_or_default();
        let told = remote::ask(client, &autoscaler, selector, || (self.kinds)()).await;
        let present = scale["status"]["replicas"].as_i64().unwrap_or(0);
        let measured = Measured { metrics, pods: &pods, told, present };
        let mut history = self.histories.lock().get(key).cloned().unwrap_or_default();
        let current = scale["spec"]["replicas"].as_i64().unwrap_or(0);
        let mut outcome = pass::decide(&autoscaler, current, &selected, &measured, &mut history, &mut look);
        if let Some(wanted) = outcome.rescale {
            // Metrics may have taken their time: what somebody else has scaled meanwhile is looked at anew.
            let patch = json!({"metadata": {"resourceVersion": scale["metadata"]["resourceVersion"]}, "spec": {"replicas": wanted}});
            let target = &autoscaler.spec.scale_target_ref.name;
            match client.patch(&row.id(), &key.namespace, target, "scale", PatchKind::Merge, patch).await {
                Ok(_) => {
                    look.rescaled(wanted, &outcome.reason);
                    history.scaled(autoscaler.spec.behavior.as_ref(), current, wanted, now);
                }
                Err(status) => {
                    look.not_rescaled(wanted, &outcome.reason, &status.message);
                    outcome.rescale = None;
                    outcome.desired = None;
                }
            }
        }
        self.histories.lock().insert(key.clone(), history);
        let status = look.status(&autoscaler, Some(&outcome));
        perform(client, Some(&object), actions(look, status)).await?;
        Ok(Next::After(PERIOD))
    }
}

fn actions(look: Look<'_>, status: Value) -> Vec<Action> {
    let events = look.events.into_iter().map(|(kind, reason, message)| Action::Event { kind, reason, message });
    events.chain([Action::Status(status)]).collect()
}
