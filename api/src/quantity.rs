//! Quantities (`resource.Quantity`): fixed-point numbers with a suffix, and their one canonical spelling.
//!
//! The value is held as a whole number of nanos, since Kubernetes keeps nine decimal places and no magnitude above 2^63-1: every
//! quantity fits an `i128`, so parsing, arithmetic and comparison need no allocation. The notation a quantity was written in is
//! remembered, because it decides how the quantity is written back.

use std::cmp::Ordering;
use std::fmt;

const NANO: i128 = 1_000_000_000;
/// The largest magnitude, in nanos.
const MAX: i128 = i64::MAX as i128 * NANO;

/// The notation a quantity was written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `1500m`, `2`, `3k`, `1M`.
    DecimalSi,
    /// `64Ki`, `1Gi`.
    BinarySi,
    /// `12e6`.
    DecimalExponent,
}

/// A quantity such as `500m` or `64Mi`. Comparison is by value, whatever the notation.
#[derive(Clone, Copy, Debug)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

/// Why a text is no quantity, in upstream's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No number and suffix at all.
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    /// The suffix is none of the known ones.
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

impl Quantity {
    /// Zero.
    pub const ZERO: Quantity = Quantity { nanos: 0, format: Format::DecimalSi };

    /// Parses a quantity; what is finer than nano is rounded away from zero, what is larger than 2^63-1 is capped.
    ///
    /// # Errors
    /// When `text` is no quantity.
    pub fn parse(text: &str) -> Result<Quantity, Error> {
        let (negative, rest) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            Some(_) => (false, text),
            None => return Err(Error::Format),
        };
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, suffix) = rest.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
            return Err(Error::Format);
        }
        let scale = Scale::of(suffix)?;
        let mut nanos = scale.nanos(whole, fraction);
        let format = match scale {
            // Below one, a binary suffix would only hide the fraction.
            Scale::Binary(_) if nanos > 0 && nanos < NANO => Format::DecimalSi,
            Scale::Binary(_) => Format::BinarySi,
            Scale::Decimal(_) => Format::DecimalSi,
            Scale::Exponent(_) => Format::DecimalExponent,
        };
        if negative {
            nanos = -nanos;
        }
        Ok(Quantity { nanos, format })
    }

    /// A whole number, written in decimal.
    pub fn from_units(units: i64) -> Quantity {
        Quantity { nanos: i128::from(units) * NANO, format: Format::DecimalSi }
    }

    /// A whole number, written with binary suffixes where that is exact: bytes of memory.
    pub fn from_bytes(bytes: i64) -> Quantity {
        Quantity { nanos: i128::from(bytes) * NANO, format: Format::BinarySi }
    }

    /// Thousandths, written in decimal: CPU.
    pub fn from_millis(millis: i64) -> Quantity {
        Quantity { nanos: i128::from(millis) * 1_000_000, format: Format::DecimalSi }
    }

    /// The value rounded up (away from zero) to a whole number.
    pub fn units(&self) -> i64 {
        saturate(divide_up(self.nanos, NANO))
    }

    /// The value in thousandths, rounded up (away from zero), capped at the ends of `i64`.
    pub fn millis(&self) -> i64 {
        saturate(divide_up(self.nanos, 1_000_000))
    }

    /// The nearest double.
    pub fn approximate(&self) -> f64 {
        self.nanos as f64 / NANO as f64
    }

    /// True for zero.
    pub fn is_zero(&self) -> bool {
        self.nanos == 0
    }

    /// True below zero.
    pub fn is_negative(&self) -> bool {
        self.nanos < 0
    }

    /// True for a whole number.
    pub fn is_whole(&self) -> bool {
        self.nanos % NANO == 0
    }

    /// The notation it is written in.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Rounded up (away from zero) to thousandths, as every `ResourceList` is.
    #[must_use]
    pub fn round_up_to_millis(self) -> Quantity {
        Quantity { nanos: divide_up(self.nanos, 1_000_000) * 1_000_000, ..self }
    }

    /// The sum, in this quantity's notation (in the other's, when this is zero).
    #[must_use]
    pub fn plus(self, other: Quantity) -> Quantity {
        let format = if self.is_zero() { other.format } else { self.format };
        Quantity { nanos: (self.nanos + other.nanos).clamp(-MAX, MAX), format }
    }

    /// The difference, in this quantity's notation (in the other's, when this is zero).
    #[must_use]
    pub fn minus(self, other: Quantity) -> Quantity {
        self.plus(Quantity { nanos: -other.nanos, ..other })
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl std::str::FromStr for Quantity {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        Self::parse(text)
    }
}

