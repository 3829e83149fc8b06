//! Which nodes a DaemonSet's pods may run on, and how a pod is made for one of them.

use crate::{
    controllers::{history::REVISION_LABEL, node_lifecycle::health::Node},
    scheduler::pod::{Affinity, NodeSelector, Spec},
};
use coracle_api::Status;
use coracle_apiserver::view::{
    Meta, Owner, parse,
    pod::{Pod, from_template},
};
use coracle_store::Object;
use serde::Deserialize;
use serde_json::{Value, json};

/// The annotation that counts templates, as it was before revisions.
const GENERATION: &str = "deprecated.daemonset.template.generation";
/// The label of pods with that count.
const GENERATION_LABEL: &str = "pod-template-generation";

/// Taints that every daemon pod bears, with their effects: it shall run on nodes that are not well, too.
const BORNE: &[(&str, &str)] = &[
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];
/// And this one, if it uses the host's network.
const NO_NETWORK: (&str, &str) = ("node.kubernetes.io/network-unavailable", "NoSchedule");

/// A pod template with what daemon pods have besides.
#[derive(Clone, Debug)]
pub struct Template {
    value: Value,
    name: String,
    hash: String,
    generation: Option<String>,
    /// The part that decides where it may run, as text.
    spec: String,
}

impl Template {
    /// From the set's template, its metadata, and the hash of the template's revision.
    pub fn new(template: &Value, meta: &Meta<'_>, hash: &str) -> Self {
        let mut value = template.clone();
        let generation = meta.annotations.get(GENERATION).filter(|text| text.parse::<i64>().is_ok()).map(|text| text.to_string());
        if !value["metadata"].is_object() {
            value["metadata"] = json!({});
        }
        value["metadata"]["labels"][REVISION_LABEL] = json!(hash);
        if let Some(generation) = &generation {
            value["metadata"]["labels"][GENERATION_LABEL] = json!(generation);
        }
        let mut tolerations = value["spec"]["tolerations"].as_array().cloned().unwrap_or_default();
        let network = (value["spec"]["hostNetwork"] == true).then_some(&NO_NETWORK);
        for (key, effect) in BORNE.iter().chain(network) {
            let same = |t: &Value| t["key"] == *key && t["effect"] == *effect && t["operator"] == "Exists";
            tolerations.retain(|t| !same(t));
            tolerations.push(json!({ "key": key, "operator": "Exists", "effect": effect }));
        }
        value["spec"]["tolerations"] = json!(tolerations);
        let spec = value["spec"].to_string();
        Self { value, name: meta.name.to_string(), hash: hash.to_owned(), generation, spec }
    }

    /// The scheduler's view of its spec.
    ///
    /// # Errors
    /// 500, when the stored template does not have that shape.
    pub fn spec(&self) -> Result<Spec<'_>, Status> {
        serde_json::from_str(&self.spec).map_err(|error| Status::internal(format_args!("reading the template of DaemonSet {}: {error}", self.name)))
    }

    /// Whether a pod was made from this template.
    pub fn made(&self, pod: &Pod<'_>) -> bool {
        let label = |name: &str| pod.metadata.labels.get(name).map(|value| &**value);
        label(REVISION_LABEL) == Some(&*self.hash) || (self.generation.is_some() && label(GENERATION_LABEL) == self.generation.as_deref())
    }

    /// The hash of its revision.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// The pod for a node: the scheduler binds it there and nowhere else.
    pub fn pod(&self, namespace: &str, owner: &Owner<'_>, node: &str) -> Value {
        let mut pod = from_template(&self.value, namespace, &format!("{}-", self.name), owner);
        pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"] =
            json!([{ "matchFields": [{ "key": "metadata.name", "operator": "In", "values": [node] }] }]);
        pod
    }
}

/// How a node stands to a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// The node's name.
    pub name: Box<str>,
    /// A pod should run there.
    pub wanted: bool,
    /// A pod that is there may stay.
    pub kept: bool,
}

impl Host {
    /// Judges a node by its labels and taints.
    pub fn new(spec: &Spec<'_>, node: &Node<'_>) -> Self {
        let meta = &node.metadata;
        let chosen = (spec.node_name.is_empty() || spec.node_name == meta.name) && spec.allows(&meta.name, &meta.labels);
        let borne = |effects: &[&str]| {
            let harms = node.spec.taints.iter().filter(|taint| effects.contains(&&*taint.effect));
            harms.into_iter().all(|taint| spec.tolerations.iter().any(|t| t.tolerates(&taint.key, &taint.value, &taint.effect)))
        };
        Self { name: (*meta.name).into(), wanted: chosen && borne(&["NoSchedule", "NoExecute"]), kept: chosen && borne(&["NoExecute"]) }
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Unbound<'a> {
    #[serde(borrow)]
    spec: UnboundSpec<'a>,
}
#[derive(Deserialize, Default)]
#[serde(default)]
struct UnboundSpec<'a> {
    #[serde(borrow)]
    affinity: Affinity<'a>,
}

/// The node that a pod is on, or is meant for.
///
/// # Errors
/// 500, when the stored pod cannot be read.
pub fn target(object: &Object, pod: &Pod<'_>) -> Result<Option<String>, Status> {
    if !pod.spec.node_name.is_empty() {
        return Ok(Some(pod.spec.node_name.to_string()));
    }
    let view: Unbound<'_> = parse(object)?;
    Ok(view.spec.affinity.node_affinity.required.as_ref().and_then(named).map(str::to_owned))
}

/// The one node that a selector names.
fn named<'s>(selector: &'s NodeSelector<'_>) -> Option<&'s str> {
    let fields = selector.node_selector_terms.iter().flat_map(|term| &term.match_fields);
    let field = fields.into_iter().find(|field| field.key == "metadata.name" && field.operator == "In")?;
    match &field.values[..] {
        [name] => Some(name),
        _ => None,
    }
}
