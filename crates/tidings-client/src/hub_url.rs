//! The URL of a hub, which may contain the credential for it: `http://:KEY@127.0.0.1:8080`, the
//! form of the variable `TIDINGS_URL`.
//!
//! Invariant: no error and no `Debug` shows the credential.

use std::fmt;

use percent_encoding::percent_decode_str;
use reqwest::Url;
use tidings_net::redacted;

use crate::{ClientError, error::excerpt};

/// The URL of a hub, and the credential that it contained.
#[derive(Clone, PartialEq, Eq)]
pub struct HubUrl {
    /// The URL without the credential; its path ends with a slash.
    pub url: Url,
    /// The credential, percent-decoded.
    pub key: Option<String>,
}

impl HubUrl {
    /// Parses a URL such as `https://example.com`, `http://127.0.0.1:8080/hub` or
    /// `http://:KEY@127.0.0.1:8080`.
    ///
    /// ```
    /// let hub = tidings_client::HubUrl::parse("http://:tk_secret@127.0.0.1:8080")?;
    /// assert_eq!(hub.url.as_str(), "http://127.0.0.1:8080/");
    /// assert_eq!(hub.key.as_deref(), Some("tk_secret"));
    /// # Ok::<(), tidings_client::ClientError>(())
    /// ```
    pub fn parse(text: &str) -> Result<Self, ClientError> {
        let refuse =
            |why: &str| ClientError::Request(format!("the URL `{}` {why}", excerpt(&redacted(text))));
        let mut url =
            Url::parse(text.trim()).map_err(|_| refuse("is not a URL: write it as http://127.0.0.1:8080"))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(refuse("does not begin with http:// or https://"));
        }
        if !url.username().is_empty() {
            return Err(refuse(
                "contains a user name: the key of a hub stands behind a colon, as in http://:KEY@127.0.0.1:8080",
            ));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(refuse("has a `?` or `#`: give the URL of the hub alone"));
        }
        let key = match url.password() {
            None => None,
            Some(password) => {
                let key = percent_decode_str(password).decode_utf8();
                Some(key.map_err(|_| refuse("contains a key that is not UTF-8"))?.into_owned())
            }
        };
        url.set_password(None).expect("a URL of HTTP has a host");
        if !url.path().ends_with('/') {
            let path = format!("{}/", url.path());
            url.set_path(&path);
        }
        Ok(Self { url, key })
    }
}

impl fmt::Debug for HubUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubUrl").field("url", &self.url.as_str()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_may_contain_the_key() {
        for (text, url, key) in [
            ("http://:tk_a-b@hub.example", "http://hub.example/", Some("tk_a-b")),
            ("https://:a%2Fb%3D%40@hub.example/push", "https://hub.example/push/", Some("a/b=@")),
            ("http://hub.example", "http://hub.example/", None),
            ("http://:@hub.example/", "http://hub.example/", None),
        ] {
            let hub = HubUrl::parse(text).unwrap();
            assert_eq!((hub.url.as_str(), hub.key.as_deref()), (url, key), "{text}");
            assert!(!format!("{hub:?}").contains("tk_a-b"), "{hub:?}");
        }
    }

    #[test]
    fn an_invalid_url_is_refused_without_its_key() {
        for text in [
            "",
            "hub",
            "localhost:8080",
            "ftp://:5ecret@hub.example",
            "http://:5ecret@hub.example/?a",
            "http://:5ecret@h.example/#a",
            "http://me:5ecret@hub.example",
            "http://5ecret@hub.example",
            "http://:5ecret%FF@hub.example",
            "http://:5ecret@",
        ] {
            let refused = HubUrl::parse(text).unwrap_err().to_string();
            assert!(!refused.contains("5ecret"), "{refused}");
        }
    }
}
