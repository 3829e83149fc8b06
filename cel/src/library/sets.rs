//! Lists as sets.

use crate::eval::{Answer, Error, Run, no_overload};
use crate::functions::Library;
use crate::value::{List, Val};

pub(super) const LIBRARY: Library = &[
    ("sets.contains(list(T), list(T)) -> bool", contains),
    ("sets.equivalent(list(T), list(T)) -> bool", equivalent),
    ("sets.intersects(list(T), list(T)) -> bool", intersects),
];

fn has_all<'a>(run: &mut Run<'_, 'a>, list: &List<'a>, wanted: &List<'a>) -> Result<bool, Error> {
    for element in wanted.iter() {
        if !run.contains(list, &element?)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn contains<'a>(run: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    match args {
        [Val::List(list), Val::List(wanted)] => has_all(run, list, wanted).map(Val::Bool),
        _ => no_overload(),
    }
}

fn equivalent<'a>(run: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    match args {
        [Val::List(one), Val::List(other)] => Ok(Val::Bool(has_all(run, one, other)? && has_all(run, other, one)?)),
        _ => no_overload(),
    }
}

fn intersects<'a>(run: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    match args {
        [Val::List(one), Val::List(other)] => {
            for element in one.iter() {
                if run.contains(other, &element?)? {
                    return Ok(Val::Bool(true));
                }
            }
            Ok(Val::Bool(false))
        }
        _ => no_overload(),
    }
}
