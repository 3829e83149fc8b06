//! Regular expressions: RE2's language, matched in linear time.

use crate::eval::{Answer, Error, Run, error, no_overload};
use crate::functions::Library;
use crate::value::Val;
use regex::{Regex, RegexBuilder};
use std::rc::Rc;

pub(super) const LIBRARY: Library = &[
    ("matches(string, string) -> bool", matches),
    ("(string).matches(string) -> bool", matches),
    ("(string).find(string) -> string", find),
    ("(string).findAll(string) -> list(string)", find_all),
    ("(string).findAll(string, int) -> list(string)", find_all),
];

/// Largest compiled pattern, in bytes.
const PATTERN_SIZE: usize = 1 << 20;
/// Work of compiling a pattern, beside its length.
const COMPILING: usize = 20_000;

/// Compiles a pattern as running and checking do.
pub(crate) fn compile(pattern: &str) -> Result<Regex, String> {
    RegexBuilder::new(pattern).size_limit(PATTERN_SIZE).dfa_size_limit(PATTERN_SIZE).nest_limit(100).build().map_err(|why| why.to_string())
}

fn pattern(run: &mut Run<'_, '_>, text: &str) -> Result<Rc<Regex>, Error> {
    if let Some(known) = run.patterns.get(text) {
        return Ok(known.clone());
    }
    run.work(COMPILING + text.len().saturating_mul(100))?;
    match compile(text) {
        Ok(regex) => {
            let regex = Rc::new(regex);
            // A few are enough; data could bring any number.
            if run.patterns.len() < 16 {
                run.patterns.insert(text.into(), regex.clone());
            }
            Ok(regex)
        }
        Err(why) => error(format!("Illegal regex: {why}")),
    }
}

/// Counts the worst that matching can take: every state at every byte.
fn prepare<'a>(run: &mut Run<'_, 'a>, text: &str, regex: &str) -> Result<Rc<Regex>, Error> {
    let compiled = pattern(run, regex)?;
    run.work(text.len().saturating_mul(1 + regex.len() / 64))?;
    Ok(compiled)
}

fn matches<'a>(run: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    match args {
        [Val::String(text), Val::String(regex)] => Ok(Val::Bool(prepare(run, text, regex)?.is_match(text))),
        _ => no_overload(),
    }
}

fn find<'a>(run: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    match args {
        [Val::String(text), Val::String(regex)] => {
            let found = prepare(run, text, regex)?.find(text).map_or("", |found| found.as_str()).to_string();
            run.allocate(found.len())?;
            Ok(Val::text(found))
        }
        _ => no_overload(),
    }
}

fn find_all<'a>(run: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    let (text, regex, most) = match args {
        [Val::String(text), Val::String(regex)] => (text, regex, -1),
        [Val::String(text), Val::String(regex), Val::Int(most)] => (text, regex, *most),
        _ => return no_overload(),
    };
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let compiled = prepare(run, text, regex)?;
    let mut found = Vec::new();
    for part in compiled.find_iter(text).take(most) {
        run.allocate(64 + part.len())?;
        // Where the search goes on is looked at again.
        run.work(1 + regex.len() / 16)?;
        found.push(Val::text(part.as_str()));
    }
    Ok(Val::list(found))
}
