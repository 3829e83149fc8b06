//! The seats of a priority level and who waits for them. Pure: what waits is whatever the caller hands in.

use std::collections::{BTreeMap, VecDeque};

/// What becomes of who asks for a seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It has one.
    Now,
    /// It waits; [`Gate::leave`] hands it out.
    Wait,
    /// There is no room to wait.
    Full,
}

/// How many may wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// In one flow.
    pub flow: usize,
    /// In all.
    pub all: usize,
}

/// See the module. Flows are served in turn, each in order.
#[derive(Debug)]
pub struct Gate<W> {
    seats: usize,
    taken: usize,
    room: Room,
    waiting: usize,
    flows: BTreeMap<String, VecDeque<W>>,
    /// Flows in which somebody waits, the next first.
    turns: VecDeque<String>,
}

impl<W> Gate<W> {
    /// With so many seats and so much room to wait; one without any room refuses at once.
    pub fn new(seats: usize, room: Room) -> Self {
        Self { seats, taken: 0, room, waiting: 0, flows: BTreeMap::new(), turns: VecDeque::new() }
    }

    /// Changes its room. Who waits goes on waiting.
    pub fn refit(&mut self, room: Room) {
        self.room = room;
    }

    /// Changes how many seats there are. Who has one keeps it; [`Gate::call`] hands out those that are new.
    pub fn resize(&mut self, seats: usize) {
        self.seats = seats;
    }

    /// How many wait.
    #[cfg(test)]
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// How many have a seat or wait for one.
    pub fn wanted(&self) -> usize {
        self.taken + self.waiting
    }

    /// Asks for a seat.
    pub fn ask(&mut self, flow: &str, who: W) -> Answer {
        if self.taken < self.seats && self.waiting == 0 {
            self.taken += 1;
            return Answer::Now;
        }
        let mine = self.flows.get(flow).map_or(0, VecDeque::len);
        if self.waiting >= self.room.all || mine >= self.room.flow {
            return Answer::Full;
        }
        self.waiting += 1;
        if mine == 0 {
            self.turns.push_back(flow.to_owned());
        }
        self.flows.entry(flow.to_owned()).or_default().push_back(who);
        Answer::Wait
    }

    /// Those of a flow who gave up waiting make room.
    pub fn forget(&mut self, flow: &str, gone: impl Fn(&W) -> bool) {
        let Some(queue) = self.flows.get_mut(flow) else { return };
        let before = queue.len();
        queue.retain(|who| !gone(who));
        self.waiting -= before - queue.len();
        if queue.is_empty() {
            self.flows.remove(flow);
            self.turns.retain(|its| its != flow);
        }
    }

    /// A seat is given back: who has it next, if somebody waits.
    pub fn leave(&mut self) -> Option<W> {
        self.taken = self.taken.saturating_sub(1);
        self.call()
    }

    /// Who has a free seat next. Whoever is handed out has the seat and must leave in its turn.
    pub fn call(&mut self) -> Option<W> {
        if self.taken >= self.seats {
            return None;
        }
        let flow = self.turns.pop_front()?;
        let queue = self.flows.get_mut(&flow)?;
        let next = queue.pop_front();
        match queue.is_empty() {
            true => drop(self.flows.remove(&flow)),
            false => self.turns.push_back(flow),
        }
        self.waiting -= usize::from(next.is_some());
        self.taken += usize::from(next.is_some());
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(gate: &mut Gate<&'static str>, who: &[(&'static str, &'static str)]) -> Vec<Answer> {
        who.iter().map(|(flow, who)| gate.ask(flow, who)).collect()
    }

    #[test]
    fn flows_take_turns() {
        let mut gate = Gate::new(1, Room { flow: 3, all: 10 });
        let answers = asked(&mut gate, &[("a", "a0"), ("a", "a1"), ("a", "a2"), ("a", "a3"), ("a", "a4"), ("b", "b1"), ("c", "c1"), ("b", "b2")]);
        use Answer::{Full, Now, Wait};
        assert_eq!(answers, [Now, Wait, Wait, Wait, Full, Wait, Wait, Wait], "a fills its own queue only");
        let order: Vec<&str> = std::iter::from_fn(|| gate.leave()).collect();
        assert_eq!(order, ["a1", "b1", "c1", "a2", "b2", "a3"]);
        assert_eq!((gate.taken, gate.waiting, gate.flows.len(), gate.turns.len()), (0, 0, 0, 0));
        assert_eq!(gate.ask("a", "again"), Now);
    }

    #[test]
    fn who_gives_up_makes_room() {
        let mut gate = Gate::new(1, Room { flow: 2, all: 3 });
        asked(&mut gate, &[("a", "a0"), ("a", "a1"), ("a", "a2"), ("b", "b1")]);
        assert_eq!(asked(&mut gate, &[("a", "a3"), ("c", "c1")]), [Answer::Full, Answer::Full]);
        gate.forget("a", |who| *who == "a1");
        gate.forget("b", |_| true);
        gate.forget("nobody", |_| true);
        assert_eq!((gate.wanted(), gate.flows.len(), gate.turns.len()), (2, 1, 1));
        assert_eq!(asked(&mut gate, &[("a", "a3"), ("c", "c1")]), [Answer::Wait, Answer::Wait]);
        assert_eq!(std::iter::from_fn(|| gate.leave()).collect::<Vec<_>>(), ["a2", "c1", "a3"]);
    }

    #[test]
    fn without_room_it_refuses_at_once() {
        let mut gate = Gate::new(2, Room::default());
        assert_eq!(asked(&mut gate, &[("a", "1"), ("b", "2"), ("c", "3")]), [Answer::Now, Answer::Now, Answer::Full]);
        assert_eq!(gate.leave(), None);
        assert_eq!(gate.ask("c", "3"), Answer::Now);
    }

    #[test]
    fn all_flows_together_are_bounded() {
        let mut gate = Gate::new(0, Room { flow: 5, all: 2 });
        assert_eq!(asked(&mut gate, &[("a", "1"), ("b", "2"), ("c", "3")]), [Answer::Wait, Answer::Wait, Answer::Full]);
    }

    #[test]
    fn a_smaller_gate_empties_before_it_lets_in() {
        let mut gate = Gate::new(2, Room { flow: 5, all: 5 });
        asked(&mut gate, &[("a", "1"), ("a", "2"), ("a", "3")]);
        gate.resize(1);
        assert_eq!(gate.leave(), None, "one of two is one too many");
        assert_eq!((gate.leave(), gate.wanted()), (Some("3"), 1));
    }

    #[test]
    fn a_larger_gate_lets_in_who_waits() {
        let mut gate = Gate::new(1, Room { flow: 5, all: 5 });
        asked(&mut gate, &[("a", "1"), ("a", "2"), ("b", "3"), ("b", "4")]);
        gate.resize(3);
        assert_eq!([gate.call(), gate.call(), gate.call()], [Some("2"), Some("3"), None]);
        assert_eq!(gate.wanted(), 4);
    }
}
