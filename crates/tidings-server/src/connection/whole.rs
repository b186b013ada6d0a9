//! The fast path: complete requests with complete responses, served without hyper.
//!
//! Nearly every request of a busy hub is a few hundred bytes, headers and body in one packet, and
//! its response is one line; or it requests a stream, which leaves hyper anyway. The gate has
//! already parsed the headers, so the connection builds the [`Request`] from them and writes the
//! response itself, in one write. hyper serves everything else, from the first such request on:
//! bodies that arrive in parts or in chunks, responses of unknown length, HTTP/1.0, HEAD, `Expect`,
//! `Upgrade` and `Connection: close`.
//!
//! Invariant: a client cannot observe which path served its request.

use std::{
    cell::RefCell,
    pin::Pin,
    task::{Context, Poll},
    time::{SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header,
    response::Parts,
};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::exchange::asks_to_close;
use crate::head::parsed;

/// Longest body of an answer that is written together with its head.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;
/// Room for a usual answer, head and body.
const ANSWER_BYTES_USUAL: usize = 512;

/// The body of a request: one that hyper brings in pieces, or one that is here already.
#[derive(Debug)]
pub struct RequestBody(Source);

#[derive(Debug)]
enum Source {
    Whole(Bytes),
    Pieces(Incoming),
}

impl From<Incoming> for RequestBody {
    fn from(incoming: Incoming) -> Self {
        Self(Source::Pieces(incoming))
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut self.0 {
            Source::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Source::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Source::Pieces(incoming) => Pin::new(incoming).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Source::Whole(bytes) => bytes.is_empty(),
            Source::Pieces(incoming) => incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Source::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Source::Pieces(incoming) => incoming.size_hint(),
        }
    }
}

/// The request that these bytes are, a head that the gate has passed and all of its body; none if
/// hyper has to see it.
pub(super) fn request(bytes: &Bytes) -> Option<Request<RequestBody>> {
    parsed(bytes, |head, length| {
        if head.version != Some(1) {
            return None;
        }
        let method = match head.method? {
            "GET" => Method::GET,
            "POST" => Method::POST,
            _ => return None,
        };
        let mut headers = HeaderMap::with_capacity(head.headers.len());
        for field in &*head.headers {
            let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
            let is_for_hyper = match name {
                header::CONNECTION => !field.value.eq_ignore_ascii_case(b"keep-alive"),
                header::EXPECT | header::UPGRADE | header::TRANSFER_ENCODING => true,
                _ => false,
            };
            if is_for_hyper {
                return None;
            }
            headers.append(name, HeaderValue::from_maybe_shared(bytes.slice_ref(field.value)).ok()?);
        }
        let uri = Uri::from_maybe_shared(bytes.slice_ref(head.path?.as_bytes())).ok()?;
        let mut request = Request::new(RequestBody(Source::Whole(bytes.slice(length..))));
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.version_mut() = Version::HTTP_11;
        *request.headers_mut() = headers;
        Some(request)
    })
}

/// Whether this answer can be written whole: its length is known and small, and its framing is that
/// of nearly every answer.
pub(super) fn is_whole<B: Body>(answer: &Response<B>) -> bool {
    let Some(length) = answer.body().size_hint().exact().filter(|length| *length <= ANSWER_BYTES_MAX) else {
        return false;
    };
    let status = answer.status();
    // RFC 9110, 15: answers whose status rules a body out.
    let may_have_body =
        !status.is_informational() && status != StatusCode::NO_CONTENT && status != StatusCode::NOT_MODIFIED;
    let says_its_length = answer
        .headers()
        .get(header::CONTENT_LENGTH)
        .is_none_or(|said| said.as_bytes() == length.to_string().as_bytes());
    may_have_body && says_its_length && !answer.headers().contains_key(header::TRANSFER_ENCODING)
}

/// Whether the connection ends with this answer.
pub(super) fn closes<B>(answer: &Response<B>) -> bool {
    asks_to_close(answer.headers())
}

/// The bytes of an answer that [`is_whole`].
pub(super) async fn answer_bytes<B>(answer: Response<B>, now: SystemTime) -> Result<Vec<u8>, B::Error>
where
    B: Body<Data = Bytes> + Unpin,
{
    let (parts, mut body) = answer.into_parts();
    let mut bytes = Vec::with_capacity(ANSWER_BYTES_USUAL);
    write_head(&mut bytes, &parts, body.size_hint().exact(), now);
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            bytes.extend_from_slice(&data);
        }
    }
    Ok(bytes)
}

