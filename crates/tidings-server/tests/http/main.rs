//! HTTP/1.1 and HTTP/2 on real sockets, without the APIs of the hub.

mod connections;
mod floods;
mod listener;
#[path = "../log_support/mod.rs"]
mod log_support;
mod requests;
#[path = "../http_support/mod.rs"]
mod support;
