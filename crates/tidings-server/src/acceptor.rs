//! Accepts connections from all listeners of a server, and sets the options of each.
//!
//! Accepting never ends: an error of one connection is ignored. When the process runs out of file
//! descriptors, the acceptor closes a reserved one for each new connection and marks the
//! connection, so that the client gets a response; freed descriptors refill the reserve first.
//! After any other system error, and with an empty reserve, accepting pauses; it never spins.

use std::{
    future::poll_fn,
    io,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll},
    time::Duration,
};

use socket2::{Domain, SockRef, Socket, TcpKeepalive, Type};
use tidings_net::{Backoff, Spread};
use tokio::{
    net::TcpStream,
    time::{Instant, sleep_until},
};

use crate::{
    client_address::ClientAddress,
    connection::{ConnectionMetrics, REJECTED_MAX},
    listener::{Listener, ListenerSettings},
};

/// How long a peer may acknowledge nothing, by default. See [`set_patience`].
pub(crate) const DEAD_PEER_DEFAULT: Duration = Duration::from_secs(30);
/// Most memory that the kernel spends on unread data of one slow reader.
const SEND_BUFFER_BYTES: usize = 128 * 1024;
/// The first pause after accepting failed for lack of file descriptors or memory. Each further one
/// in a row is twice as long.
const ACCEPT_PAUSE_MIN: Duration = Duration::from_millis(100);
/// The longest such pause.
const ACCEPT_PAUSE_MAX: Duration = Duration::from_secs(1);
/// File descriptors held in reserve: one for each connection that may be rejected with a response
/// at a time.
const RESERVE_FILES: usize = REJECTED_MAX;

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Acceptor {
    listeners: Vec<Listener>,
    /// The listener that is asked first, so that each has its turn.
    next: usize,
    pauses: Backoff,
    paused_until: Option<Instant>,
    /// Sockets whose only purpose is to hold a file descriptor each.
    reserve: Vec<Socket>,
    /// Size of the full reserve: the descriptors that were available at the start.
    reserve_files: usize,
    is_short_of_descriptors: bool,
    /// How long the kernel waits for an unresponsive peer before it resets the connection.
    dead_peer: Duration,
}

/// An accepted connection.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) stream: TcpStream,
    pub(crate) peer: ClientAddress,
    /// The settings of the listener that accepted it.
    pub(crate) listener: Arc<ListenerSettings>,
    /// Whether the reserve is full. Otherwise this connection holds a descriptor of the reserve,
    /// and should be closed soon.
    pub(crate) has_descriptor: bool,
}

impl Acceptor {
    /// Connections whose peer acknowledges or reads nothing for `dead_peer` are reset; at least a
    /// second.
    pub(crate) fn new(listeners: Vec<Listener>, dead_peer: Duration) -> Self {
        let mut acceptor = Self {
            listeners,
            next: 0,
            pauses: Backoff::new(ACCEPT_PAUSE_MIN, ACCEPT_PAUSE_MAX).spread(Spread::NONE),
            paused_until: None,
            reserve: Vec::with_capacity(RESERVE_FILES),
            reserve_files: 0,
            is_short_of_descriptors: false,
            dead_peer: dead_peer.max(Duration::from_secs(1)),
        };
        acceptor.fill_reserve(RESERVE_FILES);
        acceptor.reserve_files = acceptor.reserve.len();
        acceptor
    }

    /// The next connection. Cancel-safe: no connection is lost.
    pub(crate) async fn accept(&mut self, metrics: &ConnectionMetrics) -> Accepted {
        loop {
            if let Some(until) = self.paused_until {
                sleep_until(until).await;
                self.paused_until = None;
            }
            let mut accepted = poll_fn(|cx| self.poll_accept(cx)).await;
            // Another thread may take the freed descriptor first; then the next one is freed.
            while accepted.as_ref().is_err_and(is_out_of_descriptors) && self.reserve.pop().is_some() {
                accepted = poll_fn(|cx| self.poll_accept(cx)).await;
            }
            match accepted {
                Ok((stream, peer, listener)) => {
                    self.pauses.succeeded();
                    let has_descriptor = self.fill_reserve(self.reserve_files);
                    if !has_descriptor && !self.is_short_of_descriptors {
                        tracing::warn!("no file descriptors left: new connections are asked to retry later");
                    }
                    self.is_short_of_descriptors = !has_descriptor;
                    // A connection that is closed already fails when it is read.
                    if let Err(error) = set_options(&stream, peer, self.dead_peer) {
                        tracing::debug!(%error, %peer, "cannot set the options of a connection");
                    }
                    return Accepted { stream, peer, listener, has_descriptor };
                }
                Err(error) => self.failed(&error, metrics),
            }
        }
    }

