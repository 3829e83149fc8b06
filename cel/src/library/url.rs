//! URLs, as Go's `net/url` reads them.

use crate::eval::{Answer, Run, error, no_overload};
use crate::functions::Library;
use crate::value::{Key, Map, Opaque, Text, Val};
use std::collections::BTreeMap;
use std::rc::Rc;

pub(super) const LIBRARY: Library = &[
    ("url(string) -> kubernetes.URL", parse),
    ("isURL(string) -> bool", is_url),
    ("(kubernetes.URL).getScheme() -> string", scheme),
    ("(kubernetes.URL).getHost() -> string", host),
    ("(kubernetes.URL).getHostname() -> string", hostname),
    ("(kubernetes.URL).getPort() -> string", port),
    ("(kubernetes.URL).getEscapedPath() -> string", path),
    ("(kubernetes.URL).getQuery() -> map(string, list(string))", query),
];

/// The parts of a URL that expressions can ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Url {
    scheme: String,
    user: String,
    host: String,
    /// Path of a URL without `//`, such as `mailto:a@b`.
    opaque: String,
    path: String,
    query: String,
    fragment: String,
}

/// Reads an absolute URL or an absolute path (`ParseRequestURI`).
pub(crate) fn read(text: &str) -> Result<Url, String> {
    parse_parts(text).map_err(|why| format!("parse {text:?}: {why}"))
}

fn parse_parts(text: &str) -> Result<Url, String> {
    if text.bytes().any(|c| c < 0x20 || c == 0x7f) {
        return Err("net/url: invalid control character in URL".into());
    }
    if text.is_empty() {
        return Err("empty url".into());
    }
    let mut url = Url::default();
    let (scheme, rest) = split_scheme(text)?;
    url.scheme = scheme.to_ascii_lowercase();
    let (rest, fragment) = rest.split_once('#').unwrap_or((rest, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    (url.query, url.fragment) = (query.into(), unescape(fragment)?);
    if !rest.starts_with('/') {
        if url.scheme.is_empty() {
            return Err("invalid URI for request".into());
        }
        url.opaque = rest.into();
        return Ok(url);
    }
    let mut path = rest;
    if !url.scheme.is_empty()
        && let Some(rest) = rest.strip_prefix("//")
    {
        let end = rest.find('/').unwrap_or(rest.len());
        let (authority, after) = rest.split_at(end);
        let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
        (url.user, url.host, path) = (user.into(), read_host(host)?, after);
    }
    unescape(path)?;
    url.path = path.into();
    Ok(url)
}

fn split_scheme(text: &str) -> Result<(&str, &str), String> {
    for (at, c) in text.char_indices() {
        match c {
            'a'..='z' | 'A'..='Z' => {}
            '0'..='9' | '+' | '-' | '.' if at > 0 => {}
            ':' if at == 0 => return Err("missing protocol scheme".into()),
            ':' => return Ok((text.get(..at).unwrap_or_default(), text.get(at + 1..).unwrap_or_default())),
            _ => break,
        }
    }
    Ok(("", text))
}

fn read_host(host: &str) -> Result<String, String> {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => {
            let (inner, port) = rest.rsplit_once(']').ok_or("missing ']' in host")?;
            (inner, port)
        }
        None => host.find(':').map_or((host, ""), |at| host.split_at(at)),
    };
    if !port.is_empty() && !port.strip_prefix(':').is_some_and(|port| port.bytes().all(|c| c.is_ascii_digit())) {
        return Err(format!("invalid port {port:?} after host"));
    }
    if let Some(bad) = name.chars().find(|c| matches!(c, ' ' | '"' | '<' | '>' | '\\' | '^' | '`' | '{' | '|' | '}')) {
        return Err(format!("invalid character {:?} in host name", bad.to_string()));
    }
    unescape(host)
}

fn unescape(text: &str) -> Result<String, String> {
    if !text.contains('%') {
        return Ok(text.into());
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let digits =
            after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok()).filter(|digits| digits.bytes().all(|c| c.is_ascii_hexdigit()));
        let Some(byte) = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) else {
            let shown = String::from_utf8_lossy(after.get(..2).unwrap_or(after));
            return Err(format!("invalid URL escape \"%{shown}\""));
        };
        bytes.push(byte);
        rest = after.get(2..).unwrap_or_default();
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn parse<'a>(run: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    let [Val::String(text)] = args else { return no_overload() };
    run.allocate(text.len() * 2)?;
    match read(text) {
        Ok(url) => Ok(Val::opaque(Opaque::Url(url))),
        Err(why) => error(format!("URL parse error during conversion from string: {why}")),
    }
}

fn is_url<'a>(run: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    let [Val::String(text)] = args else { return no_overload() };
    run.allocate(text.len() * 2)?;
    Ok(Val::Bool(read(text).is_ok()))
}

fn with<'a>(run: &mut Run<'_, 'a>, args: &[Val<'a>], part: impl Fn(&Url) -> String) -> Answer<'a> {
    let [value] = args else { return no_overload() };
    match run.opaque(value)? {
        Opaque::Url(url) => Ok(Val::text(part(url))),
        _ => no_overload(),
    }
}

fn scheme<'a>(run: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    with(run, args, |url| url.scheme.clone())
}

fn host<'a>(run: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    with(run, args, |url| url.host.clone())
}

/// Name and port of a host, the name without brackets.
fn host_parts(host: &str) -> (&str, &str) {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|c| c.is_ascii_digit()) && (!name.contains(':') || name.ends_with(']')) => (name, port),
        _ => (host, ""),
    };
    (name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name), port)
}

fn hostname<'a>(run: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    with(run, args, |url| host_parts(&url.host).0.into())
}

fn port<'a>(run: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    with(run, args, |url| host_parts(&url.host).1.into())
}

/// As it was written, with what must be escaped escaped.
fn path<'a>(run: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    with(run, args, |url| {
        let escape = |c: char| match c {
            ' ' | '"' | '<' | '>' | '\\' | '^' | '`' | '{' | '|' | '}' | '\u{80}'.. => {
                c.to_string().bytes().map(|byte| format!("%{byte:02X}")).collect()
            }
            c => c.to_string(),
        };
        url.path.chars().map(escape).collect()
    })
}

fn query<'a>(run: &mut Run<'_, 'a>, args: &[Val<'a>]) -> Answer<'a> {
    let [value] = args else { return no_overload() };
    let Opaque::Url(url) = run.opaque(value)? else { return no_overload() };
    run.entries(url.query.split('&').count())?;
    let mut map: BTreeMap<String, Vec<Val<'a>>> = BTreeMap::new();
    for pair in url.query.split('&').filter(|pair| !pair.is_empty() && !pair.contains(';')) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let plain = |text: &str| unescape(&text.replace('+', " "));
        if let (Ok(key), Ok(value)) = (plain(key), plain(value)) {
            map.entry(key).or_default().push(Val::text(value));
        }
    }
    let map = map.into_iter().map(|(key, values)| (Key::String(Text::Shared(key.into())), Val::list(values))).collect();
    Ok(Val::Map(Map::Own(Rc::new(map))))
}
