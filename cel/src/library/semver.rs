//! Semantic versions.

use crate::eval::{Answer, Run, error, no_overload};
use crate::functions::Library;
use crate::value::{Opaque, Val};
use semver::Version;
use std::cmp::Ordering;

pub(super) const LIBRARY: Library = &[
    ("semver(string) -> kubernetes.Semver", parse),
    ("semver(string, bool) -> kubernetes.Semver", parse),
    ("isSemver(string) -> bool", is_semver),
    ("isSemver(string, bool) -> bool", is_semver),
    ("(kubernetes.Semver).isGreaterThan(kubernetes.Semver) -> bool", greater),
    ("(kubernetes.Semver).isLessThan(kubernetes.Semver) -> bool", less),
    ("(kubernetes.Semver).compareTo(kubernetes.Semver) -> int", compare),
    ("(kubernetes.Semver).major() -> int", major),
    ("(kubernetes.Semver).minor() -> int", minor),
    ("(kubernetes.Semver).patch() -> int", patch),
];

fn read(args: &[Val<'_>]) -> Result<Result<Version, String>, crate::eval::Error> {
    let (text, tolerant) = match args {
        [Val::String(text)] => (text, false),
        [Val::String(text), Val::Bool(tolerant)] => (text, *tolerant),
        _ => return no_overload(),
    };
    let parse = |text: &str| Version::parse(text).map_err(|why| why.to_string());
    Ok(if tolerant { normal(text).and_then(|text| parse(&text)) } else { parse(text) })
}

/// Without a leading `v`, with missing parts, and without leading zeros.
fn normal(text: &str) -> Result<String, String> {
    let text = text.strip_prefix('v').unwrap_or(text);
    let mut parts: Vec<String> = text
        .splitn(3, '.')
        .map(|part| match part.trim_start_matches('0') {
            _ if part.len() < 2 => part.to_string(),
            rest if rest.starts_with(|c: char| c.is_ascii_digit()) => rest.to_string(),
            rest => format!("0{rest}"),
        })
        .collect();
    if parts.len() < 3 {
        if parts.last().is_some_and(|last| last.contains(['+', '-'])) {
            return Err("short version cannot contain PreRelease/Build meta data".into());
        }
        parts.resize(3, "0".into());
    }
    Ok(parts.join("."))
}

fn parse<'a>(_: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    match read(args)? {
        Ok(version) => Ok(Val::opaque(Opaque::Semver(version))),
        Err(why) => error(why),
    }
}

fn is_semver<'a>(_: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    Ok(Val::Bool(read(args)?.is_ok()))
}

fn version<'v>(value: Option<&'v Val<'_>>) -> Result<&'v Version, crate::eval::Error> {
    match value {
        Some(Val::Opaque(opaque)) => match &**opaque {
            Opaque::Semver(version) => Ok(version),
            _ => no_overload(),
        },
        _ => no_overload(),
    }
}

fn order(args: &[Val<'_>]) -> Result<Ordering, crate::eval::Error> {
    Ok(version(args.first())?.cmp_precedence(version(args.get(1))?))
}

fn greater<'a>(_: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    Ok(Val::Bool(order(args)?.is_gt()))
}

fn less<'a>(_: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    Ok(Val::Bool(order(args)?.is_lt()))
}

fn compare<'a>(_: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    Ok(Val::Int(order(args)? as i64))
}

fn major<'a>(_: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    Ok(Val::Int(version(args.first())?.major as i64))
}

fn minor<'a>(_: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    Ok(Val::Int(version(args.first())?.minor as i64))
}

fn patch<'a>(_: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    Ok(Val::Int(version(args.first())?.patch as i64))
}
