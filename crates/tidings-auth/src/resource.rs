//! What a hub is as a protected resource of OAuth 2.0 (RFC 9728): what a client needs to know to obtain
//! a token for it.

use url::Url;

use crate::loopback::is_on_this_machine;

/// See the module's documentation. Everything is of the configuration, and none of it is secret.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct ProtectedResource {
    /// The resource identifiers: the audiences of its issuers, each once, in the order of the
    /// configuration. At least one.
    pub identifiers: Vec<String>,
    /// The issuers that are authorization servers: those whose names are URLs.
    pub authorization_servers: Vec<String>,
    /// The type of the authorization details that it reads in a token (RFC 9396).
    pub detail_type: &'static str,
    /// The cookie in which it reads a token.
    pub cookie: String,
}

/// RFC 8414, section 2: the issuer of an authorization server is a URL without query and fragment,
/// with the scheme `https`; on the machine itself, in development, `http` is as safe.
pub(crate) fn is_authorization_server(issuer: &str) -> bool {
    let Ok(url) = issuer.parse::<Url>() else { return false };
    url.query().is_none()
        && url.fragment().is_none()
        && (url.scheme() == "https" || url.scheme() == "http" && is_on_this_machine(&url))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authorization_server_is_an_https_url_without_query_and_fragment() {
        for issuer in [
            "https://app.example",
            "https://app.example/realms/a",
            "http://localhost:3000",
            "http://127.0.0.1:9",
        ] {
            assert!(is_authorization_server(issuer), "{issuer}");
        }
        for issuer in [
            "symfony",
            "urn:app",
            "http://app.example",
            "https://app.example?x",
            "https://app.example#x",
            "mailto:a@app.example",
        ] {
            assert!(!is_authorization_server(issuer), "{issuer}");
        }
    }
}
