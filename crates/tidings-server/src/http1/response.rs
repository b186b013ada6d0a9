//! How a response is written: its headers, and the framing of its body.
//!
//! Pure functions on headers and time, and [`ResponseBytes`], which turns the frames of a body into
//! the bytes that are due.

use std::{
    cell::RefCell,
    io::{self, IoSlice, Write},
    pin::Pin,
    task::{Context, Poll},
    time::{SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use http::{Method, Response, StatusCode, Version, header};
use http_body::Body;

/// Bytes of a usual response, headers and body.
const RESPONSE_BYTES_USUAL: usize = 512;
/// Most bytes of a body that are gathered for one write, and most that wait for a slow reader: the
/// body is asked for more only when they have been written. A body that yields larger pieces has
/// one of them wait.
const GATHERED_BYTES_MAX: usize = 64 * 1024;
/// Smallest piece of a body that is written from where it is instead of being gathered with others.
const UNCOPIED_BYTES_MIN: usize = 16 * 1024;

/// How the end of a response is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Framing {
    /// There is no body; what one would have is announced, if it is known.
    NoBody(Option<u64>),
    Length(u64),
    /// RFC 9112, 7.1.
    Chunked,
    /// HTTP/1.0 has no chunks.
    UntilClose,
}

/// What the connection does after a response, and what the response says about it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Persistence {
    /// It is kept, which a client of HTTP/1.1 expects.
    Kept,
    /// It is kept, which has to be said to a client of HTTP/1.0.
    KeptOnRequest,
    Closes,
    /// It closes without saying so.
    ClosesSilently,
    /// It is continued as a tunnel.
    Upgrades,
}

impl Framing {
    /// RFC 9112, 6.3: how the body of a response to this request ends.
    pub(super) fn of<B: Body>(method: &Method, version: Version, response: &Response<B>) -> Self {
        let declared = response.headers().get(header::CONTENT_LENGTH);
        let declared = declared.and_then(|value| value.to_str().ok()?.parse().ok());
        let length = declared.or(response.body().size_hint().exact());
        let status = response.status();
        // RFC 9110, 8.6: no length with 1xx and 204.
        if status.is_informational() || status == StatusCode::NO_CONTENT {
            return Self::NoBody(None);
        }
        // RFC 9110, 15.4.5: a length would be that of the response that is not sent.
        if status == StatusCode::NOT_MODIFIED {
            return Self::NoBody(declared);
        }
        match length {
            // RFC 9110, 9.3.2: as for GET. A layer may have dropped the body, and then its length is
            // unknown.
            _ if method == Method::HEAD => {
                Self::NoBody(length.filter(|length| *length > 0 || declared.is_some()))
            }
            Some(length) => Self::Length(length),
            None if version == Version::HTTP_10 => Self::UntilClose,
            None => Self::Chunked,
        }
    }
}

/// Writes the headers of a response. Framing and persistence are the connection's: what the handler
/// has said about them is replaced.
pub(super) fn write_headers<B>(
    into: &mut Vec<u8>,
    version: Version,
    response: &Response<B>,
    framing: Framing,
    persistence: Persistence,
    now: SystemTime,
) {
    let (status, headers) = (response.status(), response.headers());
    into.reserve(RESPONSE_BYTES_USUAL);
    let mut write = |slices: &[&[u8]]| slices.iter().for_each(|slice| into.extend_from_slice(slice));
    let reason = status.canonical_reason().unwrap_or("<none>");
    let version = if version == Version::HTTP_10 { &b"HTTP/1.0 "[..] } else { b"HTTP/1.1 " };
    write(&[version, status.as_str().as_bytes(), b" ", reason.as_bytes(), b"\r\n"]);
    for (name, value) in headers {
        if ![header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::CONNECTION].contains(name) {
            write(&[name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"]);
        }
    }
    match persistence {
        Persistence::Kept | Persistence::ClosesSilently => {}
        Persistence::KeptOnRequest => write(&[b"connection: keep-alive\r\n"]),
        Persistence::Closes => write(&[b"connection: close\r\n"]),
        Persistence::Upgrades => write(&[b"connection: upgrade\r\n"]),
    }
    // RFC 9110, 6.6.1: a server with a clock says when.
    if !headers.contains_key(header::DATE) {
        with_date(now, |date| write(&[b"date: ", date, b"\r\n"]));
    }
    match framing {
        Framing::Length(length) | Framing::NoBody(Some(length)) => {
            write!(into, "content-length: {length}\r\n\r\n").expect("a vector takes everything");
        }
        Framing::Chunked => into.extend_from_slice(b"transfer-encoding: chunked\r\n\r\n"),
        Framing::NoBody(None) | Framing::UntilClose => into.extend_from_slice(b"\r\n"),
    }
}

/// The time as a header has it, formatted anew once a second.
fn with_date(now: SystemTime, then: impl FnOnce(&[u8])) {
    thread_local! {
        static FORMATTED: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) };
    }
    let secs = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    FORMATTED.with_borrow_mut(|(formatted_secs, date)| {
        if *formatted_secs != secs || date.is_empty() {
            *date = httpdate::fmt_http_date(now);
            *formatted_secs = secs;
        }
        then(date.as_bytes());
    });
}

