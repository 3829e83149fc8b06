//! The pure part, played without a runtime: tables of what happens and what follows.

mod any_order;
mod ending;
mod restarting;
mod running;
mod starting;

use super::{
    adopt::adopt,
    machine::{Action, Deletion, Event, Eviction, Exit, Machine, Note, Run, Sandbox, Why},
    observe,
    probes::Kind,
    spec::Pod,
    status, step,
    time::{Due, Time},
};
use serde_json::{Value, json};
use std::net::IpAddr;

const HOST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

/// A pod and a clock.
struct Play {
    pod: Pod,
    machine: Machine,
    now: Time,
    notes: Vec<Note>,
}

fn pod(spec: Value) -> Pod {
    serde_json::from_value(json!({ "metadata": { "name": "p", "namespace": "ns", "uid": "u", "generation": 2 }, "spec": spec })).unwrap()
}

impl Play {
    fn new(spec: Value) -> Self {
        let pod = pod(spec);
        let now = Time(1_700_000_000_000);
        let machine = Machine::new(&pod, now);
        Self { pod, machine, now, notes: Vec::new() }
    }

    fn one() -> Self {
        Self::new(json!({ "containers": [{ "name": "c", "image": "i" }] }))
    }

    /// What is wanted now, marked as begun.
    fn next(&mut self) -> Vec<Action> {
        let actions = step::step(&self.pod, &self.machine, self.now);
        for action in &actions {
            observe::begin(&self.pod, &mut self.machine, action, self.now, &mut self.notes);
        }
        actions
    }

    fn tell(&mut self, event: Event) {
        observe::observe(&self.pod, &mut self.machine, event, self.now, &mut self.notes);
    }

    /// Answers every action with success until nothing more is wanted now. Returns the actions in order.
    fn settle(&mut self) -> Vec<Action> {
        let mut all = Vec::new();
        for _ in 0..100 {
            let actions = self.next();
            if actions.is_empty() {
                return all;
            }
            for action in actions {
                all.push(action.clone());
                if let Some(event) = success(&action, self.now) {
                    self.tell(event);
                }
            }
        }
        panic!("it does not come to rest: {:?}", &all[all.len() - 8..]);
    }

    fn exit(&mut self, container: usize, code: i32) {
        let attempt = self.machine.containers[container].attempt;
        let reason = if code == 0 { "Completed" } else { "Error" };
        let exit = Exit { code, reason: reason.into(), message: String::new(), started: None, finished: self.now };
        self.tell(Event::Exited { container, attempt, exit });
    }

    fn wait(&mut self, millis: i64) {
        self.now = self.now.after(millis);
    }

    fn status(&mut self) -> Value {
        status::status(&self.pod, &mut self.machine, HOST, self.now)
    }

    fn phase(&mut self) -> String {
        self.status()["phase"].as_str().unwrap().to_string()
    }

    fn condition(&mut self, kind: &str) -> Value {
        let status = self.status();
        status["conditions"].as_array().unwrap().iter().find(|c| c["type"] == kind).cloned().unwrap()
    }

    fn starts(actions: &[Action]) -> Vec<usize> {
        actions.iter().filter_map(|a| if let Action::Start { container, .. } = a { Some(*container) } else { None }).collect()
    }

    fn reasons(&self) -> Vec<&str> {
        self.notes.iter().map(|n| n.reason.as_str()).collect()
    }
}

fn success(action: &Action, now: Time) -> Option<Event> {
    Some(match action.clone() {
        Action::Setup => Event::SetUp { ip: [10, 0, 0, 9].into(), refresh: None },
        Action::Pull { container } => Event::ImageReady { container, digest: "sha256:d".into() },
        Action::Start { container, attempt } => Event::Started { container, attempt },
        Action::Stop { container, attempt, .. } => {
            let exit = Exit { code: 143, reason: "Error".into(), message: String::new(), started: None, finished: now };
            Event::Exited { container, attempt, exit }
        }
        Action::Probe { container, attempt, kind } => Event::Probed { container, attempt, kind, outcome: Ok(()) },
        Action::PostStart { container, attempt } => Event::Hooked { container, attempt, well: true },
        Action::Refresh => Event::Refreshed(None),
        Action::Resize(_) => Event::Resized(Ok(Vec::new())),
        Action::Teardown | Action::Leave => Event::TornDown,
        Action::Delete => Event::Deleted(true),
        Action::Fail(_) | Action::Restart | Action::Forget => return None,
    })
}
