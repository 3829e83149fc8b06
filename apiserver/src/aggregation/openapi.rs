//! What remote servers publish of their OpenAPI: the document of their group version (v3), and its part of the whole (v2).
//!
//! Both are fetched with the checks of availability, at most once a minute and only if they changed (`ETag`, or the hash in the v3 index), and outlive an outage like the
//! rest of what a server said of itself. A server says nothing about groups that are not its own.

use super::{ApiService, client::Passed, swagger::Part};
use crate::{auth::User, http::respond::hash, pipeline::Core};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, header};
use http_body_util::{BodyExt, Limited};
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

/// How long what was fetched is taken for the latest, as upstream.
const FRESH: Duration = Duration::from_secs(55);
/// How long one document may take.
const PATIENCE: Duration = Duration::from_secs(15);
/// Longest document, bytes.
const MAX_DOCUMENT: usize = 8 << 20;
/// Bytes of all documents that are kept; what comes beyond it is not published.
pub(super) const MAX_KEPT: usize = 64 << 20;

/// The document of one group version (v3).
#[derive(Debug)]
pub(crate) struct Document {
    /// As the server's index names it.
    url: String,
    /// Names the content.
    pub hash: String,
    pub json: Bytes,
}

/// What is taken of a whole document (v2).
#[derive(Debug)]
struct Share {
    tag: String,
    hash: String,
    /// A [`Part`], written.
    json: Vec<u8>,
}

/// What one server publishes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Published {
    at: Option<Instant>,
    pub v3: Option<Arc<Document>>,
    v2: Option<Arc<Share>>,
}

impl Published {
    /// How much it holds, bytes.
    pub(super) fn bytes(&self) -> usize {
        self.v3.as_ref().map_or(0, |document| document.json.len()) + self.v2.as_ref().map_or(0, |share| share.json.len())
    }

    /// That it was fetched, and nothing else.
    pub(super) fn without_documents(&self) -> Self {
        Self { at: self.at, ..Self::default() }
    }

    /// What names its part of the whole; empty if it has none.
    pub fn tag(&self) -> &str {
        self.v2.as_ref().map_or("", |share| &share.hash)
    }

    /// Its part of the whole.
    pub fn part(&self) -> Option<Part> {
        serde_json::from_slice(&self.v2.as_ref()?.json).ok()
    }
}

#[derive(Deserialize)]
struct Index {
    paths: BTreeMap<String, Entry>,
}
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    #[serde(rename = "serverRelativeURL")]
    url: String,
}

/// Where an index says that the document of a group version is: below the group version's own path, and nowhere else.
fn listed(index: &[u8], name: &str) -> Result<Option<String>, String> {
    let index: Index = serde_json::from_slice(index).map_err(|error| error.to_string())?;
    let own = format!("/openapi/v3/{name}");
    let is_own = |url: &str| url.strip_prefix(&own).is_some_and(|rest| rest.is_empty() || rest.starts_with('?'));
    Ok(index.paths.get(name).map(|entry| entry.url.clone()).filter(|url| is_own(url)))
}

/// The hash that an index gives a document.
fn hash_in(url: &str) -> Option<&str> {
    let (_, query) = url.split_once('?')?;
    query
        .split('&')
        .find_map(|pair| pair.strip_prefix("hash="))
        .filter(|hash| !hash.is_empty() && hash.bytes().all(|byte| byte.is_ascii_alphanumeric()))
}

/// An answer: its code, its `ETag`, its body.
struct Fetched {
    code: u16,
    tag: Option<String>,
    body: Bytes,
}

impl Core {
    async fn fetch_openapi(&self, service: &ApiService, url: &str, tag: Option<&str>) -> Result<Fetched, String> {
        let user = User { name: "system:aggregator".into(), ..User::default() };
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        if let Some(tag) = tag.and_then(|tag| HeaderValue::from_str(tag).ok()) {
            headers.insert(header::IF_NONE_MATCH, tag);
        }
        let (path, raw_query) = url.split_once('?').unwrap_or((url, ""));
        let once = async {
            let passed = Passed { method: &Method::GET, path, raw_query, headers: &headers, body: Bytes::new(), upgrade: None };
            let (parts, body) = self.ask_remote(&service.spec, &user, passed).await?.into_parts();
            let body = Limited::new(body, MAX_DOCUMENT).collect().await.map_err(|error| error.to_string())?.to_bytes();
            let tag = parts.headers.get(header::ETAG).and_then(|tag| tag.to_str().ok()).map(str::to_owned);
            Ok(Fetched { code: parts.status.as_u16(), tag, body })
        };
        tokio::time::timeout(PATIENCE, once).await.unwrap_or_else(|_| Err(format!("no answer within {} s", PATIENCE.as_secs())))
    }

