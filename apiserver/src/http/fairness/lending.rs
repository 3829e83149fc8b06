//! Seats that priority levels lend each other (KEP-1040): every period each level's limit is set anew, between what it never lends and what it may have at
//! the most, in proportion to how many seats were wanted. Pure; upstream's arithmetic, step for step, so that the same demand gives the same limits.

use std::time::{Duration, Instant};

/// How often limits are set anew.
pub const PERIOD: Duration = Duration::from_secs(10);
/// How much of the smoothed demand stays from one period to the next: half of it is forgotten in five minutes.
const SMOOTHING: f64 = 0.977;
/// A target of nothing is taken for this, so that proportions exist.
const LEAST_TARGET: f64 = 0.001;
/// How far sums may be off.
const EPSILON: f64 = 1e-7;

/// What a level's configuration lets it have, in seats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Its own.
    pub nominal: usize,
    /// What it keeps however little it uses.
    pub least: usize,
    /// Its own and what it may borrow.
    pub most: usize,
}

impl Span {
    /// Of a level with so many seats of its own, of `total` in all; percentages as they are configured. One that does not say how much it may borrow may
    /// borrow everything.
    pub fn of(nominal: usize, lendable: Option<u64>, borrowing: Option<u64>, total: usize) -> Self {
        let part = |percent: u64| ((nominal as f64 * percent as f64 / 100.0).round() as usize).min(usize::MAX / 4);
        let lent = part(lendable.unwrap_or(0)).min(nominal);
        Self { nominal, least: nominal - lent, most: nominal + borrowing.map_or(total, part) }
    }

    /// The limit before anything is known of the demand.
    pub fn initial(&self) -> usize {
        self.nominal - (self.nominal - self.least) / 2
    }
}

/// How many seats were wanted (taken or waited for) in the present period.
#[derive(Clone, Copy, Debug)]
pub struct Demand {
    since: Instant,
    wanted: usize,
    highest: usize,
    seconds: f64,
    sum: f64,
    squares: f64,
}

/// What a period's demand was.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Observed {
    /// The most at once.
    pub highest: usize,
    /// Mean and standard deviation over time; none if no time passed.
    pub envelope: Option<(f64, f64)>,
}

impl Demand {
    /// Nothing is wanted from now on.
    pub fn new(now: Instant) -> Self {
        Self { since: now, wanted: 0, highest: 0, seconds: 0.0, sum: 0.0, squares: 0.0 }
    }

    /// So many are wanted from now on.
    pub fn set(&mut self, wanted: usize, now: Instant) {
        let (passed, was) = (now.saturating_duration_since(self.since).as_secs_f64(), self.wanted as f64);
        self.seconds += passed;
        self.sum += was * passed;
        self.squares += was * was * passed;
        (self.since, self.wanted, self.highest) = (now, wanted, self.highest.max(wanted));
    }

    /// Ends the period and begins the next.
    pub fn take(&mut self, now: Instant) -> Observed {
        self.set(self.wanted, now);
        let mean = self.sum / self.seconds;
        let deviation = (self.squares / self.seconds - mean * mean).max(0.0).sqrt();
        let observed = Observed { highest: self.highest, envelope: (self.seconds > 0.0).then_some((mean, deviation)) };
        *self = Self { wanted: self.wanted, highest: self.wanted, ..Self::new(now) };
        observed
    }
}

/// What is remembered of a level's demand.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Remembered {
    /// The most at once in the last period.
    pub highest: usize,
    /// Falls slowly, rises at once.
    pub smoothed: f64,
}

impl Remembered {
    /// After one more period.
    pub fn update(&mut self, observed: Observed) {
        self.highest = observed.highest;
        if let Some((mean, deviation)) = observed.envelope {
            let envelope = mean + deviation;
            self.smoothed = envelope.max(SMOOTHING * self.smoothed + (1.0 - SMOOTHING) * envelope);
        }
    }
}

/// A level whose limit is to be set.
#[derive(Clone, Copy, Debug)]
pub struct Level {
    /// It never waits, and takes what it wants before others are served.
    pub exempt: bool,
    /// What it may have.
    pub span: Span,
    /// What it wanted.
    pub demand: Remembered,
    /// What it has now.
    pub limit: usize,
}

