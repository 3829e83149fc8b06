//! A token among the protocols of a WebSocket: pages in a browser can set no other header (upstream's `authentication/request/websocket`).

use super::upgrade;
use crate::nodes::streams::negotiate::listed;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderMap, HeaderValue, header};

const PREFIX: &str = "base64url.bearer.authorization.k8s.io.";
/// Stands for a token that does not hold, so that nobody becomes anonymous by it.
const NONE: HeaderValue = HeaderValue::from_static("none");

/// Moves the token to where others have it; the other protocols stay. There must be one of them, to be answered with.
pub fn moved(headers: &mut HeaderMap) {
    let words = listed(headers, header::SEC_WEBSOCKET_PROTOCOL);
    let (tokens, others): (Vec<&str>, Vec<&str>) = words.into_iter().partition(|word| word.starts_with(PREFIX));
    let token = match (&tokens[..], &others[..]) {
        ([], _) => return,
        ([token], [_, ..]) => credentials(token.trim_start_matches(PREFIX)),
        _ => None,
    };
    if !upgrade::wanted(headers).is_some_and(|to| upgrade::is_websocket(&to)) {
        return;
    }
    let others = HeaderValue::from_str(&others.join(", ")).ok().filter(|others| !others.is_empty());
    headers.entry(header::AUTHORIZATION).or_insert(token.unwrap_or(NONE));
    match others {
        Some(others) => headers.insert(header::SEC_WEBSOCKET_PROTOCOL, others),
        None => headers.remove(header::SEC_WEBSOCKET_PROTOCOL),
    };
}

fn credentials(encoded: &str) -> Option<HeaderValue> {
    let token = String::from_utf8(URL_SAFE_NO_PAD.decode(encoded).ok()?).ok()?;
    let mut value = HeaderValue::from_str(&format!("Bearer {token}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The authorization and the protocols that come of headers.
    fn after(pairs: &[(&'static str, &'static str)]) -> (String, String) {
        let mut headers = HeaderMap::new();
        for (name, value) in [("connection", "Upgrade"), ("upgrade", "WebSocket")].iter().chain(pairs) {
            headers.append(*name, HeaderValue::from_static(value));
        }
        moved(&mut headers);
        let text = |name| listed(&headers, name).join(", ");
        (text(header::AUTHORIZATION), text(header::SEC_WEBSOCKET_PROTOCOL))
    }

    #[test]
    fn a_token_is_a_protocol() {
        const GOOD: &str = "base64url.bearer.authorization.k8s.io.YS5iLmM, v4.channel.k8s.io";
        let with = |protocols| after(&[("sec-websocket-protocol", protocols)]);
        let of = |authorization: &str, protocols: &str| (authorization.to_owned(), protocols.to_owned());
        assert_eq!(with(GOOD), of("Bearer a.b.c", "v4.channel.k8s.io"));
        assert_eq!(after(&[("sec-websocket-protocol", "x"), ("sec-websocket-protocol", GOOD)]), of("Bearer a.b.c", "x, v4.channel.k8s.io"));
        assert_eq!(with("x, y"), of("", "x, y"));
        assert_eq!(after(&[("authorization", "Bearer x"), ("sec-websocket-protocol", GOOD)]), of("Bearer x", "v4.channel.k8s.io"));
        // Alone, twice, no base64, no text.
        for bad in [
            "base64url.bearer.authorization.k8s.io.YS5iLmM",
            "base64url.bearer.authorization.k8s.io.YS5iLmM, base64url.bearer.authorization.k8s.io.YS5iLmM, x",
            "base64url.bearer.authorization.k8s.io.Y, x",
            "base64url.bearer.authorization.k8s.io.__8, x",
        ] {
            assert_eq!(with(bad).0, "none", "{bad}");
        }
        let mut other = HeaderMap::from_iter([(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(GOOD))]);
        moved(&mut other);
        assert!(!other.contains_key(header::AUTHORIZATION), "no WebSocket is wanted");
    }
}
