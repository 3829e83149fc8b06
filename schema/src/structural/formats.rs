//! Formats of strings and numbers (`kube-openapi/pkg/validation/strfmt`). A format nobody knows is not checked.

use crate::structural::Kind;
use base64::Engine as _;
use coracle_api::names;
use std::net::{Ipv4Addr, Ipv6Addr};

type Check = fn(&str) -> bool;

/// By name without dashes, sorted.
const STRINGS: [(&str, Check); 26] = [
    ("bsonobjectid", |text| hex(text, 24)),
    ("byte", base64),
    ("cidr", cidr),
    ("creditcard", credit_card),
    ("date", date),
    ("datetime", date_time),
    ("duration", duration),
    ("email", email),
    ("hexcolor", |text| {
        matches!(text.trim_start_matches('#').len(), 3 | 6) && text.matches('#').count() < 2 && hex_digits(text.trim_start_matches('#'))
    }),
    ("hostname", hostname),
    ("ipv4", |text| text.contains('.') && ip(text)),
    ("ipv6", |text| text.contains(':') && text.parse::<Ipv6Addr>().is_ok()),
    ("isbn", |text| isbn10(text) || isbn13(text)),
    ("isbn10", isbn10),
    ("isbn13", isbn13),
    ("k8slongname", |text| names::dns_subdomain(text).is_empty()),
    ("k8sshortname", |text| names::dns_label(text).is_empty()),
    ("mac", mac),
    ("password", |_| true),
    ("rgbcolor", rgb_color),
    ("ssn", ssn),
    ("uri", request_uri),
    ("uuid", |text| uuid(text, None, false)),
    ("uuid3", |text| uuid(text, Some(b'3'), false)),
    ("uuid4", |text| uuid(text, Some(b'4'), true)),
    ("uuid5", |text| uuid(text, Some(b'5'), true)),
];

fn find(format: &str) -> Option<Check> {
    let name = format.replace('-', "");
    STRINGS.binary_search_by(|(known, _)| (*known).cmp(&name)).ok().and_then(|at| STRINGS.get(at)).map(|(_, check)| *check)
}

/// Whether a format is known for a type (`string`, `integer`, `number`, or empty).
pub fn known(kind: &str, format: &str) -> bool {
    match kind {
        "" | "string" => find(format).is_some(),
        "integer" => matches!(format, "int32" | "int64"),
        "number" => matches!(format, "float" | "double"),
        _ => false,
    }
}

/// The format as far as it is checked for a type. With two types upstream counts the value as untyped.
pub(super) fn checked(kind: Option<Kind>, int_or_string: bool, format: &str) -> Option<&str> {
    let kind = kind.filter(|_| !int_or_string).map_or("", Kind::word);
    known(kind, format).then_some(format)
}

/// Whether a text has a format; unknown ones have every text.
pub(super) fn matches(format: &str, text: &str) -> bool {
    find(format).is_none_or(|check| check(text))
}

fn hex_digits(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_hexdigit())
}

fn hex(text: &str, length: usize) -> bool {
    text.len() == length && hex_digits(text)
}

fn digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// govalidator's expression: groups of four, padded.
fn base64(text: &str) -> bool {
    !text.is_empty() && text.len().is_multiple_of(4) && base64::engine::general_purpose::STANDARD.decode(text).is_ok()
}

/// Either family; leading zeros are fine, as in Go's old parser.
fn ip(text: &str) -> bool {
    text.parse::<Ipv6Addr>().is_ok() || ipv4(text)
}

fn ipv4(text: &str) -> bool {
    let parts: Vec<&str> = text.split('.').collect();
    parts.len() == 4 && parts.iter().all(|part| digits(part) && part.trim_start_matches('0').len() <= 3 && part.parse::<u32>().is_ok_and(|n| n < 256))
}

fn cidr(text: &str) -> bool {
    text.split_once('/').is_some_and(|(address, bits)| {
        let most = if ipv4(address) {
            Ipv4Addr::BITS
        } else if address.parse::<Ipv6Addr>().is_ok() {
            Ipv6Addr::BITS
        } else {
            return false;
        };
        digits(bits) && bits.parse::<u32>().is_ok_and(|bits| bits <= most)
    })
}

fn mac(text: &str) -> bool {
    let separated = |separator: char, width: usize| {
        let parts: Vec<&str> = text.split(separator).collect();
        matches!(parts.len() * width, 12 | 16 | 40) && parts.iter().all(|part| hex(part, width))
    };
    separated(':', 2) || separated('-', 2) || separated('.', 4)
}