/// The canonical spelling: no fraction, and the largest suffix that loses nothing.
impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        let small = self.nanos > -1024 * NANO && self.nanos < 1024 * NANO;
        if self.format == Format::BinarySi && !small && self.is_whole() {
            let (mut value, mut power) = (self.nanos / NANO, 0);
            while value % 1024 == 0 && power < 6 {
                (value, power) = (value / 1024, power + 1);
            }
            return write!(f, "{value}{}", ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"][power]);
        }
        // A power of a thousand at a time, from nano up.
        let (mut value, mut power) = (self.nanos, 0);
        while value % 1000 == 0 && power < 9 {
            (value, power) = (value / 1000, power + 1);
        }
        if self.format == Format::DecimalExponent {
            return match 3 * power as i32 - 9 {
                0 => write!(f, "{value}"),
                exponent => write!(f, "{value}e{exponent}"),
            };
        }
        write!(f, "{value}{}", ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"][power])
    }
}

/// What a suffix multiplies by.
enum Scale {
    /// 1024 to this power.
    Binary(u32),
    /// Ten to this power.
    Decimal(i64),
    /// Ten to this power, written as an exponent.
    Exponent(i64),
}

impl Scale {
    fn of(suffix: &str) -> Result<Scale, Error> {
        Ok(match suffix {
            "n" => Scale::Decimal(-9),
            "u" => Scale::Decimal(-6),
            "m" => Scale::Decimal(-3),
            "" => Scale::Decimal(0),
            "k" => Scale::Decimal(3),
            "M" => Scale::Decimal(6),
            "G" => Scale::Decimal(9),
            "T" => Scale::Decimal(12),
            "P" => Scale::Decimal(15),
            "E" => Scale::Decimal(18),
            "Ki" => Scale::Binary(1),
            "Mi" => Scale::Binary(2),
            "Gi" => Scale::Binary(3),
            "Ti" => Scale::Binary(4),
            "Pi" => Scale::Binary(5),
            "Ei" => Scale::Binary(6),
            _ => {
                let exponent = suffix.strip_prefix(['e', 'E']).ok_or(if suffix.starts_with(|c: char| "eEinumkKMGTP".contains(c)) {
                    Error::Suffix
                } else {
                    Error::Format
                })?;
                let digits = exponent.trim_start_matches(['+', '-']);
                if digits.is_empty() || exponent.len() > digits.len() + 1 || !digits.bytes().all(|b| b.is_ascii_digit()) {
                    return Err(Error::Suffix);
                }
                // Beyond a few hundred every exponent means "capped" or "rounded up to the smallest".
                Scale::Exponent(exponent.parse::<i64>().map_err(|_| Error::Suffix)?.clamp(-400, 400))
            }
        })
    }

    /// The magnitude in nanos, rounded up and capped.
    fn nanos(&self, whole: &str, fraction: &str) -> i128 {
        // At most 18 significant digits take part (products below stay within i128); what is cut off makes the result round up.
        let all: Vec<u8> = whole.bytes().chain(fraction.bytes()).skip_while(|b| *b == b'0').collect();
        let mut point = fraction.len() as i64;
        let keep = all.len().min(if matches!(self, Scale::Binary(_)) { 18 } else { 28 });
        let (kept, cut) = all.split_at(keep);
        point -= cut.len() as i64;
        let sticky = cut.iter().any(|b| *b != b'0');
        let mut value = kept.iter().fold(0i128, |n, b| n * 10 + i128::from(b - b'0'));
        let exponent = match self {
            Scale::Binary(power) => {
                value <<= 10 * power;
                9 - point
            }
            Scale::Decimal(e) | Scale::Exponent(e) => e + 9 - point,
        };
        if value == 0 {
            return 0;
        }
        let nanos = if exponent >= 0 {
            // A cut digit would be worth at least a nano here only in numbers beyond the cap.
            10i128.checked_pow(u32::try_from(exponent).unwrap_or(u32::MAX)).and_then(|p| value.checked_mul(p)).unwrap_or(MAX)
        } else {
            match 10i128.checked_pow(u32::try_from(-exponent).unwrap_or(u32::MAX)) {
                Some(p) => value / p + i128::from(value % p != 0 || sticky),
                None => 1,
            }
        };
        nanos.min(MAX)
    }
}

