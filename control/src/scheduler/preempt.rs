//! Makes room: which pods of less priority would have to go from which node, so that a pod fits (upstream's DefaultPreemption).
//!
//! On every node that pods' going may help, all pods of less priority are supposed gone; then as many as possible are spared again,
//! those first that budgets protect, then the more important. Of the nodes that would do, the one is taken whose victims matter least.

use super::{
    cluster::{Cluster, Node, Placed},
    plugins::Attempt,
    profile::Profile,
    select::{NoFit, Reasons, check},
};
use coracle_apiserver::view::{Map, budget::Budget, parse};
use coracle_store::{Key, Snapshot};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

const BUDGETS: &str = "poddisruptionbudgets.policy";

/// A pod that has to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Victim {
    /// Its key.
    pub key: Key,
    /// Only this one.
    pub uid: Box<str>,
    priority: i64,
    started: Box<str>,
    /// It goes already.
    pub deleting: bool,
}

impl Victim {
    fn of(key: &Key, placed: &Placed) -> Self {
        let (uid, started) = (placed.meta.uid.clone(), placed.started.clone());
        Self { key: key.clone(), uid, priority: placed.priority, started, deleting: placed.deleting }
    }

    /// The more important first: by priority, then by age. One that did not start yet is youngest.
    fn importance(&self) -> (Reverse<i64>, bool, &str, &Key) {
        (Reverse(self.priority), self.started.is_empty(), &self.started, &self.key)
    }
}

/// A node on which room can be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Room {
    /// The node.
    pub node: Arc<str>,
    /// Who has to go, the most important first.
    pub victims: Vec<Victim>,
    violations: usize,
}

impl Room {
    /// What it costs; the least is taken: broken budgets, the highest priority among the victims, their priorities together, their
    /// number, and how long the longest-lived of the most important has run (the later it began the better).
    fn cost(&self) -> (usize, i64, i64, usize, Reverse<&str>) {
        let highest = self.victims.first().map_or(i64::MIN, |victim| victim.priority);
        // Moved above zero, so that many of little count for more than one.
        let sum = self.victims.iter().map(|victim| victim.priority + i64::from(i32::MAX) + 1).sum();
        let eldest = self.victims.iter().filter(|victim| victim.priority == highest).map(|victim| &*victim.started).min();
        (self.violations, highest, sum, self.victims.len(), Reverse(eldest.unwrap_or_default()))
    }
}

/// Why no room is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// In upstream's words.
    pub why: String,
    /// Whether room that was made before is of no use.
    pub give_up: bool,
}

/// How many evictions each budget still allows, and which pods it counted already.
struct Allowance<'a> {
    budget: Budget<'a>,
    left: i64,
}