fn uuid(text: &str, version: Option<u8>, variant: bool) -> bool {
    let mut plain = String::with_capacity(32);
    let mut rest = text;
    for width in [8, 4, 4, 4, 12] {
        rest = if plain.is_empty() { rest } else { rest.strip_prefix('-').unwrap_or(rest) };
        let Some((part, more)) = rest.split_at_checked(width) else { return false };
        plain.push_str(part);
        rest = more;
    }
    let bytes = plain.as_bytes();
    rest.is_empty()
        && hex_digits(&plain)
        && version.is_none_or(|version| bytes.get(12) == Some(&version))
        && (!variant || matches!(bytes.get(16), Some(b'8' | b'9' | b'a' | b'b' | b'A' | b'B')))
}

fn date(text: &str) -> bool {
    text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok()
}

/// RFC 3339, with any character before the fraction, as upstream's expression has it.
fn date_time(text: &str) -> bool {
    let lower = text.to_lowercase();
    let Some((day, rest)) = lower.split_once('t') else { return false };
    let clock = rest.split('t').next().unwrap_or_default();
    let Some((time, zone)) = clock.split_at_checked(8) else { return false };
    let parts: Vec<&str> = time.split(':').collect();
    let [hour, minute, second] = parts.as_slice() else { return false };
    let in_range = |part: &str, most: &str| part.len() == 2 && digits(part) && part <= most;
    let mut zone = zone;
    if let Some(fraction) = zone.strip_prefix(|c: char| c != 'z' && c != '+' && c != '-') {
        let after = fraction.trim_start_matches(|c: char| c.is_ascii_digit());
        if after.len() == fraction.len() {
            return false;
        }
        zone = after;
    }
    let offset = |text: &str| text.split_once(':').is_some_and(|(h, m)| h.len() == 2 && m.len() == 2 && digits(h) && digits(m));
    date(day)
        && in_range(hour, "23")
        && in_range(minute, "59")
        && in_range(second, "59")
        && (zone == "z" || zone.strip_prefix(['+', '-']).is_some_and(offset))
}

/// Go's durations (`1h30m`), or any number with a unit (`3 weeks`).
fn duration(text: &str) -> bool {
    const UNITS: [&[&str]; 8] = [
        &["ns", "nano"],
        &["us", "µs", "micro"],
        &["ms", "milli"],
        &["s", "sec"],
        &["m", "min"],
        &["h", "hr", "hour"],
        &["d", "day"],
        &["w", "wk", "week"],
    ];
    if go_duration(text) {
        return true;
    }
    let mut found = false;
    let mut rest = text;
    while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
        rest = &rest[start..];
        let number = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (count, after) = rest.split_at(number);
        let after = after.trim_start();
        let unit: String = after.chars().take_while(|c| c.is_ascii_alphabetic() || *c == 'µ').collect();
        rest = &after[unit.len()..];
        if unit.is_empty() {
            continue;
        }
        if count.parse::<i64>().is_err() {
            return false;
        }
        let unit = unit.to_lowercase();
        found |= UNITS.iter().any(|variants| variants.iter().any(|v| unit == *v) || variants.last().is_some_and(|last| unit.starts_with(last)));
    }
    found
}

/// `time.ParseDuration`
pub(crate) fn go_duration(text: &str) -> bool {
    let mut rest = text.strip_prefix(['+', '-']).unwrap_or(text);
    if rest == "0" {
        return true;
    }
    if rest.is_empty() {
        return false;
    }
    while !rest.is_empty() {
        let number = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.').len();
        let (count, after) = rest.split_at(number);
        if count.is_empty() || count == "." || count.matches('.').count() > 1 {
            return false;
        }
        let Some(unit) = ["ns", "us", "µs", "μs", "ms", "s", "m", "h"].iter().filter(|unit| after.starts_with(**unit)).max_by_key(|unit| unit.len())
        else {
            return false;
        };
        rest = &after[unit.len()..];
    }
    true
}

