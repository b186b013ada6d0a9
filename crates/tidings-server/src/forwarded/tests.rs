use http::HeaderValue;
use proptest::prelude::*;

use super::*;
use crate::proxies::TrustedProxy;

const PROXY: ClientAddress = ClientAddress::Ip(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)));

fn trusted(words: &[&str]) -> TrustedProxies {
    words.iter().map(|word| word.parse::<TrustedProxy>().expect(word)).collect()
}

/// The client according to these lines of the header, sent by a proxy in 10.0.0.0/8.
fn client_of(source: ClientAddressSource, lines: &[&str]) -> Result<ClientAddress, MalformedAddresses> {
    let name = match source {
        ClientAddressSource::XForwardedFor => X_FORWARDED_FOR,
        _ => header::FORWARDED,
    };
    let mut headers = HeaderMap::new();
    for line in lines {
        headers.append(name.clone(), HeaderValue::from_str(line).expect("a header value"));
    }
    client(PROXY, &headers, source, &trusted(&["10.0.0.0/8", "2001:db8:f::/48"]))
}

fn x(lines: &[&str]) -> Result<ClientAddress, MalformedAddresses> {
    client_of(ClientAddressSource::XForwardedFor, lines)
}

fn f(lines: &[&str]) -> Result<ClientAddress, MalformedAddresses> {
    client_of(ClientAddressSource::Forwarded, lines)
}

#[expect(clippy::unnecessary_wraps, reason = "it is compared with results")]
fn ip(text: &str) -> Result<ClientAddress, MalformedAddresses> {
    Ok(ClientAddress::Ip(text.parse().expect("an address")))
}

#[test]
fn a_list_is_read_from_the_right_and_trusted_hops_are_skipped() {
    for (lines, expected) in [
        (&["192.0.2.1"][..], "192.0.2.1"),
        (&["203.0.113.9, 192.0.2.1"], "192.0.2.1"),
        (&["192.0.2.1, 10.0.0.7"], "192.0.2.1"),
        (&["203.0.113.9,192.0.2.1 ,\t10.0.0.7, 10.9.9.9"], "192.0.2.1"),
        // Several fields are one list.
        (&["203.0.113.9", "192.0.2.1", "10.0.0.7"], "192.0.2.1"),
        // All of them are proxies: the first one made the request.
        (&["10.0.0.8, 10.0.0.7"], "10.0.0.8"),
        (&[], "10.0.0.1"),
    ] {
        assert_eq!(x(lines), ip(expected), "{lines:?}");
        let pairs = |line: &&str| {
            line.split(',').map(|hop| format!("for={}", hop.trim())).collect::<Vec<_>>().join(", ")
        };
        let forwarded: Vec<_> = lines.iter().map(pairs).collect();
        let forwarded: Vec<_> = forwarded.iter().map(String::as_str).collect();
        assert_eq!(f(&forwarded), ip(expected), "{forwarded:?}");
    }
}

#[test]
fn what_a_client_wrote_itself_is_not_looked_at() {
    for forged in ["127.0.0.1", "10.0.0.9", "nonsense", "", ",,,", "unknown", "\"", "for=127.0.0.1"] {
        assert_eq!(x(&[forged, "192.0.2.1"]), ip("192.0.2.1"), "{forged:?}");
        assert_eq!(f(&[forged, "for=192.0.2.1"]), ip("192.0.2.1"), "{forged:?}");
    }
    for forged in ["127.0.0.1", "10.0.0.9", "nonsense", "", ",,,", "unknown"] {
        assert_eq!(x(&[&format!("{forged}, 192.0.2.1")]), ip("192.0.2.1"), "{forged:?}");
    }
    // The list of one field is read as a whole. A quotation mark cannot hide what is behind it.
    for forged in ["for=\"", "for=\"127.0.0.1", "for=\"a\\", "x=\"", "for=127.0.0.1;by=\""] {
        for appended in ["for=192.0.2.1", "for=\"192.0.2.1\"", "for=\"[2001:db8::1]:4711\""] {
            let line = format!("{forged}, {appended}");
            assert_eq!(f(&[&line]), Err(MalformedAddresses { header: "forwarded" }), "{line}");
        }
    }
}

#[test]
fn addresses_are_read_in_every_form_that_proxies_use() {
    for (list, expected) in [
        ("192.0.2.1:4711", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::1]:4711", "2001:db8::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8::1, 2001:db8:f::1", "2001:db8::1"),
    ] {
        assert_eq!(x(&[list]), ip(expected), "{list}");
    }
    // RFC 7239, section 4 and 6.
    for (list, expected) in [
        ("for=192.0.2.43", "192.0.2.43"),
        ("For=\"192.0.2.43:4711\"", "192.0.2.43"),
        ("For=\"[2001:db8:cafe::17]:4711\"", "2001:db8:cafe::17"),
        ("For=\"[2001:db8:cafe::17]\"", "2001:db8:cafe::17"),
        ("For=\"[2001:db8:cafe::17]:_port\"", "2001:db8:cafe::17"),
        ("for=192.0.2.60;proto=http;by=203.0.113.43", "192.0.2.60"),
        ("proto=https;for=192.0.2.60;host=\"a, b; c\"", "192.0.2.60"),
        ("proto=https ; for=192.0.2.60", "192.0.2.60"),
        ("for=\"1\\92.0.2.60\"", "192.0.2.60"),
        ("for=192.0.2.43, for=\"[::ffff:10.0.0.9]\"", "192.0.2.43"),
    ] {
        assert_eq!(f(&[list]), ip(expected), "{list}");
    }
}

