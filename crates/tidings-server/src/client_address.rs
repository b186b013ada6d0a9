//! The address of a client, and the unit that limits per address count.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
};

/// The address of a client. An IPv4 address that arrived on an IPv6 socket is an IPv4 address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ClientAddress {
    /// An IP address.
    Ip(IpAddr),
    /// A program on this machine, connected to a Unix socket.
    Unix,
    /// No address is known. All such clients share the limits of one address.
    Unknown,
}

/// The unit of the limits per address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum Neighbourhood {
    /// An IPv4 address or, for IPv6, a /64 network.
    Network(IpAddr),
    /// All programs that are connected to Unix sockets.
    Unix,
    /// All clients of unknown address.
    Unknown,
    /// One connection, whose client is not known yet.
    Connection(u64),
}

impl ClientAddress {
    pub(crate) fn of(ip: IpAddr) -> Self {
        Self::Ip(ip.to_canonical())
    }

    /// The IP address, if there is one.
    pub fn ip(self) -> Option<IpAddr> {
        match self {
            Self::Ip(ip) => Some(ip),
            Self::Unix | Self::Unknown => None,
        }
    }

    /// Whether the client is a program on this machine. Such clients have no limits of their own.
    pub fn is_local(self) -> bool {
        match self {
            Self::Ip(ip) => ip.is_loopback(),
            Self::Unix => true,
            Self::Unknown => false,
        }
    }
}

impl fmt::Display for ClientAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip) => ip.fmt(f),
            Self::Unix => f.write_str("unix"),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

impl From<ClientAddress> for Neighbourhood {
    fn from(address: ClientAddress) -> Self {
        match address {
            ClientAddress::Ip(IpAddr::V6(ip)) => {
                let [a, b, c, d, ..] = ip.segments();
                Self::Network(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into())
            }
            ClientAddress::Ip(ip) => Self::Network(ip),
            ClientAddress::Unix => Self::Unix,
            ClientAddress::Unknown => Self::Unknown,
        }
    }
}
