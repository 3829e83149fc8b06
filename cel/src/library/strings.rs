//! Text. Places and lengths count characters.

use crate::eval::{Answer, Run, error, no_overload};
use crate::functions::Library;
use crate::value::Val;

pub(super) const LIBRARY: Library = &[
    ("(string).contains(string) -> bool", contains),
    ("(string).startsWith(string) -> bool", starts_with),
    ("(string).endsWith(string) -> bool", ends_with),
    ("(string).charAt(int) -> string", char_at),
    ("(string).indexOf(string) -> int", index_of),
    ("(string).indexOf(string, int) -> int", index_of),
    ("(string).lastIndexOf(string) -> int", last_index_of),
    ("(string).lastIndexOf(string, int) -> int", last_index_of),
    ("(string).lowerAscii() -> string", lower),
    ("(string).upperAscii() -> string", upper),
    ("(string).trim() -> string", trim),
    ("(string).replace(string, string) -> string", replace),
    ("(string).replace(string, string, int) -> string", replace),
    ("(string).split(string) -> list(string)", split),
    ("(string).split(string, int) -> list(string)", split),
    ("(string).substring(int) -> string", substring),
    ("(string).substring(int, int) -> string", substring),
    ("(list(string)).join() -> string", join),
    ("(list(string)).join(string) -> string", join),
    ("strings.quote(string) -> string", quote),
];

/// Whether searching for `part` in `text` is worth its work.
fn searching(run: &mut Run<'_, '_>, text: &str, part: &str) -> Result<(), crate::eval::Error> {
    // The standard library searches in linear time.
    run.work((text.len() + part.len()) / 8)
}

fn contains<'a>(run: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    match args {
        [Val::String(text), Val::String(part)] => {
            searching(run, text, part)?;
            Ok(Val::Bool(text.contains(&**part)))
        }
        _ => no_overload(),
    }
}

fn starts_with<'a>(run: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    match args {
        [Val::String(text), Val::String(part)] => {
            run.read(part)?;
            Ok(Val::Bool(text.starts_with(&**part)))
        }
        _ => no_overload(),
    }
}

fn ends_with<'a>(run: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    match args {
        [Val::String(text), Val::String(part)] => {
            run.read(part)?;
            Ok(Val::Bool(text.ends_with(&**part)))
        }
        _ => no_overload(),
    }
}

/// Byte offset of a character, the end included.
fn offset(text: &str, at: i64) -> Option<usize> {
    let at = usize::try_from(at).ok()?;
    text.char_indices().map(|(offset, _)| offset).chain([text.len()]).nth(at)
}

fn char_at<'a>(run: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    let [Val::String(text), Val::Int(at)] = args else { return no_overload() };
    run.read(text)?;
    match offset(text, *at).and_then(|from| text.get(from..)) {
        Some(rest) => Ok(Val::text(rest.chars().next().map(String::from).unwrap_or_default())),
        None => error(format!("index out of range: {at}")),
    }
}

fn index_of<'a>(run: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    let (text, part, from) = match args {
        [Val::String(text), Val::String(part)] => (text, part, 0),
        [Val::String(text), Val::String(part), Val::Int(from)] => (text, part, *from),
        _ => return no_overload(),
    };
    searching(run, text, part)?;
    if part.is_empty() {
        return Ok(Val::Int(from));
    }
    let Some(start) = offset(text, from) else {
        return if from < 0 { error(format!("index out of range: {from}")) } else { Ok(Val::Int(-1)) };
    };
    let found = text.get(start..).and_then(|rest| rest.find(&**part)).and_then(|at| text.get(..start + at));
    Ok(Val::Int(found.map_or(-1, |before| before.chars().count() as i64)))
}

fn last_index_of<'a>(run: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    let (text, part, from) = match args {
        [Val::String(text), Val::String(part)] => (text, part, None),
        [Val::String(text), Val::String(part), Val::Int(from)] => (text, part, Some(*from)),
        _ => return no_overload(),
    };
    searching(run, text, part)?;
    // The last place where it may begin.
    let end = match from {
        None => text.len(),
        Some(from) if from < 0 => return error(format!("index out of range: {from}")),
        Some(from) => match offset(text, from) {
            Some(start) => (start + part.len()).min(text.len()),
            None => return if part.is_empty() { Ok(Val::Int(from)) } else { Ok(Val::Int(-1)) },
        },
    };
    if part.is_empty() {
        return Ok(Val::Int(from.unwrap_or(text.chars().count() as i64)));
    }
    let end = (0..=end).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    let found = text.get(..end).and_then(|head| head.rfind(&**part)).and_then(|at| text.get(..at));
    Ok(Val::Int(found.map_or(-1, |before| before.chars().count() as i64)))
}

