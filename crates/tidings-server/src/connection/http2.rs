//! HTTP/2 connections, from the preface on: from reverse proxies, and from clients with prior
//! knowledge.
//!
//! hyper reads the frames. The service is that of HTTP/1, called through the same [`Driver`], and
//! each response streams through hyper: a socket that carries several streams cannot be handed over
//! to the hub. This module decides when a connection ends: when it is idle for too long, when the
//! server stops, when its client reads nothing ([`streams`]) or only causes work ([`frames`]).
//!
//! | a connection may | at most | beyond |
//! |---|---|---|
//! | have open requests, streams included | [`STREAMS_MAX`] at a time | refused: REFUSED_STREAM, to be sent again |
//! | send a header list of | `head_bytes_max` | 431, or GOAWAY when it is much larger |
//! | send of a body before it is read | [`STREAM_WINDOW_BYTES`], of all bodies [`CONNECTION_WINDOW_BYTES`] | it has to wait |
//! | leave a response unread | [`SEND_BUFFER_BYTES_MAX`] and a chunk of 16 KiB | the response waits, and is aborted after `dead_peer_secs` |
//! | take to read a response other than a stream | `response_secs` | the response is aborted; GOAWAY where the library has its end already |
//! | cause work in a pass | see [`work`] | the rest waits for the next pass |
//! | send frames that request nothing | see [`frames`] | GOAWAY: ENHANCE_YOUR_CALM |
//! | leave a header list incomplete | `head_secs`, and until the next check | closed |
//! | be without a request | `keep_alive_secs` | GOAWAY, sooner when capacity is short |
//! | leave a PING unanswered | `dead_peer_secs` | closed |
//!
//! A body is read by its handler, so `body_bytes_max` and `body_secs` apply to each as over HTTP/1.
//! Floods of cancelled requests are also stopped by hyper's `h2` library.

mod fields;
mod frames;
mod inbound;
mod streams;
mod wire;
mod work;

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    net::SocketAddr,
    pin::{Pin, pin},
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::Body;
use hyper::{
    body::Incoming,
    server::conn::http2::{Builder, Connection},
    service::{HttpService, service_fn},
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    sync::watch,
    time::{Instant, Sleep, sleep_until, timeout},
};
use tower::Service;

pub(super) use self::work::BusyLine;
use self::{
    frames::{Frames, Rejection},
    inbound::FRAGMENT_MARK,
    streams::{Limits, Pace, PacedBody, Spawner, Streams},
    wire::Wire,
    work::Work,
};
use super::{
    ConnectionMetrics, Driver, PeerAddress, RequestBody, Stage,
    admission::{Admission, Awaited, WaitedFor},
    exchange::{AnswerBody, Exchange, is_stream},
    gated::{GatedIo, LINGER_SECS, receive_out},
    takeover::Transport,
};
use crate::{
    head::{Lateness, Refusal, check_http2},
    slots::Neighbourhood,
};

/// Most requests of a connection at a time, streams included.
const STREAMS_MAX: u32 = 128;
/// Bytes of a body that a client may send ahead of its reader.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;
/// The same for all bodies of a connection together.
const CONNECTION_WINDOW_BYTES: u32 = 256 * 1024;
/// How much larger than `head_bytes_max` a request's fields may be, as they are sent, and still be
/// answered.
const FIELDS_FACTOR_MAX: usize = 2;
/// Bytes of an answer that are kept for a client that has to make room for them.
const SEND_BUFFER_BYTES_MAX: usize = 16 * 1024;
/// How long a client that has nothing open may take to receive that this is the end.
const GOODBYE_TIME: Duration = Duration::from_secs(LINGER_SECS);

/// Answers that are being made, boxed so that what a handler needed is gone while its stream lasts.
type Answering<B> =
    Pin<Box<dyn Future<Output = Result<Response<PacedBody<AnswerBody<B>>>, Infallible>> + Send>>;

