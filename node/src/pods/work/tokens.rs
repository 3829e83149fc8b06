//! Service-account tokens, asked for at the API.

use super::Work;
use crate::{
    pods::spec::{Pod, TokenSource},
    volumes,
};
use async_trait::async_trait;
use serde_json::json;

#[async_trait]
impl volumes::tokens::Tokens for Work {
    async fn request(&self, pod: &Pod, source: &TokenSource) -> Result<String, String> {
        let meta = &pod.metadata;
        let account = if pod.spec.service_account_name.is_empty() { "default" } else { &pod.spec.service_account_name };
        let mut spec = json!({
            "expirationSeconds": source.expiration_seconds.unwrap_or(3600),
            "boundObjectRef": { "apiVersion": "v1", "kind": "Pod", "name": meta.name, "uid": meta.uid },
        });
        spec["audiences"] = if source.audience.is_empty() { json!([]) } else { json!([source.audience]) };
        let body = json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec }).to_string().into_bytes();
        let path = format!("/api/v1/namespaces/{}/serviceaccounts/{account}/token", meta.namespace);
        let answer = self.link.call("POST", &path, "application/json", body).await.map_err(|e| e.to_string())?;
        let answer: serde_json::Value = serde_json::from_slice(&answer).map_err(|e| format!("POST {path}: the answer is no JSON: {e}"))?;
        let token = answer["status"]["token"].as_str().filter(|t| !t.is_empty());
        token.map(str::to_string).ok_or_else(|| format!("POST {path}: the answer has no status.token"))
    }
}
