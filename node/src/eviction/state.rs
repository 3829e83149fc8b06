//! Which threshold is to be acted on, and which pressures hold: kubelet's eviction manager without its hands.

use super::{Config, Observed, Resource, Signal};
use crate::{pods::time::Time, registration::Pressure};
use std::collections::{BTreeMap, BTreeSet};

/// A threshold that is to be acted on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Starved {
    /// What is watched.
    pub signal: Signal,
    /// Of `--eviction-hard` rather than `--eviction-soft`.
    pub hard: bool,
    /// How much has to be left.
    pub threshold: u64,
    /// How much is.
    pub available: u64,
}

/// What a look at the machine came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// What the node says of itself.
    pub pressure: Pressure,
    /// What to act on first.
    pub starved: Option<Starved>,
}

/// A signal, and whether it is the hard threshold's.
type Key = (Signal, bool);

/// What is remembered between looks.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// Since when each threshold is met.
    first: BTreeMap<Key, Time>,
    /// Acted on, and not yet over with.
    open: BTreeSet<Key>,
    /// When memory, disk and process ids were last short.
    seen: [Option<Time>; 3],
}

/// Thresholds that are met: with how much has to be left, and how much is.
fn met(config: &Config, observed: &Observed, reclaim: bool) -> BTreeMap<Key, (u64, u64)> {
    let hard = config.hard.0.iter().map(|(signal, amount)| ((*signal, true), *amount));
    let soft = config.soft.iter().flat_map(|soft| soft.0.iter().map(|(signal, amount)| ((*signal, false), *amount)));
    let low = hard.chain(soft).filter_map(|(key, amount)| {
        let level = observed.0.get(&key.0)?;
        let threshold = amount.of(level.capacity);
        let more = config.minimum_reclaim.as_ref().filter(|_| reclaim).and_then(|reclaims| reclaims.0.get(&key.0));
        let wanted = threshold.saturating_add(more.map_or(0, |more| more.of(level.capacity)));
        (level.available < wanted).then_some((key, (threshold, level.available)))
    });
    low.collect()
}

/// Nothing is short any more, minimum reclaims included: asked after something was freed.
pub fn relieved(config: &Config, observed: &Observed) -> bool {
    met(config, observed, true).is_empty()
}

