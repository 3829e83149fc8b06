//! What is counted of priority and fairness (`apiserver_flowcontrol_*`).

use crate::telemetry::{counters, durations, gauges, now, requests::One};
use prometheus::{Error, HistogramVec, IntCounterVec, IntGaugeVec, core::Collector, proto::MetricFamily};
use std::time::Duration;

/// Upstream's buckets of the wait for a seat.
const WAITS: &[f64] = &[0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0];
const BOTH: &[&str] = &["priority_level", "flow_schema"];

/// Why a request got no seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// There was no room to wait, or none is given.
    Full,
    /// It waited for too long.
    Late,
    /// The client went away.
    Gone,
}

/// See the module.
pub struct Counts {
    dispatched: IntCounterVec,
    rejected: IntCounterVec,
    waits: HistogramVec,
    waiting: IntGaugeVec,
    executing: IntGaugeVec,
}

/// The seats of a level, now.
pub struct Limits {
    /// Its name.
    pub level: String,
    /// Its own, what it keeps, what it may have at the most, what it has.
    pub seats: [usize; 4],
}

impl Counts {
    /// Nothing was counted yet.
    ///
    /// # Errors
    /// A name or a label that the format does not know.
    pub fn new() -> Result<Self, Error> {
        Ok(Self {
            dispatched: counters("apiserver_flowcontrol_dispatched_requests_total", "Requests that got a seat.", BOTH)?,
            rejected: counters(
                "apiserver_flowcontrol_rejected_requests_total",
                "Requests that got no seat.",
                &["priority_level", "flow_schema", "reason"],
            )?,
            waits: durations(
                "apiserver_flowcontrol_request_wait_duration_seconds",
                "How long requests waited for a seat.",
                &["priority_level", "flow_schema", "execute"],
                WAITS,
            )?,
            waiting: gauges("apiserver_flowcontrol_current_inqueue_requests", "Requests that wait for a seat.", BOTH)?,
            executing: gauges("apiserver_flowcontrol_current_executing_requests", "Requests that have a seat.", BOTH)?,
        })
    }

    /// One more waits, until this is dropped.
    pub fn waits(&self, level: &str, schema: &str) -> One {
        One::more(self.waiting.with_label_values(&[level, schema]))
    }

    /// It has a seat, until this is dropped.
    pub fn seated(&self, level: &str, schema: &str, waited: Duration) -> One {
        self.dispatched.with_label_values(&[level, schema]).inc();
        self.waits.with_label_values(&[level, schema, "true"]).observe(waited.as_secs_f64());
        One::more(self.executing.with_label_values(&[level, schema]))
    }

    /// It has none. One whose client went away never waited in upstream's sense.
    pub fn refused(&self, level: &str, schema: &str, why: Why, waited: Duration) {
        let reason = match why {
            Why::Full => "queue-full",
            Why::Late => "time-out",
            Why::Gone => "cancelled",
        };
        self.rejected.with_label_values(&[level, schema, reason]).inc();
        self.waits.with_label_values(&[level, schema, "false"]).observe(waited.as_secs_f64());
    }

    /// All of it, with the seats as they are.
    ///
    /// # Errors
    /// A name or a label that the format does not know.
    pub fn families(&self, limits: &[Limits]) -> Result<Vec<MetricFamily>, Error> {
        let all: [&dyn Collector; 5] = [&self.dispatched, &self.rejected, &self.waits, &self.waiting, &self.executing];
        let mut families: Vec<MetricFamily> = all.iter().flat_map(|one| one.collect()).collect();
        for (nth, (name, help)) in [
            ("apiserver_flowcontrol_nominal_limit_seats", "Seats that are a level's own."),
            ("apiserver_flowcontrol_lower_limit_seats", "Seats that a level keeps however little it uses."),
            ("apiserver_flowcontrol_upper_limit_seats", "Seats that a level may have at the most."),
            ("apiserver_flowcontrol_current_limit_seats", "Seats that a level has now."),
        ]
        .into_iter()
        .enumerate()
        {
            let values = limits.iter().filter_map(|limits| Some((vec![limits.level.clone()], *limits.seats.get(nth)? as f64)));
            families.push(now(name, help, &["priority_level"], values)?);
        }
        Ok(families)
    }
}
