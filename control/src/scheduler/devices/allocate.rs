//! Finds devices for claims on a node (upstream's structured allocator): every request of every claim is met, or none. Pure.
//!
//! A search in order, which takes the first solution. Devices of one request are chosen in the order of their pools, so that two like devices are not tried both ways round;
//! what it may cost is bounded (`budget`), where upstream has a timeout.

use super::{
    budget::{LOOKS, Share},
    model::{Claim, Class, Constraint, Device, DeviceId, Exact, Place},
};
use serde_json::{Value, json};
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// Most devices of one claim, as upstream.
const MOST_RESULTS: usize = 32;
/// Why a search ends that costs too much, in upstream's words.
const TIMED_OUT: &str = "timed out trying to allocate devices";

/// Why it cannot be said what claims would be given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Something is wrong with what the node has, or there is too much of it.
    Node(&'static str),
    /// Something is wrong with a claim or a class: wherever the pod went, it would come out.
    Claim(String),
}

impl From<String> for Failure {
    fn from(why: String) -> Self {
        Self::Claim(why)
    }
}

/// A device that can be used on the node.
#[derive(Clone, Debug)]
pub struct Candidate<'d> {
    /// What it is called.
    pub id: &'d DeviceId,
    /// What it is.
    pub device: &'d Device,
    /// Where it, or its slice, can be used.
    pub place: &'d Place,
}

/// The devices of one pool that can be used on the node.
#[derive(Debug, Default)]
pub struct Pool<'d> {
    /// Driver and name.
    pub name: (String, String),
    /// Why nothing of it can be given at the moment, if so: it is being changed, or it contradicts itself.
    pub unusable: Option<&'static str>,
    /// Its devices.
    pub devices: Vec<Candidate<'d>>,
}

/// Says whether an expression selects a device, or why that cannot be said; None if it would cost too much.
pub type Selects<'s> = &'s dyn Fn(&str, &Candidate<'_>) -> Option<Result<bool, String>>;

/// What is allocated from.
pub struct Source<'s, 'd> {
    /// The pools.
    pub pools: &'s [Pool<'d>],
    /// Whether others have a device.
    pub taken: &'s dyn Fn(&DeviceId) -> bool,
    /// Classes by name.
    pub classes: &'s BTreeMap<String, Class>,
    /// Selectors.
    pub selects: Selects<'s>,
    /// What may be spent.
    pub share: &'s RefCell<Share>,
}

/// One way to meet a request.
struct Choice<'c> {
    named: String,
    exact: &'c Exact,
    class: &'c Class,
    all: bool,
    count: usize,
    /// Places in the list of candidates.
    fitting: Vec<usize>,
}

/// What the devices that a constraint is about have in common so far.
#[derive(Default)]
struct Common {
    values: Vec<Value>,
}

struct Search<'s, 'd, 'c> {
    source: &'s Source<'s, 'd>,
    candidates: Vec<&'s Candidate<'d>>,
    claims: &'c [Arc<Claim>],
    options: Vec<Vec<Vec<Choice<'c>>>>,
    common: Vec<Vec<Common>>,
    /// By claim: option and candidate.
    picked: Vec<Vec<(usize, usize, usize)>>,
    used: BTreeSet<usize>,
}

#[derive(Clone, Copy)]
struct At {
    claim: usize,
    request: usize,
    /// The alternative that is being tried.
    option: Option<usize>,
    nth: usize,
    /// The first candidate that may be the next.
    from: usize,
}

fn named(claim: &Claim, request: &str) -> String {
    format!("claim {}/{}, request {request}", claim.metadata.namespace, claim.metadata.name)
}

