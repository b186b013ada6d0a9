//! The header of the PROXY protocol, versions 1 and 2 (haproxy.org, "The PROXY protocol").
//!
//! A strict parser without I/O. It says how many further bytes are part of the header in any case,
//! so that a reader never takes what follows it: that may be a TLS handshake.
//!
//! Invariants: what is no beginning of a header is refused at its first wrong byte; nothing after
//! the header changes what it means.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Most bytes of a header. Version 2 allows 64 KiB of extensions, of which proxies use some hundred.
pub const PROXY_HEADER_BYTES_MAX: usize = 2048;

/// Most bytes of a header of version 1 (section 2.1).
const V1_BYTES_MAX: usize = 107;
/// The beginning of version 1.
const V1_BEGINNING: &[u8] = b"PROXY ";
/// The shortest header of version 1.
const V1_SHORTEST: &[u8] = b"PROXY UNKNOWN\r\n";
/// What ends version 1.
const LINE_END: &[u8] = b"\r\n";
/// The beginning of version 2 (section 2.2).
const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family and transport, length.
const V2_FIXED_BYTES: usize = 16;

/// What a header says of the connection's origin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProxiedFrom {
    /// The proxy made the connection for itself, such as a health check.
    Proxy,
    /// This address.
    Ip(IpAddr),
    /// The proxy does not know, or the client has no IP address.
    Unknown,
}

/// How much of a header has arrived.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProxyHeader {
    /// At least this many bytes more are part of it.
    Incomplete(usize),
    /// It is complete.
    Complete {
        /// Its length in bytes.
        length: usize,
        /// The origin of the connection.
        from: ProxiedFrom,
    },
}

/// The bytes are no header of the PROXY protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidProxyHeader {
    /// They begin differently.
    #[error("it does not begin with a PROXY header")]
    Absent,
    /// The header is malformed.
    #[error("its PROXY header is malformed")]
    Malformed,
    /// The header is longer than [`PROXY_HEADER_BYTES_MAX`].
    #[error("its PROXY header is longer than {PROXY_HEADER_BYTES_MAX} bytes")]
    TooLong,
}

use InvalidProxyHeader::{Absent, Malformed, TooLong};

impl ProxyHeader {
    /// Parses the bytes with which a connection begins.
    pub fn parse(bytes: &[u8]) -> Result<Self, InvalidProxyHeader> {
        if bytes.is_empty() {
            // Either version may follow, and the shortest header is one of version 1.
            Ok(Self::Incomplete(V1_SHORTEST.len()))
        } else if begins_like(bytes, V2_SIGNATURE) {
            v2(bytes)
        } else if begins_like(bytes, V1_BEGINNING) {
            v1(bytes)
        } else {
            Err(Absent)
        }
    }
}

/// Whether one of the two is the beginning of the other.
fn begins_like(bytes: &[u8], beginning: &[u8]) -> bool {
    bytes.iter().zip(beginning).all(|(one, other)| one == other)
}

/// Section 2.1: one line of text.
fn v1(bytes: &[u8]) -> Result<ProxyHeader, InvalidProxyHeader> {
    let line = &bytes[..bytes.len().min(V1_BYTES_MAX)];
    if let Some(end) = memchr::memchr(b'\n', line) {
        let words = line[..end].strip_suffix(b"\r").ok_or(Malformed)?;
        return Ok(ProxyHeader::Complete { length: end + 1, from: v1_words(words)? });
    }
    if line.len() == V1_BYTES_MAX {
        return Err(Malformed);
    }
    // A line cannot end before its shortest form.
    let shortest = match bytes {
        _ if bytes.starts_with(b"PROXY TCP4 ") => "PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n".len(),
        _ if bytes.starts_with(b"PROXY TCP6 ") => "PROXY TCP6 :: :: 0 0\r\n".len(),
        _ => V1_SHORTEST.len(),
    };
    let end = if bytes.ends_with(b"\r") { 1 } else { LINE_END.len() };
    Ok(ProxyHeader::Incomplete(shortest.saturating_sub(bytes.len()).max(end)))
}

