//! A port for the application, on which nothing listens.

use std::{fs, io, net::TcpListener, ops::Range};

use tidings_net::random_share;

/// The ports that are tried. Those of outgoing connections are left out where it is known which they
/// are: while the application restarts, no connection may get its port by chance, and a connection
/// to a port on which nothing listens may become one to itself.
const PORTS: Range<u16> = 20_000..32_000;
/// How many are tried before the system chooses.
const TRIES_MAX: usize = 100;
/// The first and the last port of outgoing connections, on Linux.
const OUTGOING: &str = "/proc/sys/net/ipv4/ip_local_port_range";

/// A port that is free on all IPv4 addresses, since an application may listen on any of them.
pub(crate) fn free_port() -> io::Result<u16> {
    let outgoing = fs::read_to_string(OUTGOING).ok().and_then(|text| first_and_last(&text));
    let is_outgoing = |port: &u16| outgoing.is_some_and(|(first, last)| (first..=last).contains(port));
    let candidates = std::iter::repeat_with(|| at(random_share())).take(TRIES_MAX);
    let mut free = candidates.filter(|port| !is_outgoing(port)).filter_map(|port| bound(port).ok());
    free.next().map_or_else(|| bound(0), Ok)
}

/// The port at a share from 0 to 1 of [`PORTS`].
fn at(share: f64) -> u16 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is within the range")]
    let offset = (f64::from(PORTS.end - 1 - PORTS.start) * share) as u16;
    PORTS.start + offset
}

/// The port of a socket that could be bound to it, and was.
fn bound(port: u16) -> io::Result<u16> {
    Ok(TcpListener::bind(("0.0.0.0", port))?.local_addr()?.port())
}

fn first_and_last(text: &str) -> Option<(u16, u16)> {
    let mut numbers = text.split_whitespace().map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_within_the_range_and_free() {
        assert_eq!([at(0.0), at(1.0)], [PORTS.start, PORTS.end - 1]);
        let port = free_port().unwrap();
        assert!(TcpListener::bind(("127.0.0.1", port)).is_ok());
    }

    #[test]
    fn the_ports_of_outgoing_connections_are_read() {
        assert_eq!(first_and_last("32768\t60999\n"), Some((32_768, 60_999)));
        assert_eq!(first_and_last("32768"), None);
        assert_eq!(first_and_last(""), None);
    }
}
