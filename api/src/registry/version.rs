//! Which of two API versions clients should prefer (`version.CompareKubeAwareVersionStrings`).

use std::cmp::Ordering;

/// Stability (general availability highest), major and minor number of `v2`, `v1beta1`; None for any other text.
fn parse(version: &str) -> Option<(u8, u64, u64)> {
    let rest = version.strip_prefix('v')?;
    let digits = |text: &str| (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok()).flatten();
    for (stability, word) in [(0, "alpha"), (1, "beta")] {
        if let Some((major, minor)) = rest.split_once(word) {
            return Some((stability, digits(major)?, digits(minor)?));
        }
    }
    Some((2, digits(rest)?, 0))
}

/// Orders versions as clients should try them: `v10`, `v2`, `v1`, `v2beta1`, `v1alpha2`, then everything else by its text.
pub fn newest_first(a: &str, b: &str) -> Ordering {
    match (parse(a), parse(b)) {
        (Some(a), Some(b)) => b.cmp(&a),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => a.cmp(b),
    }
}

#[cfg(test)]
mod tests {
    use super::newest_first;

    #[test]
    fn versions_are_ordered_as_upstream_does() {
        let mut versions = ["foo10", "v1alpha2", "v3beta1", "v10", "v1", "foo1", "v11alpha2", "v10beta3", "v2", "v12alpha1", "v3", "v11beta2"];
        versions.sort_by(|a, b| newest_first(a, b));
        assert_eq!(versions, ["v10", "v3", "v2", "v1", "v11beta2", "v10beta3", "v3beta1", "v12alpha1", "v11alpha2", "v1alpha2", "foo1", "foo10"]);
    }
}
