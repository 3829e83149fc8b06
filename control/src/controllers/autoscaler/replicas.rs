//! How many replicas would bring what pods use to what is wanted of them (upstream's replica calculator).
//!
//! Pods whose use is not known, or not yet telling, are counted in the way that makes the change smaller; a change of direction is no change.

use crate::view::View;
use coracle_api::quantity::Quantity;
use coracle_apiserver::view::{Text, condition, pod::Status, time};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use std::collections::BTreeMap;

/// How long the CPU use of a pod that has just started may not be telling.
const CPU_INITIALIZATION: SignedDuration = SignedDuration::from_mins(5);
/// A pod that was never ready this long after its start has not been ready at all.
const READINESS_DELAY: SignedDuration = SignedDuration::from_secs(30);

/// A narrow view of `core/v1 Pod`.
pub type Pod<'a> = View<'a, PodSpec<'a>, Status<'a>>;

/// What a pod asks for and where it runs.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSpec<'a> {
    /// Where it runs.
    #[serde(borrow)]
    pub node_name: Text<'a>,
    containers: Vec<Container<'a>>,
    init_containers: Vec<Container<'a>>,
    resources: Resources<'a>,
}
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Container<'a> {
    #[serde(borrow)]
    name: Text<'a>,
    restart_policy: Text<'a>,
    resources: Resources<'a>,
}
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Resources<'a> {
    #[serde(borrow)]
    requests: BTreeMap<Text<'a>, Text<'a>>,
}

impl Resources<'_> {
    fn request(&self, resource: &str) -> Option<i64> {
        Quantity::parse(self.requests.get(resource)?).ok().map(|quantity| quantity.millis())
    }
}

impl Pod<'_> {
    /// Whether it runs and is ready.
    pub fn is_ready(&self) -> bool {
        self.status.phase == "Running" && condition(&self.status.conditions, "Ready").is_some_and(|ready| ready.status == "True")
    }

    /// What the pod, or one of its containers, asks for of a resource, thousandths.
    fn request(&self, resource: &str, container: Option<&str>) -> Result<i64, String> {
        let name = &self.metadata.name;
        if container.is_none() && !self.spec.resources.requests.is_empty() {
            let missing = || format!("missing pod-level request for {resource} in Pod {name}");
            return self.spec.resources.request(resource).ok_or_else(missing);
        }
        let sidecars = self.spec.init_containers.iter().filter(|c| c.restart_policy == "Always");
        let mut sum = 0;
        let mut found = container.is_none();
        for its in self.spec.containers.iter().chain(sidecars).filter(|its| container.is_none_or(|wanted| its.name == wanted)) {
            found = true;
            let missing = || format!("missing request for {resource} in container {} of Pod {name}", its.name);
            sum += its.resources.request(resource).ok_or_else(missing)?;
        }
        if found { Ok(sum) } else { Err(format!("container {} not found in Pod {name}", container.unwrap_or_default())) }
    }

    /// Whether what is measured of its CPU does not tell yet what it will be.
    fn warming_up(&self, used: &Used, now: Timestamp) -> bool {
        let (Some(ready), Some(start)) = (condition(&self.status.conditions, "Ready"), time(&self.status.start_time)) else { return true };
        let changed = ready.since().unwrap_or(Timestamp::UNIX_EPOCH);
        let after = |time: Timestamp, by: SignedDuration| time.saturating_add(by).unwrap_or(Timestamp::MAX);
        let unready = ready.status == "False";
        if after(start, CPU_INITIALIZATION) > now {
            unready || used.at < after(changed, used.window)
        } else {
            unready && after(start, READINESS_DELAY) > changed
        }
    }
}

/// What was measured of a pod, or of one of its containers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Used {
    /// When.
    pub at: Timestamp,
    /// Over what time.
    pub window: SignedDuration,
    /// Thousandths of a CPU, or of a byte.
    pub value: i64,
}

/// By what part of the target a use may be off without anything being done.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerances {
    /// Below it.
    pub down: f64,
    /// Above it.
    pub up: f64,
}

impl Default for Tolerances {
    fn default() -> Self {
        Self { down: 0.1, up: 0.1 }
    }
}

impl Tolerances {
    /// Whether a use that is this part of the target is near enough to it.
    pub fn hold(&self, ratio: f64) -> bool {
        (1.0 - self.down) <= ratio && ratio <= (1.0 + self.up)
    }
}

/// What a metric shall be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Aim {
    /// Percent of what is asked for.
    Utilization(i64),
    /// Thousandths, on average over pods.
    Average(i64),
}

