//! Timestamps and durations.

use crate::eval::{Answer, Run, error, no_overload};
use crate::functions::Library;
use crate::value::Val;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned, civil};

pub(super) const LIBRARY: Library = &[
    ("duration(duration) -> duration", same),
    ("duration(string) -> duration", duration),
    ("timestamp(timestamp) -> timestamp", same),
    ("timestamp(string) -> timestamp", timestamp),
    ("timestamp(int) -> timestamp", timestamp),
    ("(timestamp).getFullYear() -> int", year),
    ("(timestamp).getFullYear(string) -> int", year),
    ("(timestamp).getMonth() -> int", month),
    ("(timestamp).getMonth(string) -> int", month),
    ("(timestamp).getDayOfYear() -> int", day_of_year),
    ("(timestamp).getDayOfYear(string) -> int", day_of_year),
    ("(timestamp).getDayOfMonth() -> int", day_of_month),
    ("(timestamp).getDayOfMonth(string) -> int", day_of_month),
    ("(timestamp).getDate() -> int", date),
    ("(timestamp).getDate(string) -> int", date),
    ("(timestamp).getDayOfWeek() -> int", day_of_week),
    ("(timestamp).getDayOfWeek(string) -> int", day_of_week),
    ("(timestamp).getHours() -> int", hours),
    ("(timestamp).getHours(string) -> int", hours),
    ("(duration).getHours() -> int", hours),
    ("(timestamp).getMinutes() -> int", minutes),
    ("(timestamp).getMinutes(string) -> int", minutes),
    ("(duration).getMinutes() -> int", minutes),
    ("(timestamp).getSeconds() -> int", seconds),
    ("(timestamp).getSeconds(string) -> int", seconds),
    ("(duration).getSeconds() -> int", seconds),
    ("(timestamp).getMilliseconds() -> int", milliseconds),
    ("(timestamp).getMilliseconds(string) -> int", milliseconds),
    ("(duration).getMilliseconds() -> int", milliseconds),
];

const SECOND: i64 = 1_000_000_000;

fn same<'a>(_: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    args.first().cloned().map_or_else(no_overload, Ok)
}

fn duration<'a>(_: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    match args {
        [Val::String(text)] => match coracle_api::duration::parse(text) {
            Ok(nanos) => Ok(Val::Duration(nanos)),
            Err(_) => error("type conversion error from 'string' to 'google.protobuf.Duration'"),
        },
        _ => no_overload(),
    }
}

fn timestamp<'a>(_: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    match args {
        [Val::String(text)] => match parse_timestamp(text) {
            Some(at) => Ok(Val::Timestamp(at)),
            None => error("type conversion error from 'string' to 'google.protobuf.Timestamp'"),
        },
        [Val::Int(seconds)] => match Timestamp::from_second(*seconds).ok().filter(in_range) {
            Some(at) => Ok(Val::Timestamp(at)),
            None => error("timestamp overflow"),
        },
        _ => no_overload(),
    }
}

/// Years 1 to 9999, which protobuf's timestamps have.
fn in_range(at: &Timestamp) -> bool {
    (-62_135_596_800..=253_402_300_799).contains(&at.as_second())
}

/// A time some nanoseconds later.
pub(crate) fn shift<'a>(at: Timestamp, nanos: i128) -> Answer<'a> {
    match Timestamp::from_nanosecond(at.as_nanosecond() + nanos).ok().filter(in_range) {
        Some(at) => Ok(Val::Timestamp(at)),
        None => error("timestamp overflow"),
    }
}

/// Seconds with as many decimals as it takes: `5400s`, `1.5s`.
pub(crate) fn format_duration(nanos: i64) -> String {
    let (sign, nanos) = (if nanos < 0 { "-" } else { "" }, nanos.unsigned_abs());
    let (seconds, rest) = (nanos / SECOND.unsigned_abs(), nanos % SECOND.unsigned_abs());
    if rest == 0 {
        return format!("{sign}{seconds}s");
    }
    let fraction = format!("{rest:09}");
    format!("{sign}{seconds}.{}s", fraction.trim_end_matches('0'))
}

