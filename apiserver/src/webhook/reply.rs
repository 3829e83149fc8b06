//! What a webhook answered, and what its errors say: client-go's words (`NewGenericServerResponse`), in which users know them.

use bytes::Bytes;
use http::{header, response::Parts};
use serde_json::Value;

/// Most of an error's text that is told, bytes.
const MAX_TEXT: usize = 2048;

/// A whole answer.
pub struct Reply {
    code: u16,
    /// Whether the body is for people.
    text: bool,
    body: Bytes,
}

impl Reply {
    /// Out of its parts.
    pub fn of(head: &Parts, body: Bytes) -> Self {
        let text = head.headers.get(header::CONTENT_TYPE).is_none_or(|media| media.as_bytes().starts_with(b"text/"));
        Reply { code: head.status.as_u16(), text, body }
    }

    /// The body.
    ///
    /// # Errors
    /// What a server says that answers with an error: the message of a `Status` in the body, else what the code means.
    pub fn content(self) -> Result<Bytes, String> {
        match self.code {
            200..=206 => Ok(self.body),
            code => Err(self.status().unwrap_or_else(|| meaning(code, &self.message()))),
        }
    }

    fn status(&self) -> Option<String> {
        let status = serde_json::from_slice::<Value>(&self.body).ok()?;
        let failed = status["kind"] == "Status" && status["apiVersion"] == "v1" && status["status"] == "Failure";
        status["message"].as_str().filter(|_| failed).map(str::to_owned)
    }

    fn message(&self) -> String {
        match self.text {
            true => String::from_utf8_lossy(self.body.get(..MAX_TEXT).unwrap_or(&self.body)).trim().to_owned(),
            false => "unknown".into(),
        }
    }
}

fn meaning(code: u16, message: &str) -> String {
    match code {
        400 => "the server rejected our request for an unknown reason".into(),
        401 => "the server has asked for the client to provide credentials".into(),
        403 | 415 => message.into(),
        404 => "the server could not find the requested resource".into(),
        405 => "the server does not allow this method on the requested resource".into(),
        406 if message.is_empty() || message == "unknown" => "the server was unable to respond with a content type that the client supports".into(),
        406 => message.into(),
        409 => "the server reported a conflict".into(),
        422 => "the server rejected our request due to an error in our request".into(),
        429 => "the server has received too many requests and has asked us to try again later".into(),
        503 => "the server is currently unable to handle the request".into(),
        504 => "the server was unable to return a response in the time allotted, but may still be processing the request".into(),
        500.. => format!("an error on the server ({message:?}) has prevented the request from succeeding"),
        code => format!("the server responded with the status code {code} but did not return more information"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(code: u16, media: Option<&str>, body: &'static str) -> Result<Bytes, String> {
        let mut response = http::Response::builder().status(code);
        if let Some(media) = media {
            response = response.header(header::CONTENT_TYPE, media);
        }
        Reply::of(&response.body(()).expect("a response").into_parts().0, Bytes::from_static(body.as_bytes())).content()
    }

    #[test]
    fn errors_say_what_client_go_says() {
        assert_eq!(said(200, Some("application/json"), "{}"), Ok(Bytes::from_static(b"{}")));
        let oops = Err("an error on the server (\"oops\") has prevented the request from succeeding".to_owned());
        assert_eq!(said(500, Some("text/plain; charset=utf-8"), "oops\n"), oops);
        assert_eq!(said(502, None, " oops "), oops);
        let unknown = Err("an error on the server (\"unknown\") has prevented the request from succeeding".to_owned());
        assert_eq!(said(500, Some("application/json"), "oops"), unknown);
        assert_eq!(said(404, Some("text/plain"), "no page"), Err("the server could not find the requested resource".into()));
        assert_eq!(said(403, Some("text/plain"), "not you"), Err("not you".into()));
        let status = r#"{"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "in its own words"}"#;
        assert_eq!(said(500, Some("application/json"), status), Err("in its own words".into()));
        assert_eq!(said(500, Some("application/json"), r#"{"message": "of no Status"}"#), unknown);
        let redirected = "the server responded with the status code 302 but did not return more information";
        assert_eq!(said(302, None, ""), Err(redirected.into()));
    }
}
