//! One request and its response.

use std::{
    convert::Infallible,
    future::poll_fn,
    io,
    pin::{Pin, pin},
    sync::atomic::Ordering::Relaxed,
    task::{Context, Poll, ready},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, Version, header};
use http_body::Body;
use tokio::{
    sync::watch,
    task::yield_now,
    time::{Sleep, sleep},
};
use tower::Service;

use super::{
    connection::{Connection, Received},
    input_end::InputEnd,
    request_body::RequestBody,
    request_headers::has_connection_option,
    response::{Framing, Persistence, ResponseBytes, write_headers},
    transport::Transport,
};
use crate::{
    connection::{
        admission::SharedPermit,
        driver::{Driver, is_stream},
        metrics::ConnectionMetrics,
        peer::Peer,
        stage::Stage,
    },
    open_stream::{FiniteRead, OpenStream, StreamHandle},
    relayed::{Relayed, Tunnel, TunnelEnd},
};

/// What follows a response.
pub(crate) enum Then {
    /// The next request.
    Next,
    /// The end of the connection.
    Close,
    /// The hub writes the stream to the socket, these response headers first.
    HandOver { headers: Vec<u8>, stream: Box<OpenStream> },
    /// A tunnel, these response headers first.
    Tunnel { headers: Vec<u8>, end: Box<TunnelEnd> },
}

/// Has the service answer a request, and sends the response.
pub(crate) async fn exchange<IO, S, B>(
    connection: &mut Connection<IO>,
    driver: &mut Driver<S>,
    received: Box<Received>,
    peer: &Peer,
    is_first: bool,
    stage: &watch::Receiver<Stage>,
) -> io::Result<Then>
where
    IO: Transport,
    S: Service<Request<RequestBody>, Response = Response<B>, Error = Infallible> + Clone + Send,
    S::Future: Send,
    B: Body<Data = Bytes> + Send + Unpin,
    B::Error: std::error::Error + Send + Sync + 'static,
{
    let Received { mut headers, body } = *received;
    let asked = Asked {
        method: headers.request.method().clone(),
        version: headers.request.version(),
        says_close: headers.says_close,
        keeps_alive: headers.keeps_alive,
        has_arrived: body.is_complete(),
    };
    // A client that disconnects must not end what a request changes, and what it sends of a body is
    // not read ahead.
    let input_end = (asked.method.is_safe() && asked.has_arrived).then(InputEnd::default);
    if let Some(input_end) = &input_end {
        headers.request.extensions_mut().insert(input_end.clone());
    }
    // A body may take its time, and need not be waited for by others.
    let mut shared_permit = None;
    if is_first && asked.has_arrived {
        let permit = SharedPermit::new(driver.admission.answer_permit().await);
        headers.request.extensions_mut().insert(permit.clone());
        shared_permit = Some(permit);
    }
    let answer = driver.answer(headers.request.map(|()| body), peer);
    let response = answer_while_reading(connection, pin!(answer), input_end).await?;
    shared_permit.as_ref().inspect(|permit| permit.give_back());

    let handle = response.extensions().get::<StreamHandle>().cloned();
    if driver.has_capacity
        && connection.is_for_hub()
        && asked.may_be_handed_over(&response)
        && let Some(stream) = handle.as_ref().and_then(StreamHandle::take)
    {
        let persistence = stream_persistence(asked.says_close);
        let mut headers = Vec::new();
        write_headers(
            &mut headers,
            asked.version,
            &response,
            Framing::Chunked,
            persistence,
            SystemTime::now(),
        );
        return Ok(Then::HandOver { headers, stream });
    }

    if response.status() == StatusCode::SWITCHING_PROTOCOLS
        && let Some(end) = response.extensions().get::<Tunnel>().and_then(Tunnel::take)
    {
        let mut headers = Vec::new();
        let (framing, persistence) = (Framing::NoBody(None), Persistence::Upgrades);
        write_headers(&mut headers, asked.version, &response, framing, persistence, SystemTime::now());
        return Ok(Then::Tunnel { headers, end: Box::new(end) });
    }

    let framing = Framing::of(&asked.method, asked.version, &response);
    let is_stream = is_stream(response.headers())
        && response.extensions().get::<FiniteRead>().is_none()
        && matches!(framing, Framing::Chunked | Framing::UntilClose);
    // RFC 9112, 9.6: the connection ends with a response that says so.
    let says_close =
        asked.says_close || !driver.has_capacity || has_connection_option(response.headers(), "close");
    let closes = says_close
        || !asked.keeps_alive
        || *stage.borrow() != Stage::Serving
        || framing == Framing::UntilClose
        || connection.is_body_in_the_way();
    let persistence = match asked.version {
        _ if is_stream => stream_persistence(says_close),
        _ if closes => Persistence::Closes,
        Version::HTTP_10 => Persistence::KeptOnRequest,
        _ => Persistence::Kept,
    };
    let has_time_limit = !is_stream && response.extensions().get::<Relayed>().is_none();
    let mut headers = connection.take_interim().to_vec();
    write_headers(&mut headers, asked.version, &response, framing, persistence, SystemTime::now());
    let mut bytes = ResponseBytes::new(headers, framing, response.into_body());
    poll_fn(|cx| match bytes.poll_gather(cx) {
        Poll::Ready(gathered) => Poll::Ready(gathered),
        Poll::Pending => Poll::Ready(Ok(())),
    })
    .await?;
    // First the requests of other connections are read, and then all responses leave together: a
    // publisher with several connections is woken once for all of them instead of once for each,
    // which costs us more than to make a response.
    yield_now().await;
    let stream = is_stream.then_some(OpenInput { handle, dropped_bytes: 0, has_ended: false });
    let time_max = has_time_limit.then_some(driver.response_time);
    let mut sending = Sending { bytes, stream, time_max, timer: None, metrics: &driver.metrics };
    poll_fn(|cx| sending.poll(connection, cx)).await?;
    drop(sending);

    if is_stream || closes || !connection.discard_body().await? {
        return Ok(Then::Close);
    }
    connection.await_next();
    Ok(Then::Next)
}