impl<S> Driver<S> {
    /// The rest of a connection that has begun with the preface.
    pub(super) async fn drive_http2<IO, B>(
        self,
        gated: GatedIo<IO>,
        peer: SocketAddr,
        stopping: watch::Receiver<Stage>,
    ) where
        IO: Transport,
        S: Service<Request<RequestBody>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
        S::Future: Send,
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: std::error::Error + Send + Sync,
    {
        // One turn for all that comes with the preface, given back with the first answer.
        let exchange = gated.exchange();
        exchange.begin(false, self.admission.turn().await);
        let peer = PeerAddress(SocketAddr::new(peer.ip().to_canonical(), peer.port()));
        let (io, early) = gated.into_http2();
        let work = Arc::<Work>::default();
        let wire = Wire::new(io, &early, FIELDS_FACTOR_MAX * self.limits.head_bytes_max, Arc::clone(&work));
        let metrics = Arc::clone(&self.metrics);
        let busy = self.busy.clone();

        let mut streams = Streams::new(&work);
        let spawner = streams.spawner();
        let mut patience = Patience::new(&self, peer);
        let ended = {
            let driver = self.clone();
            let (exchange_of_all, stage, announcing) =
                (Arc::clone(&exchange), stopping.clone(), spawner.clone());
            let service = service_fn(move |request| {
                driver.answer_http2(request, peer, &exchange_of_all, &stage, &announcing)
            });
            let connection = pin!(self.http2(spawner).serve_connection(TokioIo::new(wire.clone()), service));
            let conversation =
                converse(connection, &wire, &mut streams, &mut patience, self.has_room, stopping, || {
                    exchange.end_turn();
                });
            busy.take_turns(&work, pin!(conversation)).await
        };
        drop(streams);

        match ended {
            Ended::Closed(Err(error)) => tracing::debug!(%error, "an HTTP/2 connection failed"),
            Ended::Slow => wire.abandon(),
            Ended::Closed(Ok(())) | Ended::Idle => {}
        }
        if let Some((io, rejection, last_words)) = wire.into_rejected() {
            let counter = match rejection {
                Rejection::Flood => &metrics.refused_flood,
                _ => &metrics.refused_malformed,
            };
            counter.fetch_add(1, Relaxed);
            let _ = timeout(GOODBYE_TIME, dismiss(io, last_words)).await;
        }
    }

    fn http2(&self, spawner: Spawner) -> Builder<Spawner> {
        let head_bytes_max = u32::try_from(self.limits.head_bytes_max).unwrap_or(u32::MAX);
        // A PING after half of the time, and the other half for its answer.
        let half = (self.dead_peer / 2).max(Duration::from_secs(1));
        let mut builder = Builder::new(spawner);
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS_MAX)
            .max_header_list_size(head_bytes_max)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_send_buf_size(SEND_BUFFER_BYTES_MAX)
            .keep_alive_interval(half)
            .keep_alive_timeout(half);
        builder
    }

    /// One request and its answer.
    fn answer_http2<B>(
        &self,
        mut request: Request<Incoming>,
        peer: PeerAddress,
        exchange: &Arc<Exchange>,
        stage: &watch::Receiver<Stage>,
        spawner: &Spawner,
    ) -> Answering<B>
    where
        S: Service<Request<RequestBody>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
        S::Future: Send,
        B: Body<Data = Bytes> + Send + Unpin + 'static,
    {
        let pace = Arc::<Pace>::default();
        spawner.announce(&pace);
        if let Err(refusal) = check_http2(&request, FRAGMENT_MARK) {
            self.metrics.count_refusal(refusal);
            return Box::pin(std::future::ready(Ok(refused(refusal))));
        }
        // A body may take its time, and need not be waited for by others.
        if !request.body().is_end_stream() {
            exchange.end_turn();
        }
        let has_body = request.method() != Method::HEAD;
        join_cookies(request.headers_mut());
        let answer = self.answer(request.map(RequestBody::from), peer, exchange, stage);
        Box::pin(async move {
            let mut response = answer.await;
            // RFC 9113, 8.2.2: what is said of a connection is said by frames.
            response.headers_mut().remove(header::CONNECTION);
            // RFC 9110, 8.6. Over HTTP/1, hyper sees to it.
            if response.status() == StatusCode::NO_CONTENT {
                response.headers_mut().remove(header::CONTENT_LENGTH);
            }
            if !is_stream(response.headers()) {
                pace.begin(Instant::now());
            }
            Ok(response.map(|body| PacedBody::new(has_body.then_some(body), pace)))
        })
    }
}

