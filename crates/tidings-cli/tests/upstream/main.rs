//! The application behind the hub: `--upstream URL`.

#![cfg(unix)]

mod application;
mod bodies;
mod failures;
mod requests;
mod responses;
mod smuggling;
mod streams;
mod tunnels;
