//! The socket of an HTTP/2 connection, with the account of its frames in front of it.
//!
//! The library that reads the frames owns the one handle, the connection's driver the other, so that the socket is still there for a last word when the
//! library is gone. Both belong to one task: the lock is never waited for.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

use super::frames::{Flood, Frames};

/// A handle of the socket.
pub(super) struct Wire<IO>(Arc<Mutex<Inner<IO>>>);

struct Inner<IO> {
    io: IO,
    /// What was read before it was known to be HTTP/2, as far as it has not been handed on.
    early: Bytes,
    frames: Frames,
    flood: Option<Flood>,
}

impl<IO> Clone for Wire<IO> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<IO> Wire<IO> {
    /// `early`: what has been read of the socket, the preface first.
    pub(super) fn new(io: IO, early: Vec<u8>) -> Self {
        let frames = Frames::new(Instant::now().into_std());
        Self(Arc::new(Mutex::new(Inner { io, early: early.into(), frames, flood: None })))
    }

    /// The socket of a client that was cut off because of its frames, with the last words for it; to be asked when no other handle is left.
    pub(super) fn into_flooded(self) -> Option<(IO, Option<[u8; 17]>)> {
        let inner = Arc::into_inner(self.0)?.into_inner().expect(NO_PANIC);
        inner.flood?;
        Some((inner.io, inner.frames.last_words()))
    }

    fn lock(&self) -> MutexGuard<'_, Inner<IO>> {
        self.0.lock().expect(NO_PANIC)
    }
}

const NO_PANIC: &str = "nothing panics while it holds this";

impl<IO: AsyncRead + Unpin> AsyncRead for Wire<IO> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.lock();
        let Inner { io, early, frames, flood } = &mut *inner;
        let before = into.filled().len();
        if early.has_remaining() {
            let length = early.len().min(into.remaining());
            into.put_slice(&early.split_to(length));
            if early.is_empty() {
                *early = Bytes::new();
            }
        } else {
            ready!(Pin::new(io).poll_read(cx, into))?;
        }
        if let Err(error) = frames.receive(&into.filled()[before..], Instant::now().into_std()) {
            *flood = Some(error);
            into.set_filled(before);
            return Poll::Ready(Err(io::Error::other(error)));
        }
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Wire<IO> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut inner = self.lock();
        let written = ready!(Pin::new(&mut inner.io).poll_write(cx, bytes))?;
        inner.frames.sent(&bytes[..written]);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut inner = self.lock();
        let written = ready!(Pin::new(&mut inner.io).poll_write_vectored(cx, slices))?;
        let mut left = written;
        for slice in slices {
            let (sent, _) = slice.split_at(left.min(slice.len()));
            inner.frames.sent(sent);
            left -= sent.len();
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.lock().io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.lock().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.lock().io).poll_shutdown(cx)
    }
}
