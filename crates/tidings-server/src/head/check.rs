//! Checks that complete request headers must pass before hyper sees them.

use std::{mem::MaybeUninit, net::Ipv6Addr};

use http::Uri;
use httparse::{Error, Header, Request, Status};
use memchr::{memchr, memchr_iter};

use super::{Refusal, framing::Framing};

/// Most header lines of a request. It is hyper's own limit: a larger one would cost it an
/// allocation per request.
const HEADERS_MAX: usize = 100;

/// Judges a head, from its first byte to the empty line that ends it, and says how the body behind
/// it is framed.
pub(super) fn check(head: &[u8]) -> Result<Framing, Refusal> {
    // RFC 9112, 2.2: a CR that is not followed by LF is invalid in every element.
    if memchr_iter(b'\r', head).any(|at| head.get(at + 1) != Some(&b'\n')) {
        return Err(Refusal::CarriageReturnBare);
    }
    let mut headers = [const { MaybeUninit::<Header<'_>>::uninit() }; HEADERS_MAX];
    let mut request = Request::new(&mut []);
    match request.parse_with_uninit_headers(head, &mut headers) {
        Ok(Status::Complete(length)) if length == head.len() => {}
        Ok(_) => return Err(Refusal::RequestLineMalformed),
        Err(error) => return Err(refusal_of(error, head)),
    }
    let (Some(method), Some(target), Some(version)) = (request.method, request.path, request.version) else {
        return Err(Refusal::RequestLineMalformed);
    };
    check_target(method, target)?;
    check_headers(request.headers, version)
}

/// What a head that [`check`] has passed says, with its length: `then` reads it where it stands.
/// None if `then` finds nothing, or if the head has not passed.
pub(crate) fn parsed<R>(bytes: &[u8], then: impl FnOnce(&Request<'_, '_>, usize) -> Option<R>) -> Option<R> {
    let mut headers = [const { MaybeUninit::<Header<'_>>::uninit() }; HEADERS_MAX];
    let mut request = Request::new(&mut []);
    match request.parse_with_uninit_headers(bytes, &mut headers) {
        Ok(Status::Complete(length)) => then(&request, length),
        _ => None,
    }
}

/// Judges a request of HTTP/2 by the rules that [`check`] has for heads of HTTP/1, as far as the
/// frames have not seen to them already: where a message ends is theirs. `fragment_mark`: the field
/// that a request bears whose target had a fragment.
pub(crate) fn check_http2<B>(request: &http::Request<B>, fragment_mark: &str) -> Result<(), Refusal> {
    if request.method() == http::Method::CONNECT {
        return Err(Refusal::MethodConnect);
    }
    if request.headers().contains_key(fragment_mark) {
        return Err(Refusal::TargetMalformed);
    }
    // RFC 9113, 8.2.1. In HTTP/1.1 such white space belongs to the line and not to the value.
    let is_padded = |value: &http::HeaderValue| {
        let value = value.as_bytes();
        let is_space = |byte: Option<&u8>| byte.is_some_and(|byte| matches!(byte, b' ' | b'\t'));
        is_space(value.first()) || is_space(value.last())
    };
    if request.headers().values().any(is_padded) {
        return Err(Refusal::ValuePadded);
    }
    let path = request.uri().path();
    if !(path.starts_with('/') || (path == "*" && request.method() == http::Method::OPTIONS)) {
        return Err(Refusal::TargetMalformed);
    }
    // RFC 9113, 8.3.1: the authority, or else Host, as one of them at least says; the one that says
    // both says the same.
    let mut hosts = request.headers().get_all(http::header::HOST).iter();
    let named = hosts.next().map(http::HeaderValue::as_bytes);
    if hosts.next().is_some() {
        return Err(Refusal::HostDoubled);
    }
    let authority = request.uri().authority().map(|authority| authority.as_str().as_bytes());
    match (authority, named) {
        (Some(authority), Some(named)) if !authority.eq_ignore_ascii_case(named) => Err(Refusal::HostDoubled),
        (Some(host), _) | (None, Some(host)) if is_host(host) => Ok(()),
        (None, None) => Err(Refusal::HostMissing),
        _ => Err(Refusal::HostMalformed),
    }
}

fn refusal_of(error: Error, head: &[u8]) -> Refusal {
    match error {
        Error::TooManyHeaders => Refusal::HeadersTooMany,
        Error::HeaderName | Error::HeaderValue => Refusal::HeaderMalformed,
        Error::Version if has_other_version(head) => Refusal::VersionUnknown,
        _ => Refusal::RequestLineMalformed,
    }
}

/// RFC 9112, 2.3 and 3: method, target, and `HTTP/`, a digit, a dot, a digit. Anything else is no
/// request line at all.
fn has_other_version(head: &[u8]) -> bool {
    let head = head.strip_prefix(b"\r\n").unwrap_or(head);
    let line = &head[..memchr(b'\r', head).unwrap_or(head.len())];
    let mut words = line.split(|&byte| byte == b' ').skip(2);
    let is_version = |word: &[u8]| match word {
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor] => {
            major.is_ascii_digit() && minor.is_ascii_digit()
        }
        _ => false,
    };
    words.next().is_some_and(is_version) && words.next().is_none()
}

/// RFC 9112, 3.2: origin-form, absolute-form, or the asterisk of OPTIONS. (The authority-form is
/// CONNECT's.)
fn check_target(method: &str, target: &str) -> Result<(), Refusal> {
    if method == "CONNECT" {
        return Err(Refusal::MethodConnect);
    }
    if target == "*" {
        return if method == "OPTIONS" { Ok(()) } else { Err(Refusal::TargetMalformed) };
    }
    // A fragment is the client's own; http::Uri would drop it without a word.
    if target.contains('#') {
        return Err(Refusal::TargetMalformed);
    }
    // hyper reads the target with the same parser.
    let uri = Uri::try_from(target).map_err(|_| Refusal::TargetMalformed)?;
    if target.starts_with('/') {
        return Ok(());
    }
    match (uri.scheme_str(), uri.authority()) {
        (Some("http" | "https"), Some(authority)) if is_host(authority.as_str().as_bytes()) => Ok(()),
        (Some("http" | "https"), Some(_)) => Err(Refusal::HostMalformed),
        _ => Err(Refusal::TargetMalformed),
    }
}

fn check_headers(headers: &[Header<'_>], version_minor: u8) -> Result<Framing, Refusal> {
    let mut host = None;
    let mut length = None;
    let mut encoding = None;
    for header in headers {
        let (slot, doubled) = if header.name.eq_ignore_ascii_case("host") {
            (&mut host, Refusal::HostDoubled)
        } else if header.name.eq_ignore_ascii_case("content-length") {
            (&mut length, Refusal::LengthDoubled)
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            (&mut encoding, Refusal::EncodingUnknown)
        } else {
            continue;
        };
        if slot.replace(header.value.trim_ascii()).is_some() {
            return Err(doubled);
        }
    }

    // RFC 9112, 3.2: exactly one valid Host in HTTP/1.1, at most one in HTTP/1.0.
    match host {
        None if version_minor > 0 => return Err(Refusal::HostMissing),
        Some(host) if !is_host(host) => return Err(Refusal::HostMalformed),
        _ => {}
    }

    // RFC 9112, 6.1 and 6.3: where a message ends must not be a matter of opinion.
    match (encoding, length) {
        (Some(_), Some(_)) => Err(Refusal::LengthWithEncoding),
        (Some(_), None) if version_minor == 0 => Err(Refusal::EncodingTooNew),
        (Some(coding), None) if coding.eq_ignore_ascii_case(b"chunked") => Ok(Framing::chunked()),
        (Some(_), None) => Err(Refusal::EncodingUnknown),
        (None, Some(digits)) => parse_length(digits).map(Framing::Length).ok_or(Refusal::LengthMalformed),
        (None, None) => Ok(Framing::Length(0)),
    }
}

/// RFC 9110, 8.6: digits only. A length that no file could have is no length.
fn parse_length(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let length: u64 = str::from_utf8(digits).ok()?.parse().ok()?;
    i64::try_from(length).is_ok().then_some(length)
}

/// RFC 9110, 7.2 and RFC 3986, 3.2.2: `uri-host [ ":" port ]`. An http URI has a host (RFC 9110,
/// 4.2.1) and no user (4.2.4).
fn is_host(host: &[u8]) -> bool {
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
            (
                b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b','
                | b';' | b'=',
                _,
            ) => behind,
            (byte, _) if byte.is_ascii_alphanumeric() => behind,
            _ => return false,
        };
    }
    !name.is_empty()
}

/// RFC 9110, 5.6.2: tchar.
pub(super) fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
