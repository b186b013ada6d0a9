//! The addresses that proxies state in the headers of a request: `X-Forwarded-For` and `Forwarded`
//! (RFC 7239).
//!
//! Each proxy appends what it has seen, so a list is read from the right: the last element is the
//! word of the trusted peer, and each further one counts only if the element behind it is a trusted
//! proxy as well. What a client has written itself stands to the left of its own address and is
//! never looked at.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use http::{HeaderMap, HeaderName, header};

use crate::{
    client_address::ClientAddress,
    proxies::{ClientAddressSource, TrustedProxies},
};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// A trusted proxy has sent a list that cannot be read. In the extensions of its request, which has
/// to be refused: whose it is is unknown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct MalformedAddresses {
    /// The name of the header.
    pub(crate) header: &'static str,
}

impl MalformedAddresses {
    /// The reason of the refusal in the log.
    pub(crate) const REASON: &str = "client_address";
}

/// What an element of a list says of its hop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Hop {
    Ip(IpAddr),
    /// `unknown`, an obfuscated identifier, or nothing.
    Unknown,
}

/// The client of a request that a trusted proxy sends. Without the header that is the proxy itself.
pub(crate) fn client(
    proxy: ClientAddress,
    headers: &HeaderMap,
    source: ClientAddressSource,
    trusted: &TrustedProxies,
) -> Result<ClientAddress, MalformedAddresses> {
    let name = match source {
        ClientAddressSource::XForwardedFor => X_FORWARDED_FOR,
        ClientAddressSource::Forwarded => header::FORWARDED,
        ClientAddressSource::Peer | ClientAddressSource::ProxyProtocol => return Ok(proxy),
    };
    let malformed = MalformedAddresses { header: source.name() };
    let mut found = Found { client: proxy, trusted };
    // RFC 9110, 5.3: several fields are one list, in their order.
    for value in headers.get_all(name).iter().rev() {
        let list = String::from_utf8_lossy(value.as_bytes());
        let is_final = if source == ClientAddressSource::Forwarded {
            found.follow(forwarded(&list).ok_or(malformed)?.into_iter().rev().map(Some))
        } else {
            found.follow(x_forwarded_for(&list))
        };
        if is_final.ok_or(malformed)? {
            break;
        }
    }
    Ok(found.client)
}

/// The address of the hop that was looked at last.
struct Found<'a> {
    client: ClientAddress,
    trusted: &'a TrustedProxies,
}

impl Found<'_> {
    /// Goes on through these hops, the nearest first, to the first one that is no trusted proxy.
    /// Whether there was one; `None` if a hop cannot be read.
    fn follow(&mut self, hops: impl Iterator<Item = Option<Hop>>) -> Option<bool> {
        for hop in hops {
            self.client = match hop? {
                Hop::Ip(ip) => ClientAddress::of(ip),
                Hop::Unknown => ClientAddress::Unknown,
            };
            if !self.trusted.contains(self.client) {
                return Some(true);
            }
        }
        Some(false)
    }
}

/// Addresses, separated by commas; some proxies add ports. There is no standard. The nearest first.
fn x_forwarded_for(list: &str) -> impl Iterator<Item = Option<Hop>> {
    list.rsplit(',').map(|element| address(element.trim_matches([' ', '\t']), true))
}

/// RFC 7239, section 4: elements of pairs, `for=192.0.2.1;proto=http, for="[2001:db8::1]:4711"`.
fn forwarded(list: &str) -> Option<Vec<Hop>> {
    let mut rest = list;
    let mut hops = Vec::new();
    let mut hop = None;
    loop {
        let (name, behind) = token(skip_space(rest))?;
        let (value, behind) = value(behind.strip_prefix('=')?)?;
        if name.eq_ignore_ascii_case("for") {
            // "Each parameter MUST NOT occur more than once per field-value."
            if hop.replace(node(&value)?).is_some() {
                return None;
            }
        }
        rest = skip_space(behind);
        if let Some(more) = rest.strip_prefix(';') {
            rest = more;
            continue;
        }
        // An element may say nothing of its client.
        hops.push(hop.take().unwrap_or(Hop::Unknown));
        match rest.strip_prefix(',') {
            Some(more) => rest = more,
            None => return rest.is_empty().then_some(hops),
        }
    }
}

/// RFC 7239, section 6: an address, `unknown` or an obfuscated identifier, with or without a port.
fn node(text: &str) -> Option<Hop> {
    let is_identifier = |text: &str| {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        text.len() > 1 && text.starts_with('_') && text.bytes().all(is_allowed)
    };
    let (name, port) =
        text.rsplit_once(':').filter(|(name, _)| !name.starts_with('[') || name.ends_with(']')).unzip();
    if let Some(port) = port
        && !is_port(port)
        && !is_identifier(port)
    {
        return None;
    }
    let name = name.unwrap_or(text);
    if is_identifier(name) { Some(Hop::Unknown) } else { address(name, false) }
}

/// An address, IPv6 in brackets, or `unknown`; if `is_lax`, also with a port, and IPv6 without
/// brackets.
fn address(text: &str, is_lax: bool) -> Option<Hop> {
    if text.eq_ignore_ascii_case("unknown") {
        return Some(Hop::Unknown);
    }
    if is_lax && let Ok(ip) = text.parse::<Ipv6Addr>() {
        return Some(Hop::Ip(ip.into()));
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if is_lax && !text.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    if port.is_some_and(|port| !is_port(port)) {
        return None;
    }
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let ip = match bracketed {
        Some(v6) => v6.parse::<Ipv6Addr>().ok()?.into(),
        None => host.parse::<Ipv4Addr>().ok()?.into(),
    };
    Some(Hop::Ip(ip))
}

fn is_port(text: &str) -> bool {
    (1..=5).contains(&text.len()) && text.bytes().all(|digit| digit.is_ascii_digit())
}

fn skip_space(text: &str) -> &str {
    text.trim_start_matches([' ', '\t'])
}

/// RFC 9110, 5.6.2.
fn token(text: &str) -> Option<(&str, &str)> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let end = text.bytes().position(|byte| !is_allowed(byte)).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

/// A token or a quoted string (RFC 9110, 5.6.4), and what is behind it.
fn value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        return token(text).map(|(value, rest)| (value.to_owned(), rest));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((index, character)) = characters.next() {
        match character {
            '"' => return Some((value, &quoted[index + 1..])),
            '\\' => value.push(characters.next()?.1),
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests;
