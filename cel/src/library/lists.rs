//! Lists.

use crate::eval::{Answer, Error, Run, error, no_overload};
use crate::functions::Library;
use crate::value::{List, Val};
use std::cmp::Ordering;

pub(super) const LIBRARY: Library = &[
    ("(list(int)).isSorted() -> bool", is_sorted),
    ("(list(uint)).isSorted() -> bool", is_sorted),
    ("(list(double)).isSorted() -> bool", is_sorted),
    ("(list(bool)).isSorted() -> bool", is_sorted),
    ("(list(duration)).isSorted() -> bool", is_sorted),
    ("(list(timestamp)).isSorted() -> bool", is_sorted),
    ("(list(string)).isSorted() -> bool", is_sorted),
    ("(list(bytes)).isSorted() -> bool", is_sorted),
    ("(list(int)).sum() -> int", sum),
    ("(list(uint)).sum() -> uint", sum),
    ("(list(double)).sum() -> double", sum),
    ("(list(duration)).sum() -> duration", sum),
    ("(list(int)).max() -> int", max),
    ("(list(uint)).max() -> uint", max),
    ("(list(double)).max() -> double", max),
    ("(list(bool)).max() -> bool", max),
    ("(list(duration)).max() -> duration", max),
    ("(list(timestamp)).max() -> timestamp", max),
    ("(list(string)).max() -> string", max),
    ("(list(bytes)).max() -> bytes", max),
    ("(list(int)).min() -> int", min),
    ("(list(uint)).min() -> uint", min),
    ("(list(double)).min() -> double", min),
    ("(list(bool)).min() -> bool", min),
    ("(list(duration)).min() -> duration", min),
    ("(list(timestamp)).min() -> timestamp", min),
    ("(list(string)).min() -> string", min),
    ("(list(bytes)).min() -> bytes", min),
    ("(list(T)).indexOf(T) -> int", index_of),
    ("(list(T)).lastIndexOf(T) -> int", last_index_of),
    ("(list(T)).slice(int, int) -> list(T)", slice),
    ("(list(list(T))).flatten() -> list(T)", flatten),
    ("(list(dyn)).flatten(int) -> list(dyn)", flatten),
    ("(list(int)).sort() -> list(int)", sort),
    ("(list(uint)).sort() -> list(uint)", sort),
    ("(list(double)).sort() -> list(double)", sort),
    ("(list(bool)).sort() -> list(bool)", sort),
    ("(list(duration)).sort() -> list(duration)", sort),
    ("(list(timestamp)).sort() -> list(timestamp)", sort),
    ("(list(string)).sort() -> list(string)", sort),
    ("(list(bytes)).sort() -> list(bytes)", sort),
    ("(list(T)).@sortByAssociatedKeys(list(int)) -> list(T)", sort_by),
    ("(list(T)).@sortByAssociatedKeys(list(uint)) -> list(T)", sort_by),
    ("(list(T)).@sortByAssociatedKeys(list(double)) -> list(T)", sort_by),
    ("(list(T)).@sortByAssociatedKeys(list(bool)) -> list(T)", sort_by),
    ("(list(T)).@sortByAssociatedKeys(list(duration)) -> list(T)", sort_by),
    ("(list(T)).@sortByAssociatedKeys(list(timestamp)) -> list(T)", sort_by),
    ("(list(T)).@sortByAssociatedKeys(list(string)) -> list(T)", sort_by),
    ("(list(T)).@sortByAssociatedKeys(list(bytes)) -> list(T)", sort_by),
    ("lists.range(int) -> list(int)", range),
    ("(list(T)).reverse() -> list(T)", reverse),
    ("(list(T)).distinct() -> list(T)", distinct),
];

/// The elements, counted as memory and, when compared, as work.
fn elements<'a>(run: &mut Run<'_, 'a>, list: &List<'a>) -> Result<Vec<Val<'a>>, Error> {
    run.elements(list.len())?;
    list.iter().collect()
}

fn compare(run: &mut Run<'_, '_>, one: &Val<'_>, other: &Val<'_>) -> Result<Ordering, Error> {
    if let (Val::String(a), Val::String(b)) = (one, other) {
        run.work(a.len().min(b.len()) / 16)?;
    }
    one.compare(other).ok_or_else(|| Error::Cel("no such overload".into()))
}

fn is_sorted<'a>(run: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    let [Val::List(list)] = args else { return no_overload() };
    let elements = elements(run, list)?;
    for pair in elements.windows(2) {
        if let [one, other] = pair
            && compare(run, one, other)?.is_gt()
        {
            return Ok(Val::Bool(false));
        }
    }
    Ok(Val::Bool(true))
}

fn sum<'a>(run: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    let [Val::List(list)] = args else { return no_overload() };
    run.work(list.len())?;
    let mut total = None;
    for element in list.iter() {
        let overflow = || Error::Cel("integer overflow".into());
        total = Some(match (total, element?) {
            (None, first @ (Val::Int(_) | Val::Uint(_) | Val::Double(_) | Val::Duration(_))) => first,
            (Some(Val::Int(a)), Val::Int(b)) => Val::Int(a.checked_add(b).ok_or_else(overflow)?),
            (Some(Val::Uint(a)), Val::Uint(b)) => Val::Uint(a.checked_add(b).ok_or_else(overflow)?),
            (Some(Val::Double(a)), Val::Double(b)) => Val::Double(a + b),
            (Some(Val::Duration(a)), Val::Duration(b)) => Val::Duration(a.checked_add(b).ok_or_else(overflow)?),
            _ => return no_overload(),
        });
    }
    Ok(total.unwrap_or(Val::Int(0)))
}

