//! What a path and method ask for. Pure, one function for every resource.
//!
//! (axum's router was rejected: patterns per resource would be a second registry beside the real one, and what a path means must be known
//! before it is known whether it exists, because refusals come first.)

use crate::pipeline::Verb;
use coracle_api::status::Status;
use http::Method;
use std::time::Duration;

/// A parsed request path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// `/api/v1/…`, `/apis/G/V/…` naming a resource.
    Resource(Target),
    /// Anything else: discovery, health, OpenAPI.
    Path(Vec<String>),
}

/// What a resource path names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// API group; empty for core.
    pub group: String,
    /// API version.
    pub version: String,
    /// Plural.
    pub resource: String,
    /// Namespace, or empty.
    pub namespace: String,
    /// Name, or empty.
    pub name: String,
    /// Subresource, or empty.
    pub subresource: String,
    /// What follows the subresource.
    pub rest: String,
    /// `/api/v1/watch/…`, the old form of a watch.
    pub watch: bool,
}

/// Subresources of a namespace, which are not resources within it.
const OF_NAMESPACE: &[&str] = &["status", "finalize"];

/// Reads a path; None when it cannot be decoded.
pub fn parse(path: &str) -> Option<Route> {
    let parts: Vec<String> = path.split('/').filter(|part| !part.is_empty()).map(decode).collect::<Option<_>>()?;
    let words: Vec<&str> = parts.iter().map(String::as_str).collect();
    let (group, version, mut rest) = match words.as_slice() {
        ["api", version, rest @ ..] if !rest.is_empty() => ("", *version, rest),
        ["apis", group, version, rest @ ..] if !rest.is_empty() => (*group, *version, rest),
        _ => return Some(Route::Path(parts)),
    };
    let mut target = Target { group: group.into(), version: version.into(), ..Target::default() };
    if rest.first() == Some(&"watch") && rest.len() > 1 {
        target.watch = true;
        rest = &rest[1..];
    }
    if let ["namespaces", namespace, more @ ..] = rest {
        target.namespace = (*namespace).into();
        if let [first, ..] = more
            && !OF_NAMESPACE.contains(first)
        {
            rest = more;
        } else {
            // The namespace object itself is cluster-scoped in the store, but RBAC sees it in its own namespace.
            target.namespace.clear();
        }
    }
    let mut rest = rest.iter();
    let mut next = || rest.next().map(|s| s.to_string()).unwrap_or_default();
    (target.resource, target.name, target.subresource) = (next(), next(), next());
    target.rest = match target.subresource.as_str() {
        "" => String::new(),
        subresource => tail(path, subresource, words.len(), rest.len()),
    };
    Some(Route::Resource(target))
}

/// Whether every server reads the same parts in a path. Some decode before they split, clean dots away or take empty parts for parts: what is authorized here would be something else
/// to them.
pub fn is_plain(path: &str) -> bool {
    let Some(path) = path.strip_prefix('/') else { return false };
    let path = path.strip_suffix('/').unwrap_or(path);
    let plain = |part: String| !matches!(part.as_str(), "" | "." | "..") && !part.contains(['/', '\\']);
    path.split('/').all(|part| decode(part).is_some_and(plain))
}

/// The raw text of the last `count` parts of a path with `total`; a proxied path is passed on as it came, its trailing slash too. A slash and nothing else stays: it is the root,
/// where no slash at all is no path.
fn tail(path: &str, _subresource: &str, total: usize, count: usize) -> String {
    let mut at = 0;
    let bytes = path.as_bytes();
    for _ in 0..total - count {
        while bytes.get(at) == Some(&b'/') {
            at += 1;
        }
        while at < bytes.len() && bytes[at] != b'/' {
            at += 1;
        }
    }
    let rest = path.get(at..).unwrap_or_default();
    rest.strip_prefix('/').filter(|path| !path.is_empty()).unwrap_or(rest).to_string()
}

