//! A listening socket, bound or inherited, and how its connections are served.

mod settings;
#[cfg(unix)]
mod unix_file;

#[cfg(unix)]
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    task::{Context, Poll, ready},
};

use listenfd::ListenFd;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
#[cfg(unix)]
use tokio::net::UnixListener;
use tokio::net::{TcpListener, TcpStream};

pub use self::settings::{ListenerRole, ListenerSettings};
#[cfg(unix)]
use self::unix_file::UnixFile;
use crate::client_address::ClientAddress;

/// Connections that the kernel completes and queues while the process is busy, such as in a
/// reconnect storm. The kernel may cap it (`net.core.somaxconn`).
const BACKLOG: i32 = 4096;

/// A listening socket, and how its connections are served.
#[derive(Debug)]
pub struct Listener {
    socket: ListeningSocket,
    address: LocalAddress,
    settings: Arc<ListenerSettings>,
    #[cfg(unix)]
    file: Option<UnixFile>,
}

/// Where a listener listens. Its [`Display`](fmt::Display) is the form of logs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LocalAddress {
    /// One address, with the port that was chosen. `0.0.0.0` and `[::]` are all of their family.
    Ip(SocketAddr),
    /// All addresses of both families, with this port.
    All(u16),
    /// The path of a Unix socket; empty for one without a path.
    Unix(PathBuf),
}

#[derive(Debug)]
enum ListeningSocket {
    Tcp(TcpListener),
    #[cfg(unix)]
    Unix(UnixListener),
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
    /// Listens on an address; port 0 chooses a free one. `[::]` is all IPv6 addresses, without
    /// those of IPv4. Must be called within a tokio runtime.
    pub fn bind(address: SocketAddr) -> Result<Self, ListenError> {
        bind(address, true)
            .and_then(Self::from_std)
            .map_err(|source| ListenError { message: advice(address, &source), source })
    }

    /// Listens on all addresses of both families, or of IPv4 where the system has no IPv6; port 0
    /// chooses a free one. Must be called within a tokio runtime.
    pub fn bind_all(port: u16) -> Result<Self, ListenError> {
        let both = bind((Ipv6Addr::UNSPECIFIED, port).into(), false);
        let bound = match both {
            Err(error) if is_without_family(&error) => bind((Ipv4Addr::UNSPECIFIED, port).into(), true),
            bound => bound,
        };
        bound
            .and_then(Self::from_std)
            .map_err(|source| ListenError { message: advice(format_args!(":{port}"), &source), source })
    }

    /// Listens on a Unix socket, whose file gets this mode, such as `0o660`: to connect, a program
    /// needs permission to write. A file that no process listens on is replaced. The file is removed
    /// when the listener is dropped, see [`own_file`](Self::own_file). Must be called within a tokio
    /// runtime.
    #[cfg(unix)]
    pub fn bind_unix(path: &Path, mode: u32) -> Result<Self, ListenError> {
        let error = |source: io::Error| {
            let why = match source.kind() {
                io::ErrorKind::NotFound => "its directory does not exist".to_owned(),
                io::ErrorKind::InvalidInput => "the path is too long for a Unix socket".to_owned(),
                io::ErrorKind::PermissionDenied => "the system does not permit it".to_owned(),
                _ => source.to_string(),
            };
            ListenError { message: format!("cannot listen on unix:{}: {why}", path.display()), source }
        };
        let (socket, file) = UnixFile::create(path, mode, BACKLOG).map_err(error)?;
        let mut listener = Self::from_fd(socket.into()).map_err(error)?;
        listener.file = Some(file);
        Ok(listener)
    }

