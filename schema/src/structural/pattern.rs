//! Regular expressions of schemas: Go's syntax (RE2) on Rust's engine, which is of the same family: linear in the text, no look-around, no references.
//!
//! What differs is rewritten: `\d`, `\w`, `\s` and `\b` mean ASCII, `\Q…\E` quotes, `\123` is octal, and `[`, `&&`, `--`, `~~` have no meaning inside a
//! class. A pattern is compiled when it is first needed, and its program is bounded: an expression may not cost more than a stored object.

use regex::{Regex, RegexBuilder};
use std::fmt;
use std::sync::{Arc, OnceLock};

/// Most bytes a compiled pattern takes.
const MAX_PROGRAM: usize = 1 << 20;
/// Most repetitions a counted repetition may ask for, as RE2.
const MAX_REPEAT: u32 = 1000;

/// A pattern, compiled at its first use.
#[derive(Clone)]
pub(crate) struct Pattern {
    text: Box<str>,
    compiled: Arc<OnceLock<Result<Regex, String>>>,
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

impl Pattern {
    pub(crate) fn new(text: &str) -> Pattern {
        Pattern { text: text.into(), compiled: Arc::default() }
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Whether some part of `text` matches.
    ///
    /// # Errors
    /// Why the pattern is none.
    pub(crate) fn matches(&self, text: &str) -> Result<bool, &str> {
        match self.compiled.get_or_init(|| compile(&self.text)) {
            Ok(regex) => Ok(regex.is_match(text)),
            Err(why) => Err(why),
        }
    }
}

/// Whether a text is a regular expression in Go's syntax.
///
/// # Errors
/// `error parsing regexp: …`, as Go words it where the mistake is a common one.
pub fn check(pattern: &str) -> Result<(), String> {
    compile(pattern).map(drop)
}

fn compile(pattern: &str) -> Result<Regex, String> {
    let rewritten = rewrite(pattern)?;
    RegexBuilder::new(&rewritten).size_limit(MAX_PROGRAM).dfa_size_limit(MAX_PROGRAM).build().map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => "error parsing regexp: expression nests too deeply or is too large".to_owned(),
        other => {
            let text = other.to_string();
            let why = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
            format!("error parsing regexp: {why}: `{pattern}`")
        }
    })
}

/// Go's syntax in Rust's.
fn rewrite(pattern: &str) -> Result<String, String> {
    let mut out = String::with_capacity(pattern.len() + 16);
    let mut chars = pattern.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => escape(pattern, &mut chars, &mut out, false)?,
            '[' => class(pattern, at, &mut chars, &mut out)?,
            '(' if pattern[at..].starts_with("(?") => {
                let group = &pattern[at..];
                if ["(?=", "(?!", "(?<=", "(?<!"].iter().any(|look| group.starts_with(look)) {
                    let shown = if group.starts_with("(?<") { 4 } else { 3 };
                    return Err(format!("error parsing regexp: invalid or unsupported Perl syntax: `{}`", &group[..shown]));
                }
                out.push(c);
            }
            '{' => {
                if let Some(shown) = too_often(&pattern[at..]) {
                    return Err(format!("error parsing regexp: invalid repeat count: `{shown}`"));
                }
                // A brace that counts nothing stands for itself.
                if counts(&pattern[at..]).is_none() {
                    out.push('\\');
                }
                out.push(c);
            }
            '}' => {
                if !out
                    .rfind('{')
                    .is_some_and(|open| out[open + 1..].bytes().all(|b| b.is_ascii_digit() || b == b',') && !out[..open].ends_with('\\'))
                {
                    out.push('\\');
                }
                out.push(c);
            }
            c => out.push(c),
        }
    }
    Ok(out)
}

/// The counts of `{2}`, `{2,}` or `{2,3}` at the beginning of a text.
fn counts(text: &str) -> Option<(u32, u32)> {
    let (inner, _) = text.strip_prefix('{')?.split_once('}')?;
    let number = |text: &str| (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().unwrap_or(u32::MAX));
    match inner.split_once(',') {
        None => number(inner).map(|count| (count, count)),
        Some((low, "")) => number(low).map(|count| (count, count)),
        Some((low, high)) => Some((number(low)?, number(high)?)),
    }
}

fn too_often(text: &str) -> Option<&str> {
    let (low, high) = counts(text)?;
    let end = text.find('}')? + 1;
    (low > MAX_REPEAT || high > MAX_REPEAT || low > high).then(|| &text[..end])
}

type Chars<'p> = std::iter::Peekable<std::str::CharIndices<'p>>;

