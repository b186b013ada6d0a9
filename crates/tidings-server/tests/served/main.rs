//! The APIs on real sockets: what holds for the router holds through a connection.

mod admission;
mod guarantees;
mod http2;
mod limits;
mod no_capacity;
mod publish_ways;
#[path = "../served_support/mod.rs"]
mod served_support;
mod split_requests;
mod streams;
#[path = "../support/mod.rs"]
mod support;
mod upstream_http2;
