//! JSONPath as kubectl and printer columns read it (`client-go/util/jsonpath`): dotted fields, lists, filters, unions, recursive descent.
//!
//! No crate is used: those follow RFC 9535, whose language is another one (`$`, quoting, escapes, comparisons).

use serde_json::Value;
use std::{borrow::Cow, cmp::Ordering};

/// Paths within paths (filters, unions).
const MAX_DEPTH: usize = 8;
/// Most values that are looked at; recursive descent can find every value of an object several times.
const MAX_RESULTS: usize = 4096;

/// A parsed path.
#[derive(Clone, Debug, PartialEq)]
pub struct Path(Vec<Step>);

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Field(String),
    Wildcard,
    Recursive,
    Slice { start: Option<i64>, end: End, step: Option<i64> },
    Union(Vec<Path>),
    Filter { left: Path, compare: Option<(Compare, Path)> },
    Literal(Value),
}

#[derive(Clone, Debug, PartialEq)]
enum End {
    /// `[3]`: the one element.
    One,
    Open,
    At(i64),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Compare {
    Less,
    Greater,
    Equal,
    NotEqual,
    LessEqual,
    GreaterEqual,
}

type Found<'v> = Vec<Cow<'v, Value>>;

impl Path {
    /// Reads what stands between the braces of a template: `.spec.list[?(@.type=="a")].value`.
    ///
    /// # Errors
    /// A sentence about the first mistake.
    pub fn parse(text: &str) -> Result<Path, String> {
        Parser { rest: text, depth: 0 }.path()
    }

    /// What is there; nothing where a field is missing, or where the path does not fit the value.
    pub fn find<'v>(&self, value: &'v Value) -> Found<'v> {
        self.walk(vec![Cow::Borrowed(value)]).unwrap_or_default()
    }

    /// None where the path does not fit.
    fn walk<'v>(&self, mut values: Found<'v>) -> Option<Found<'v>> {
        for step in &self.0 {
            values = step.walk(values)?;
            values.truncate(MAX_RESULTS);
        }
        Some(values)
    }
}

impl Step {
    fn walk<'v>(&self, values: Found<'v>) -> Option<Found<'v>> {
        let mut found = Vec::new();
        if let Step::Union(paths) = self {
            for path in paths {
                found.extend(path.walk(values.clone())?);
            }
            return Some(found);
        }
        for value in values {
            if let Step::Literal(literal) = self {
                found.push(Cow::Owned(literal.clone()));
                continue;
            }
            match value {
                Cow::Borrowed(Value::Null) if !matches!(self, Step::Filter { .. }) => {}
                Cow::Borrowed(value) => self.walk_one(value, &mut found)?,
                // A literal has nothing below it.
                Cow::Owned(_) => {}
            }
        }
        Some(found)
    }

    fn walk_one<'v>(&self, value: &'v Value, found: &mut Found<'v>) -> Option<()> {
        match self {
            Step::Field(name) => found.extend(value.get(name).map(Cow::Borrowed)),
            Step::Wildcard => found.extend(children(value).map(Cow::Borrowed)),
            Step::Recursive => descend(value, found),
            Step::Slice { start, end, step } => {
                let list = value.as_array()?;
                let length = list.len() as i64;
                let wrap = |at: i64| if at < 0 { at + length } else { at };
                let start = wrap(start.unwrap_or(0));
                let end = match end {
                    End::One => start + 1,
                    End::Open => length,
                    End::At(at) => wrap(*at),
                };
                if start == end {
                    return Some(());
                }
                if start < 0 || start >= length || end < 0 || end > length || start > end {
                    return None;
                }
                let step = usize::try_from(step.unwrap_or(1)).ok().filter(|step| *step > 0)?;
                found.extend(list.get(start as usize..end as usize)?.iter().step_by(step).map(Cow::Borrowed));
            }
            Step::Filter { left, compare } => {
                for element in value.as_array()? {
                    let lefts = left.walk(vec![Cow::Borrowed(element)]);
                    let passes = match compare {
                        None => lefts.is_some_and(|lefts| !lefts.is_empty()),
                        Some((compare, right)) => match (lefts?.as_slice(), right.walk(vec![Cow::Borrowed(element)])?.as_slice()) {
                            ([], _) | (_, []) => false,
                            ([left], [right]) => compare.holds(left, right)?,
                            _ => return None,
                        },
                    };
                    if passes {
                        found.push(Cow::Borrowed(element));
                    }
                }
            }
            Step::Union(_) | Step::Literal(_) => {}
        }
        Some(())
    }
}

