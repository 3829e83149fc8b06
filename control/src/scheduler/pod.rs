//! What the scheduler looks at in a pod.

use super::resources::{Amounts, Container, List, Requirements, of_pod};
use crate::view::View;
use coracle_apiserver::view::{
    Condition, Map, Text, condition,
    selector::{LabelSelector, Labelled, Requirement},
    volume::Volume,
};
use serde::Deserialize;

/// A narrow view of `core/v1 Pod`.
pub type Pod<'a> = View<'a, Spec<'a>, Status<'a>>;

/// The part of a pod's spec that decides where it goes.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Spec<'a> {
    /// Set once it is bound.
    #[serde(borrow)]
    pub node_name: Text<'a>,
    /// Who schedules it; `default-scheduler` unless given.
    pub scheduler_name: Text<'a>,
    /// Higher goes first.
    pub priority: i64,
    /// While there are any, the pod is not looked at.
    pub scheduling_gates: Vec<Gate>,
    /// Labels the node must have.
    pub node_selector: Map<'a>,
    /// Affinity rules.
    pub affinity: Affinity<'a>,
    /// Taints it bears.
    pub tolerations: Vec<Toleration<'a>>,
    /// How it is to be spread over places.
    pub topology_spread_constraints: Vec<SpreadConstraint<'a>>,
    /// `Never` keeps it from making room for itself.
    pub preemption_policy: Text<'a>,
    /// Volumes, of which claims and images matter.
    pub volumes: Vec<Volume<'a>>,
    /// Claims of devices.
    pub resource_claims: Vec<DeviceClaim<'a>>,
    containers: Vec<Container<'a>>,
    init_containers: Vec<Container<'a>>,
    overhead: List<'a>,
    resources: Option<Requirements<'a>>,
}

impl Spec<'_> {
    /// Whether its node selector and required node affinity allow a node of this name and labels.
    pub fn allows<L: Labelled + ?Sized>(&self, name: &str, labels: &L) -> bool {
        let selected = self.node_selector.iter().all(|(key, value)| labels.label(key) == Some(&**value));
        let required = self.affinity.node_affinity.required.as_ref();
        selected && required.is_none_or(|selector| selector.node_selector_terms.iter().any(|term| term.matches(name, labels)))
    }
}

/// `core/v1 PodResourceClaim`; in a status, `PodResourceClaimStatus`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DeviceClaim<'a> {
    /// What the pod calls it.
    #[serde(borrow)]
    pub name: Text<'a>,
    /// The claim itself.
    pub resource_claim_name: Option<Text<'a>>,
}

/// `core/v1 PodSchedulingGate`; only their number matters.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Gate {}

/// `core/v1 TopologySpreadConstraint`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SpreadConstraint<'a> {
    /// By how many pods a place may be ahead.
    pub max_skew: i64,
    /// Nodes with the same value of this label are one place.
    #[serde(borrow)]
    pub topology_key: Text<'a>,
    /// `DoNotSchedule` or `ScheduleAnyway`.
    pub when_unsatisfiable: Text<'a>,
    /// Which pods are counted; absent counts none.
    pub label_selector: Option<LabelSelector<'a>>,
    /// Labels whose value must be the pod's own.
    pub match_label_keys: Vec<Text<'a>>,
    /// With fewer places than this the least is taken to be none.
    pub min_domains: Option<i64>,
    /// `Honor` (the default) leaves out nodes that the pod's node affinity leaves out.
    pub node_affinity_policy: Text<'a>,
    /// `Honor` leaves out nodes with taints that the pod does not bear; `Ignore` is the default.
    pub node_taints_policy: Text<'a>,
}

/// The part of a pod's status that the scheduler reads and writes.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Status<'a> {
    /// Where room was made for it.
    pub nominated_node_name: Text<'a>,
    /// When its node took it up.
    pub start_time: Text<'a>,
    /// `Succeeded` and `Failed` pods hold nothing.
    #[serde(borrow)]
    pub phase: Text<'a>,
    /// `PodScheduled`.
    pub conditions: Vec<Condition<'a>>,
    /// The claims of devices that were made for it.
    pub resource_claim_statuses: Vec<DeviceClaim<'a>>,
}

/// `core/v1 Affinity`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Affinity<'a> {
    /// To nodes.
    #[serde(borrow)]
    pub node_affinity: NodeAffinity<'a>,
    /// To pods.
    pub pod_affinity: PodAffinity<'a>,
    /// Away from pods.
    pub pod_anti_affinity: PodAffinity<'a>,
}

/// `core/v1 NodeAffinity`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct NodeAffinity<'a> {
    /// Must hold.
    #[serde(borrow, rename = "requiredDuringSchedulingIgnoredDuringExecution")]
    pub required: Option<NodeSelector<'a>>,
    /// Adds to the score.
    #[serde(rename = "preferredDuringSchedulingIgnoredDuringExecution")]
    pub preferred: Vec<PreferredTerm<'a>>,
}

/// `core/v1 NodeSelector`: any of its terms.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeSelector<'a> {
    /// Terms.
    #[serde(borrow)]
    pub node_selector_terms: Vec<NodeTerm<'a>>,
}

/// `core/v1 NodeSelectorTerm`: all of its requirements.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeTerm<'a> {
    /// On labels.
    #[serde(borrow)]
    pub match_expressions: Vec<Requirement<'a>>,
    /// On `metadata.name`.
    pub match_fields: Vec<Requirement<'a>>,
}

