//! When a CronJob runs: cron expressions as upstream reads them (robfig/cron v3, its standard parser), in a time zone.
//!
//! The crates there are (croner, cronexpr) read more than upstream does: `L`, `W`, `#`, 7 for Sunday, seconds. What they accept beyond would be refused by
//! every other cluster, and their words for mistakes are not those that people know; refusing the difference takes as much code as reading the whole.

use jiff::{SignedDuration, Timestamp, ToSpan, civil::Date, tz::AmbiguousOffset, tz::TimeZone};

/// A field of an expression: its name, bounds, and names for its numbers.
struct Field {
    min: u32,
    max: u32,
    names: &'static [&'static str],
}

const MINUTE: Field = Field { min: 0, max: 59, names: &[] };
const HOUR: Field = Field { min: 0, max: 23, names: &[] };
const DAY: Field = Field { min: 1, max: 31, names: &[] };
const MONTH: Field = Field { min: 1, max: 12, names: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"] };
const WEEKDAY: Field = Field { min: 0, max: 6, names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"] };

/// Shorthands that need no fields.
const DESCRIPTORS: &[(&str, &str)] = &[
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];

/// How far ahead a time is looked for: longer than any leap day is away.
const YEARS: i16 = 9;

/// The numbers that a field allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Allowed {
    bits: u64,
    /// `*`: for days, the other day field alone decides.
    any: bool,
}

impl Allowed {
    fn has(self, number: u32) -> bool {
        self.bits & (1 << number) != 0
    }
}

/// When to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// `@every 90s`: so long after the last time.
    Every(SignedDuration),
    /// At the minutes that an expression allows.
    At(Box<Pattern>),
}

/// The five fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    minute: Allowed,
    hour: Allowed,
    day: Allowed,
    month: Allowed,
    weekday: Allowed,
}

impl Schedule {
    /// Reads an expression. A time zone in it (`TZ=…`) is skipped: the caller refuses it.
    ///
    /// # Errors
    /// What is wrong with it, in upstream's words.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("empty spec string".into());
        }
        let text = match text.strip_prefix("TZ=").or_else(|| text.strip_prefix("CRON_TZ=")) {
            Some(rest) => rest.split_once(' ').map_or("", |(_, fields)| fields).trim(),
            None => text,
        };
        if text.starts_with('@') {
            return Self::described(text);
        }
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [minute, hour, day, month, weekday] = fields[..] else {
            return Err(format!("expected exactly 5 fields, found {}: [{}]", fields.len(), fields.join(" ")));
        };
        Ok(Self::At(Box::new(Pattern {
            minute: field(minute, &MINUTE)?,
            hour: field(hour, &HOUR)?,
            day: field(day, &DAY)?,
            month: field(month, &MONTH)?,
            weekday: field(weekday, &WEEKDAY)?,
        })))
    }

    fn described(text: &str) -> Result<Self, String> {
        if let Some((_, fields)) = DESCRIPTORS.iter().find(|(name, _)| *name == text) {
            return Self::parse(fields);
        }
        let Some(every) = text.strip_prefix("@every ") else { return Err(format!("unrecognized descriptor: {text}")) };
        let nanos = coracle_api::duration::parse(every).map_err(|why| format!("failed to parse duration {text}: {why}"))?;
        Ok(Self::Every(SignedDuration::from_secs(SignedDuration::from_nanos(nanos).as_secs().max(1))))
    }

    /// The first time after this one; None if there is none in the next years.
    pub fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        match self {
            Self::Every(duration) => Timestamp::from_second(after.as_second()).ok()?.checked_add(*duration).ok(),
            Self::At(pattern) => pattern.next(after, zone),
        }
    }
}