/// What a response depends on of its request.
struct Asked {
    method: Method,
    version: Version,
    says_close: bool,
    keeps_alive: bool,
    /// The body has arrived whole.
    has_arrived: bool,
}

impl Asked {
    /// Whether the hub may write this response, if it is a stream. HTTP/1.0 has no chunks, and a
    /// body that is still arriving has to be read here. What a layer has framed is not ours.
    fn may_be_handed_over<B>(&self, response: &Response<B>) -> bool {
        matches!(self.method, Method::GET | Method::POST | Method::QUERY)
            && self.version == Version::HTTP_11
            && self.has_arrived
            && response.status() == StatusCode::OK
            && !response.headers().contains_key(header::CONTENT_LENGTH)
            && !response.headers().contains_key(header::TRANSFER_ENCODING)
    }
}

/// Polls the answer until it is there, and reads the request's body for it. With `input_end` it
/// also watches the client: that its side has ended is notified, and a reset ends the answer.
async fn answer_while_reading<IO: Transport, F: Future>(
    connection: &mut Connection<IO>,
    mut answer: Pin<&mut F>,
    mut input_end: Option<InputEnd>,
) -> io::Result<F::Output> {
    poll_fn(|cx| {
        loop {
            if let Poll::Ready(response) = answer.as_mut().poll(cx) {
                return Poll::Ready(Ok(response));
            }
            if input_end.is_some() {
                connection.poll_read_ahead(cx)?;
            }
            if let Some(input_end) = input_end.take_if(|_| connection.has_input_ended()) {
                input_end.notify();
                continue;
            }
            if let Err(error) = ready!(connection.poll_body(cx)) {
                return Poll::Ready(Err(error));
            }
        }
    })
    .await
}

