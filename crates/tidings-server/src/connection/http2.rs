//! HTTP/2 connections, from the preface on: from reverse proxies, and from clients with prior
//! knowledge.
//!
//! hyper reads the frames. The service is that of HTTP/1, called through the same [`Driver`], and
//! each response streams through hyper: a socket that carries several streams cannot be handed over
//! to the hub. This module decides when a connection ends: when it is idle for too long, when the
//! server stops, when its client takes too long ([`Deadlines`]) or only causes work ([`work`]).
//!
//! | a connection may | at most | beyond |
//! |---|---|---|
//! | have open requests, streams included | [`STREAMS_MAX`] at a time | refused: REFUSED_STREAM, to be sent again |
//! | send a header list of | `request_headers_bytes_max` | 431, or GOAWAY when it is much larger |
//! | send of a body before it is read | [`STREAM_WINDOW_BYTES`], of all bodies [`CONNECTION_WINDOW_BYTES`] | it has to wait |
//! | leave a response unread | [`SEND_BUFFER_BYTES_MAX`] and a chunk of its body | the response waits, and is aborted after `dead_peer_secs` |
//! | take to read a response other than a stream | `response_secs` | the response is aborted; the connection is closed where the library has its end already |
//! | cause work in a pass | see [`work`] | the rest waits for the next pass ([`passes`]) |
//! | cause work without use | see [`work`] | GOAWAY: ENHANCE_YOUR_CALM |
//! | have requests reset for its errors, or beyond [`STREAMS_MAX`] | [`ERROR_RESETS_MAX`] ever | the same, by hyper's `h2` library |
//! | split a header list | into 6 frames or more, if it is large | the same |
//! | send small parts of bodies | half a MiB of overhead that is not read | the same |
//! | leave a header list incomplete | `request_headers_secs`, and until the next check | closed |
//! | be without a request | `keep_alive_secs` | GOAWAY, sooner when capacity is short |
//! | leave a PING unanswered | `dead_peer_secs` | closed |
//!
//! A body is read by its handler, so `body_bytes_max` and `body_secs` apply to each as over HTTP/1.

mod check;
mod deadlines;
mod fields;
mod inbound;
mod passes;
mod streams;
mod wire;
mod work;

