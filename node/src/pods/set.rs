//! All pods of this node in one task: their machines, their timers, what is under way for them.
//!
//! One task holds everything, so nothing is locked and every event has a place in one order; what takes time (pulling, mounting,
//! starting, probing) runs beside it in tracked tasks and comes back as an event.

mod feed;
mod files;
mod listen;
mod report;
mod resize;

use super::{
    machine::{Action, Event, Eviction, Exit, Machine, Note, Sandbox},
    observe,
    spec::Pod,
    statics::Static,
    step,
    time::{Due, Time},
    work::Work,
};
use crate::{
    events,
    mirror::Change,
    network::Listeners,
    report::{Deleted, Reports},
};
use coracle_api::amounts::Amounts;
use coracle_runtime::State;
use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

/// Steps of one pod in a row; more would be a machine that does not come to rest.
const ROUNDS: usize = 32;

/// What the set is told from outside.
pub enum Input {
    /// The mirror changed.
    Changes(Vec<Change>),
    /// What the files of static pods say.
    Files(Vec<Static>),
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
    /// The uid of the pod that the API has of a static one, as last seen.
    mirror: Option<String>,
}

/// What a task comes back with.
enum Done {
    Event(Uid, Event),
    /// Which were asked for, and whether they could be had.
    Listening(Uid, Listeners, bool),
    ListenAgain(Uid),
    /// Nothing is left on disk of the pod that had that namespace and name.
    Removed((String, String)),
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
    files: files::Files,
}

impl Set {
    /// An empty set.
    pub fn new(work: Arc<Work>, reports: Reports, recorder: events::Recorder) -> Self {
        Self {
            work,
            reports,
            recorder,
            pods: HashMap::new(),
            names: HashMap::new(),
            timers: BTreeSet::new(),
            tasks: JoinSet::new(),
            stopping: None,
            files: files::Files::default(),
        }
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
                    Ok(Done::Removed(name)) => self.removed(&name),
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
            Input::Files(statics) => self.files(statics),
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

    fn runtime(&mut self, event: coracle_runtime::Event) {
        match event {
            coracle_runtime::Event::Container { sandbox, status } => {
                let Some(entry) = self.pods.get(sandbox.as_str()) else { return };
                let Some(container) = entry.pod.all_containers().position(|c| c.name == status.name) else { return };
                let (attempt, user) = (status.attempt, status.user);
                let event = match status.state {
                    State::Created => return,
                    State::Running { started } => Event::Running { container, attempt, since: started.into(), user },
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
        let room = event == Event::TornDown || matches!(event, Event::Resized(Ok(_)));
        if let Event::ImageReady { container, .. } = event
            && container < entry.pod.mains().end
        {
            // One OCI image makes an OCI sandbox, whatever the others are: it need not wait for them.
            entry.machine.runtime_known |= entry.pod.container(container).is_some_and(|container| self.work.is_oci(&container.image));
        }
        let mut notes = Vec::new();
        observe::observe(&entry.pod, &mut entry.machine, event, Time::now(), &mut notes);
        let pod = entry.pod.clone();
        for note in &notes {
            self.record(&pod, note);
        }
        self.pump(uid);
        if room {
            self.resize_those_who_wait();
        }
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
                    Action::Fail(_) | Action::Restart => {}
                    Action::Delete => {
                        self.report(uid, true);
                        self.reports.delete(report::about(&pod, uid));
                    }
                    Action::Forget => {
                        self.forget(uid);
                        return;
                    }
                    action => {
                        let work = self.work.clone();
                        let (pod, uid) = (pod.clone(), uid.clone());
                        let last = if action == Action::Teardown { self.last_status(&uid) } else { None };
                        self.tasks.spawn(async move {
                            let kept = match last {
                                Some(status) => work.keep_end(&uid, status).await,
                                None => Ok(()),
                            };
                            let event = match kept {
                                Ok(()) => work.carry_out(&pod, action, ip).await,
                                Err(why) => Event::TeardownFailed(why),
                            };
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
        self.remove_directory(uid, name);
        if entry.pod.from_file {
            self.publish();
        }
        self.resize_those_who_wait();
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

async fn sleep(wait: Option<Duration>) {
    match wait {
        Some(wait) => tokio::time::sleep(wait).await,
        None => std::future::pending().await,
    }
}
