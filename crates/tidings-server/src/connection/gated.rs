//! A socket behind the header gate: hyper reads only the bytes that the gate has released.
//!
//! It does five things and decides none of them: it fills a buffer from the socket, passes it to
//! [`HeadGate`], keeps the one timer for the gate's deadline, closes a connection whose client does
//! not read a response in time, and hides the client's end of input from hyper while a finite
//! response is produced, so that a client that shuts down its sending side after the request still
//! receives the response.
//!
//! An idle connection holds only an empty buffer and an armed timer.

use std::{
    io::{self, IoSlice},
    mem::{self, MaybeUninit},
    net::{IpAddr, TcpStream},
    pin::Pin,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll, ready},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use hyper::rt;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf},
    time::{Instant, Sleep, sleep, sleep_until, timeout},
};

use super::{
    admission::{Admission, Awaited, WaitedFor},
    exchange::Exchange,
    metrics::ConnectionMetrics,
    takeover::Transport,
};
use crate::{
    head::{Decision, HeadGate, HeadLimits, Lateness, Refusal},
    slots::Neighbourhood,
};

/// Bytes that one read takes from the socket, by way of the stack.
const READ_BYTES: usize = 8 * 1024;
/// Most bytes of later requests that are taken while an answer is being made. More wait in the
/// kernel; behind a stream, which has no later, more of them end the connection.
const AHEAD_BYTES_MAX: usize = 8 * 1024;
/// After an answer that ends a connection: how long, and for how many bytes, the client is listened
/// to, so that what it still sends does not reset the connection and take the answer with it.
pub(super) const LINGER_SECS: u64 = 2;
const LINGER_BYTES_MAX: usize = 1024 * 1024;

/// See the module's documentation.
pub(super) struct GatedIo<IO> {
    io: IO,
    gate: HeadGate,
    /// What has arrived and hyper has not taken. The first `released` bytes are hyper's.
    buffer: Vec<u8>,
    released: usize,
    /// The client has ended its side.
    input_ended: bool,
    /// hyper was asked to wait with a read: for the answer, or at least for the news that the
    /// answer is a stream.
    is_read_put_off: bool,
    /// Everything that was written has been flushed, too: what hyper has is with the kernel.
    is_flushed: bool,
    outcome: Outcome,
    peer: Neighbourhood,
    admission: Arc<Admission>,
    /// The head or the request that is being waited for.
    waited_for: Option<Box<WaitedFor>>,
    timer: Option<Pin<Box<Sleep>>>,
    /// Set while an answer with an end waits for its client to make room, until it has been
    /// written.
    answer_timer: Option<Pin<Box<Sleep>>>,
    /// How long that may take.
    answer_time: Duration,
    exchange: Arc<Exchange>,
    metrics: Arc<ConnectionMetrics>,
}

/// Whether more will be read, and if not, what remains to be said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Outcome {
    Open,
    Ended,
    Refused(Refusal),
    /// The client speaks HTTP/2: what is in the buffer, and all that comes, is for others.
    Http2,
}

impl<IO: Transport> GatedIo<IO> {
    pub(super) fn new(
        io: IO,
        peer: IpAddr,
        limits: HeadLimits,
        answer_time: Duration,
        admission: &Arc<Admission>,
        metrics: &Arc<ConnectionMetrics>,
    ) -> Self {
        Self {
            io,
            gate: HeadGate::new(limits, Instant::now().into_std()),
            buffer: Vec::new(),
            released: 0,
            input_ended: false,
            is_read_put_off: false,
            is_flushed: true,
            outcome: Outcome::Open,
            peer: Neighbourhood::of(Some(peer)),
            admission: Arc::clone(admission),
            waited_for: None,
            timer: None,
            answer_timer: None,
            answer_time,
            exchange: Arc::default(),
            metrics: Arc::clone(metrics),
        }
    }

    pub(super) fn exchange(&self) -> Arc<Exchange> {
        Arc::clone(&self.exchange)
    }

