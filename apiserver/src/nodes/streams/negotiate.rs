//! Which protocol a client and this server speak, out of the headers of its request (KEP-4006; `X-Stream-Protocol-Version` of SPDY, RFC 6455 for WebSockets).

use coracle_api::status::Status;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

const STREAM_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");
/// SPDY within a WebSocket, as kubectl forwards ports since 1.31.
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";

/// How a WebSocket's messages name channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Messages {
    /// A text of a digit and base64, instead of a byte and bytes.
    pub base64: bool,
    /// A channel's end can be said (v5).
    pub ends: bool,
    /// How it ended is a Status (v4), not a sentence.
    pub status: bool,
}

/// What was agreed upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speech {
    /// Messages with channels.
    WebSocket(Messages),
    /// Messages without channels.
    Plain {
        /// Texts of base64 instead of bytes.
        base64: bool,
    },
    /// SPDY within a WebSocket.
    Tunnel,
    /// SPDY, with this version of the streams' meaning.
    Spdy(u8),
}

/// What is spoken on a subresource: WebSocket protocols with their messages, and SPDY's with their versions.
pub struct Offer {
    websocket: &'static [(&'static str, Speech)],
    spdy: &'static [(&'static str, u8)],
}

const fn messages(base64: bool, version: u8) -> Speech {
    Speech::WebSocket(Messages { base64, ends: version >= 5, status: version >= 4 })
}

/// Of exec and attach.
pub const PROGRAM: Offer = Offer {
    websocket: &[
        ("v5.channel.k8s.io", messages(false, 5)),
        ("v4.channel.k8s.io", messages(false, 4)),
        ("v4.base64.channel.k8s.io", messages(true, 4)),
        ("channel.k8s.io", messages(false, 1)),
        ("base64.channel.k8s.io", messages(true, 1)),
        ("", messages(false, 1)),
    ],
    spdy: &[("v4.channel.k8s.io", 4), ("v3.channel.k8s.io", 3), ("v2.channel.k8s.io", 2), ("channel.k8s.io", 1)],
};

/// Of port-forward.
pub const FORWARD: Offer = Offer {
    websocket: &[
        (TUNNEL, Speech::Tunnel),
        ("v4.channel.k8s.io", messages(false, 4)),
        ("v4.base64.channel.k8s.io", messages(true, 4)),
        ("", messages(false, 4)),
    ],
    spdy: &[("portforward.k8s.io", 1)],
};

/// Of log.
pub const LOG: Offer = Offer {
    websocket: &[
        ("binary.k8s.io", Speech::Plain { base64: false }),
        ("base64.binary.k8s.io", Speech::Plain { base64: true }),
        ("", Speech::Plain { base64: false }),
    ],
    spdy: &[],
};

/// The words of a header that is a list.
pub fn listed(headers: &HeaderMap, name: HeaderName) -> Vec<&str> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|word| !word.is_empty()).collect()
}

/// What a WebSocket's handshake is answered with (RFC 6455, 4.2.2), the protocol apart.
fn accepted(headers: &HeaderMap) -> Result<HeaderMap, Status> {
    let key = headers.get(header::SEC_WEBSOCKET_KEY).filter(|_| listed(headers, header::SEC_WEBSOCKET_VERSION) == ["13"]);
    let Some(key) = key else {
        return Err(Status::bad_request("unable to upgrade: a WebSocket needs Sec-WebSocket-Version 13 and a Sec-WebSocket-Key"));
    };
    let accept = derive_accept_key(key.as_bytes());
    Ok(HeaderMap::from_iter([(header::SEC_WEBSOCKET_ACCEPT, HeaderValue::from_str(&accept).map_err(Status::internal)?)]))
}

/// The headers of an answer over a WebSocket that has one meaning, whatever its client calls it.
///
/// # Errors
/// 400 for what is no handshake, or one that leaves the choice of a protocol.
pub fn any(headers: &HeaderMap) -> Result<HeaderMap, Status> {
    let mut answer = accepted(headers)?;
    match listed(headers, header::SEC_WEBSOCKET_PROTOCOL)[..] {
        [] => {}
        [only] => _ = answer.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_str(only).map_err(Status::internal)?),
        _ => {
            return Err(Status::bad_request(
                "unable to upgrade: the messages of this WebSocket have no protocol; ask for one at most, to have its name back",
            ));
        }
    }
    Ok(answer)
}

