//! The listening socket, bound or inherited, and the options of every accepted connection.
//!
//! Accepting never ends: an error of one connection is ignored. When the process runs out of file
//! descriptors, the listener closes a reserved one for each new connection and marks the
//! connection, so that the client gets a response; freed descriptors refill the reserve first.
//! After any other system error, and with an empty reserve, accepting pauses; it never spins.

#[cfg(unix)]
use std::os::fd::{AsFd, BorrowedFd};
use std::{io, net::SocketAddr, sync::atomic::Ordering::Relaxed, time::Duration};

use listenfd::ListenFd;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tidings_net::{Backoff, Spread};
use tokio::{
    net::{TcpListener, TcpStream},
    time::{Instant, sleep_until},
};

use crate::connection::{ConnectionMetrics, REJECTED_MAX};

/// Connections that the kernel completes and queues while the process is busy, such as in a
/// reconnect storm. The kernel may cap it (`net.core.somaxconn`).
const BACKLOG: i32 = 4096;
/// How long a peer may acknowledge nothing, by default. See [`Patience`].
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
/// File descriptors that the process needs apart from its connections: segments of its log, its own
/// connections to backends, the listener, the reserve, connections that are being rejected.
const FILES_RESERVED: u64 = 256;
/// Where the system has no limit on file descriptors, or a very large one, memory is the limit; an
/// operator can raise `connections_max`.
const CONNECTIONS_DEFAULT_MAX: u64 = 1_000_000;

/// A listening socket.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    pauses: Backoff,
    paused_until: Option<Instant>,
    /// Sockets whose only purpose is to hold a file descriptor each.
    reserve: Vec<Socket>,
    /// Size of the full reserve: the descriptors that were available at the start.
    reserve_files: usize,
    is_short_of_descriptors: bool,
    patience: Patience,
}

/// An accepted connection.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) stream: TcpStream,
    pub(crate) peer: SocketAddr,
    /// Whether the reserve is full. Otherwise this connection holds a descriptor of the reserve,
    /// and should be closed soon.
    pub(crate) has_descriptor: bool,
}

/// How long the kernel waits for an unresponsive peer before it resets the connection.
#[derive(Clone, Copy, Debug)]
struct Patience {
    dead_peer: Duration,
}

/// The address cannot be listened on: one line that names it and the remedy.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct ListenError {
    message: String,
    #[source]
    source: io::Error,
}

impl Listener {
    /// Listens on an address; port 0 chooses a free one. Must be called within a tokio runtime.
    pub fn bind(address: SocketAddr) -> Result<Self, ListenError> {
        bind(address).map_err(|source| ListenError { message: advice(address, &source), source })
    }

    /// Takes over the socket that the process was started with, if there is one: `LISTEN_FDS` and
    /// `LISTEN_PID`, as systemd sets them. A restart behind such a socket refuses no connection.
    /// Must be called once, early, within a tokio runtime.
    pub fn inherited() -> Result<Option<Self>, ListenError> {
        let mut passed = ListenFd::from_env();
        let error = |message: &str, source| ListenError { message: message.to_owned(), source };
        match passed.len() {
            0 => return Ok(None),
            1 => {}
            count => {
                let message = format!("LISTEN_FDS passes {count} sockets; pass one, the socket to serve on");
                return Err(error(&message, io::ErrorKind::InvalidInput.into()));
            }
        }
        let socket = passed
            .take_tcp_listener(0)
            .and_then(|socket| socket.ok_or_else(|| io::ErrorKind::NotFound.into()))
            .and_then(|socket| {
                if SockRef::from(&socket).is_listener()? {
                    Ok(socket)
                } else {
                    Err(io::Error::new(io::ErrorKind::InvalidInput, "the socket does not listen"))
                }
            })
            .and_then(Self::from_std);
        match socket {
            Ok(listener) => Ok(Some(listener)),
            Err(source) => {
                let message =
                    format!("the socket passed by LISTEN_FDS is not a listening TCP socket: {source}");
                Err(error(&message, source))
            }
        }
    }

