//! Sockets that connect without waiting.

use std::{net::SocketAddr, os::fd::OwnedFd};

use rustix::{
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType, connect, socket_with},
};

use crate::BenchError;

pub(super) fn stream_socket(address: SocketAddr) -> Result<OwnedFd, BenchError> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    socket_with(family, SocketType::STREAM, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC, None)
        .map_err(|error| BenchError::machine("cannot open a socket", error))
}

pub(super) fn begin_connecting(socket: &OwnedFd, address: SocketAddr) -> Result<(), BenchError> {
    match connect(socket, &address) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(()),
        Err(error) => Err(no_connection(address, Some(error))),
    }
}

pub(super) fn no_connection(address: SocketAddr, error: Option<Errno>) -> BenchError {
    let why = error.map_or_else(|| "it was closed at once".to_owned(), |error| error.to_string());
    BenchError::hub(format!("no connection to {address}: {why}"))
}
