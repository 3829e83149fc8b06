//! A look at the text before the parser has it: how long it is and how deep its brackets go.
//!
//! The parser is a generated one on a general runtime, and a panic in it would end the server. What makes it work hard is refused here, by a loop that cannot fail; nothing
//! of the grammar is decided but where strings and comments are, within which brackets are text.

/// What is wrong with a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// More than this many bytes.
    Long,
    /// At this offset, in bytes, the deepest nesting is passed.
    Deep(usize),
}

/// Where a string that begins here ends, after its last quote; None if it has no end.
fn string(text: &[u8], start: usize, raw: bool) -> Option<usize> {
    let quote = *text.get(start)?;
    let triple = text.get(start..start + 3) == Some(&[quote; 3][..]);
    let mut at = start + if triple { 3 } else { 1 };
    loop {
        match *text.get(at)? {
            b'\\' if !raw => at += 2,
            b'\n' | b'\r' if !triple => return None,
            byte if byte == quote && !triple => return Some(at + 1),
            byte if byte == quote && text.get(at..at + 3) == Some(&[quote; 3][..]) => return Some(at + 3),
            _ => at += 1,
        }
    }
}

/// Whether a quote here begins a raw string: it follows `r`, or `b` and `r` in either order, that are no part of a name.
fn is_raw(text: &[u8], quote: usize) -> bool {
    let name = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    let before = text.get(..quote).unwrap_or_default();
    let letters = before.iter().rev().take_while(|byte| name(byte)).take(3).count();
    let prefix = before.get(before.len() - letters..).unwrap_or_default().to_ascii_lowercase();
    matches!(prefix.as_slice(), b"r" | b"br" | b"rb")
}

/// Refuses a text that is longer than `longest` bytes or has more than `deepest` brackets around anything.
pub(crate) fn check(source: &str, longest: usize, deepest: u32) -> Result<(), Refusal> {
    let text = source.as_bytes();
    if text.len() > longest {
        return Err(Refusal::Long);
    }
    let (mut at, mut depth) = (0, 0_u32);
    while let Some(byte) = text.get(at) {
        match byte {
            b'\'' | b'"' => match string(text, at, is_raw(text, at)) {
                Some(end) => at = end,
                // The parser says what is wrong with it; its quote is no string then, and what follows is looked at.
                None => at += 1,
            },
            b'/' if text.get(at + 1) == Some(&b'/') => {
                at += text.get(at..).and_then(|rest| rest.iter().position(|byte| *byte == b'\n')).unwrap_or(text.len() - at);
            }
            b'(' | b'[' | b'{' => {
                depth += 1;
                if depth > deepest {
                    return Err(Refusal::Deep(at));
                }
                at += 1;
            }
            b')' | b']' | b'}' => {
                depth = depth.saturating_sub(1);
                at += 1;
            }
            _ => at += 1,
        }
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
        for text in ["'((((' == a", "\"[[[[\"", "'''((\n(('''", r"'\'(((('", "// ((((\n1", "b'((('", "r'((('", r"(r'\' + '(((')"] {
            assert_eq!(deep(text), None, "{text}");
        }
        assert_eq!(deep(r"r'\'((('"), Some(6), "a raw string ends at its quote");
        assert_eq!(deep("'(((\n"), Some(3), "a string without an end is none");
        assert_eq!(deep(")))((("), Some(5));
        assert_eq!(check(&"x".repeat(101), 100, 2), Err(Refusal::Long));
    }

    proptest! {
        #[test]
        fn no_text_breaks_it(text in "[()\\[\\]{}'\"\\\\rRbB/\n a\u{e4}]{0,60}") {
            let _ = check(&text, 100, 3);
        }
    }
}