fn mapped<'a>(run: &mut Run<'_, 'a>, args: &[Val<'a>], change: fn(&str) -> String) -> Answer<'a> {
    let [Val::String(text)] = args else { return no_overload() };
    run.allocate(text.len())?;
    Ok(Val::text(change(text)))
}

fn lower<'a>(run: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    mapped(run, args, str::to_ascii_lowercase)
}

fn upper<'a>(run: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    mapped(run, args, str::to_ascii_uppercase)
}

fn trim<'a>(run: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    mapped(run, args, |text| text.trim().to_string())
}

fn replace<'a>(run: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    let (text, old, new, most) = match args {
        [Val::String(text), Val::String(old), Val::String(new)] => (text, old, new, -1),
        [Val::String(text), Val::String(old), Val::String(new), Val::Int(most)] => (text, old, new, *most),
        _ => return no_overload(),
    };
    searching(run, text, old)?;
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    // Counted before it is made: an empty `old` is everywhere.
    let count = text.matches(&**old).take(most).count();
    run.allocate(text.len().saturating_add(count.saturating_mul(new.len())))?;
    Ok(Val::text(text.replacen(&**old, new, count)))
}

fn split<'a>(run: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    let (text, separator, most) = match args {
        [Val::String(text), Val::String(separator)] => (text, separator, -1),
        [Val::String(text), Val::String(separator), Val::Int(most)] => (text, separator, *most),
        _ => return no_overload(),
    };
    searching(run, text, separator)?;
    let most = match most {
        0 => return Ok(Val::list(Vec::new())),
        most => usize::try_from(most).unwrap_or(usize::MAX),
    };
    let mut parts = Vec::new();
    let mut push = |run: &mut Run<'_, 'a>, part: &str| {
        run.allocate(64 + part.len())?;
        parts.push(Val::text(part));
        Ok(())
    };
    if separator.is_empty() {
        // Every character for itself, and no empty text before or behind.
        for (count, (at, c)) in text.char_indices().enumerate() {
            if count + 1 == most {
                push(run, text.get(at..).unwrap_or_default())?;
                break;
            }
            push(run, text.get(at..at + c.len_utf8()).unwrap_or_default())?;
        }
    } else {
        for part in text.splitn(most, &**separator) {
            push(run, part)?;
        }
    }
    Ok(Val::list(parts))
}

fn substring<'a>(run: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    let (text, from, to) = match args {
        [Val::String(text), Val::Int(from)] => (text, *from, None),
        [Val::String(text), Val::Int(from), Val::Int(to)] => (text, *from, Some(*to)),
        _ => return no_overload(),
    };
    if let Some(to) = to.filter(|to| from > *to) {
        return error(format!("invalid substring range. start: {from}, end: {to}"));
    }
    run.allocate(text.len())?;
    let Some(start) = offset(text, from) else { return error(format!("index out of range: {from}")) };
    let end = match to {
        None => text.len(),
        Some(to) => match offset(text, to) {
            Some(end) => end,
            None => return error(format!("index out of range: {to}")),
        },
    };
    Ok(Val::text(text.get(start..end).unwrap_or_default()))
}

fn join<'a>(run: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    let (list, separator): (_, &str) = match args {
        [Val::List(list)] => (list, ""),
        [Val::List(list), Val::String(separator)] => (list, separator),
        _ => return no_overload(),
    };
    let mut joined = String::new();
    for (at, element) in list.iter().enumerate() {
        let Val::String(text) = element? else { return error("join: invalid input: list elements must be strings") };
        run.allocate(text.len() + separator.len())?;
        if at > 0 {
            joined.push_str(separator);
        }
        joined.push_str(&text);
    }
    Ok(Val::text(joined))
}

fn quote<'a>(run: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    let [Val::String(text)] = args else { return no_overload() };
    run.allocate(text.len() * 2 + 2)?;
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '\u{7}' => quoted.push_str("\\a"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{c}' => quoted.push_str("\\f"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\u{b}' => quoted.push_str("\\v"),
            '\\' => quoted.push_str("\\\\"),
            '"' => quoted.push_str("\\\""),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    Ok(Val::text(quoted))
}
