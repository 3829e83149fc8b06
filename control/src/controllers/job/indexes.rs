//! Sets of completion indexes, written as `0-2,5`.
//!
//! Kept as intervals: a Job may have two thousand million indexes, and nearly all of them lie side by side.

use std::fmt;

/// A set of indexes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Indexes {
    /// First and last of each run, ascending; no two touch.
    runs: Vec<(i64, i64)>,
}

impl Indexes {
    /// Reads a set; what is at or above `limit`, or cannot be read, is left out.
    pub fn parse(text: &str, limit: i64) -> Self {
        let mut runs: Vec<(i64, i64)> = text
            .split(',')
            .filter_map(|part| {
                let (first, last) = part.split_once('-').unwrap_or((part, part));
                let (first, last) = (first.parse::<i64>().ok()?, last.parse::<i64>().ok()?.min(limit - 1));
                (0 <= first && first <= last).then_some((first, last))
            })
            .collect();
        runs.sort_unstable();
        let mut set = Self::default();
        runs.into_iter().for_each(|run| set.append(run));
        set
    }

    /// Adds a run that begins no earlier than the last one.
    fn append(&mut self, (first, last): (i64, i64)) {
        match self.runs.last_mut() {
            Some(before) if first <= before.1 + 1 => before.1 = before.1.max(last),
            _ => self.runs.push((first, last)),
        }
    }

    /// Adds indexes.
    pub fn extend(&mut self, indexes: impl IntoIterator<Item = i64>) {
        let mut runs: Vec<(i64, i64)> = indexes.into_iter().map(|index| (index, index)).collect();
        if runs.is_empty() {
            return;
        }
        runs.append(&mut self.runs);
        runs.sort_unstable();
        runs.into_iter().for_each(|run| self.append(run));
    }

    /// Adds another set.
    pub fn unite(&mut self, other: &Self) {
        let mut runs = std::mem::take(&mut self.runs);
        runs.extend(&other.runs);
        runs.sort_unstable();
        runs.into_iter().for_each(|run| self.append(run));
    }

    /// Whether an index is in it.
    pub fn contains(&self, index: i64) -> bool {
        let at = self.runs.partition_point(|(_, last)| *last < index);
        self.runs.get(at).is_some_and(|(first, _)| *first <= index)
    }

    /// How many indexes.
    pub fn total(&self) -> i64 {
        self.runs.iter().map(|(first, last)| last - first + 1).sum()
    }

    /// How many indexes are in both.
    pub fn overlap(&self, other: &Self) -> i64 {
        let (mut ours, mut theirs) = (self.runs.iter().peekable(), other.runs.iter().peekable());
        let mut common = 0;
        while let (Some(&&(first, last)), Some(&&(start, end))) = (ours.peek(), theirs.peek()) {
            common += (last.min(end) - first.max(start) + 1).max(0);
            if last <= end {
                ours.next();
            } else {
                theirs.next();
            }
        }
        common
    }

    /// The indexes below `limit` that are not in it, ascending.
    pub fn gaps(&self, limit: i64) -> impl Iterator<Item = i64> {
        let begins = std::iter::once(0).chain(self.runs.iter().map(|(_, last)| last + 1));
        let ends = self.runs.iter().map(|(first, _)| *first).chain([limit]);
        begins.zip(ends).flat_map(move |(begin, end)| begin..end.min(limit))
    }
}

impl fmt::Display for Indexes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (first, last)) in self.runs.iter().enumerate() {
            if at > 0 {
                f.write_str(",")?;
            }
            match last - first {
                0 => write!(f, "{first}")?,
                // Two neighbours are listed, not spanned, as upstream does.
                1 => write!(f, "{first},{last}")?,
                _ => write!(f, "{first}-{last}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn read(text: &str, limit: i64) -> String {
        Indexes::parse(text, limit).to_string()
    }

    #[test]
    fn sets_read_back_as_written() {
        for text in ["", "0", "0,1", "0-2", "0-2,4,6-9", "1,3,5"] {
            assert_eq!(read(text, 100), text);
        }
        assert_eq!(read("0-99999999999", 3), "0-2");
        assert_eq!(read("x,2,-,7", 5), "2");
        assert_eq!(read("3-1,5,4,0-2", 9), "0-2,4,5");
        assert_eq!(Indexes::parse("0-2147483646", 2_147_483_647).total(), 2_147_483_647);
    }

    proptest! {
        #[test]
        fn they_are_sets(a in prop::collection::btree_set(0i64..40, 0..20), b in prop::collection::btree_set(0i64..40, 0..20), limit in 0i64..50) {
            let set = |of: &BTreeSet<i64>| { let mut set = Indexes::default(); set.extend(of.iter().copied()); set };
            let (ours, theirs) = (set(&a), set(&b));
            prop_assert_eq!(Indexes::parse(&ours.to_string(), 100), ours.clone());
            prop_assert_eq!(ours.total(), a.len() as i64);
            prop_assert_eq!(ours.overlap(&theirs), a.intersection(&b).count() as i64);
            prop_assert!((0..50).all(|index| ours.contains(index) == a.contains(&index)));
            prop_assert_eq!(ours.gaps(limit).collect::<Vec<_>>(), (0..limit).filter(|index| !a.contains(index)).collect::<Vec<_>>());
            let mut both = ours.clone();
            both.unite(&theirs);
            prop_assert_eq!(both, set(&a.union(&b).copied().collect()));
            let mut more = ours;
            more.extend(b.iter().copied());
            prop_assert_eq!(more, set(&a.union(&b).copied().collect()));
        }
    }
}
