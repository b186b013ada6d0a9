//! The socket of a connection, with a session or without: the [`Transport`] of all connections, and
//! what a shard encrypts with.

use std::{
    io::{self, IoSlice, Read, Write},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::{
    config::Tls,
    session::{RECORD_BYTES_MAX, Session},
};
use crate::http1::{HubSocket, PlainHttp, Transport};

/// The socket of a connection. A handshake happens when it is read from for the first time.
pub(crate) struct Stream {
    socket: TcpStream,
    /// None without TLS, and for a client that sends plain HTTP in spite of it: it is answered as
    /// plainly as it asked.
    session: Option<Box<Session>>,
}

impl Stream {
    /// A connection of a listener with TLS or without.
    pub(crate) fn new(socket: TcpStream, tls: Option<&Tls>) -> Self {
        Self { socket, session: tls.map(|tls| Box::new(Session::new(tls.accept()))) }
    }

    /// Sends what is encrypted and waits.
    fn poll_unsent(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { socket, session } = self;
        match session {
            Some(session) => pending_if_full(session.flush(&mut Polled { socket, cx })),
            None => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { socket, session } = &mut *self;
        let Some(open) = session else { return Pin::new(socket).poll_read(cx, into) };
        match open.read(&mut Polled { socket, cx }, into.initialize_unfilled()) {
            Ok(count) => {
                into.advance(count);
                Poll::Ready(Ok(()))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
            Err(error) => {
                if PlainHttp::is_reason_of(&error) {
                    *session = None;
                }
                Poll::Ready(Err(error))
            }
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let Self { socket, session } = &mut *self;
        match session {
            Some(session) => pending_if_full(session.write(&mut Polled { socket, cx }, bytes)),
            None => Pin::new(socket).poll_write(cx, bytes),
        }
    }

    /// Headers and the body behind them share a record.
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.session.is_none() {
            return Pin::new(&mut self.socket).poll_write_vectored(cx, slices);
        }
        let mut gathered = Vec::new();
        for slice in slices {
            let space = RECORD_BYTES_MAX - gathered.len();
            gathered.extend_from_slice(&slice[..slice.len().min(space)]);
        }
        self.poll_write(cx, &gathered)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_unsent(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(session) = &mut self.session {
            session.end();
        }
        ready!(self.poll_unsent(cx))?;
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

impl Transport for Stream {
    fn is_for_hub(&self) -> bool {
        // A shard reads when the socket has something.
        cfg!(target_os = "linux") && self.session.as_ref().is_none_or(|session| !session.has_input())
    }

    fn into_socket(self) -> io::Result<HubSocket> {
        let stream = self.socket.into_std()?;
        #[cfg(target_os = "linux")]
        let encryption = self.session.map(|mut session| {
            session.limit_input(in_shard::INPUT_BYTES_MAX);
            session as _
        });
        Ok(HubSocket {
            stream,
            #[cfg(target_os = "linux")]
            encryption,
        })
    }

    fn has_begun(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.has_begun())
    }

    fn held_bytes(&self) -> usize {
        self.session.as_ref().map_or(0, |session| session.held_bytes())
    }

    fn abandon(&self) {
        // Otherwise it keeps trying, for as long as anything is acknowledged now and then.
        let _ = SockRef::from(&self.socket).set_linger(Some(Duration::ZERO));
    }
}

/// A socket of the runtime as one that does not wait: the task is woken when it has or accepts more.
struct Polled<'a, 'b> {
    socket: &'a mut TcpStream,
    cx: &'a mut Context<'b>,
}

impl Read for Polled<'_, '_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut read = ReadBuf::new(into);
        match Pin::new(&mut *self.socket).poll_read(self.cx, &mut read) {
            Poll::Ready(done) => done.map(|()| read.filled().len()),
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

impl Write for Polled<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match Pin::new(&mut *self.socket).poll_write(self.cx, bytes) {
            Poll::Ready(written) => written,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn pending_if_full<T>(result: io::Result<T>) -> Poll<io::Result<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
        result => Poll::Ready(result),
    }
}

/// The session of a subscriber in a shard, which has the socket. The methods that it calls are those of
/// [`Session`] itself, not these.
#[cfg(target_os = "linux")]
mod in_shard {
    use std::{io, net::TcpStream};

    use tidings::Encryption;

    use super::Session;

    /// Encrypted bytes that a subscriber may send: alerts, new keys, and what little data it sends
    /// unasked. More of them end the connection.
    pub(super) const INPUT_BYTES_MAX: u64 = 64 * 1024;

    impl Encryption for Session {
        fn write(&mut self, mut socket: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
            Session::write(self, &mut socket, bytes)
        }

        fn flush(&mut self, mut socket: &TcpStream) -> io::Result<()> {
            Session::flush(self, &mut socket)
        }

        fn unsent_bytes(&self) -> usize {
            Session::unsent_bytes(self)
        }

        fn read(&mut self, mut socket: &TcpStream, into: &mut [u8]) -> io::Result<usize> {
            Session::read(self, &mut socket, into)
        }

        fn end(&mut self, mut socket: &TcpStream) {
            Session::end(self);
            // A socket that is full now loses the alert; the last chunk says the same.
            let _ = Session::flush(self, &mut socket);
        }
    }
}