    async fn newest_v3(&self, service: &ApiService, known: Option<&Arc<Document>>) -> Result<Option<Arc<Document>>, String> {
        let index = self.fetch_openapi(service, "/openapi/v3", None).await?;
        match index.code {
            200 => {}
            404 => return Ok(None),
            code => return Err(format!("/openapi/v3: {code}")),
        }
        let Some(url) = listed(&index.body, &format!("apis/{}/{}", service.spec.group, service.spec.version))? else { return Ok(None) };
        let named = hash_in(&url).map(str::to_owned);
        if let Some(known) = known.filter(|known| known.url == url && named.is_some()) {
            return Ok(Some(known.clone()));
        }
        let document = self.fetch_openapi(service, &url, None).await?;
        if document.code != 200 {
            return Err(format!("{url}: {}", document.code));
        }
        serde_json::from_slice::<serde::de::IgnoredAny>(&document.body).map_err(|error| format!("{url}: {error}"))?;
        Ok(Some(Arc::new(Document { hash: named.unwrap_or_else(|| hash(&document.body)), url, json: document.body })))
    }

    async fn newest_v2(&self, service: &ApiService, known: Option<&Arc<Share>>) -> Result<Option<Arc<Share>>, String> {
        let whole = self.fetch_openapi(service, "/openapi/v2", known.map(|known| known.tag.as_str()).filter(|tag| !tag.is_empty())).await?;
        match whole.code {
            200 => {}
            304 => return Ok(known.cloned()),
            404 => return Ok(None),
            code => return Err(format!("/openapi/v2: {code}")),
        }
        let part = Part::below(&whole.body, &format!("/apis/{}/{}/", service.spec.group, service.spec.version))?;
        let json = serde_json::to_vec(&part).map_err(|error| error.to_string())?;
        Ok(Some(Arc::new(Share { tag: whole.tag.unwrap_or_default(), hash: hash(&json), json })))
    }

    /// Fetches what a server that is available publishes, if that was not done of late. What cannot be had stays as it was.
    pub async fn refresh_openapi(&self, name: &str, service: &ApiService) {
        let known = self.aggregation.published(name);
        if known.at.is_some_and(|at| at.elapsed() < FRESH) {
            return;
        }
        let told = |error: &String| tracing::debug!(name, error, "a remote server's OpenAPI document cannot be read");
        let v3 = self.newest_v3(service, known.v3.as_ref()).await.inspect_err(told).unwrap_or_else(|_| known.v3.clone());
        let v2 = self.newest_v2(service, known.v2.as_ref()).await.inspect_err(told).unwrap_or_else(|_| known.v2.clone());
        self.aggregation.publish(&self.store, name, Published { at: Some(Instant::now()), v3, v2 });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_speaks_of_its_own_group_version_alone() {
        let index = |url: &str| format!(r#"{{"paths": {{"apis/w/v1": {{"serverRelativeURL": "{url}"}}, "api/v1": {{"serverRelativeURL": "/x"}}}}}}"#);
        let url = |url: &str| listed(index(url).as_bytes(), "apis/w/v1").expect("an index");
        assert_eq!(url("/openapi/v3/apis/w/v1?hash=AB"), Some("/openapi/v3/apis/w/v1?hash=AB".into()));
        assert_eq!(url("/openapi/v3/apis/w/v1"), Some("/openapi/v3/apis/w/v1".into()));
        for foreign in ["/openapi/v3/apis/w/v1beta1", "/openapi/v3/api/v1", "https://elsewhere/openapi/v3/apis/w/v1", "//x"] {
            assert_eq!(url(foreign), None, "{foreign}");
        }
        assert_eq!(listed(index("/x").as_bytes(), "apis/w/v2"), Ok(None));
        assert!(listed(b"[]", "apis/w/v1").is_err());
        assert_eq!(
            (hash_in("/x?hash=AB"), hash_in("/x?a=b&hash=1f"), hash_in("/x?hash="), hash_in("/x?hash=a\"b"), hash_in("/x")),
            (Some("AB"), Some("1f"), None, None, None)
        );
    }
}
