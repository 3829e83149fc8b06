//! Names, labels and times: what is well-formed, and how the server makes new ones.

pub use crate::time::{micros as rfc3339_micro, seconds as rfc3339};

use std::fmt::Write;

/// Characters of generated suffixes, as upstream's: no vowels and no look-alikes, so that no words come out.
pub const SUFFIX_ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// Longest base of `generateName`: 63 less a suffix of 5.
const MAX_BASE: usize = 58;

/// `base` cut to fit plus five characters chosen by `random`.
pub fn generate(base: &str, mut random: impl FnMut(usize) -> usize) -> String {
    let mut end = base.len().min(MAX_BASE);
    while !base.is_char_boundary(end) {
        end -= 1;
    }
    let mut name = base[..end].to_string();
    for _ in 0..5 {
        let place = random(SUFFIX_ALPHABET.len()) % SUFFIX_ALPHABET.len();
        name.push(char::from(SUFFIX_ALPHABET[place]));
    }
    name
}

fn alphanumeric_lower(c: u8) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit()
}

/// RFC 1123 label: what is wrong with it, in upstream's words.
pub fn dns_label(value: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if value.len() > 63 {
        wrong.push(too_long(63));
    }
    if !is_dns_label_text(value) {
        wrong.push(
            "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
                .into(),
        );
    }
    wrong
}

/// RFC 1035 label (Service names): begins with a letter.
pub fn dns1035_label(value: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if value.len() > 63 {
        wrong.push(too_long(63));
    }
    if !is_dns_label_text(value) || !value.as_bytes().first().is_some_and(u8::is_ascii_lowercase) {
        wrong.push(
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')"
                .into(),
        );
    }
    wrong
}

/// RFC 1123 subdomain: what is wrong with it, in upstream's words.
pub fn dns_subdomain(value: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if value.len() > 253 {
        wrong.push(too_long(253));
    }
    if !value.split('.').all(is_dns_label_text) {
        wrong.push(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
                .into(),
        );
    }
    wrong
}

/// A name that only has to be safe in a URL path (RBAC objects).
pub fn path_segment(value: &str) -> Vec<String> {
    match value {
        "." | ".." => vec![format!("may not be '{value}'")],
        _ => ["/", "%"].iter().filter(|c| value.contains(**c)).map(|c| format!("may not contain '{c}'")).collect(),
    }
}

/// A label or annotation key: an optional DNS prefix and a name of at most 63 characters.
pub fn qualified_name(value: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let name = match value.split_once('/') {
        None => value,
        Some((prefix, name)) if !name.contains('/') => {
            if prefix.is_empty() {
                wrong.push("prefix part must be non-empty".into());
            } else {
                wrong.extend(dns_subdomain(prefix).into_iter().map(|why| format!("prefix part {why}")));
            }
            name
        }
        Some(_) => {
            wrong.push(format!("a valid label key must consist of a name part with an optional prefix: {QUALIFIED} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"));
            return wrong;
        }
    };
    if name.is_empty() {
        wrong.push("name part must be non-empty".into());
    } else if name.len() > 63 {
        wrong.push(format!("name part {}", too_long(63)));
    }
    if !is_qualified_text(name) {
        wrong.push(format!("name part {QUALIFIED} (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"));
    }
    wrong
}

const QUALIFIED: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";

/// A label value: empty, or at most 63 characters.
pub fn label_value(value: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if value.len() > 63 {
        wrong.push(too_long(63));
    }
    if !value.is_empty() && !is_qualified_text(value) {
        wrong.push("a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')".into());
    }
    wrong
}

fn too_long(max: usize) -> String {
    format!("must be no more than {max} characters")
}

fn is_dns_label_text(value: &str) -> bool {
    let bytes = value.as_bytes();
    bytes.iter().all(|&c| alphanumeric_lower(c) || c == b'-') && bounded(bytes, alphanumeric_lower)
}

fn is_qualified_text(value: &str) -> bool {
    let bytes = value.as_bytes();
    let end = |c: u8| c.is_ascii_alphanumeric();
    bytes.iter().all(|&c| end(c) || matches!(c, b'-' | b'_' | b'.')) && bounded(bytes, end)
}

fn bounded(bytes: &[u8], end: impl Fn(u8) -> bool) -> bool {
    matches!((bytes.first(), bytes.last()), (Some(&first), Some(&last)) if end(first) && end(last))
}

/// Text as Go's `%q` shows it, which is how upstream's messages and the downward API name values.
pub fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\u{7}' => quoted.push_str("\\a"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{b}' => quoted.push_str("\\v"),
            '\u{c}' => quoted.push_str("\\f"),
            // Writing to a string cannot fail.
            c if c < ' ' || c == '\u{7f}' => drop(write!(quoted, "\\x{:02x}", u32::from(c))),
            c if c.is_control() => drop(write!(quoted, "\\u{:04x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;

    #[test]
    fn generated_names_keep_the_base_and_fit() {
        let mut next = 0;
        let name = generate("web-", |_| {
            next += 1;
            next
        });
        assert_eq!(name, "web-cdfgh");
        assert_eq!(generate(&"a".repeat(100), |_| 0).len(), 63);
        assert_eq!(generate(&"é".repeat(100), |_| 0).len(), 63);
    }

    #[test]
    fn text_is_quoted_as_go_does() {
        assert_eq!(quote("é\"1\"\\\n\t\u{1}\u{7f}\u{85}"), r#""é\"1\"\\\n\t\x01\x7f\u0085""#);
    }

    #[test]
    fn names_are_judged_as_upstream_does() {
        for good in ["a", "a-b", "0a", "a.b.c", &"a".repeat(253)] {
            assert!(dns_subdomain(good).is_empty(), "{good}");
        }
        for bad in ["", "A", "a_b", "-a", "a-", "a..b", ".a", &"a".repeat(254), "a/b"] {
            assert!(!dns_subdomain(bad).is_empty(), "{bad}");
        }
        assert!(!dns_label("a.b").is_empty());
        assert!(!dns1035_label("1a").is_empty());
        assert!(qualified_name("app.kubernetes.io/name").is_empty());
        assert!(!qualified_name("a/b/c").is_empty());
        assert!(!qualified_name("/b").is_empty());
        assert!(!qualified_name("").is_empty());
        assert!(label_value("").is_empty() && label_value("v1.2_x").is_empty());
        assert!(!label_value("-x").is_empty());
        assert!(path_segment("system:basic-user").is_empty());
        assert!(!path_segment("a/b").is_empty());
    }

    #[test]
    fn times_read_as_kubernetes_writes_them() {
        let at: Timestamp = "2026-01-02T03:04:05.123456789Z".parse().expect("valid");
        assert_eq!(rfc3339(at), "2026-01-02T03:04:05Z");
        assert_eq!(rfc3339_micro(at), "2026-01-02T03:04:05.123456Z");
    }
}