/// The head of an answer as hyper would have written it, with the length of its body if that is
/// known.
pub(super) fn write_head(into: &mut Vec<u8>, parts: &Parts, length: Option<u64>, now: SystemTime) {
    let mut write = |slices: &[&[u8]]| slices.iter().for_each(|slice| into.extend_from_slice(slice));
    let reason = parts.status.canonical_reason().unwrap_or("<none>");
    write(&[b"HTTP/1.1 ", parts.status.as_str().as_bytes(), b" ", reason.as_bytes(), b"\r\n"]);
    for (name, value) in &parts.headers {
        write(&[name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"]);
    }
    if let Some(length) = length.filter(|_| !parts.headers.contains_key(header::CONTENT_LENGTH)) {
        write(&[b"content-length: ", length.to_string().as_bytes(), b"\r\n"]);
    }
    // RFC 9110, 6.6.1: the one that has a clock says when.
    if !parts.headers.contains_key(header::DATE) {
        with_date(now, |date| write(&[b"date: ", date, b"\r\n"]));
    }
    write(&[b"\r\n"]);
}

/// The time as a header says it, spelled anew once a second.
fn with_date(now: SystemTime, then: impl FnOnce(&[u8])) {
    thread_local! {
        static SPELLED: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) };
    }
    let secs = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    SPELLED.with_borrow_mut(|(spelled_secs, date)| {
        if *spelled_secs != secs || date.is_empty() {
            *date = httpdate::fmt_http_date(now);
            *spelled_secs = secs;
        }
        then(date.as_bytes());
    });
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        sync::{
            Arc, Mutex,
            atomic::{AtomicBool, Ordering::Relaxed},
        },
    };

    use futures_util::FutureExt;
    use http_body_util::Full;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, duplex},
        sync::watch,
    };

    use super::{
        super::{ConnectionMetrics, ConnectionSettings, Driver, Stage, places::Places, tests::PEER},
        *,
    };

    /// Answers used to leave one by one. A publisher with several connections slept after each of
    /// them and had to be woken for the next one, for which the hub pays.
    #[tokio::test]
    async fn who_has_asked_is_received_before_anybody_is_answered() {
        let (mut first, first_server) = duplex(4096);
        let (mut second, second_server) = duplex(4096);
        first.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("there is room");
        second.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("there is room");
        let (first, answered_first) = (Arc::new(Mutex::new(first)), Arc::<AtomicBool>::default());
        let (client, is_answered) = (Arc::clone(&first), Arc::clone(&answered_first));
        let service = tower::service_fn(move |_: Request<RequestBody>| {
            let byte = client.lock().expect("nothing panics while it holds this").read_u8().now_or_never();
            is_answered.fetch_or(byte.is_some(), Relaxed);
            async { Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("hello"))) }
        });
        let metrics = Arc::<ConnectionMetrics>::default();
        let driver = Driver::new(service, &ConnectionSettings::default(), &metrics);
        let (_stop, stopping) = watch::channel(Stage::Serving);
        for io in [first_server, second_server] {
            let place = Places::new(&metrics).take();
            tokio::spawn(driver.clone().drive(io, PEER, place, stopping.clone()));
        }
        second.read_u8().await.expect("an answer");
        assert!(!answered_first.load(Relaxed), "the first was answered before the second was received");
    }
}