impl Pattern {
    fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let first = after.to_zoned(zone.clone()).date();
        let mut date = first;
        while date.year() <= first.year().saturating_add(YEARS) {
            if self.on(date)
                && let Some(time) = self.within(date, after, zone)
            {
                return Some(time);
            }
            date = date.checked_add(1.day()).ok()?;
        }
        None
    }

    fn on(&self, date: Date) -> bool {
        let day = self.day.has(u32::from(date.day().unsigned_abs()));
        let weekday = self.weekday.has(u32::from(date.weekday().to_sunday_zero_offset().unsigned_abs()));
        let days = if self.day.any || self.weekday.any { day && weekday } else { day || weekday };
        days && self.month.has(u32::from(date.month().unsigned_abs()))
    }

    /// The first time of a day. An hour that the clock skips has no times, one that it repeats has them twice.
    fn within(&self, date: Date, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let hours = (0..24i8).filter(|hour| self.hour.has(u32::from(hour.unsigned_abs())));
        let times = hours.flat_map(|hour| (0..60i8).filter(|m| self.minute.has(u32::from(m.unsigned_abs()))).map(move |m| date.at(hour, m, 0, 0)));
        let instants = times.flat_map(|time| {
            let offsets = match zone.to_ambiguous_timestamp(time).offset() {
                AmbiguousOffset::Unambiguous { offset } => [Some(offset), None],
                AmbiguousOffset::Gap { .. } => [None, None],
                AmbiguousOffset::Fold { before, after } => [Some(before), Some(after)],
            };
            offsets.into_iter().flatten().filter_map(move |offset| offset.to_timestamp(time).ok())
        });
        instants.filter(|instant| *instant > after).min()
    }
}

fn field(text: &str, of: &Field) -> Result<Allowed, String> {
    let mut allowed = Allowed { bits: 0, any: false };
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let run = range(part, of)?;
        allowed = Allowed { bits: allowed.bits | run.bits, any: allowed.any | run.any };
    }
    Ok(allowed)
}

/// `*`, `?`, `3`, `mon`, `1-5`, each with `/step`.
fn range(text: &str, of: &Field) -> Result<Allowed, String> {
    let (run, step) = match text.split('/').collect::<Vec<_>>()[..] {
        [run] => (run, None),
        [run, step] => (run, Some(number(step)?)),
        _ => return Err(format!("too many slashes: {text}")),
    };
    let ends: Vec<&str> = run.split('-').collect();
    let (start, end, mut any) = match ends[..] {
        ["*" | "?", ..] => (of.min, of.max, true),
        [one] => {
            let one = named(one, of)?;
            // `3/5` goes on to the end.
            (one, if step.is_some() { of.max } else { one }, false)
        }
        [first, last] => (named(first, of)?, named(last, of)?, false),
        _ => return Err(format!("too many hyphens: {text}")),
    };
    let step = step.unwrap_or(1);
    any &= step <= 1;
    if start < of.min {
        return Err(format!("beginning of range ({start}) below minimum ({}): {text}", of.min));
    }
    if end > of.max {
        return Err(format!("end of range ({end}) above maximum ({}): {text}", of.max));
    }
    if start > end {
        return Err(format!("beginning of range ({start}) beyond end of range ({end}): {text}"));
    }
    if step == 0 {
        return Err(format!("step of range should be a positive number: {text}"));
    }
    let bits = (start..=end).step_by(step as usize).fold(0u64, |bits, number| bits | 1 << number);
    Ok(Allowed { bits, any })
}

fn named(text: &str, of: &Field) -> Result<u32, String> {
    match of.names.iter().position(|name| name.eq_ignore_ascii_case(text)) {
        Some(at) => Ok(of.min + at as u32),
        None => number(text),
    }
}

