//! Ports for servers that cannot be handed a listening socket.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::ops::Range;

use anyhow::Context;

/// Below the ports of outgoing connections: while a server is stopped, no other socket gets its
/// port by chance, and a client that tries to connect to it does not connect to itself.
const PORTS: Range<u16> = 10_000..32_000;
/// The number of ports that are tried.
const TRIES_MAX: usize = 1_000;

/// A reserved TCP port of loopback, also while nothing listens on it.
///
/// The UDP socket of the same number reserves it: every test binds that socket first.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _held: UdpSocket,
}

impl Port {
    /// A port on which nothing listens.
    pub fn reserve() -> anyhow::Result<Self> {
        for _ in 0..TRIES_MAX {
            let number = PORTS.start + random()? % (PORTS.end - PORTS.start);
            let Ok(held) = UdpSocket::bind((Ipv4Addr::LOCALHOST, number)) else { continue };
            if TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok() {
                return Ok(Self { number, _held: held });
            }
        }
        anyhow::bail!("no free port among {TRIES_MAX} in {PORTS:?}")
    }

    /// The number of the port.
    pub fn number(&self) -> u16 {
        self.number
    }
}

fn random() -> anyhow::Result<u16> {
    let random = getrandom::u32().context("the system gives no random numbers")?;
    Ok(u16::try_from(random >> 16).expect("half of 32 bits"))
}
