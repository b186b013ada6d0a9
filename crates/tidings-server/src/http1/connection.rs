//! The socket of one HTTP/1 connection, and everything that is read from it.
//!
//! Between two requests it fills a buffer for [`RequestReader`] and keeps the one timer for its
//! deadline. While a request is answered it reads the rest of the request's body, when the handler
//! asks for it. Deciding what to answer is `exchange`'s.
//!
//! Invariants:
//! - An idle connection holds an empty buffer and an armed timer.
//! - At most [`AHEAD_BYTES_MAX`] and one read wait for later than the current request.

use std::{
    io, mem,
    mem::MaybeUninit,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use tokio::{
    io::{AsyncWriteExt, ReadBuf},
    time::{Instant, Sleep, sleep_until, timeout},
};

use super::{
    body_decoder::{BodyDecoder, Progress},
    refusal::Refusal,
    request_body::{RequestBody, Upload, Usage, arriving},
    request_headers::{RequestHeaders, parse},
    request_reader::{Found, Lateness, RequestLimits, RequestReader},
    transport::{HubSocket, PlainHttp, Transport},
};
use crate::{
    client_address::Neighbourhood,
    connection::{
        admission::{Admission, Awaited, Wait},
        linger::{LINGER_SECS, read_to_end},
        metrics::ConnectionMetrics,
    },
};

/// Bytes that one read takes from the socket, by way of the stack.
const READ_BYTES: usize = 16 * 1024;
/// Most bytes of later requests that are buffered before more is read ahead. More wait in the
/// kernel; behind a stream, which has no later request, more of them end the connection.
const AHEAD_BYTES_MAX: usize = 8 * 1024;
/// Most bytes of a body that its handler has not read which are read and dropped after the
/// response, so that the connection can be kept. A client that has more to send is disconnected.
const DISCARDED_BYTES_MAX: u64 = 64 * 1024;

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// See the module's documentation.
pub(crate) struct Connection<IO> {
    pub(super) io: IO,
    reader: RequestReader,
    /// What has arrived and is not of a request that was taken.
    buffer: Vec<u8>,
    /// The client has ended its side.
    input_ended: bool,
    /// The rest of the current request's body.
    body: Option<Box<ArrivingBody>>,
    peer: Option<Neighbourhood>,
    admission: Arc<Admission>,
    /// Where the connection waits for request headers.
    wait: Option<Wait>,
    timer: Option<Pin<Box<Sleep>>>,
    metrics: Arc<ConnectionMetrics>,
}

/// The rest of a body that did not arrive with its headers.
struct ArrivingBody {
    decoder: BodyDecoder,
    /// None if the body is broken: nothing behind it is looked at.
    upload: Option<Upload>,
    /// The client waits for this before it sends the body, and so much of it is to be written.
    interim: &'static [u8],
}

/// What a connection has waited for.
pub(crate) enum Next {
    Request(Box<Received>),
    /// The client has begun with the preface of HTTP/2.
    Http2,
    /// There is no further request.
    End,
    Refused(Refusal),
}

/// A request, as far as it has arrived.
pub(crate) struct Received {
    pub(super) headers: RequestHeaders,
    pub(super) body: RequestBody,
}

impl<IO: Transport> Connection<IO> {
    pub(crate) fn new(
        io: IO,
        peer: Option<Neighbourhood>,
        limits: RequestLimits,
        admission: &Arc<Admission>,
        metrics: &Arc<ConnectionMetrics>,
    ) -> Self {
        Self {
            io,
            reader: RequestReader::new(limits, Instant::now().into_std()),
            buffer: Vec::new(),
            input_ended: false,
            body: None,
            peer,
            admission: Arc::clone(admission),
            wait: None,
            timer: None,
            metrics: Arc::clone(metrics),
        }
    }

    /// Waits for the headers of the next request.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Next>> {
        loop {
            match self.reader.find(&self.buffer, Instant::now().into_std()) {
                Found::Headers(end) => return Poll::Ready(Ok(self.take_request(end))),
                Found::Refused(refusal) => return Poll::Ready(Ok(self.refuse(refusal))),
                Found::Http2 => return Poll::Ready(Ok(Next::Http2)),
                Found::Nothing => {}
            }
            if self.input_ended {
                let is_cut = !self.reader.is_idle();
                return Poll::Ready(Ok(if is_cut { self.refuse(Refusal::HeadersCut) } else { Next::End }));
            }
            match self.poll_fill(cx) {
                Poll::Ready(Ok(())) => continue,
                Poll::Ready(Err(error)) if PlainHttp::is_reason_of(&error) => {
                    return Poll::Ready(Ok(self.refuse(Refusal::NotEncrypted)));
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {}
            }
            if self.io.has_begun() {
                self.reader.first_bytes_arrived();
            }
            // Only when the socket has nothing: what came in time is not late because this task
            // was.
            return Poll::Ready(Ok(match self.given_up(cx) {
                Some(Awaited::Headers) => self.refuse(Refusal::HeadersCrowded),
                Some(Awaited::Request) => self.end_late(Lateness::Idle),
                None => match ready!(self.poll_deadline(cx)) {
                    Lateness::Headers => self.refuse(Refusal::HeadersLate),
                    lateness => self.end_late(lateness),
                },
            }));
        }
    }

    /// No byte of a further request has arrived.
    pub(crate) fn is_idle(&self) -> bool {
        self.reader.is_idle()
    }

    fn take_request(&mut self, headers_end: usize) -> Next {
        self.wait = None;
        let arrived = Bytes::from(mem::take(&mut self.buffer));
        let mut headers = match parse(&arrived.slice(..headers_end)) {
            Ok(headers) => headers,
            Err(refusal) => return self.refuse(refusal),
        };
        let decoder = mem::replace(&mut headers.body, BodyDecoder::Length(0));
        let body = self.take_body(decoder, &arrived.slice(headers_end..), headers.expects_continue);
        Next::Request(Box::new(Received { headers, body }))
    }

    /// `behind`: what has arrived behind the headers.
    fn take_body(&mut self, mut decoder: BodyDecoder, behind: &Bytes, expects_continue: bool) -> RequestBody {
        let length = decoder.remaining().and_then(|length| usize::try_from(length).ok());
        if let Some(length) = length.filter(|length| *length <= behind.len()) {
            self.buffer = behind[length..].to_vec();
            return RequestBody::complete(behind.slice(..length));
        }
        self.buffer = behind.to_vec();
        // RFC 9110, 10.1.1: not needed by a client that has begun to send the body.
        let interim = if expects_continue && self.buffer.is_empty() { CONTINUE } else { b"" };
        let (first, progress) = decoder.decode(&mut self.buffer);
        if progress == Progress::Complete {
            return RequestBody::complete(first);
        }
        let (upload, body) = arriving(first, decoder.remaining());
        let upload = (progress == Progress::Incomplete).then_some(upload);
        self.body = Some(Box::new(ArrivingBody { decoder, upload, interim }));
        body
    }

    /// Reads on in the current request's body if its handler waits for it. Ready when the handler
    /// has to be polled again; an error ends the connection.
    pub(super) fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(body) = &mut self.body {
            let Some(upload) = &body.upload else { break };
            ready!(upload.poll_wanted(cx));
            while !body.interim.is_empty() {
                let written = ready!(Pin::new(&mut self.io).poll_write(cx, body.interim))?;
                body.interim = &body.interim[written..];
            }
            if self.buffer.is_empty() && !self.input_ended {
                ready!(self.poll_fill(cx))?;
                continue;
            }
            let (data, progress) = if self.buffer.is_empty() {
                (Bytes::new(), Progress::Broken)
            } else {
                body.decoder.decode(&mut self.buffer)
            };
            let has_data = !data.is_empty();
            upload.give(data, body.decoder.remaining(), cx);
            match progress {
                Progress::Incomplete if !has_data => continue,
                Progress::Incomplete => {}
                Progress::Complete => {
                    if let Some(upload) = self.body.take().and_then(|body| body.upload) {
                        upload.complete(cx);
                    }
                }
                Progress::Broken => body.upload = None,
            }
            return Poll::Ready(Ok(()));
        }
        Poll::Pending
    }

    /// A final response begins: no interim one can come any more.
    pub(super) fn take_interim(&mut self) -> &'static [u8] {
        let interim = self.body.as_mut().map_or(&b""[..], |body| mem::take(&mut body.interim));
        // What was written in part has to be written whole.
        if interim.len() == CONTINUE.len() { b"" } else { interim }
    }

    /// Whether the rest of the body keeps the connection from being used again.
    pub(super) fn is_body_in_the_way(&self) -> bool {
        let Some(body) = &self.body else { return false };
        let Some(upload) = &body.upload else { return true };
        // A client that waits for `100 Continue` may or may not send the body now.
        !body.interim.is_empty()
            || match upload.usage() {
                Usage::Held => false,
                Usage::Ignored => {
                    body.decoder.remaining().is_some_and(|remaining| remaining > DISCARDED_BYTES_MAX)
                }
                Usage::GivenUp => true,
            }
    }

    /// Reads the rest of a body that nobody wants any more. False if it is too long, or does not
    /// arrive in time.
    pub(super) async fn discard_body(&mut self) -> io::Result<bool> {
        let Some(body) = &mut self.body else { return Ok(true) };
        if body.upload.take().is_none() {
            return Ok(false);
        }
        let limit = self.reader.headers_time();
        Box::pin(timeout(limit, self.read_and_drop_body())).await.unwrap_or(Ok(false))
    }

    async fn read_and_drop_body(&mut self) -> io::Result<bool> {
        let mut discarded = 0;
        while let Some(body) = &mut self.body {
            let before = self.buffer.len();
            let (_, progress) = body.decoder.decode(&mut self.buffer);
            discarded += (before - self.buffer.len()) as u64;
            match progress {
                Progress::Complete => self.body = None,
                Progress::Broken => return Ok(false),
                Progress::Incomplete if discarded > DISCARDED_BYTES_MAX || self.input_ended => {
                    return Ok(false);
                }
                Progress::Incomplete => std::future::poll_fn(|cx| self.poll_fill(cx)).await?,
            }
        }
        Ok(true)
    }

    /// The response has been sent, and the body is out of the way: waits for the next request.
    pub(super) fn await_next(&mut self) {
        self.reader.await_next(Instant::now().into_std());
    }

    /// Whether the client has ended its side, as far as has been read.
    pub(super) fn has_input_ended(&self) -> bool {
        self.input_ended
    }

    /// Reads ahead while a response is made or waits for its body, to notice a connection that was
    /// reset.
    pub(super) fn poll_read_ahead(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        while !self.input_ended && self.buffer.len() < AHEAD_BYTES_MAX {
            if self.poll_fill(cx)?.is_pending() {
                break;
            }
        }
        Ok(())
    }

    /// Reads and counts what a client sends behind the request for a stream. Ready when it has
    /// ended its side, or has sent too much.
    pub(super) fn poll_input_end(
        &mut self,
        cx: &mut Context<'_>,
        dropped: &mut usize,
    ) -> Poll<io::Result<()>> {
        loop {
            *dropped += mem::take(&mut self.buffer).len();
            if *dropped > AHEAD_BYTES_MAX {
                return Poll::Ready(Err(io::Error::other(
                    "the client keeps sending behind the request of a stream",
                )));
            }
            if self.input_ended {
                return Poll::Ready(Ok(()));
            }
            ready!(self.poll_fill(cx))?;
        }
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

    fn refuse(&mut self, refusal: Refusal) -> Next {
        self.metrics.count_refusal(refusal);
        Next::Refused(refusal)
    }

    fn end_late(&mut self, lateness: Lateness) -> Next {
        self.metrics.count_lateness(lateness);
        Next::End
    }

    /// Ready when the reader's deadline has passed. The timer is left armed for an earlier one: it
    /// costs one wake-up in `keep_alive_secs` then, where arming it anew would cost something in
    /// every request.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<Lateness> {
        let until = Instant::from_std(self.reader.deadline());
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(until)));
        if timer.deadline() > until {
            timer.as_mut().reset(until);
        }
        loop {
            ready!(timer.as_mut().poll(cx));
            match self.reader.lateness(Instant::now().into_std()) {
                Some(lateness) => return Poll::Ready(lateness),
                None => timer.as_mut().reset(until),
            }
        }
    }

    /// What there is no capacity any more to wait for. Asked only when the socket has nothing, so
    /// that headers which arrive in one piece are never waited for.
    fn given_up(&mut self, cx: &Context<'_>) -> Option<Awaited> {
        let awaited = if self.reader.awaits_headers() { Awaited::Headers } else { Awaited::Request };
        if self.wait.as_ref().is_none_or(|wait| wait.awaited() != awaited) {
            self.wait = Some(self.admission.wait_for(awaited, self.peer));
        }
        let wait = self.wait.as_mut()?;
        wait.hold(self.buffer.capacity() + self.io.held_bytes());
        wait.is_given_up(cx).then_some(awaited)
    }

    /// The socket, and what has been read from it.
    pub(crate) fn into_parts(self) -> (IO, Vec<u8>) {
        (self.io, self.buffer)
    }

    pub(super) fn is_for_hub(&self) -> bool {
        self.io.is_for_hub()
    }

    /// The socket, and how many bytes the client has sent behind the last request.
    pub(crate) fn into_socket(self) -> io::Result<(HubSocket, usize)> {
        Ok((self.io.into_socket()?, self.buffer.len()))
    }

    /// Sends the refusal, if any, and ends the connection so that the client can receive everything
    /// that was sent.
    pub(crate) async fn close(&mut self, refusal: Option<Refusal>) {
        self.wait = None;
        // A client that does not read, or never stops to send, does not keep us.
        let _ = timeout(Duration::from_secs(LINGER_SECS), self.shut_down(refusal)).await;
    }

    async fn shut_down(&mut self, refusal: Option<Refusal>) -> io::Result<()> {
        let has_unread = match refusal {
            Some(refusal) => {
                self.io.write_all(&refusal.response(SystemTime::now())).await?;
                // One that is given up has sent nothing more, and there are many of them.
                refusal != Refusal::HeadersCrowded
            }
            None => !self.buffer.is_empty() || self.body.is_some(),
        };
        self.io.shutdown().await?;
        if has_unread && !self.input_ended { read_to_end(&mut self.io).await } else { Ok(()) }
    }

    /// What the buffer takes now.
    #[cfg(test)]
    pub(super) fn buffered_bytes(&self) -> usize {
        self.buffer.capacity()
    }
}