/// Resolves `%` escapes; None for a broken one.
pub fn decode(part: &str) -> Option<String> {
    if !part.contains('%') {
        return Some(part.to_string());
    }
    let mut out = Vec::with_capacity(part.len());
    let mut bytes = part.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let digit = |b: Option<u8>| b.and_then(|b| char::from(b).to_digit(16));
                let (high, low) = (digit(bytes.next())?, digit(bytes.next())?);
                out.push((high * 16 + low) as u8);
            }
            byte => out.push(byte),
        }
    }
    String::from_utf8(out).ok()
}

fn parameters(raw: &str) -> impl Iterator<Item = Option<(String, String)>> {
    raw.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        Some((decode(&key.replace('+', " "))?, decode(&value.replace('+', " "))?))
    })
}

/// Query parameters, decoded, in order. What cannot be decoded is left out: whoever asks with it was refused before ([`readable`]).
pub fn query(raw: &str) -> Vec<(String, String)> {
    parameters(raw).flatten().collect()
}

/// Whether a query means one thing: every parameter can be decoded to text. What goes to a pod's or a node's own server is theirs to read.
///
/// (Upstream drops what has a broken escape. A `dryRun` or a precondition that is dropped is a write that nobody asked for.)
pub fn readable(route: &Route, raw_query: &str) -> bool {
    matches!(route, Route::Resource(target) if target.subresource == "proxy") || parameters(raw_query).all(|parameter| parameter.is_some())
}

/// `?timeout=5s`: how long a client wants to wait for an answer at most; none and zero leave it to the server.
///
/// # Errors
/// 400 for what is no duration.
pub fn timeout(raw_query: &str) -> Result<Option<Duration>, Status> {
    let Some((_, text)) = query(raw_query).into_iter().find(|(key, text)| key == "timeout" && !text.is_empty()) else { return Ok(None) };
    let wrong = |why| Status::bad_request(format!("invalid timeout specified in the request URL - {why}"));
    let nanos = coracle_api::duration::parse(&text).map_err(wrong)?;
    Ok(u64::try_from(nanos).ok().filter(|nanos| *nanos > 0).map(Duration::from_nanos))
}

