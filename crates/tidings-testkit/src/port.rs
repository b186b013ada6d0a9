//! Ports for servers that cannot be handed a listening socket.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::ops::Range;

use anyhow::Context;

/// Below the ports that systems give to outgoing connections: while a server is stopped, nobody gets its port by chance, and
/// nobody who tries to connect to it connects to himself.
const PORTS: Range<u16> = 10_000..32_000;
/// Ports that are tried.
const TRIES_MAX: usize = 1_000;

/// A TCP port of loopback that stays ours, also while nothing listens there.
///
/// What holds it is the UDP socket of the same number: every test that looks for a port asks for that one first.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _held: UdpSocket,
}

impl Port {
    /// A port where nobody listens.
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
