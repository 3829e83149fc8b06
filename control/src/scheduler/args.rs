//! What a profile tells its plugins (`pluginConfig` of a `KubeSchedulerConfiguration`), with upstream's defaults.

use super::cluster::Node;
use coracle_api::amounts::Amounts;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;
use std::sync::{Arc, LazyLock};

/// The arguments of all plugins.
#[derive(Clone, Debug, Default)]
pub struct Args {
    /// Of NodeResourcesFit.
    pub fit: Fit,
    /// Of NodeResourcesBalancedAllocation.
    pub balanced: Balanced,
    /// Of PodTopologySpread.
    pub spread: Spread,
    /// Of InterPodAffinity.
    pub inter_pod: InterPod,
    /// Of NodeAffinity.
    pub node_affinity: NodeAffinity,
    /// Of DefaultPreemption.
    pub preemption: Preemption,
}

/// One plugin's arguments as they are written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Told {
    name: String,
    #[serde(default)]
    args: Value,
}

/// `NodeResourcesFitArgs`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Fit {
    /// Resources that do not keep a pod away.
    pub ignored_resources: Vec<String>,
    /// All resources of these groups (`example.com`).
    pub ignored_resource_groups: Vec<String>,
    /// Which nodes are better.
    pub scoring_strategy: Strategy,
}

/// `ScoringStrategy`
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Strategy {
    r#type: Kind,
    resources: Vec<Weighed>,
    requested_to_capacity_ratio: Ratio,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
enum Kind {
    #[default]
    LeastAllocated,
    MostAllocated,
    RequestedToCapacityRatio,
}

/// `ResourceSpec`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Weighed {
    /// `cpu`, `memory`, `example.com/gpu`.
    pub name: String,
    #[serde(default = "one")]
    weight: i64,
}

fn one() -> i64 {
    1
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Ratio {
    shape: Vec<Point>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Point {
    utilization: i64,
    score: i64,
}

fn common() -> Vec<Weighed> {
    ["cpu", "memory"].map(|name| Weighed { name: name.into(), weight: 1 }).into()
}

impl Default for Strategy {
    fn default() -> Self {
        Self { r#type: Kind::default(), resources: common(), requested_to_capacity_ratio: Ratio::default() }
    }
}

/// `NodeResourcesBalancedAllocationArgs`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Balanced {
    /// Whose use shall be even.
    pub resources: Vec<Weighed>,
}

impl Default for Balanced {
    fn default() -> Self {
        Self { resources: common() }
    }
}

/// `PodTopologySpreadArgs`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Spread {
    defaulting_type: Defaulting,
    default_constraints: Vec<SpreadDefault>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
enum Defaulting {
    #[default]
    System,
    List,
}

/// `TopologySpreadConstraint` of pods that have none.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SpreadDefault {
    /// By how many pods a place may be ahead.
    pub max_skew: i64,
    /// Nodes with the same value of this label are one place.
    pub topology_key: String,
    /// `DoNotSchedule` or `ScheduleAnyway`.
    pub when_unsatisfiable: String,
}

impl Spread {
    /// Constraints in place of upstream's own.
    pub fn listed(&self) -> Option<&[SpreadDefault]> {
        (self.defaulting_type == Defaulting::List).then_some(&self.default_constraints)
    }
}

/// `InterPodAffinityArgs`
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct InterPod {
    /// What the required affinity of a pod that is there counts for among preferences.
    pub hard_pod_affinity_weight: i64,
    /// A pod without preferences of its own does not heed those of others.
    pub ignore_preferred_terms_of_existing_pods: bool,
}

impl Default for InterPod {
    fn default() -> Self {
        Self { hard_pod_affinity_weight: 1, ignore_preferred_terms_of_existing_pods: false }
    }
}

/// `NodeAffinityArgs`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct NodeAffinity {
    added_affinity: Value,
}

