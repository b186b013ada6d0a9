//! Which proxies are trusted, and where they state the address of a client.

use std::{fmt, str::FromStr};

use ipnet::IpNet;

use crate::client_address::ClientAddress;

/// Where the address of a client comes from, if the peer of its connection is a trusted proxy.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum ClientAddressSource {
    /// The connection itself: there is no proxy.
    #[default]
    Peer,
    /// The header `X-Forwarded-For`.
    XForwardedFor,
    /// The header `Forwarded` (RFC 7239).
    Forwarded,
    /// The header of the PROXY protocol, version 1 or 2, with which each connection begins.
    ProxyProtocol,
}

impl ClientAddressSource {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Peer, Self::XForwardedFor, Self::Forwarded, Self::ProxyProtocol];

    /// The name in settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Peer => "peer",
            Self::XForwardedFor => "x-forwarded-for",
            Self::Forwarded => "forwarded",
            Self::ProxyProtocol => "proxy-protocol",
        }
    }
}

impl fmt::Display for ClientAddressSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for ClientAddressSource {
    /// Continues after the word itself.
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|source| source.name() == word);
        found.ok_or_else(|| {
            format!(
                "is not a source of client addresses: use one of {}",
                Self::ALL.map(Self::name).join(", ")
            )
        })
    }
}

/// The proxies whose word about a client's address counts.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct TrustedProxies {
    networks: Vec<IpNet>,
    unix: bool,
}

/// A trusted proxy, or a network of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TrustedProxy {
    /// Every address of this network.
    Network(IpNet),
    /// Every program that connects to a Unix socket.
    Unix,
}

impl TrustedProxies {
    /// Whether nobody is trusted.
    pub fn is_empty(&self) -> bool {
        self.networks.is_empty() && !self.unix
    }

    pub(crate) fn contains(&self, address: ClientAddress) -> bool {
        match address {
            ClientAddress::Ip(ip) => self.networks.iter().any(|network| network.contains(&ip)),
            ClientAddress::Unix => self.unix,
            ClientAddress::Unknown => false,
        }
    }
}

impl FromIterator<TrustedProxy> for TrustedProxies {
    fn from_iter<I: IntoIterator<Item = TrustedProxy>>(proxies: I) -> Self {
        let mut trusted = Self::default();
        for proxy in proxies {
            match proxy {
                TrustedProxy::Network(network) => trusted.networks.push(network),
                TrustedProxy::Unix => trusted.unix = true,
            }
        }
        trusted
    }
}

impl TrustedProxy {
    /// Whether it is every address of a family.
    pub fn is_everybody(&self) -> bool {
        matches!(self, Self::Network(network) if network.prefix_len() == 0)
    }
}

impl FromStr for TrustedProxy {
    /// Continues after the word itself.
    type Err = String;

    /// `192.0.2.1`, `10.0.0.0/8`, `2001:db8::/32` or `unix`.
    fn from_str(word: &str) -> Result<Self, String> {
        if word == "unix" {
            return Ok(Self::Unix);
        }
        let network = match word.parse::<std::net::IpAddr>() {
            Ok(ip) => IpNet::from(ip),
            Err(_) => word.parse::<IpNet>().map_err(|_| {
                "is not a trusted proxy: write an address such as 192.0.2.1, a network such as 10.0.0.0/8, or unix"
                    .to_owned()
            })?,
        };
        if network.addr() != network.network() {
            return Err(format!("names one address and a network: write {}", network.trunc()));
        }
        // Such addresses are treated as those of IPv4, so the network would match none.
        if matches!(network, IpNet::V6(v6) if v6.network().to_ipv4_mapped().is_some()) {
            return Err("is a network of IPv4 addresses in IPv6 form: write it as one of IPv4".to_owned());
        }
        Ok(Self::Network(network))
    }
}

impl fmt::Display for TrustedProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(network) if network.prefix_len() == network.max_prefix_len() => {
                network.addr().fmt(f)
            }
            Self::Network(network) => network.fmt(f),
            Self::Unix => f.write_str("unix"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trusted(words: &[&str]) -> TrustedProxies {
        words.iter().map(|word| word.parse::<TrustedProxy>().expect(word)).collect()
    }

    #[test]
    fn networks_addresses_and_unix_sockets_are_trusted_only_if_they_are_named() {
        let some = trusted(&["10.1.0.0/16", "192.0.2.1", "2001:db8::/32"]);
        let contains = |text: &str| some.contains(ClientAddress::of(text.parse().expect("an address")));
        for inside in ["10.1.0.0", "10.1.255.255", "192.0.2.1", "::ffff:192.0.2.1", "2001:db8:1::1"] {
            assert!(contains(inside), "{inside}");
        }
        for outside in ["10.2.0.0", "192.0.2.2", "127.0.0.1", "::1", "2001:db9::1"] {
            assert!(!contains(outside), "{outside}");
        }
        assert!(!some.contains(ClientAddress::Unix) && !some.contains(ClientAddress::Unknown));
        assert!(trusted(&["unix"]).contains(ClientAddress::Unix));
        assert!(trusted(&[]).is_empty() && !trusted(&["unix"]).is_empty());
    }

    #[test]
    fn a_network_is_written_exactly() {
        for (word, part) in [
            ("10.1.2.3/8", "write 10.0.0.0/8"),
            ("2001:db8::1/32", "write 2001:db8::/32"),
            ("::ffff:10.0.0.0/104", "as one of IPv4"),
            ("::ffff:10.0.0.1", "as one of IPv4"),
            ("10.0.0.0/33", "not a trusted proxy"),
            ("10.0.0/8", "not a trusted proxy"),
            ("proxy.internal", "not a trusted proxy"),
            ("Unix", "not a trusted proxy"),
            ("", "not a trusted proxy"),
        ] {
            let refused = word.parse::<TrustedProxy>().expect_err(word);
            assert!(refused.contains(part), "{word} {refused}");
        }
    }

    #[test]
    fn a_proxy_is_shown_as_it_is_written() {
        for word in ["10.0.0.0/8", "192.0.2.1", "2001:db8::1", "2001:db8::/32", "unix"] {
            assert_eq!(word.parse::<TrustedProxy>().expect(word).to_string(), word);
        }
    }

    #[test]
    fn a_source_is_known_by_its_name() {
        for source in ClientAddressSource::ALL {
            assert_eq!(source.to_string().parse(), Ok(source));
        }
        assert!("X-Forwarded-For".parse::<ClientAddressSource>().is_err());
    }
}
