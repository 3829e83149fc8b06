//! The first line and the headers of a request.

use crate::text;
use coracle_apiserver::{
    http::{
        accept::{Offer, negotiate},
        route::{Route, parse, query},
    },
    pipeline::list::Token,
};

/// A part of a path or query with everything escaped.
fn escaped(part: &str) -> String {
    part.bytes().map(|byte| format!("%{byte:02x}")).collect()
}

pub fn paths(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let Some(Route::Resource(target)) = parse(text) else { return };
    let mut path = if target.group.is_empty() { "/api".to_owned() } else { format!("/apis/{}", escaped(&target.group)) };
    let mut add = |part: &str| {
        if !part.is_empty() {
            path = format!("{path}/{part}");
        }
    };
    add(&escaped(&target.version));
    add(if target.watch { "watch" } else { "" });
    if !target.namespace.is_empty() {
        add("namespaces");
        add(&escaped(&target.namespace));
    }
    for part in [&target.resource, &target.name, &target.subresource] {
        add(&escaped(part));
    }
    add(&target.rest);
    assert_eq!(parse(&path), Some(Route::Resource(target)), "{path}");
}

/// A query; each of its values as continue token and Accept header as well.
pub fn queries(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let pairs = query(text);
    let written: Vec<String> = pairs.iter().map(|(key, value)| format!("{}={}", escaped(key), escaped(value))).collect();
    assert_eq!(query(&written.join("&")), pairs);
    for value in pairs.iter().map(|(_, value)| value.as_str()).chain([text]) {
        if let Ok(token) = Token::read(value, None) {
            assert_eq!(Token::read(&token.write(), Some(&token.namespace)), Ok(token));
        }
        let _ = (negotiate(Some(value), Offer { protobuf: true, shapes: true }), negotiate(Some(value), Offer::PLAIN));
    }
}
