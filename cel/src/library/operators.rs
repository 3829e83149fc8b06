//! Operators, conversions and the functions of the language itself.

use crate::eval::{Answer, Run, error, no_overload, show_key};
use crate::functions::Library;
use crate::library::{encoding, time};
use crate::types::ListKind;
use crate::value::{Key, List, Opaque, Val};
use std::cmp::Ordering;
use std::rc::Rc;

pub(super) const LIBRARY: Library = &[
    // These four are evaluated in place: not all of their arguments are.
    ("_&&_(bool, bool) -> bool", in_place),
    ("_||_(bool, bool) -> bool", in_place),
    ("_?_:_(bool, T, T) -> T", in_place),
    ("@not_strictly_false(bool) -> bool", in_place),
    ("!_(bool) -> bool", not),
    ("-_(int) -> int", negate),
    ("-_(double) -> double", negate),
    ("_==_(T, T) -> bool", equal),
    ("_!=_(T, T) -> bool", not_equal),
    ("_+_(int, int) -> int", add),
    ("_+_(uint, uint) -> uint", add),
    ("_+_(double, double) -> double", add),
    ("_+_(string, string) -> string", add),
    ("_+_(bytes, bytes) -> bytes", add),
    ("_+_(list(T), list(T)) -> list(T)", add),
    ("_+_(duration, duration) -> duration", add),
    ("_+_(timestamp, duration) -> timestamp", add),
    ("_+_(duration, timestamp) -> timestamp", add),
    ("_-_(int, int) -> int", subtract),
    ("_-_(uint, uint) -> uint", subtract),
    ("_-_(double, double) -> double", subtract),
    ("_-_(duration, duration) -> duration", subtract),
    ("_-_(timestamp, duration) -> timestamp", subtract),
    ("_-_(timestamp, timestamp) -> duration", subtract),
    ("_*_(int, int) -> int", multiply),
    ("_*_(uint, uint) -> uint", multiply),
    ("_*_(double, double) -> double", multiply),
    ("_/_(int, int) -> int", divide),
    ("_/_(uint, uint) -> uint", divide),
    ("_/_(double, double) -> double", divide),
    ("_%_(int, int) -> int", modulo),
    ("_%_(uint, uint) -> uint", modulo),
    ("_<_(bool, bool) -> bool", less),
    ("_<_(int, int) -> bool", less),
    ("_<_(int, double) -> bool", less),
    ("_<_(int, uint) -> bool", less),
    ("_<_(uint, uint) -> bool", less),
    ("_<_(uint, double) -> bool", less),
    ("_<_(uint, int) -> bool", less),
    ("_<_(double, double) -> bool", less),
    ("_<_(double, int) -> bool", less),
    ("_<_(double, uint) -> bool", less),
    ("_<_(string, string) -> bool", less),
    ("_<_(bytes, bytes) -> bool", less),
    ("_<_(timestamp, timestamp) -> bool", less),
    ("_<_(duration, duration) -> bool", less),
    ("_<=_(bool, bool) -> bool", less_or_equal),
    ("_<=_(int, int) -> bool", less_or_equal),
    ("_<=_(int, double) -> bool", less_or_equal),
    ("_<=_(int, uint) -> bool", less_or_equal),
    ("_<=_(uint, uint) -> bool", less_or_equal),
    ("_<=_(uint, double) -> bool", less_or_equal),
    ("_<=_(uint, int) -> bool", less_or_equal),
    ("_<=_(double, double) -> bool", less_or_equal),
    ("_<=_(double, int) -> bool", less_or_equal),
    ("_<=_(double, uint) -> bool", less_or_equal),
    ("_<=_(string, string) -> bool", less_or_equal),
    ("_<=_(bytes, bytes) -> bool", less_or_equal),
    ("_<=_(timestamp, timestamp) -> bool", less_or_equal),
    ("_<=_(duration, duration) -> bool", less_or_equal),
    ("_>_(bool, bool) -> bool", greater),
    ("_>_(int, int) -> bool", greater),
    ("_>_(int, double) -> bool", greater),
    ("_>_(int, uint) -> bool", greater),
    ("_>_(uint, uint) -> bool", greater),
    ("_>_(uint, double) -> bool", greater),
    ("_>_(uint, int) -> bool", greater),
    ("_>_(double, double) -> bool", greater),
    ("_>_(double, int) -> bool", greater),
    ("_>_(double, uint) -> bool", greater),
    ("_>_(string, string) -> bool", greater),
    ("_>_(bytes, bytes) -> bool", greater),
    ("_>_(timestamp, timestamp) -> bool", greater),
    ("_>_(duration, duration) -> bool", greater),
    ("_>=_(bool, bool) -> bool", greater_or_equal),
    ("_>=_(int, int) -> bool", greater_or_equal),
    ("_>=_(int, double) -> bool", greater_or_equal),
    ("_>=_(int, uint) -> bool", greater_or_equal),
    ("_>=_(uint, uint) -> bool", greater_or_equal),
    ("_>=_(uint, double) -> bool", greater_or_equal),
    ("_>=_(uint, int) -> bool", greater_or_equal),
    ("_>=_(double, double) -> bool", greater_or_equal),
    ("_>=_(double, int) -> bool", greater_or_equal),
    ("_>=_(double, uint) -> bool", greater_or_equal),
    ("_>=_(string, string) -> bool", greater_or_equal),
    ("_>=_(bytes, bytes) -> bool", greater_or_equal),
    ("_>=_(timestamp, timestamp) -> bool", greater_or_equal),
    ("_>=_(duration, duration) -> bool", greater_or_equal),
    ("@in(T, list(T)) -> bool", is_in),
    ("@in(K, map(K, V)) -> bool", is_in),
    ("_[_](list(T), int) -> T", index),
    ("_[_](map(K, V), K) -> V", index),
    ("_[_](optional(list(T)), int) -> optional(T)", optional_index),
    ("_[_](optional(map(K, V)), K) -> optional(V)", optional_index),
    ("_[?_](list(T), int) -> optional(T)", optional_index),
    ("_[?_](map(K, V), K) -> optional(V)", optional_index),
    ("_[?_](optional(list(T)), int) -> optional(T)", optional_index),
    ("_[?_](optional(map(K, V)), K) -> optional(V)", optional_index),
    ("cel.@mapInsert(map(K, V), map(K, V)) -> map(K, V)", in_place),
    ("cel.@mapInsert(map(K, V), K, V) -> map(K, V)", in_place),
    ("size(string) -> int", size),
    ("size(bytes) -> int", size),
    ("size(list(T)) -> int", size),
    ("size(map(K, V)) -> int", size),
    ("(string).size() -> int", size),
    ("(bytes).size() -> int", size),
    ("(list(T)).size() -> int", size),
    ("(map(K, V)).size() -> int", size),
    ("type(T) -> type", type_of),
    ("dyn(T) -> dyn", same),
    ("bool(bool) -> bool", same),
    ("bool(string) -> bool", to_bool),
    ("bytes(bytes) -> bytes", same),
    ("bytes(string) -> bytes", to_bytes),
    ("double(double) -> double", same),
    ("double(int) -> double", to_double),
    ("double(string) -> double", to_double),
    ("double(uint) -> double", to_double),
    ("int(int) -> int", same),
    ("int(double) -> int", to_int),
    ("int(duration) -> int", to_int),
    ("int(string) -> int", to_int),
    ("int(timestamp) -> int", to_int),
    ("int(uint) -> int", to_int),
    ("uint(uint) -> uint", same),
    ("uint(double) -> uint", to_uint),
    ("uint(int) -> uint", to_uint),
    ("uint(string) -> uint", to_uint),
    ("string(string) -> string", same),
    ("string(bool) -> string", to_string),
    ("string(bytes) -> string", to_string),
    ("string(double) -> string", to_string),
    ("string(duration) -> string", to_string),
    ("string(int) -> string", to_string),
    ("string(timestamp) -> string", to_string),
    ("string(uint) -> string", to_string),
    ("string(net.IP) -> string", to_string),
    ("string(net.CIDR) -> string", to_string),
];