/// What follows a backslash.
fn escape(pattern: &str, chars: &mut Chars<'_>, out: &mut String, in_class: bool) -> Result<(), String> {
    let Some((at, c)) = chars.next() else { return Err("error parsing regexp: trailing backslash at end of expression: ``".into()) };
    let ascii = |inside: &'static str, outside: &'static str| if in_class { inside } else { outside };
    match c {
        'd' => out.push_str(ascii("0-9", "[0-9]")),
        'D' => out.push_str("[^0-9]"),
        'w' => out.push_str(ascii("0-9A-Za-z_", "[0-9A-Za-z_]")),
        'W' => out.push_str("[^0-9A-Za-z_]"),
        's' => out.push_str(ascii("\\t\\n\\f\\r ", "[\\t\\n\\f\\r ]")),
        'S' => out.push_str("[^\\t\\n\\f\\r ]"),
        'b' if !in_class => out.push_str("(?-u:\\b)"),
        'Q' if !in_class => {
            let rest = &pattern[at + 1..];
            let quoted = rest.split_once("\\E").map_or(rest, |(quoted, _)| quoted);
            out.push_str(&regex::escape(quoted));
            let end = at + 1 + quoted.len() + if quoted.len() == rest.len() { 0 } else { 2 };
            while chars.peek().is_some_and(|(at, _)| *at < end) {
                chars.next();
            }
        }
        '1'..='7' if !pattern[at + 1..].starts_with(|c: char| ('0'..='7').contains(&c)) => {
            return Err(format!("error parsing regexp: invalid escape sequence: `\\{c}`"));
        }
        '0'..='7' => {
            let mut code = u32::from(c) - u32::from('0');
            for _ in 0..2 {
                let Some((_, digit)) = chars.peek().copied().filter(|(_, c)| ('0'..='7').contains(c)) else { break };
                code = code * 8 + u32::from(digit) - u32::from('0');
                chars.next();
            }
            out.push_str(&format!("\\x{{{code:x}}}"));
        }
        c if c.is_ascii_alphanumeric() && !"aftnrvxpPABz".contains(c) => {
            return Err(format!("error parsing regexp: invalid escape sequence: `\\{c}`"));
        }
        c if !c.is_ascii() => return Err(format!("error parsing regexp: invalid escape sequence: `\\{c}`")),
        'p' | 'P' | 'x' if pattern[at + 1..].starts_with('{') => {
            let Some(length) = pattern[at..].find('}') else {
                return Err(format!("error parsing regexp: invalid escape sequence: `\\{c}`"));
            };
            out.push('\\');
            out.push_str(&pattern[at..=at + length]);
            while chars.peek().is_some_and(|(next, _)| *next <= at + length) {
                chars.next();
            }
        }
        c if c.is_ascii_alphanumeric() => out.extend(['\\', c]),
        c => out.push_str(&regex::escape(c.encode_utf8(&mut [0; 4]))),
    }
    Ok(())
}

/// A class from its bracket on.
fn class(pattern: &str, start: usize, chars: &mut Chars<'_>, out: &mut String) -> Result<(), String> {
    out.push('[');
    let mut first = true;
    if chars.peek().is_some_and(|(_, c)| *c == '^') {
        chars.next();
        out.push('^');
    }
    while let Some((at, c)) = chars.next() {
        match c {
            ']' if !first => {
                out.push(']');
                return Ok(());
            }
            '[' if pattern[at..].starts_with("[:") && pattern[at..].contains(":]") => {
                let end = at + pattern[at..].find(":]").unwrap_or_default() + 2;
                out.push_str(&pattern[at..end]);
                while chars.peek().is_some_and(|(at, _)| *at < end) {
                    chars.next();
                }
            }
            '\\' => escape(pattern, chars, out, true)?,
            '[' | ']' | '&' | '~' => out.extend(['\\', c]),
            // A dash between two characters is a range, anywhere else it is itself.
            '-' if first || pattern[at + 1..].starts_with(']') || pattern[at + 1..].starts_with('-') => out.push_str("\\-"),
            c => out.push(c),
        }
        first = false;
    }
    Err(format!("error parsing regexp: missing closing ]: `{}`", &pattern[start..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_syntax_is_understood() {
        for (pattern, yes, no) in [
            (r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", &["a-b", "x"][..], &["-a", "A", ""][..]),
            (r"^\d{2,3}$", &["12", "123"], &["1", "1234", "١٢"]),
            (r"^[\w.-]+$", &["a.b-c_D"], &["a b", "é"]),
            (r"^[^[]*$", &["abc]"], &["a[b"]),
            (r"^[]a]+$", &["]a"], &["b"]),
            (r"^[a&&b--c]+$", &["a&b", "c-"], &["d"]),
            (r"\Qa.b\E+$", &["a.bbb"], &["axb"]),
            (r"^\101\x{42}$", &["AB"], &["A"]),
            (r"^{a}$", &["{a}"], &["a"]),
            (r"^\$\{[^}]+\}$", &["${x}"], &["$x"]),
            (r"^[[:alpha:]_]+$", &["ab_"], &["1"]),
            (r"^(?:[0-9]{1,3}\.){3}[0-9]{1,3}$", &["10.0.0.1"], &["10.0.0"]),
            (r"^\S+\s\S+$", &["a b"], &["ab"]),
            (r"(?i)^abc$", &["AbC"], &["abcd"]),
            (r"^a/b\-c\:\@$", &["a/b-c:@"], &[]),
            (r"^\p{L}+$", &["é"], &["1"]),
        ] {
            let compiled = Pattern::new(pattern);
            for text in yes {
                assert_eq!(compiled.matches(text), Ok(true), "{pattern} {text}");
            }
            for text in no {
                assert_eq!(compiled.matches(text), Ok(false), "{pattern} {text}");
            }
        }
    }

    #[test]
    fn what_is_no_expression_says_why() {
        for (pattern, why) in [
            ("[a", "error parsing regexp: missing closing ]: `[a`"),
            ("(?=a)", "error parsing regexp: invalid or unsupported Perl syntax: `(?=`"),
            (r"(a)\1", r"error parsing regexp: invalid escape sequence: `\1`"),
            ("a{1001}", "error parsing regexp: invalid repeat count: `{1001}`"),
            ("a{3,2}", "error parsing regexp: invalid repeat count: `{3,2}`"),
            (r"\y", r"error parsing regexp: invalid escape sequence: `\y`"),
            ("a\\", "error parsing regexp: trailing backslash at end of expression: ``"),
        ] {
            assert_eq!(check(pattern), Err(why.to_owned()), "{pattern}");
        }
        assert!(check("(a").is_err() && check("*").is_err());
        assert!(check("((((a{1000}){1000}){1000}){1000})").is_err(), "a program without bound");
    }
}