fn extreme<'a>(run: &mut Run<'_, 'a>, args: &[Val<'a>], name: &str, better: Ordering) -> Answer<'a> {
    let [Val::List(list)] = args else { return no_overload() };
    run.work(list.len())?;
    let mut best: Option<Val<'a>> = None;
    for element in list.iter() {
        let element = element?;
        best = match best {
            Some(best) if compare(run, &element, &best)? != better => Some(best),
            _ => Some(element),
        };
    }
    best.map_or_else(|| error(format!("{name} called on empty list")), Ok)
}

fn max<'a>(run: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    extreme(run, args, "max", Ordering::Greater)
}

fn min<'a>(run: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    extreme(run, args, "min", Ordering::Less)
}

fn position<'a>(run: &mut Run<'_, 'a>, args: &[Val<'a>], places: impl Fn(usize) -> Box<dyn Iterator<Item = usize>>) -> Answer<'a> {
    let [Val::List(list), wanted] = args else { return no_overload() };
    for at in places(list.len()) {
        if let Some(element) = list.get(at).transpose()?
            && run.equal(&element, wanted)?
        {
            return Ok(Val::Int(at as i64));
        }
    }
    Ok(Val::Int(-1))
}

fn index_of<'a>(run: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    position(run, args, |count| Box::new(0..count))
}

fn last_index_of<'a>(run: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    position(run, args, |count| Box::new((0..count).rev()))
}

fn slice<'a>(run: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    let [Val::List(list), Val::Int(start), Val::Int(end)] = args else { return no_overload() };
    let (Ok(from), Ok(to)) = (usize::try_from(*start), usize::try_from(*end)) else {
        return error(format!("cannot slice({start}, {end}), negative indexes not supported"));
    };
    if from > to {
        return error(format!("cannot slice({start}, {end}), start index must be less than or equal to end index"));
    }
    if list.len() < to {
        return error(format!("cannot slice({start}, {end}), list is length {}", list.len()));
    }
    run.elements(to - from)?;
    (from..to).filter_map(|at| list.get(at)).collect::<Result<_, _>>().map(Val::list)
}

fn flatten<'a>(run: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    let (list, depth) = match args {
        [Val::List(list)] => (list, 1),
        [Val::List(list), Val::Int(depth)] => (list, *depth),
        _ => return no_overload(),
    };
    if depth < 0 {
        return error("level must be non-negative");
    }
    let mut flat = Vec::new();
    // Lists nest as deep as data and expressions do, which is bounded.
    flatten_into(run, list, depth.min(1000), &mut flat)?;
    Ok(Val::list(flat))
}

fn flatten_into<'a>(run: &mut Run<'_, 'a>, list: &List<'a>, depth: i64, flat: &mut Vec<Val<'a>>) -> Result<(), Error> {
    run.elements(list.len())?;
    for element in list.iter() {
        match element? {
            Val::List(inner) if depth > 0 => flatten_into(run, &inner, depth - 1, flat)?,
            other => flat.push(other),
        }
    }
    Ok(())
}

fn sort<'a>(run: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    let [Val::List(list)] = args else { return no_overload() };
    sorted(run, list, list)
}

fn sort_by<'a>(run: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    let [Val::List(list), Val::List(keys)] = args else { return no_overload() };
    if list.len() != keys.len() {
        let (count, keys) = (list.len(), keys.len());
        return error(format!(
            "@sortByAssociatedKeys() expected a list of the same size as the associated keys list, but got {count} and {keys} elements respectively"
        ));
    }
    sorted(run, list, keys)
}

fn sorted<'a>(run: &mut Run<'_, 'a>, list: &List<'a>, keys: &List<'a>) -> Answer<'a> {
    let (values, keys) = (elements(run, list)?, elements(run, keys)?);
    if let Some(first) = keys.first() {
        if first.compare(first).is_none() && !matches!(first, Val::Double(_)) {
            return error("list elements must be comparable");
        }
        if keys.iter().any(|key| key.type_name() != first.type_name()) {
            return error("list elements must have the same type");
        }
    }
    // Counted before: an order that stopped being one halfway would be none.
    let text = |key: &Val<'_>| if let Val::String(text) = key { text.len() / 16 } else { 0 };
    let one_pass = keys.len() + keys.iter().map(text).sum::<usize>();
    run.work(one_pass.saturating_mul(keys.len().checked_ilog2().unwrap_or(0) as usize + 1))?;
    let mut pairs: Vec<(Val<'a>, Val<'a>)> = keys.into_iter().zip(values).collect();
    // NaN comes first, so that there is an order.
    pairs.sort_by(|(one, _), (other, _)| one.compare(other).unwrap_or_else(|| is_nan(other).cmp(&is_nan(one))));
    Ok(Val::list(pairs.into_iter().map(|(_, value)| value).collect()))
}

fn is_nan(value: &Val<'_>) -> bool {
    matches!(value, Val::Double(value) if value.is_nan())
}

fn range<'a>(run: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    let [Val::Int(count)] = args else { return no_overload() };
    run.elements(usize::try_from((*count).max(0)).unwrap_or(usize::MAX))?;
    Ok(Val::list((0..*count).map(Val::Int).collect()))
}

fn reverse<'a>(run: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    let [Val::List(list)] = args else { return no_overload() };
    let mut elements = elements(run, list)?;
    elements.reverse();
    Ok(Val::list(elements))
}

fn distinct<'a>(run: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    let [Val::List(list)] = args else { return no_overload() };
    let mut kept: Vec<Val<'a>> = Vec::new();
    for element in elements(run, list)? {
        let mut known = false;
        for have in &kept {
            if run.equal(have, &element)? {
                known = true;
                break;
            }
        }
        if !known {
            kept.push(element);
        }
    }
    Ok(Val::list(kept))
}