/// The allocation of each claim; None if the node has not enough devices.
///
/// # Errors
/// What is wrong with a claim, a class or a pool, in upstream's words.
pub fn allocate(claims: &[Arc<Claim>], source: &Source<'_, '_>) -> Result<Option<Vec<Value>>, Failure> {
    let candidates: Vec<&Candidate<'_>> = source.pools.iter().filter(|pool| pool.unusable.is_none()).flat_map(|pool| &pool.devices).collect();
    let mut options = Vec::new();
    for claim in claims {
        let mut of_claim = Vec::new();
        let mut least = 0;
        for request in &claim.spec.devices.requests {
            let mut of_request = Vec::new();
            for exact in request.options() {
                of_request.push(option(claim, request.named(exact), exact, source, &candidates)?);
            }
            least += of_request.iter().map(|option| option.count).min().unwrap_or(0);
            of_claim.push(of_request);
        }
        if least > MOST_RESULTS {
            let (namespace, name) = (&claim.metadata.namespace, &claim.metadata.name);
            return Err(format!("claim {namespace}/{name}: number of requested devices {least} exceeds the claim limit of {MOST_RESULTS}").into());
        }
        options.push(of_claim);
    }
    let common = claims.iter().map(|claim| claim.spec.devices.constraints.iter().map(|_| Common::default()).collect()).collect();
    let picked = claims.iter().map(|_| Vec::new()).collect();
    let mut search = Search { source, candidates, claims, options, common, picked, used: BTreeSet::new() };
    let done = search.step(At { claim: 0, request: 0, option: None, nth: 0, from: 0 })?;
    if !done && source.pools.iter().any(|pool| pool.unusable == Some(INVALID)) {
        return Err(Failure::Node("invalid resource pools were encountered"));
    }
    Ok(done.then(|| (0..claims.len()).map(|claim| search.result(claim)).collect()))
}

/// Why a pool cannot be used that is not whole.
pub const INCOMPLETE: &str = "currently being updated";
/// Why a pool cannot be used whose devices have the same name.
pub const INVALID: &str = "currently invalid";