fn in_place<'a>(_: &mut Run<'_, 'a>, _: &[Val<'a>]) -> Answer<'a> {
    no_overload()
}

fn same<'a>(_: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    args.first().cloned().map_or_else(no_overload, Ok)
}

fn not<'a>(_: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    match args {
        [Val::Bool(value)] => Ok(Val::Bool(!value)),
        _ => no_overload(),
    }
}

fn negate<'a>(_: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    match args {
        [Val::Int(value)] => value.checked_neg().map(Val::Int).map_or_else(|| error("integer overflow"), Ok),
        [Val::Double(value)] => Ok(Val::Double(-value)),
        _ => no_overload(),
    }
}

fn equal<'a>(run: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    match args {
        [one, other] => run.equal(one, other).map(Val::Bool),
        _ => no_overload(),
    }
}

fn not_equal<'a>(run: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    match args {
        [one, other] => run.equal(one, other).map(|equal| Val::Bool(!equal)),
        _ => no_overload(),
    }
}

fn int<'a>(value: Option<i64>) -> Answer<'a> {
    value.map(Val::Int).map_or_else(|| error("integer overflow"), Ok)
}

fn uint<'a>(value: Option<u64>) -> Answer<'a> {
    value.map(Val::Uint).map_or_else(|| error("unsigned integer overflow"), Ok)
}

