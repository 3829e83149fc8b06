//! Room for those who ask: so much altogether, and no more than a share of it for each, so that one pod cannot take it all.

use parking_lot::Mutex;
use std::{collections::HashMap, net::IpAddr, sync::Arc};

/// What can be taken.
pub struct Gate {
    most: usize,
    each: usize,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    all: usize,
    by: HashMap<IpAddr, usize>,
}

/// One place, until it is dropped.
pub struct Place {
    gate: Arc<Gate>,
    whose: IpAddr,
}

impl Gate {
    /// So many places, so many for one address.
    pub fn new(most: usize, each: usize) -> Arc<Self> {
        Arc::new(Self { most, each, taken: Mutex::default() })
    }

    /// A place, if there is one for this address.
    pub fn enter(self: &Arc<Self>, whose: IpAddr) -> Option<Place> {
        let mut taken = self.taken.lock();
        let own = taken.by.get(&whose).copied().unwrap_or(0);
        if taken.all >= self.most || own >= self.each {
            return None;
        }
        taken.all += 1;
        taken.by.insert(whose, own + 1);
        Some(Place { gate: self.clone(), whose })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.gate.taken.lock();
        taken.all -= 1;
        match taken.by.get_mut(&self.whose) {
            Some(own) if *own > 1 => *own -= 1,
            _ => drop(taken.by.remove(&self.whose)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_a_share_and_gives_it_back() {
        let gate = Gate::new(3, 2);
        let (one, two, three) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into(), [10, 0, 0, 3].into());
        let first = gate.enter(one);
        let second = gate.enter(one);
        assert!(first.is_some() && second.is_some() && gate.enter(one).is_none());
        let other = gate.enter(two);
        assert!(other.is_some() && gate.enter(three).is_none());
        drop(first);
        assert!(gate.enter(three).is_some());
        drop((second, other));
        assert!(gate.taken.lock().by.is_empty() && gate.taken.lock().all == 0);
    }
}
