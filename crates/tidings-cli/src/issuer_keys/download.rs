//! One download of a key set. What it may take is bounded, and where it may lead is checked
//! ([`checked_client`]).

use std::time::Duration;

use reqwest::{
    Client, Response, StatusCode,
    header::{ACCEPT, CACHE_CONTROL, HeaderMap},
};
use tidings_auth::{JWKS_BYTES_MAX, JwksUrl};
use tokio::time::timeout;

use crate::checked_client::{checked_client, reason, refuse_private};

/// Time for all of it: name, connection, TLS, response.
const DOWNLOAD_TIME: Duration = Duration::from_secs(5);

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
    refuse_private(&source.url, source.allow_private)?;
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
    checked_client(&source.url, source.allow_private).pool_max_idle_per_host(0).build()
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
    async fn rule_12_an_address_of_a_private_network_is_not_connected_to() {
        for host in ["127.0.0.1", "169.254.169.254", "[::1]"] {
            let url = format!("https://{host}/jwks").parse().expect("a URL");
            let refused = download(&JwksUrl::new(url)).await.expect_err("not allowed");
            assert!(refused.contains("allow_private = true"), "{host}: {refused}");
        }
    }
}
