//! Label and field selectors: parsing (bounded) and matching.
//!
//! Matching asks for values by key, so that it runs on the store's sorted pairs, on a JSON map, or on anything else without copies.

use serde_json::Value;
use std::fmt;

mod field;
mod parse;

pub use field::{FieldSelector, FieldTerm};

/// Longest selector that is read, bytes; a request line can hold no more anyway.
pub const MAX_LENGTH: usize = 64 * 1024;
/// Most requirements in one selector.
pub const MAX_TERMS: usize = 1_000;

/// How one key is judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operator {
    /// `key in (a,b)`, `key=a`: present with one of these.
    In(Vec<String>),
    /// `key notin (a,b)`, `key!=a`: absent, or with none of these.
    NotIn(Vec<String>),
    /// `key`
    Exists,
    /// `!key`
    DoesNotExist,
    /// `key>7`: present and a greater integer.
    Greater(i64),
    /// `key<7`: present and a lesser integer.
    Less(i64),
}

/// One requirement; all of a selector's must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Term {
    /// Label key.
    pub key: String,
    /// How it is judged.
    pub operator: Operator,
}

/// A label selector. Without terms it selects everything; [`Selector::nothing`] selects nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    terms: Vec<Term>,
    nothing: bool,
}

/// A selector that cannot be read; the message is for the client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Error(pub String);

impl Selector {
    /// Selects nothing, as the null selector of most kinds does.
    pub fn nothing() -> Self {
        Self { terms: Vec::new(), nothing: true }
    }

    /// From the query form: `app=web,tier in (a,b),!old`.
    pub fn parse(text: &str) -> Result<Self, Error> {
        Ok(Self { terms: parse::terms(text)?, nothing: false })
    }

    /// From a `metav1.LabelSelector` (`matchLabels`, `matchExpressions`). Null selects nothing, an empty object everything.
    pub fn from_object(selector: &Value) -> Result<Self, Error> {
        let Some(object) = selector.as_object() else {
            return match selector {
                Value::Null => Ok(Self::nothing()),
                other => Err(Error(format!("a label selector must be an object, not {other}"))),
            };
        };
        let mut terms = Self::from_map(object.get("matchLabels").unwrap_or(&Value::Null))?.terms;
        for expression in object.get("matchExpressions").and_then(Value::as_array).into_iter().flatten() {
            terms.push(Term::from_object(expression, false)?);
        }
        Ok(Self { terms, nothing: false })
    }

    /// From the requirements of a `core/v1 NodeSelectorTerm` (`matchExpressions`, `matchFields`), which know `Gt` and `Lt` besides.
    pub fn from_node_requirements(requirements: &Value) -> Result<Self, Error> {
        let list = requirements.as_array().into_iter().flatten();
        let terms = list.map(|requirement| Term::from_object(requirement, true)).collect::<Result<_, _>>()?;
        Ok(Self { terms, nothing: false })
    }

    /// From a plain map of labels (`Service.spec.selector`).
    pub fn from_map(map: &Value) -> Result<Self, Error> {
        let mut terms = Vec::new();
        for (key, value) in map.as_object().into_iter().flatten() {
            let value = value.as_str().ok_or_else(|| Error(format!("label {key} must be a string")))?;
            terms.push(Term { key: key.clone(), operator: Operator::In(vec![value.to_string()]) });
        }
        Ok(Self { terms, nothing: false })
    }

    /// Whether it selects everything.
    pub fn is_everything(&self) -> bool {
        self.terms.is_empty() && !self.nothing
    }

    /// Its requirements.
    pub fn terms(&self) -> &[Term] {
        &self.terms
    }

    /// Whether it selects a thing whose labels `get` gives.
    pub fn matches<'a>(&self, get: impl Fn(&str) -> Option<&'a str>) -> bool {
        !self.nothing && self.terms.iter().all(|term| term.matches(get(&term.key)))
    }

    /// On the store's sorted pairs.
    pub fn matches_pairs(&self, labels: &[(Box<str>, Box<str>)]) -> bool {
        self.matches(|key| labels.binary_search_by(|(k, _)| (**k).cmp(key)).ok().and_then(|at| labels.get(at)).map(|(_, v)| &**v))
    }

    /// On a JSON object of labels (`metadata.labels`; null is no labels).
    pub fn matches_labels(&self, labels: &Value) -> bool {
        self.matches(|key| labels.get(key).and_then(Value::as_str))
    }
}