use std::{
    convert::Infallible,
    future::{Future, poll_fn, ready as ready_with},
    pin::{Pin, pin},
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::Body;
use http_body_util::{Either, Full};
use hyper::{
    body::Incoming,
    server::conn::http2::{Builder, Connection},
    service::{HttpService, service_fn},
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    sync::watch,
    time::{Instant, timeout},
};
use tower::Service;

pub(super) use self::passes::PassQueue;
use self::{
    deadlines::{CLOSING_TIME, Deadlines, Due},
    inbound::{FRAGMENT_MARK, Rejection},
    streams::{PacedBody, Piece, Progress, Spawner, Streams},
    wire::Wire,
    work::Work,
};
use super::{
    admission::SharedPermit,
    driver::{Driver, is_stream},
    linger::read_to_end,
    peer::Peer,
    stage::Stage,
};
use crate::{
    http1::{Refusal, RequestBody, Transport},
    relayed::Relayed,
};

/// Most requests of a connection at a time, streams included.
const STREAMS_MAX: u32 = 128;
/// Bytes of a body that a client may send ahead of its reader.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;
/// The same for all bodies of a connection together.
const CONNECTION_WINDOW_BYTES: u32 = 256 * 1024;
/// Most requests that are reset because of errors of the client, or refused, as long as a connection
/// lasts.
const ERROR_RESETS_MAX: usize = 1_024;
/// How much larger than `request_headers_bytes_max` a request's fields may be, as they are sent, and still be
/// answered.
const FIELDS_FACTOR_MAX: usize = 2;
/// Bytes of a response that are kept for a client that has to make room for them.
const SEND_BUFFER_BYTES_MAX: usize = 16 * 1024;

/// Responses that are being made, boxed so that what a handler needed is gone while its stream lasts.
type Responding<B> = Pin<Box<dyn Future<Output = Result<Response<ResponseBody<B>>, Infallible>> + Send>>;
/// That of a handler, or of a request that no handler sees.
type ResponseBody<B> = PacedBody<Either<B, Full<Bytes>>>;

impl<S> Driver<S> {
    /// The rest of a connection that has begun with the preface; `early` is what was read.
    pub(super) async fn drive_http2<IO, B>(
        self,
        io: IO,
        early: &[u8],
        peer: Peer,
        stopping: watch::Receiver<Stage>,
    ) where
        IO: Transport,
        S: Service<Request<RequestBody>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
        S::Future: Send,
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: std::error::Error + Send + Sync,
    {
        // One permit for all that comes with the preface, given back with the first response.
        let permit = SharedPermit::new(self.admission.answer_permit().await);
        let work = Arc::new(Work::new(Instant::now()));
        let wire = Wire::new(io, early, FIELDS_FACTOR_MAX * self.limits.headers_bytes_max, &work);
        let metrics = Arc::clone(&self.metrics);
        let queue = self.busy.clone();

        let mut streams = Streams::default();
        let spawner = streams.spawner(&work);
        let mut deadlines = Deadlines::new(self.shared(), peer.neighbourhood());
        let ended = {
            let driver = self.clone();
            let (permit_of_all, announcing) = (permit.clone(), spawner.clone());
            let service =
                service_fn(move |request| driver.respond_http2(request, &peer, &permit_of_all, &announcing));
            let connection = pin!(self.http2(spawner).serve_connection(TokioIo::new(wire.clone()), service));
            let conversation =
                converse(connection, &wire, &work, &mut streams, &mut deadlines, stopping, || {
                    permit.give_back();
                });
            queue.run(&work, pin!(conversation)).await
        };
        drop(streams);

        match ended {
            Ended::Closed(Err(error)) => tracing::debug!(%error, "an HTTP/2 connection failed"),
            Ended::Slow => wire.abandon(),
            Ended::Closed(Ok(())) | Ended::Idle => {}
        }
        if let Some((io, rejection, closing_frame)) = wire.into_rejected() {
            let counter = match rejection {
                Rejection::Flood => &metrics.refused_flood,
                _ => &metrics.refused_malformed,
            };
            counter.fetch_add(1, Relaxed);
            let _ = timeout(CLOSING_TIME, close(io, closing_frame)).await;
        }
    }

    fn http2(&self, spawner: Spawner) -> Builder<Spawner> {
        let request_headers_bytes_max = u32::try_from(self.limits.headers_bytes_max).unwrap_or(u32::MAX);
        // A PING after half of the time, and the other half for its answer.
        let half = (self.dead_peer / 2).max(Duration::from_secs(1));
        let mut builder = Builder::new(spawner);
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS_MAX)
            .max_local_error_reset_streams(ERROR_RESETS_MAX)
            .max_header_list_size(request_headers_bytes_max)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_send_buf_size(SEND_BUFFER_BYTES_MAX)
            .keep_alive_interval(half)
            .keep_alive_timeout(half);
        builder
    }

    /// One request and its response.
    fn respond_http2<B>(
        &self,
        mut request: Request<Incoming>,
        peer: &Peer,
        permit: &SharedPermit,
        spawner: &Spawner,
    ) -> Responding<B>
    where
        S: Service<Request<RequestBody>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
        S::Future: Send,
        B: Body<Data = Bytes> + Send + Unpin + 'static,
    {
        let progress = spawner.announce();
        // RFC 9110, 9.3.2.
        let has_body = request.method() != Method::HEAD;
        if let Err(refusal) = check::check(&request, FRAGMENT_MARK) {
            self.metrics.count_refusal(refusal);
            self.log_refused(refusal, peer);
            return Box::pin(ready_with(Ok(refused(refusal, has_body, progress))));
        }
        // A body may take its time, and need not be waited for by others.
        if !request.body().is_end_stream() {
            permit.give_back();
        }
        join_cookies(request.headers_mut());
        let permit = permit.clone();
        request.extensions_mut().insert(permit.clone());
        let response = self.answer(request.map(RequestBody::from), peer);
        Box::pin(async move {
            let mut response = response.await;
            permit.give_back();
            // RFC 9110, 8.6.
            if response.status() == StatusCode::NO_CONTENT {
                response.headers_mut().remove(header::CONTENT_LENGTH);
            }
            let is_relayed = response.extensions().get::<Relayed>().is_some();
            progress.begin(Instant::now(), !is_relayed && !is_stream(response.headers()));
            Ok(response.map(|body| PacedBody::new(has_body.then_some(Either::Left(body)), progress)))
        })
    }
}

