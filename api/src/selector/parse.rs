//! The query form of label selectors, as `k8s.io/apimachinery/pkg/labels` reads it.

use super::{Error, MAX_LENGTH, MAX_TERMS, Operator, Term};
use crate::names;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token<'a> {
    Word(&'a str),
    Sign(&'static str),
}

fn tokens(text: &str) -> Vec<Token<'_>> {
    const SIGNS: &[&str] = &["==", "!=", "=", "!", "(", ")", ",", ">", "<"];
    let mut out = Vec::new();
    let mut rest = text.trim_start();
    'next: while !rest.is_empty() {
        for sign in SIGNS {
            if let Some(after) = rest.strip_prefix(sign) {
                out.push(Token::Sign(sign));
                rest = after.trim_start();
                continue 'next;
            }
        }
        let end = rest.find(|c: char| c.is_whitespace() || "=!(),><".contains(c)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        out.push(Token::Word(word));
        rest = after.trim_start();
    }
    out
}

struct Cursor<'a> {
    tokens: Vec<Token<'a>>,
    at: usize,
}

impl<'a> Cursor<'a> {
    fn peek(&self) -> Option<&Token<'a>> {
        self.tokens.get(self.at)
    }
    fn take(&mut self) -> Option<Token<'a>> {
        let token = self.tokens.get(self.at).cloned();
        self.at += 1;
        token
    }
    fn sign(&mut self, sign: &str) -> bool {
        let found = matches!(self.peek(), Some(Token::Sign(s)) if *s == sign);
        self.at += usize::from(found);
        found
    }
}

fn found(token: Option<Token<'_>>, expected: &str) -> Error {
    let token = match token {
        Some(Token::Word(word)) => word.to_string(),
        Some(Token::Sign(sign)) => sign.to_string(),
        None => String::new(),
    };
    Error(format!("unable to parse requirement: found '{token}', expected: {expected}"))
}

/// Every requirement of a selector.
pub(super) fn terms(text: &str) -> Result<Vec<Term>, Error> {
    if text.len() > MAX_LENGTH {
        return Err(Error(format!("the label selector has {} bytes; at most {MAX_LENGTH} are read", text.len())));
    }
    let mut cursor = Cursor { tokens: tokens(text), at: 0 };
    let mut terms = Vec::new();
    if cursor.tokens.is_empty() {
        return Ok(terms);
    }
    loop {
        terms.push(term(&mut cursor)?);
        if terms.len() > MAX_TERMS {
            return Err(Error(format!("the label selector has more than {MAX_TERMS} requirements")));
        }
        match cursor.take() {
            None => return Ok(terms),
            Some(Token::Sign(",")) => {}
            other => return Err(found(other, "',' or 'end of string'")),
        }
    }
}

fn term(cursor: &mut Cursor<'_>) -> Result<Term, Error> {
    let negated = cursor.sign("!");
    let key = match cursor.take() {
        Some(Token::Word(word)) => word.to_string(),
        other => return Err(found(other, if negated { "identifier" } else { "!, identifier, or 'end of string'" })),
    };
    check_key(&key)?;
    if negated {
        return Ok(Term { key, operator: Operator::DoesNotExist });
    }
    let operator = match cursor.peek() {
        None | Some(Token::Sign(",")) => Operator::Exists,
        Some(Token::Sign("=" | "==")) => {
            cursor.at += 1;
            Operator::In(vec![value(cursor, &key)?])
        }
        Some(Token::Sign("!=")) => {
            cursor.at += 1;
            Operator::NotIn(vec![value(cursor, &key)?])
        }
        Some(Token::Sign(">")) => {
            cursor.at += 1;
            Operator::Greater(integer(cursor)?)
        }
        Some(Token::Sign("<")) => {
            cursor.at += 1;
            Operator::Less(integer(cursor)?)
        }
        Some(Token::Word("in")) => {
            cursor.at += 1;
            Operator::In(set(cursor, &key)?)
        }
        Some(Token::Word("notin")) => {
            cursor.at += 1;
            Operator::NotIn(set(cursor, &key)?)
        }
        other => return Err(found(other.cloned(), "in, notin, =, ==, !=, gt, lt")),
    };
    Ok(Term { key, operator })
}

fn check_key(key: &str) -> Result<(), Error> {
    match names::qualified_name(key).first() {
        None => Ok(()),
        Some(why) => Err(Error(format!("unable to parse requirement: <nil>: Invalid value: \"{key}\": {why}"))),
    }
}

fn checked(value: &str, key: &str) -> Result<String, Error> {
    match names::label_value(value).first() {
        None => Ok(value.to_string()),
        Some(why) => Err(Error(format!("unable to parse requirement: values[0][{key}]: Invalid value: \"{value}\": {why}"))),
    }
}

/// The value after `=`; nothing there means the empty one.
fn value(cursor: &mut Cursor<'_>, key: &str) -> Result<String, Error> {
    match cursor.peek() {
        None | Some(Token::Sign(",")) => Ok(String::new()),
        Some(Token::Word(word)) => {
            let value = checked(word, key);
            cursor.at += 1;
            value
        }
        other => Err(found(other.cloned(), "identifier")),
    }
}

fn integer(cursor: &mut Cursor<'_>) -> Result<i64, Error> {
    match cursor.take() {
        Some(Token::Word(word)) => word.parse().map_err(|_| {
            Error(format!(
                "unable to parse requirement: values[0]: Invalid value: \"{word}\": for 'Gt', 'Lt' operators, the value must be an integer"
            ))
        }),
        other => Err(found(other, "identifier")),
    }
}

fn set(cursor: &mut Cursor<'_>, key: &str) -> Result<Vec<String>, Error> {
    if !cursor.sign("(") {
        return Err(found(cursor.take(), "'('"));
    }
    let mut values = Vec::new();
    loop {
        match cursor.peek() {
            Some(Token::Word(word)) => {
                values.push(checked(word, key)?);
                cursor.at += 1;
            }
            // `(,a)` and `(a,)` hold the empty value, as upstream reads them.
            Some(Token::Sign("," | ")")) => values.push(String::new()),
            other => return Err(found(other.cloned(), "',', ')' or identifier")),
        }
        match cursor.take() {
            Some(Token::Sign(")")) => break,
            Some(Token::Sign(",")) => {}
            other => return Err(found(other, "',' or ')'")),
        }
    }
    values.sort();
    values.dedup();
    Ok(values)
}