    /// The address of the socket, with the port that was chosen.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Wraps a socket that listens already, such as one that another process passes on. Must be
    /// called within a tokio runtime.
    pub fn from_std(socket: std::net::TcpListener) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let patience = Patience { dead_peer: DEAD_PEER_DEFAULT };
        let socket = TcpListener::from_std(socket)?;
        let mut listener = Self {
            socket,
            pauses: Backoff::new(ACCEPT_PAUSE_MIN, ACCEPT_PAUSE_MAX).spread(Spread::NONE),
            paused_until: None,
            reserve: Vec::with_capacity(RESERVE_FILES),
            reserve_files: 0,
            is_short_of_descriptors: false,
            patience,
        };
        listener.fill_reserve(RESERVE_FILES);
        listener.reserve_files = listener.reserve.len();
        Ok(listener)
    }

    /// Resets connections whose peer acknowledges or reads nothing for this long; at least a
    /// second.
    pub(crate) fn reset_dead_peers_after(&mut self, time: Duration) {
        self.patience = Patience { dead_peer: time.max(Duration::from_secs(1)) };
    }

    /// The next connection. Cancel-safe: no connection is lost.
    pub(crate) async fn accept(&mut self, metrics: &ConnectionMetrics) -> Accepted {
        loop {
            if let Some(until) = self.paused_until {
                sleep_until(until).await;
                self.paused_until = None;
            }
            let mut accepted = self.socket.accept().await;
            // Another thread may take the freed descriptor first; then the next one is freed.
            while accepted.as_ref().is_err_and(is_out_of_descriptors) && self.reserve.pop().is_some() {
                accepted = self.socket.accept().await;
            }
            match accepted {
                Ok((stream, peer)) => {
                    self.pauses.succeeded();
                    let has_descriptor = self.fill_reserve(self.reserve_files);
                    if !has_descriptor && !self.is_short_of_descriptors {
                        tracing::warn!("no file descriptors left: new connections are asked to retry later");
                    }
                    self.is_short_of_descriptors = !has_descriptor;
                    // A connection that is closed already fails when it is read.
                    if let Err(error) = set_options(&stream, self.patience) {
                        tracing::debug!(%error, %peer, "cannot set the options of a connection");
                    }
                    return Accepted { stream, peer, has_descriptor };
                }
                Err(error) if is_of_one_connection(&error) => {
                    tracing::debug!(%error, "a connection ended before it was accepted");
                }
                Err(error) => self.rest(&error, metrics),
            }
        }
    }

    /// Pauses after a system error, longer each time until a connection is accepted.
    fn rest(&mut self, error: &io::Error, metrics: &ConnectionMetrics) {
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

fn bind(address: SocketAddr) -> io::Result<Listener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restart need not wait for connections of the previous process. (On Windows the option would
    // steal the port.)
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Listener::from_std(socket.into())
}

fn advice(address: SocketAddr, error: &io::Error) -> String {
    let why = match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another program listens there; stop it or choose another port".to_owned()
        }
        io::ErrorKind::AddrNotAvailable => {
            "this machine does not have that address; choose 127.0.0.1 or 0.0.0.0".to_owned()
        }
        io::ErrorKind::PermissionDenied => {
            "the system does not permit it; choose a port above 1023".to_owned()
        }
        _ => error.to_string(),
    };
    format!("cannot listen on {address}: {why}")
}

/// The descriptor of the socket, to pass to a new process.
#[cfg(unix)]
impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn set_options(stream: &TcpStream, patience: Patience) -> io::Result<()> {
    let socket = SockRef::from(stream);
    // An event is one write; it must not wait for the acknowledgement of the previous one.
    socket.set_tcp_nodelay(true)?;
    // Linux doubles the value, for its own bookkeeping.
    let asked = if cfg!(target_os = "linux") { SEND_BUFFER_BYTES / 2 } else { SEND_BUFFER_BYTES };
    socket.set_send_buffer_size(asked)?;
    patience.set_on(&socket)
}

impl Patience {
    /// Unacknowledged data starts the timer, and so does a reader that reads nothing (its window is
    /// closed): either way the connection is reset, and the client resumes by id. A stream that is
    /// acknowledged to the last byte sends nothing until its next heartbeat, at most 15 s later:
    /// with the 30 s of `dead_peer`, a dead peer is found within 45 s. Without heartbeats, the
    /// kernel sends keepalive probes, from half the time on and often enough to decide when it is
    /// over.
    fn set_on(self, socket: &SockRef<'_>) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        socket.set_tcp_user_timeout(Some(self.dead_peer))?;
        let least = Duration::from_secs(1);
        let ask = TcpKeepalive::new().with_time((self.dead_peer / 2).max(least));
        socket.set_tcp_keepalive(&ask.with_interval((self.dead_peer / 6).max(least)))
    }
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

/// How many connections the limit on file descriptors allows.
pub fn connections_for_file_limit() -> usize {
    connections_for(file_limit())
}

/// With a small limit, half of the descriptors are for connections.
fn connections_for(files: Option<u64>) -> usize {
    let room =
        files.map_or(CONNECTIONS_DEFAULT_MAX, |files| files.saturating_sub(FILES_RESERVED).max(files / 2));
    usize::try_from(room.min(CONNECTIONS_DEFAULT_MAX)).unwrap_or(usize::MAX)
}

/// The soft limit on file descriptors; none where there is no limit.
#[cfg(unix)]
fn file_limit() -> Option<u64> {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current
}

#[cfg(not(unix))]
fn file_limit() -> Option<u64> {
    None
}

/// Raises the soft limit on file descriptors to the hard one, and returns it; none where there is
/// no limit. Must be called before [`connections_for_file_limit`].
#[cfg(unix)]
pub fn raise_file_limit() -> io::Result<Option<u64>> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    Ok(maximum)
}

/// This system has no limit on file descriptors to raise.
#[cfg(not(unix))]
pub fn raise_file_limit() -> io::Result<Option<u64>> {
    Ok(None)
}

#[cfg(test)]
mod tests;
