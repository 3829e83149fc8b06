//! `"%s is %d".format([…])`

use super::{encoding, time};
use crate::eval::{Answer, Error, Run, error, no_overload};
use crate::functions::Library;
use crate::value::{Key, List, Map, Val};
use std::fmt::Write as _;

pub(super) const LIBRARY: Library = &[("(string).format(list(dyn)) -> string", format)];

/// Deepest nesting of collections that are written.
const MAX_DEPTH: usize = 64;
/// Most digits behind the point.
const MAX_PRECISION: usize = 100;

fn format<'a>(run: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    let [Val::String(pattern), Val::List(list)] = args else { return no_overload() };
    run.allocate(pattern.len())?;
    let mut out = String::new();
    let (mut rest, mut next) = (&**pattern, 0);
    while let Some(at) = rest.find('%') {
        out.push_str(rest.get(..at).unwrap_or_default());
        rest = rest.get(at + 1..).unwrap_or_default();
        if let Some(after) = rest.strip_prefix('%') {
            out.push('%');
            rest = after;
            continue;
        }
        let (precision, after) = precision(rest)?;
        let Some(verb) = after.chars().next() else { return error("unexpected end of format string") };
        rest = after.get(verb.len_utf8()..).unwrap_or_default();
        let Some(value) = list.get(next).transpose()? else { return error(format!("index {next} out of range")) };
        next += 1;
        let before = out.len();
        match verb {
            's' => write_value(run, &mut out, &value, 0)?,
            'd' => decimal(&mut out, &value)?,
            'f' => fixed(&mut out, &value, precision.unwrap_or(6))?,
            'e' => scientific(&mut out, &value, precision.unwrap_or(6))?,
            'b' => binary(&mut out, &value)?,
            'x' | 'X' => hexadecimal(run, &mut out, &value, verb == 'X')?,
            'o' => octal(&mut out, &value)?,
            other => return error(format!("could not parse formatting clause: unrecognized formatting clause \"{other}\"")),
        }
        run.allocate(out.len() - before)?;
    }
    out.push_str(rest);
    Ok(Val::text(out))
}

fn precision(text: &str) -> Result<(Option<usize>, &str), Error> {
    let Some(rest) = text.strip_prefix('.') else { return Ok((None, text)) };
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (digits, after) = rest.split_at(end);
    match digits.parse() {
        Ok(precision) if precision <= MAX_PRECISION => Ok((Some(precision), after)),
        _ => error("could not parse formatting clause: error while parsing precision"),
    }
}

fn wrong(verb: &str, value: &Val<'_>) -> Result<(), Error> {
    error(format!("error during formatting: {verb} clause cannot be used on {}", value.type_name()))
}

/// Writing into a string cannot fail.
fn put(out: &mut String, text: std::fmt::Arguments<'_>) -> Result<(), Error> {
    out.write_fmt(text).map_err(|_| Error::Budget)
}

fn write_value(run: &mut Run<'_, '_>, out: &mut String, value: &Val<'_>, depth: usize) -> Result<(), Error> {
    run.work(1)?;
    if depth > MAX_DEPTH {
        return error("error during formatting: the value is nested too deeply");
    }
    match value {
        Val::String(text) => {
            run.allocate(text.len())?;
            out.push_str(text);
        }
        Val::Bool(value) => put(out, format_args!("{value}"))?,
        Val::Int(value) => put(out, format_args!("{value}"))?,
        Val::Uint(value) => put(out, format_args!("{value}"))?,
        Val::Double(value) => out.push_str(&number(*value)),
        Val::Null => out.push_str("null"),
        Val::Bytes(bytes) => out.push_str(&String::from_utf8_lossy(bytes)),
        Val::Duration(nanos) => out.push_str(&time::format_duration(*nanos)),
        Val::Timestamp(at) => out.push_str(&time::format_timestamp(*at)),
        Val::Type(name) => out.push_str(name),
        Val::List(list) => write_list(run, out, list, depth)?,
        Val::Map(map) => write_map(run, out, map, depth)?,
        other => {
            return error(format!(
                "error during formatting: string clause can only be used on strings, bools, bytes, ints, doubles, maps, lists, types, durations, and timestamps, was given {}",
                other.type_name()
            ));
        }
    }
    Ok(())
}

fn number(value: f64) -> String {
    match value {
        f64::INFINITY => "Infinity".into(),
        f64::NEG_INFINITY => "-Infinity".into(),
        value => encoding::shortest(value),
    }
}

fn write_list(run: &mut Run<'_, '_>, out: &mut String, list: &List<'_>, depth: usize) -> Result<(), Error> {
    out.push('[');
    for (at, element) in list.iter().enumerate() {
        if at > 0 {
            out.push_str(", ");
        }
        write_value(run, out, &element?, depth + 1)?;
    }
    out.push(']');
    Ok(())
}

