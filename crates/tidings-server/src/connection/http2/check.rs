//! Checks a request of HTTP/2 by the rules that `http1::request_headers` has for HTTP/1, as far as
//! the frames have not seen to them already: where a message ends is theirs.

use http::{HeaderValue, Method, Request, header};

use crate::http1::{Refusal, is_host};

/// `fragment_mark`: the field that a request has whose target had a fragment.
pub(super) fn check<B>(request: &Request<B>, fragment_mark: &str) -> Result<(), Refusal> {
    if request.method() == Method::CONNECT {
        return Err(Refusal::MethodConnect);
    }
    if request.headers().contains_key(fragment_mark) {
        return Err(Refusal::TargetMalformed);
    }
    // RFC 9113, 8.2.1. In HTTP/1.1 such white space belongs to the line and not to the value.
    let is_padded = |value: &HeaderValue| {
        let value = value.as_bytes();
        let is_space = |byte: Option<&u8>| byte.is_some_and(|byte| matches!(byte, b' ' | b'\t'));
        is_space(value.first()) || is_space(value.last())
    };
    if request.headers().values().any(is_padded) {
        return Err(Refusal::ValuePadded);
    }
    let path = request.uri().path();
    if !(path.starts_with('/') || (path == "*" && request.method() == Method::OPTIONS)) {
        return Err(Refusal::TargetMalformed);
    }
    // RFC 9113, 8.3.1: the authority, or else Host, as one of them at least says; the one that says
    // both says the same.
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let named = hosts.next().map(HeaderValue::as_bytes);
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