fn number(text: &str) -> Result<u32, String> {
    let number: i64 = text.parse().map_err(|_| format!("failed to parse int from {text}: strconv.Atoi: parsing \"{text}\": invalid syntax"))?;
    u32::try_from(number).map_err(|_| format!("negative number ({number}) not allowed: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(expression: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
        let schedule = Schedule::parse(expression).expect("an expression");
        let zone = TimeZone::get(zone).expect("a zone");
        let mut at: Timestamp = after.parse().expect("a time");
        let mut times = Vec::new();
        for _ in 0..count {
            at = schedule.next(at, &zone).expect("a next time");
            times.push(at.to_zoned(zone.clone()).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string());
        }
        times
    }

    fn next(expression: &str, after: &str) -> String {
        times(expression, "UTC", after, 1).remove(0).replace("+00:00", "Z")
    }

    #[test]
    fn the_next_time_is_found() {
        for (expression, after, expected) in [
            ("* * * * *", "2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z"),
            ("* * * * *", "2026-01-01T00:00:59.5Z", "2026-01-01T00:01:00Z"),
            ("*/15 * * * *", "2026-01-01T00:46:00Z", "2026-01-01T01:00:00Z"),
            ("5/20 * * * *", "2026-01-01T00:05:00Z", "2026-01-01T00:25:00Z"),
            ("30 8-10/2 * * *", "2026-01-01T08:30:00Z", "2026-01-01T10:30:00Z"),
            ("0 0 29 feb ?", "2026-01-01T00:00:00Z", "2028-02-29T00:00:00Z"),
            ("0 0 29 2 *", "2097-01-01T00:00:00Z", "2104-02-29T00:00:00Z"),
            ("0 0 * * MON-fri", "2026-01-02T00:00:00Z", "2026-01-05T00:00:00Z"),
            ("0 0 13 * fri", "2026-01-03T00:00:00Z", "2026-01-09T00:00:00Z"),
            ("0 0 */2 * 5", "2026-01-02T00:00:00Z", "2026-01-03T00:00:00Z"),
            ("0 0 1,15 * *", "2026-01-01T00:00:00Z", "2026-01-15T00:00:00Z"),
            ("@hourly", "2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z"),
            ("@weekly", "2026-01-01T00:00:00Z", "2026-01-04T00:00:00Z"),
            ("@yearly", "2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z"),
            ("@every 1h30m", "2026-01-01T00:00:00.7Z", "2026-01-01T01:30:00Z"),
            ("@every 10ms", "2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z"),
        ] {
            assert_eq!(next(expression, after), expected, "{expression}");
        }
        let never = Schedule::parse("0 0 31 2 *").expect("an expression");
        assert_eq!(never.next(Timestamp::UNIX_EPOCH, &TimeZone::UTC), None);
    }

    #[test]
    fn clocks_that_change_are_followed() {
        let zone = "Europe/Berlin";
        assert_eq!(
            times("30 2 * * *", zone, "2026-03-28T00:00:00Z", 2),
            ["2026-03-28T02:30:00+01:00", "2026-03-30T02:30:00+02:00"],
            "there is no half past two on the 29th"
        );
        assert_eq!(
            times("30 2 * * *", zone, "2026-10-24T22:00:00Z", 3),
            ["2026-10-25T02:30:00+02:00", "2026-10-25T02:30:00+01:00", "2026-10-26T02:30:00+01:00"],
            "there are two on the 25th"
        );
        assert_eq!(times("0 9 * * *", "Asia/Kolkata", "2026-01-01T00:00:00Z", 1), ["2026-01-01T09:00:00+05:30"]);
    }

    #[test]
    fn what_upstream_refuses_is_refused_in_its_words() {
        for (expression, expected) in [
            ("", "empty spec string"),
            ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
            ("0 * * * * *", "expected exactly 5 fields, found 6: [0 * * * * *]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("* * * * 7", "end of range (7) above maximum (6): 7"),
            ("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
            ("1/2/3 * * * *", "too many slashes: 1/2/3"),
            ("* * L * *", "failed to parse int from L: strconv.Atoi: parsing \"L\": invalid syntax"),
            ("@sometimes", "unrecognized descriptor: @sometimes"),
            ("@every x", "failed to parse duration @every x: time: invalid duration \"x\""),
        ] {
            assert_eq!(Schedule::parse(expression), Err(expected.to_owned()));
        }
    }
}