impl Level {
    /// What it used of its own seats, and is not taken from it.
    fn used(&self) -> usize {
        self.span.least.max(self.span.nominal.min(self.demand.highest))
    }
}

/// The new limits, one a level.
pub fn limits(levels: &[Level]) -> Vec<usize> {
    let all: usize = levels.iter().map(|level| level.span.nominal).sum();
    let exempt = |level: &Level| level.span.least.max(level.demand.highest);
    let taken: usize = levels.iter().filter(|level| level.exempt).map(exempt).sum();
    let left = all.saturating_sub(taken);
    let others = || levels.iter().filter(|level| !level.exempt);
    let (least, used): (usize, usize) = (others().map(|level| level.span.least).sum(), others().map(Level::used).sum());
    let shares: Vec<usize> = if left <= least {
        others().map(|level| level.span.least).collect()
    } else if left <= used {
        let part = (left - least) as f64 / (used - least) as f64;
        others().map(|level| level.span.least + ((level.used() - level.span.least) as f64 * part).round() as usize).collect()
    } else {
        let items: Vec<Item> = others().map(Item::of).collect();
        match allocate(all as f64, &items) {
            Some(shares) => shares.iter().map(|share| share.round() as usize).collect(),
            // Bounds that cannot be met together (levels that may borrow little, and lend to an exempt one): all stays as it is.
            None => others().map(|level| level.limit).collect(),
        }
    };
    let mut shares = shares.into_iter();
    levels.iter().map(|level| if level.exempt { exempt(level) } else { shares.next().unwrap_or(level.limit) }).collect()
}

/// What one level shall have: as near to its target as all the others', between bounds.
#[derive(Clone, Copy, Debug)]
struct Item {
    target: f64,
    least: f64,
    most: f64,
}

impl Item {
    fn of(level: &Level) -> Self {
        let least = level.used() as f64;
        Self { target: least.max(level.demand.smoothed).max(LEAST_TARGET), least, most: level.span.most as f64 }
    }

    /// Its share where everybody gets this part of their target.
    fn share(&self, part: f64) -> f64 {
        (part * self.target).clamp(self.least, self.most)
    }
}

