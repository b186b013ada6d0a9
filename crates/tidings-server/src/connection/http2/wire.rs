//! The socket of an HTTP/2 connection, with the frame counter in front of it.
//!
//! The library that reads the frames owns one handle, the connection's driver the other, so that
//! the driver can still write closing frames after the library is dropped. Both belong to one task:
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
    super::takeover::Transport,
    frames::{Frames, Rejection},
    inbound::Inbound,
    work::Work,
};

/// Bytes that one read takes from the socket, by way of the stack.
const READ_BYTES: usize = 16 * 1024;

/// A handle of the socket.
pub(super) struct Wire<IO>(Arc<Mutex<Inner<IO>>>);

struct Inner<IO> {
    io: IO,
    inbound: Inbound,
    work: Arc<Work>,
    frames: Frames,
    /// Since when a part of a frame or of a block of fields has been here.
    part_since: Option<Instant>,
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
    pub(super) fn new(io: IO, early: &[u8], fields_bytes_max: usize, work: Arc<Work>) -> Self {
        let frames = Frames::new(Instant::now().into_std());
        let mut inbound = Inbound::new(fields_bytes_max);
        inbound.push(early);
        Self(Arc::new(Mutex::new(Inner { io, inbound, work, frames, part_since: None, rejection: None })))
    }

    /// The socket of a client that was cut off because of what it sent, the reason, and the closing
    /// frames for it; to be asked when no other handle is left.
    pub(super) fn into_rejected(self) -> Option<(IO, Rejection, Option<[u8; 17]>)> {
        let inner = Arc::into_inner(self.0)?.into_inner().expect(NO_PANIC);
        let rejection = inner.rejection?;
        Some((inner.io, rejection, inner.frames.last_words(rejection)))
    }

    /// Whether the rest of the head of a request has not come for this long.
    pub(super) fn waits_for_fields(&self, now: Instant, time: Duration) -> bool {
        self.lock().part_since.is_some_and(|since| now.saturating_duration_since(since) >= time)
    }

    /// What `look` finds in the account of the frames.
    pub(super) fn look<R>(&self, look: impl FnOnce(&Frames) -> R) -> R {
        look(&self.lock().frames)
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
            if let Err(rejection) = self.inbound.release(&self.work) {
                self.rejection = Some(rejection);
                return Poll::Ready(Err(io::Error::other(rejection)));
            }
            if !self.inbound.released().is_empty() {
                return Poll::Ready(Ok(true));
            }
            // Then the connection's driver polls again, in the next turn.
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
        if !ready!(inner.poll_released(cx))? {
            return Poll::Ready(Ok(()));
        }
        let Inner { inbound, frames, rejection, .. } = &mut *inner;
        let released = inbound.released();
        let bytes = &released[..released.len().min(into.remaining())];
        if let Err(flood) = frames.receive(bytes, Instant::now().into_std()) {
            *rejection = Some(flood);
            return Poll::Ready(Err(io::Error::other(flood)));
        }
        into.put_slice(bytes);
        let length = bytes.len();
        inbound.advance(length);
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