    /// Waits for bytes that hyper may see. False: there will be none, and `close` is what remains
    /// to be done.
    pub(super) fn poll_released(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        loop {
            if self.released > 0 {
                return Poll::Ready(Ok(true));
            }
            if self.outcome != Outcome::Open {
                return Poll::Ready(Ok(false));
            }
            match self.gate.receive(&self.buffer, Instant::now().into_std()) {
                Decision::Release(length) => {
                    self.waited_for = None;
                    self.released = length;
                    continue;
                }
                Decision::Http2 => {
                    self.waited_for = None;
                    self.outcome = Outcome::Http2;
                    return Poll::Ready(Ok(true));
                }
                Decision::Refuse(refusal) => {
                    self.refuse(refusal);
                    continue;
                }
                Decision::Broken => {
                    self.outcome = Outcome::Ended;
                    continue;
                }
                Decision::Wait => {}
            }
            if self.input_ended {
                if self.gate.is_answering() && (!self.exchange.is_streaming() || self.exchange.end_input()) {
                    self.is_read_put_off = true;
                    return Poll::Pending;
                }
                if self.gate.is_in_head() {
                    self.refuse(Refusal::HeadCut);
                } else {
                    self.outcome = Outcome::Ended;
                }
                continue;
            }
            if self.gate.is_answering() && self.buffer.len() >= AHEAD_BYTES_MAX {
                if self.exchange.is_streaming() {
                    self.outcome = Outcome::Ended;
                    continue;
                }
                self.is_read_put_off = true;
                return Poll::Pending;
            }
            if self.poll_fill(cx)?.is_ready() {
                continue;
            }
            match self.given_up(cx) {
                None => {}
                Some(Awaited::Head) => {
                    self.refuse(Refusal::HeadCrowded);
                    continue;
                }
                Some(Awaited::Request) => {
                    self.end_late(Lateness::Idle);
                    continue;
                }
            }
            // Only when the socket has nothing: what came in time is not late because this task
            // was.
            match ready!(self.poll_deadline(cx)) {
                Lateness::Head => self.refuse(Refusal::HeadLate),
                lateness => self.end_late(lateness),
            }
        }
    }

    /// No byte of an unanswered request is here.
    pub(super) fn is_quiet(&self) -> bool {
        self.gate.is_quiet() && self.buffer.is_empty()
    }

    /// The client has begun with the preface of HTTP/2: what remains to be done is `into_http2`.
    pub(super) fn speaks_http2(&self) -> bool {
        self.outcome == Outcome::Http2
    }

    /// The socket, and what has been read from it.
    pub(super) fn into_http2(self) -> (IO, Vec<u8>) {
        (self.io, self.buffer)
    }

    /// What the buffer costs now.
    #[cfg(test)]
    pub(super) fn buffered_bytes(&self) -> usize {
        self.buffer.capacity()
    }

    /// The request that has been released, head and body, if all of it is here. What is not
    /// answered with `write_answer` is to be given back.
    pub(super) fn take_whole(&mut self) -> Option<Bytes> {
        if !self.gate.is_answering() {
            let behind = &self.buffer[self.released..];
            // Anything but a body that goes on is for `poll_released` to find again.
            if let Decision::Release(length) = self.gate.receive(behind, Instant::now().into_std()) {
                self.released += length;
            }
            if !self.gate.is_answering() {
                return None;
            }
        }
        let later = self.buffer.split_off(self.released);
        self.released = 0;
        Some(mem::replace(&mut self.buffer, later).into())
    }

    /// Releases a request again that was taken whole.
    pub(super) fn give_back(&mut self, request: &Bytes) {
        self.buffer.splice(..0, request.iter().copied());
        self.released = request.len();
    }

    /// Writes the answer to a request that was taken whole, to its last byte.
    pub(super) async fn write_answer(&mut self, answer: &[u8]) -> io::Result<()> {
        let Self { io, answer_time, .. } = self;
        let written = timeout(*answer_time, async {
            io.write_all(answer).await?;
            io.flush().await
        });
        written.await.unwrap_or_else(|_| Err(self.give_up_reader()))?;
        self.exchange.take_body_done();
        self.gate.answered(Instant::now().into_std());
        Ok(())
    }

    /// The client has not taken an answer in time: what waits for it is forgotten.
    fn give_up_reader(&self) -> io::Error {
        self.metrics.closed_slow.fetch_add(1, Relaxed);
        self.io.abandon();
        io::Error::new(io::ErrorKind::TimedOut, "the client did not read a response in time")
    }

