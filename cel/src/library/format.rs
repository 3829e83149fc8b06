//! Named formats: `format.dns1123Label().validate(name)`.

use super::{encoding, time, url};
use crate::eval::{Answer, Run, no_overload};
use crate::functions::Library;
use crate::value::{Opaque, Val};
use coracle_api::names;

pub(super) const LIBRARY: Library = &[
    ("format.named(string) -> optional(kubernetes.NamedFormat)", named),
    ("(kubernetes.NamedFormat).validate(string) -> optional(list(string))", validate),
    ("format.dns1123Label() -> kubernetes.NamedFormat", |_, _| constant(0)),
    ("format.dns1123Subdomain() -> kubernetes.NamedFormat", |_, _| constant(1)),
    ("format.dns1035Label() -> kubernetes.NamedFormat", |_, _| constant(2)),
    ("format.qualifiedName() -> kubernetes.NamedFormat", |_, _| constant(3)),
    ("format.dns1123LabelPrefix() -> kubernetes.NamedFormat", |_, _| constant(4)),
    ("format.dns1123SubdomainPrefix() -> kubernetes.NamedFormat", |_, _| constant(5)),
    ("format.dns1035LabelPrefix() -> kubernetes.NamedFormat", |_, _| constant(6)),
    ("format.labelValue() -> kubernetes.NamedFormat", |_, _| constant(7)),
    ("format.uri() -> kubernetes.NamedFormat", |_, _| constant(8)),
    ("format.uuid() -> kubernetes.NamedFormat", |_, _| constant(9)),
    ("format.byte() -> kubernetes.NamedFormat", |_, _| constant(10)),
    ("format.date() -> kubernetes.NamedFormat", |_, _| constant(11)),
    ("format.datetime() -> kubernetes.NamedFormat", |_, _| constant(12)),
];

/// A format of texts.
#[derive(Debug)]
pub struct Format {
    name: &'static str,
    /// What is wrong with a text.
    check: fn(&str) -> Vec<String>,
    /// Length of the pattern that its cost is reckoned by.
    pub(crate) pattern_size: u64,
}

/// In the order of the functions above.
static FORMATS: [Format; 13] = [
    Format { name: "dns1123Label", check: names::dns_label, pattern_size: 30 },
    Format { name: "dns1123Subdomain", check: names::dns_subdomain, pattern_size: 60 },
    Format { name: "dns1035Label", check: names::dns1035_label, pattern_size: 30 },
    Format { name: "qualifiedName", check: names::qualified_name, pattern_size: 60 },
    Format { name: "dns1123LabelPrefix", check: |text| names::dns_label(&completed(text)), pattern_size: 30 },
    Format { name: "dns1123SubdomainPrefix", check: |text| names::dns_subdomain(&completed(text)), pattern_size: 60 },
    Format { name: "dns1035LabelPrefix", check: |text| names::dns1035_label(&completed(text)), pattern_size: 30 },
    Format { name: "labelValue", check: names::label_value, pattern_size: 40 },
    Format { name: "uri", check: |text| url::read(text).err().into_iter().collect(), pattern_size: 2083 },
    Format { name: "uuid", check: |text| unless(is_uuid(text), "does not match the UUID format"), pattern_size: 80 },
    Format { name: "byte", check: |text| unless(encoding::decode(text).is_some(), "invalid base64"), pattern_size: 84 },
    Format { name: "date", check: |text| unless(time::parse_date(text).is_some(), "invalid date"), pattern_size: 110 },
    Format { name: "datetime", check: |text| unless(time::parse_timestamp(text).is_some(), "invalid datetime"), pattern_size: 110 },
];

/// A prefix may end in a dash, since something follows.
fn completed(text: &str) -> String {
    match text.strip_suffix('-') {
        Some(head) if !head.is_empty() => format!("{head}a"),
        _ => text.into(),
    }
}

fn unless(good: bool, why: &str) -> Vec<String> {
    if good { Vec::new() } else { vec![why.into()] }
}

/// 32 hexadecimal digits, with dashes at their places or without.
fn is_uuid(text: &str) -> bool {
    let mut groups = text.as_bytes();
    for (at, digits) in [8, 4, 4, 4, 12].into_iter().enumerate() {
        if at > 0 {
            groups = groups.strip_prefix(b"-").unwrap_or(groups);
        }
        match groups.split_at_checked(digits) {
            Some((group, rest)) if group.iter().all(u8::is_ascii_hexdigit) => groups = rest,
            _ => return false,
        }
    }
    groups.is_empty()
}

fn constant<'a>(at: usize) -> Answer<'a> {
    FORMATS.get(at).map_or_else(no_overload, |format| Ok(Val::opaque(Opaque::Format(format))))
}

fn named<'a>(_: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    let [Val::String(name)] = args else { return no_overload() };
    let found = FORMATS.iter().find(|format| format.name == &**name);
    Ok(found.map_or(Val::Optional(None), |format| Val::some(Val::opaque(Opaque::Format(format)))))
}

fn validate<'a>(run: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    let [format, Val::String(text)] = args else { return no_overload() };
    run.work(text.len())?;
    let Opaque::Format(format) = run.opaque(format)? else { return no_overload() };
    let wrong = (format.check)(text);
    run.allocate(wrong.iter().map(String::len).sum())?;
    Ok(if wrong.is_empty() { Val::Optional(None) } else { Val::some(Val::list(wrong.into_iter().map(Val::text).collect())) })
}