fn children(value: &Value) -> Box<dyn Iterator<Item = &Value> + '_> {
    match value {
        Value::Array(list) => Box::new(list.iter()),
        Value::Object(map) => Box::new(map.values()),
        _ => Box::new(std::iter::empty()),
    }
}

/// A value and everything below it that has something below it.
fn descend<'v>(value: &'v Value, found: &mut Found<'v>) {
    if found.len() < MAX_RESULTS && children(value).next().is_some() {
        found.push(Cow::Borrowed(value));
        children(value).for_each(|child| descend(child, found));
    }
}

impl Compare {
    /// None where the two cannot be compared.
    fn holds(self, left: &Value, right: &Value) -> Option<bool> {
        let order = match (left, right) {
            (Value::Number(left), Value::Number(right)) => left.as_f64()?.partial_cmp(&right.as_f64()?)?,
            (Value::String(left), Value::String(right)) => left.cmp(right),
            (Value::Bool(left), Value::Bool(right)) if matches!(self, Compare::Equal | Compare::NotEqual) => left.cmp(right),
            _ => return None,
        };
        Some(match self {
            Compare::Less => order == Ordering::Less,
            Compare::Greater => order == Ordering::Greater,
            Compare::Equal => order == Ordering::Equal,
            Compare::NotEqual => order != Ordering::Equal,
            Compare::LessEqual => order != Ordering::Greater,
            Compare::GreaterEqual => order != Ordering::Less,
        })
    }
}

struct Parser<'t> {
    rest: &'t str,
    depth: usize,
}

fn ends_name(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n' | '.' | ',' | '[' | ']' | '$' | '@' | '{' | '}')
}

impl<'t> Parser<'t> {
    fn inner(&self, text: &str) -> Result<Path, String> {
        if self.depth == MAX_DEPTH {
            return Err("paths are nested too deeply".into());
        }
        Parser { rest: text, depth: self.depth + 1 }.path()
    }

    fn path(mut self) -> Result<Path, String> {
        let mut steps = Vec::new();
        while let Some(c) = self.rest.chars().next() {
            if let Some(rest) = self.rest.strip_prefix("[?(") {
                self.rest = rest;
                steps.push(self.filter()?);
            } else if let Some(rest) = self.rest.strip_prefix("..") {
                if steps.last() == Some(&Step::Recursive) {
                    return Err("invalid multiple recursive descent".into());
                }
                self.rest = rest;
                steps.push(Step::Recursive);
                if rest.starts_with(|c: char| c == '_' || c.is_alphanumeric()) {
                    steps.push(self.field());
                }
            } else {
                let rest = &self.rest[c.len_utf8()..];
                match c {
                    '\r' | '\n' => return Err("unclosed action".into()),
                    ' ' | '@' | '$' => self.rest = rest,
                    '[' => {
                        self.rest = rest;
                        self.brackets(&mut steps)?;
                    }
                    '"' | '\'' => {
                        self.rest = rest;
                        steps.push(Step::Literal(self.quoted(c)?.into()));
                    }
                    '.' => {
                        self.rest = rest;
                        steps.push(self.field());
                    }
                    c if c == '+' || c == '-' || c.is_ascii_digit() => steps.push(self.number()?),
                    c if c == '_' || c.is_alphanumeric() => {
                        let end = self.rest.find(ends_name).unwrap_or(self.rest.len());
                        let (word, rest) = self.rest.split_at(end);
                        self.rest = rest;
                        match word {
                            "true" | "false" => steps.push(Step::Literal((word == "true").into())),
                            word => return Err(format!("unrecognized identifier {word}")),
                        }
                    }
                    '}' => return Err("unexpected end of action".into()),
                    c => return Err(format!("unrecognized character in action: U+{:04X} '{c}'", u32::from(c))),
                }
            }
        }
        Ok(Path(steps))
    }