/// RFC 9113, 8.2.3: a client may send each cookie as a field of its own. Handlers find one header,
/// as over HTTP/1.
fn join_cookies(headers: &mut HeaderMap) {
    let crumbs: Vec<_> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if crumbs.len() > 1
        && let Ok(joined) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..]))
    {
        headers.insert(header::COOKIE, joined);
    }
}

/// The answer to a request that no handler sees, in the words of HTTP/1.
fn refused<B>(refusal: Refusal) -> Response<PacedBody<B>> {
    let mut response = Response::new(PacedBody::of(refusal.document()));
    *response.status_mut() = refusal.status();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Why a connection is over.
enum Ended {
    /// By its frames, or by an error.
    Closed(hyper::Result<()>),
    /// Nothing was open, and the client did not receive that this is the end.
    Idle,
    /// The client has left the end of an answer untaken for too long, or the rest of a head unsent.
    Slow,
}

/// Polls a connection and its streams until it is over.
async fn converse<IO, S, B>(
    mut connection: Pin<&mut Connection<TokioIo<Wire<IO>>, S, Spawner>>,
    wire: &Wire<IO>,
    streams: &mut Streams,
    patience: &mut Patience,
    has_room: bool,
    mut stopping: watch::Receiver<Stage>,
    nothing_is_asked: impl Fn(),
) -> Ended
where
    IO: AsyncRead + AsyncWrite + Unpin,
    S: HttpService<Incoming, ResBody = B>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    S::Future: Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    // An error means that the server is gone, which ends this task too.
    let mut leaving = pin!(stopping.wait_for(|stage| *stage != Stage::Serving));
    let mut is_closing = false;
    let mut ends = AnswerEnds::default();
    poll_fn(|cx| {
        loop {
            // First the streams, so that all they have to say is written at once.
            streams.poll(cx);
            if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
                return Poll::Ready(Ended::Closed(ended));
            }
            let has_arrivals = streams.admit();
            // RFC 9113, 6.8: requests that have been sent are answered, others are for another
            // connection. Who found no room has asked when there is something to answer.
            if !is_closing && ((has_arrivals && !has_room) || leaving.as_mut().poll(cx).is_ready()) {
                is_closing = true;
                patience.close();
                connection.as_mut().graceful_shutdown();
                continue;
            }
            if has_arrivals {
                patience.asked();
                continue;
            }
            if streams.is_empty() {
                nothing_is_asked();
            }
            let has_open = !is_closing && wire.look(|frames| frames.open_up_to(u32::MAX)) > 0;
            match ready!(patience.poll(cx, streams.is_empty() && !has_open)) {
                Due::Sweep => {
                    let now = Instant::now();
                    let limits = Limits { piece: patience.dead_peer, answer: patience.answer_time };
                    patience.count_slow(streams.cut_stalled(now, limits));
                    if wire.waits_for_fields(now, patience.head_time) {
                        patience.metrics.count_refusal(Refusal::HeadLate);
                        return Poll::Ready(Ended::Slow);
                    }
                    if wire.look(|frames| ends.are_left(now, limits.answer, frames, streams.len())) {
                        patience.count_slow(1);
                        return Poll::Ready(Ended::Slow);
                    }
                }
                Due::Close => {
                    is_closing = true;
                    patience.close();
                    connection.as_mut().graceful_shutdown();
                }
                Due::End => return Poll::Ready(Ended::Idle),
            }
        }
    })
    .await
}

/// Says the last word to a client that was rejected, and receives it out so that it can be
/// received.
async fn dismiss(
    mut io: impl AsyncRead + AsyncWrite + Unpin,
    last_words: Option<[u8; 17]>,
) -> std::io::Result<()> {
    if let Some(frame) = last_words {
        io.write_all(&frame).await?;
    }
    io.shutdown().await?;
    receive_out(&mut io).await
}

/// Finds the ends of answers that nobody takes. The library has them, and nothing that runs here
/// knows of them any more: a client may have one wait for each request that it may have open.
#[derive(Default)]
struct AnswerEnds(Option<EndsMark>);

/// How things stood at one time.
struct EndsMark {
    at: Instant,
    last_stream: u32,
    /// Answers that were still being made.
    running: usize,
}

