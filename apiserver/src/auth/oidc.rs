//! The OIDC discovery documents by which others verify service-account tokens (KEP-1393).

use super::Auth;
use serde_json::{Value, json};

/// Path of [`Auth::openid_configuration`].
pub const CONFIGURATION: &str = "/.well-known/openid-configuration";
/// Path of [`Auth::jwks`].
pub const JWKS: &str = "/openid/v1/jwks";
/// Content type of [`Auth::jwks`].
pub const JWKS_TYPE: &str = "application/jwk-set+json";

impl Auth {
    /// `address` is where the API server is reached from outside: `192.0.2.1:6443`.
    pub fn openid_configuration(&self, address: &str) -> Value {
        json!({
            "issuer": self.inner.tokens.issuer(),
            "jwks_uri": format!("https://{address}{JWKS}"),
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        })
    }

    /// The public keys.
    pub fn jwks(&self) -> Value {
        json!({"keys": [self.inner.tokens.jwk()]})
    }
}
