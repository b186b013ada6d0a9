//! One download of a key set. What it may take is bounded, and where it may lead is checked.
//!
//! The names in a URL are resolved once, here, and the connection is made to one of the addresses
//! that were checked. There is no proxy, no redirect, no cookie and no connection that is kept.

use std::{net::IpAddr, sync::Arc, time::Duration};

use reqwest::{
    Client, Response, StatusCode,
    dns::{Addrs, Name, Resolve, Resolving},
    header::{ACCEPT, CACHE_CONTROL, HeaderMap},
    redirect::Policy,
};
use tidings_auth::{JWKS_BYTES_MAX, JwksUrl};
use tidings_net::is_public;
use tokio::{net::lookup_host, time::timeout};
use url::Host;

/// Time for all of it: name, connection, TLS, response.
const DOWNLOAD_TIME: Duration = Duration::from_secs(5);

const PRIVATE_ADDRESS: &str = "is on this machine or in a private network, and the configuration does not allow \
     that: set allow_private = true if it is meant";

/// A response, which may be anything.
#[derive(Debug)]
pub(super) struct Downloaded {
    pub(super) body: Vec<u8>,
    /// How long the response says that it is fresh.
    pub(super) max_age: Option<Duration>,
}

/// Downloads what is at this URL. The error is a reason for the log.
pub(super) async fn download(source: &JwksUrl) -> Result<Downloaded, String> {
    let downloaded = timeout(DOWNLOAD_TIME, attempt(source)).await;
    downloaded.unwrap_or_else(|_| Err(format!("there was no complete response within {DOWNLOAD_TIME:?}")))
}

async fn attempt(source: &JwksUrl) -> Result<Downloaded, String> {
    // A client does not resolve an address.
    let literal = match source.url.host() {
        Some(Host::Ipv4(address)) => Some(IpAddr::from(address)),
        Some(Host::Ipv6(address)) => Some(IpAddr::from(address)),
        Some(Host::Domain(_)) | None => None,
    };
    if let Some(address) = literal.filter(|address| !source.allow_private && !is_public(*address)) {
        return Err(format!("the address {address} {PRIVATE_ADDRESS}"));
    }
    let client = client(source).map_err(reason)?;
    let request = client.get(source.url.clone()).header(ACCEPT, "application/jwk-set+json, application/json");
    let response = request.send().await.map_err(reason)?;
    let status = response.status();
    if status.is_redirection() {
        return Err(format!("the response is {status}: redirects are not followed; configure the final URL"));
    }
    if status != StatusCode::OK {
        return Err(format!("the response is {status} instead of 200"));
    }
    let max_age = max_age(response.headers());
    let body = body(response).await?;
    Ok(Downloaded { body, max_age })
}

fn client(source: &JwksUrl) -> Result<Client, reqwest::Error> {
    Client::builder()
        .user_agent(concat!("tidings/", env!("CARGO_PKG_VERSION")))
        .redirect(Policy::none())
        .referer(false)
        .no_proxy()
        .https_only(source.url.scheme() == "https")
        .pool_max_idle_per_host(0)
        .dns_resolver(Arc::new(CheckedResolver { allow_private: source.allow_private }))
        .build()
}

/// Reads at most one byte more than is allowed.
async fn body(mut response: Response) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(reason)? {
        if body.len() + chunk.len() > JWKS_BYTES_MAX {
            return Err(format!("the response is longer than {JWKS_BYTES_MAX} bytes"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// RFC 9111, section 5.2.2.1.
fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let values = headers.get_all(CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).find_map(|directive| {
        let (name, secs) = directive.split_once('=')?;
        let is_max_age = name.trim().eq_ignore_ascii_case("max-age");
        secs.trim().trim_matches('"').parse().ok().filter(|_| is_max_age).map(Duration::from_secs)
    })
}

/// The error and its causes in one line, without the URL.
fn reason(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.ends_with(&said) {
            text = format!("{text}: {said}");
        }
        cause = error.source();
    }
    text
}

/// Resolves names to addresses that may be connected to.
#[derive(Debug)]
struct CheckedResolver {
    allow_private: bool,
}

impl Resolve for CheckedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let allow_private = self.allow_private;
        Box::pin(async move {
            let found: Vec<_> = lookup_host((name.as_str(), 0)).await?.collect();
            let usable: Vec<_> =
                found.iter().copied().filter(|address| allow_private || is_public(address.ip())).collect();
            if let (Some(private), []) = (found.first(), &usable[..]) {
                return Err(format!("the address {} of the name {PRIVATE_ADDRESS}", private.ip()).into());
            }
            Ok(Box::new(usable.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;

    use super::*;

    #[test]
    fn only_a_valid_max_age_is_read() {
        for (value, expected) in [
            ("max-age=300", Some(300)),
            ("public, Max-Age=\"300\", must-revalidate", Some(300)),
            ("no-store", None),
            ("s-maxage=300", None),
            ("max-age=-1", None),
            ("max-age=99999999999999999999", None),
            ("max-age", None),
            ("", None),
        ] {
            let headers = HeaderMap::from_iter([(CACHE_CONTROL, HeaderValue::from_static(value))]);
            assert_eq!(max_age(&headers), expected.map(Duration::from_secs), "{value}");
        }
    }

    #[tokio::test]
    async fn rule_12_a_name_of_this_machine_is_not_connected_to() {
        let addresses = |allow_private| async move {
            CheckedResolver { allow_private }.resolve("localhost".parse().expect("a name")).await
        };
        assert!(addresses(true).await.expect("allowed").all(|address| address.ip().is_loopback()));
        let refused = addresses(false).await.map(drop).expect_err("not allowed").to_string();
        assert!(refused.contains("allow_private = true"), "{refused}");
    }

    #[tokio::test]
    async fn rule_12_an_address_of_a_private_network_is_not_connected_to() {
        for host in [
            "127.0.0.1",
            "10.0.0.1",
            "169.254.169.254",
            "[::1]",
            "[::ffff:10.0.0.1]",
            "0",
            "0x7f.1",
            "2130706433",
        ] {
            let url = format!("https://{host}/jwks").parse().expect("a URL");
            let refused = download(&JwksUrl::new(url)).await.expect_err("not allowed");
            assert!(refused.contains("allow_private = true"), "{host}: {refused}");
        }
    }
}