fn write_map(run: &mut Run<'_, '_>, out: &mut String, map: &Map<'_>, depth: usize) -> Result<(), Error> {
    out.push('{');
    for (at, key) in map.keys().into_iter().enumerate() {
        if at > 0 {
            out.push_str(", ");
        }
        write_value(run, out, &key, depth + 1)?;
        out.push_str(": ");
        if let Some(value) = key.key().as_ref().and_then(|key: &Key<'_>| map.get(key)) {
            write_value(run, out, &value?, depth + 1)?;
        }
    }
    out.push('}');
    Ok(())
}

fn decimal(out: &mut String, value: &Val<'_>) -> Result<(), Error> {
    match value {
        Val::Int(value) => put(out, format_args!("{value}")),
        Val::Uint(value) => put(out, format_args!("{value}")),
        other => wrong("decimal", other),
    }
}

/// The double, or the texts that stand for what is no number.
fn double(value: &Val<'_>) -> Option<f64> {
    match value {
        Val::Double(value) => Some(*value),
        Val::String(text) => match &**text {
            "NaN" => Some(f64::NAN),
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            _ => None,
        },
        _ => None,
    }
}

fn fixed(out: &mut String, value: &Val<'_>, precision: usize) -> Result<(), Error> {
    let Some(double) = double(value) else { return wrong("fixed-point", value) };
    if !double.is_finite() {
        out.push_str(&special(double));
        return Ok(());
    }
    // As American English writes numbers, with commas: upstream formats by locale.
    let text = format!("{double:.precision$}");
    let (sign, digits) = text.strip_prefix('-').map_or(("", &*text), |digits| ("-", digits));
    let (whole, fraction) = digits.split_once('.').map_or((digits, None), |(whole, fraction)| (whole, Some(fraction)));
    out.push_str(sign);
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    if let Some(fraction) = fraction {
        put(out, format_args!(".{fraction}"))?;
    }
    Ok(())
}

fn special(value: f64) -> String {
    if value.is_nan() { "NaN".into() } else { if value > 0.0 { "∞" } else { "-∞" }.into() }
}

fn scientific(out: &mut String, value: &Val<'_>, precision: usize) -> Result<(), Error> {
    let Some(double) = double(value) else { return wrong("scientific", value) };
    if !double.is_finite() {
        out.push_str(&special(double));
        return Ok(());
    }
    let text = format!("{double:.precision$e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, digits) = exponent.strip_prefix('-').map_or(("", exponent), |digits| ("⁻", digits));
    put(out, format_args!("{mantissa}×10{sign}"))?;
    for digit in format!("{digits:0>2}").bytes() {
        out.push(match digit {
            b'1' => '¹',
            b'2' => '²',
            b'3' => '³',
            other => char::from_u32(0x2070 + u32::from(other - b'0')).unwrap_or('?'),
        });
    }
    Ok(())
}

fn binary(out: &mut String, value: &Val<'_>) -> Result<(), Error> {
    match value {
        Val::Int(value) => put(out, format_args!("{}{:b}", minus(*value), value.unsigned_abs())),
        Val::Uint(value) => put(out, format_args!("{value:b}")),
        Val::Bool(value) => put(out, format_args!("{}", u8::from(*value))),
        other => wrong("binary", other),
    }
}

fn octal(out: &mut String, value: &Val<'_>) -> Result<(), Error> {
    match value {
        Val::Int(value) => put(out, format_args!("{}{:o}", minus(*value), value.unsigned_abs())),
        Val::Uint(value) => put(out, format_args!("{value:o}")),
        other => wrong("octal", other),
    }
}

fn minus(value: i64) -> &'static str {
    if value < 0 { "-" } else { "" }
}

fn hexadecimal(run: &mut Run<'_, '_>, out: &mut String, value: &Val<'_>, upper: bool) -> Result<(), Error> {
    let bytes = match value {
        Val::Int(value) if upper => return put(out, format_args!("{}{:X}", minus(*value), value.unsigned_abs())),
        Val::Int(value) => return put(out, format_args!("{}{:x}", minus(*value), value.unsigned_abs())),
        Val::Uint(value) if upper => return put(out, format_args!("{value:X}")),
        Val::Uint(value) => return put(out, format_args!("{value:x}")),
        Val::String(text) => text.as_bytes(),
        Val::Bytes(bytes) => bytes,
        other => return wrong("hex", other),
    };
    run.allocate(bytes.len() * 2)?;
    for byte in bytes {
        if upper { put(out, format_args!("{byte:02X}")) } else { put(out, format_args!("{byte:02x}")) }?;
    }
    Ok(())
}
