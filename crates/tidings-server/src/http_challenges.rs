//! Proof for a certificate authority that the hub serves a name: HTTP-01 (RFC 8555, 8.3).
//!
//! While a challenge is pending, its path is answered on every listener, whatever the host and the
//! credentials of the request. At all other times the path is one like others.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use axum::{body::Body, response::IntoResponse};
use http::{HeaderValue, Method, Response, header, request::Parts};

const PREFIX: &str = "/.well-known/acme-challenge/";

/// The challenges that are pending: what to answer for each token. Clones share them.
#[derive(Clone, Default, Debug)]
pub struct HttpChallenges(Arc<RwLock<HashMap<String, String>>>);

impl HttpChallenges {
    /// Answers these tokens with these key authorizations, instead of those before.
    pub fn replace(&self, challenges: impl IntoIterator<Item = (String, String)>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = challenges.into_iter().collect();
    }

    /// The response to a request that validates a challenge.
    pub(crate) fn response_to(&self, parts: &Parts) -> Option<Response<Body>> {
        let token = parts.uri.path().strip_prefix(PREFIX)?;
        if parts.method != Method::GET && parts.method != Method::HEAD {
            return None;
        }
        let pending = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let answer = pending.get(token)?.clone();
        let media_type = HeaderValue::from_static("application/octet-stream");
        Some(([(header::CONTENT_TYPE, media_type)], answer).into_response())
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    #[test]
    fn only_the_tokens_of_pending_challenges_are_answered() {
        let challenges = HttpChallenges::default();
        let status = |method: &str, path: &str| {
            let request = Request::builder().method(method).uri(path).body(()).expect("a request");
            challenges.response_to(&request.into_parts().0).map(|response| response.status().as_u16())
        };
        let path = "/.well-known/acme-challenge/token";
        assert_eq!(status("GET", path), None);
        challenges.replace([("token".to_owned(), "token.thumbprint".to_owned())]);
        assert_eq!(status("GET", path), Some(200));
        assert_eq!(status("HEAD", path), Some(200));
        assert_eq!(status("POST", path), None);
        assert_eq!(status("GET", "/.well-known/acme-challenge/"), None);
        assert_eq!(status("GET", "/.well-known/acme-challenge/other"), None);
        assert_eq!(status("GET", "/token"), None);
        challenges.replace([]);
        assert_eq!(status("GET", path), None);
    }
}