fn add<'a>(run: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    match args {
        [Val::Int(a), Val::Int(b)] => int(a.checked_add(*b)),
        [Val::Uint(a), Val::Uint(b)] => uint(a.checked_add(*b)),
        [Val::Double(a), Val::Double(b)] => Ok(Val::Double(a + b)),
        [Val::String(a), Val::String(b)] => {
            run.allocate(a.len() + b.len())?;
            Ok(Val::text([&**a, &**b].concat()))
        }
        [Val::Bytes(a), Val::Bytes(b)] => {
            run.allocate(a.len() + b.len())?;
            Ok(Val::Bytes([&**a, &**b].concat().into()))
        }
        [Val::List(a), Val::List(b)] => add_lists(run, a, b),
        [Val::Duration(a), Val::Duration(b)] => duration(a.checked_add(*b)),
        [Val::Timestamp(at), Val::Duration(by)] | [Val::Duration(by), Val::Timestamp(at)] => time::shift(*at, i128::from(*by)),
        _ => no_overload(),
    }
}

/// Lists that are sets are united; of lists that are maps the second one's entries replace the first one's.
fn add_lists<'a>(run: &mut Run<'_, 'a>, one: &List<'a>, other: &List<'a>) -> Answer<'a> {
    run.elements(one.len() + other.len())?;
    let mut elements = one.iter().collect::<Result<Vec<_>, _>>()?;
    let kind = one.kind();
    for element in other.iter() {
        let element = element?;
        match kind {
            ListKind::Atomic => {}
            ListKind::Set => {
                let mut known = false;
                for have in &elements {
                    known = known || run.equal(have, &element)?;
                }
                if known {
                    continue;
                }
            }
            ListKind::Map(keys) => {
                let mut place = None;
                for (at, have) in elements.iter().enumerate() {
                    if run.same_entry(keys, have, &element)? {
                        place = Some(at);
                        break;
                    }
                }
                if let Some(have) = place.and_then(|at| elements.get_mut(at)) {
                    *have = element;
                    continue;
                }
            }
        }
        elements.push(element);
    }
    Ok(Val::List(List::Own(Rc::new(elements), if *kind == ListKind::Atomic { None } else { one.decl() })))
}

fn duration<'a>(nanos: Option<i64>) -> Answer<'a> {
    nanos.map(Val::Duration).map_or_else(|| error("integer overflow"), Ok)
}

fn subtract<'a>(_: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    match args {
        [Val::Int(a), Val::Int(b)] => int(a.checked_sub(*b)),
        [Val::Uint(a), Val::Uint(b)] => uint(a.checked_sub(*b)),
        [Val::Double(a), Val::Double(b)] => Ok(Val::Double(a - b)),
        [Val::Duration(a), Val::Duration(b)] => duration(a.checked_sub(*b)),
        [Val::Timestamp(at), Val::Duration(by)] => time::shift(*at, -i128::from(*by)),
        [Val::Timestamp(a), Val::Timestamp(b)] => duration(i64::try_from(a.as_nanosecond() - b.as_nanosecond()).ok()),
        _ => no_overload(),
    }
}

