//! The header gate in front of hyper: where one request ends and the next begins, and which request
//! headers may pass.
//!
//! [`HeadGate`] is a pure state machine: bytes and time go in, decisions come out; it owns no
//! socket, no clock and no buffer. The connection (see `connection`) passes it the bytes that have
//! arrived and forwards to hyper what it releases, so that a silent or slow connection costs a
//! socket and a timer, and no parser.
//!
//! Invariants:
//! - Request headers are released complete or not at all, and only after [`check`] has accepted
//!   them.
//! - A decision depends on the bytes, not on how they were cut into packets.
//! - What the gate accepts is a strict subset of what hyper accepts, so that both agree on where a
//!   message ends.
//! - Nothing of a later request is released before the earlier one has been answered.

mod check;
mod framing;
#[cfg(test)]
mod properties;
mod refusal;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use memchr::memchr_iter;

use check::check;
pub(crate) use check::{check_http2, parsed};
use framing::Framing;
pub(crate) use refusal::Refusal;

/// RFC 9113, 3.4: what a client sends first that knows that it may speak HTTP/2. It was chosen to
/// be no request of HTTP/1.
pub(crate) const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How long and how large a head may be, and what may stand in place of the first one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeadLimits {
    /// From the start of a connection to its first byte.
    pub(crate) first_byte: Duration,
    /// From the start of a connection, or from the first byte of a later request, to the end of the
    /// head.
    pub(crate) head: Duration,
    /// From the end of an answer to the first byte of the next request.
    pub(crate) keep_alive: Duration,
    /// Request line, header lines and line ends together.
    pub(crate) head_bytes_max: usize,
    /// The first bytes of a connection may be [`HTTP2_PREFACE`].
    pub(crate) http2: bool,
}

/// What to do with the bytes that are waiting.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Decision {
    /// Nothing yet: more bytes, or the end of an answer, are awaited.
    Wait,
    /// This many of them, from the front, may go to hyper.
    Release(usize),
    /// They are not a request; say so and close.
    Refuse(Refusal),
    /// They are the preface of HTTP/2, and perhaps more: this connection has no heads of HTTP/1.
    Http2,
    /// They break the body of a request that hyper has already: its handler is notified that the
    /// body ends here.
    Broken,
}

/// What a deadline that has passed means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Lateness {
    /// A connection that never sent a byte: it is closed without an answer.
    Silent,
    /// A kept connection that sent no further request: it is closed without an answer.
    Idle,
    /// A head that has begun and did not end: 408.
    Head,
}

/// The state of one connection's input. See the module's documentation.
#[derive(Debug)]
pub(crate) struct HeadGate {
    limits: HeadLimits,
    phase: Phase,
    /// The request that is being received has been answered already, before its body has ended.
    answered: bool,
}

#[derive(Debug)]
enum Phase {
    /// No byte of a head has come. `head_until` is set for the first request: its time runs from
    /// the start.
    Quiet { until: Instant, head_until: Option<Instant> },
    /// A head has begun. `may_be_http2`: so far, it may also be the preface of HTTP/2.
    Head { until: Instant, scan: Scan, may_be_http2: bool },
    /// A head has passed, its body is coming.
    Body(Framing),
    /// The request is complete, its answer is not.
    Answering,
}

/// How far a head has been looked at.
#[derive(Clone, Copy, Default, Debug)]
struct Scan {
    scanned: usize,
    /// Where the line begins that `scanned` is in.
    line: usize,
}

impl HeadGate {
    pub(crate) fn new(limits: HeadLimits, now: Instant) -> Self {
        let phase = Phase::Quiet { until: now + limits.first_byte, head_until: Some(now + limits.head) };
        Self { limits, phase, answered: false }
    }

