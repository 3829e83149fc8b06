//! The process itself, in the names that every Prometheus client library uses. What the kernel does not say is left out.

use super::{grown, now};
use prometheus::{Error, proto::MetricFamily};
use std::fs;

/// When the process began.
pub const BEGAN: &str = "process_start_time_seconds";
/// Ticks a second in `/proc/PID/stat`: part of Linux' interface to programs (`USER_HZ`).
const TICKS: f64 = 100.0;
/// Bytes of a page on the machines this runs on.
const PAGE: f64 = 4096.0;

/// What `/proc/self/stat` says.
#[derive(Debug, PartialEq)]
struct Stat {
    cpu_seconds: f64,
    /// After the machine's start.
    began_seconds: f64,
    virtual_bytes: f64,
    resident_bytes: f64,
}

fn stat(text: &str) -> Option<Stat> {
    // The name of the program is in brackets and may contain anything.
    let fields: Vec<f64> = text.rsplit_once(')')?.1.split_whitespace().map(|field| field.parse().unwrap_or(0.0)).collect();
    let field = |nth: usize| fields.get(nth - 3).copied();
    Some(Stat {
        cpu_seconds: (field(14)? + field(15)?) / TICKS,
        began_seconds: field(22)? / TICKS,
        virtual_bytes: field(23)?,
        resident_bytes: field(24)? * PAGE,
    })
}

/// The machine's start, in seconds since 1970.
fn booted(text: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok())
}

/// The limit of open files.
fn most_files(text: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix("Max open files")?.split_whitespace().next()?.parse().ok())
}

/// `process_cpu_seconds_total` and its kin.
///
/// # Errors
/// As [`super::counters`].
pub(super) fn families() -> Result<Vec<MetricFamily>, Error> {
    let read = |name: &str| fs::read_to_string(format!("/proc/{name}")).unwrap_or_default();
    let mut families = Vec::new();
    let mut gauge = |name: &str, help: &str, value: Option<f64>| -> Result<(), Error> {
        if let Some(value) = value {
            families.push(now(name, help, &[], [(Vec::new(), value)])?);
        }
        Ok(())
    };
    let stat = stat(&read("self/stat"));
    let of = |field: fn(&Stat) -> f64| stat.as_ref().map(field);
    gauge("process_virtual_memory_bytes", "Virtual memory.", of(|stat| stat.virtual_bytes))?;
    gauge("process_resident_memory_bytes", "Resident memory.", of(|stat| stat.resident_bytes))?;
    let began = booted(&read("stat")).zip(of(|stat| stat.began_seconds)).map(|(boot, after)| boot + after);
    gauge(BEGAN, "When it began, in seconds since 1970.", began)?;
    gauge("process_open_fds", "Open files.", fs::read_dir("/proc/self/fd").ok().map(|files| files.count() as f64))?;
    gauge("process_max_fds", "Files that may be open.", most_files(&read("self/limits")))?;
    if let Some(seconds) = of(|stat| stat.cpu_seconds) {
        families.push(grown("process_cpu_seconds_total", "CPU time, user's and system's.", seconds)?);
    }
    Ok(families)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_files_are_read() {
        let text = "1234 (a) b)) S 1 1 1 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 5 0 1000 4096000 512 18446744073709551615 1 1 0 0 0";
        assert_eq!(stat(text), Some(Stat { cpu_seconds: 3.0, began_seconds: 10.0, virtual_bytes: 4_096_000.0, resident_bytes: 2_097_152.0 }));
        assert_eq!((stat(""), stat("1 (a) S 1")), (None, None));
        assert_eq!(booted("cpu 1 2\nbtime 1700000000\nprocesses 1\n"), Some(1_700_000_000.0));
        assert_eq!(most_files("Limit  Soft Limit\nMax open files            1024                 524288               files\n"), Some(1024.0));
        assert!(families().is_ok_and(|families| families.len() >= 5));
    }
}
