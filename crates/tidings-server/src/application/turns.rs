//! A connection from which an application is read in turns with everything else, however fast it
//! sends.
//!
//! The HTTP library reads until the socket is empty, and skips interim responses meanwhile. Four
//! applications that sent them without end delayed every publication by a quarter of a second.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use hyper_util::client::legacy::connect::{Connected, Connection};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes after which other tasks have their turn.
const TURN_BYTES: usize = 32 * 1024;

/// See the module's documentation.
pub(crate) struct Turns {
    io: Box<dyn Duplex>,
    /// Read since others had their turn.
    read_bytes: usize,
}

/// A connection of any kind.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<IO: AsyncRead + AsyncWrite + Send + Unpin> Duplex for IO {}

impl Turns {
    pub(crate) fn new(io: impl Duplex + 'static) -> Self {
        Self { io: Box::new(io), read_bytes: 0 }
    }
}

impl AsyncRead for Turns {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.read_bytes >= TURN_BYTES {
            self.read_bytes = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let filled = buffer.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, buffer);
        self.read_bytes =
            if read.is_pending() { 0 } else { self.read_bytes + buffer.filled().len() - filled };
        read
    }
}

impl AsyncWrite for Turns {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

impl Connection for Turns {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio::io::{AsyncReadExt, join, repeat, sink};

    use super::*;

    #[tokio::test]
    async fn others_have_a_turn_while_an_application_sends_without_end() {
        let mut connection = Turns::new(join(repeat(b'x'), sink()));
        let mut buffer = vec![0; TURN_BYTES];
        for is_read in [true, false, true, false] {
            let read = connection.read_exact(&mut buffer).now_or_never();
            assert_eq!(read.is_some(), is_read);
        }
    }
}