    /// Decides about `bytes`: everything that has arrived and was not released yet.
    pub(crate) fn receive(&mut self, bytes: &[u8], now: Instant) -> Decision {
        if bytes.is_empty() {
            return Decision::Wait;
        }
        if let Phase::Quiet { head_until, .. } = self.phase {
            let until = head_until.unwrap_or(now + self.limits.head);
            let may_be_http2 = self.limits.http2 && head_until.is_some();
            self.phase = Phase::Head { until, scan: Scan::default(), may_be_http2 };
        }
        match &mut self.phase {
            Phase::Quiet { .. } | Phase::Answering => Decision::Wait,
            Phase::Head { may_be_http2: true, .. } if bytes.starts_with(HTTP2_PREFACE) => Decision::Http2,
            Phase::Head { may_be_http2: true, .. } if HTTP2_PREFACE.starts_with(bytes) => Decision::Wait,
            Phase::Head { scan, .. } => match scan.end_of_head(bytes, self.limits.head_bytes_max) {
                Err(refusal) => Decision::Refuse(refusal),
                Ok(None) => Decision::Wait,
                Ok(Some(end)) => match check(&bytes[..end]) {
                    Err(refusal) => Decision::Refuse(refusal),
                    Ok(framing) => {
                        self.answered = false;
                        self.phase =
                            if framing.is_complete() { Phase::Answering } else { Phase::Body(framing) };
                        Decision::Release(end)
                    }
                },
            },
            Phase::Body(framing) => {
                let released = framing.advance(bytes);
                if released == 0 {
                    return Decision::Broken;
                }
                if framing.is_complete() {
                    self.phase = if self.answered { self.quiet(now) } else { Phase::Answering };
                }
                Decision::Release(released)
            }
        }
    }

    /// The answer to the current request is on its way to the client, to its last byte.
    pub(crate) fn answered(&mut self, now: Instant) {
        match self.phase {
            Phase::Answering => self.phase = self.quiet(now),
            // Answered before the body had ended: the rest of the body belongs to nobody, but the
            // next head comes behind it.
            Phase::Body(_) => self.answered = true,
            Phase::Quiet { .. } | Phase::Head { .. } => {}
        }
    }

    /// When patience ends, if anything is awaited from the client at all.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Quiet { until, .. } | Phase::Head { until, .. } => Some(until),
            // A body's deadline is the handler's, who knows what it waits for (`read_body`).
            Phase::Body(_) | Phase::Answering => None,
        }
    }

    /// What it means that the deadline has passed, if it has.
    pub(crate) fn lateness(&self, now: Instant) -> Option<Lateness> {
        match self.phase {
            Phase::Quiet { until, head_until: Some(_) } if now >= until => Some(Lateness::Silent),
            Phase::Quiet { until, head_until: None } if now >= until => Some(Lateness::Idle),
            Phase::Head { until, .. } if now >= until => Some(Lateness::Head),
            _ => None,
        }
    }

    /// No byte of a request is here that has not been answered.
    pub(crate) fn is_quiet(&self) -> bool {
        matches!(self.phase, Phase::Quiet { .. })
    }

    /// A head has begun, but has not ended.
    pub(crate) fn is_in_head(&self) -> bool {
        matches!(self.phase, Phase::Head { .. })
    }

    /// The bytes of a head are awaited: of the first one from the start, of a later one once it has
    /// begun.
    pub(crate) fn awaits_head(&self) -> bool {
        matches!(self.phase, Phase::Head { .. } | Phase::Quiet { head_until: Some(_), .. })
    }

    /// A request has been received whole and its answer is being made.
    pub(crate) fn is_answering(&self) -> bool {
        matches!(self.phase, Phase::Answering)
    }

    fn quiet(&self, now: Instant) -> Phase {
        Phase::Quiet { until: now + self.limits.keep_alive, head_until: None }
    }
}

impl Scan {
    /// Looks for the empty line that ends the head. What is wrong first, in the order of the bytes,
    /// decides.
    fn end_of_head(&mut self, bytes: &[u8], bytes_max: usize) -> Result<Option<usize>, Refusal> {
        // RFC 9112, 3: a request begins with a method, a token. (A TLS hello ends here, and need
        // not wait for its time-out.)
        if !(bytes[0] == b'\r' || check::is_token_byte(bytes[0])) {
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
        if window.len() == bytes_max { Err(Refusal::HeadTooLarge) } else { Ok(None) }
    }
}