impl AnswerEnds {
    /// Whether an answer that was made to its end at least `time` ago has not been written to its
    /// end: of the requests that were there then, more are open now than were still being answered
    /// then. To be called now and then.
    fn are_left(&mut self, now: Instant, time: Duration, frames: &Frames, running: usize) -> bool {
        let mark = EndsMark { at: now, last_stream: frames.last_stream(), running };
        let Some(before) = &self.0 else {
            self.0 = Some(mark);
            return false;
        };
        if now.saturating_duration_since(before.at) < time {
            return false;
        }
        let are_left = frames.open_up_to(before.last_stream) > before.running;
        self.0 = Some(mark);
        are_left
    }
}

/// What a connection is waited for, with its one timer.
struct Patience {
    keep_alive: Duration,
    dead_peer: Duration,
    answer_time: Duration,
    head_time: Duration,
    address: Neighbourhood,
    admission: Arc<Admission>,
    metrics: Arc<ConnectionMetrics>,
    /// Whether it may be given up for others: closing frames have no room to give.
    has_room: bool,
    is_closing: bool,
    idle_since: Option<Instant>,
    swept_at: Instant,
    waited_for: Option<WaitedFor>,
    timer: Pin<Box<Sleep>>,
}

/// What is due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Due {
    /// Nothing is open for too long, or others need the room: say that this is the end.
    Close,
    /// That was said, and not received.
    End,
    /// A look for streams that nobody takes.
    Sweep,
}

impl Patience {
    fn new<S>(driver: &Driver<S>, peer: PeerAddress) -> Self {
        let now = Instant::now();
        Self {
            keep_alive: driver.limits.keep_alive,
            dead_peer: driver.dead_peer,
            answer_time: driver.answer_time,
            head_time: driver.limits.head,
            address: Neighbourhood::of(Some(peer.0.ip())),
            admission: Arc::clone(&driver.admission),
            metrics: Arc::clone(&driver.metrics),
            has_room: driver.has_room,
            is_closing: false,
            idle_since: None,
            swept_at: now,
            waited_for: None,
            timer: Box::pin(sleep_until(now + driver.limits.keep_alive)),
        }
    }

    /// Something is open, or was: it may be answered before the connection is looked at again.
    fn asked(&mut self) {
        self.idle_since = None;
        self.waited_for = None;
    }

    /// The client is being notified that this is the end.
    fn close(&mut self) {
        self.is_closing = true;
        self.asked();
    }

    fn poll(&mut self, cx: &mut Context<'_>, is_idle: bool) -> Poll<Due> {
        if !is_idle {
            self.asked();
        } else if self.idle_since.is_none() {
            self.idle_since = Some(Instant::now());
        }
        if is_idle && self.is_given_up(cx) {
            return Poll::Ready(self.close_idle());
        }
        loop {
            let due = match self.idle_since {
                Some(since) if self.is_closing => since + GOODBYE_TIME,
                Some(since) => since + self.keep_alive,
                None => self.swept_at + self.sweep_interval(),
            };
            // Left armed for an earlier time: that is one wake-up more, where arming it anew would
            // cost something in every request.
            if self.timer.deadline() > due {
                self.timer.as_mut().reset(due);
            }
            ready!(self.timer.as_mut().poll(cx));
            let now = Instant::now();
            if now < due {
                self.timer.as_mut().reset(due);
                continue;
            }
            return Poll::Ready(match self.idle_since {
                None => {
                    self.swept_at = now;
                    Due::Sweep
                }
                Some(_) if self.is_closing => Due::End,
                Some(_) => self.close_idle(),
            });
        }
    }

    /// Often enough to find who takes nothing in one and a half times of what a peer is given, as
    /// silence is found with a heartbeat.
    fn sweep_interval(&self) -> Duration {
        (self.dead_peer.min(self.answer_time) / 2).max(Duration::from_secs(1))
    }

    fn count_slow(&self, cut: usize) {
        self.metrics.closed_slow.fetch_add(cut as u64, Relaxed);
    }

    fn close_idle(&self) -> Due {
        self.metrics.count_lateness(Lateness::Idle);
        Due::Close
    }

    /// Whether others need the room of a connection that has nothing open.
    fn is_given_up(&mut self, cx: &Context<'_>) -> bool {
        if self.is_closing || !self.has_room {
            return false;
        }
        let Self { admission, address, .. } = self;
        let waited_for =
            self.waited_for.get_or_insert_with(|| admission.wait_for(Awaited::Request, *address));
        waited_for.is_given_up(cx)
    }
}

#[cfg(test)]
mod tests;