fn multiply<'a>(_: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    match args {
        [Val::Int(a), Val::Int(b)] => int(a.checked_mul(*b)),
        [Val::Uint(a), Val::Uint(b)] => uint(a.checked_mul(*b)),
        [Val::Double(a), Val::Double(b)] => Ok(Val::Double(a * b)),
        _ => no_overload(),
    }
}

fn divide<'a>(_: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    match args {
        [Val::Int(_), Val::Int(0)] | [Val::Uint(_), Val::Uint(0)] => error("division by zero"),
        [Val::Int(a), Val::Int(b)] => int(a.checked_div(*b)),
        [Val::Uint(a), Val::Uint(b)] => uint(a.checked_div(*b)),
        [Val::Double(a), Val::Double(b)] => Ok(Val::Double(a / b)),
        _ => no_overload(),
    }
}

fn modulo<'a>(_: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    match args {
        [Val::Int(_), Val::Int(0)] | [Val::Uint(_), Val::Uint(0)] => error("modulus by zero"),
        [Val::Int(a), Val::Int(b)] => int(a.checked_rem(*b)),
        [Val::Uint(a), Val::Uint(b)] => uint(a.checked_rem(*b)),
        _ => no_overload(),
    }
}

/// Compares; false for NaN whatever is asked.
fn ordered<'a>(run: &mut Run<'_, 'a>, args: &[Val<'a>], wanted: fn(Ordering) -> bool) -> Answer<'a> {
    match args {
        [one, other] => {
            if let (Val::String(a), Val::String(b)) = (one, other) {
                run.work(a.len().min(b.len()) / 16)?;
            }
            match one.compare(other) {
                Some(order) => Ok(Val::Bool(wanted(order))),
                None if matches!((one, other), (Val::Double(_), _) | (_, Val::Double(_))) => Ok(Val::Bool(false)),
                None => no_overload(),
            }
        }
        _ => no_overload(),
    }
}

fn less<'a>(run: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    ordered(run, args, Ordering::is_lt)
}

fn less_or_equal<'a>(run: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    ordered(run, args, Ordering::is_le)
}

fn greater<'a>(run: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    ordered(run, args, Ordering::is_gt)
}

fn greater_or_equal<'a>(run: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    ordered(run, args, Ordering::is_ge)
}

fn is_in<'a>(run: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    match args {
        [value, Val::List(list)] => run.contains(list, value).map(Val::Bool),
        [key, Val::Map(map)] => Ok(Val::Bool(key.key().is_some_and(|key| map.get(&key).is_some()))),
        _ => no_overload(),
    }
}

/// The element, or why there is none.
fn element<'a>(container: &Val<'a>, at: &Val<'a>) -> Result<Answer<'a>, String> {
    match container {
        Val::List(list) => {
            let Some(Key::Int(_) | Key::Uint(_)) = at.key() else {
                return Err(format!("unsupported index type '{}' in list", at.type_name()));
            };
            let place = match at {
                Val::Int(at) => usize::try_from(*at).ok(),
                Val::Uint(at) => usize::try_from(*at).ok(),
                Val::Double(at) if *at >= 0.0 => Some(*at as usize),
                _ => None,
            };
            let shown = at.key().map(|key| show_key(&key)).unwrap_or_default();
            place.and_then(|place| list.get(place)).ok_or_else(|| format!("index out of bounds: {shown}"))
        }
        Val::Map(map) => match at.key() {
            Some(key) => map.get(&key).ok_or_else(|| format!("no such key: {}", show_key(&key))),
            None => Err(format!("unsupported key type: {}", at.type_name())),
        },
        _ => Err("no such overload".into()),
    }
}

fn index<'a>(_: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    match args {
        [container, at] => element(container, at).unwrap_or_else(error),
        _ => no_overload(),
    }
}