/// The bytes of a response that are still to be written.
pub(super) struct ResponseBytes<B> {
    /// None at its end.
    body: Option<B>,
    framing: Framing,
    /// Written first, from `written` on: headers and small pieces.
    gathered: Vec<u8>,
    written: usize,
    /// Then a large piece, and what ends its chunk.
    uncopied: Bytes,
    chunk_end: &'static [u8],
}

impl<B: Body<Data = Bytes> + Unpin> ResponseBytes<B>
where
    B::Error: std::error::Error + Send + Sync + 'static,
{
    /// `headers` go first.
    pub(super) fn new(headers: Vec<u8>, framing: Framing, body: B) -> Self {
        let has_body = !matches!(framing, Framing::NoBody(_) | Framing::Length(0));
        let body = has_body.then_some(body);
        Self { body, framing, gathered: headers, written: 0, uncopied: Bytes::new(), chunk_end: b"" }
    }

    /// The last byte is among those that are due, or was.
    pub(super) fn is_ended(&self) -> bool {
        self.body.is_none()
    }

    /// All that was gathered has been written.
    pub(super) fn is_written(&self) -> bool {
        self.written == self.gathered.len() && self.uncopied.is_empty() && self.chunk_end.is_empty()
    }

    /// Gathers what the body has now, within the limit. Ready when the body has ended, or does not
    /// fit.
    pub(super) fn poll_gather(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.has_capacity() {
            let Some(body) = &mut self.body else { break };
            match Pin::new(body).poll_frame(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(frame))) => {
                    // Trailer fields are not sent: no client has asked for them (RFC 9110, 6.5.1).
                    if let Ok(data) = frame.into_data() {
                        self.push(data)?;
                    }
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(io::Error::other(error))),
                Poll::Ready(None) => self.end()?,
            }
        }
        Poll::Ready(Ok(()))
    }

    fn has_capacity(&self) -> bool {
        let is_due = !self.uncopied.is_empty() || !self.chunk_end.is_empty();
        !is_due && self.gathered.len() - self.written < GATHERED_BYTES_MAX
    }

    fn push(&mut self, data: Bytes) -> io::Result<()> {
        if data.is_empty() {
            return Ok(());
        }
        let mut chunk_end: &[u8] = b"";
        match &mut self.framing {
            Framing::Length(remaining) => {
                *remaining = remaining.checked_sub(data.len() as u64).ok_or_else(wrong_length)?;
                if *remaining == 0 {
                    self.body = None;
                }
            }
            Framing::Chunked => {
                write!(self.gathered, "{:x}\r\n", data.len())?;
                chunk_end = b"\r\n";
            }
            Framing::NoBody(_) | Framing::UntilClose => {}
        }
        if data.len() < UNCOPIED_BYTES_MIN {
            self.gathered.extend_from_slice(&data);
            self.gathered.extend_from_slice(chunk_end);
        } else {
            self.uncopied = data;
            self.chunk_end = chunk_end;
        }
        Ok(())
    }

    fn end(&mut self) -> io::Result<()> {
        self.body = None;
        match self.framing {
            Framing::Length(1..) => return Err(wrong_length()),
            Framing::Chunked => self.gathered.extend_from_slice(b"0\r\n\r\n"),
            _ => {}
        }
        Ok(())
    }

    /// What is to be written next.
    pub(super) fn slices(&self) -> [IoSlice<'_>; 3] {
        [&self.gathered[self.written..], &self.uncopied, self.chunk_end].map(IoSlice::new)
    }

    /// So many bytes of the slices have been written.
    pub(super) fn advance(&mut self, mut count: usize) {
        let gathered = count.min(self.gathered.len() - self.written);
        self.written += gathered;
        count -= gathered;
        let uncopied = count.min(self.uncopied.len());
        let _ = self.uncopied.split_to(uncopied);
        count -= uncopied;
        self.chunk_end = &self.chunk_end[count.min(self.chunk_end.len())..];
        if self.written == self.gathered.len() {
            // What waits for the next piece of its body, a stream above all, holds no buffer.
            self.gathered = Vec::new();
            self.written = 0;
        }
    }
}

/// RFC 9112, 8: the client must notice, so the connection ends here.
fn wrong_length() -> io::Error {
    io::Error::other("a response does not have the length that it has declared")
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;

    use super::*;

    /// Subscribers over HTTP/1.0 wait like this for most of their time.
    #[test]
    fn a_response_that_waits_for_its_next_piece_holds_no_buffer() {
        let mut bytes =
            ResponseBytes::new(b"headers".to_vec(), Framing::Chunked, Full::<Bytes>::from("later"));
        bytes.advance(7);
        assert!(bytes.is_written() && !bytes.is_ended());
        assert_eq!(bytes.gathered.capacity(), 0);
    }
}
