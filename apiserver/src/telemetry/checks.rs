//! What came of health checks, for `/metrics/slis` (upstream's `component-base/metrics/prometheus/slis`).

use super::{counters, gauges};
use prometheus::{Error, IntCounterVec, IntGaugeVec, core::Collector, proto::MetricFamily};

/// Counted by check and endpoint; both are words of this program.
pub struct Checks {
    last: IntGaugeVec,
    all: IntCounterVec,
}

impl Checks {
    pub(super) fn new() -> Result<Self, Error> {
        Ok(Self {
            last: gauges("kubernetes_healthcheck", "Whether a check passed when it was last asked for.", &["name", "type"])?,
            all: counters("kubernetes_healthchecks_total", "Checks, by what came of them.", &["name", "type", "status"])?,
        })
    }

    /// A check was made because of an endpoint (`livez`, `readyz`, `healthz`).
    pub fn made(&self, name: &str, endpoint: &str, passed: bool) {
        self.last.with_label_values(&[name, endpoint]).set(passed.into());
        self.all.with_label_values(&[name, endpoint, if passed { "success" } else { "error" }]).inc();
    }

    pub(super) fn collect(&self) -> Vec<MetricFamily> {
        [self.last.collect(), self.all.collect()].concat()
    }
}
