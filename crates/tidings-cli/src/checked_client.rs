//! Requests to URLs of the configuration that must not lead elsewhere: into this machine or a private
//! network where that is not allowed, or to where a response redirects.
//!
//! The name in a URL is resolved once, here, and the connection is made to one of the addresses that
//! were checked. There is no proxy, no redirect, no cookie and no referrer.

use std::{net::IpAddr, sync::Arc};

use reqwest::{
    Client, ClientBuilder,
    dns::{Addrs, Name, Resolve, Resolving},
    redirect::Policy,
};
use tidings_net::is_public;
use tokio::net::lookup_host;
use url::{Host, Url};

const PRIVATE_ADDRESS: &str = "is on this machine or in a private network, and the configuration does not allow \
     that: set allow_private = true if it is meant";

/// A client for this URL. [`refuse_private`] has to be asked first: a client resolves names alone.
pub(crate) fn checked_client(url: &Url, allow_private: bool) -> ClientBuilder {
    Client::builder()
        .user_agent(concat!("tidings/", env!("CARGO_PKG_VERSION")))
        .redirect(Policy::none())
        .referer(false)
        .no_proxy()
        .https_only(url.scheme() == "https")
        .dns_resolver(Arc::new(CheckedResolver { allow_private }))
}

/// Refuses a URL whose host is an address that must not be connected to.
pub(crate) fn refuse_private(url: &Url, allow_private: bool) -> Result<(), String> {
    let literal = match url.host() {
        Some(Host::Ipv4(address)) => Some(IpAddr::from(address)),
        Some(Host::Ipv6(address)) => Some(IpAddr::from(address)),
        Some(Host::Domain(_)) | None => None,
    };
    match literal.filter(|address| !allow_private && !is_public(*address)) {
        Some(address) => Err(format!("the address {address} {PRIVATE_ADDRESS}")),
        None => Ok(()),
    }
}

/// The error and its causes in one line, without the URL.
pub(crate) fn reason(error: reqwest::Error) -> String {
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
    use super::*;

    #[tokio::test]
    async fn rule_12_a_name_of_this_machine_is_not_connected_to() {
        let addresses = |allow_private| async move {
            CheckedResolver { allow_private }.resolve("localhost".parse().expect("a name")).await
        };
        assert!(addresses(true).await.expect("allowed").all(|address| address.ip().is_loopback()));
        let refused = addresses(false).await.map(drop).expect_err("not allowed").to_string();
        assert!(refused.contains("allow_private = true"), "{refused}");
    }

    #[test]
    fn rule_12_an_address_of_a_private_network_is_not_connected_to() {
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
            let url = format!("https://{host}/").parse().expect("a URL");
            let refused = refuse_private(&url, false).expect_err("not allowed");
            assert!(refused.contains("allow_private = true"), "{host}: {refused}");
            assert_eq!(refuse_private(&url, true), Ok(()));
        }
    }
}
