//! Which application decides about which path.

use std::time::Duration;

use http::{HeaderValue, Uri};
use url::Url;

/// A path of the hub whose streams an application decides about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AuthorizedPath {
    path: String,
    url: Url,
    host: Option<HeaderValue>,
    time: Duration,
}

/// Why a path cannot be authorized like this. The text continues after the value: "`ftp://a` is not
/// …".
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidAuthorizedPath {
    /// It is not the path of a URL.
    #[error(
        "is not a path: write it as /stream, with letters, digits, and the characters - . _ ~ and / only"
    )]
    Path,
    /// The hub uses it.
    #[error("is a path that the hub uses itself: choose another, such as /events")]
    PathInUse,
    /// The URL of the application is not an absolute one.
    #[error("is not a URL of HTTP: write it as http://127.0.0.1:5000/stream")]
    Url,
    /// There are credentials in it.
    #[error("contains a user or a password: leave it out, the application receives what the client sends")]
    UserInfo,
    /// There is a fragment in it, which is never sent.
    #[error("contains a fragment: leave out the # and what follows")]
    Fragment,
    /// The name of the host cannot be sent.
    #[error("is not a host: write it as app.internal, with the port if it is not the usual one")]
    Host,
}

impl AuthorizedPath {
    /// How long an application may take by default.
    pub const TIME_DEFAULT: Duration = Duration::from_secs(10);

    /// Streams at `path` are decided by a GET of `url`, an absolute URL of `http` or `https`.
    pub fn new(path: &str, url: &str) -> Result<Self, InvalidAuthorizedPath> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
        if !path.starts_with('/') || !path.bytes().all(is_plain) {
            return Err(InvalidAuthorizedPath::Path);
        }
        let url = Url::parse(url).map_err(|_| InvalidAuthorizedPath::Url)?;
        if !matches!(url.scheme(), "http" | "https") || Uri::try_from(url.as_str()).is_err() {
            return Err(InvalidAuthorizedPath::Url);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(InvalidAuthorizedPath::UserInfo);
        }
        if url.fragment().is_some() {
            return Err(InvalidAuthorizedPath::Fragment);
        }
        Ok(Self { path: path.to_owned(), url, host: None, time: Self::TIME_DEFAULT })
    }

    /// The `Host` that the application receives; by default that of the client's request.
    pub fn with_host(mut self, host: &str) -> Result<Self, InvalidAuthorizedPath> {
        let authority: http::uri::Authority = host.parse().map_err(|_| InvalidAuthorizedPath::Host)?;
        if authority.as_str().contains('@') {
            return Err(InvalidAuthorizedPath::Host);
        }
        self.host = Some(HeaderValue::from_str(host).map_err(|_| InvalidAuthorizedPath::Host)?);
        Ok(self)
    }

    /// How long the application may take, its whole response included. Beyond, a stream is refused
    /// with 504. By default [`TIME_DEFAULT`](Self::TIME_DEFAULT).
    #[must_use]
    pub fn with_time(mut self, time: Duration) -> Self {
        self.time = time;
        self
    }

    /// The path of the hub.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The URL of the application.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// The URL for the log: its query may be a secret.
    pub(super) fn shown(&self) -> String {
        let mut url = self.url.clone();
        url.set_query(None);
        url.into()
    }

    pub(super) fn host(&self) -> Option<&HeaderValue> {
        self.host.as_ref()
    }

    /// How long the application may take.
    pub fn time(&self) -> Duration {
        self.time
    }

    pub(super) fn is_https(&self) -> bool {
        self.url.scheme() == "https"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_and_a_url_that_can_mean_something_else_are_refused_with_the_reason() {
        use InvalidAuthorizedPath::{Fragment, Path, Url, UserInfo};
        for (path, url, reason) in [
            ("stream", "http://a/", Path),
            ("", "http://a/", Path),
            ("/a b", "http://a/", Path),
            ("/{a}", "http://a/", Path),
            ("/*", "http://a/", Path),
            ("/a?b", "http://a/", Path),
            ("/%61", "http://a/", Path),
            ("/é", "http://a/", Path),
            ("/a", "127.0.0.1:5000/stream", Url),
            ("/a", "/stream", Url),
            ("/a", "", Url),
            ("/a", "ftp://a/", Url),
            ("/a", "http://", Url),
            ("/a", "http://me@a/", UserInfo),
            ("/a", "http://me:secret@a/", UserInfo),
            ("/a", "http://a/#b", Fragment),
        ] {
            assert_eq!(AuthorizedPath::new(path, url), Err(reason), "{path} {url}");
        }
        for url in [
            "http://127.0.0.1:5000/stream",
            "https://app.example/a?b=c",
            "http://[::1]:1",
            "http://é.example",
        ] {
            assert!(AuthorizedPath::new("/a/b.c-d_e~f", url).is_ok(), "{url}");
        }
        let path = AuthorizedPath::new("/a", "http://a").expect("valid");
        for (host, is_valid) in
            [("app.internal", true), ("app:81", true), ("a b", false), ("me@a", false), ("", false)]
        {
            assert_eq!(path.clone().with_host(host).is_ok(), is_valid, "{host}");
        }
    }
}
