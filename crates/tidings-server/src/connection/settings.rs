//! The limits of connections.

use crate::listener::{DEAD_PEER_DEFAULT, connections_for_file_limit};

/// Everything a connection may cost before a handler sees its request, each limit with its default,
/// and with what a client receives that goes beyond it. (A body's limits are the handlers', see
/// [`read_body`].)
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConnectionSettings {
    /// Most connections at a time, subscribers included. One more takes the room of a head that is
    /// still waited for, see `heads_waiting_max`, or else of a connection without a request: the
    /// address that has the most of them loses the one that has been idle longest. If there is none
    /// either, it is served one request, marked with [`NoRoom`]: the hub tells its health, asks
    /// browsers to come back later, and answers 503 with Retry-After to everybody else. The same
    /// holds where the system has no more files. Default: what the limit of open files leaves room
    /// for, see [`connections_for_file_limit`].
    pub connections_max: usize,
    /// Seconds from the start of a connection to its first byte. Default 5. A silent connection is
    /// closed without an answer.
    pub first_byte_secs: u64,
    /// Seconds from the start of a connection, or from the first byte of a later request, to the
    /// end of the head. Default 10. Answer: 408.
    pub head_secs: u64,
    /// Seconds that a connection is kept after an answer until the next request begins. Default 75.
    /// It is then closed without an answer, and sooner where others need the room, see
    /// `connections_max`.
    pub keep_alive_secs: u64,
    /// Most bytes of a request line and its headers. Default 32 KiB. Answer: 431.
    pub head_bytes_max: usize,
    /// Most complete first heads that are being answered at a time. Further ones wait for their
    /// turn, in the order in which they came, for at most 5 seconds. Requests whose body is still
    /// to come do not count. Default 1,024, which costs some 20 MiB.
    pub heads_max: usize,
    /// Most heads that are waited for at a time: connections that have said nothing yet, or only a
    /// part of a head. Default 4,096. One more, or one connection more than `connections_max`, and
    /// the address that has the most of them loses its oldest. Answer: 408.
    pub heads_waiting_max: usize,
    /// Whether connections may begin with the preface of HTTP/2 (without TLS, "prior knowledge"),
    /// as proxies speak to what stands behind them. Such a connection carries 128 requests at a
    /// time, streams included, and costs some 24 KiB, each stream 2 more. Default: yes. Otherwise
    /// it is answered 505.
    pub http2: bool,
    /// Seconds that the other end of a connection may acknowledge nothing, or take nothing, before
    /// the connection is reset. Default 30: with a heartbeat every 15 seconds, the one that
    /// vanishes is found within 45.
    pub dead_peer_secs: u64,
    /// Seconds that a client may take to receive an answer other than a stream, however little of
    /// it at a time. Default 60. The connection is then reset; over HTTP/2 the request is.
    pub response_secs: u64,
    /// Seconds that running answers are given to end when the server stops. Default 10. What is
    /// left is cut.
    pub drain_secs: u64,
}

impl Default for ConnectionSettings {
    fn default() -> Self {
        Self {
            connections_max: connections_for_file_limit(),
            first_byte_secs: 5,
            head_secs: 10,
            keep_alive_secs: 75,
            head_bytes_max: 32 * 1024,
            heads_max: 1024,
            heads_waiting_max: 4096,
            http2: true,
            dead_peer_secs: DEAD_PEER_DEFAULT.as_secs(),
            response_secs: 60,
            drain_secs: 10,
        }
    }
}