/// RFC 3339.
pub(crate) fn parse_timestamp(text: &str) -> Option<Timestamp> {
    // The parser knows more notations than the RFC has.
    let plausible = text.len() >= 20 && text.len() <= 40 && text.as_bytes().get(10).is_some_and(|c| matches!(c, b'T' | b't'));
    let zoned = text.ends_with(['Z', 'z']) || text.as_bytes().iter().rev().nth(5).is_some_and(|c| matches!(c, b'+' | b'-'));
    if !plausible || !zoned || text.contains('[') {
        return None;
    }
    text.parse::<Timestamp>().ok().filter(in_range)
}

/// `2006-01-02`
pub(crate) fn parse_date(text: &str) -> Option<Timestamp> {
    if text.len() != 10 {
        return None;
    }
    let date: civil::Date = text.parse().ok()?;
    date.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp()).filter(in_range)
}

/// RFC 3339 in UTC, with as many decimals as it takes.
pub(crate) fn format_timestamp(at: Timestamp) -> String {
    at.to_string()
}

fn zoned(args: &[Val<'_>]) -> Result<Zoned, crate::eval::Error> {
    let (at, zone) = match args {
        [Val::Timestamp(at)] => (at, TimeZone::UTC),
        [Val::Timestamp(at), Val::String(name)] => (at, zone(name)?),
        _ => return no_overload(),
    };
    Ok(at.to_zoned(zone))
}

/// `America/New_York`, `UTC`, `+05:30`, `-8:00`
fn zone(name: &str) -> Result<TimeZone, crate::eval::Error> {
    let unknown = || crate::eval::Error::Cel(format!("unknown time zone {name}"));
    let Some((hours, minutes)) = name.split_once(':') else {
        return match name {
            "" | "UTC" => Ok(TimeZone::UTC),
            _ => TimeZone::get(name).map_err(|_| unknown()),
        };
    };
    let (negative, hours) = (hours.starts_with('-'), hours.trim_start_matches(['+', '-']));
    let (Ok(hours), Ok(minutes)) = (hours.parse::<u8>(), minutes.parse::<u8>()) else { return Err(unknown()) };
    let seconds = i32::from(hours) * 3600 + i32::from(minutes) * 60;
    let offset = jiff::tz::Offset::from_seconds(if negative { -seconds } else { seconds }).map_err(|_| unknown())?;
    Ok(TimeZone::fixed(offset))
}

fn year<'a>(_: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    Ok(Val::Int(zoned(args)?.year().into()))
}

fn month<'a>(_: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    Ok(Val::Int(i64::from(zoned(args)?.month()) - 1))
}

fn day_of_year<'a>(_: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    Ok(Val::Int(i64::from(zoned(args)?.day_of_year()) - 1))
}

fn day_of_month<'a>(_: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    Ok(Val::Int(i64::from(zoned(args)?.day()) - 1))
}

fn date<'a>(_: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    Ok(Val::Int(zoned(args)?.day().into()))
}

fn day_of_week<'a>(_: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    Ok(Val::Int(zoned(args)?.weekday().to_sunday_zero_offset().into()))
}

fn hours<'a>(_: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    match args {
        [Val::Duration(nanos)] => Ok(Val::Int(nanos / (3600 * SECOND))),
        _ => Ok(Val::Int(zoned(args)?.hour().into())),
    }
}

fn minutes<'a>(_: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    match args {
        [Val::Duration(nanos)] => Ok(Val::Int(nanos / (60 * SECOND))),
        _ => Ok(Val::Int(zoned(args)?.minute().into())),
    }
}

fn seconds<'a>(_: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    match args {
        [Val::Duration(nanos)] => Ok(Val::Int(nanos / SECOND)),
        _ => Ok(Val::Int(zoned(args)?.second().into())),
    }
}

fn milliseconds<'a>(_: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    match args {
        [Val::Duration(nanos)] => Ok(Val::Int(nanos / 1_000_000)),
        _ => Ok(Val::Int(zoned(args)?.millisecond().into())),
    }
}
