//! The socket of an HTTP/2 connection, from which the library reads what [`Inbound`] releases.
//!
//! The library that reads the frames owns one handle, the connection's driver the other, so that
//! the driver can still write a closing frame after the library is dropped. Both belong to one task:
//! the lock is never contended.

use std::{
    io::{self, IoSlice},
    mem::MaybeUninit,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

use super::{
    inbound::{Inbound, Rejection},
    work::Work,
};
use crate::http1::Transport;

/// Bytes that one read takes from the socket, by way of the stack.
const READ_BYTES: usize = 16 * 1024;

/// A handle of the socket.
pub(super) struct Wire<IO>(Arc<Mutex<Inner<IO>>>);

struct Inner<IO> {
    io: IO,
    inbound: Inbound,
    work: Arc<Work>,
    /// Since when a part of a frame or of a block of fields has been here.
    part_since: Option<Instant>,
    /// The socket has not taken all that the library had to write: a frame may be written in part.
    is_blocked: bool,
    rejection: Option<Rejection>,
}

impl<IO> Clone for Wire<IO> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<IO> Wire<IO> {
    /// `early`: what has been read of the socket, the preface first. `fields_bytes_max`: most bytes
    /// of a request's fields as they are sent.
    pub(super) fn new(io: IO, early: &[u8], fields_bytes_max: usize, work: &Arc<Work>) -> Self {
        let mut inbound = Inbound::new(fields_bytes_max);
        inbound.push(early);
        let work = Arc::clone(work);
        let inner = Inner { io, inbound, work, part_since: None, is_blocked: false, rejection: None };
        Self(Arc::new(Mutex::new(inner)))
    }

    /// The socket of a client that was rejected, why, and the closing frame for it, unless another
    /// frame is written in part; to be asked when no other handle is left.
    pub(super) fn into_rejected(self) -> Option<(IO, Rejection, Option<[u8; 17]>)> {
        let inner = Arc::into_inner(self.0)?.into_inner().expect(NO_PANIC);
        let rejection = inner.rejection?;
        let closing_frame = (!inner.is_blocked).then(|| inner.inbound.closing_frame(rejection));
        Some((inner.io, rejection, closing_frame))
    }

    /// Whether the rest of the fields of a request has not come for this long.
    pub(super) fn waits_for_fields(&self, now: Instant, time: Duration) -> bool {
        self.lock().part_since.is_some_and(|since| now.saturating_duration_since(since) >= time)
    }

    /// Has the kernel forget what the client has not taken when the socket is dropped.
    pub(super) fn abandon(&self)
    where
        IO: Transport,
    {
        self.lock().io.abandon();
    }

    fn lock(&self) -> MutexGuard<'_, Inner<IO>> {
        self.0.lock().expect(NO_PANIC)
    }
}

const NO_PANIC: &str = "nothing panics while it holds this";

impl<IO: AsyncRead + Unpin> Inner<IO> {
    /// Waits until the library may read something; false at the end of what the client sends.
    fn poll_released(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        loop {
            if self.rejection.is_none() {
                self.rejection = self.inbound.release(&self.work).err();
            }
            if !self.inbound.released().is_empty() {
                return Poll::Ready(Ok(true));
            }
            if let Some(rejection) = self.rejection {
                return Poll::Ready(Err(io::Error::other(rejection)));
            }
            // Then the connection's driver polls again, in the next pass.
            if !self.work.may_read() {
                return Poll::Pending;
            }
            self.part_since = self.inbound.has_part().then(|| self.part_since.unwrap_or_else(Instant::now));
            let mut space = [const { MaybeUninit::uninit() }; READ_BYTES];
            let mut read = ReadBuf::uninit(&mut space);
            ready!(Pin::new(&mut self.io).poll_read(cx, &mut read))?;
            if read.filled().is_empty() {
                return Poll::Ready(Ok(false));
            }
            self.inbound.push(read.filled());
        }
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Wire<IO> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.lock();
        if ready!(inner.poll_released(cx))? {
            let released = inner.inbound.released();
            let length = released.len().min(into.remaining());
            into.put_slice(&released[..length]);
            inner.inbound.advance(length);
        }
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Wire<IO> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut inner = self.lock();
        let length: usize = slices.iter().map(|slice| slice.len()).sum();
        inner.is_blocked = true;
        let written = ready!(Pin::new(&mut inner.io).poll_write_vectored(cx, slices))?;
        inner.is_blocked = written < length;
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
