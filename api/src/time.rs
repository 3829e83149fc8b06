//! Points in time as Kubernetes writes them: `Time` (RFC 3339, seconds, UTC) and `MicroTime` (six decimals).
//!
//! Parsing takes any RFC 3339 text with an offset; writing has one form each, so that equal times are equal bytes.

use jiff::Timestamp;

/// Why a text is no time, worded as Go's `time.Parse` does.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("parsing time {text:?} as \"2006-01-02T15:04:05Z07:00\": cannot parse {text:?} as \"2006\"")]
pub struct Error {
    text: String,
}

/// Parses RFC 3339 (`2024-05-01T12:00:00+02:00`).
///
/// # Errors
/// When `text` is no RFC 3339 time with an offset, or lies outside the years 0 to 9999.
pub fn parse(text: &str) -> Result<Timestamp, Error> {
    let fail = || Error { text: text.chars().take(64).collect() };
    // jiff is more tolerant than RFC 3339 (blanks for `T`, bracketed zones, missing parts), Kubernetes is not.
    let bytes = text.as_bytes();
    let separators = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    let shaped = separators.iter().all(|(at, c)| bytes.get(*at) == Some(c)) && !text.contains(['[', ',']);
    let zoned = text.ends_with('Z') || text.len() > 19 && text[text.char_indices().nth(19).map_or(0, |c| c.0)..].contains(['+', '-']);
    if !shaped || !zoned || text.len() > 40 {
        return Err(fail());
    }
    let time: Timestamp = text.parse().map_err(|_| fail())?;
    // An offset can lead out of the years that can be written.
    let year = time.to_zoned(jiff::tz::TimeZone::UTC).year();
    if (0..=9999).contains(&year) { Ok(time) } else { Err(fail()) }
}

/// `2024-05-01T10:00:00Z`; fractions are cut off.
pub fn seconds(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// `2024-05-01T10:00:00.123456Z`; what is finer is cut off.
pub fn micros(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn times_are_written_in_one_form() {
        for (written, second, micro) in [
            ("2024-05-01T12:00:00+02:00", "2024-05-01T10:00:00Z", "2024-05-01T10:00:00.000000Z"),
            ("2024-05-01T10:00:00.123456789Z", "2024-05-01T10:00:00Z", "2024-05-01T10:00:00.123456Z"),
            ("1960-01-01T00:00:00Z", "1960-01-01T00:00:00Z", "1960-01-01T00:00:00.000000Z"),
        ] {
            let time = parse(written).unwrap();
            assert_eq!((seconds(time).as_str(), micros(time).as_str()), (second, micro));
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "abc",
            "2024-05-01",
            "2024-05-01T10:00:00",
            "2024-05-01 10:00:00Z",
            "2024-13-01T10:00:00Z",
            "2024-05-01T10:00:00Z[UTC]",
            "1714557600",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
        let said = parse("soon").unwrap_err().to_string();
        assert_eq!(said, "parsing time \"soon\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"soon\" as \"2006\"");
    }

    proptest! {
        #[test]
        fn writing_and_parsing_agree(second in -2_000_000_000i64..4_000_000_000, micro in 0i32..1_000_000) {
            let time = Timestamp::new(second, micro * 1000).unwrap();
            prop_assert_eq!(parse(&micros(time)).unwrap(), time);
            let cut = seconds(parse(&seconds(time)).unwrap());
            prop_assert_eq!(cut, seconds(time));
        }

        #[test]
        fn any_text_is_survived(text in "\\PC{0,48}") {
            let _ = parse(&text);
        }
    }
}
