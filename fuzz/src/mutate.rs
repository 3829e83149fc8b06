//! Mutations of inputs, the same for the same seed: what a test run tries without coverage to guide it.

/// Longest input that is made, bytes.
const LONGEST: usize = 64 << 10;

/// Chooses (xorshift; no more is needed to choose).
pub struct Chance(u64);

impl Chance {
    /// Different for different names.
    pub fn new(name: &str) -> Self {
        Self(name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)) | 1)
    }

    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 16) as usize) % n.max(1)
    }

    /// One of them; the empty slice when there are none.
    fn pick<'a>(&mut self, list: &[&'a [u8]]) -> &'a [u8] {
        list.get(self.below(list.len())).copied().unwrap_or_default()
    }

    /// A part of it, short ones more often than long ones.
    fn range(&mut self, length: usize) -> std::ops::Range<usize> {
        let start = self.below(length + 1);
        let most = if self.below(2) == 0 { 8 } else { length };
        start..start + self.below((length - start).min(most) + 1)
    }
}

/// Words of the inputs: runs of letters and digits, and single signs, as parts to build others from.
pub fn words<'a>(inputs: &[&'a [u8]]) -> Vec<&'a [u8]> {
    let split = |input: &'a [u8]| input.chunk_by(|a, b| a.is_ascii_alphanumeric() && b.is_ascii_alphanumeric());
    let mut words: Vec<&[u8]> = inputs.iter().flat_map(|input| split(input)).filter(|word| word.len() <= 32).collect();
    words.sort_unstable();
    words.dedup();
    words
}

/// A few changes to one of the inputs.
pub fn mutated(chance: &mut Chance, inputs: &[&[u8]], words: &[&[u8]]) -> Vec<u8> {
    let mut data = chance.pick(inputs).to_vec();
    for _ in 0..=chance.below(4) {
        let at = chance.below(data.len());
        let range = chance.range(data.len());
        match chance.below(9) {
            0 => data.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << chance.below(8)),
            1 => data.iter_mut().skip(at).take(1).for_each(|byte| *byte = chance.below(256) as u8),
            2 => drop(data.drain(range)),
            3 => data.truncate(at),
            4 => drop(data.splice(at..at, chance.pick(words).iter().copied())),
            5 => drop(data.splice(range, chance.pick(words).iter().copied())),
            6 => {
                let copy = data.get(range).unwrap_or_default().to_vec();
                data.splice(at..at, copy);
            }
            7 => {
                let other = chance.pick(inputs);
                let part = chance.range(other.len());
                data.splice(range, other.get(part).unwrap_or_default().iter().copied());
            }
            _ => number(chance, &mut data, at),
        }
    }
    data.truncate(LONGEST);
    data
}

/// Another number where one is (from `at` on), in decimal or as bytes.
fn number(chance: &mut Chance, data: &mut Vec<u8>, at: usize) {
    const NUMBERS: [i64; 12] = [0, 1, -1, 127, 255, 65_535, 65_536, i32::MAX as i64, i32::MIN as i64, u32::MAX as i64, i64::MAX, i64::MIN];
    let number = NUMBERS[chance.below(NUMBERS.len())];
    let rest = data.get(at..).unwrap_or_default();
    match rest.iter().position(u8::is_ascii_digit) {
        Some(start) if chance.below(2) == 0 => {
            let digits = rest[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
            data.splice(at + start..at + start + digits, number.to_string().bytes());
        }
        _ => {
            let width = [1, 2, 4, 8][chance.below(4)].min(rest.len());
            let bytes = number.to_be_bytes();
            data.splice(at..at + width, bytes[8 - width..].iter().copied());
        }
    }
}

/// The smallest input near `data` that `fails`: parts are left out as long as it still does.
pub fn shrunk(mut data: Vec<u8>, fails: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let mut size = data.len() / 2;
    while size > 0 {
        let mut at = 0;
        while at < data.len() {
            let end = (at + size).min(data.len());
            let less = [&data[..at], &data[end..]].concat();
            if fails(&less) {
                data = less;
            } else {
                at = end;
            }
        }
        size /= 2;
    }
    data
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_inputs_and_many_different_ones() {
        let inputs: [&[u8]; 2] = [b"a=1,b in (c)", b"{\"k\": 7}"];
        let words = words(&inputs);
        let make = |name| {
            let mut chance = Chance::new(name);
            (0..200).map(|_| mutated(&mut chance, &inputs, &words)).collect::<Vec<_>>()
        };
        assert_eq!(make("x"), make("x"));
        assert!(make("x").iter().collect::<std::collections::BTreeSet<_>>().len() > 120);
        let _ = mutated(&mut Chance::new("none"), &[], &[]);
    }

    #[test]
    fn failures_shrink_to_what_matters() {
        let long = b"some text before KEY and after".to_vec();
        assert_eq!(shrunk(long, |data| data.windows(3).any(|w| w == b"KEY")), b"KEY");
    }
}
