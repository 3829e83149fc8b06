//! Sets of completion indexes, written as `0-2,5`.

use std::collections::BTreeSet;

/// Reads a set; what is at or above `limit`, or cannot be read, is left out.
pub fn read(text: &str, limit: i64) -> BTreeSet<i64> {
    let mut set = BTreeSet::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse::<i64>(), last.parse::<i64>()) {
            set.extend(first.max(0)..=last.min(limit - 1));
        }
    }
    set
}

/// Writes a set.
pub fn write(set: &BTreeSet<i64>) -> String {
    let mut parts: Vec<(i64, i64)> = Vec::new();
    for &index in set {
        match parts.last_mut() {
            Some((_, last)) if *last + 1 == index => *last = index,
            _ => parts.push((index, index)),
        }
    }
    let text = parts.iter().map(|(first, last)| match last - first {
        0 => first.to_string(),
        // Two neighbours are listed, not spanned, as upstream does.
        1 => format!("{first},{last}"),
        _ => format!("{first}-{last}"),
    });
    text.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_read_back_as_written() {
        for text in ["", "0", "0,1", "0-2", "0-2,4,6-9", "1,3,5"] {
            assert_eq!(write(&read(text, 100)), text);
        }
        assert_eq!(write(&read("0-99999999999", 3)), "0-2");
        assert_eq!(write(&read("x,2,-,7", 5)), "2");
    }
}