fn optional_index<'a>(_: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    let (container, at) = match args {
        [Val::Optional(None), _] => return Ok(Val::Optional(None)),
        [Val::Optional(Some(container)), at] => ((**container).clone(), at),
        [container, at] => (container.clone(), at),
        _ => return no_overload(),
    };
    match element(&container, at) {
        Ok(found) => found.map(Val::some),
        Err(_) if matches!(container, Val::List(_) | Val::Map(_)) => Ok(Val::Optional(None)),
        Err(why) => error(why),
    }
}

fn size<'a>(run: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    match args {
        [Val::String(text)] => {
            run.read(text)?;
            Ok(Val::Int(text.chars().count() as i64))
        }
        [value @ (Val::Bytes(_) | Val::List(_) | Val::Map(_))] => Ok(Val::Int(value.size() as i64)),
        _ => no_overload(),
    }
}

fn type_of<'a>(_: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    match args {
        [value] => Ok(Val::Type(value.type_name().into())),
        _ => no_overload(),
    }
}

fn to_bool<'a>(_: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    match args {
        [Val::String(text)] => match &**text {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Val::Bool(true)),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Val::Bool(false)),
            _ => error("type conversion error from 'string' to 'bool'"),
        },
        _ => no_overload(),
    }
}

fn to_bytes<'a>(run: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    match args {
        [Val::String(text)] => {
            run.allocate(text.len())?;
            Ok(Val::Bytes(text.as_bytes().into()))
        }
        _ => no_overload(),
    }
}

fn to_double<'a>(_: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    match args {
        [Val::Int(value)] => Ok(Val::Double(*value as f64)),
        [Val::Uint(value)] => Ok(Val::Double(*value as f64)),
        [Val::String(text)] => match text.parse() {
            Ok(value) => Ok(Val::Double(value)),
            Err(_) => error("type conversion error from 'string' to 'double'"),
        },
        _ => no_overload(),
    }
}

fn to_int<'a>(_: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    match args {
        [Val::Double(value)] if value.is_finite() && value.abs() < 9.223_372_036_854_776e18 => Ok(Val::Int(*value as i64)),
        [Val::Double(_)] => error("integer overflow"),
        [Val::Duration(nanos)] => Ok(Val::Int(*nanos)),
        [Val::String(text)] => match text.parse() {
            Ok(value) => Ok(Val::Int(value)),
            Err(_) => error("type conversion error from 'string' to 'int'"),
        },
        [Val::Timestamp(at)] => Ok(Val::Int(at.as_second())),
        [Val::Uint(value)] => int(i64::try_from(*value).ok()),
        _ => no_overload(),
    }
}

fn to_uint<'a>(_: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    match args {
        [Val::Double(value)] if *value >= 0.0 && *value < 1.844_674_407_370_955_2e19 => Ok(Val::Uint(*value as u64)),
        [Val::Double(_)] => error("unsigned integer overflow"),
        [Val::Int(value)] => uint(u64::try_from(*value).ok()),
        [Val::String(text)] => match text.parse() {
            Ok(value) => Ok(Val::Uint(value)),
            Err(_) => error("type conversion error from 'string' to 'uint'"),
        },
        _ => no_overload(),
    }
}

fn to_string<'a>(run: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    Ok(match args {
        [Val::Bool(value)] => Val::text(value.to_string()),
        [Val::Int(value)] => Val::text(value.to_string()),
        [Val::Uint(value)] => Val::text(value.to_string()),
        [Val::Double(value)] => Val::text(encoding::shortest(*value)),
        [Val::Duration(nanos)] => Val::text(time::format_duration(*nanos)),
        [Val::Timestamp(at)] => Val::text(time::format_timestamp(*at)),
        [Val::Bytes(bytes)] => {
            run.allocate(bytes.len())?;
            match std::str::from_utf8(bytes) {
                Ok(text) => Val::text(text),
                Err(_) => return error("invalid UTF-8 in bytes, cannot convert to string"),
            }
        }
        [Val::Opaque(opaque)] => match &**opaque {
            Opaque::Ip(ip) => Val::text(ip.to_string()),
            Opaque::Cidr(cidr) => Val::text(cidr.to_string()),
            _ => return no_overload(),
        },
        _ => return no_overload(),
    })
}
