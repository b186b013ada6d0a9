//! HTTP/1.1 and HTTP/1.0, from bytes to [`http::Request`]s and from responses to bytes.
//!
//! | what | where |
//! |---|---|
//! | where the headers of a request end, and how long they may take | `request_reader` |
//! | what they contain, and what is refused | `request_headers`, `grammar`, `refusal` |
//! | where a body ends | `body_decoder` |
//! | what a handler reads of it | `request_body` |
//! | headers and framing of a response | `response` |
//! | the socket: reading, timer, the end of a connection | `connection` |
//! | one request and its response | `exchange` |
//! | what a handler learns of a client that disconnects | `input_end` |
//! | what a connection is made of: a socket, perhaps with TLS (`crate::tls`) | `transport` |
//!
//! `request_reader`, `request_headers`, `body_decoder` and `response` are pure: bytes and time go
//! in. Everything of a connection happens in its one task. A request that has arrived whole reaches
//! its handler without a channel, and its response leaves in one write. A stream's socket leaves
//! this module together with the stream ([`Then::HandOver`]): everything before it was written.
//!
//! | a client may | at most | beyond |
//! |---|---|---|
//! | send headers of | `request_headers_bytes_max`, 100 lines | 431 |
//! | send ahead of a response | 8 KiB and one read | it has to wait; behind a stream it is disconnected |
//! | send of a body before it is read | one read of 16 KiB | it has to wait |
//! | send of a body that is not read | 64 KiB | the response says `Connection: close` |
//! | send extensions of chunks, trailer fields | 4 KiB, 8 KiB of each body | the body is broken: 400 |
//! | leave a response unread | 64 KiB and a piece of its body | the body is not asked for more, and the client is disconnected after `response_secs` |

mod body_decoder;
mod connection;
mod exchange;
mod grammar;
mod input_end;
pub(crate) mod refusal;
mod request_body;
mod request_headers;
pub(crate) mod request_reader;
mod response;
#[cfg(test)]
pub(crate) mod tests;
mod transport;

pub use self::request_body::{RequestBody, RequestBodyError};
pub(crate) use self::{
    connection::{Connection, Next},
    exchange::{Then, exchange},
    grammar::is_host,
    input_end::client_left,
    refusal::Refusal,
    request_headers::has_connection_option,
    request_reader::{HTTP2_PREFACE, Lateness, RequestLimits},
    transport::{HubSocket, PlainHttp, Transport},
};
