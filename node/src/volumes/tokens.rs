//! Service account tokens bound to a pod: asked of the API server, renewed at 80 % of their life.

use crate::pods::{
    spec::{Pod, TokenSource},
    time::{Due, Time},
};
use async_trait::async_trait;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;

/// Who gives tokens: the API server, or a test.
#[async_trait]
pub trait Tokens: Send + Sync {
    /// A token for the pod's service account, bound to the pod (`authentication.k8s.io/v1 TokenRequest`).
    async fn request(&self, pod: &Pod, source: &TokenSource) -> Result<String, String>;
}

#[derive(Deserialize)]
struct Claims {
    iat: i64,
    exp: i64,
}

/// When a token wants renewal: at 80 % of its life, and never later than a day after it was issued. `None` for what is no JWT.
pub fn renewal(token: &str, _now: Time) -> Option<Due> {
    let claims = token.split('.').nth(1)?;
    let claims: Claims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()?;
    let life = claims.exp.checked_sub(claims.iat).filter(|life| *life > 0)?;
    let delay = (life.saturating_mul(800)).min(24 * 3600 * 1000);
    Some(Due { at: Time(claims.iat.saturating_mul(1000)).after(delay), delay })
}
