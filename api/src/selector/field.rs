//! Field selectors: `status.phase!=Running,metadata.name=a`, with `\` escapes for `,`, `=` and `\`.

use super::{Error, MAX_LENGTH, MAX_TERMS};

/// One comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldTerm {
    /// Dotted path as the client wrote it.
    pub field: String,
    /// Wanted (or unwanted) value.
    pub value: String,
    /// True for `!=`.
    pub negated: bool,
}

/// All terms must hold. An empty selector selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {
    terms: Vec<FieldTerm>,
}

impl FieldSelector {
    /// From the query form.
    pub fn parse(text: &str) -> Result<Self, Error> {
        if text.len() > MAX_LENGTH {
            return Err(Error(format!("the field selector has {} bytes; at most {MAX_LENGTH} are read", text.len())));
        }
        let mut terms = Vec::new();
        for part in split(text) {
            if part.is_empty() {
                continue;
            }
            terms.push(term(part)?);
            if terms.len() > MAX_TERMS {
                return Err(Error(format!("the field selector has more than {MAX_TERMS} terms")));
            }
        }
        Ok(Self { terms })
    }

    /// Whether it selects everything.
    pub fn is_everything(&self) -> bool {
        self.terms.is_empty()
    }

    /// Its comparisons.
    pub fn terms(&self) -> &[FieldTerm] {
        &self.terms
    }

    /// The value a field must be equal to, if the selector says so.
    pub fn exact(&self, field: &str) -> Option<&str> {
        self.terms.iter().find(|term| !term.negated && term.field == field).map(|term| term.value.as_str())
    }

    /// Whether it selects a thing whose fields `get` gives; an absent field is the empty string.
    pub fn matches<'a>(&self, get: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.terms.iter().all(|term| (get(&term.field).unwrap_or("") == term.value) != term.negated)
    }
}

/// Parts between unescaped commas.
fn split(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn term(part: &str) -> Result<FieldTerm, Error> {
    let invalid = || Error(format!("invalid selector: '{part}'; can't understand '{part}'"));
    let at = part.find('=').ok_or_else(invalid)?;
    let (left, right) = (&part[..at], &part[at + 1..]);
    let (field, value, negated) = match (left.strip_suffix('!'), right.strip_prefix('=')) {
        (Some(field), _) => (field, right, true),
        (None, Some(value)) => (left, value, false),
        (None, None) => (left, right, false),
    };
    Ok(FieldTerm { field: field.to_string(), value: unescape(value)?, negated })
}

fn unescape(value: &str) -> Result<String, Error> {
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(c @ ('\\' | ',' | '=')) => out.push(c),
                _ => return Err(Error(format!("invalid field selector: invalid escape sequence in \"{value}\""))),
            },
            ',' | '=' => return Err(Error(format!("invalid field selector: unescaped character in \"{value}\""))),
            c => out.push(c),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get<'a>(field: &str) -> Option<&'a str> {
        match field {
            "status.phase" => Some("Running"),
            "x" => Some("a,b"),
            _ => None,
        }
    }

    #[test]
    fn terms_are_read_and_matched() {
        for yes in ["", "status.phase=Running", "status.phase==Running,spec.nodeName=", "status.phase!=Failed", "x=a\\,b"] {
            assert!(FieldSelector::parse(yes).expect(yes).matches(get), "{yes}");
        }
        for no in ["status.phase!=Running", "spec.nodeName=n1", "status.phase=Running,x=a"] {
            assert!(!FieldSelector::parse(no).expect(no).matches(get), "{no}");
        }
        for bad in ["x", "x=a\\b", "x=a=b", "x=\\"] {
            assert!(FieldSelector::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(FieldSelector::parse("a!=1,b=2").expect("valid").exact("b"), Some("2"));
        assert_eq!(FieldSelector::parse("a!=1").expect("valid").exact("a"), None);
    }
}