impl NodeTerm<'_> {
    /// Whether a node of this name and labels meets it; a term without requirements matches nothing.
    pub fn matches<L: Labelled + ?Sized>(&self, name: &str, labels: &L) -> bool {
        (!self.match_expressions.is_empty() || !self.match_fields.is_empty())
            && self.match_expressions.iter().all(|r| r.met_by(labels.label(&r.key)))
            && self.match_fields.iter().all(|r| r.key == "metadata.name" && r.met_by(Some(name)))
    }
}

/// `core/v1 PreferredSchedulingTerm`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct PreferredTerm<'a> {
    /// 1 to 100.
    pub weight: i64,
    /// What is preferred.
    #[serde(borrow)]
    pub preference: NodeTerm<'a>,
}

/// `core/v1 PodAffinity` and `PodAntiAffinity`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct PodAffinity<'a> {
    /// Must hold.
    #[serde(borrow, rename = "requiredDuringSchedulingIgnoredDuringExecution")]
    pub required: Vec<PodTerm<'a>>,
    /// Adds to the score.
    #[serde(rename = "preferredDuringSchedulingIgnoredDuringExecution")]
    pub preferred: Vec<WeightedPodTerm<'a>>,
}

/// `core/v1 PodAffinityTerm`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodTerm<'a> {
    /// Which pods; absent matches none.
    #[serde(borrow)]
    pub label_selector: Option<LabelSelector<'a>>,
    /// In which namespaces; the pod's own if neither list nor selector is given.
    pub namespaces: Vec<Text<'a>>,
    /// And in namespaces with these labels; empty is all.
    pub namespace_selector: Option<LabelSelector<'a>>,
    /// Nodes with the same value of this label are one place.
    pub topology_key: Text<'a>,
    /// Labels whose value must be that of the pod with the rule.
    pub match_label_keys: Vec<Text<'a>>,
    /// Labels whose value must not be that of the pod with the rule.
    pub mismatch_label_keys: Vec<Text<'a>>,
}

/// `core/v1 WeightedPodAffinityTerm`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WeightedPodTerm<'a> {
    /// 1 to 100.
    pub weight: i64,
    /// What is preferred.
    #[serde(borrow)]
    pub pod_affinity_term: PodTerm<'a>,
}

/// `core/v1 Toleration`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Toleration<'a> {
    /// Taint key; empty with `Exists` is every taint.
    #[serde(borrow)]
    pub key: Text<'a>,
    /// `Equal` (the default) or `Exists`.
    pub operator: Text<'a>,
    /// Value for `Equal`.
    pub value: Text<'a>,
    /// Empty is every effect.
    pub effect: Text<'a>,
    /// For `NoExecute`: how long it is borne; forever if absent.
    pub toleration_seconds: Option<i64>,
}

impl Toleration<'_> {
    /// Whether a taint is borne.
    pub fn tolerates(&self, key: &str, value: &str, effect: &str) -> bool {
        (self.effect.is_empty() || *self.effect == *effect)
            && (self.key.is_empty() || *self.key == *key)
            && match &*self.operator {
                "" | "Equal" => *self.value == *value,
                "Exists" => true,
                _ => false,
            }
    }
}

/// A host port: protocol, address (empty for all) and number.
pub type HostPort = (Box<str>, Box<str>, i64);

impl Pod<'_> {
    /// The profile that it asks for.
    pub fn scheduler(&self) -> &str {
        if self.spec.scheduler_name.is_empty() { "default-scheduler" } else { &self.spec.scheduler_name }
    }

    /// Whether it goes because room was made for another.
    pub fn preempted(&self) -> bool {
        let told = condition(&self.status.conditions, "DisruptionTarget");
        self.metadata.deleting() && told.is_some_and(|c| c.is_true() && c.reason == "PreemptionByScheduler")
    }

    /// The claims that it uses, and whether each is its own.
    pub fn claims(&self) -> impl Iterator<Item = (String, bool)> {
        self.spec.volumes.iter().filter_map(|volume| volume.claim(&self.metadata.name))
    }

    /// The images of its containers and volumes; and how many containers it has.
    pub fn images(&self) -> (Vec<&str>, usize) {
        let containers = || self.spec.init_containers.iter().chain(&self.spec.containers);
        let volumes = self.spec.volumes.iter().filter_map(|volume| Some(&*volume.image.as_ref()?.reference));
        (containers().map(|container| &*container.image).chain(volumes).collect(), containers().count())
    }

    /// Whether it ended and holds nothing any more.
    pub fn terminal(&self) -> bool {
        self.status.phase == "Succeeded" || self.status.phase == "Failed"
    }

    /// What it asks for.
    pub fn requests(&self) -> Amounts {
        of_pod(&self.spec.containers, &self.spec.init_containers, &self.spec.overhead, self.spec.resources.as_ref())
    }

    /// Ports it takes on its node.
    pub fn host_ports(&self) -> Vec<HostPort> {
        let sidecars = self.spec.init_containers.iter().filter(|c| c.restart_policy == "Always");
        let ports = self.spec.containers.iter().chain(sidecars).flat_map(|c| &c.ports);
        ports
            .filter(|port| port.host_port > 0)
            .map(|port| {
                let protocol = if port.protocol.is_empty() { "TCP" } else { &*port.protocol };
                let ip = if port.host_ip == "0.0.0.0" || port.host_ip == "::" { "" } else { &*port.host_ip };
                (protocol.into(), ip.into(), port.host_port)
            })
            .collect()
    }
}
