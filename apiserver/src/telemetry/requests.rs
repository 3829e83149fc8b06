//! Requests to the API (`apiserver_request_total` and its kin).

use super::{counters, durations, gauges};
use prometheus::{Error, Histogram, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, core::Collector, proto::MetricFamily};
use std::time::{Duration, Instant};

/// Upstream's buckets of `apiserver_request_duration_seconds`.
const BUCKETS: &[f64] =
    &[0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0];
/// What answers, in upstream's word.
const COMPONENT: &str = "apiserver";

/// What a request is counted as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct About<'a> {
    /// `GET`, `LIST`, `WATCH`, `CONNECT`, …
    pub verb: &'static str,
    /// `All` for a dry run.
    pub dry_run: &'static str,
    /// API group.
    pub group: &'a str,
    /// API version.
    pub version: &'a str,
    /// Plural; empty for what is none of this server's resources.
    pub resource: &'a str,
    /// Subresource, or the path of what is no resource.
    pub subresource: &'a str,
    /// `resource`, `namespace`, `cluster`.
    pub scope: &'static str,
}

/// See the module.
pub struct Requests {
    total: IntCounterVec,
    durations: HistogramVec,
    lasting: IntGaugeVec,
    inflight: IntGaugeVec,
    reading: IntGauge,
    writing: IntGauge,
}

/// Counted for as long as it is held.
pub struct One(IntGauge);

impl One {
    /// One more, until it is dropped.
    pub fn more(gauge: IntGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for One {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// A request that lasts: held by its answer's body.
pub struct Lasting {
    _one: One,
    began: Instant,
    durations: Histogram,
}

impl Drop for Lasting {
    fn drop(&mut self) {
        self.durations.observe(self.began.elapsed().as_secs_f64());
    }
}

impl Requests {
    /// Nothing was counted yet.
    ///
    /// # Errors
    /// A name or a label that the format does not know.
    pub fn new() -> Result<Self, Error> {
        let inflight = gauges("apiserver_current_inflight_requests", "Requests that are worked on.", &["request_kind"])?;
        Ok(Self {
            total: counters(
                "apiserver_request_total",
                "Requests, by what they asked for and how they were answered.",
                &["verb", "dry_run", "group", "version", "resource", "subresource", "scope", "component", "code"],
            )?,
            durations: durations(
                "apiserver_request_duration_seconds",
                "How long requests took.",
                &["verb", "dry_run", "group", "version", "resource", "subresource", "scope", "component"],
                BUCKETS,
            )?,
            lasting: gauges(
                "apiserver_longrunning_requests",
                "Watches and streams that are open.",
                &["verb", "group", "version", "resource", "subresource", "scope", "component"],
            )?,
            reading: inflight.with_label_values(&["readOnly"]),
            writing: inflight.with_label_values(&["mutating"]),
            inflight,
        })
    }

    fn durations_of(&self, a: &About<'_>) -> Histogram {
        self.durations.with_label_values(&[a.verb, a.dry_run, a.group, a.version, a.resource, a.subresource, a.scope, COMPONENT])
    }

    /// A request begins to be worked on that will not last.
    pub fn under_way(&self, writes: bool) -> One {
        One::more(if writes { self.writing.clone() } else { self.reading.clone() })
    }

    /// A request was answered, with this code.
    pub fn answered(&self, a: &About<'_>, code: &str) {
        self.total.with_label_values(&[a.verb, a.dry_run, a.group, a.version, a.resource, a.subresource, a.scope, COMPONENT, code]).inc();
    }

    /// It took so long.
    pub fn took(&self, a: &About<'_>, took: Duration) {
        self.durations_of(a).observe(took.as_secs_f64());
    }

    /// It goes on after its answer has begun.
    pub fn lasts(&self, a: &About<'_>, began: Instant) -> Lasting {
        let gauge = self.lasting.with_label_values(&[a.verb, a.group, a.version, a.resource, a.subresource, a.scope, COMPONENT]);
        Lasting { _one: One::more(gauge), began, durations: self.durations_of(a) }
    }

    /// What was counted.
    pub(super) fn collect(&self) -> Vec<MetricFamily> {
        let all: [&dyn Collector; 4] = [&self.total, &self.durations, &self.lasting, &self.inflight];
        all.iter().flat_map(|one| one.collect()).collect()
    }
}