#[test]
fn a_client_that_a_proxy_does_not_name_is_unknown() {
    for list in ["unknown", "203.0.113.9, unknown", "203.0.113.9, Unknown, 10.0.0.7"] {
        assert_eq!(x(&[list]), Ok(ClientAddress::Unknown), "{list}");
    }
    for list in [
        "for=unknown",
        "for=\"unknown:4711\"",
        "for=_hidden",
        "for=\"_SEVKISEK:_port\"",
        "for=203.0.113.9, proto=https",
        "for=203.0.113.9, for=_gazonk, for=10.0.0.7",
    ] {
        assert_eq!(f(&[list]), Ok(ClientAddress::Unknown), "{list}");
    }
}

#[test]
fn a_malformed_list_of_a_trusted_proxy_is_refused() {
    for list in [
        "",
        " ",
        ",",
        "192.0.2.1,",
        "192.0.2.1, ",
        "unix:",
        "localhost",
        "192.0.2",
        "192.0.2.256",
        "192.0.2.01",
        "192.0.2.1:",
        "192.0.2.1:x",
        "192.0.2.1:123456",
        "2001:db8::1:x",
        "[2001:db8::1",
        "[192.0.2.1]",
        "fe80::1%eth0",
        "192.0.2.1 10.0.0.1",
        "for=192.0.2.1",
        "_hidden",
        "nonsense, 10.0.0.7",
    ] {
        assert_eq!(x(&[list]), Err(MalformedAddresses { header: "x-forwarded-for" }), "{list:?}");
    }
    for list in [
        "",
        ",",
        "192.0.2.1",
        "for",
        "for=",
        "for =192.0.2.1",
        "for=192.0.2.1,",
        "for=192.0.2.1;",
        "for=192.0.2.1;;proto=http",
        "for=192.0.2.1;for=192.0.2.2",
        "for=192.0.2.1:80",
        "for=[2001:db8::1]",
        "for=\"2001:db8::1\"",
        "for=\"[2001:db8::1\"",
        "for=\"[2001:db8::1]:\"",
        "for=\"192.0.2.1",
        "for=\"192.0.2.1\"x",
        "for=\"\"",
        "for=\"_\"",
        "for=\"_a b\"",
        "for=nonsense",
    ] {
        assert_eq!(f(&[list]), Err(MalformedAddresses { header: "forwarded" }), "{list:?}");
    }
}

#[test]
fn only_the_chosen_header_is_read() {
    let mut headers = HeaderMap::new();
    headers.insert(X_FORWARDED_FOR, HeaderValue::from_static("192.0.2.1"));
    headers.insert(header::FORWARDED, HeaderValue::from_static("for=192.0.2.2"));
    headers.insert("x-real-ip", HeaderValue::from_static("192.0.2.3"));
    let trusted = trusted(&["10.0.0.0/8"]);
    let read = |source| client(PROXY, &headers, source, &trusted);
    assert_eq!(read(ClientAddressSource::XForwardedFor), ip("192.0.2.1"));
    assert_eq!(read(ClientAddressSource::Forwarded), ip("192.0.2.2"));
    assert_eq!(read(ClientAddressSource::Peer), Ok(PROXY));
    assert_eq!(read(ClientAddressSource::ProxyProtocol), Ok(PROXY));
}

fn any_ip() -> impl Strategy<Value = IpAddr> {
    prop_oneof![any::<[u8; 4]>().prop_map(IpAddr::from), any::<[u8; 16]>().prop_map(IpAddr::from)]
}

proptest! {
    /// Whatever a client writes, the proxy's own word counts.
    #[test]
    fn a_forged_line_changes_nothing(forged in "[ -~]{0,40}", seen in any_ip()) {
        let expected = Ok(ClientAddress::of(seen));
        prop_assume!(!trusted(&["10.0.0.0/8", "2001:db8:f::/48"]).contains(ClientAddress::of(seen)));
        let list = seen.to_string();
        prop_assert_eq!(x(&[&forged, &list]), expected);
        prop_assert_eq!(x(&[&format!("{forged}, {list}")]), expected);
        let node = if seen.is_ipv6() { format!("for=\"[{seen}]\"") } else { format!("for={seen}") };
        prop_assert_eq!(f(&[&forged, &node]), expected);
        // In the same line it may make it unreadable, and no more.
        let joined = format!("{forged}, {node}");
        let read = f(&[&joined]);
        prop_assert!(read == expected || read.is_err(), "{joined}: {read:?}");
    }

    #[test]
    fn what_is_written_by_the_rules_is_read_back(hops in prop::collection::vec(any_ip(), 1..5), port in any::<u16>()) {
        let expected: Vec<_> = hops.iter().map(|ip| Hop::Ip(*ip)).collect();
        let written = |ip: &IpAddr| match ip {
            IpAddr::V4(ip) => format!("for=\"{ip}:{port}\";proto=https"),
            IpAddr::V6(ip) => format!("proto=https;for=\"[{ip}]:{port}\""),
        };
        let list = hops.iter().map(written).collect::<Vec<_>>().join(", ");
        prop_assert_eq!(forwarded(&list), Some(expected.clone()));
        let list = hops.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        prop_assert_eq!(x_forwarded_for(&list).collect::<Option<Vec<_>>>(), Some(expected.into_iter().rev().collect()));
    }
}
