//! Ages as people read them, and cells that grow older after they were made.
//!
//! Cells of a table row are made once per object revision and kept; what depends on the time of reading is left in them as a *moment*: a timestamp
//! between two control characters that no cell may contain otherwise. [`render`] turns moments into ages when a table is sent. (Passing the time to the
//! cells was rejected: every list would then rebuild every row.)

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

const OPEN: char = '\u{1}';
const CLOSE: char = '\u{2}';

/// What is printed where no time is known.
pub const UNKNOWN: &str = "<unknown>";

/// Two or three significant figures, as `kubectl get` prints them (`duration.HumanDuration`): `5s`, `3m12s`, `2d4h`, `<invalid>` for the future.
pub fn human(age: SignedDuration) -> String {
    let seconds = age.as_secs();
    // Clocks differ: a second ahead still reads as now.
    if seconds < -1 {
        return "<invalid>".into();
    }
    let seconds = seconds.max(0);
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let days = hours / 24;
    let pair = |big: i64, unit: char, small: i64, sub: char| match small {
        0 => format!("{big}{unit}"),
        small => format!("{big}{unit}{small}{sub}"),
    };
    match () {
        () if seconds < 120 => format!("{seconds}s"),
        () if minutes < 10 => pair(minutes, 'm', seconds % 60, 's'),
        () if minutes < 180 => format!("{minutes}m"),
        () if hours < 8 => pair(hours, 'h', minutes % 60, 'm'),
        () if hours < 48 => format!("{hours}h"),
        () if days < 8 => pair(days, 'd', hours % 24, 'h'),
        () if days < 365 * 2 => format!("{days}d"),
        () if days < 365 * 8 => pair(days / 365, 'y', days % 365, 'd'),
        () => format!("{}y", days / 365),
    }
}

/// The age of an RFC 3339 timestamp; `<unknown>` for anything else.
pub fn since(timestamp: &str, now: Timestamp) -> String {
    timestamp.parse::<Timestamp>().map_or_else(|_| UNKNOWN.into(), |at| human(now.duration_since(at)))
}

/// Time between two RFC 3339 timestamps, if both are.
pub fn between(from: &str, to: &str) -> Option<String> {
    let (from, to) = (from.parse::<Timestamp>().ok()?, to.parse::<Timestamp>().ok()?);
    Some(human(to.duration_since(from)))
}

/// Text that reads as the age of `timestamp` once rendered.
pub fn moment(timestamp: &str) -> String {
    match timestamp.parse::<Timestamp>() {
        Ok(_) => format!("{OPEN}{timestamp}{CLOSE}"),
        Err(_) => UNKNOWN.into(),
    }
}

/// The `Age` cell of an object.
pub fn of(object: &Value) -> Value {
    moment(object["metadata"]["creationTimestamp"].as_str().unwrap_or_default()).into()
}

/// A cell with its moments turned into ages; None if it has none.
pub fn render(cell: &str, now: Timestamp) -> Option<String> {
    let mut rest = cell;
    let mut text = String::new();
    while let Some((before, after)) = rest.split_once(OPEN) {
        let (timestamp, after) = after.split_once(CLOSE)?;
        text.push_str(before);
        text.push_str(&since(timestamp, now));
        rest = after;
    }
    if rest.len() == cell.len() {
        return None;
    }
    text.push_str(rest);
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_kubectl_prints_them() {
        let minute = 60;
        let hour = 3600;
        let day = 86400;
        for (seconds, want) in [
            (-2, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (192, "3m12s"),
            (10 * minute + 5, "10m"),
            (179 * minute, "179m"),
            (3 * hour, "3h"),
            (7 * hour + 59 * minute, "7h59m"),
            (8 * hour + 59 * minute, "8h"),
            (47 * hour, "47h"),
            (2 * day, "2d"),
            (2 * day + 4 * hour, "2d4h"),
            (8 * day + 4 * hour, "8d"),
            (729 * day, "729d"),
            (730 * day, "2y"),
            (731 * day, "2y1d"),
            (8 * 365 * day + day, "8y"),
        ] {
            assert_eq!(human(SignedDuration::from_secs(seconds)), want, "{seconds} s");
        }
    }

    #[test]
    fn moments_grow_older() {
        let now: Timestamp = "2026-01-02T03:04:05Z".parse().expect("time");
        let cell = format!("5 ({} ago)", moment("2026-01-02T03:04:00Z"));
        assert_eq!(render(&cell, now).as_deref(), Some("5 (5s ago)"));
        assert_eq!(render("Running", now), None);
        assert_eq!(moment(""), "<unknown>");
        assert_eq!(between("2026-01-02T03:04:00Z", "2026-01-02T03:07:12Z").as_deref(), Some("3m12s"));
    }
}
