//! Metrics of connections. Plain counters: the code that renders them chooses the names.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use http::StatusCode;

use crate::http1::{refusal::Refusal, request_reader::Lateness};

/// Counters of one server's connections, since its start. All may be read at any time.
#[derive(Default, Debug)]
pub struct ConnectionMetrics {
    /// Connections that were accepted, refused ones included.
    pub accepted: AtomicU64,
    /// Connections that are open now, those of subscribers included.
    pub open: AtomicU64,
    /// The limit on open connections.
    pub open_max: AtomicU64,
    /// Requests that reached the service.
    pub requests: AtomicU64,
    /// Times that accepting paused because files or memory had run out.
    pub accept_pauses: AtomicU64,
    /// Found no capacity, because `connections_max` was reached or files had run out, and were served
    /// one request at most.
    pub refused_full: AtomicU64,
    /// Closed without a response: not a byte within `first_byte_secs`.
    pub refused_silent: AtomicU64,
    /// 408: the request headers were not complete within `request_headers_secs`.
    pub refused_late: AtomicU64,
    /// 408: `requests_arriving_max` was reached, and these request headers were the oldest of the
    /// address with the most of them.
    pub refused_crowded: AtomicU64,
    /// 431: the request headers were larger than `request_headers_bytes_max`, or had too many lines.
    pub refused_large: AtomicU64,
    /// 400: the request headers were malformed or ambiguous.
    pub refused_malformed: AtomicU64,
    /// HTTP/2 connections that were ended because their frames requested nothing.
    pub refused_flood: AtomicU64,
    /// Connections of trusted proxies that were closed, because they did not begin with a valid PROXY
    /// header in time.
    pub refused_proxy_header: AtomicU64,
    /// 505 and 501: another version of HTTP, or CONNECT.
    pub refused_unsupported: AtomicU64,
    /// Kept connections that were closed without a request: after `keep_alive_secs`, or because
    /// others needed the capacity. This is no refusal.
    pub closed_idle: AtomicU64,
    /// Connections, and requests of HTTP/2, that were ended because the client did not read a
    /// response within `response_secs`.
    pub closed_slow: AtomicU64,
}

impl ConnectionMetrics {
    /// The reasons of refusals, in the order of [`refused`](Self::refused).
    pub const REFUSED_REASONS: [&str; 9] =
        ["full", "silent", "late", "crowded", "large", "malformed", "flood", "proxy_header", "unsupported"];

    /// The refusals by reason, in the order of [`REFUSED_REASONS`](Self::REFUSED_REASONS).
    pub fn refused(&self) -> [u64; 9] {
        [
            self.refused_full.load(Relaxed),
            self.refused_silent.load(Relaxed),
            self.refused_late.load(Relaxed),
            self.refused_crowded.load(Relaxed),
            self.refused_large.load(Relaxed),
            self.refused_malformed.load(Relaxed),
            self.refused_flood.load(Relaxed),
            self.refused_proxy_header.load(Relaxed),
            self.refused_unsupported.load(Relaxed),
        ]
    }

    pub(crate) fn count_refusal(&self, refusal: Refusal) {
        let counter = match refusal.status() {
            _ if refusal == Refusal::HeadersCrowded => &self.refused_crowded,
            StatusCode::REQUEST_TIMEOUT => &self.refused_late,
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => &self.refused_large,
            StatusCode::BAD_REQUEST => &self.refused_malformed,
            _ => &self.refused_unsupported,
        };
        counter.fetch_add(1, Relaxed);
    }

    pub(crate) fn count_lateness(&self, lateness: Lateness) {
        match lateness {
            Lateness::Silent => self.refused_silent.fetch_add(1, Relaxed),
            Lateness::Idle => self.closed_idle.fetch_add(1, Relaxed),
            // Counted with its response.
            Lateness::Headers => 0,
        };
    }
}
