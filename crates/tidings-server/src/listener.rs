//! Where connections come from: a socket of our own or an inherited one, and the options of every accepted connection.
//!
//! Accepting never ends: an error that belongs to one connection is passed over. Where the process has no more files, the listener gives up one
//! that it holds in reserve for each connection, and says so, that the connection may be notified; what is given back fills the reserve first. Any
//! other error of the machine, and an empty reserve, make a pause, never a loop that spins.

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

use crate::connection::{ConnectionMetrics, FAREWELLS_MAX};

/// Connections that the kernel completes and holds for us while we are busy, such as in a reconnect storm. The kernel may
/// cap it (`net.core.somaxconn`).
const BACKLOG: i32 = 4096;
/// How long the other end of a connection may acknowledge nothing, where no setting says so. See [`Patience`].
pub(crate) const DEAD_PEER_DEFAULT: Duration = Duration::from_secs(30);
/// Most memory that the kernel spends on what one slow reader has not taken.
const SEND_BUFFER_BYTES: usize = 128 * 1024;
/// The first pause after accepting failed for want of files or memory. Each further one in a row is twice as long.
const ACCEPT_PAUSE_MIN: Duration = Duration::from_millis(100);
/// The longest such pause.
const ACCEPT_PAUSE_MAX: Duration = Duration::from_secs(1);
/// Files that are held in reserve: for each connection that may be notified at one time that there is no room.
const RESERVE_FILES: usize = FAREWELLS_MAX;
/// Files that the process needs besides its connections: its log's segments, its own connections to backends, the listener, the reserve, the
/// closing frames of connections that found no room.
const FILES_RESERVED: u64 = 256;
/// Where the system has no limit of open files, or a very large one, memory is the limit; an operator who has it raises `connections_max`.
const CONNECTIONS_DEFAULT_MAX: u64 = 1_000_000;

/// A listening socket.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    pauses: Backoff,
    paused_until: Option<Instant>,
    /// Sockets that do nothing but hold a file each.
    reserve: Vec<Socket>,
    /// How many of them there are when it is whole: what could be had at the start.
    reserve_files: usize,
    is_short_of_files: bool,
    patience: Patience,
}

/// A connection that was accepted.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) stream: TcpStream,
    pub(crate) peer: SocketAddr,
    /// The reserve is whole beside it. Otherwise the file that it has is missing there, and should be given back soon.
    pub(crate) has_file: bool,
}

/// How long the kernel waits for the other end of a connection before it gives it up.
#[derive(Clone, Copy, Debug)]
struct Patience {
    dead_peer: Duration,
}

/// A socket that cannot be listened on: one line that names it and says what to do.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct ListenError {
    message: String,
    #[source]
    source: io::Error,
}

impl Listener {
    /// Listens on an address; port 0 takes a free one. To be called within a tokio runtime.
    pub fn bind(address: SocketAddr) -> Result<Self, ListenError> {
        bind(address).map_err(|source| ListenError { message: advice(address, &source), source })
    }

