//! The two requests: `POST /topics/{topic}` and `GET /stream?topic={topic}`.

use httparse::{EMPTY_HEADER, Status};

const HEADERS_MAX: usize = 32;
/// The maximum size of a request with its body.
const REQUEST_BYTES_MAX: usize = 2 << 20;

/// What an input begins with.
pub(crate) enum Request<'a> {
    /// `length` is that of the request.
    Publish {
        topic: &'a str,
        data: &'a [u8],
        length: usize,
    },
    Subscribe {
        topic: &'a str,
        last_event_id: Option<usize>,
    },
    Incomplete,
}

impl<'a> Request<'a> {
    /// None if it is neither of the two, or too long.
    pub(crate) fn parse(input: &'a [u8]) -> Option<Self> {
        let mut headers = [EMPTY_HEADER; HEADERS_MAX];
        let mut request = httparse::Request::new(&mut headers);
        let incomplete = (input.len() <= REQUEST_BYTES_MAX).then_some(Self::Incomplete);
        let Status::Complete(begin) = request.parse(input).ok()? else { return incomplete };
        let number = |name: &str| {
            let header = request.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
            std::str::from_utf8(header.value).ok()?.parse::<usize>().ok()
        };
        let path = request.path?;
        if let Some(topic) = path.strip_prefix("/stream?topic=") {
            return Some(Self::Subscribe { topic, last_event_id: number("last-event-id") });
        }
        let topic = path.strip_prefix("/topics/")?;
        let length = begin.checked_add(number("content-length")?)?;
        input.get(begin..length).map(|data| Self::Publish { topic, data, length }).or(incomplete)
    }
}