    fn poll_accept(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<(TcpStream, ClientAddress, Arc<ListenerSettings>)>> {
        let count = self.listeners.len();
        for number in (self.next..count).chain(0..self.next) {
            let listener = &self.listeners[number];
            if let Poll::Ready(accepted) = listener.poll_accept(cx) {
                self.next = (number + 1) % count;
                let settings = Arc::clone(listener.settings());
                return Poll::Ready(accepted.map(|(stream, peer)| (stream, peer, settings)));
            }
        }
        Poll::Pending
    }

    /// Closes the sockets. `is_last`: no other process accepts from them, and the files of Unix
    /// sockets are removed.
    pub(crate) fn close(self, is_last: bool) {
        #[cfg(unix)]
        for mut listener in self.listeners {
            if !is_last {
                listener.own_file(false);
            }
        }
        #[cfg(not(unix))]
        let _ = is_last;
    }

    /// Pauses after a system error, longer each time until a connection is accepted. The error of
    /// one connection does not delay the next one.
    fn failed(&mut self, error: &io::Error, metrics: &ConnectionMetrics) {
        if is_of_one_connection(error) {
            tracing::debug!(%error, "a connection ended before it was accepted");
            return;
        }
        metrics.accept_pauses.fetch_add(1, Relaxed);
        if self.pauses.failures() == 0 {
            tracing::warn!(%error, "cannot accept connections; trying again");
        }
        self.paused_until = Some(Instant::now() + self.pauses.failed());
    }

    /// Whether the last connection took a descriptor of the reserve.
    pub(crate) fn is_short_of_descriptors(&self) -> bool {
        self.is_short_of_descriptors
    }

    /// Refills the reserve to this many descriptors. False if there are not as many.
    fn fill_reserve(&mut self, files: usize) -> bool {
        while self.reserve.len() < files {
            let Ok(socket) = Socket::new(Domain::IPV4, Type::DGRAM, None) else { return false };
            self.reserve.push(socket);
        }
        true
    }
}

fn set_options(stream: &TcpStream, peer: ClientAddress, dead_peer: Duration) -> io::Result<()> {
    let socket = SockRef::from(stream);
    // Linux doubles the value, for its own bookkeeping.
    let asked = if cfg!(target_os = "linux") { SEND_BUFFER_BYTES / 2 } else { SEND_BUFFER_BYTES };
    socket.set_send_buffer_size(asked)?;
    if peer == ClientAddress::Unix {
        return Ok(());
    }
    // An event is one write; it must not wait for the acknowledgement of the previous one.
    socket.set_tcp_nodelay(true)?;
    set_patience(&socket, dead_peer)
}

/// Unacknowledged data starts the timer, and so does a reader that reads nothing (its window is
/// closed): either way the connection is reset, and the client resumes by id. A stream that is
/// acknowledged to the last byte sends nothing until its next heartbeat, at most 15 s later: with the
/// 30 s of `dead_peer`, a dead peer is found within 45 s. Without heartbeats, the kernel sends keepalive
/// probes, from half the time on and often enough to decide when it is over.
fn set_patience(socket: &SockRef<'_>, dead_peer: Duration) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(dead_peer))?;
    let least = Duration::from_secs(1);
    let ask = TcpKeepalive::new().with_time((dead_peer / 2).max(least));
    socket.set_tcp_keepalive(&ask.with_interval((dead_peer / 6).max(least)))
}

/// Neither the process nor the system has a file descriptor left for one more connection.
#[cfg(unix)]
fn is_out_of_descriptors(error: &io::Error) -> bool {
    use rustix::io::Errno;
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}

/// This system has no limit on file descriptors.
#[cfg(not(unix))]
fn is_out_of_descriptors(_: &io::Error) -> bool {
    false
}

/// Errors of `accept` that concern only the connection that would have been accepted (see
/// accept(2)), not the next one.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
            | io::ErrorKind::WouldBlock
            | io::ErrorKind::NetworkDown
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::TimedOut
    )
}

#[cfg(test)]
mod tests;