impl NodeAffinity {
    /// Whether a node may be used by pods of the profile.
    pub fn allows(&self, node: &Node) -> bool {
        let required = &self.added_affinity["requiredDuringSchedulingIgnoredDuringExecution"];
        required.is_null() || node.is_selected(required)
    }

    /// What the profile prefers, summed for a node.
    pub fn prefers(&self, node: &Node) -> i64 {
        let terms = self.added_affinity["preferredDuringSchedulingIgnoredDuringExecution"].as_array();
        let met = |term: &&Value| node.meets(&term["preference"]);
        terms.into_iter().flatten().filter(met).filter_map(|term| term["weight"].as_i64()).sum()
    }
}

/// `DefaultPreemptionArgs`
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Preemption {
    min_candidate_nodes_percentage: usize,
    min_candidate_nodes_absolute: usize,
}

impl Default for Preemption {
    fn default() -> Self {
        Self { min_candidate_nodes_percentage: 10, min_candidate_nodes_absolute: 100 }
    }
}

impl Preemption {
    /// How many nodes on which room could be made are compared, of so many that may do.
    pub fn candidates(&self, nodes: usize) -> usize {
        (nodes * self.min_candidate_nodes_percentage / 100).max(self.min_candidate_nodes_absolute)
    }
}

fn read<T: DeserializeOwned>(args: &Value) -> Result<T, String> {
    let mut args = args.clone();
    match args.as_object_mut() {
        Some(fields) => ["apiVersion", "kind"].iter().for_each(|field| drop(fields.remove(*field))),
        None => args = Value::Object(Default::default()),
    }
    serde_json::from_value(args).map_err(|error| error.to_string())
}

fn check(holds: bool, why: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(why.into()) }
}

impl Args {
    /// Those of a profile that says nothing.
    pub fn standard() -> Arc<Self> {
        static STANDARD: LazyLock<Arc<Args>> = LazyLock::new(Arc::default);
        STANDARD.clone()
    }

    /// Reads what a profile says.
    ///
    /// # Errors
    /// What is wrong with it, and of which plugin.
    pub fn of(told: &[Told]) -> Result<Self, String> {
        let mut args = Self::default();
        for Told { name, args: told } in told {
            let read = match name.as_str() {
                "NodeResourcesFit" => read(told).map(|fit| args.fit = fit).and_then(|()| args.fit.scoring_strategy.check()),
                "NodeResourcesBalancedAllocation" => read(told)
                    .map(|balanced| args.balanced = balanced)
                    .and_then(|()| check(args.balanced.resources.iter().all(|resource| resource.weight == 1), "resources: a weight must be 1")),
                "PodTopologySpread" => read(told).map(|spread| args.spread = spread).and_then(|()| args.spread.check()),
                "InterPodAffinity" => read(told).map(|inter_pod| args.inter_pod = inter_pod).and_then(|()| {
                    check((0..=100).contains(&args.inter_pod.hard_pod_affinity_weight), "hardPodAffinityWeight: not in valid range [0, 100]")
                }),
                "NodeAffinity" => read(told).map(|affinity| args.node_affinity = affinity),
                "DefaultPreemption" => read(told).map(|preemption| args.preemption = preemption).and_then(|()| {
                    let Preemption { min_candidate_nodes_percentage: percent, min_candidate_nodes_absolute: least } = args.preemption;
                    check(percent <= 100, "minCandidateNodesPercentage: not in valid range [0, 100]")?;
                    check(percent > 0 || least > 0, "minCandidateNodesPercentage and minCandidateNodesAbsolute cannot be zero at the same time")
                }),
                _ => Err("there are no arguments of this plugin".into()),
            };
            read.map_err(|why| format!("pluginConfig of {name}: {why}"))?;
        }
        Ok(args)
    }
}

