//! The limits of connections.

use crate::{acceptor::DEAD_PEER_DEFAULT, descriptors::connections_for_file_limit};

/// Everything a connection may cost before a handler sees its request, each limit with its default,
/// and with what a client receives that exceeds it. (A body's limits are the handlers', see
/// [`read_body`](crate::read_body).)
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConnectionSettings {
    /// Most connections at a time, subscribers included. For one more, a connection is closed: one
    /// whose request headers are incomplete, see `requests_arriving_max`, or else the one that has
    /// been idle longest. If there is neither, the new one is served one request, marked with
    /// [`NoCapacity`](crate::NoCapacity): health checks are answered, browsers are asked to come
    /// back later, and other clients receive 503 with Retry-After. The same holds where the system
    /// has no more file descriptors. Default: as many as the limit on file descriptors allows, see
    /// [`connections_for_file_limit`].
    pub connections_max: usize,
    /// Seconds from the start of a connection to its first byte. Default 5. A silent connection is
    /// closed without a response.
    pub first_byte_secs: u64,
    /// Seconds from the start of a connection, or from the first byte of a later request, to the
    /// end of the request headers. Default 10. Response: 408.
    pub request_headers_secs: u64,
    /// Seconds that a connection is kept after a response until the next request begins. Default
    /// 75. It is then closed without a response, and sooner where others need the capacity, see
    /// `connections_max`.
    pub keep_alive_secs: u64,
    /// Most bytes of a request line and its headers. Default 32 KiB. Response: 431.
    pub request_headers_bytes_max: usize,
    /// Most first requests of connections that are processed at a time. Further ones wait, in the
    /// order in which they arrived, for at most 5 seconds. Requests whose body is still arriving do
    /// not count. Default 1,024.
    pub requests_max: usize,
    /// Most requests whose headers are still arriving, connections that have sent nothing included.
    /// Default 4,096. For one more, or for one connection more than `connections_max`, the address
    /// that has the most of them loses its oldest. Response: 408.
    pub requests_arriving_max: usize,
    /// Whether connections may begin with the preface of HTTP/2 (without TLS, "prior knowledge"),
    /// as proxies use it. Such a connection carries 128 requests at a
    /// time, streams included, and costs some 24 KiB, each stream 2 more. Default: yes. Otherwise
    /// it is answered 505.
    pub http2: bool,
    /// Seconds that the other end of a connection may acknowledge nothing, or read nothing, before
    /// the connection is reset. Default 30: with a heartbeat every 15 seconds, a client that
    /// vanishes is detected within 45.
    pub dead_peer_secs: u64,
    /// Seconds that a client may take to read a response other than a stream, however little of it
    /// at a time. Default 60. The connection is then reset; over HTTP/2 the request is.
    pub response_secs: u64,
    /// Seconds that responses are given to end when the server stops. Default 10. What is left is
    /// cut.
    pub drain_secs: u64,
    /// Whether requests that are refused before a handler sees them are logged, with the target
    /// `tidings::access`. Default: no.
    pub access_log: bool,
}

impl Default for ConnectionSettings {
    fn default() -> Self {
        Self {
            connections_max: connections_for_file_limit(),
            first_byte_secs: 5,
            request_headers_secs: 10,
            keep_alive_secs: 75,
            request_headers_bytes_max: 32 * 1024,
            requests_max: 1024,
            requests_arriving_max: 4096,
            http2: true,
            dead_peer_secs: DEAD_PEER_DEFAULT.as_secs(),
            response_secs: 60,
            drain_secs: 10,
            access_log: false,
        }
    }
}
