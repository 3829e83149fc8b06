//! Base64, numbers as Go writes them, and keys of JSON patches.

use crate::eval::{Answer, Run, no_overload};
use crate::functions::Library;
use crate::value::Val;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

pub(super) const LIBRARY: Library = &[("jsonpatch.escapeKey(string) -> string", escape_key)];

pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}

pub(crate) fn encode(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// The shortest decimal that reads back as the number, with an exponent where Go's `%g` has one.
pub(crate) fn shortest(value: f64) -> String {
    if value.is_nan() {
        return "NaN".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.into();
    }
    if value != 0.0 && !(1e-4..1e21).contains(&value.abs()) {
        let text = format!("{value:e}");
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, digits) = match exponent.strip_prefix('-') {
            Some(digits) => ('-', digits),
            None => ('+', exponent),
        };
        return format!("{mantissa}e{sign}{digits:0>2}");
    }
    value.to_string()
}

fn escape_key<'a>(run: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    match args {
        [Val::String(key)] => {
            run.allocate(key.len() * 2)?;
            Ok(Val::text(key.replace('~', "~0").replace('/', "~1")))
        }
        _ => no_overload(),
    }
}
