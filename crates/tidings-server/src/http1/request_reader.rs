//! Finds the end of the next request's headers, and decides how long they are waited for.
//!
//! [`RequestReader`] is a pure state machine: bytes and time go in, decisions come out; it owns no
//! socket, no clock and no buffer. The connection passes it everything that has arrived since the
//! last response, so a silent or slow connection costs a socket and a timer, and no parser.
//!
//! Invariants:
//! - Headers are found complete or not at all; `request_headers` parses them once.
//! - What is found depends on the bytes, not on how they were cut into packets.
//! - Bytes behind a request are looked at only after its response.

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use memchr::memchr_iter;

use super::{grammar::is_token_byte, refusal::Refusal};

/// RFC 9113, 3.4: what a client sends first that knows that it may use HTTP/2. It was chosen to be
/// no request of HTTP/1.
pub(crate) const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How long request headers may take and how large they may be, and what may stand in place of the
/// first ones.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RequestLimits {
    /// From the start of a connection to its first byte.
    pub(crate) first_byte: Duration,
    /// From the start of a connection, or from the first byte of a later request, to the end of the
    /// headers.
    pub(crate) headers: Duration,
    /// From the end of a response to the first byte of the next request.
    pub(crate) keep_alive: Duration,
    /// Request line, header lines and line ends together.
    pub(crate) headers_bytes_max: usize,
    /// The first bytes of a connection may be [`HTTP2_PREFACE`].
    pub(crate) http2: bool,
}

/// What the bytes that have arrived are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Found {
    /// Not enough: more bytes are awaited.
    Nothing,
    /// The first ones, so many, are complete request headers.
    Headers(usize),
    /// No request headers; the connection is refused.
    Refused(Refusal),
    /// The preface of HTTP/2, and perhaps more: this connection has no requests of HTTP/1.
    Http2,
}

/// What it means that a deadline has passed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Lateness {
    /// A connection that never sent a byte: it is closed without a response.
    Silent,
    /// A kept connection that sent no further request: it is closed without a response.
    Idle,
    /// Request headers that have begun and did not end: 408.
    Headers,
}

/// The state of a connection between two requests. See the module's documentation.
#[derive(Debug)]
pub(crate) struct RequestReader {
    limits: RequestLimits,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    /// No byte of a request has arrived. `headers_until` is set for the first request: its time
    /// runs from the start.
    Idle { until: Instant, headers_until: Option<Instant> },
    /// A request has begun. `may_be_http2`: so far, it may also be the preface of HTTP/2.
    Headers { until: Instant, scan: Scan, may_be_http2: bool },
}

/// How far the headers have been looked at.
#[derive(Clone, Copy, Default, Debug)]
struct Scan {
    scanned: usize,
    /// Where the line begins that `scanned` is in.
    line: usize,
}

impl RequestReader {
    pub(crate) fn new(limits: RequestLimits, now: Instant) -> Self {
        let until = now + limits.first_byte;
        Self { limits, phase: Phase::Idle { until, headers_until: Some(now + limits.headers) } }
    }

    /// A response has been sent: the next request is awaited.
    pub(crate) fn await_next(&mut self, now: Instant) {
        self.phase = Phase::Idle { until: now + self.limits.keep_alive, headers_until: None };
    }

    /// Looks for request headers in everything that has arrived since the last request.
    pub(crate) fn find(&mut self, bytes: &[u8], now: Instant) -> Found {
        if bytes.is_empty() {
            return Found::Nothing;
        }
        if let Phase::Idle { headers_until, .. } = self.phase {
            let until = headers_until.unwrap_or(now + self.limits.headers);
            let may_be_http2 = self.limits.http2 && headers_until.is_some();
            self.phase = Phase::Headers { until, scan: Scan::default(), may_be_http2 };
        }
        match &mut self.phase {
            Phase::Idle { .. } => Found::Nothing,
            Phase::Headers { may_be_http2: true, .. } if bytes.starts_with(HTTP2_PREFACE) => Found::Http2,
            Phase::Headers { may_be_http2: true, .. } if HTTP2_PREFACE.starts_with(bytes) => Found::Nothing,
            Phase::Headers { scan, .. } => match scan.end_of_headers(bytes, self.limits.headers_bytes_max) {
                Err(refusal) => Found::Refused(refusal),
                Ok(None) => Found::Nothing,
                Ok(Some(end)) => Found::Headers(end),
            },
        }
    }

    /// Bytes have arrived that precede the first request, those of a handshake: no longer its first byte
    /// is waited for, but its headers.
    pub(crate) fn first_bytes_arrived(&mut self) {
        if let Phase::Idle { until, headers_until: Some(headers_until) } = &mut self.phase {
            *until = *headers_until;
        }
    }

    /// How long the headers of a request may take.
    pub(crate) fn headers_time(&self) -> Duration {
        self.limits.headers
    }

    /// How long the next bytes are waited for.
    pub(crate) fn deadline(&self) -> Instant {
        match self.phase {
            Phase::Idle { until, .. } | Phase::Headers { until, .. } => until,
        }
    }

    /// What it means that the deadline has passed, if it has.
    pub(crate) fn lateness(&self, now: Instant) -> Option<Lateness> {
        let lateness = match self.phase {
            Phase::Idle { headers_until: Some(_), .. } => Lateness::Silent,
            Phase::Idle { headers_until: None, .. } => Lateness::Idle,
            Phase::Headers { .. } => Lateness::Headers,
        };
        (now >= self.deadline()).then_some(lateness)
    }

    /// No byte of the next request has arrived.
    pub(crate) fn is_idle(&self) -> bool {
        matches!(self.phase, Phase::Idle { .. })
    }

    /// The bytes of request headers are awaited: of the first ones from the start, of later ones
    /// once they have begun.
    pub(crate) fn awaits_headers(&self) -> bool {
        matches!(self.phase, Phase::Headers { .. } | Phase::Idle { headers_until: Some(_), .. })
    }
}

impl Scan {
    /// Looks for the empty line that ends the headers. What is wrong first, in the order of the
    /// bytes, decides.
    fn end_of_headers(&mut self, bytes: &[u8], bytes_max: usize) -> Result<Option<usize>, Refusal> {
        // RFC 9112, 3: a request begins with a method, a token. (A TLS hello ends here, and need
        // not wait for its time-out.)
        if !(bytes[0] == b'\r' || is_token_byte(bytes[0])) {
            return Err(if bytes[0] == b'\n' {
                Refusal::LineFeedBare
            } else {
                Refusal::RequestLineMalformed
            });
        }
        let window = &bytes[..bytes.len().min(bytes_max)];
        for found in memchr_iter(b'\n', &window[self.scanned..]) {
            let feed = self.scanned + found;
            // RFC 9112, 2.2: a recipient may take a bare LF for a line end; a hub that others stand
            // in front of must not, because they may not.
            if feed == 0 || window[feed - 1] != b'\r' {
                return Err(Refusal::LineFeedBare);
            }
            let is_empty = feed - self.line == 1;
            // RFC 9112, 2.2: one empty line before the request line is ignored.
            if is_empty && feed > 1 {
                return Ok(Some(feed + 1));
            }
            self.line = feed + 1;
        }
        self.scanned = window.len();
        if window.len() == bytes_max { Err(Refusal::HeadersTooLarge) } else { Ok(None) }
    }
}
