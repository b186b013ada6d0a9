//! Parses request headers, once, and checks what a lenient server would let pass.
//!
//! RFC 9112 lets recipients repair much. This server stands next to others, in front of it or
//! behind, and two that repair a request differently disagree on where it ends. So headers that
//! could be read in two ways are refused.

use std::mem::MaybeUninit;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version, header};
use httparse::{Error, Header, Status};
use memchr::{memchr, memchr_iter};

use super::{body_decoder::BodyDecoder, grammar::is_host, refusal::Refusal};

/// Most header lines of a request.
const HEADERS_MAX: usize = 100;

/// What request headers contain.
#[derive(Debug)]
pub(crate) struct RequestHeaders {
    pub(crate) request: Request<()>,
    /// How the body behind them is framed.
    pub(crate) body: BodyDecoder,
    /// Whether the client may send another request on this connection.
    pub(crate) keeps_alive: bool,
    /// Whether the client has said that it closes the connection.
    pub(crate) says_close: bool,
    /// Whether the client waits for `100 Continue` before it sends the body.
    pub(crate) expects_continue: bool,
}

/// Parses request headers, from their first byte to the empty line that ends them. The values of
/// the fields are slices of `bytes`.
pub(crate) fn parse(bytes: &Bytes) -> Result<RequestHeaders, Refusal> {
    // RFC 9112, 2.2: a CR that is not followed by LF is invalid in every element.
    if memchr_iter(b'\r', bytes).any(|at| bytes.get(at + 1) != Some(&b'\n')) {
        return Err(Refusal::CarriageReturnBare);
    }
    let mut lines = [const { MaybeUninit::<Header<'_>>::uninit() }; HEADERS_MAX];
    let mut parsed = httparse::Request::new(&mut []);
    match parsed.parse_with_uninit_headers(bytes, &mut lines) {
        Ok(Status::Complete(length)) if length == bytes.len() => {}
        Ok(_) => return Err(Refusal::RequestLineMalformed),
        Err(error) => return Err(refusal_of(error, bytes)),
    }
    let (Some(method), Some(target), Some(version_minor)) = (parsed.method, parsed.path, parsed.version)
    else {
        return Err(Refusal::RequestLineMalformed);
    };
    let method = Method::from_bytes(method.as_bytes()).map_err(|_| Refusal::RequestLineMalformed)?;
    let uri = checked_target(&method, bytes, target)?;
    let mut fields = Fields::default();
    let mut headers = HeaderMap::with_capacity(parsed.headers.len());
    for line in &*parsed.headers {
        let name = HeaderName::from_bytes(line.name.as_bytes()).map_err(|_| Refusal::HeaderMalformed)?;
        fields.read(&name, line.value)?;
        let value = HeaderValue::from_maybe_shared(bytes.slice_ref(line.value));
        headers.append(name, value.map_err(|_| Refusal::HeaderMalformed)?);
    }
    fields.check_host(version_minor)?;

    let mut request = Request::new(());
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.version_mut() = if version_minor == 0 { Version::HTTP_10 } else { Version::HTTP_11 };
    *request.headers_mut() = headers;
    Ok(RequestHeaders {
        request,
        body: fields.framing(version_minor)?,
        // RFC 9112, 9.3: `close` wins; HTTP/1.0 keeps a connection only on request.
        keeps_alive: !fields.says_close && (version_minor > 0 || fields.says_keep_alive),
        says_close: fields.says_close,
        // RFC 9110, 10.1.1: to be ignored in HTTP/1.0.
        expects_continue: fields.expects_continue && version_minor > 0,
    })
}

/// Whether one of these fields is `Connection` with this option (RFC 9110, 7.6.1).
pub(crate) fn has_connection_option(headers: &HeaderMap, option: &str) -> bool {
    let values = headers.get_all(header::CONNECTION).iter();
    let mut options = values.flat_map(|value| list(value.as_bytes()));
    options.any(|found| found.eq_ignore_ascii_case(option.as_bytes()))
}

/// The elements of a field that is a list (RFC 9110, 5.6.1).
fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii)
}