/// RFC 9113, 8.2.3: a client may send each cookie as a field of its own. Handlers and applications find
/// one header.
pub(crate) fn join_cookies(headers: &mut HeaderMap) {
    let crumbs: Vec<_> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if crumbs.len() > 1
        && let Ok(joined) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..]))
    {
        headers.insert(header::COOKIE, joined);
    }
}

/// The response to a request that no handler sees, in the words of HTTP/1.
fn refused<B>(refusal: Refusal, has_body: bool, progress: Arc<Progress>) -> Response<ResponseBody<B>> {
    progress.begin(Instant::now(), true);
    let document = Either::Right(Full::from(refusal.document()));
    let mut response = Response::new(PacedBody::new(has_body.then_some(document), progress));
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
    /// The client takes too long.
    Slow,
}

/// Polls a connection and its streams until it is over. `nothing_runs`: what is to be done as soon
/// as no response is being made.
async fn converse<IO, S, B>(
    mut connection: Pin<&mut Connection<TokioIo<Wire<IO>>, S, Spawner>>,
    wire: &Wire<IO>,
    work: &Work,
    streams: &mut Streams,
    deadlines: &mut Deadlines,
    mut stopping: watch::Receiver<Stage>,
    nothing_runs: impl Fn(),
) -> Ended
where
    IO: AsyncRead + AsyncWrite + Unpin,
    S: HttpService<Incoming, ResBody = B>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    S::Future: Send + 'static,
    B: Body<Data = Piece> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    // An error means that the server is gone, which ends this task too.
    let mut leaving = pin!(stopping.wait_for(|stage| *stage != Stage::Serving));
    poll_fn(|cx| {
        loop {
            // First the streams, so that all they have to say is written at once.
            streams.poll(cx);
            if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
                return Poll::Ready(Ended::Closed(ended));
            }
            let has_arrivals = streams.admit();
            // RFC 9113, 6.8: requests that have been sent are answered, others are for another
            // connection.
            if !deadlines.is_closing()
                && (deadlines.is_last(has_arrivals) || leaving.as_mut().poll(cx).is_ready())
            {
                deadlines.close();
                connection.as_mut().graceful_shutdown();
                continue;
            }
            if has_arrivals {
                deadlines.wait_for_nothing();
                continue;
            }
            if !streams.has_running() {
                nothing_runs();
            }
            match ready!(deadlines.poll(cx, streams.is_empty() && !work.is_cut_short())) {
                Due::Check => {
                    if deadlines.is_late(wire, streams) {
                        return Poll::Ready(Ended::Slow);
                    }
                }
                Due::Close => {
                    deadlines.close();
                    connection.as_mut().graceful_shutdown();
                }
                Due::End => return Poll::Ready(Ended::Idle),
            }
        }
    })
    .await
}

/// Sends the closing frame to a client that was rejected, and receives what it still sends so that
/// the frame can be received.
async fn close(
    mut io: impl AsyncRead + AsyncWrite + Unpin,
    closing_frame: Option<[u8; 17]>,
) -> std::io::Result<()> {
    if let Some(frame) = closing_frame {
        io.write_all(&frame).await?;
    }
    io.shutdown().await?;
    read_to_end(&mut io).await
}

#[cfg(test)]
mod tests;
