//! Startup, liveness and readiness probes: when the next one is due, and what a row of outcomes means.

use super::{
    machine::{ContainerState, Hook, Run},
    spec::{Container, Probe},
    time::{Due, Time},
};

/// Which probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Holds the other two back until it succeeds.
    Startup,
    /// Restarts the container when it fails.
    Liveness,
    /// Takes the pod out of Services while it fails.
    Readiness,
}

impl Kind {
    /// All three, in the order of [`ContainerState::probes`].
    pub const ALL: [Kind; 3] = [Kind::Startup, Kind::Liveness, Kind::Readiness];

    /// As events name it: `Readiness probe failed: …`.
    pub fn title(self) -> &'static str {
        match self {
            Kind::Startup => "Startup",
            Kind::Liveness => "Liveness",
            Kind::Readiness => "Readiness",
        }
    }

    /// The probe in the container's spec.
    pub fn of(self, container: &Container) -> Option<&Probe> {
        match self {
            Kind::Startup => container.startup_probe.as_ref(),
            Kind::Liveness => container.liveness_probe.as_ref(),
            Kind::Readiness => container.readiness_probe.as_ref(),
        }
    }
}

/// One probe of one container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProbeState {
    /// A probe is under way.
    pub in_flight: bool,
    /// The next one; at the start plus initialDelaySeconds when none was yet.
    pub next: Option<Due>,
    /// Outcomes of one kind in a row: (success, how many).
    pub streak: Option<(bool, u32)>,
    /// What the thresholds make of it.
    pub verdict: Option<bool>,
}

impl Probe {
    /// Milliseconds between probes.
    pub fn period(&self) -> i64 {
        if self.period_seconds <= 0 { 10_000 } else { self.period_seconds.saturating_mul(1000) }
    }

    /// Milliseconds one probe may take.
    pub fn timeout(&self) -> i64 {
        self.timeout_seconds.max(1).saturating_mul(1000)
    }
}

/// The container has started in the probes' sense: it runs, and its postStart hook and startup probe, if any, have succeeded.
pub fn started(container: &Container, state: &ContainerState) -> bool {
    matches!(state.run, Run::Running { .. })
        && state.hook == Hook::Done
        && (container.startup_probe.is_none() || state.probes[Kind::Startup as usize].verdict == Some(true))
}

/// The container is ready: it has started and its readiness probe, if any, succeeds.
pub fn ready(container: &Container, state: &ContainerState) -> bool {
    started(container, state) && (container.readiness_probe.is_none() || state.probes[Kind::Readiness as usize].verdict == Some(true))
}

/// When the probe is due next; `None` while it must not run.
pub fn due(kind: Kind, container: &Container, state: &ContainerState) -> Option<Due> {
    let probe = kind.of(container)?;
    let Run::Running { since, stopping } = state.run else { return None };
    let own = &state.probes[kind as usize];
    // A container that stops may say so: it is asked for its readiness to its end.
    if stopping.is_some() && kind != Kind::Readiness || own.in_flight || state.hook != Hook::Done {
        return None;
    }
    match kind {
        Kind::Startup if own.verdict == Some(true) => return None,
        Kind::Liveness | Kind::Readiness if !started(container, state) => return None,
        _ => {}
    }
    let delay = probe.initial_delay_seconds.max(0).saturating_mul(1000);
    // As with kubelet, whose first look at what lives is a turn of the clock after the start: a program that is still coming up is not told of as unhealthy, nor killed where one failure is enough.
    let delay = if kind == Kind::Liveness { delay.max(probe.period()) } else { delay };
    Some(own.next.unwrap_or(Due { at: since.after(delay), delay }))
}

/// A probe that could not be made: nothing is known, and the next one is due.
pub fn forgo(probe: &Probe, state: &mut ProbeState, now: Time) {
    state.in_flight = false;
    state.next = Some(Due::in_millis(now, probe.period()));
}

/// Takes an outcome in; true when the thresholds now say that the probe failed or succeeded, and did not before.
pub fn record(probe: &Probe, kind: Kind, state: &mut ProbeState, success: bool, now: Time) -> bool {
    forgo(probe, state, now);
    let run = match state.streak {
        Some((same, count)) if same == success => count.saturating_add(1),
        _ => 1,
    };
    state.streak = Some((success, run));
    let threshold = if success {
        // Liveness and startup have a success threshold of 1 by validation.
        if kind == Kind::Readiness { probe.success_threshold.max(1) } else { 1 }
    } else if probe.failure_threshold <= 0 {
        3
    } else {
        probe.failure_threshold
    };
    if i64::from(run) < threshold || state.verdict == Some(success) {
        return false;
    }
    state.verdict = Some(success);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(failure: i64, success: i64) -> Probe {
        Probe { period_seconds: 5, failure_threshold: failure, success_threshold: success, ..Probe::default() }
    }

    #[test]
    fn thresholds_count_outcomes_in_a_row() {
        let probe = probe(2, 2);
        let mut state = ProbeState::default();
        let mut verdicts = Vec::new();
        for success in [true, false, true, true, false, true, false, false] {
            record(&probe, Kind::Readiness, &mut state, success, Time(0));
            verdicts.push(state.verdict);
        }
        let (yes, no) = (Some(true), Some(false));
        assert_eq!(verdicts, [None, None, None, yes, yes, yes, yes, no]);
    }

    #[test]
    fn probes_wait_for_the_start_and_for_the_startup_probe() {
        let container = Container {
            startup_probe: Some(probe(3, 1)),
            liveness_probe: Some(Probe { initial_delay_seconds: 7, ..probe(3, 1) }),
            ..Container::default()
        };
        let mut state = ContainerState::new();
        assert_eq!(due(Kind::Startup, &container, &state), None, "it does not run yet");
        state.run = Run::Running { since: Time(1000), stopping: None };
        assert_eq!(due(Kind::Startup, &container, &state).map(|d| d.at), Some(Time(1000)));
        assert_eq!(due(Kind::Liveness, &container, &state), None);
        state.probes[Kind::Startup as usize].verdict = Some(true);
        assert_eq!(due(Kind::Startup, &container, &state), None);
        assert_eq!(due(Kind::Liveness, &container, &state).map(|d| d.at), Some(Time(8000)));
        let container = Container { liveness_probe: Some(probe(3, 1)), readiness_probe: Some(probe(3, 1)), ..Container::default() };
        assert_eq!(due(Kind::Liveness, &container, &state).map(|d| d.at), Some(Time(6000)), "a period after the start");
        assert_eq!(due(Kind::Readiness, &container, &state).map(|d| d.at), Some(Time(1000)), "traffic waits for it");
        state.run = Run::Running { since: Time(1000), stopping: Some(Time(2000)) };
        assert_eq!(due(Kind::Liveness, &container, &state), None, "it is being stopped");
        assert_eq!(due(Kind::Readiness, &container, &state).map(|d| d.at), Some(Time(1000)), "which its readiness may tell");
    }
}
