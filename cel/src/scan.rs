//! A look at the text before the parser has it: how long it is and how deep its brackets go.
//!
//! The parser is a generated one on a general runtime, and a panic in it would end the server. What makes it work hard is refused here, by a loop that cannot fail. It cuts the
//! text where the generated lexer does, broken text included: a bracket that the parser would see is counted, one in a string, in a comment or in what the lexer drops is not.

/// What is wrong with a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// More than this many bytes.
    Long,
    /// At this offset, in bytes, the deepest nesting is passed.
    Deep(usize),
}

/// How a token ends: after its last byte, or at the byte that no token has here.
type Cut = Result<usize, usize>;

fn digits(text: &[u8], from: usize, count: usize, good: impl Fn(u8) -> bool) -> Cut {
    match (from..from + count).find(|at| !text.get(*at).is_some_and(|byte| good(*byte))) {
        Some(bad) => Err(bad),
        None => Ok(from + count),
    }
}

/// What follows a backslash (`ESC_SEQ`).
fn escape(text: &[u8], at: usize) -> Cut {
    let hex = |count| digits(text, at + 1, count, |byte| byte.is_ascii_hexdigit());
    match text.get(at) {
        Some(b'a' | b'b' | b'f' | b'n' | b'r' | b't' | b'v' | b'"' | b'\'' | b'\\' | b'?' | b'`') => Ok(at + 1),
        Some(b'0'..=b'3') => digits(text, at + 1, 2, |byte| matches!(byte, b'0'..=b'7')),
        Some(b'x' | b'X') => hex(2),
        Some(b'u') => hex(4),
        Some(b'U') => hex(8),
        _ => Err(at),
    }
}

/// A string whose first quote is here.
fn string(text: &[u8], quote: usize, raw: bool) -> Cut {
    let mark = *text.get(quote).ok_or(quote)?;
    let three = |at: usize| text.get(at..at + 3) == Some(&[mark; 3][..]);
    let triple = three(quote);
    let body = || {
        let mut at = quote + if triple { 3 } else { 1 };
        loop {
            match *text.get(at).ok_or(at)? {
                b'\\' if !raw => at = escape(text, at + 1)?,
                b'\n' | b'\r' if !triple => return Err(at),
                byte if byte == mark && !triple => return Ok(at + 1),
                byte if byte == mark && three(at) => return Ok(at + 3),
                _ => at += 1,
            }
        }
    };
    match body() {
        // Two quotes are a string already.
        Err(_) if triple => Ok(quote + 2),
        cut => cut,
    }
}

fn run(text: &[u8], from: usize, good: impl Fn(u8) -> bool) -> usize {
    text.get(from..).and_then(|rest| rest.iter().position(|byte| !good(*byte))).map_or(text.len(), |length| from + length)
}

/// A number that begins here, or with a dot before it.
fn number(text: &[u8], start: usize) -> usize {
    let decimal = |from: usize| run(text, from, |byte| byte.is_ascii_digit());
    let is = |at: usize, of: &[u8]| text.get(at).is_some_and(|byte| of.contains(byte));
    let unsigned = |end: usize| end + usize::from(is(end, b"uU"));
    if text.get(start..start + 2) == Some(b"0x") {
        let end = run(text, start + 2, |byte| byte.is_ascii_hexdigit());
        if end > start + 2 {
            return unsigned(end);
        }
    }
    let whole = decimal(start);
    let fraction = if is(whole, b".") { decimal(whole + 1) } else { whole };
    let mantissa = if fraction > whole + 1 { fraction } else { whole };
    if is(mantissa, b"eE") {
        let power = mantissa + 1 + usize::from(is(mantissa + 1, b"+-"));
        if decimal(power) > power {
            return decimal(power);
        }
    }
    if mantissa > whole { mantissa } else { unsigned(whole) }
}

/// Where the token ends that begins here and is no bracket. What no token begins with is dropped up to the byte that shows it, as the lexer does.
fn token(text: &[u8], at: usize) -> usize {
    let rest = text.get(at..).unwrap_or_default();
    let cut = match rest {
        [b'\'' | b'"', ..] => string(text, at, false),
        [b'r' | b'R', b'\'' | b'"', ..] => string(text, at + 1, true).or(Ok(at + 1)),
        [b'b' | b'B', b'\'' | b'"', ..] => string(text, at + 1, false).or(Ok(at + 1)),
        [b'b' | b'B', b'r' | b'R', b'\'' | b'"', ..] => string(text, at + 2, true).or(Ok(at + 2)),
        [b'a'..=b'z' | b'A'..=b'Z' | b'_', ..] => Ok(run(text, at, |byte| byte.is_ascii_alphanumeric() || byte == b'_')),
        [b'0'..=b'9', ..] | [b'.', b'0'..=b'9', ..] => Ok(number(text, at)),
        [b'/', b'/', ..] => Ok(run(text, at, |byte| byte != b'\n')),
        [b'`', ..] => {
            let end = run(text, at + 1, |byte| byte.is_ascii_alphanumeric() || b"_.-/ ".contains(&byte));
            if end > at + 1 && text.get(end) == Some(&b'`') { Ok(end + 1) } else { Err(end) }
        }
        // Half of an operator.
        [first @ (b'=' | b'&' | b'|'), ..] => {
            if rest.get(1) == Some(first) {
                Ok(at + 2)
            } else {
                Err(at + 1)
            }
        }
        _ => Ok(at + 1),
    };
    cut.unwrap_or_else(|bad| bad + 1)
}