/// The question.
pub struct Question<'a> {
    /// `cpu`, `memory`.
    pub resource: &'a str,
    /// Of one container of each pod only.
    pub container: Option<&'a str>,
    /// What it shall be.
    pub aim: Aim,
    /// Replicas there are.
    pub current: i64,
    /// How exact that is taken.
    pub tolerances: Tolerances,
    /// The time.
    pub now: Timestamp,
}

/// The answer.
#[derive(Debug, PartialEq)]
pub struct Proposal {
    /// How many replicas there should be.
    pub replicas: i64,
    /// Percent of what is asked for, where that is the aim.
    pub utilization: Option<i64>,
    /// Thousandths, on average over the pods that count.
    pub average: i64,
}

/// What pods use, measured against the aim.
struct Measure {
    ratio: f64,
    utilization: Option<i64>,
    average: i64,
}

fn measure(aim: Aim, values: &BTreeMap<&str, i64>, requests: &BTreeMap<&str, i64>) -> Result<Measure, String> {
    let total: i64 = values.values().fold(0, |sum: i64, value| sum.saturating_add(*value));
    let average = total / i64::try_from(values.len()).unwrap_or(i64::MAX).max(1);
    Ok(match aim {
        Aim::Average(target) => Measure { ratio: average as f64 / target as f64, utilization: None, average },
        Aim::Utilization(target) => {
            let asked: i64 = values.keys().filter_map(|pod| requests.get(pod)).sum();
            if asked == 0 {
                return Err("no metrics returned matched known pods".into());
            }
            let utilization = total.saturating_mul(100) / asked;
            Measure { ratio: utilization as f64 / target as f64, utilization: Some(utilization), average }
        }
    })
}

/// Answers for the pods that a target selects, each with what was measured of it.
///
/// # Errors
/// Why it cannot be told, in upstream's words.
pub fn propose(question: &Question<'_>, pods: &[(Pod<'_>, Option<Used>)]) -> Result<Proposal, String> {
    if pods.iter().all(|(_, used)| used.is_none()) {
        let resource = question.resource;
        return Err(format!("unable to get metrics for resource {resource}: no metrics returned from resource metrics API"));
    }
    calculate(question, pods)
}