/// Shares that sum to `sum`, each the same part of its target where its bounds allow that; None where the bounds allow no such sum.
fn allocate(sum: f64, items: &[Item]) -> Option<Vec<f64>> {
    let total = |part: f64| items.iter().map(|item| item.share(part)).sum::<f64>();
    let possible = |item: &Item| item.most >= item.least;
    let (least, most): (f64, f64) = (items.iter().map(|item| item.least).sum(), items.iter().map(|item| item.most).sum());
    if !items.iter().all(possible) || least - sum > EPSILON || sum - most > EPSILON {
        return None;
    }
    // The sum rises with the part, in straight lines between the points where a bound begins or ends to hold.
    let mut points: Vec<f64> = items.iter().flat_map(|item| [item.least / item.target, item.most / item.target]).collect();
    points.sort_by(f64::total_cmp);
    let at = points.partition_point(|point| total(*point) < sum);
    let after = points.get(at).or(points.last()).copied()?;
    let before = at.checked_sub(1).and_then(|at| points.get(at)).copied().unwrap_or(after);
    let (low, high) = (total(before), total(after));
    let part = if high > low { before + (after - before) * ((sum - low) / (high - low)).clamp(0.0, 1.0) } else { after };
    Some(items.iter().map(|item| item.share(part)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn level(nominal: usize, lendable: u64, borrowing: Option<u64>, highest: usize, smoothed: f64) -> Level {
        let span = Span::of(nominal, Some(lendable), borrowing, 600);
        Level { exempt: false, span, demand: Remembered { highest, smoothed }, limit: span.initial() }
    }

    #[test]
    fn spans_are_percentages() {
        assert_eq!(Span::of(100, Some(33), Some(50), 600), Span { nominal: 100, least: 67, most: 150 });
        assert_eq!(Span::of(100, None, None, 600), Span { nominal: 100, least: 100, most: 700 });
        assert_eq!(Span::of(100, Some(50), None, 600).initial(), 75);
        assert_eq!(Span::of(0, Some(100), Some(1000), 600), Span::default());
    }

    #[test]
    fn demand_is_averaged_over_time() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut demand = Demand::new(start);
        demand.set(10, at(5));
        let observed = demand.take(at(10));
        assert_eq!(observed, Observed { highest: 10, envelope: Some((5.0, 5.0)) });
        assert_eq!(demand.take(at(10)), Observed { highest: 10, envelope: None }, "no time passed; ten are still wanted");
        demand.set(0, at(10));
        assert_eq!(demand.take(at(20)), Observed { highest: 10, envelope: Some((0.0, 0.0)) });

        let mut remembered = Remembered::default();
        remembered.update(observed);
        assert_eq!(remembered, Remembered { highest: 10, smoothed: 10.0 }, "it rises at once");
        remembered.update(Observed { highest: 0, envelope: Some((0.0, 0.0)) });
        assert_eq!(remembered, Remembered { highest: 0, smoothed: 9.77 }, "and falls slowly");
        remembered.update(Observed { highest: 3, envelope: None });
        assert_eq!(remembered, Remembered { highest: 3, smoothed: 9.77 });
    }

    #[test]
    fn who_wants_more_is_lent_what_others_do_not_use() {
        // Idle levels keep half of theirs; the busy one has the rest.
        let levels = [level(100, 50, None, 400, 400.0), level(100, 50, None, 0, 0.0), level(100, 0, None, 0, 0.0)];
        assert_eq!(limits(&levels), [150, 50, 100]);
        // It may not borrow more than it is let.
        let levels = [level(100, 50, Some(20), 400, 400.0), level(100, 50, None, 0, 0.0), level(100, 0, None, 0, 0.0)];
        assert_eq!(limits(&levels), [120, 60, 120], "what it may not have, the others have in proportion");
        // Who used its own in the last period does not lend it.
        let levels = [level(100, 50, None, 400, 400.0), level(100, 50, None, 90, 10.0), level(100, 0, None, 0, 0.0)];
        assert_eq!(limits(&levels), [110, 90, 100]);
        // Two that want more have it in proportion to what they want.
        let levels = [level(100, 0, None, 300, 300.0), level(100, 0, None, 150, 150.0), level(100, 100, None, 0, 0.0)];
        assert_eq!(limits(&levels), [200, 100, 0]);
    }

    #[test]
    fn exempt_levels_take_what_they_want_first() {
        let exempt = |highest: usize| Level {
            exempt: true,
            span: Span { nominal: 100, least: 50, most: 700 },
            demand: Remembered { highest, smoothed: 0.0 },
            limit: 75,
        };
        let two = |levels: Level| limits(&[levels, level(100, 50, None, 100, 100.0), level(100, 50, None, 100, 100.0)]);
        assert_eq!(two(exempt(0))[0], 50);
        assert_eq!(two(exempt(120)), [120, 90, 90], "what others used is cut evenly");
        assert_eq!(two(exempt(500)), [500, 50, 50], "and what they never lend is theirs");
    }

    proptest! {
        #[test]
        fn limits_keep_their_bounds(of in prop::collection::vec((0..200usize, 0..=100u64, prop::option::of(0..300u64), 0..900usize, 0.0..900.0f64), 1..8)) {
            let levels: Vec<Level> = of.into_iter().map(|(nominal, lendable, borrowing, highest, smoothed)| level(nominal, lendable, borrowing, highest, smoothed)).collect();
            let limits = limits(&levels);
            let sum: usize = levels.iter().map(|level| level.span.nominal).sum();
            prop_assert!(limits.iter().sum::<usize>().abs_diff(sum) <= levels.len(), "seats are neither made nor lost, but for rounding: {limits:?} of {sum}");
            for (level, limit) in levels.iter().zip(limits) {
                prop_assert!(level.used() <= limit && limit <= level.span.most, "{level:?} has {limit}");
            }
        }
    }
}