/// Refuses a text that is longer than `longest` bytes or has more than `deepest` brackets around anything.
pub(crate) fn check(source: &str, longest: usize, deepest: u32) -> Result<(), Refusal> {
    let text = source.as_bytes();
    if text.len() > longest {
        return Err(Refusal::Long);
    }
    // A bracket that closes another than was opened last closes nothing: the parser may pass over it.
    let (mut at, mut open) = (0, Vec::new());
    while let Some(byte) = text.get(at) {
        let closed_by = match byte {
            b'(' => b')',
            b'[' => b']',
            b'{' => b'}',
            _ => {
                let closes = open.last() == Some(byte);
                at = if matches!(byte, b')' | b']' | b'}') { at + 1 } else { token(text, at) };
                if closes {
                    open.pop();
                }
                continue;
            }
        };
        if open.len() as u64 >= u64::from(deepest) {
            return Err(Refusal::Deep(at));
        }
        open.push(closed_by);
        at += 1;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn deep(source: &str) -> Option<usize> {
        match check(source, 100, 2) {
            Err(Refusal::Deep(at)) => Some(at),
            _ => None,
        }
    }

    #[test]
    fn brackets_are_counted_where_they_are_brackets() {
        assert_eq!(deep("f([1])"), None);
        assert_eq!(deep("f([{}])"), Some(3));
        assert_eq!(deep("f() + g() + [1] + {'a': (1)}"), None, "one after the other is not deep");
        for text in
            ["'((((' == a", "\"[[[[\"", "'''((\n(('''", r"'\'(((('", "// ((((\n1", "b'((('", "r'((('", r"(r'\' + '(((')", "1r'((('", "`a//b` + '((('"]
        {
            assert_eq!(deep(text), None, "{text}");
        }
        assert_eq!(deep(r"r'\'((('"), Some(6), "a raw string ends at its quote");
        assert_eq!(deep(")))((("), Some(5));
        assert_eq!(check(&"x".repeat(101), 100, 2), Err(Refusal::Long));
    }

    #[test]
    fn broken_text_is_cut_as_the_lexer_cuts_it() {
        assert_eq!(deep(r"'\q((("), Some(5), "no such escape: dropped up to its letter");
        assert_eq!(deep("'''  a' (((  '"), Some(10), "three quotes without an end are an empty string and one more quote");
        assert_eq!(deep(r"rb'\' + '((('"), Some(11), "rb is a name");
        assert_eq!(deep("((]{"), Some(3), "a bracket of another kind closes nothing");
        assert_eq!(deep("((=)=)=)("), Some(8), "half an operator takes the next character with it");
        assert_eq!(deep("(('))\n("), Some(6), "a string without an end is dropped with its brackets");
        assert_eq!(deep("`a(((("), Some(5));
    }

    /// What the parser says when it may go so deep.
    fn said(source: &str, depth: u16) -> Vec<((isize, isize), String)> {
        let parser = cel::parser::Parser::new().max_recursion_depth(depth).enable_optional_syntax(true).enable_ident_escape_syntax(true);
        let errors = parser.parse_with_source_info(source).err().map(|errors| errors.errors).unwrap_or_default();
        errors.into_iter().map(|error| (error.pos, error.msg)).collect()
    }

    /// Whether the parser goes no deeper than so many expressions within each other: with this limit it says the same as with a larger one. It stops silently where other
    /// mistakes were found before, so a mistake stands at the end. At each mistake it may pass over a bracket that closes one, and so be deeper by one.
    fn parses_within(source: &str, depth: u16, mistakes: bool) -> bool {
        let source = format!("{source}\n) 1 1");
        let all = said(&source, u16::MAX);
        let more = if mistakes { all.len() as u16 } else { 0 };
        said(&source, depth + more) == all
    }

    #[test]
    fn the_parser_has_a_measure_of_depth() {
        for (text, depth) in [("((1))", 2), (r"'\q ((1))", 2), ("`a(b[(1)]", 2), ("1", 0)] {
            assert!(parses_within(text, depth, false) && (depth == 0 || !parses_within(text, depth - 1, false)), "{text}");
        }
    }

    proptest! {
        #[test]
        fn the_parser_goes_no_deeper(text in "([(]{15}|[)]{15}|[(\\[{]|[)\\]}]|'|\"|'''|\"\"\"|\\\\|[rRbB]|[x0159aeu_.`=&|/,\n \u{e4}]|\\\\[nqxu0]){0,24}") {
            let depth = (0_u16..).find(|depth| check(&text, 999, (*depth).into()).is_ok()).unwrap_or_default();
            prop_assert!(parses_within(&text, depth, true), "{depth} brackets: {text:?}");
        }
    }
}