/// The same for any metric of pods; `resource` is empty where it is none.
///
/// # Errors
/// Why it cannot be told, in upstream's words.
pub fn calculate(question: &Question<'_>, pods: &[(Pod<'_>, Option<Used>)]) -> Result<Proposal, String> {
    let Question { resource, container, aim, current, tolerances, now } = *question;
    let (mut values, mut unready, mut missing) = (BTreeMap::new(), Vec::new(), Vec::new());
    for (pod, used) in pods {
        let name = &*pod.metadata.name;
        if pod.metadata.deleting() || pod.status.phase == "Failed" {
            continue;
        }
        match used {
            _ if pod.status.phase == "Pending" => unready.push(name),
            None => missing.push(name),
            Some(used) if resource == "cpu" && pod.warming_up(used, now) => unready.push(name),
            Some(used) => drop(values.insert(name, used.value)),
        }
    }
    if values.is_empty() {
        return Err("did not receive metrics for targeted pods (pods might be unready)".into());
    }
    let ready = values.len();
    let mut requests = BTreeMap::new();
    if let Aim::Utilization(_) = aim {
        for (pod, _) in pods {
            requests.insert(&*pod.metadata.name, pod.request(resource, container)?);
        }
    }
    let first = measure(aim, &values, &requests)?;
    let answer = |replicas: i64| Proposal { replicas, utilization: first.utilization, average: first.average };
    let held = |ratio: f64| tolerances.hold(ratio);
    let wanted = |ratio: f64, pods: usize| (ratio * pods as f64).ceil().min(f64::from(i32::MAX)) as i64;
    let up_with_unready = !unready.is_empty() && first.ratio > 1.0;
    if !up_with_unready && missing.is_empty() {
        return Ok(answer(if held(first.ratio) { current } else { wanted(first.ratio, ready) }));
    }
    for name in missing {
        if first.ratio < 1.0 {
            // On the way down they may be using all that they asked for …
            values.insert(
                name,
                match aim {
                    Aim::Utilization(target) => requests.get(name).copied().unwrap_or(0) * target.max(100) / 100,
                    Aim::Average(target) => target,
                },
            );
        } else if first.ratio > 1.0 {
            // … and on the way up nothing.
            values.insert(name, 0);
        }
    }
    if up_with_unready {
        values.extend(unready.into_iter().map(|name| (name, 0)));
    }
    let second = measure(aim, &values, &requests)?.ratio;
    let turned = (first.ratio < 1.0 && second > 1.0) || (first.ratio > 1.0 && second < 1.0);
    if held(second) || turned {
        return Ok(answer(current));
    }
    let replicas = wanted(second, values.len());
    let turned = (second < 1.0 && replicas > current) || (second > 1.0 && replicas < current);
    Ok(answer(if turned { current } else { replicas }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-01-02T03:30:00Z";

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }
    fn pod(name: &str, ready: &str, started: &str) -> String {
        format!(
            r#"{{"metadata":{{"name":"{name}"}},"spec":{{"containers":[{{"name":"c","resources":{{"requests":{{"cpu":"1","memory":"1Ki"}}}}}}]}},
            "status":{{"phase":"Running","startTime":"{started}","conditions":[{{"type":"Ready","status":"{ready}","lastTransitionTime":"{started}"}}]}}}}"#
        )
    }
    fn used(value: i64) -> Option<Used> {
        Some(Used { at: at(NOW), window: SignedDuration::from_secs(15), value })
    }
    const OLD: &str = "2026-01-02T03:00:00Z";

    fn ask(aim: Aim, current: i64, pods: &[(String, Option<Used>)]) -> Result<Proposal, String> {
        let question = Question { resource: "cpu", container: None, aim, current, tolerances: Tolerances::default(), now: at(NOW) };
        let pods: Vec<(Pod<'_>, Option<Used>)> = pods.iter().map(|(json, used)| (serde_json::from_str(json).expect("a pod"), *used)).collect();
        propose(&question, &pods)
    }
    fn many(values: &[i64]) -> Vec<(String, Option<Used>)> {
        values.iter().enumerate().map(|(nth, value)| (pod(&format!("p{nth}"), "True", OLD), used(*value))).collect()
    }
    fn replicas(aim: Aim, current: i64, pods: &[(String, Option<Used>)]) -> i64 {
        ask(aim, current, pods).expect("a proposal").replicas
    }

    #[test]
    fn use_is_brought_to_the_target() {
        // Upstream's own table of cases.
        assert_eq!(ask(Aim::Utilization(30), 3, &many(&[300, 500, 700])), Ok(Proposal { replicas: 5, utilization: Some(50), average: 500 }));
        assert_eq!(replicas(Aim::Utilization(100), 5, &many(&[100, 300, 500, 250, 250])), 2);
        assert_eq!(replicas(Aim::Utilization(50), 3, &many(&[480, 500, 540])), 3, "within the tolerance");
        assert_eq!(ask(Aim::Average(250), 2, &many(&[500, 500])), Ok(Proposal { replicas: 4, utilization: None, average: 500 }));
    }

    #[test]
    fn pods_that_do_not_tell_make_the_change_smaller() {
        let mut up = many(&[300, 500]);
        up.push((pod("new", "False", "2026-01-02T03:29:50Z"), used(700)));
        assert_eq!(replicas(Aim::Utilization(30), 3, &up), 3, "27 % with the unready one at nothing would be down again");
        let mut missing = many(&[600, 600, 600]);
        missing.push((pod("mute", "True", OLD), None));
        assert_eq!(replicas(Aim::Utilization(30), 4, &missing), 6, "1800 m of four are 45 %");
        let mut down = many(&[100, 100, 100]);
        down.push((pod("mute", "True", OLD), None));
        assert_eq!(replicas(Aim::Utilization(50), 4, &down), 3, "the mute one counts as fully used");
        let mut ignored = many(&[500, 500]);
        ignored.push((
            pod("going", "True", OLD).replace(r#""name":"going""#, r#""name":"going","deletionTimestamp":"2026-01-02T03:29:00Z""#),
            used(9000),
        ));
        assert_eq!(replicas(Aim::Utilization(50), 2, &ignored), 2);
    }

    #[test]
    fn what_cannot_be_told_is_said() {
        let none = vec![(pod("a", "True", OLD), None)];
        assert_eq!(
            ask(Aim::Utilization(50), 1, &none),
            Err("unable to get metrics for resource cpu: no metrics returned from resource metrics API".into())
        );
        let cold = vec![(pod("a", "False", "2026-01-02T03:29:50Z"), used(1))];
        assert_eq!(ask(Aim::Utilization(50), 1, &cold), Err("did not receive metrics for targeted pods (pods might be unready)".into()));
        let modest = vec![(pod("a", "True", OLD).replace(r#""cpu":"1","#, ""), used(1))];
        assert_eq!(ask(Aim::Utilization(50), 1, &modest), Err("missing request for cpu in container c of Pod a".into()));
        assert!(ask(Aim::Average(50), 1, &modest).is_ok(), "an average needs no request");
    }
}
