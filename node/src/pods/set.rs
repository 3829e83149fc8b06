//! All pods of this node in one task: their machines, their timers, what is under way for them.
//!
//! One task holds everything, so nothing is locked and every event has a place in one order; what takes time (pulling, mounting,
//! starting, probing) runs beside it in tracked tasks and comes back as an event.

use super::{
    adopt, fit,
    machine::{Action, Event, Eviction, Exit, Image, Machine, Note, Run, Sandbox, Verdict},
    observe,
    spec::Pod,
    status, step,
    time::{Due, Time},
    views::{ContainerView, View},
    work::{Work, host_ports},
};
use crate::{
    events,
    mirror::{Change, Key},
    network::Listeners,
    report::{self, Deleted, Reports},
};
use bytes::Bytes;
use coracle_api::amounts::{Amounts, quantity};
use coracle_runtime::{SandboxStatus, State};
use std::{
    collections::{BTreeSet, HashMap, HashSet},
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

/// How long a status that only says "being made" waits for a better one, milliseconds.
const PATIENCE: i64 = 150;
/// Steps of one pod in a row; more would be a machine that does not come to rest.
const ROUNDS: usize = 32;

/// When a Service address could not be listened on, it is tried again after this time.
const LISTEN_AGAIN: std::time::Duration = std::time::Duration::from_secs(30);

/// What the set is told from outside.
pub enum Input {
    /// The mirror changed.
    Changes(Vec<Change>),
    /// What hosts of pods are to listen on, by the pods' uids.
    Listeners(Vec<(String, Listeners)>),
    /// A runtime spoke.
    Runtime(coracle_runtime::Event),
    /// A deletion went well or not.
    Deleted(Deleted),
    /// A pod takes more than it may, or than there is.
    Evict(Uid, Eviction),
    /// Stop all pods within the bound; answers the names of those that were late.
    Stop {
        /// Bound.
        bound: Duration,
        /// Where the answer goes.
        answer: oneshot::Sender<Vec<String>>,
    },
}

struct Entry {
    pod: Arc<Pod>,
    /// What it asks for.
    asks: Amounts,
    machine: Machine,
    wake: Option<Time>,
    reported: Option<u64>,
    /// A status that says little waits until then.
    patience: Option<Due>,
    /// Service addresses that its host is to listen on, and those it does; None when some could not be had.
    wanted: Listeners,
    held: Option<Listeners>,
    listening: bool,
    /// A timer runs after which they are asked for again.
    again: bool,
}

/// What a task comes back with.
enum Done {
    Event(Uid, Event),
    /// Which were asked for, and whether they could be had.
    Listening(Uid, Listeners, bool),
    ListenAgain(Uid),
}

struct Stopping {
    /// When what still runs is killed.
    cut: tokio::time::Instant,
    /// Who was there at the cut.
    late: Option<Vec<String>>,
    deadline: tokio::time::Instant,
    answer: oneshot::Sender<Vec<String>>,
}

/// A pod's uid.
pub type Uid = Arc<str>;

/// See the module.
pub struct Set {
    work: Arc<Work>,
    reports: Reports,
    recorder: events::Recorder,
    pods: HashMap<Uid, Entry>,
    names: HashMap<(String, String), Uid>,
    timers: BTreeSet<(Time, Uid)>,
    tasks: JoinSet<Done>,
    stopping: Option<Stopping>,
}

impl Set {
    /// An empty set.
    pub fn new(work: Arc<Work>, reports: Reports, recorder: events::Recorder) -> Self {
        Self { work, reports, recorder, pods: HashMap::new(), names: HashMap::new(), timers: BTreeSet::new(), tasks: JoinSet::new(), stopping: None }
    }

    /// Takes over what the mirror names and the runtimes have; removes what nobody names. Once, before [`Self::run`].
    pub async fn adopt(&mut self, sandboxes: Vec<SandboxStatus>) {
        let now = Time::now();
        let mut running: HashMap<String, SandboxStatus> = sandboxes.into_iter().map(|s| (s.spec.pod.uid.clone(), s)).collect();
        for (_, json) in self.work.objects.list("pods", None) {
            let Some(pod) = self.ours(&json) else { continue };
            let sandbox = running.remove(&pod.metadata.uid);
            if let Some(sandbox) = sandbox.as_ref().filter(|sandbox| !sandbox.spec.linux.host_network) {
                // The address is taken before any new pod can have it.
                if let Err(why) = self.work.network.assign(&pod.metadata.uid, Some(sandbox.spec.ip)).await {
                    tracing::warn!(pod = %pod.long_name(), %why, "keep the address of an adopted pod");
                }
                self.work.network.host_ports(&pod.metadata.uid, host_ports(&pod, sandbox.spec.ip)).await;
            }
            let logs = |container: &str| self.work.highest_log(&pod.metadata.uid, container);
            let machine = adopt::adopt(&pod, sandbox.as_ref(), logs, now);
            self.insert(pod, machine);
        }
        for (uid, sandbox) in running {
            tracing::info!(pod = %sandbox.spec.pod.name, namespace = %sandbox.spec.pod.namespace, "remove a sandbox that no pod owns");
            self.work.remove_orphan(&uid).await;
        }
        self.work.remove_strangers(&self.pods.keys().map(|uid| uid.to_string()).collect::<HashSet<_>>()).await;
        let uids: Vec<Uid> = self.pods.keys().cloned().collect();
        for uid in uids {
            self.pump(&uid);
        }
        self.work.services_changed();
    }

    /// Runs until cancelled, or until a stop is over.
    pub async fn run(mut self, mut inputs: mpsc::Receiver<Input>, cancel: CancellationToken) {
        loop {
            let now = Time::now();
            let next = self.timers.first().map(|(time, _)| time.wait_from(now));
            let deadline = self.stopping.as_ref().map(|s| if s.late.is_none() { s.cut } else { s.deadline });
            tokio::select! {
                () = cancel.cancelled() => return,
                input = inputs.recv() => match input {
                    None => return,
                    Some(input) => self.input(input).await,
                },
                Some(done) = self.tasks.join_next() => match done {
                    Ok(Done::Event(uid, event)) => self.event(&uid, event),
                    Ok(Done::Listening(uid, asked, had)) => self.listened(uid, asked, had),
                    Ok(Done::ListenAgain(uid)) => {
                        if let Some(entry) = self.pods.get_mut(&uid) {
                            entry.again = false;
                        }
                        self.listen(&uid);
                    }
                    Err(why) => tracing::error!(%why, "a pod's action ended without an answer"),
                },
                () = sleep(next), if next.is_some() => self.tick(),
                () = tokio::time::sleep_until(deadline.unwrap_or_else(tokio::time::Instant::now)), if deadline.is_some() => {}
            }
            if self.stopped() {
                return;
            }
        }
    }

    /// A stop that is over, or whose bound is reached, is answered.
    fn stopped(&mut self) -> bool {
        let Some(stopping) = &mut self.stopping else { return false };
        let left: Vec<String> = self
            .pods
            .values()
            .filter(|e| e.machine.sandbox != Sandbox::Gone)
            .map(|e| format!("{}/{}", e.pod.metadata.namespace, e.pod.metadata.name))
            .collect();
        let (now, done) = (tokio::time::Instant::now(), left.is_empty());
        if now >= stopping.cut {
            stopping.late.get_or_insert(left);
        }
        if !done && now < stopping.deadline {
            return false;
        }
        if let Some(stopping) = self.stopping.take() {
            let _ = stopping.answer.send(stopping.late.unwrap_or_default());
        }
        true
    }

    async fn input(&mut self, input: Input) {
        match input {
            Input::Changes(changes) => self.changes(changes),
            Input::Listeners(listeners) => self.listeners(listeners),
            Input::Runtime(event) => self.runtime(event),
            Input::Evict(uid, eviction) => self.event(&uid, Event::Evicted(eviction)),
            Input::Deleted(deleted) => self.event(&deleted.uid, Event::Deleted(deleted.done)),
            Input::Stop { bound, answer } => {
                let now = tokio::time::Instant::now();
                // The last tenth of the bound is for what follows the containers' end.
                let grace = bound * 9 / 10;
                self.stopping = Some(Stopping { cut: now + grace, late: None, deadline: now + bound, answer });
                let grace = i64::try_from(grace.as_millis()).unwrap_or(i64::MAX);
                let uids: Vec<Uid> = self.pods.keys().cloned().collect();
                for uid in uids {
                    self.event(&uid, Event::Leave(grace));
                }
            }
        }
    }

    /// The pod, if it is for this node.
    fn ours(&self, json: &[u8]) -> Option<Pod> {
        match Pod::parse(json) {
            Ok(pod) if pod.spec.node_name == self.work.options.node_name && !pod.metadata.uid.is_empty() => Some(pod),
            Ok(_) => None,
            Err(why) => {
                tracing::error!(%why, "read a pod that the feed brought");
                None
            }
        }
    }

    fn insert(&mut self, pod: Pod, mut machine: Machine) {
        let uid: Uid = pod.metadata.uid.as_str().into();
        machine.runtime_known = self.work.runtime_named(&pod);
        let asks = fit::asks(&pod);
        if machine.verdict.is_none() {
            if let Err(verdict) = self.work.admit(&pod) {
                machine.verdict = Some(verdict.clone());
                self.record(&pod, &Note { container: None, warning: true, reason: verdict.reason, message: verdict.message });
            } else if let Err(Verdict { reason, message }) = self.fits(&pod, &machine, &asks) {
                machine.verdict = Some(Verdict { reason: reason.clone(), message: format!("Pod was rejected: {message}") });
                self.record(&pod, &Note { container: None, warning: true, reason, message });
            }
        }
        if self.stopping.is_some() {
            machine.leaving = Some(0);
        }
        self.names.insert((pod.metadata.namespace.clone(), pod.metadata.name.clone()), uid.clone());
        self.pods.insert(
            uid,
            Entry {
                pod: Arc::new(pod),
                asks,
                machine,
                wake: None,
                reported: None,
                patience: None,
                wanted: Vec::new(),
                held: Some(Vec::new()),
                listening: false,
                again: false,
            },
        );
    }

    /// Whether there is room for a pod that begins here, beside those that have not ended.
    fn fits(&self, pod: &Pod, machine: &Machine, asks: &Amounts) -> Result<(), Verdict> {
        let begun = machine.sandbox != Sandbox::Absent || machine.containers.iter().any(|container| container.created);
        if begun || pod.deletion_grace().is_some() || step::end(pod, machine).is_some() {
            return Ok(());
        }
        fit::bears(pod, self.work.pressure())?;
        let here = || self.pods.values().filter(|entry| step::end(&entry.pod, &entry.machine).is_none());
        fit::ports(pod, here().map(|entry| &*entry.pod))?;
        let (mut used, mut others) = (Amounts::default(), 0);
        for entry in here() {
            used.add(&entry.asks);
            others += 1;
        }
        fit::fits(pod, asks, &used, others, &self.work.room(), self.work.node().as_ref())
    }

    fn changes(&mut self, changes: Vec<Change>) {
        let mut services = false;
        let mut named: HashSet<Key> = HashSet::new();
        for (key, json) in changes {
            match key.resource.as_str() {
                "pods" => self.pod_changed(key, json),
                "services" | "endpointslices.discovery.k8s.io" => services = true,
                "configmaps" | "secrets" => {
                    named.insert(key);
                }
                _ => {}
            }
        }
        if !named.is_empty() {
            let hit: Vec<(Uid, bool)> = self
                .pods
                .iter()
                .filter_map(|(uid, entry)| {
                    let namespace = &entry.pod.metadata.namespace;
                    let touches = |list: Vec<(&'static str, &str)>| {
                        list.into_iter().any(|(resource, name)| named.contains(&Key::new(resource, namespace, name)))
                    };
                    touches(entry.pod.references()).then(|| (uid.clone(), touches(entry.pod.volume_references())))
                })
                .collect();
            for (uid, volume) in hit {
                self.event(&uid, Event::DependencyChanged { volume });
            }
        }
        if services {
            self.work.services_changed();
        }
        self.work.changed();
    }

    fn pod_changed(&mut self, key: Key, json: Option<Bytes>) {
        let name = (key.namespace, key.name);
        let old = self.names.get(&name).cloned();
        let Some(pod) = json.as_deref().and_then(|json| self.ours(json)) else {
            if let Some(uid) = old {
                self.event(&uid, Event::Gone);
            }
            return;
        };
        let uid: Uid = pod.metadata.uid.as_str().into();
        if let Some(old) = old.filter(|old| *old != uid) {
            self.event(&old, Event::Gone);
        }
        match self.pods.get_mut(&uid) {
            Some(entry) => {
                let fields = pod.spec.volumes.iter().any(|v| v.downward_api.is_some() || v.projected.is_some());
                let volume =
                    fields && (entry.pod.metadata.labels != pod.metadata.labels || entry.pod.metadata.annotations != pod.metadata.annotations);
                for condition in &pod.status.conditions {
                    // Others' conditions matter to readiness gates.
                    if pod.spec.readiness_gates.iter().any(|g| g.condition_type == condition.r#type) {
                        entry.machine.conditions.insert(condition.r#type.clone(), (condition.status.clone(), Time::now()));
                    }
                }
                let images = |pod: &Pod| pod.all_containers().map(|c| c.image.clone()).collect::<Vec<_>>();
                let changed = entry.pod.metadata.generation != pod.metadata.generation || images(&entry.pod) != images(&pod);
                entry.asks = fit::asks(&pod);
                entry.pod = Arc::new(pod);
                // The node's own status reports come back here too: they are no reason to try anything again.
                if changed || volume { self.event(&uid, Event::SpecChanged { volume }) } else { self.pump(&uid) }
            }
            None => {
                let machine = if pod.status.container_statuses.is_empty() && pod.status.phase != "Failed" {
                    Machine::new(&pod, Time::now())
                } else {
                    // It ran here before: the mirror was lost, or the pod came back within the feed.
                    adopt::adopt(&pod, None, |container| self.work.highest_log(&pod.metadata.uid, container), Time::now())
                };
                self.insert(pod, machine);
                self.pump(&uid);
            }
        }
    }

    fn listeners(&mut self, listeners: Vec<(String, Listeners)>) {
        for (uid, listeners) in listeners {
            let uid = Uid::from(uid);
            if let Some(entry) = self.pods.get_mut(&uid) {
                entry.wanted = listeners;
                self.listen(&uid);
            }
        }
    }

    fn runtime(&mut self, event: coracle_runtime::Event) {
        match event {
            coracle_runtime::Event::Container { sandbox, status } => {
                let Some(entry) = self.pods.get(sandbox.as_str()) else { return };
                let Some(container) = entry.pod.all_containers().position(|c| c.name == status.name) else { return };
                let attempt = status.attempt;
                let event = match status.state {
                    State::Created => return,
                    State::Running { started } => Event::Running { container, attempt, since: started.into() },
                    State::Exited { code, reason, message, started, finished } => {
                        let exit = Exit { code, reason, message, started: started.map(Into::into), finished: finished.into() };
                        Event::Exited { container, attempt, exit }
                    }
                };
                self.event(&Uid::from(sandbox), event);
            }
            coracle_runtime::Event::Notice { sandbox, container, kind, reason, message } => {
                let Some(entry) = self.pods.get(sandbox.as_str()) else { return };
                let container = entry.pod.all_containers().position(|c| c.name == container);
                let note = Note { container, warning: kind == "Warning", reason, message };
                self.record(&entry.pod.clone(), &note);
            }
            coracle_runtime::Event::SandboxLost { sandbox, message } => self.event(&Uid::from(sandbox), Event::SandboxLost(message)),
        }
    }

    fn event(&mut self, uid: &Uid, event: Event) {
        let Some(entry) = self.pods.get_mut(uid) else { return };
        let mut notes = Vec::new();
        observe::observe(&entry.pod, &mut entry.machine, event, Time::now(), &mut notes);
        let pod = entry.pod.clone();
        for note in &notes {
            self.record(&pod, note);
        }
        self.pump(uid);
    }

    fn tick(&mut self) {
        let now = Time::now();
        while let Some((time, uid)) = self.timers.first().cloned() {
            if time > now {
                return;
            }
            self.timers.pop_first();
            if let Some(entry) = self.pods.get_mut(&uid) {
                entry.wake = None;
            }
            self.pump(&uid);
        }
    }

    /// Lets a pod take its steps until it waits for something, then reports.
    fn pump(&mut self, uid: &Uid) {
        for _ in 0..ROUNDS {
            let Some(entry) = self.pods.get_mut(uid) else { return };
            let now = Time::now();
            let actions = step::step(&entry.pod, &entry.machine, now);
            if actions.is_empty() {
                break;
            }
            let mut notes = Vec::new();
            for action in &actions {
                observe::begin(&entry.pod, &mut entry.machine, action, now, &mut notes);
            }
            let pod = entry.pod.clone();
            let ip = entry.machine.ip;
            for note in &notes {
                self.record(&pod, note);
            }
            for action in actions {
                match action {
                    Action::Fail(_) => {}
                    Action::Delete => {
                        self.report(uid, true);
                        self.reports.delete(about(&pod, uid));
                    }
                    Action::Forget => {
                        self.forget(uid);
                        return;
                    }
                    action => {
                        let work = self.work.clone();
                        let (pod, uid) = (pod.clone(), uid.clone());
                        self.tasks.spawn(async move {
                            let event = work.carry_out(&pod, action, ip).await;
                            Done::Event(uid, event)
                        });
                    }
                }
            }
        }
        self.report(uid, false);
        self.listen(uid);
        self.schedule(uid);
        self.show(uid);
    }

    fn report(&mut self, uid: &Uid, at_once: bool) {
        let Some(entry) = self.pods.get_mut(uid) else { return };
        // A pod that is stopped with its agent has not ended: it comes back with it.
        if entry.machine.leaving.is_some() || entry.machine.gone {
            return;
        }
        let now = Time::now();
        let status = status::status(&entry.pod, &mut entry.machine, self.work.options.node_ip, now);
        let mut hasher = DefaultHasher::new();
        status.to_string().hash(&mut hasher);
        let hash = hasher.finish();
        if entry.reported == Some(hash) {
            entry.patience = None;
            return;
        }
        if !at_once && being_made(&entry.pod, &entry.machine) {
            let due = *entry.patience.get_or_insert(Due::in_millis(now, PATIENCE));
            if !due.reached(now) {
                return;
            }
        }
        entry.patience = None;
        entry.reported = Some(hash);
        self.reports.status(about(&entry.pod, uid), status);
    }

    fn schedule(&mut self, uid: &Uid) {
        let Some(entry) = self.pods.get_mut(uid) else { return };
        let now = Time::now();
        let wake = [step::wake(&entry.pod, &entry.machine, now), entry.patience.map(|due| due.at)].into_iter().flatten().min();
        if wake == entry.wake {
            return;
        }
        if let Some(old) = entry.wake.take() {
            self.timers.remove(&(old, uid.clone()));
        }
        if let Some(time) = wake {
            entry.wake = Some(time);
            self.timers.insert((time, uid.clone()));
        }
    }

    fn show(&self, uid: &Uid) {
        let Some(entry) = self.pods.get(uid) else { return };
        let over = step::end(&entry.pod, &entry.machine).is_some() || entry.pod.deletion_grace().is_some();
        let containers = entry
            .pod
            .all_containers()
            .zip(&entry.machine.containers)
            .enumerate()
            .map(|(index, (container, state))| ContainerView {
                name: container.name.clone(),
                attempt: state.attempt,
                created: state.created,
                alive: state.alive(),
                over: over || matches!(&state.run, Run::Exited(exit) if !step::restarts(step::policy(&entry.pod, index), exit.code)),
                waiting: match (&state.run, &state.image) {
                    (Run::Refused { reason, .. }, _) | (_, Image::Failed { reason, .. }) => Some(reason.clone()),
                    (Run::Idle | Run::Starting, _) => Some("ContainerCreating".into()),
                    _ => None,
                },
                started: match &state.run {
                    Run::Running { since, .. } => Some(*since),
                    _ => None,
                },
                image: container.image.clone(),
                memory_limit: container.resources.limits.get("memory").and_then(|limit| u64::try_from(quantity(limit).units()).ok()),
            })
            .collect();
        self.work.views.set(View {
            namespace: entry.pod.metadata.namespace.clone(),
            name: entry.pod.metadata.name.clone(),
            uid: uid.clone(),
            ip: entry.machine.ip,
            containers,
            start_time: entry.machine.start_time.rfc3339(),
            active: !over,
        });
    }

    /// Has the pod's host listen where it should, one change at a time.
    fn listen(&mut self, uid: &Uid) {
        let Some(entry) = self.pods.get_mut(uid) else { return };
        if entry.machine.sandbox != Sandbox::Ready {
            entry.held = Some(Vec::new());
            return;
        }
        if entry.listening || entry.held.as_ref() == Some(&entry.wanted) {
            return;
        }
        entry.listening = true;
        let (work, pod, uid, wanted) = (self.work.clone(), entry.pod.clone(), uid.clone(), entry.wanted.clone());
        self.tasks.spawn(async move {
            let had = work.listen(&pod, wanted.clone()).await;
            Done::Listening(uid, wanted, had)
        });
    }

    fn listened(&mut self, uid: Uid, asked: Listeners, had: bool) {
        let Some(entry) = self.pods.get_mut(&uid) else { return };
        entry.listening = false;
        let changed = entry.wanted != asked;
        entry.held = had.then_some(asked);
        if had || changed {
            return self.listen(&uid);
        }
        if !std::mem::replace(&mut entry.again, true) {
            self.tasks.spawn(async move {
                tokio::time::sleep(LISTEN_AGAIN).await;
                Done::ListenAgain(uid)
            });
        }
    }

    fn forget(&mut self, uid: &Uid) {
        let Some(entry) = self.pods.remove(uid) else { return };
        if let Some(time) = entry.wake {
            self.timers.remove(&(time, uid.clone()));
        }
        let name = (entry.pod.metadata.namespace.clone(), entry.pod.metadata.name.clone());
        if self.names.get(&name) == Some(uid) {
            self.names.remove(&name);
        }
        self.reports.forget(uid);
        self.work.views.remove(uid);
        self.work.counters.forget(uid);
        self.work.remove_directory(uid);
    }

    fn record(&self, pod: &Pod, note: &Note) {
        let about = events::About {
            kind: "Pod",
            namespace: pod.metadata.namespace.clone(),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            field_path: note.container.map(|index| pod.field_path(index)).unwrap_or_default(),
        };
        self.recorder.record(about, note.warning, &note.reason, &note.message);
    }
}

fn about(pod: &Pod, uid: &Uid) -> report::About {
    report::About { uid: uid.clone(), namespace: pod.metadata.namespace.clone(), name: pod.metadata.name.clone() }
}

/// Nothing is wrong and nothing has come of it yet: such a status can wait a moment for the next.
fn being_made(pod: &Pod, machine: &Machine) -> bool {
    step::end(pod, machine).is_none()
        && !matches!(machine.sandbox, Sandbox::Failed(_))
        && machine.containers.iter().all(|c| !matches!(c.image, Image::Failed { .. }) && !c.created && matches!(c.run, Run::Idle | Run::Starting))
}

async fn sleep(wait: Option<Duration>) {
    match wait {
        Some(wait) => tokio::time::sleep(wait).await,
        None => std::future::pending().await,
    }
}