fn refusal_of(error: Error, bytes: &[u8]) -> Refusal {
    match error {
        Error::TooManyHeaders => Refusal::HeadersTooMany,
        Error::HeaderName | Error::HeaderValue => Refusal::HeaderMalformed,
        Error::Version if has_other_version(bytes) => Refusal::VersionUnknown,
        _ => Refusal::RequestLineMalformed,
    }
}

/// RFC 9112, 2.3 and 3: method, target, and `HTTP/`, a digit, a dot, a digit. Anything else is no
/// request line at all.
fn has_other_version(bytes: &[u8]) -> bool {
    let bytes = bytes.strip_prefix(b"\r\n").unwrap_or(bytes);
    let line = &bytes[..memchr(b'\r', bytes).unwrap_or(bytes.len())];
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
fn checked_target(method: &Method, bytes: &Bytes, target: &str) -> Result<Uri, Refusal> {
    if method == Method::CONNECT {
        return Err(Refusal::MethodConnect);
    }
    // A fragment is the client's own; http::Uri would drop it without a word.
    if (target == "*" && method != Method::OPTIONS) || target.contains('#') {
        return Err(Refusal::TargetMalformed);
    }
    let uri = Uri::from_maybe_shared(bytes.slice_ref(target.as_bytes()));
    let uri = uri.map_err(|_| Refusal::TargetMalformed)?;
    if target == "*" || target.starts_with('/') {
        return Ok(uri);
    }
    match (uri.scheme_str(), uri.authority()) {
        (Some("http" | "https"), Some(authority)) if is_host(authority.as_str().as_bytes()) => Ok(uri),
        (Some("http" | "https"), Some(_)) => Err(Refusal::HostMalformed),
        _ => Err(Refusal::TargetMalformed),
    }
}

/// The fields that say where a request goes, where it ends, and what follows it.
#[derive(Default)]
struct Fields<'a> {
    host: Option<&'a [u8]>,
    length: Option<&'a [u8]>,
    encoding: Option<&'a [u8]>,
    says_close: bool,
    says_keep_alive: bool,
    expects_continue: bool,
}

impl<'a> Fields<'a> {
    fn read(&mut self, name: &HeaderName, value: &'a [u8]) -> Result<(), Refusal> {
        let (slot, doubled) = match *name {
            header::HOST => (&mut self.host, Refusal::HostDoubled),
            header::CONTENT_LENGTH => (&mut self.length, Refusal::LengthDoubled),
            header::TRANSFER_ENCODING => (&mut self.encoding, Refusal::EncodingUnknown),
            header::CONNECTION => {
                for token in list(value) {
                    self.says_close |= token.eq_ignore_ascii_case(b"close");
                    self.says_keep_alive |= token.eq_ignore_ascii_case(b"keep-alive");
                }
                return Ok(());
            }
            header::EXPECT => {
                self.expects_continue |= value.eq_ignore_ascii_case(b"100-continue");
                return Ok(());
            }
            _ => return Ok(()),
        };
        if slot.replace(value.trim_ascii()).is_some() { Err(doubled) } else { Ok(()) }
    }

    /// RFC 9112, 3.2: exactly one valid Host in HTTP/1.1, at most one in HTTP/1.0.
    fn check_host(&self, version_minor: u8) -> Result<(), Refusal> {
        match self.host {
            None if version_minor > 0 => Err(Refusal::HostMissing),
            Some(host) if !is_host(host) => Err(Refusal::HostMalformed),
            _ => Ok(()),
        }
    }

    /// RFC 9112, 6.1 and 6.3: where a message ends must not be a matter of opinion.
    fn framing(&self, version_minor: u8) -> Result<BodyDecoder, Refusal> {
        match (self.encoding, self.length) {
            (Some(_), Some(_)) => Err(Refusal::LengthWithEncoding),
            (Some(_), None) if version_minor == 0 => Err(Refusal::EncodingTooNew),
            (Some(coding), None) if coding.eq_ignore_ascii_case(b"chunked") => Ok(BodyDecoder::chunked()),
            (Some(_), None) => Err(Refusal::EncodingUnknown),
            (None, Some(digits)) => {
                parse_length(digits).map(BodyDecoder::Length).ok_or(Refusal::LengthMalformed)
            }
            (None, None) => Ok(BodyDecoder::Length(0)),
        }
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
