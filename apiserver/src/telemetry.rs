//! What a control plane tells monitoring: counters and durations in Prometheus' text format, under upstream's names.
//!
//! Counting is an atomic addition behind one look-up by labels; what can be read from state that is there anyway (objects, seats, the process) is read when somebody asks. Labels
//! come from small sets: verbs, kinds that are served, controllers' and schemas' names. What a client makes up is no label.

pub mod checks;
pub mod process;
pub mod requests;

use crate::pipeline::Core;
pub use prometheus::Error;
use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, TEXT_FORMAT, TextEncoder,
    core::{Collector, Metric},
    proto::MetricFamily,
};
use requests::Requests;

/// The media type of the text.
pub const MEDIA: &str = TEXT_FORMAT;

/// Everything that is counted, but for what rooms count for themselves.
pub struct Telemetry {
    /// Of the API.
    pub requests: Requests,
    /// Of controllers.
    pub queues: Queues,
    /// Of the scheduler.
    pub scheduler: Scheduler,
    /// Of health.
    pub checks: checks::Checks,
}

/// A counter with labels.
///
/// # Errors
/// A name or label that is none: a mistake in this program.
pub(crate) fn counters(name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, Error> {
    IntCounterVec::new(Opts::new(name, help), labels)
}

/// A gauge with labels.
///
/// # Errors
/// A name or a label that the format does not know.
pub(crate) fn gauges(name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec, Error> {
    IntGaugeVec::new(Opts::new(name, help), labels)
}

/// Durations in seconds, with labels.
///
/// # Errors
/// A name or a label that the format does not know.
pub(crate) fn durations(name: &str, help: &str, labels: &[&str], buckets: &[f64]) -> Result<HistogramVec, Error> {
    HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), labels)
}

/// The queues of controllers (client-go's `workqueue`).
pub struct Queues {
    depth: IntGaugeVec,
    adds: IntCounterVec,
    retries: IntCounterVec,
    work: HistogramVec,
}

/// One queue.
pub struct Queue {
    /// Keys that are ready.
    pub depth: IntGauge,
    /// Keys that were added.
    pub adds: IntCounter,
    /// Keys that failed and are tried again.
    pub retries: IntCounter,
    /// How long one key took.
    pub work: Histogram,
}

const WORK: &[f64] = &[1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0];

impl Queues {
    fn new() -> Result<Self, Error> {
        Ok(Self {
            depth: gauges("workqueue_depth", "Keys that are ready to be worked on.", &["name"])?,
            adds: counters("workqueue_adds_total", "Keys that were added.", &["name"])?,
            retries: counters("workqueue_retries_total", "Keys that failed and are tried again.", &["name"])?,
            work: durations("workqueue_work_duration_seconds", "How long keys were worked on.", &["name"], WORK)?,
        })
    }

    /// The queue of a controller.
    pub fn of(&self, name: &str) -> Queue {
        Queue {
            depth: self.depth.with_label_values(&[name]),
            adds: self.adds.with_label_values(&[name]),
            retries: self.retries.with_label_values(&[name]),
            work: self.work.with_label_values(&[name]),
        }
    }
}

/// The scheduler.
pub struct Scheduler {
    attempts: IntCounterVec,
    durations: HistogramVec,
    pending: IntGaugeVec,
    /// Attempts to make room by taking pods away.
    pub preemptions: IntCounter,
}

/// What came of an attempt to place a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placing {
    /// It has a node.
    Scheduled,
    /// It fits nowhere now.
    Unschedulable,
    /// Something went wrong.
    Error,
}

/// Pods that have no node yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pending {
    /// Ready to be placed.
    pub active: usize,
    /// Ready soon.
    pub backoff: usize,
    /// Waiting for a change.
    pub unschedulable: usize,
}

/// From a millisecond on, doubling (`metrics.ExponentialBuckets(0.001, 2, 15)`).
const ATTEMPTS: &[f64] = &[0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096, 8.192, 16.384];

impl Scheduler {
    fn new() -> Result<Self, Error> {
        Ok(Self {
            attempts: counters("scheduler_schedule_attempts_total", "Attempts to place pods, by what came of them.", &["result", "profile"])?,
            durations: durations("scheduler_scheduling_attempt_duration_seconds", "How long it took to decide.", &["result", "profile"], ATTEMPTS)?,
            pending: gauges("scheduler_pending_pods", "Pods without a node, by the queue they are in.", &["queue"])?,
            preemptions: IntCounter::new("scheduler_preemption_attempts_total", "Attempts to make room for a pod.")?,
        })
    }

    /// An attempt came to an end.
    pub fn placed(&self, profile: &str, result: Placing, took: std::time::Duration) {
        let result = match result {
            Placing::Scheduled => "scheduled",
            Placing::Unschedulable => "unschedulable",
            Placing::Error => "error",
        };
        self.attempts.with_label_values(&[result, profile]).inc();
        self.durations.with_label_values(&[result, profile]).observe(took.as_secs_f64());
    }