fn divide_up(value: i128, by: i128) -> i128 {
    let rest = value % by;
    value / by + if rest == 0 { 0 } else { rest.signum() }
}

fn saturate(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn canonical_forms_are_those_of_kubernetes() {
        for (written, canonical) in [
            ("0", "0"),
            ("0Ki", "0"),
            ("-0", "0"),
            ("1000m", "1"),
            ("0.5", "500m"),
            ("1.5", "1500m"),
            (".5", "500m"),
            ("1.", "1"),
            ("1.5Gi", "1536Mi"),
            ("1024Mi", "1Gi"),
            ("1024", "1024"),
            ("1000", "1k"),
            ("100000", "100k"),
            ("1Ki", "1Ki"),
            ("512", "512"),
            ("0.5Ki", "512"),
            ("0.0005Ki", "512m"),
            ("1023Ki", "1023Ki"),
            ("1536Ki", "1536Ki"),
            ("2048Ki", "2Mi"),
            ("0.1m", "100u"),
            ("1n", "1n"),
            ("0.1n", "1n"),
            ("-0.1n", "-1n"),
            ("1e3", "1e3"),
            ("1E3", "1e3"),
            ("12e6", "12e6"),
            ("1200e3", "1200e3"),
            ("1e2", "100"),
            ("100e-3", "100e-3"),
            ("5e-1", "500e-3"),
            ("+1", "1"),
            ("-1500m", "-1500m"),
            ("9223372036854775807", "9223372036854775807"),
            ("9223372036854775808", "9223372036854775807"),
            ("10E", "9223372036854775807"),
            ("8Ei", "9223372036854775807"),
            ("1e999", "9223372036854775807"),
            ("1e-999", "1e-9"),
            ("0.000000000000000000000000000000000000000001", "1n"),
            ("1.00000000000000000000000000000000000000001", "1000000001n"),
            ("00012", "12"),
            ("100Ti", "100Ti"),
        ] {
            let quantity = Quantity::parse(written).unwrap_or_else(|e| panic!("{written}: {e}"));
            assert_eq!(quantity.to_string(), canonical, "{written}");
        }
    }

    #[test]
    fn what_is_no_quantity_is_refused_with_upstreams_words() {
        for text in ["", "abc", "1.2.3", "-", ".", "--1", " 1", "1 Gi", "1,5", "١"] {
            assert_eq!(Quantity::parse(text), Err(Error::Format), "{text}");
        }
        for text in ["1Kib", "1i", "1ki", "1mm", "1e", "1e1.5", "1e+-1", "1Mi5"] {
            assert_eq!(Quantity::parse(text), Err(Error::Suffix), "{text}");
        }
    }

    #[test]
    fn values_round_up() {
        let parse = |text| Quantity::parse(text).unwrap();
        assert_eq!(parse("1001m").units(), 2);
        assert_eq!(parse("-1001m").units(), -2);
        assert_eq!(parse("1u").millis(), 1);
        assert_eq!(parse("1u").round_up_to_millis().to_string(), "1m");
        assert_eq!(parse("1Gi").units(), 1 << 30);
        assert_eq!(parse("8Ei").millis(), i64::MAX);
        assert_eq!(parse("1Gi").plus(parse("24Mi")).to_string(), "1048Mi");
        assert_eq!(parse("1").minus(parse("250m")).to_string(), "750m");
        assert!(parse("1Ki") > parse("1k") && parse("1") == parse("1000m"));
    }

    proptest! {
        #[test]
        fn the_canonical_form_is_a_fixed_point(text in "[+-]?[0-9]{0,22}(\\.[0-9]{0,22})?(n|u|m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|e-?[0-9]{1,3})?") {
            if let Ok(quantity) = Quantity::parse(&text) {
                let canonical = quantity.to_string();
                let again = Quantity::parse(&canonical).unwrap();
                prop_assert_eq!(again, quantity);
                prop_assert_eq!(again.to_string(), canonical);
            }
        }

        #[test]
        fn arithmetic_agrees_with_integers(a in -1_000_000_000i64..1_000_000_000, b in -1_000_000_000i64..1_000_000_000) {
            let (x, y) = (Quantity::from_millis(a), Quantity::from_millis(b));
            prop_assert_eq!(x.plus(y).millis(), a + b);
            prop_assert_eq!(x.minus(y).millis(), a - b);
            prop_assert_eq!(x.cmp(&y), a.cmp(&b));
        }

        #[test]
        fn any_text_is_survived(text in ".{0,40}") {
            let _ = Quantity::parse(&text);
        }
    }
}