impl State {
    /// Takes in a look at the machine.
    pub fn look(&mut self, config: &Config, observed: &Observed, now: Time) -> Outcome {
        let mut low = met(config, observed, false);
        low.extend(met(config, observed, true).into_iter().filter(|(key, _)| self.open.contains(key)));
        self.first = low.keys().map(|key| (*key, self.first.get(key).copied().unwrap_or(now))).collect();
        let short = low.keys().fold(Pressure::default(), |pressure, (signal, _)| pressure.with(*signal));
        let transition = i64::try_from(config.transition.0.as_millis()).unwrap_or(i64::MAX);
        let mut holds = [short.memory, short.disk, short.pid];
        for (holds, seen) in holds.iter_mut().zip(&mut self.seen) {
            if *holds {
                *seen = Some(now);
            }
            // A clock that was set back is no reason to tell of a pressure for ever.
            *holds |= seen.is_some_and(|seen| (0..transition).contains(&now.since(seen)));
        }
        let ripe = |key: &Key| {
            let grace =
                if key.1 { 0 } else { config.soft_grace.0.get(&key.0).map_or(0, |grace| i64::try_from(grace.as_millis()).unwrap_or(i64::MAX)) };
            self.first.get(key).is_some_and(|first| now.since(*first) >= grace)
        };
        let ripe: BTreeMap<Key, (u64, u64)> = low.into_iter().filter(|(key, _)| ripe(key)).collect();
        self.open = ripe.keys().copied().collect();
        // Memory first; of one signal's two the hard one, since what it costs has no time.
        let first = ripe.iter().min_by_key(|((signal, hard), _)| (signal.resource() != Resource::Memory, *signal, !hard));
        let starved = first.map(|((signal, hard), (threshold, available))| Starved {
            signal: *signal,
            hard: *hard,
            threshold: *threshold,
            available: *available,
        });
        let [memory, disk, pid] = holds;
        Outcome { pressure: Pressure { memory, disk, pid }, starved }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eviction::Level;

    fn seen(levels: &[(Signal, u64)]) -> Observed {
        Observed(levels.iter().map(|(signal, available)| (*signal, Level { available: *available, capacity: 1000 })).collect())
    }

    fn config(hard: &str, soft: &str, grace: &str, reclaim: &str) -> Config {
        Config {
            hard: hard.parse().unwrap(),
            soft: Some(soft.parse().unwrap()),
            soft_grace: grace.parse().unwrap(),
            minimum_reclaim: Some(reclaim.parse().unwrap()),
            ..Config::default()
        }
    }

    #[test]
    fn hard_thresholds_act_at_once_and_pressure_stays_for_the_transition() {
        let config = config("memory.available<100", "", "", "");
        let mut state = State::default();
        let low = state.look(&config, &seen(&[(Signal::MemoryAvailable, 99)]), Time(0));
        assert_eq!(low.starved, Some(Starved { signal: Signal::MemoryAvailable, hard: true, threshold: 100, available: 99 }));
        assert_eq!(low.pressure, Pressure { memory: true, ..Pressure::default() });
        let after = |state: &mut State, at| state.look(&config, &seen(&[(Signal::MemoryAvailable, 100)]), Time(at));
        assert_eq!(after(&mut state, 10_000), Outcome { pressure: Pressure { memory: true, ..Pressure::default() }, starved: None });
        assert_eq!(after(&mut state, 300_000), Outcome::default());
    }

    #[test]
    fn soft_thresholds_wait_for_their_grace_and_begin_anew() {
        let config = config("", "memory.available<50%", "memory.available=20s", "");
        let mut state = State::default();
        let mut at = |seconds: i64, available| state.look(&config, &seen(&[(Signal::MemoryAvailable, available)]), Time(seconds * 1000)).starved;
        assert_eq!(at(0, 400), None);
        assert_eq!(at(19, 400), None);
        assert_eq!(at(20, 400), Some(Starved { signal: Signal::MemoryAvailable, hard: false, threshold: 500, available: 400 }));
        assert_eq!(at(30, 500), None);
        assert_eq!(at(40, 400), None, "the grace begins anew");
    }

    #[test]
    fn what_was_acted_on_is_open_until_the_minimum_is_reclaimed() {
        let config = config("nodefs.available<10%", "", "", "nodefs.available=5%");
        let mut state = State::default();
        let mut at = |seconds: i64, available| state.look(&config, &seen(&[(Signal::NodeFsAvailable, available)]), Time(seconds * 1000)).starved;
        assert_eq!(at(0, 120), None, "not before it is met");
        assert!(at(10, 99).is_some());
        assert!(at(20, 149).is_some());
        assert_eq!(at(30, 150), None);
        assert_eq!(at(40, 120), None);
        assert!(!relieved(&config, &seen(&[(Signal::NodeFsAvailable, 149)])) && relieved(&config, &seen(&[(Signal::NodeFsAvailable, 150)])));
    }

    #[test]
    fn memory_goes_first() {
        let config = config(
            "memory.available<10,nodefs.available<10,pid.available<10,imagefs.inodesFree<10",
            "memory.available<20",
            "memory.available=0s",
            "",
        );
        let all = [(Signal::PidAvailable, 1), (Signal::NodeFsAvailable, 1), (Signal::MemoryAvailable, 1), (Signal::ImageFsInodesFree, 1)];
        let outcome = State::default().look(&config, &seen(&all), Time(0));
        assert_eq!(outcome.starved.map(|starved| (starved.signal, starved.hard)), Some((Signal::MemoryAvailable, true)));
        assert_eq!(outcome.pressure, Pressure { memory: true, disk: true, pid: true });
        // What is not seen is not short.
        assert_eq!(State::default().look(&config, &seen(&[]), Time(0)), Outcome::default());
    }
}
