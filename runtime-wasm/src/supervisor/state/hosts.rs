//! What hosts say, and what becomes of containers by it.

use super::{Command, Due, Supervision, each, refusal, reply};
use crate::wire::{Answer, Happened, Kind, Refusal, Said};
use coracle_runtime::State;
use std::time::SystemTime;

impl<F> Supervision<F> {
    /// A host says something.
    pub fn said(&mut self, host: usize, said: Said) -> Vec<Command> {
        match said {
            Said::Up => self.host_up(host),
            Said::Started(name) => self.started(host, &name),
            Said::Failed(name, refusal) => self.failed(host, &name, refusal),
            Said::Exited { container, code, reason, message, finished } => self.exited(host, &container, code, &reason, message, finished),
            Said::Notice { container, warning, reason, message } => {
                self.tell(Happened::Notice { container, warning, reason, message }).into_iter().collect()
            }
            Said::LogFull(container) => self.tell(Happened::LogFull(container)).into_iter().collect(),
        }
    }

    /// A host that has just come up is told everything it is to run.
    fn host_up(&mut self, host: usize) -> Vec<Command> {
        let mut commands = Vec::new();
        self.up.insert(host);
        for (key, sandbox) in &self.sandboxes {
            let here = sandbox.containers.iter().filter(|(_, container)| !container.ended() && container.hosts.contains(&host));
            commands.extend(here.map(|(name, _)| Command::Tell(host, Due::Start(name.clone()))));
            if !sandbox.addresses.is_empty() {
                commands.push(Command::Tell(host, Due::Listeners(key.clone())));
            }
        }
        commands
    }

    fn started(&mut self, host: usize, name: &str) -> Vec<Command> {
        let Some((_, container)) = self.find(name) else { return Vec::new() };
        container.starting.remove(&host);
        let key = container.start.spec.sandbox.clone();
        if !container.starting.is_empty() || container.state != State::Created {
            return Vec::new();
        }
        container.state = State::Running { started: SystemTime::now() };
        let waiting = container.start_reply.take();
        let happened = Happened::State { container: name.to_owned(), state: container.state.clone() };
        let mut commands: Vec<Command> = self.tell(happened).into_iter().collect();
        commands.extend(waiting.map(|id| reply(id, Ok(Answer::Done))));
        // Its ports can now stand behind the sandbox's other addresses.
        if self.sandboxes.get(&key).is_some_and(|sandbox| !sandbox.addresses.is_empty()) {
            commands.extend(each(&self.up, &Due::Listeners(key)));
        }
        commands
    }

    fn failed(&mut self, host: usize, name: &str, refusal: Refusal) -> Vec<Command> {
        let Some((_, container)) = self.find(name) else { return Vec::new() };
        container.hosts.remove(&host);
        container.starting.remove(&host);
        container.failure.get_or_insert(refusal);
        if container.hosts.is_empty() {
            return self.over(name, 128, "StartError", String::new(), SystemTime::now());
        }
        if container.stopping { Vec::new() } else { self.end(name, 0) }
    }

    fn exited(&mut self, host: usize, name: &str, code: i32, reason: &str, message: String, finished: SystemTime) -> Vec<Command> {
        let Some((_, container)) = self.find(name) else { return Vec::new() };
        container.hosts.remove(&host);
        container.starting.remove(&host);
        if !container.hosts.is_empty() {
            return Vec::new();
        }
        self.over(name, code, reason, message, finished)
    }

    /// The last of it has ended.
    pub(super) fn over(&mut self, name: &str, code: i32, reason: &str, message: String, finished: SystemTime) -> Vec<Command> {
        let Some((_, container)) = self.find(name) else { return Vec::new() };
        let key = container.start.spec.sandbox.clone();
        let waiting = container.start_reply.take();
        let stopped = std::mem::take(&mut container.stop_replies);
        let mut commands = Vec::new();
        match (container.failure.take(), waiting) {
            (Some(failure), Some(id)) if container.state == State::Created => {
                // It never ran: the starter is told, and nothing is left of it, so that it can be tried again.
                commands.push(reply(id, Err(failure)));
                let slot = container.slot;
                if let Some(sandbox) = self.sandboxes.get_mut(&key) {
                    sandbox.containers.remove(name);
                }
                self.slots.insert(slot);
            }
            (failure, waiting) => {
                let (reason, message) = match failure {
                    Some(failure) => (failure.reason, failure.message),
                    None => (reason.to_owned(), message),
                };
                let happened = container.exit(code, &reason, message, finished);
                commands.extend(self.tell(happened));
                commands.extend(waiting.map(|id| reply(id, Ok(Answer::Done))));
            }
        }
        commands.extend(stopped.into_iter().map(|id| reply(id, Ok(Answer::Done))));
        commands.extend(self.bury(&key));
        commands
    }

    /// A host has died and will be replaced. Processes in it are over; what serves requests waits for the new one.
    pub fn host_died(&mut self, host: usize, how: &str) -> Vec<Command> {
        self.up.remove(&host);
        let mut over = Vec::new();
        for container in self.sandboxes.values_mut().flat_map(|sandbox| sandbox.containers.values_mut()) {
            if container.hosts.contains(&host) && (container.start.kind != Kind::Http || container.stopping) {
                container.hosts.remove(&host);
                container.starting.remove(&host);
                if container.hosts.is_empty() {
                    over.push((container.start.spec.id(), container.stopping, container.running()));
                }
            }
        }
        let mut commands = Vec::new();
        for (name, stopping, running) in over {
            let message = format!("the host process it ran in ended: {how}");
            if !running && let Some((_, container)) = self.find(&name) {
                container.failure.get_or_insert(refusal("StartError", message.clone(), false));
            }
            let (code, message) = if stopping { (0, String::new()) } else { (137, message) };
            commands.extend(self.over(&name, code, if code == 0 { "Completed" } else { "Error" }, message, SystemTime::now()));
        }
        commands
    }
}