fn option<'c>(claim: &Claim, name: String, exact: &'c Exact, source: &Source<'c, '_>, candidates: &[&Candidate<'_>]) -> Result<Choice<'c>, Failure> {
    let who = || named(claim, &name);
    let class = source.classes.get(&exact.device_class_name);
    let class = class.ok_or_else(|| format!("{}: could not retrieve device class {}", who(), exact.device_class_name))?;
    let all = match &*exact.allocation_mode {
        "All" => true,
        "ExactCount" | "" => false,
        other => return Err(format!("{}: unsupported count mode {other}", who()).into()),
    };
    if all && let Some((pool, why)) = source.pools.iter().find_map(|pool| Some((pool, pool.unusable?))) {
        return Err(format!("{}: asks for all devices, but resource pool {}/{} is {why}", who(), pool.name.0, pool.name.1).into());
    }
    let mut fitting = Vec::new();
    if !source.share.borrow_mut().pay(candidates.len() as u64 / LOOKS) {
        return Err(Failure::Node(TIMED_OUT));
    }
    for (at, candidate) in candidates.iter().enumerate() {
        let free = exact.admin_access || all || !(source.taken)(candidate.id);
        if free && candidate.device.is_plain() && selected(claim, exact, class, candidate, source.selects)? {
            fitting.push(at);
        }
    }
    let count = if all { fitting.len() } else { exact.count.unwrap_or(1) };
    Ok(Choice { named: name, exact, class, all, count, fitting })
}

fn selected(claim: &Claim, exact: &Exact, class: &Class, candidate: &Candidate<'_>, selects: Selects<'_>) -> Result<bool, Failure> {
    let of_class = class.spec.selectors.iter().enumerate().map(|selector| (true, selector));
    for (of_class, (at, selector)) in of_class.chain(exact.selectors.iter().enumerate().map(|selector| (false, selector))) {
        let said = selects(&selector.cel.expression, candidate).ok_or(Failure::Node(TIMED_OUT))?;
        let matches = said.map_err(|why| match of_class {
            true => format!("class {}: selector #{at}: {why}", exact.device_class_name),
            false => format!("claim {}/{}: selector #{at}: {why}", claim.metadata.namespace, claim.metadata.name),
        })?;
        if !matches {
            return Ok(false);
        }
    }
    Ok(true)
}

fn concerns(constraint: &Constraint, request: &str) -> bool {
    let parent = request.split('/').next().unwrap_or_default();
    constraint.requests.is_empty() || constraint.requests.iter().any(|name| name == request || name == parent)
}

impl Search<'_, '_, '_> {
    fn step(&mut self, at: At) -> Result<bool, Failure> {
        let Some(of_claim) = self.options.get(at.claim) else { return Ok(true) };
        let Some(of_request) = of_claim.get(at.request) else {
            return self.step(At { claim: at.claim + 1, request: 0, option: None, nth: 0, from: 0 });
        };
        let Some(option) = at.option else {
            for option in 0..of_request.len() {
                if self.step(At { option: Some(option), nth: 0, from: 0, ..at })? {
                    return Ok(true);
                }
            }
            return Ok(false);
        };
        let Some(chosen) = of_request.get(option) else { return Ok(false) };
        if chosen.all && chosen.fitting.is_empty() {
            return Ok(false);
        }
        if at.nth >= chosen.count {
            return self.step(At { claim: at.claim, request: at.request + 1, option: None, nth: 0, from: 0 });
        }
        let (missing, all, fitting) = (chosen.count - at.nth, chosen.all, chosen.fitting.len());
        if self.picked.get(at.claim).map_or(0, Vec::len) + missing > MOST_RESULTS {
            return Ok(false);
        }
        for place in at.from..fitting {
            // Too few are left.
            if fitting - place < missing {
                return Ok(false);
            }
            if !self.source.share.borrow_mut().try_one() {
                return Err(Failure::Node(TIMED_OUT));
            }
            if self.pick(at, option, place)? {
                if self.step(At { nth: at.nth + 1, from: place + 1, ..at })? {
                    return Ok(true);
                }
                self.put_back(at.claim);
            } else if all {
                return Ok(false);
            }
        }
        Ok(false)
    }

    /// Takes a device, if it is free and as the constraints want it.
    fn pick(&mut self, at: At, option: usize, place: usize) -> Result<bool, Failure> {
        let Some(chosen) = self.options.get(at.claim).and_then(|claim| claim.get(at.request)?.get(option)) else { return Ok(false) };
        let (Some(&candidate), Some(claim)) = (chosen.fitting.get(place), self.claims.get(at.claim)) else { return Ok(false) };
        let Some(&found) = self.candidates.get(candidate) else { return Ok(false) };
        let picked = self.picked.get(at.claim).map_or(&[][..], Vec::as_slice);
        let busy = match chosen.exact.admin_access {
            true => picked.iter().any(|(.., other)| *other == candidate),
            false => self.used.contains(&candidate) || (self.source.taken)(found.id),
        };
        if busy || found.device.repels(chosen.exact) {
            return Ok(false);
        }
        let mut added = Vec::new();
        for (nth, constraint) in claim.spec.devices.constraints.iter().enumerate() {
            if !concerns(constraint, &chosen.named) {
                continue;
            }
            let common = self.common.get(at.claim).and_then(|all| all.get(nth)).map_or(&[][..], |common| common.values.as_slice());
            let (name, distinct) = match (&constraint.match_attribute, &constraint.distinct_attribute) {
                (Some(name), _) => (name, false),
                (None, Some(name)) => (name, true),
                (None, None) => return Err(format!("{}: empty constraint (unsupported constraint type?)", named(claim, &chosen.named)).into()),
            };
            let value = found.device.attribute(&found.id.driver, name);
            let fits = value.is_some_and(|value| if distinct { !common.contains(value) } else { common.first().is_none_or(|first| first == value) });
            match value.filter(|_| fits) {
                Some(value) => added.push((nth, value.clone())),
                None if chosen.all => {
                    let id = found.id;
                    let device = format!("{}/{}/{}", id.driver, id.pool, id.device);
                    let who = named(claim, &chosen.named);
                    return Err(format!("{who}: cannot add device {device} because a claim constraint would not be satisfied").into());
                }
                None => return Ok(false),
            }
        }
        let admin = chosen.exact.admin_access;
        for (nth, value) in added {
            if let Some(common) = self.common.get_mut(at.claim).and_then(|all| all.get_mut(nth)) {
                common.values.push(value);
            }
        }
        if !admin {
            self.used.insert(candidate);
        }
        if let Some(picked) = self.picked.get_mut(at.claim) {
            picked.push((at.request, option, candidate));
        }
        Ok(true)
    }

    /// Gives the last device of a claim back.
    fn put_back(&mut self, claim: usize) {
        let Some((request, option, candidate)) = self.picked.get_mut(claim).and_then(Vec::pop) else { return };
        let Some(chosen) = self.options.get(claim).and_then(|claim| claim.get(request)?.get(option)) else { return };
        if !chosen.exact.admin_access {
            self.used.remove(&candidate);
        }
        let constraints = self.claims.get(claim).map_or(&[][..], |claim| claim.spec.devices.constraints.as_slice());
        for (constraint, common) in constraints.iter().zip(self.common.get_mut(claim).into_iter().flatten()) {
            if concerns(constraint, &chosen.named) {
                common.values.pop();
            }
        }
    }

    /// `AllocationResult` of a claim.
    fn result(&self, nth: usize) -> Value {
        let picked = self.picked.get(nth).map_or(&[][..], Vec::as_slice);
        let chosen = |request: usize, option: usize| self.options.get(nth).and_then(|claim| claim.get(request)?.get(option));
        let mut results = Vec::new();
        let mut places = Vec::new();
        for (request, option, candidate) in picked {
            let (Some(chosen), Some(found)) = (chosen(*request, *option), self.candidates.get(*candidate)) else { continue };
            let mut result = json!({"request": chosen.named, "driver": found.id.driver, "pool": found.id.pool, "device": found.id.device});
            if chosen.exact.admin_access {
                result["adminAccess"] = true.into();
            }
            if !chosen.exact.tolerations.is_empty() {
                result["tolerations"] = json!(chosen.exact.tolerations);
            }
            results.push(result);
            places.push(found.place);
        }
        let config = self.config(nth, picked);
        let mut devices = json!({"results": results});
        if !config.is_empty() {
            devices["config"] = json!(config);
        }
        let mut allocation = json!({"devices": devices});
        if let Some(selector) = selector(&places) {
            allocation["nodeSelector"] = selector;
        }
        allocation
    }

    /// What drivers are told: of each class once, then what the claim says about the requests that were met.
    fn config(&self, nth: usize, picked: &[(usize, usize, usize)]) -> Vec<Value> {
        let Some(claim) = self.claims.get(nth) else { return Vec::new() };
        let mut met: Vec<&Choice<'_>> = Vec::new();
        for (request, option, _) in picked {
            if let Some(chosen) = self.options.get(nth).and_then(|claim| claim.get(*request)?.get(*option))
                && !met.iter().any(|its| its.named == chosen.named)
            {
                met.push(chosen);
            }
        }
        let mut classes: Vec<(&str, &Class, Vec<&str>)> = Vec::new();
        for chosen in &met {
            let name = chosen.exact.device_class_name.as_str();
            match classes.iter_mut().find(|(its, ..)| *its == name) {
                Some((_, _, requests)) => requests.push(&chosen.named),
                None => classes.push((name, chosen.class, vec![&chosen.named])),
            }
        }
        let with = |source: &str, config: &Value, requests: &[&str]| {
            let mut config = config.clone();
            config["source"] = source.into();
            if !requests.is_empty() {
                config["requests"] = json!(requests);
            }
            config
        };
        let of_classes =
            classes.iter().flat_map(|(_, class, requests)| class.spec.config.iter().map(move |config| with("FromClass", config, requests)));
        let of_claim = claim.spec.devices.config.iter().filter_map(|config| {
            let requests: Vec<&str> = config["requests"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            let concerns = |chosen: &&Choice<'_>| {
                let parent = chosen.named.split('/').next().unwrap_or_default();
                requests.iter().any(|name| *name == chosen.named || *name == parent)
            };
            (requests.is_empty() || met.iter().any(concerns)).then(|| with("FromClaim", config, &requests))
        });
        of_classes.chain(of_claim).collect()
    }
}

