//! Answers of a hub, read as far as a measurement needs them.

use crate::BenchError;

/// Maximum size of response headers.
pub(crate) const HEADERS_BYTES_MAX: usize = 32 << 10;
/// Answers to a publish request are short.
const REPLY_BYTES_MAX: usize = 1 << 20;

/// The relevant parts of the answer to a publish request.
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// The length of the status line and headers.
    pub(crate) head: usize,
    /// The hub will close the connection.
    pub(crate) close: bool,
}

impl Reply {
    /// The reply, once it is complete.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Option<Self>, BenchError> {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut response = httparse::Response::new(&mut headers);
        let head = match response.parse(bytes) {
            Ok(httparse::Status::Complete(head)) => head,
            Ok(httparse::Status::Partial) if bytes.len() < HEADERS_BYTES_MAX => return Ok(None),
            _ => return Err(wrong_reply("is not HTTP", bytes)),
        };
        let status = response.code.unwrap_or_default();
        let header = |name: &str| {
            let found = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
            found.and_then(|header| std::str::from_utf8(header.value).ok()).map(str::trim)
        };
        let close = header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        let body = &bytes[head..];
        let complete = if status == 204 || status == 304 {
            true
        } else if header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
            ends_with_last_chunk(body)
        } else if let Some(length) = header("content-length").and_then(|value| value.parse::<usize>().ok()) {
            body.len() >= length
        } else {
            return Err(wrong_reply("has no length", bytes));
        };
        if !complete && bytes.len() > REPLY_BYTES_MAX {
            return Err(wrong_reply("is longer than 1 MiB", bytes));
        }
        Ok(complete.then_some(Self { status, head, close }))
    }
}

/// Walks over the chunks of a body.
fn ends_with_last_chunk(mut body: &[u8]) -> bool {
    while let Ok(httparse::Status::Complete((line, size))) = httparse::parse_chunk_size(body) {
        if size == 0 {
            return body[line..].ends_with(b"\r\n");
        }
        let Some(next) = usize::try_from(size).ok().and_then(|size| body.get(line + size + 2..)) else {
            return false;
        };
        body = next;
    }
    false
}

/// The beginning of an answer, for an error of one line.
pub(crate) fn excerpt(bytes: &[u8]) -> String {
    const EXCERPT_CHARACTERS_MAX: usize = 200;
    let text = String::from_utf8_lossy(bytes);
    text.chars().take(EXCERPT_CHARACTERS_MAX).collect::<String>().trim().to_owned()
}

fn wrong_reply(what: &str, bytes: &[u8]) -> BenchError {
    BenchError::hub(format!("the answer to a publish request {what}: {}", excerpt(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_complete_with_its_last_byte() {
        for reply in [
            "HTTP/1.1 204 No Content\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
            "HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        ] {
            for end in 0..reply.len() {
                assert!(Reply::parse(&reply.as_bytes()[..end]).unwrap().is_none(), "{reply:?} at {end}");
            }
            assert!(Reply::parse(reply.as_bytes()).unwrap().is_some(), "{reply:?}");
        }
    }

    #[test]
    fn a_reply_without_a_length_is_refused() {
        let error = Reply::parse(b"HTTP/1.1 200 OK\r\n\r\n").err().unwrap().to_string();
        assert!(error.contains("has no length"), "{error}");
    }
}