impl Spread {
    fn check(&self) -> Result<(), String> {
        let listed = self.defaulting_type == Defaulting::List;
        check(listed || self.default_constraints.is_empty(), "when .defaultingType is System, no default constraints may be given")?;
        for constraint in &self.default_constraints {
            check(constraint.max_skew > 0, "defaultConstraints: maxSkew must be greater than zero")?;
            check(!constraint.topology_key.is_empty(), "defaultConstraints: topologyKey can not be empty")?;
            let known = matches!(&*constraint.when_unsatisfiable, "DoNotSchedule" | "ScheduleAnyway");
            check(known, "defaultConstraints: whenUnsatisfiable must be DoNotSchedule or ScheduleAnyway")?;
        }
        Ok(())
    }
}

/// How much there is of a resource.
pub fn amount(of: &Amounts, name: &str) -> i64 {
    match name {
        "cpu" => of.cpu,
        "memory" => of.memory,
        "ephemeral-storage" => of.storage,
        name => of.others.get(name).copied().unwrap_or(0),
    }
}

impl Fit {
    /// Whether a resource does not keep a pod away.
    pub fn ignores(&self, name: &str) -> bool {
        let group = name.split_once('/').map(|(group, _)| group);
        self.ignored_resources.iter().any(|its| its == name) || group.is_some_and(|group| self.ignored_resource_groups.iter().any(|its| its == group))
    }
}

impl Strategy {
    fn check(&self) -> Result<(), String> {
        check(self.resources.iter().all(|resource| (1..=100).contains(&resource.weight)), "resources: a weight is not in valid range [1, 100]")?;
        let shape = &self.requested_to_capacity_ratio.shape;
        check(
            self.r#type != Kind::RequestedToCapacityRatio || !shape.is_empty(),
            "requestedToCapacityRatio.shape: at least one point must be specified",
        )?;
        check(
            shape.windows(2).all(|pair| pair[0].utilization < pair[1].utilization),
            "requestedToCapacityRatio.shape: utilization values must be sorted in increasing order",
        )?;
        let fits = |point: &Point| (0..=100).contains(&point.utilization) && (0..=10).contains(&point.score);
        check(shape.iter().all(fits), "requestedToCapacityRatio.shape: utilization is 0 to 100, score 0 to 10")
    }

