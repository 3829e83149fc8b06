//! Rules of numbers of pods that may be given as a percentage (`intstr.IntOrString`).

use super::{At, Causes, syntax::percent};
use serde_json::Value;

/// A number of 0 or more, or a percentage; absent is fine.
pub fn int_or_percent(at: &At<'_, '_>, causes: &mut Causes) {
    match at.value {
        Value::String(_) => at.syntax(causes, percent),
        _ => at.non_negative(causes),
    }
}

/// A percentage is not more than the whole.
pub fn not_more_than_all(at: &At<'_, '_>, causes: &mut Causes) {
    if percentage(at).is_some_and(|number| number > 100) {
        at.invalid(causes, "must not be greater than 100%");
    }
}

/// Whether it is nothing: `0`, `0%`, or not there.
pub fn is_zero(at: &At<'_, '_>) -> bool {
    percentage(at).unwrap_or_else(|| at.int().unwrap_or_default().unsigned_abs()) == 0
}

fn percentage(at: &At<'_, '_>) -> Option<u64> {
    let digits = at.text().strip_suffix('%').filter(|_| percent(at.text()).is_empty())?;
    // More digits than fit are more than enough.
    Some(digits.parse().unwrap_or(u64::MAX))
}
