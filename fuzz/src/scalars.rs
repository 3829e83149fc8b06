//! Small texts with a form of their own: quantities, times, names.

use crate::text;
use coracle_api::{names, quantity::Quantity, time};
use regex::Regex;
use std::sync::LazyLock;

pub fn quantities(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let Ok(quantity) = Quantity::parse(text) else { return };
    let canonical = quantity.to_string();
    let back = Quantity::parse(&canonical).unwrap_or_else(|e| panic!("{canonical}: {e}"));
    assert_eq!(back, quantity, "{text:?} is written {canonical:?}");
    assert_eq!(back.to_string(), canonical);
    assert!(quantity.minus(quantity).is_zero());
    assert_eq!(quantity.is_negative(), quantity < Quantity::ZERO);
    let rounded = quantity.round_up_to_millis();
    assert!(if quantity.is_negative() { rounded <= quantity } else { rounded >= quantity }, "away from zero: {rounded}");
    assert!(quantity.units().unsigned_abs() <= quantity.millis().unsigned_abs(), "a whole is no more than its thousandths");
}

pub fn times(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let Ok(at) = time::parse(text) else { return };
    let (seconds, micros) = (time::seconds(at), time::micros(at));
    assert_eq!(time::parse(&seconds).map(time::seconds), Ok(seconds.clone()), "{text:?}");
    assert_eq!(time::parse(&micros).map(time::micros), Ok(micros.clone()), "{text:?}");
    assert_eq!((seconds.len(), micros.len()), (20, 27), "one width: {seconds} {micros}");
    assert_eq!(seconds.trim_end_matches('Z'), micros.split('.').next().unwrap_or_default(), "both cut off");
}

/// A validator, and what it stands for: upstream's expression and length.
type Rule = (fn(&str) -> Vec<String>, Regex, usize);
/// The same, the expression as text.
type Written = (fn(&str) -> Vec<String>, String, usize);

static RULES: LazyLock<Vec<Rule>> = LazyLock::new(|| {
    let label = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
    let rules: [Written; 4] = [
        (names::dns_label, label.into(), 63),
        (names::dns1035_label, "[a-z]([-a-z0-9]*[a-z0-9])?".into(), 63),
        (names::dns_subdomain, format!("{label}(\\.{label})*"), 253),
        (names::label_value, "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?".into(), 63),
    ];
    rules.map(|(rule, expression, length)| (rule, Regex::new(&format!("^(?:{expression})$")).expect("an expression"), length)).into()
});

pub fn names(data: &[u8]) {
    let Some(text) = text(data) else { return };
    for (rule, expression, length) in &*RULES {
        assert_eq!(rule(text).is_empty(), text.len() <= *length && expression.is_match(text), "{text:?} and {expression}");
    }
    if names::qualified_name(text).is_empty() {
        let (prefix, name) = text.split_once('/').unwrap_or(("a", text));
        assert!(names::dns_subdomain(prefix).is_empty() && names::label_value(name).is_empty() && !name.is_empty());
    }
    let generated = names::generate(text, |n| data.len() % n.max(1));
    assert!(generated.len() <= 63 && text.starts_with(&generated[..generated.len() - 5]));
}