/// Go's `mail.ParseAddress`, in its everyday forms: `a@b.c` and `Name <a@b.c>`.
fn email(text: &str) -> bool {
    let text = text.trim();
    let address = match text.strip_suffix('>') {
        Some(inner) => match inner.rsplit_once('<') {
            Some((_, address)) => address,
            None => return false,
        },
        None => text,
    };
    let atom = |text: &str| {
        let good = |c: char| c.is_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c);
        !text.is_empty() && text.split('.').all(|part| !part.is_empty() && part.chars().all(good))
    };
    let quoted = |text: &str| text.len() > 2 && text.starts_with('"') && text.ends_with('"');
    address.rsplit_once('@').is_some_and(|(local, domain)| {
        let literal = domain.starts_with('[') && domain.ends_with(']');
        (atom(local) || quoted(local)) && (atom(domain) || literal)
    })
}

/// Labels of letters, digits and symbols of any script; the last one has letters alone, unless it is the only one.
fn hostname(text: &str) -> bool {
    let good = |c: char| c.is_alphanumeric() && !c.is_numeric() || c.is_ascii_digit() || is_symbol(c);
    let labels: Vec<&str> = text.split('.').collect();
    let Some((last, before)) = labels.split_last() else { return false };
    let label = |label: &&str| {
        let length = label.chars().count();
        (1..=63).contains(&length) && label.chars().all(|c| good(c) || c == '-') && !label.starts_with('-') && !label.ends_with('-')
    };
    if text.len() > 255 || labels.iter().any(|label| label.len() > 63) {
        return false;
    }
    match before {
        // A single label holds no dash but one after its first character.
        [] => {
            let mut chars = last.chars();
            let first = chars.next().is_some_and(good);
            let rest = chars.as_str();
            let rest = rest.strip_prefix('-').unwrap_or(rest);
            first && rest.chars().count() <= 62 && rest.chars().all(good)
        }
        before => {
            let top = last.chars().count();
            before.iter().all(label) && (2..=63).contains(&top) && last.chars().all(|c| c.is_alphabetic())
        }
    }
}

/// Unicode's symbols, as far as they are seen in names: signs and pictures.
fn is_symbol(c: char) -> bool {
    matches!(c, '$' | '+' | '<' | '=' | '>' | '^' | '`' | '|' | '~' | '\u{a2}'..='\u{a9}' | '\u{ac}' | '\u{ae}'..='\u{b1}' | '\u{d7}' | '\u{f7}')
        || matches!(u32::from(c), 0x2190..=0x23ff | 0x2500..=0x27bf | 0x2900..=0x2bff | 0x1f000..=0x1faff)
}

/// `net/url.ParseRequestURI`: absolute, or a path.
fn request_uri(text: &str) -> bool {
    if text.is_empty() || text.bytes().any(|b| b < 0x20 || b == 0x7f) {
        return false;
    }
    let escaped = |text: &str| text.split('%').skip(1).all(|rest| rest.get(..2).is_some_and(hex_digits));
    let scheme = text.split_once(':').filter(|(scheme, _)| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic()) && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
    });
    let rest = match scheme {
        Some((_, rest)) => rest,
        None if text.starts_with('/') => text,
        None => return false,
    };
    let path = rest.split('?').next().unwrap_or_default();
    let host = rest.strip_prefix("//").map_or("", |rest| rest.split(['/', '?']).next().unwrap_or_default());
    escaped(path) && !host.contains([' ', '<', '>', '"']) && port(host)
}

/// The port of a host is a number.
fn port(host: &str) -> bool {
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    let after = host.rsplit_once(']').map_or(host, |(_, after)| after);
    after.rsplit_once(':').is_none_or(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()))
}

fn sum_of(text: &str, length: usize) -> Option<Vec<u32>> {
    let plain: String = text.chars().filter(|c| !c.is_whitespace() && *c != '-').collect();
    let values: Vec<u32> = plain.chars().map(|c| if c == 'X' { Some(10) } else { c.to_digit(10) }).collect::<Option<_>>()?;
    (values.len() == length && values[..length - 1].iter().all(|v| *v < 10)).then_some(values)
}

fn isbn10(text: &str) -> bool {
    sum_of(text, 10).is_some_and(|values| values.iter().enumerate().map(|(at, value)| (10 - at as u32) * value).sum::<u32>() % 11 == 0)
}

fn isbn13(text: &str) -> bool {
    sum_of(text, 13).is_some_and(|values| {
        values[12] < 10 && values.iter().enumerate().map(|(at, value)| value * if at % 2 == 0 { 1 } else { 3 }).sum::<u32>() % 10 == 0
    })
}