/// The verb of a method on a target; None is 405. `?watch` is about collections: of one object there is only the old path.
pub fn verb(method: &Method, target: &Target, watch: bool) -> Option<Verb> {
    let named = !target.name.is_empty();
    Some(match *method {
        Method::GET | Method::HEAD if (target.watch || watch && !named) && target.subresource.is_empty() => Verb::Watch,
        Method::GET | Method::HEAD if named => Verb::Get,
        Method::GET | Method::HEAD => Verb::List,
        Method::POST if !named || !target.subresource.is_empty() => Verb::Create,
        Method::PUT if named => Verb::Update,
        Method::PATCH if named => Verb::Patch,
        Method::DELETE if named => Verb::Delete,
        Method::DELETE => Verb::DeleteCollection,
        // The only other method that upstream passes on.
        Method::OPTIONS if named && target.subresource == "proxy" => Verb::Proxy,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(path: &str) -> Target {
        match parse(path) {
            Some(Route::Resource(target)) => target,
            other => panic!("{path}: {other:?}"),
        }
    }

    #[test]
    fn clients_may_wait_for_less() {
        assert_eq!(timeout("limit=5").expect("none"), None);
        assert_eq!(timeout("timeout=&limit=5").expect("none"), None);
        assert_eq!(timeout("timeout=0s").expect("zero"), None);
        assert_eq!(timeout("timeout=-1s").expect("less than nothing"), None);
        assert_eq!(timeout("limit=5&timeout=1m30s").expect("given"), Some(Duration::from_secs(90)));
        let wrong = timeout("timeout=invalid").expect_err("no duration");
        let why = "invalid timeout specified in the request URL - time: invalid duration \"invalid\"";
        assert_eq!((wrong.code, wrong.message.as_str()), (400, why));
    }

    #[test]
    fn resource_paths_are_read() {
        let pods = target("/api/v1/namespaces/default/pods/a/log");
        assert_eq!((pods.group.as_str(), pods.resource.as_str(), pods.namespace.as_str()), ("", "pods", "default"));
        assert_eq!((pods.name.as_str(), pods.subresource.as_str()), ("a", "log"));
        let all = target("/apis/apps/v1/deployments");
        assert_eq!((all.group.as_str(), all.resource.as_str(), all.namespace.as_str(), all.name.as_str()), ("apps", "deployments", "", ""));
        let namespace = target("/api/v1/namespaces/x");
        assert_eq!((namespace.resource.as_str(), namespace.namespace.as_str(), namespace.name.as_str()), ("namespaces", "", "x"));
        let finalize = target("/api/v1/namespaces/x/finalize");
        assert_eq!((finalize.resource.as_str(), finalize.name.as_str(), finalize.subresource.as_str()), ("namespaces", "x", "finalize"));
        assert_eq!(target("/api/v1/namespaces/x/services/https%3Aa/proxy/b%20c//d/").rest, "b%20c//d/");
        assert_eq!(target("/api/v1/namespaces/x/services/https%3Aa/proxy/b").name, "https:a");
        assert_eq!(target("/api/v1/namespaces/x/pods/a/proxy/").rest, "/");
        assert_eq!(target("/api/v1/namespaces/x/pods/a/proxy").rest, "");
        assert!(target("/api/v1/watch/namespaces/x/pods").watch);
        assert_eq!(target("/api/v1/watch/namespaces/x/pods").resource, "pods");
    }

    #[test]
    fn other_paths_stay_paths() {
        for path in ["/", "/api", "/api/v1", "/apis/apps/v1", "/version", "/openapi/v3/api/v1"] {
            assert!(matches!(parse(path), Some(Route::Path(_))), "{path}");
        }
        assert_eq!(parse("/api/v1/pods/%zz"), None);
        assert_eq!(parse("/api/v1/pods/%ff"), None);
    }

    #[test]
    fn paths_that_others_may_read_otherwise_are_not_plain() {
        for path in ["/apis/g/v1", "/apis/g/v1/namespaces/a/flunders/b", "/apis/g/v1/flunders/b%20c%252F/", "/apis/g/v1/flunders/a..b"] {
            assert!(is_plain(path), "{path}");
        }
        for path in [
            "/apis/g/v1/namespaces/a%2Fflunders",
            "/apis/g/v1/a%2f..%2Fb",
            "/apis/g/v1//flunders",
            "//apis/g/v1/flunders",
            "/apis/g/v1/../v2/x",
            "/apis/g/v1/%2e%2E/x",
            "/apis/g/v1/./x",
            "/apis/g/v1/x//",
            "/apis/g/v1/a%5Cb",
            "/apis/g/v1/a\\b",
            "apis/g/v1/x",
            "/apis/g/v1/%zz",
        ] {
            assert!(!is_plain(path), "{path}");
        }
    }

    #[test]
    fn queries_that_mean_nothing_are_not_readable() {
        let pods = Route::Resource(target("/api/v1/pods"));
        for query in ["", "watch", "a=b%2Cc&d=x+y&=&&", "labelSelector=%C3%A9"] {
            assert!(readable(&pods, query), "{query}");
        }
        for query in ["watch=%ff", "a=b&dryRun=%", "%zz=a", "a=%4"] {
            assert!(!readable(&pods, query), "{query}");
            assert!(readable(&Route::Resource(target("/api/v1/namespaces/x/pods/a/proxy/")), query), "a pod may read it: {query}");
        }
    }

    #[test]
    fn queries_and_verbs_are_read() {
        assert_eq!(
            query("a=b%2Cc&watch&d=x+y&=&bad=%z"),
            [("a", "b,c"), ("watch", ""), ("d", "x y"), ("", "")].map(|(k, v)| (k.to_string(), v.to_string()))
        );
        let (one, many) = (target("/api/v1/pods/a"), target("/api/v1/pods"));
        assert_eq!(verb(&Method::GET, &many, true), Some(Verb::Watch));
        assert_eq!(verb(&Method::GET, &one, false), Some(Verb::Get));
        assert_eq!(verb(&Method::GET, &one, true), Some(Verb::Get));
        assert_eq!(verb(&Method::GET, &target("/api/v1/watch/namespaces/x/pods/a"), false), Some(Verb::Watch));
        assert_eq!(verb(&Method::DELETE, &many, false), Some(Verb::DeleteCollection));
        assert_eq!(verb(&Method::TRACE, &many, false), None);
    }
}