/// Where all of the places are: on one node, or where their selectors agree; None for anywhere.
fn selector(places: &[&Place]) -> Option<Value> {
    let (mut expressions, mut fields): (Vec<Value>, Vec<Value>) = (Vec::new(), Vec::new());
    let add = |into: &mut Vec<Value>, requirement: Value| {
        if !into.contains(&requirement) {
            into.push(requirement);
        }
    };
    for place in places {
        if let Some(node) = &place.node_name {
            add(&mut fields, json!({"key": "metadata.name", "operator": "In", "values": [node]}));
        }
        let term = place.node_selector.as_ref().and_then(|selector| selector["nodeSelectorTerms"].get(0));
        for (field, into) in [("matchExpressions", &mut expressions), ("matchFields", &mut fields)] {
            let requirements = term.and_then(|term| term[field].as_array()).into_iter().flatten();
            requirements.for_each(|requirement| add(into, requirement.clone()));
        }
    }
    let mut term = serde_json::Map::new();
    for (name, requirements) in [("matchExpressions", expressions), ("matchFields", fields)] {
        if !requirements.is_empty() {
            term.insert(name.into(), requirements.into());
        }
    }
    (!term.is_empty()).then(|| json!({"nodeSelectorTerms": [term]}))
}

#[cfg(test)]
#[path = "allocate_tests.rs"]
mod tests;