/// The lengths and prefixes of the large issuers, and Luhn's sum.
fn credit_card(text: &str) -> bool {
    let plain: Vec<u32> = text.chars().filter_map(|c| c.to_digit(10)).collect();
    let head = |count: usize| plain.iter().take(count).fold(0, |sum, digit| sum * 10 + digit);
    let issued = match plain.len() {
        13 => head(1) == 4,
        14 => matches!(head(3), 300..=305) || matches!(head(2), 36 | 38),
        15 => matches!(head(2), 34 | 37) || matches!(head(4), 2131 | 1800),
        16 => head(1) == 4 || matches!(head(2), 51..=55 | 35) || head(4) == 6011 || head(2) == 65,
        _ => false,
    };
    let sum: u32 = plain.iter().rev().enumerate().map(|(at, digit)| if at % 2 == 0 { *digit } else { digit * 2 / 10 + digit * 2 % 10 }).sum();
    issued && sum.is_multiple_of(10)
}

fn ssn(text: &str) -> bool {
    let plain: String = text.chars().filter(|c| !matches!(c, '-' | ' ')).collect();
    let separators = text.len() - plain.len();
    plain.len() == 9 && digits(&plain) && separators <= 2
}

fn rgb_color(text: &str) -> bool {
    let inner = text.strip_prefix("rgb(").and_then(|rest| rest.strip_suffix(')'));
    inner.is_some_and(|inner| {
        let parts: Vec<&str> = inner.split(',').map(str::trim).collect();
        parts.len() == 3 && parts.iter().all(|part| digits(part) && part.parse::<u32>().is_ok_and(|n| n < 256))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted() {
        assert!(STRINGS.is_sorted_by(|a, b| a.0 < b.0));
    }

    #[test]
    fn formats_take_what_upstream_takes() {
        for (format, good, bad) in [
            ("date-time", &["2014-12-15T19:30:20.000Z", "2014-12-15t19:30:20+01:00"][..], &["2014-12-15", "2014-12-15T24:00:00Z", "x"][..]),
            ("date", &["2006-01-02"], &["2006-1-2", "2006-13-02"]),
            ("duration", &["1h30m", "22 ns", "3 weeks", "0", "1.5s"], &["", "x", "10"]),
            ("email", &["a@b.c", "A B <a@b>"], &["a", "a@", "@b", "a b@c"]),
            ("hostname", &["example.com", "a", "a-b.example", "x1.io"], &["", "-a.com", "a_b.com", "example.c", "a..b"]),
            ("ipv4", &["10.0.0.1", "010.0.0.1"], &["10.0.0", "::1", "256.0.0.1"]),
            ("ipv6", &["::1", "fe80::1"], &["10.0.0.1", "x:"]),
            ("cidr", &["10.0.0.0/8", "::/0"], &["10.0.0.0", "10.0.0.0/33"]),
            ("mac", &["01:23:45:67:89:ab", "01-23-45-67-89-ab", "0123.4567.89ab"], &["01:23", "x"]),
            (
                "uuid",
                &["6ba7b810-9dad-11d1-80b4-00c04fd430c8", "6BA7B8109DAD11D180B400C04FD430C8"],
                &["6ba7b810", "6ba7b810-9dad-11d1-80b4-00c04fd430c"],
            ),
            ("uuid4", &["f47ac10b-58cc-4372-a567-0e02b2c3d479"], &["6ba7b810-9dad-11d1-80b4-00c04fd430c8"]),
            ("uri", &["http://a/b?c", "/a", "urn:x"], &["a/b", "", "http://a:b"]),
            ("byte", &["aGk="], &["", "a", "aGk"]),
            ("isbn", &["0321751043", "978-0321751041"], &["0321751044"]),
            ("creditcard", &["4111 1111 1111 1111"], &["4111 1111 1111 1112", "1"]),
            ("ssn", &["111-11-1111"], &["111-11-111"]),
            ("hexcolor", &["#FFFFFF", "abc"], &["#ff", "##fff"]),
            ("rgbcolor", &["rgb(255, 0,1)"], &["rgb(256,0,0)", "255,0,0"]),
            ("bsonobjectid", &["507f1f77bcf86cd799439011"], &["507f"]),
            ("k8s-short-name", &["a-b"], &["a.b", "A"]),
            ("k8s-long-name", &["a.b"], &["a..b"]),
            ("made-up", &["anything"], &[]),
        ] {
            for text in good {
                assert!(matches(format, text), "{format} {text}");
            }
            for text in bad {
                assert!(!matches(format, text), "{format} {text}");
            }
        }
        assert!(known("string", "date-time") && known("integer", "int32") && !known("object", "date") && !known("string", "int32"));
    }
}