fn v1_words(words: &[u8]) -> Result<ProxiedFrom, InvalidProxyHeader> {
    let words = std::str::from_utf8(words).map_err(|_| Malformed)?;
    let mut words = words.split(' ');
    let _proxy = words.next();
    let family = words.next().ok_or(Malformed)?;
    if family == "UNKNOWN" {
        // "The receiver must ignore anything presented before the CRLF."
        return Ok(ProxiedFrom::Unknown);
    }
    let mut address = || -> Result<IpAddr, InvalidProxyHeader> {
        let word = words.next().ok_or(Malformed)?;
        match family {
            "TCP4" => word.parse().map(|ip: Ipv4Addr| ip.into()),
            "TCP6" => word.parse().map(|ip: Ipv6Addr| ip.into()),
            _ => return Err(Malformed),
        }
        .map_err(|_| Malformed)
    };
    let (source, _destination) = (address()?, address()?);
    for _ in 0..2 {
        let port = words.next().ok_or(Malformed)?;
        let is_plain = port == "0" || port.starts_with(|first: char| ('1'..='9').contains(&first));
        port.parse::<u16>().ok().filter(|_| is_plain).ok_or(Malformed)?;
    }
    if words.next().is_some() { Err(Malformed) } else { Ok(ProxiedFrom::Ip(source)) }
}

/// Section 2.2: binary.
fn v2(bytes: &[u8]) -> Result<ProxyHeader, InvalidProxyHeader> {
    // What is wrong already need not be waited for.
    let is_local = match bytes.get(V2_SIGNATURE.len()) {
        Some(0x20) => true,
        Some(0x21) | None => false,
        Some(_) => return Err(Malformed),
    };
    let Some(fixed) = bytes.first_chunk::<V2_FIXED_BYTES>() else {
        return Ok(ProxyHeader::Incomplete(V2_FIXED_BYTES - bytes.len()));
    };
    let length = V2_FIXED_BYTES + usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if length > PROXY_HEADER_BYTES_MAX {
        return Err(TooLong);
    }
    let Some(content) = bytes.get(V2_FIXED_BYTES..length) else {
        return Ok(ProxyHeader::Incomplete(length - bytes.len()));
    };
    let from = match fixed[13] {
        // "The receiver must discard the protocol block including the family which is ignored."
        _ if is_local => ProxiedFrom::Proxy,
        // AF_UNSPEC
        0x00 => ProxiedFrom::Unknown,
        // TCP over IPv4 and over IPv6: source and destination address, source and destination port
        0x11 => ProxiedFrom::Ip(source::<4>(content, 12)?.into()),
        0x21 => ProxiedFrom::Ip(source::<16>(content, 36)?.into()),
        // Unix stream sockets: two paths of 108 bytes
        0x31 if content.len() >= 216 => ProxiedFrom::Unknown,
        _ => return Err(Malformed),
    };
    Ok(ProxyHeader::Complete { length, from })
}