impl Term {
    fn from_object(requirement: &Value, of_node: bool) -> Result<Self, Error> {
        let key = requirement["key"].as_str().unwrap_or_default().to_string();
        let values: Vec<String> = requirement["values"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_string).collect();
        let number = || match values.as_slice() {
            [one] => one.parse::<i64>().map_err(|_| Error(format!("\"{one}\" is not an integer"))),
            _ => Err(Error("must be specified single value when `operator` is 'Lt' or 'Gt'".into())),
        };
        let operator = match requirement["operator"].as_str().unwrap_or_default() {
            "Gt" if of_node => Operator::Greater(number()?),
            "Lt" if of_node => Operator::Less(number()?),
            "In" => Operator::In(values),
            "NotIn" => Operator::NotIn(values),
            "Exists" => Operator::Exists,
            "DoesNotExist" => Operator::DoesNotExist,
            other => return Err(Error(format!("\"{other}\" is not a valid label selector operator"))),
        };
        Ok(Self { key, operator })
    }

    fn matches(&self, value: Option<&str>) -> bool {
        let number = |value: Option<&str>| value.and_then(|v| v.parse::<i64>().ok());
        match &self.operator {
            Operator::In(values) => value.is_some_and(|value| values.iter().any(|v| v == value)),
            Operator::NotIn(values) => value.is_none_or(|value| !values.iter().any(|v| v == value)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::Greater(than) => number(value).is_some_and(|n| n > *than),
            Operator::Less(than) => number(value).is_some_and(|n| n < *than),
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, term) in self.terms.iter().enumerate() {
            if at > 0 {
                f.write_str(",")?;
            }
            let key = &term.key;
            match &term.operator {
                Operator::In(values) if values.len() == 1 => write!(f, "{key}={}", values[0])?,
                Operator::In(values) => write!(f, "{key} in ({})", values.join(","))?,
                Operator::NotIn(values) if values.len() == 1 => write!(f, "{key}!={}", values[0])?,
                Operator::NotIn(values) => write!(f, "{key} notin ({})", values.join(","))?,
                Operator::Exists => f.write_str(key)?,
                Operator::DoesNotExist => write!(f, "!{key}")?,
                Operator::Greater(than) => write!(f, "{key}>{than}")?,
                Operator::Less(than) => write!(f, "{key}<{than}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn matches(selector: &str, labels: Value) -> bool {
        Selector::parse(selector).expect(selector).matches_labels(&labels)
    }

    #[test]
    fn the_query_form_is_read_and_matched() {
        let web = || json!({"app": "web", "tier": "a", "n": "7"});
        for yes in ["", "app=web", "app==web", "app in (web, db),tier", "!old", "x notin (a)", "app!=db", "n>6,n<8", " app = web , tier "] {
            assert!(matches(yes, web()), "{yes}");
        }
        for no in ["app=db", "!app", "old", "app notin (web)", "n>7", "x>1", "app=", "app in (db)"] {
            assert!(!matches(no, web()), "{no}");
        }
        assert!(matches("app=", json!({"app": ""})));
        assert!(matches("app in (,web)", json!({"app": ""})));
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        for bad in ["app in", "app in (", "app in web", ",", "app=web,", "=x", "a b", "app=(x)", "!a=b", "n>x", "-a=b", "a/b/c=d", "a=b c"] {
            assert!(Selector::parse(bad).is_err(), "{bad}");
        }
        assert!(Selector::parse(&"a".repeat(MAX_LENGTH + 1)).is_err());
        assert!(Selector::parse(&["a=b"; MAX_TERMS + 1].join(",")).is_err());
    }

    #[test]
    fn objects_and_maps_are_read() {
        let selector =
            Selector::from_object(&json!({"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "c", "operator": "Exists"}]})).expect("valid");
        assert!(selector.matches_labels(&json!({"a": "b", "c": ""})));
        assert!(!selector.matches_labels(&json!({"a": "b"})));
        assert!(Selector::from_object(&json!({})).expect("empty").matches_labels(&Value::Null));
        assert!(!Selector::from_object(&Value::Null).expect("null").matches_labels(&json!({})));
        assert!(Selector::from_object(&json!({"matchExpressions": [{"key": "c", "operator": "Near"}]})).is_err());
    }

    #[test]
    fn sorted_pairs_match_as_maps_do() {
        let pairs: Vec<(Box<str>, Box<str>)> = vec![("a".into(), "1".into()), ("b".into(), "2".into())];
        assert!(Selector::parse("b=2,!c").expect("valid").matches_pairs(&pairs));
        assert!(!Selector::parse("a=2").expect("valid").matches_pairs(&pairs));
    }

    #[test]
    fn what_is_printed_reads_back() {
        for text in ["a=b", "a in (b,c)", "a!=b", "a notin (b,c)", "a", "!a", "a>1", "a<1", "a=b,c"] {
            let selector = Selector::parse(text).expect(text);
            assert_eq!(selector.to_string(), text);
            assert_eq!(Selector::parse(&selector.to_string()).expect(text), selector);
        }
    }
}