    /// A name up to the next character that ends it; a backslash takes that meaning away.
    fn field(&mut self) -> Step {
        let mut name = String::new();
        let mut chars = self.rest.char_indices();
        let mut end = self.rest.len();
        while let Some((at, c)) = chars.next() {
            if c == '\\' {
                name.extend(chars.next().map(|(_, escaped)| escaped));
            } else if ends_name(c) {
                end = at;
                break;
            } else {
                name.push(c);
            }
        }
        let whole = &self.rest[..end];
        self.rest = &self.rest[end..];
        if whole == "*" { Step::Wildcard } else { Step::Field(name) }
    }

    fn number(&mut self) -> Result<Step, String> {
        let sign = usize::from(self.rest.starts_with(['+', '-']));
        let digits = self.rest[sign..].find(|c: char| c != '.' && !c.is_ascii_digit()).unwrap_or(self.rest.len() - sign);
        let (text, rest) = self.rest.split_at(sign + digits);
        self.rest = rest;
        let number = text.parse::<i64>().map(Value::from).or_else(|_| text.parse::<f64>().map(Value::from));
        number.map(Step::Literal).map_err(|_| format!("cannot parse number {text}"))
    }

    fn quoted(&mut self, quote: char) -> Result<String, String> {
        let mut text = String::new();
        let mut chars = self.rest.char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '\n' => break,
                '\\' => text.extend(chars.next().map(|(_, escaped)| match escaped {
                    'n' => '\n',
                    't' => '\t',
                    'r' => '\r',
                    escaped => escaped,
                })),
                c if c == quote => {
                    self.rest = &self.rest[at + 1..];
                    return Ok(text);
                }
                c => text.push(c),
            }
        }
        Err("unterminated quoted string".into())
    }

    /// What stands in brackets: an index, a slice, `*`, a quoted name, or several of them.
    fn brackets(&mut self, steps: &mut Vec<Step>) -> Result<(), String> {
        let end = self.rest.find([']', '\n']).filter(|end| self.rest[*end..].starts_with(']')).ok_or("unterminated array")?;
        let text = &self.rest[..end];
        self.rest = &self.rest[end + 1..];
        let quoted = |text: &'t str| ["'", "\""].iter().find_map(|q| text.strip_prefix(q)?.strip_suffix(q));
        if let Some(name) = quoted(text).filter(|name| !name.contains(['\'', '"'])) {
            steps.extend(self.inner(&format!(".{name}"))?.0);
            return Ok(());
        }
        if text.contains(',') {
            let paths = text.split(',').map(|part| self.inner(&format!("[{}]", part.trim()))).collect::<Result<_, _>>()?;
            steps.push(Step::Union(paths));
            return Ok(());
        }
        if text == "*" {
            steps.push(Step::Slice { start: None, end: End::Open, step: None });
            return Ok(());
        }
        let number = |part: &str| part.parse::<i64>().map_err(|_| format!("invalid array index {text}"));
        let parts: Vec<&str> = text.split(':').collect();
        let optional = |at: usize| parts.get(at).filter(|part| !part.is_empty()).map(|part| number(part)).transpose();
        steps.push(match parts.len() {
            1 => Step::Slice { start: Some(number(text)?), end: End::One, step: None },
            2 | 3 => Step::Slice { start: optional(0)?, end: optional(1)?.map_or(End::Open, End::At), step: optional(2)? },
            _ => return Err(format!("invalid array index {text}")),
        });
        Ok(())
    }

    /// What stands between `[?(` and `)]`.
    fn filter(&mut self) -> Result<Step, String> {
        let mut quote = None;
        let mut before = ' ';
        let end = self.rest.char_indices().find_map(|(at, c)| {
            match (c, quote) {
                ('"' | '\'', None) => quote = Some(c),
                (c, Some(open)) if c == open && before != '\\' => quote = None,
                (')', None) => return Some(at),
                _ => {}
            }
            before = c;
            None
        });
        let end = end.ok_or("unterminated filter")?;
        let text = &self.rest[..end];
        self.rest = self.rest[end + 1..].strip_prefix(']').ok_or("unclosed array expect ]")?;
        let Some(at) = text.find(['!', '<', '>', '=']).filter(|at| *at > 0) else {
            return Ok(Step::Filter { left: self.inner(text)?, compare: None });
        };
        let operator = text[at..].len() - text[at..].trim_start_matches(['!', '<', '>', '=']).len();
        let compare = match &text[at..at + operator] {
            "<" => Compare::Less,
            ">" => Compare::Greater,
            "==" => Compare::Equal,
            "!=" => Compare::NotEqual,
            "<=" => Compare::LessEqual,
            ">=" => Compare::GreaterEqual,
            other => return Err(format!("unrecognized filter operator {other}")),
        };
        Ok(Step::Filter { left: self.inner(&text[..at])?, compare: Some((compare, self.inner(&text[at + operator..])?)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_find_what_kubectl_finds() {
        let object = json!({
            "metadata": {"labels": {"app.kubernetes.io/name": "x"}},
            "spec": {"list": [{"type": "A", "n": 1, "on": true}, {"type": "B", "n": 2}, {"n": 3}], "count": 7, "null": null},
        });
        for (path, want) in [
            (".spec.count", json!([7])),
            (".spec.list[0].type", json!(["A"])),
            (".spec.list[-1].n", json!([3])),
            (".spec.list[*].n", json!([1, 2, 3])),
            (".spec.list[0:2].n", json!([1, 2])),
            (".spec.list[::2].n", json!([1, 3])),
            (".spec.list[0,2].n", json!([1, 3])),
            (r#".spec.list[?(@.type=="B")].n"#, json!([2])),
            (".spec.list[?(@.type=='B')].n", json!([2])),
            (".spec.list[?(@.n>1)].n", json!([2, 3])),
            (".spec.list[?(@.on==true)].n", json!([1])),
            (".spec.list[?(@.on)].n", json!([1])),
            (r".metadata.labels.app\.kubernetes\.io/name", json!(["x"])),
            (r".metadata.labels['app\.kubernetes\.io/name']", json!(["x"])),
            ("..type", json!(["A", "B"])),
            (".spec['count']", json!([7])),
            (".spec.*", json!([7, object["spec"]["list"], null])),
            (".spec.missing.deeper", json!([])),
            (".spec.null.deeper", json!([])),
            (".spec.list[7]", json!([])),
            (".spec.count[0]", json!([])),
        ] {
            let found: Vec<Value> = Path::parse(path).expect(path).find(&object).into_iter().map(Cow::into_owned).collect();
            assert_eq!(Value::Array(found), want, "{path}");
        }
    }

    #[test]
    fn what_is_no_path_says_why() {
        for (path, why) in [
            (".spec[", "unterminated array"),
            (".spec[x]", "invalid array index x"),
            (".spec[?(@.a==1]", "unterminated filter"),
            (".a....b", "invalid multiple recursive descent"),
            ("spec", "unrecognized identifier spec"),
            (".a#", ""),
            (".a[?(@.b=~'x')]", "unrecognized filter operator =~"),
        ] {
            match Path::parse(path) {
                Err(error) => assert!(!why.is_empty() && (error == why || error.starts_with("unrecognized filter operator")), "{path}: {error}"),
                Ok(_) => assert_eq!(why, "", "{path}"),
            }
        }
        let deep = (0..20).fold(".a".to_owned(), |inner, _| format!("[?({inner})]"));
        assert!(Path::parse(&deep).is_err());
    }
}