    /// Takes the socket that the process was started with, if there is one: `LISTEN_FDS` and `LISTEN_PID`, as systemd sets them. A
    /// restart behind such a socket refuses nobody. To be called once, early, within a tokio runtime.
    pub fn inherited() -> Result<Option<Self>, ListenError> {
        let mut passed = ListenFd::from_env();
        let error = |message: &str, source| ListenError { message: message.to_owned(), source };
        match passed.len() {
            0 => return Ok(None),
            1 => {}
            count => {
                let message = format!("LISTEN_FDS passes {count} sockets; pass one, the one to serve on");
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

    /// The address that it listens on, with the port that was chosen.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Takes a socket that listens already, such as one that another process passes on. To be called within a tokio runtime.
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
            is_short_of_files: false,
            patience,
        };
        listener.fill_reserve(RESERVE_FILES);
        listener.reserve_files = listener.reserve.len();
        Ok(listener)
    }

    /// Gives connections up whose other end acknowledges nothing, or takes nothing, for this long; at least a second.
    pub(crate) fn give_up_after(&mut self, time: Duration) {
        self.patience = Patience { dead_peer: time.max(Duration::from_secs(1)) };
    }

    /// The next connection. May be dropped and called again: nothing is lost.
    pub(crate) async fn accept(&mut self, metrics: &ConnectionMetrics) -> Accepted {
        loop {
            if let Some(until) = self.paused_until {
                sleep_until(until).await;
                self.paused_until = None;
            }
            let mut accepted = self.socket.accept().await;
            // The file that is given up is nobody's for a moment: if somebody else takes it, the next one is given up.
            while accepted.as_ref().is_err_and(is_lack_of_files) && self.reserve.pop().is_some() {
                accepted = self.socket.accept().await;
            }
            match accepted {
                Ok((stream, peer)) => {
                    self.pauses.succeeded();
                    let has_file = self.fill_reserve(self.reserve_files);
                    if !has_file && !self.is_short_of_files {
                        tracing::warn!("no more files: connections are reported to come back later");
                    }
                    self.is_short_of_files = !has_file;
                    // A connection that is gone already says so when it is read.
                    if let Err(error) = set_options(&stream, self.patience) {
                        tracing::debug!(%error, %peer, "cannot set the options of a connection");
                    }
                    return Accepted { stream, peer, has_file };
                }
                Err(error) if is_of_one_connection(&error) => {
                    tracing::debug!(%error, "a connection ended before it was accepted");
                }
                Err(error) => self.rest(&error, metrics),
            }
        }
    }

    /// Makes a pause over an error of the machine, longer each time until a connection is accepted.
    fn rest(&mut self, error: &io::Error, metrics: &ConnectionMetrics) {
        metrics.accept_pauses.fetch_add(1, Relaxed);
        if self.pauses.failures() == 0 {
            tracing::warn!(%error, "cannot accept connections; trying again");
        }
        self.paused_until = Some(Instant::now() + self.pauses.failed());
    }

    /// Whether the last connection found no file but one of the reserve.
    pub(crate) fn is_short_of_files(&self) -> bool {
        self.is_short_of_files
    }

    /// Takes what the reserve lacks of so many files. False if there are not as many.
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
    // A restart need not wait for the last connections of the one before. (On Windows the option means to steal the port.)
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

/// The descriptor of the socket, for passing it on to a successor.
#[cfg(unix)]
impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn set_options(stream: &TcpStream, patience: Patience) -> io::Result<()> {
    let socket = SockRef::from(stream);
    // An event is one write; it must not wait for the acknowledgement of the one before.
    socket.set_tcp_nodelay(true)?;
    // Linux doubles what it is given, for its own bookkeeping.
    let asked = if cfg!(target_os = "linux") { SEND_BUFFER_BYTES / 2 } else { SEND_BUFFER_BYTES };
    socket.set_send_buffer_size(asked)?;
    patience.set_on(&socket)
}

impl Patience {
    /// Data that is not acknowledged starts the time, and so does a reader that takes nothing (its window is closed): either way the
    /// connection is reset, and the client resumes by id. A stream that was acknowledged to the last byte says nothing until its next
    /// heartbeat, 15 s later at most: with the 30 s of `dead_peer` that makes 45 s until its end is found. Where no heartbeat comes the kernel
    /// asks by itself, after half the time and then often enough to be done when it is over.
    fn set_on(self, socket: &SockRef<'_>) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        socket.set_tcp_user_timeout(Some(self.dead_peer))?;
        let least = Duration::from_secs(1);
        let ask = TcpKeepalive::new().with_time((self.dead_peer / 2).max(least));
        socket.set_tcp_keepalive(&ask.with_interval((self.dead_peer / 6).max(least)))
    }
}

/// Neither the process nor the system has a file left for one more connection.
#[cfg(unix)]
fn is_lack_of_files(error: &io::Error) -> bool {
    use rustix::io::Errno;
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}

/// This system has no limit of open files.
#[cfg(not(unix))]
fn is_lack_of_files(_: &io::Error) -> bool {
    false
}

/// Errors of `accept` that say something of the connection that would have been accepted (see accept(2)), and nothing of the next one.
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

/// How many connections the limit of open files leaves room for.
pub fn connections_for_file_limit() -> usize {
    connections_for(file_limit())
}

/// A small limit is shared in halves.
fn connections_for(files: Option<u64>) -> usize {
    let room =
        files.map_or(CONNECTIONS_DEFAULT_MAX, |files| files.saturating_sub(FILES_RESERVED).max(files / 2));
    usize::try_from(room.min(CONNECTIONS_DEFAULT_MAX)).unwrap_or(usize::MAX)
}

/// The soft limit of open files; none where there is no limit.
#[cfg(unix)]
fn file_limit() -> Option<u64> {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current
}

#[cfg(not(unix))]
fn file_limit() -> Option<u64> {
    None
}

/// Raises the soft limit of open files to the hard one, and says how many files that is; none where there is no limit. To be called
/// before [`connections_for_file_limit`].
#[cfg(unix)]
pub fn raise_file_limit() -> io::Result<Option<u64>> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    Ok(maximum)
}

/// This system has no limit of open files to raise.
#[cfg(not(unix))]
pub fn raise_file_limit() -> io::Result<Option<u64>> {
    Ok(None)
}

#[cfg(test)]
mod tests;