    /// So many wait.
    pub fn pending(&self, pending: Pending) {
        for (queue, count) in [("active", pending.active), ("backoff", pending.backoff), ("unschedulable", pending.unschedulable)] {
            self.pending.with_label_values(&[queue]).set(count as i64);
        }
    }
}

impl Telemetry {
    /// Nothing was counted yet.
    ///
    /// # Errors
    /// As [`Requests::new`].
    pub fn new() -> Result<Self, Error> {
        Ok(Self { requests: Requests::new()?, queues: Queues::new()?, scheduler: Scheduler::new()?, checks: checks::Checks::new()? })
    }
}

/// Values that are read at this moment, of one name.
pub(crate) fn now(name: &str, help: &str, labels: &[&str], values: impl IntoIterator<Item = (Vec<String>, f64)>) -> Result<MetricFamily, Error> {
    let gauges = prometheus::GaugeVec::new(Opts::new(name, help), labels)?;
    for (labels, value) in values {
        gauges.with_label_values(&labels).set(value);
    }
    gauges.collect().pop().ok_or_else(|| Error::Msg(name.to_owned()))
}

/// The same for what only grows.
pub(crate) fn grown(name: &str, help: &str, value: f64) -> Result<MetricFamily, Error> {
    let counter = prometheus::Counter::new(name, help)?;
    counter.inc_by(value);
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(prometheus::proto::MetricType::COUNTER);
    family.mut_metric().push(counter.metric());
    Ok(family)
}

impl Core {
    fn families(&self) -> Result<Vec<MetricFamily>, Error> {
        let Telemetry { requests, queues, scheduler, checks: _ } = &self.telemetry;
        let counted: [&dyn Collector; 7] =
            [&queues.depth, &queues.adds, &queues.retries, &queues.work, &scheduler.attempts, &scheduler.durations, &scheduler.pending];
        let mut families: Vec<MetricFamily> = counted.iter().flat_map(|one| one.collect()).collect();
        families.extend(scheduler.preemptions.collect());
        families.extend(requests.collect());
        families.extend(self.inflight.fairness.families()?);
        families.extend(process::families()?);
        let (major, minor) = crate::http::KUBERNETES;
        let build = [major, minor, &format!("v{major}.{minor}.0+coracle")].map(str::to_owned).to_vec();
        families.push(now("kubernetes_build_info", "Which Kubernetes this is.", &["major", "minor", "git_version"], [(build, 1.0)])?);
        let snapshot = self.store.snapshot();
        let objects = snapshot.resources().map(|(resource, count)| {
            let (plural, group) = resource.split_once('.').unwrap_or((resource, ""));
            (vec![group.to_owned(), plural.to_owned()], count as f64)
        });
        families.push(now("apiserver_resource_objects", "Stored objects, by kind.", &["group", "resource"], objects)?);
        let stats = self.store.stats();
        for (name, help, value) in [
            ("coracle_store_revision", "The revision that was applied last.", stats.revision as f64),
            ("coracle_store_oldest_revision", "The oldest revision that can be read.", stats.oldest as f64),
            ("coracle_store_watchers", "Open watches, the server's own among them.", stats.watchers as f64),
        ] {
            families.push(now(name, help, &[], [(Vec::new(), value)])?);
        }
        for (name, help, value) in [
            ("coracle_store_log_commits_total", "Commits of the log, an fsync each.", stats.log_commits),
            ("coracle_store_log_entries_total", "Entries that those commits wrote.", stats.log_entries),
            ("coracle_store_state_commits_total", "Commits of the state file.", stats.state_commits),
        ] {
            families.push(grown(name, help, value as f64)?);
        }
        Ok(families)
    }

    /// All of it as text (version 0.0.4 of the format).
    ///
    /// # Errors
    /// A name or a label that the format does not know.
    pub fn telemetry_text(&self) -> Result<Vec<u8>, Error> {
        text(self.families()?)
    }

    /// What came of health checks, and since when they are counted.
    ///
    /// # Errors
    /// As [`Core::telemetry_text`].
    pub fn checks_text(&self) -> Result<Vec<u8>, Error> {
        let began = process::families()?.into_iter().filter(|family| family.name() == process::BEGAN);
        text(self.telemetry.checks.collect().into_iter().chain(began).collect())
    }
}

fn text(mut families: Vec<MetricFamily>) -> Result<Vec<u8>, Error> {
    families.retain(|family| !family.get_metric().is_empty());
    families.sort_by(|a, b| a.name().cmp(b.name()));
    let mut text = Vec::new();
    TextEncoder::new().encode(&families, &mut text)?;
    Ok(text)
}