/// What to speak, and the headers of the answer that say so.
///
/// # Errors
/// 400 for what is no handshake, 403 when there is no protocol in common.
pub fn agree(offer: &Offer, to: &HeaderValue, headers: &HeaderMap) -> Result<(Speech, HeaderMap), Status> {
    let to = to.to_str().unwrap_or_default();
    if to.eq_ignore_ascii_case("websocket") {
        let mut answer = accepted(headers)?;
        let wanted = listed(headers, header::SEC_WEBSOCKET_PROTOCOL);
        // A client that can say a channel's end is taken at that, whatever else it can; then the first word counts.
        let best = wanted.iter().filter(|word| word.starts_with("v5.") || word.starts_with("SPDY/")).chain(&wanted);
        let found = best.copied().chain(wanted.is_empty().then_some("")).find_map(|word| offer.websocket.iter().find(|(name, _)| *name == word));
        let Some((name, speech)) = found else {
            let names: Vec<&str> = offer.websocket.iter().map(|(name, _)| *name).collect();
            let why = format!("requested protocol(s) are not supported: [{}]; supports [{}]", wanted.join(" "), names.join(" "));
            return Err(Status::bad_request(why));
        };
        if !name.is_empty() {
            answer.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(name));
        }
        return Ok((*speech, answer));
    }
    if !to.eq_ignore_ascii_case("SPDY/3.1") {
        return Err(Status::bad_request(format!("unable to upgrade: {to:?} is not spoken here; websocket and SPDY/3.1 are")));
    }
    let wanted = listed(headers, STREAM_PROTOCOL);
    if wanted.is_empty() {
        return Err(Status::bad_request("unable to upgrade: header X-Stream-Protocol-Version does not exist in the request, or names no protocol"));
    }
    let found = wanted.iter().find_map(|word| offer.spdy.iter().find(|(name, _)| name == word));
    let Some((name, version)) = found else {
        let names: Vec<&str> = offer.spdy.iter().map(|(name, _)| *name).collect();
        let why =
            format!("unable to upgrade: unable to negotiate protocol: client supports [{}], server accepts [{}]", wanted.join(" "), names.join(" "));
        return Err(Status::new(403, "Forbidden", why));
    };
    Ok((Speech::Spdy(*version), HeaderMap::from_iter([(STREAM_PROTOCOL, HeaderValue::from_static(name))])))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(offer: &Offer, to: &'static str, pairs: &[(&'static str, &'static str)]) -> Result<(Speech, HeaderMap), u16> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        agree(offer, &HeaderValue::from_static(to), &headers).map_err(|status| status.code)
    }

    const KEY: [(&str, &str); 2] = [("sec-websocket-version", "13"), ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")];

    #[test]
    fn websockets() {
        let with = |offer, protocols: &'static str| {
            let mut pairs = KEY.to_vec();
            pairs.push(("sec-websocket-protocol", protocols));
            asked(offer, "websocket", &pairs)
        };
        let (speech, answer) = with(&PROGRAM, "v4.channel.k8s.io, v5.channel.k8s.io").unwrap();
        assert_eq!(speech, Speech::WebSocket(Messages { base64: false, ends: true, status: true }));
        // The example of RFC 6455.
        assert_eq!(answer["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(answer["sec-websocket-protocol"], "v5.channel.k8s.io");
        assert_eq!(with(&PROGRAM, "x, base64.channel.k8s.io").unwrap().0, messages(true, 1));
        assert_eq!(with(&PROGRAM, "SPDY/3.1+portforward.k8s.io").unwrap_err(), 400);
        assert_eq!(with(&FORWARD, "v4.channel.k8s.io, SPDY/3.1+portforward.k8s.io").unwrap().0, Speech::Tunnel);
        let (speech, answer) = asked(&PROGRAM, "WebSocket", &KEY).unwrap();
        assert_eq!((speech, answer.contains_key("sec-websocket-protocol")), (messages(false, 1), false));
        assert_eq!(asked(&PROGRAM, "websocket", &KEY[..1]).unwrap_err(), 400);
        assert_eq!(with(&LOG, "base64.binary.k8s.io").unwrap().0, Speech::Plain { base64: true });
        assert_eq!(with(&LOG, "channel.k8s.io").unwrap_err(), 400);
    }

    #[test]
    fn a_socket_of_one_meaning_has_any_name() {
        let asked = |protocols: &[&'static str]| {
            let mut headers = HeaderMap::from_iter(KEY.map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))));
            for protocol in protocols {
                headers.append("sec-websocket-protocol", HeaderValue::from_static(protocol));
            }
            any(&headers).map(|answer| answer.get("sec-websocket-protocol").cloned()).map_err(|status| status.code)
        };
        assert_eq!((asked(&[]), asked(&["x"])), (Ok(None), Ok(Some(HeaderValue::from_static("x")))));
        assert_eq!((asked(&["x, y"]), asked(&["x", "y"]), any(&HeaderMap::new()).is_err()), (Err(400), Err(400), true));
    }

    #[test]
    fn spdy() {
        let with = |offer, versions| {
            asked(offer, "SPDY/3.1", &[("x-stream-protocol-version", "v9.channel.k8s.io"), ("x-stream-protocol-version", versions)])
        };
        let (speech, answer) = with(&PROGRAM, "v3.channel.k8s.io,v4.channel.k8s.io").unwrap();
        assert_eq!((speech, &answer["x-stream-protocol-version"]), (Speech::Spdy(3), &HeaderValue::from_static("v3.channel.k8s.io")));
        assert_eq!(with(&FORWARD, "portforward.k8s.io").unwrap().0, Speech::Spdy(1));
        assert_eq!(with(&FORWARD, "v4.channel.k8s.io").unwrap_err(), 403);
        assert_eq!(asked(&PROGRAM, "SPDY/3.1", &[]).unwrap_err(), 400);
        assert_eq!(asked(&PROGRAM, "h2c", &[]).unwrap_err(), 400);
    }
}
