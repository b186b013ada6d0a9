//! Where the application behind the hub listens.

#[cfg(unix)]
use std::path::PathBuf;
use std::{fmt, str::FromStr};

use http::{
    Uri,
    uri::{Authority, PathAndQuery, Scheme},
};
use tokio::net::TcpStream;
use url::Url;

use crate::application::client::Connector;

/// Why this is not the address of an application. The text continues after the value: "`ftp://a` is
/// not …".
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidUpstream {
    /// It is not a URL of HTTP, nor a Unix socket.
    #[error("is not the address of an application: write it as http://127.0.0.1:5000, or unix:/run/app.sock")]
    Url,
    /// There are credentials in it.
    #[error("contains a user or a password: leave it out, the application receives what the client sends")]
    UserInfo,
    /// There is something behind host and port.
    #[error(
        "contains a path: leave it out, as in http://127.0.0.1:5000; the application receives the path of each request"
    )]
    Path,
}

/// Where an application listens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Address {
    Web {
        scheme: Scheme,
        /// With its port, if it is not that of the scheme.
        authority: Authority,
    },
    #[cfg(unix)]
    Unix(PathBuf),
}

impl FromStr for Address {
    type Err = InvalidUpstream;

    fn from_str(text: &str) -> Result<Self, InvalidUpstream> {
        #[cfg(unix)]
        if let Some(path) = text.strip_prefix("unix:") {
            let is_path = !path.is_empty() && !path.starts_with('@') && !path.contains(char::is_control);
            return if is_path { Ok(Self::Unix(path.into())) } else { Err(InvalidUpstream::Url) };
        }
        let url = Url::parse(text).map_err(|_| InvalidUpstream::Url)?;
        let scheme = match url.scheme() {
            "http" => Scheme::HTTP,
            "https" => Scheme::HTTPS,
            _ => return Err(InvalidUpstream::Url),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(InvalidUpstream::UserInfo);
        }
        if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            return Err(InvalidUpstream::Path);
        }
        let authority = url.authority().parse().map_err(|_| InvalidUpstream::Url)?;
        Ok(Self::Web { scheme, authority })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Web { scheme, authority } => write!(f, "{scheme}://{authority}"),
            #[cfg(unix)]
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Address {
    pub(super) fn connector(&self) -> Connector {
        match self {
            Self::Web { scheme, .. } => Connector::web(*scheme == Scheme::HTTPS),
            #[cfg(unix)]
            Self::Unix(path) => Connector::Unix(path.as_path().into()),
        }
    }

    /// The URL of a request. `target` is sent as it is.
    pub(super) fn url(&self, target: PathAndQuery) -> Uri {
        let mut url = http::uri::Parts::default();
        let (scheme, authority) = match self {
            Self::Web { scheme, authority } => (scheme.clone(), authority.clone()),
            // Names the pool of connections, and the host of a client that names none.
            #[cfg(unix)]
            Self::Unix(_) => (Scheme::HTTP, Authority::from_static("localhost")),
        };
        (url.scheme, url.authority, url.path_and_query) = (Some(scheme), Some(authority), Some(target));
        Uri::from_parts(url).expect("a scheme, an authority and a path are a URL")
    }

    /// Whether a connection can be made.
    pub(super) async fn accepts_connections(&self) -> bool {
        match self {
            Self::Web { scheme, authority } => {
                let port = authority.port_u16().unwrap_or(if *scheme == Scheme::HTTPS { 443 } else { 80 });
                let host = authority.host().trim_start_matches('[').trim_end_matches(']');
                TcpStream::connect((host, port)).await.is_ok_and(|stream| !is_to_itself(&stream))
            }
            #[cfg(unix)]
            Self::Unix(path) => tokio::net::UnixStream::connect(path).await.is_ok(),
        }
    }
}

/// A connection to a port of this machine on which nothing listens becomes one to itself, if the
/// system chooses that same port for its other end. It would also keep the port from the application.
fn is_to_itself(stream: &TcpStream) -> bool {
    stream.local_addr().ok() == stream.peer_addr().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_can_mean_something_else_is_refused_with_the_reason() {
        use InvalidUpstream::{Path, Url, UserInfo};
        for (address, reason) in [
            ("", Url),
            ("5000", Url),
            ("127.0.0.1:5000", Url),
            ("ftp://a/", Url),
            ("http://", Url),
            ("http://me@a/", UserInfo),
            ("http://me:secret@a/", UserInfo),
            ("http://a/app", Path),
            ("http://a/?b", Path),
            ("http://a/#b", Path),
            ("unix:", Url),
            ("unix:@abstract", Url),
        ] {
            assert_eq!(address.parse::<Address>(), Err(reason), "{address}");
        }
        for (address, shown) in [
            ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
            ("http://localhost:80/", "http://localhost"),
            ("https://app.internal", "https://app.internal"),
            ("http://[::1]:5000", "http://[::1]:5000"),
            ("unix:/run/app.sock", "unix:/run/app.sock"),
        ] {
            assert_eq!(address.parse::<Address>().map(|address| address.to_string()), Ok(shown.to_owned()));
        }
    }

    #[test]
    fn a_target_is_sent_as_it_is() {
        let address: Address = "http://127.0.0.1:5000".parse().expect("an address");
        for target in ["/", "//a/b", "/a?b=%zz&c", "/a/../b", "/%2e", "/?"] {
            let url = address.url(target.parse().expect("a target"));
            assert_eq!(url.path_and_query().map(PathAndQuery::as_str), Some(target));
            assert_eq!(url.authority().map(Authority::as_str), Some("127.0.0.1:5000"));
        }
    }

    #[tokio::test]
    async fn a_connection_to_itself_is_not_one_to_an_application() {
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        socket.bind(([127, 0, 0, 1], 0).into()).expect("a free port");
        let own = socket.local_addr().expect("bound");
        let itself = socket.connect(own).await.expect("both ends are one socket");
        assert!(is_to_itself(&itself));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let other = TcpStream::connect(listener.local_addr().expect("bound")).await.expect("it listens");
        assert!(!is_to_itself(&other));
    }
}