    /// Bounds the time for which a client may have an answer with an end wait. A stream has none:
    /// one who takes nothing of it is found by the kernel, and one who takes a little keeps no more
    /// waiting than a buffer.
    fn in_time<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() || self.exchange.is_streaming() {
            return written;
        }
        let time = self.answer_time;
        let timer = self.answer_timer.get_or_insert_with(|| Box::pin(sleep(time)));
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Err(self.give_up_reader()))
    }

    /// Turns the connection away with `refusal`, in `close`.
    pub(super) fn refuse(&mut self, refusal: Refusal) {
        self.waited_for = None;
        self.metrics.count_refusal(refusal);
        self.outcome = Outcome::Refused(refusal);
    }

    /// Ends the connection without an answer.
    fn end_late(&mut self, lateness: Lateness) {
        self.waited_for = None;
        self.metrics.count_lateness(lateness);
        self.outcome = Outcome::Ended;
    }

    /// A request has come whole, its head and its body.
    pub(super) fn is_answering(&self) -> bool {
        self.gate.is_answering()
    }

    /// Says what is left to say, and ends the connection so that the client can receive it.
    pub(super) async fn close(mut self) {
        // The one that does not read, or never stops to send, does not keep us.
        let _ = timeout(Duration::from_secs(LINGER_SECS), self.farewell()).await;
    }

    async fn farewell(&mut self) -> io::Result<()> {
        let has_unread = match self.outcome {
            Outcome::Refused(refusal) => {
                self.io.write_all(&refusal.response(SystemTime::now())).await?;
                // The one that is given up has sent nothing more, and there are many of them.
                refusal != Refusal::HeadCrowded
            }
            Outcome::Open | Outcome::Ended | Outcome::Http2 => !self.is_quiet(),
        };
        self.io.shutdown().await?;
        if !has_unread || self.input_ended {
            return Ok(());
        }
        receive_out(&mut self.io).await
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut space = [const { MaybeUninit::uninit() }; READ_BYTES];
        let mut read = ReadBuf::uninit(&mut space);
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut read))?;
        if read.filled().is_empty() {
            self.input_ended = true;
        }
        self.buffer.extend_from_slice(read.filled());
        Poll::Ready(Ok(()))
    }

    /// Ready when the gate's deadline has passed. The timer is left armed for an earlier one: it
    /// costs one wake-up in `keep_alive_secs` then, where arming it anew would cost something in
    /// every request.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<Lateness> {
        let Some(until) = self.gate.deadline().map(Instant::from_std) else { return Poll::Pending };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(until)));
        if timer.deadline() > until {
            timer.as_mut().reset(until);
        }
        loop {
            ready!(timer.as_mut().poll(cx));
            match self.gate.lateness(Instant::now().into_std()) {
                Some(lateness) => return Poll::Ready(lateness),
                None => timer.as_mut().reset(until),
            }
        }
    }

    /// What there is no room any more to wait for. Asked only when the socket has nothing, so that
    /// a head which comes in one piece is never waited for.
    fn given_up(&mut self, cx: &Context<'_>) -> Option<Awaited> {
        let awaited = if self.gate.awaits_head() {
            Awaited::Head
        } else if self.gate.is_quiet() {
            Awaited::Request
        } else {
            return None;
        };
        if self.waited_for.as_ref().is_none_or(|waited_for| waited_for.awaited() != awaited) {
            self.waited_for = Some(Box::new(self.admission.wait_for(awaited, self.peer)));
        }
        let waited_for = self.waited_for.as_mut()?;
        waited_for.hold(self.buffer.capacity());
        waited_for.is_given_up(cx).then_some(awaited)
    }

    /// Called when hyper has nothing buffered: if the answer's body is done too, the answer is with
    /// the kernel to its last byte.
    fn after_flush(&mut self, cx: &mut Context<'_>) {
        // Each of these wakes hyper once, for the read that it was asked to wait with.
        if self.exchange.take_body_done() {
            self.is_read_put_off = false;
            self.answer_timer = None;
            self.gate.answered(Instant::now().into_std());
            // What waits here now has its turn; if nothing does, the next request is waited for,
            // and its time runs.
            if !self.buffer.is_empty()
                || self.input_ended
                || self.given_up(cx).is_some()
                || self.poll_deadline(cx).is_ready()
            {
                cx.waker().wake_by_ref();
            }
        } else if self.is_read_put_off && self.exchange.is_streaming() {
            self.is_read_put_off = false;
            cx.waker().wake_by_ref();
        }
    }
}

/// Reads on, within bounds, from a client that has been reported the last word: see
/// [`LINGER_BYTES_MAX`].
pub(super) async fn receive_out(io: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(READ_BYTES);
    let mut left = LINGER_BYTES_MAX;
    loop {
        buffer.clear();
        let read = io.read_buf(&mut buffer).await?;
        if read == 0 || read > left {
            return Ok(());
        }
        left -= read;
    }
}

impl<IO: Transport> GatedIo<IO> {
    /// The bare socket, for an answer of which hyper has written nothing yet, and how many bytes
    /// the client has sent behind its request.
    ///
    /// # Panics
    ///
    /// If something of earlier answers could be with hyper still, which the gate excludes: it
    /// releases a head only behind them.
    pub(super) fn into_socket(self) -> io::Result<(TcpStream, usize)> {
        assert!(
            self.gate.is_answering() && self.released == 0 && self.is_flushed,
            "a stream begins when all that was asked before it is answered"
        );
        Ok((self.io.into_socket()?, self.buffer.len()))
    }
}

impl<IO: Transport> rt::Read for GatedIo<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut into: rt::ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if ready!(self.poll_released(cx))? {
            let length = self.released.min(into.remaining());
            into.put_slice(&self.buffer[..length]);
            self.buffer.drain(..length);
            self.released -= length;
            if self.buffer.is_empty() {
                self.buffer = Vec::new();
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<IO: Transport> rt::Write for GatedIo<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.is_flushed = false;
        let written = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.in_time(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.is_flushed = false;
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, slices);
        self.in_time(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        ready!(self.in_time(cx, flushed))?;
        self.is_flushed = true;
        self.after_flush(cx);
        Poll::Ready(Ok(()))
    }

    /// hyper calls this when it is done and everything is flushed. The socket is shut in `close`,
    /// behind what the gate may have to say.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
