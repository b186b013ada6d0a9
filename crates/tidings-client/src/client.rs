//! The hub that a client talks to.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{
    Url,
    header::{AUTHORIZATION, HeaderMap},
};

use crate::{ClientError, HubUrl, Token, http::Http};

/// A hub, and the token for it. Cloning is cheap; clones share their connections.
#[derive(Clone, Debug)]
pub struct Client {
    base: Url,
    pub(crate) token: Option<Token>,
    pub(crate) http: Http,
}

impl Client {
    /// A client of the hub at `base_url`, such as `https://example.com` or
    /// `http://127.0.0.1:8080/hub`. It does not connect yet.
    ///
    /// The URL may contain the credential instead, in the form that [`HubUrl`] describes.
    ///
    /// ```
    /// use tidings_client::{Client, Token};
    ///
    /// let client = Client::new("https://example.com/hub", Some(Token::new("tk_secret")?))?;
    /// let same = Client::new("https://:tk_secret@example.com/hub", None)?;
    /// # Ok::<(), tidings_client::ClientError>(())
    /// ```
    pub fn new(base_url: &str, token: Option<Token>) -> Result<Self, ClientError> {
        let HubUrl { url: base, key } = HubUrl::parse(base_url)?;
        let in_url = key.map(|key| Token::new(&key)).transpose()?;
        if in_url.is_some() && token.is_some() {
            return Err(ClientError::Request(
                "the URL contains a key, and a token is given as well: give one of the two".to_owned(),
            ));
        }
        Ok(Self { base, token: in_url.or(token), http: Http::new()? })
    }

    /// The headers that only the hub may know.
    pub(crate) fn private_headers(&self) -> HeaderMap {
        self.token.iter().map(|token| (AUTHORIZATION, token.header())).collect()
    }

    /// The URL where a topic is published.
    pub(crate) fn topic_url(&self, topic: &str) -> Result<Url, ClientError> {
        // A URL cannot hold these as names, encoded or not: they are dot segments of its path
        // (WHATWG URL, "double-dot URL path segment").
        if matches!(topic, "" | "." | "..") {
            return Err(ClientError::Request(format!(
                "the topic `{topic}` cannot be part of a URL; choose another"
            )));
        }
        Ok(self.below(&format!("topics/{}", utf8_percent_encode(topic, ENCODED))))
    }

    /// The URL where batches are published.
    pub(crate) fn topics_url(&self) -> Url {
        self.below("topics")
    }

    /// The URL of streams.
    pub(crate) fn stream_url(&self) -> Url {
        self.below("stream")
    }

    fn below(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("{}{path}", self.base.path()));
        url
    }
}

/// All but the unreserved characters of RFC 3986, `/` included: a proxy must find nothing to
/// normalize in a topic.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

#[cfg(test)]
mod tests {
    use super::*;

    fn topic_url(base: &str, topic: &str) -> String {
        Client::new(base, None).unwrap().topic_url(topic).unwrap().into()
    }

    #[test]
    fn a_topic_stays_one_name_in_the_url() {
        assert_eq!(topic_url("http://hub.example", "chat"), "http://hub.example/topics/chat");
        assert_eq!(
            topic_url("http://hub.example/", "https://a.example/b/../?c=%2F#d é"),
            "http://hub.example/topics/https%3A%2F%2Fa.example%2Fb%2F..%2F%3Fc%3D%252F%23d%20%C3%A9"
        );
    }

    #[test]
    fn a_hub_may_be_below_a_path() {
        for base in ["http://hub.example/push", "http://hub.example/push/"] {
            assert_eq!(topic_url(base, "chat"), "http://hub.example/push/topics/chat");
            let stream = Client::new(base, None).unwrap().stream_url();
            assert_eq!(stream.as_str(), "http://hub.example/push/stream");
        }
    }

    #[test]
    fn a_topic_that_no_url_can_hold_is_refused() {
        let client = Client::new("http://hub.example", None).unwrap();
        for topic in ["", ".", ".."] {
            assert!(client.topic_url(topic).is_err());
        }
    }

    #[test]
    fn a_client_has_the_key_of_its_url_or_a_token() {
        let client = Client::new("http://:tk_a@hub.example", None).unwrap();
        assert_eq!(client.private_headers()[AUTHORIZATION], "Bearer tk_a");
        assert_eq!(client.stream_url().as_str(), "http://hub.example/stream");
        let refused = Client::new("http://:5ecret@hub.example", Some(Token::new("other").unwrap()));
        let refused = refused.unwrap_err().to_string();
        assert!(refused.contains("one of the two") && !refused.contains("5ecret"), "{refused}");
        let refused = Client::new("http://:5e%20cret@hub.example", None).unwrap_err().to_string();
        assert!(refused.contains("not allowed in a token") && !refused.contains("cret"), "{refused}");
    }
}