    /// The score (0 to 100) of a node where a pod that asks for `asked` makes the use `used`, of `all`.
    pub fn score(&self, asked: &Amounts, used: &Amounts, all: &Amounts) -> i64 {
        let (mut sum, mut weights) = (0, 0);
        for Weighed { name, weight } in &self.resources {
            let (asked, all) = (amount(asked, name), amount(all, name));
            // Extended resources count for pods that ask for them.
            if all <= 0 || (asked == 0 && name.contains('/')) {
                continue;
            }
            let used = amount(used, name) + asked;
            let score = match self.r#type {
                Kind::LeastAllocated if used > all => 0,
                Kind::LeastAllocated => (all - used) * 100 / all,
                Kind::MostAllocated => used.min(all) * 100 / all,
                Kind::RequestedToCapacityRatio => {
                    let score = self.curve(if used > all { 100 } else { used * 100 / all });
                    if score == 0 {
                        continue;
                    }
                    score
                }
            };
            sum += score * weight;
            weights += weight;
        }
        match self.r#type {
            _ if weights == 0 => 0,
            Kind::RequestedToCapacityRatio => (sum as f64 / weights as f64).round() as i64,
            _ => sum / weights,
        }
    }

    /// What the shape gives for a use in percent: straight lines between its points, level outside of them.
    fn curve(&self, use_: i64) -> i64 {
        let shape = &self.requested_to_capacity_ratio.shape;
        let at = shape.partition_point(|point| point.utilization < use_);
        match (at.checked_sub(1).and_then(|before| shape.get(before)), shape.get(at)) {
            (None, Some(first)) => first.score * 10,
            (Some(last), None) => last.score * 10,
            (Some(a), Some(b)) => a.score * 10 + (b.score - a.score) * 10 * (use_ - a.utilization) / (b.utilization - a.utilization),
            (None, None) => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn args(name: &str, args: Value) -> Result<Args, String> {
        Args::of(&[Told { name: name.into(), args }])
    }

    fn amounts(cpu: i64, memory: i64, gpu: i64) -> Amounts {
        Amounts { cpu, memory, others: [("x.com/gpu".into(), gpu)].into(), ..Amounts::default() }
    }

    #[test]
    fn strategies_score_as_upstream() {
        let score = |strategy: Value, gpu: i64| {
            let args = args(
                "NodeResourcesFit",
                json!({"apiVersion": "kubescheduler.config.k8s.io/v1", "kind": "NodeResourcesFitArgs", "scoringStrategy": strategy}),
            );
            args.expect("arguments").fit.scoring_strategy.score(&amounts(1000, 100, gpu), &amounts(1000, 300, 1), &amounts(4000, 1000, 4))
        };
        assert_eq!(score(json!({}), 0), 55, "half of the CPU and 60 % of memory are left");
        assert_eq!(score(json!({"type": "MostAllocated"}), 0), 45);
        let weighed = json!([{"name": "cpu", "weight": 3}, {"name": "memory", "weight": 1}, {"name": "x.com/gpu", "weight": 4}]);
        assert_eq!(score(json!({"type": "MostAllocated", "resources": weighed}), 0), 47, "nothing of it is asked for");
        assert_eq!(score(json!({"type": "MostAllocated", "resources": weighed}), 3), 73);
        let shape = json!({"shape": [{"utilization": 0, "score": 0}, {"utilization": 50, "score": 10}, {"utilization": 100, "score": 2}]});
        assert_eq!(score(json!({"type": "RequestedToCapacityRatio", "requestedToCapacityRatio": shape}), 0), 90, "100 for CPU, 80 for memory");
    }

    #[test]
    fn arguments_are_checked() {
        for (name, told, why) in [
            ("NodeResourcesFit", json!({"scoringStrategy": {"type": "Best"}}), "unknown variant `Best`"),
            ("NodeResourcesFit", json!({"scoringStrategy": {"type": "RequestedToCapacityRatio"}}), "at least one point"),
            ("NodeResourcesFit", json!({"scoringStrategy": {"resources": [{"name": "cpu", "weight": 0}]}}), "[1, 100]"),
            ("NodeResourcesFit", json!({"mode": 1}), "unknown field `mode`"),
            (
                "PodTopologySpread",
                json!({"defaultConstraints": [{"maxSkew": 1, "topologyKey": "z", "whenUnsatisfiable": "ScheduleAnyway"}]}),
                "when .defaultingType is System",
            ),
            ("InterPodAffinity", json!({"hardPodAffinityWeight": 101}), "[0, 100]"),
            ("DefaultPreemption", json!({"minCandidateNodesPercentage": 0, "minCandidateNodesAbsolute": 0}), "at the same time"),
            ("VolumeBinding", json!({}), "there are no arguments"),
        ] {
            let said = args(name, told).expect_err("refused");
            assert!(said.starts_with(&format!("pluginConfig of {name}: ")) && said.contains(why), "{said}");
        }
        let fit = args("NodeResourcesFit", json!({"ignoredResources": ["a.com/x"], "ignoredResourceGroups": ["b.com"]})).expect("arguments").fit;
        assert_eq!(["a.com/x", "a.com/y", "b.com/z", "cpu"].map(|name| fit.ignores(name)), [true, false, true, false]);
        let preemption =
            args("DefaultPreemption", json!({"minCandidateNodesPercentage": 50, "minCandidateNodesAbsolute": 1})).expect("arguments").preemption;
        assert_eq!((preemption.candidates(10), Preemption::default().candidates(10), Preemption::default().candidates(5000)), (5, 100, 500));
    }
}
