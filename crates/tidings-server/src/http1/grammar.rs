//! The grammar of what request headers and trailer fields consist of.

use std::net::Ipv6Addr;

use memchr::memchr;

/// RFC 9110, 7.2 and RFC 3986, 3.2.2: `uri-host [ ":" port ]`. An http URI has a host (RFC 9110,
/// 4.2.1) and no user (4.2.4).
pub(crate) fn is_host(host: &[u8]) -> bool {
    if let [b'[', rest @ ..] = host {
        let Some(end) = memchr(b']', rest) else { return false };
        let is_address = str::from_utf8(&rest[..end]).is_ok_and(|name| name.parse::<Ipv6Addr>().is_ok());
        return is_address && is_port(&rest[end + 1..]);
    }
    let (name, port) = host.split_at(memchr(b':', host).unwrap_or(host.len()));
    is_registered_name(name) && is_port(port)
}

/// RFC 3986, 3.2.3: the port may be empty, and so may what stands before it.
fn is_port(port: &[u8]) -> bool {
    match port {
        [] | [b':'] => true,
        [b':', digits @ ..] => {
            digits.iter().all(u8::is_ascii_digit)
                && str::from_utf8(digits).is_ok_and(|digits| digits.parse::<u16>().is_ok())
        }
        _ => false,
    }
}

/// RFC 3986, 3.2.2, reg-name (an IPv4 address is one too), except the empty one.
fn is_registered_name(name: &[u8]) -> bool {
    let mut rest = name;
    while let [first, behind @ ..] = rest {
        rest = match (first, behind) {
            (b'%', [high, low, behind @ ..]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => behind,
            (byte, _) if byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(byte) => behind,
            _ => return false,
        };
    }
    !name.is_empty()
}

/// RFC 9110, 5.6.2: tchar.
pub(super) fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// What may stand in a field line: everything but control characters, of which the tab is allowed.
pub(super) fn is_field_byte(byte: u8) -> bool {
    byte == b'\t' || !byte.is_ascii_control()
}