/// A stream says that it is the last response only to a client that has said so: undici, and with
/// it every `fetch` of Node, takes a connection that is cut for a proper end where the header says
/// `close`, and does not reconnect. (RFC 9112, 9.6, does not demand the header.)
fn stream_persistence(says_close: bool) -> Persistence {
    if says_close { Persistence::Closes } else { Persistence::ClosesSilently }
}

/// A response on its way to the client.
struct Sending<'a, B> {
    bytes: ResponseBytes<B>,
    /// None if the response has an end of its own.
    stream: Option<OpenInput>,
    /// How long the client may let a response with an end wait. None for a stream, and for a response
    /// that takes as long as somebody else needs.
    time_max: Option<Duration>,
    /// Armed when it lets it wait for the first time.
    timer: Option<Pin<Box<Sleep>>>,
    metrics: &'a ConnectionMetrics,
}

/// What a client sends while it receives a stream.
struct OpenInput {
    handle: Option<StreamHandle>,
    dropped_bytes: usize,
    has_ended: bool,
}

impl<B> Sending<'_, B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::error::Error + Send + Sync + 'static,
{
    /// Ready when everything has been written.
    fn poll<IO: Transport>(
        &mut self,
        connection: &mut Connection<IO>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            // Pending is looked at below: what was gathered is written first.
            if let Poll::Ready(Err(error)) = self.bytes.poll_gather(cx) {
                return Poll::Ready(Err(error));
            }
            if self.bytes.is_written() {
                // What encrypts the socket may hold the rest of a record.
                let flushed = Pin::new(&mut connection.io).poll_flush(cx)?;
                if self.bytes.is_ended() {
                    if flushed.is_pending() {
                        self.check_time(connection, cx)?;
                    }
                    return flushed.map(Ok);
                }
            } else {
                match poll_write(&mut connection.io, &self.bytes, cx) {
                    Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    Poll::Ready(Ok(count)) => {
                        self.bytes.advance(count);
                        continue;
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => self.check_time(connection, cx)?,
                }
            }
            if self.poll_input(connection, cx)?.is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// Bounds the time for which a client may let a response wait. What has no such time is bounded
    /// in another way: a client that receives nothing of it is found by the kernel, and one that receives a little
    /// keeps no more waiting than a buffer.
    fn check_time<IO: Transport>(
        &mut self,
        connection: &Connection<IO>,
        cx: &mut Context<'_>,
    ) -> io::Result<()> {
        let Some(time_max) = self.time_max else { return Ok(()) };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(time_max)));
        if timer.as_mut().poll(cx).is_pending() {
            return Ok(());
        }
        self.metrics.closed_slow.fetch_add(1, Relaxed);
        connection.io.abandon();
        Err(io::Error::new(io::ErrorKind::TimedOut, "the client did not read a response in time"))
    }

    /// Looks at what the client sends meanwhile. Ready when the response may have more to send.
    fn poll_input<IO: Transport>(
        &mut self,
        connection: &mut Connection<IO>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.stream {
            None => {
                connection.poll_read_ahead(cx)?;
                connection.poll_body(cx)
            }
            Some(input) if input.has_ended => Poll::Pending,
            Some(input) => {
                ready!(connection.poll_input_end(cx, &mut input.dropped_bytes))?;
                input.has_ended = true;
                // RFC 9112, 9.6: a client that has ended its side may still read. A stream of the
                // hub then ends with what is due; any other one has no reader any more.
                let handle = input.handle.as_ref().ok_or(io::ErrorKind::ConnectionAborted)?;
                handle.end_input();
                Poll::Ready(Ok(()))
            }
        }
    }
}

fn poll_write<IO: Transport, B>(
    io: &mut IO,
    bytes: &ResponseBytes<B>,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::error::Error + Send + Sync + 'static,
{
    let slices = bytes.slices();
    let mut due = slices.iter().filter(|slice| !slice.is_empty());
    match (due.next(), due.next()) {
        (Some(_), Some(_)) if io.is_write_vectored() => Pin::new(io).poll_write_vectored(cx, &slices),
        (Some(first), _) => Pin::new(io).poll_write(cx, first),
        (None, _) => Poll::Ready(Ok(0)),
    }
}
