//! What the search for devices of one pod may cost, so that no pod holds the scheduler up (upstream has a timeout for each node).
//!
//! Steps are counted and not seconds: the same cluster gives the same answer. What is there is shared out among the nodes that were not looked at yet, so that one of them
//! where nothing can be found in time leaves the others their part.

/// CEL's cost of all selectors for one pod.
const COST: u64 = 10_000_000;
/// Devices that are tried for one pod.
const TRIES: usize = 500_000;
/// And on one node.
const TRIES_A_NODE: usize = 50_000;
/// So many devices that a request is compared with cost as much as CEL's cheapest step.
pub const LOOKS: u64 = 4;
/// What it costs beside to lay a device out for a selector, whatever that asks.
pub const LOOK: u64 = 50;
/// What a byte of a selector costs that has to be compiled.
pub const BYTE: u64 = 20;

/// What is left for a pod.
#[derive(Debug, Default)]
pub struct Budget {
    left: Share,
    nodes: usize,
}

/// What may be spent: CEL's cost, and tries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Of selectors.
    pub cost: u64,
    /// Devices to try.
    pub tries: usize,
}

impl Budget {
    /// For one pod and so many nodes.
    pub fn new(nodes: usize) -> Self {
        Self { left: Share { cost: COST, tries: TRIES }, nodes }
    }

    /// The part of the next node.
    pub fn share(&mut self) -> Share {
        let nodes = self.nodes.max(1);
        self.nodes = self.nodes.saturating_sub(1);
        Share { cost: self.left.cost / nodes as u64, tries: (self.left.tries / nodes).min(TRIES_A_NODE) }
    }

    /// So much of a node's part was not needed.
    pub fn settle(&mut self, share: Share, rest: Share) {
        self.left.cost -= share.cost - rest.cost.min(share.cost);
        self.left.tries -= share.tries - rest.tries.min(share.tries);
    }
}

impl Share {
    /// Takes from what may be spent on selectors; false if it is not enough, and then nothing is left.
    pub fn pay(&mut self, cost: u64) -> bool {
        let enough = cost <= self.cost;
        self.cost = self.cost.saturating_sub(cost);
        enough
    }

    /// Another device is tried; false if there were enough of them.
    pub fn try_one(&mut self) -> bool {
        let enough = self.tries > 0;
        self.tries = self.tries.saturating_sub(1);
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_is_costly_leaves_the_others_their_part() {
        let mut budget = Budget::new(4);
        let first = budget.share();
        assert_eq!(first, Share { cost: COST / 4, tries: TRIES_A_NODE });
        budget.settle(first, Share::default());
        // The second needs nothing, and the last two have its part as well.
        let second = budget.share();
        assert_eq!(second.cost, COST / 4);
        budget.settle(second, second);
        assert_eq!(budget.share().cost, COST * 3 / 8);
        let all: Vec<Share> = std::iter::repeat_with(|| budget.share()).take(2).collect();
        assert!(all.iter().all(|share| share.cost > 0), "who asks more often than was said has a part nevertheless: {all:?}");
    }

    #[test]
    fn nothing_is_spent_that_is_not_there() {
        let mut share = Share { cost: 10, tries: 1 };
        assert!(share.pay(10) && !share.pay(1));
        assert!(share.try_one() && !share.try_one());
        let mut budget = Budget::new(1);
        let whole = budget.share();
        budget.settle(whole, Share::default());
        assert_eq!((budget.left.cost, budget.left.tries), (0, TRIES - TRIES_A_NODE));
        assert_eq!(budget.share().cost, 0);
    }
}
