//! Label and field selectors.

use crate::text;
use coracle_api::selector::{FieldSelector, MAX_TERMS, Operator, Selector};
use serde_json::Value;

/// The query form, or a `metav1.LabelSelector` as JSON.
pub fn label_selectors(data: &[u8]) {
    if let Ok(value) = serde_json::from_slice::<Value>(data) {
        let _ = Selector::from_object(&value).map(|selector| selector.matches_labels(&value));
    }
    let Some(text) = text(data) else { return };
    let Ok(selector) = Selector::parse(text) else { return };
    assert!(selector.terms().len() <= MAX_TERMS);
    let written = selector.to_string();
    assert_eq!(Selector::parse(&written).as_ref(), Ok(&selector), "{written}");
    let asks_nothing = |operator: &Operator| matches!(operator, Operator::NotIn(_) | Operator::DoesNotExist);
    assert_eq!(selector.matches(|_| None), selector.terms().iter().all(|term| asks_nothing(&term.operator)), "what has no labels");
}

pub fn field_selectors(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let Ok(selector) = FieldSelector::parse(text) else { return };
    assert!(selector.terms().len() <= MAX_TERMS);
    let escape = |value: &str| value.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=");
    let terms = selector.terms().iter().map(|t| format!("{}{}{}", t.field, if t.negated { "!=" } else { "==" }, escape(&t.value)));
    let written = terms.collect::<Vec<_>>().join(",");
    assert_eq!(FieldSelector::parse(&written).as_ref(), Ok(&selector), "{written}");
    for term in selector.terms() {
        let alone = FieldSelector::parse(&format!("{}{}{}", term.field, if term.negated { "!=" } else { "=" }, escape(&term.value)));
        let alone = alone.expect("a term by itself");
        assert_eq!(alone.matches(|field| (field == term.field).then_some(&*term.value)), !term.negated);
    }
}
