//! Continue tokens: an exact revision and the last key, opaque to clients.
//!
//! A token holds no right: the request that carries it is authorized as any other, so it is not signed; one that was tampered with only starts elsewhere.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use coracle_api::status::{Details, Status};
use coracle_store::Key;
use serde::{Deserialize, Serialize};

/// Longest token that is read, bytes.
const MAX_LENGTH: usize = 2048;

/// Where the next page begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// The list's revision; 0 continues at whatever is newest.
    #[serde(rename = "rv")]
    pub revision: u64,
    /// Namespace of the last object sent.
    #[serde(rename = "ns")]
    pub namespace: String,
    /// Its name.
    #[serde(rename = "n")]
    pub name: String,
    /// How many were sent, for `remainingItemCount`.
    #[serde(rename = "c")]
    pub sent: u64,
}

impl Token {
    /// As text.
    pub fn write(&self) -> String {
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).unwrap_or_default())
    }

    /// From text; it must continue a list of the same namespace.
    pub fn read(text: &str, namespace: Option<&str>) -> Result<Self, Status> {
        let invalid = |why: &str| Status::bad_request(format!("invalid continue token: continue key is not valid: {why}"));
        if text.len() > MAX_LENGTH {
            return Err(invalid("it is too long"));
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| invalid("it is not what the server gave"))?;
        let token: Token = serde_json::from_slice(&bytes).map_err(|_| invalid("it is not what the server gave"))?;
        if namespace.is_some_and(|namespace| namespace != token.namespace) {
            return Err(invalid("it is of another namespace"));
        }
        Ok(token)
    }

    /// Namespace and name of the last object sent.
    pub fn position(&self) -> (&str, &str) {
        (&self.namespace, &self.name)
    }

    /// Whether an object comes no later than the last one sent.
    pub fn is_past(&self, key: &Key) -> bool {
        (&*key.namespace, &*key.name) <= self.position()
    }

    /// 410 with the token that goes on inconsistently, as upstream.
    pub fn expired(&self) -> Status {
        let mut status = Status::expired(
            "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.",
        );
        let token = Token { revision: 0, ..self.clone() };
        status.details = Some(Box::new(Details { continue_token: token.write(), ..Details::default() }));
        status
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_read_back_and_nothing_else_does() {
        let token = Token { revision: 7, namespace: "default".into(), name: "a".into(), sent: 500 };
        assert_eq!(Token::read(&token.write(), Some("default")), Ok(token.clone()));
        assert_eq!(Token::read(&token.write(), None), Ok(token.clone()));
        assert_eq!(Token::read(&token.write(), Some("other")).expect_err("namespace").code, 400);
        for bad in ["x", "", "e30", &"a".repeat(5000)] {
            assert_eq!(Token::read(bad, None).expect_err(bad).code, 400);
        }
    }

    #[test]
    fn an_expired_list_can_go_on_inconsistently() {
        let token = Token { revision: 7, namespace: String::new(), name: "a".into(), sent: 1 };
        let status = token.expired();
        assert_eq!((status.code, status.reason), (410, "Expired"));
        let body = status.to_json();
        let next = Token::read(body["metadata"]["continue"].as_str().expect("a token"), None).expect("valid");
        assert_eq!((next.revision, next.name.as_str()), (0, "a"));
    }
}