    /// Takes over the sockets that the process was started with, TCP and Unix: `LISTEN_FDS` and
    /// `LISTEN_PID`, as systemd sets them, each with its name in `LISTEN_FDNAMES`. A restart behind
    /// such a socket refuses no connection. Must be called once, early, within a tokio runtime.
    pub fn inherited() -> Result<Vec<(String, Self)>, ListenError> {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':');
        let mut passed = ListenFd::from_env();
        (0..passed.len())
            .map(|number| {
                let name = names.next().unwrap_or_default().to_owned();
                let listener = take_inherited(&mut passed, number).map_err(|source| ListenError {
                    message: format!(
                        "socket {} of those passed by LISTEN_FDS is not a listening TCP or Unix socket: {source}",
                        number + 1
                    ),
                    source,
                })?;
                Ok((name, listener))
            })
            .collect()
    }

    /// Wraps a TCP socket that listens already. Must be called within a tokio runtime.
    pub fn from_std(socket: std::net::TcpListener) -> io::Result<Self> {
        let address = socket.local_addr()?;
        let is_all =
            address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) && !SockRef::from(&socket).only_v6()?;
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket: ListeningSocket::Tcp(TcpListener::from_std(socket)?),
            address: if is_all { LocalAddress::All(address.port()) } else { LocalAddress::Ip(address) },
            settings: Arc::default(),
            #[cfg(unix)]
            file: None,
        })
    }

    /// Wraps a TCP or Unix socket that listens already, such as one that another process passes on.
    /// Must be called within a tokio runtime.
    #[cfg(unix)]
    pub fn from_fd(socket: OwnedFd) -> io::Result<Self> {
        let as_socket = SockRef::from(&socket);
        if !as_socket.is_listener()? {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the socket does not listen"));
        }
        if !as_socket.local_addr()?.is_unix() {
            return Self::from_std(socket.into());
        }
        let socket = std::os::unix::net::UnixListener::from(socket);
        let address = socket.local_addr()?;
        let path = address.as_pathname().map(Path::to_owned);
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket: ListeningSocket::Unix(UnixListener::from_std(socket)?),
            file: path.as_deref().map(UnixFile::existing),
            address: LocalAddress::Unix(path.unwrap_or_default()),
            settings: Arc::default(),
        })
    }

    /// Serves its connections by these settings.
    #[must_use]
    pub fn with_settings(mut self, settings: ListenerSettings) -> Self {
        self.settings = Arc::new(settings);
        self
    }

    /// Where it listens.
    pub fn address(&self) -> &LocalAddress {
        &self.address
    }

    /// The address of a TCP socket, with the port that was chosen.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match self.address {
            LocalAddress::Ip(address) => Some(address),
            LocalAddress::All(port) => Some((Ipv6Addr::UNSPECIFIED, port).into()),
            LocalAddress::Unix(_) => None,
        }
    }

    /// Whether the file of a Unix socket is removed when this is dropped. At first it is if this
    /// process created it.
    #[cfg(unix)]
    pub fn own_file(&mut self, is_owned: bool) {
        if let Some(file) = &mut self.file {
            file.is_owned = is_owned;
        }
    }

    /// Sets the mode of the file of a Unix socket that was passed on.
    #[cfg(unix)]
    pub fn set_file_mode(&self, mode: u32) -> io::Result<()> {
        self.file.as_ref().map_or(Ok(()), |file| file.set_mode(mode))
    }

    /// How its connections are served.
    pub fn settings(&self) -> &Arc<ListenerSettings> {
        &self.settings
    }

    /// The next connection, and the address of its other end.
    ///
    /// A Unix stream socket is driven as a `TcpStream`: the calls that are made on it are the same.
    pub(crate) fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(TcpStream, ClientAddress)>> {
        match &self.socket {
            ListeningSocket::Tcp(socket) => {
                let (stream, peer) = ready!(socket.poll_accept(cx))?;
                Poll::Ready(Ok((stream, ClientAddress::of(peer.ip()))))
            }
            #[cfg(unix)]
            ListeningSocket::Unix(socket) => {
                let (stream, _) = ready!(socket.poll_accept(cx))?;
                let stream = std::net::TcpStream::from(OwnedFd::from(stream.into_std()?));
                Poll::Ready(Ok((TcpStream::from_std(stream)?, ClientAddress::Unix)))
            }
        }
    }
}

/// The descriptor of the socket, to pass to a new process.
#[cfg(unix)]
impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.socket {
            ListeningSocket::Tcp(socket) => socket.as_fd(),
            ListeningSocket::Unix(socket) => socket.as_fd(),
        }
    }
}

impl LocalAddress {
    /// Whether only programs on this machine can connect.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Ip(address) => address.ip().is_loopback(),
            Self::All(_) => false,
            Self::Unix(_) => true,
        }
    }
}

impl fmt::Display for LocalAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::All(port) => write!(f, "*:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl ListenError {
    /// Whether this machine does not have the address, or not its family.
    pub fn is_of_another_machine(&self) -> bool {
        self.source.kind() == io::ErrorKind::AddrNotAvailable || is_without_family(&self.source)
    }

    /// Whether another socket listens on the address.
    pub fn is_in_use(&self) -> bool {
        self.source.kind() == io::ErrorKind::AddrInUse
    }
}

fn bind(address: SocketAddr, only_v6: bool) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restart need not wait for connections of the previous process. (On Windows the option would
    // steal the port.)
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // The default differs between systems.
        socket.set_only_v6(only_v6)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// The system has no addresses of this family.
fn is_without_family(error: &io::Error) -> bool {
    #[cfg(unix)]
    if rustix::io::Errno::from_io_error(error) == Some(rustix::io::Errno::AFNOSUPPORT) {
        return true;
    }
    error.kind() == io::ErrorKind::Unsupported
}

fn take_inherited(passed: &mut ListenFd, number: usize) -> io::Result<Listener> {
    let tcp = passed.take_tcp_listener(number);
    #[cfg(unix)]
    {
        let socket = match tcp {
            Ok(socket) => socket.map(OwnedFd::from),
            Err(_) => passed.take_unix_listener(number)?.map(OwnedFd::from),
        };
        Listener::from_fd(socket.ok_or(io::ErrorKind::NotFound)?)
    }
    #[cfg(not(unix))]
    {
        Listener::from_std(tcp?.ok_or(io::ErrorKind::NotFound)?)
    }
}

fn advice(address: impl fmt::Display, error: &io::Error) -> String {
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

#[cfg(test)]
mod tests;