/// Parts victims into those that a budget protects and the others, in order.
fn protected(victims: Vec<Victim>, budgets: &mut [Allowance<'_>], labels: &BTreeMap<Key, Map<'static>>) -> (Vec<Victim>, Vec<Victim>) {
    victims.into_iter().partition(|victim| {
        let labels = labels.get(&victim.key);
        let mut breaks = false;
        for Allowance { budget, left } in budgets.iter_mut() {
            let selector = budget.spec.selector.as_ref().filter(|selector| !selector.is_empty());
            let speaks = *budget.metadata.namespace == *victim.key.namespace
                && labels.is_some_and(|labels| !labels.is_empty() && selector.is_some_and(|selector| selector.matches(labels)));
            if speaks && !budget.status.disrupted_pods.contains_key(&*victim.key.name) {
                *left -= 1;
                breaks |= *left < 0;
            }
        }
        breaks
    })
}

/// Who has to go from this node; the reasons if all of less priority do not suffice.
fn on_node(attempt: &Attempt<'_, '_>, node: &Node, cluster: &Cluster, profile: &Profile, snapshot: &Snapshot) -> Result<Room, Vec<String>> {
    let (mut node, mut attempt) = (node.clone(), attempt.clone());
    let lower = node.pods.iter().filter(|(_, placed)| placed.priority < attempt.pod.spec.priority);
    let mut victims: Vec<Victim> = lower.map(|(key, placed)| Victim::of(key, placed)).collect();
    if victims.is_empty() {
        return Err(vec!["No preemption victims found for incoming pod".to_owned()]);
    }
    let mut gone: BTreeMap<Key, Placed> = BTreeMap::new();
    for victim in &victims {
        if let Some(placed) = node.remove(&victim.key) {
            attempt.suppose(&node, &victim.key, &placed, -1, cluster);
            gone.insert(victim.key.clone(), placed);
        }
    }
    let refusal = check(&attempt, &node, cluster, profile);
    if !refusal.is_empty() {
        return Err(refusal.reasons.into_iter().map(Into::into).collect());
    }
    victims.sort_by(|a, b| a.importance().cmp(&b.importance()));
    let namespaces: BTreeSet<Arc<str>> = victims.iter().map(|victim| victim.key.namespace.clone()).collect();
    let objects: Vec<_> = namespaces.iter().flat_map(|namespace| snapshot.range(BUDGETS, Some(&**namespace), None).cloned()).collect();
    let budgets = objects.iter().filter_map(|object| parse::<Budget<'_>>(object).ok());
    let mut budgets: Vec<_> = budgets.map(|budget| Allowance { left: budget.status.disruptions_allowed, budget }).collect();
    let labels = |placed: &Placed| placed.meta.labels.iter().map(|(k, v)| (k.to_string().into(), v.to_string().into())).collect();
    let labels = gone.iter().map(|(key, placed)| (key.clone(), labels(placed))).collect();
    let (violating, others) = protected(victims, &mut budgets, &labels);
    let mut room = Room { node: node.name.clone(), victims: Vec::new(), violations: 0 };
    let guarded = violating.len();
    for (index, victim) in violating.into_iter().chain(others).enumerate() {
        let Some(placed) = gone.remove(&victim.key) else { continue };
        node.add(victim.key.clone(), placed.clone());
        attempt.suppose(&node, &victim.key, &placed, 1, cluster);
        if check(&attempt, &node, cluster, profile).is_empty() {
            continue;
        }
        node.remove(&victim.key);
        attempt.suppose(&node, &victim.key, &placed, -1, cluster);
        room.violations += usize::from(index < guarded);
        room.victims.push(victim);
    }
    room.victims.sort_by(|a, b| a.importance().cmp(&b.importance()));
    Ok(room)
}

/// The node on which room is made for the pod, and who has to go. `turn` says where to begin if there are very many nodes.
///
/// # Errors
/// When it may not, or cannot, make room.
pub fn preempt(
    attempt: &Attempt<'_, '_>,
    no: &NoFit,
    cluster: &Cluster,
    profile: &Profile,
    snapshot: &Snapshot,
    turn: usize,
) -> Result<Room, Refused> {
    let pod = attempt.pod;
    // What upstream's plugin for devices says before preemption has its turn: it has no claim that it could take back.
    let devices = if pod.spec.resource_claims.is_empty() { "no new claims to deallocate" } else { "still not schedulable" };
    let told = |why: &str| format!("{devices}, preemption: {why}");
    let refused = |why: &str| Err(Refused { why: told(why), give_up: false });
    if pod.spec.preemption_policy == "Never" {
        return refused("not eligible due to preemptionPolicy=Never.");
    }
    let nominated = &*pod.status.nominated_node_name;
    let helps = no.curable.iter().any(|name| **name == *nominated);
    if let Some(node) = cluster.node(nominated).filter(|_| helps)
        && node.pods.values().any(|placed| placed.priority < pod.spec.priority && placed.preempted)
    {
        return refused("not eligible due to a terminating pod on the nominated node.");
    }
    let wanted = profile.args.preemption.candidates(no.curable.len());
    let mut rooms: Vec<Room> = Vec::new();
    let mut reasons = Reasons::default();
    let mut tried = 0;
    for index in 0..no.curable.len() {
        let Some(name) = no.curable.get((turn + index) % no.curable.len()) else { break };
        let Some(node) = cluster.node(name) else { continue };
        match on_node(attempt, node, cluster, profile, snapshot) {
            Ok(room) if room.victims.is_empty() => {}
            Ok(room) => rooms.push(room),
            Err(why) => {
                why.iter().for_each(|reason| reasons.add(reason, 1));
                tried += 1;
            }
        }
        if rooms.len() >= wanted && rooms.iter().any(|room| room.violations == 0) {
            break;
        }
    }
    let best = rooms.into_iter().min_by(|a, b| a.cost().cmp(&b.cost()).then_with(|| a.node.cmp(&b.node)));
    best.ok_or_else(|| {
        reasons.add("Preemption is not helpful for scheduling", no.total() - tried);
        Refused { why: told(&reasons.message(no.total())), give_up: true }
    })
}
