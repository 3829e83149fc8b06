//! Label selectors as they stand in objects (`metav1.LabelSelector`), matched against the store's parsed labels or a view's.

use super::{Map, Text};
use serde::Deserialize;

/// Something that has labels.
pub trait Labelled {
    /// The value of a label.
    fn label(&self, key: &str) -> Option<&str>;
}

impl Labelled for Map<'_> {
    fn label(&self, key: &str) -> Option<&str> {
        self.get(key).map(|value| &**value)
    }
}

/// The store's labels, which are sorted by key.
impl Labelled for [(Box<str>, Box<str>)] {
    fn label(&self, key: &str) -> Option<&str> {
        let at = self.binary_search_by(|(k, _)| (**k).cmp(key)).ok()?;
        self.get(at).map(|(_, value)| &**value)
    }
}

/// `metav1.LabelSelector`. Empty, it matches everything.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct LabelSelector<'a> {
    /// Labels that must be equal.
    #[serde(borrow)]
    pub match_labels: Map<'a>,
    /// Further requirements, all of which must hold.
    pub match_expressions: Vec<Requirement<'a>>,
}

/// One requirement; also those of node selector terms, which add `Gt` and `Lt`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct Requirement<'a> {
    /// Label key.
    #[serde(borrow)]
    pub key: Text<'a>,
    /// `In`, `NotIn`, `Exists`, `DoesNotExist`, `Gt`, `Lt`.
    pub operator: Text<'a>,
    /// What it is compared with.
    pub values: Vec<Text<'a>>,
}

impl Requirement<'_> {
    /// A copy that borrows nothing.
    pub fn detached(&self) -> Requirement<'static> {
        Requirement { key: self.key.detached(), operator: self.operator.detached(), values: self.values.iter().map(Text::detached).collect() }
    }

    /// Whether a label of this value (or its absence) meets the requirement. An operator that is not known meets nothing.
    pub fn met_by(&self, value: Option<&str>) -> bool {
        let listed = |value: &str| self.values.iter().any(|v| **v == *value);
        let number = |text: &str| text.parse::<i64>().ok();
        let bound = || self.values.first().and_then(|v| number(v));
        match &*self.operator {
            "In" => value.is_some_and(listed),
            "NotIn" => !value.is_some_and(listed),
            "Exists" => value.is_some(),
            "DoesNotExist" => value.is_none(),
            "Gt" => matches!((value.and_then(number), bound()), (Some(value), Some(bound)) if value > bound),
            "Lt" => matches!((value.and_then(number), bound()), (Some(value), Some(bound)) if value < bound),
            _ => false,
        }
    }
}

impl LabelSelector<'_> {
    /// Whether these labels meet every requirement.
    pub fn matches<L: Labelled + ?Sized>(&self, labels: &L) -> bool {
        self.match_labels.iter().all(|(key, value)| labels.label(key) == Some(&**value))
            && self.match_expressions.iter().all(|requirement| requirement.met_by(labels.label(&requirement.key)))
    }

    /// A copy that borrows nothing.
    pub fn detached(&self) -> LabelSelector<'static> {
        LabelSelector {
            match_labels: self.match_labels.iter().map(|(key, value)| (key.detached(), value.detached())).collect(),
            match_expressions: self.match_expressions.iter().map(Requirement::detached).collect(),
        }
    }

    /// Whether it has no requirement at all.
    pub fn is_empty(&self) -> bool {
        self.match_labels.is_empty() && self.match_expressions.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selector(json: &str) -> LabelSelector<'_> {
        serde_json::from_str(json).expect("a selector")
    }

    #[test]
    fn requirements_follow_kubernetes() {
        let labels: Map<'_> = [("app", "web"), ("tier", "3")].into_iter().map(|(k, v)| (k.into(), v.into())).collect();
        for (json, expected) in [
            (r#"{}"#, true),
            (r#"{"matchLabels":{"app":"web"}}"#, true),
            (r#"{"matchLabels":{"app":"web","x":"y"}}"#, false),
            (r#"{"matchExpressions":[{"key":"app","operator":"In","values":["a","web"]}]}"#, true),
            (r#"{"matchExpressions":[{"key":"x","operator":"NotIn","values":["a"]}]}"#, true),
            (r#"{"matchExpressions":[{"key":"x","operator":"Exists"}]}"#, false),
            (r#"{"matchExpressions":[{"key":"x","operator":"DoesNotExist"}]}"#, true),
            (r#"{"matchExpressions":[{"key":"tier","operator":"Gt","values":["2"]}]}"#, true),
            (r#"{"matchExpressions":[{"key":"tier","operator":"Lt","values":["3"]}]}"#, false),
            (r#"{"matchExpressions":[{"key":"tier","operator":"Sometimes"}]}"#, false),
        ] {
            assert_eq!(selector(json).matches(&labels), expected, "{json}");
        }
    }

    #[test]
    fn stored_labels_are_searched_by_key() {
        let labels: Vec<(Box<str>, Box<str>)> = vec![("a".into(), "1".into()), ("b".into(), "2".into())];
        assert_eq!(labels.as_slice().label("b"), Some("2"));
        assert_eq!(labels.as_slice().label("c"), None);
    }
}