/// The source address, with which the addresses begin. Extensions may follow them.
fn source<const BYTES: usize>(
    content: &[u8],
    addresses_bytes: usize,
) -> Result<[u8; BYTES], InvalidProxyHeader> {
    let addresses = content.get(..addresses_bytes).ok_or(Malformed)?;
    addresses.first_chunk().copied().ok_or(Malformed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn v2_header(command: u8, family: u8, content: &[u8]) -> Vec<u8> {
        let length = u16::try_from(content.len()).expect("short").to_be_bytes();
        [V2_SIGNATURE, &[command, family], &length, content].concat()
    }

    fn v2_of(source: IpAddr, extensions: &[u8]) -> Vec<u8> {
        match source {
            IpAddr::V4(ip) => {
                let content = [&ip.octets()[..], &[192, 0, 2, 1, 0x10, 0, 0, 80], extensions].concat();
                v2_header(0x21, 0x11, &content)
            }
            IpAddr::V6(ip) => {
                let content = [&ip.octets()[..], &[0; 16], &[0x10, 0, 0, 80], extensions].concat();
                v2_header(0x21, 0x21, &content)
            }
        }
    }

    /// Found by fuzzing: before the first byte the parser asked for the sixteen that every header of
    /// version 2 has, and the shortest of version 1 has fifteen. A reader then lost the first byte of
    /// the request behind it.
    #[test]
    fn no_byte_behind_the_shortest_header_is_asked_for() {
        let mut read = 0;
        while let Ok(ProxyHeader::Incomplete(more)) = ProxyHeader::parse(&V1_SHORTEST[..read]) {
            read += more;
            assert!(read <= V1_SHORTEST.len(), "{read} bytes");
        }
        assert_eq!(complete(V1_SHORTEST), ProxiedFrom::Unknown);
    }

    fn complete(bytes: &[u8]) -> ProxiedFrom {
        match ProxyHeader::parse(bytes) {
            Ok(ProxyHeader::Complete { length, from }) if length == bytes.len() => from,
            other => panic!("{other:?} of {:?}", String::from_utf8_lossy(bytes)),
        }
    }

    fn ip(text: &str) -> ProxiedFrom {
        ProxiedFrom::Ip(text.parse().expect("an address"))
    }

    #[test]
    fn version_1_names_the_source() {
        for (header, from) in [
            ("PROXY TCP4 198.51.100.7 192.0.2.1 4711 80\r\n", ip("198.51.100.7")),
            ("PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n", ip("0.0.0.0")),
            ("PROXY TCP6 2001:db8::7 ::1 65535 80\r\n", ip("2001:db8::7")),
            ("PROXY TCP6 :: :: 0 0\r\n", ip("::")),
            ("PROXY UNKNOWN\r\n", ProxiedFrom::Unknown),
            ("PROXY UNKNOWN ffff:f...f:ffff 65535 anything\r\n", ProxiedFrom::Unknown),
        ] {
            assert_eq!(complete(header.as_bytes()), from);
        }
        let longest = "PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n";
        assert_eq!(longest.len(), V1_BYTES_MAX);
        assert_eq!(complete(longest.as_bytes()), ProxiedFrom::Unknown);
    }

    #[test]
    fn version_1_is_read_strictly() {
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(V1_BYTES_MAX));
        for header in [
            "PROXY \r\n",
            "PROXY TCP\r\n",
            "PROXY TCP5 1.1.1.1 2.2.2.2 1 2\r\n",
            "PROXY tcp4 1.1.1.1 2.2.2.2 1 2\r\n",
            "PROXY UNKNOWNx\r\n",
            "PROXY TCP4 1.1.1.1 2.2.2.2 1 2\n",
            "PROXY TCP4 1.1.1.1 2.2.2.2 1\r\n",
            "PROXY TCP4 1.1.1.1 2.2.2.2 1 2 3\r\n",
            "PROXY TCP4 1.1.1.1 2.2.2.2 1 2 \r\n",
            "PROXY TCP4  1.1.1.1 2.2.2.2 1 2\r\n",
            "PROXY TCP4 1.1.1.1 2.2.2.2 1 65536\r\n",
            "PROXY TCP4 1.1.1.1 2.2.2.2 01 2\r\n",
            "PROXY TCP4 1.1.1.1 2.2.2.2 +1 2\r\n",
            "PROXY TCP4 1.1.1.256 2.2.2.2 1 2\r\n",
            "PROXY TCP4 01.1.1.1 2.2.2.2 1 2\r\n",
            "PROXY TCP4 ::1 ::1 1 2\r\n",
            "PROXY TCP6 1.1.1.1 2.2.2.2 1 2\r\n",
            "PROXY TCP6 [::1] ::1 1 2\r\n",
            "PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
            long.as_str(),
        ] {
            assert_eq!(ProxyHeader::parse(header.as_bytes()), Err(Malformed), "{header:?}");
        }
    }

    #[test]
    fn version_2_names_the_source_and_may_have_extensions() {
        for text in ["198.51.100.7", "2001:db8::7"] {
            let source = text.parse().expect("an address");
            assert_eq!(complete(&v2_of(source, b"")), ip(text));
            assert_eq!(complete(&v2_of(source, b"\x04\x00\x02ok")), ip(text));
        }
        assert_eq!(complete(&v2_header(0x21, 0x00, b"")), ProxiedFrom::Unknown);
        assert_eq!(complete(&v2_header(0x21, 0x31, &[b'/'; 216])), ProxiedFrom::Unknown);
    }

    #[test]
    fn a_local_connection_is_that_of_the_proxy_whatever_its_header_contains() {
        for (family, content) in [(0x00, &b""[..]), (0x11, b"short"), (0xff, &[0; 300])] {
            assert_eq!(complete(&v2_header(0x20, family, content)), ProxiedFrom::Proxy);
        }
    }

    #[test]
    fn version_2_is_read_strictly() {
        for (command, family, content) in [
            (0x10, 0x11, &[0; 12][..]),
            (0x22, 0x11, &[0; 12]),
            (0x21, 0x12, &[0; 12]),
            (0x21, 0x41, &[0; 12]),
            (0x21, 0x01, &[0; 12]),
            (0x21, 0x11, &[0; 11]),
            (0x21, 0x21, &[0; 35]),
            (0x21, 0x31, &[0; 215]),
        ] {
            assert_eq!(ProxyHeader::parse(&v2_header(command, family, content)), Err(Malformed));
        }
        let most = PROXY_HEADER_BYTES_MAX - V2_FIXED_BYTES;
        assert_eq!(complete(&v2_header(0x21, 0x11, &vec![1; most])), ip("1.1.1.1"));
        assert_eq!(ProxyHeader::parse(&v2_header(0x21, 0x11, &vec![1; most + 1])), Err(TooLong));
    }

    #[test]
    fn what_is_no_header_is_refused_at_once() {
        for bytes in [
            &b"G"[..],
            b"GET / HTTP/1.1\r\n",
            b"PRI * HTTP/2.0",
            b"PROXz",
            b"PROXY\r\n",
            b"\r\n\r\n\0\r\nQUIX",
            b"\x16\x03\x01",
            b" PROXY",
        ] {
            assert_eq!(ProxyHeader::parse(bytes), Err(Absent), "{bytes:?}");
        }
        let too_new = [V2_SIGNATURE, &[0x31]].concat();
        assert_eq!(ProxyHeader::parse(&too_new), Err(Malformed));
    }

    fn header() -> impl Strategy<Value = (Vec<u8>, ProxiedFrom)> {
        let address =
            prop_oneof![any::<[u8; 4]>().prop_map(IpAddr::from), any::<[u8; 16]>().prop_map(IpAddr::from),];
        let v1 = (address.clone(), any::<u16>()).prop_map(|(source, port)| {
            let (family, destination) = if source.is_ipv4() { ("TCP4", "1.1.1.1") } else { ("TCP6", "::") };
            let header = format!("PROXY {family} {source} {destination} {port} 80\r\n");
            (header.into_bytes(), ProxiedFrom::Ip(source))
        });
        let v2 = (address, prop::collection::vec(any::<u8>(), 0..300))
            .prop_map(|(source, extensions)| (v2_of(source, &extensions), ProxiedFrom::Ip(source)));
        prop_oneof![v1, v2]
    }

    proptest! {
        /// A reader that follows the counts reads the header and no byte behind it.
        #[test]
        fn a_header_is_read_to_its_end_and_not_beyond((header, from) in header(), behind in prop::collection::vec(any::<u8>(), 0..20)) {
            let sent = [&header[..], &behind].concat();
            let mut read = 0;
            loop {
                match ProxyHeader::parse(&sent[..read]) {
                    Ok(ProxyHeader::Incomplete(more)) => {
                        prop_assert!(more > 0);
                        read += more;
                        prop_assert!(read <= header.len());
                    }
                    other => {
                        prop_assert_eq!(other, Ok(ProxyHeader::Complete { length: read, from }));
                        prop_assert_eq!(read, header.len());
                        break;
                    }
                }
            }
            let length = header.len();
            prop_assert_eq!(ProxyHeader::parse(&sent), Ok(ProxyHeader::Complete { length, from }));
        }

        #[test]
        fn no_input_panics_and_every_header_is_bounded(bytes in prop::collection::vec(any::<u8>(), 0..200), beginning in 0..3) {
            let beginning = [&b""[..], b"PROXY ", V2_SIGNATURE][usize::try_from(beginning).expect("small")];
            let bytes = [beginning, &bytes].concat();
            match ProxyHeader::parse(&bytes) {
                Ok(ProxyHeader::Complete { length, .. }) => prop_assert!(length <= bytes.len()),
                Ok(ProxyHeader::Incomplete(more)) => {
                    prop_assert!(bytes.len() + more <= PROXY_HEADER_BYTES_MAX);
                }
                Err(_) => {}
            }
        }
    }
}
