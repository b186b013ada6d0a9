//! A request's body, whole, within a size and a time.

use std::{pin::pin, time::Duration};

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use http_body::Body;
use http_body_util::BodyExt;
use tokio::time::timeout;

/// Why a body could not be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BodyError {
    /// It is larger than the limit: 413. What was read of it is forgotten.
    #[error("the body is too large")]
    TooLarge,
    /// It did not arrive whole in time: 408.
    #[error("the body did not arrive in time")]
    TimedOut,
    /// It ended early, or its chunks are malformed: 400.
    #[error("the body ended early or its chunks are malformed")]
    Broken,
}

/// Reads a body of at most `limit_bytes`, all of it within `body_secs`: a client that sends a byte now and then gains nothing.
pub async fn read_body<B>(body: B, limit_bytes: usize, body_secs: u64) -> Result<Bytes, BodyError>
where
    B: Body<Data = Bytes>,
{
    // A declared length tells before the first byte, and before `100 Continue` invites the client to send it.
    if body.size_hint().lower() > limit_bytes as u64 {
        return Err(BodyError::TooLarge);
    }
    let mut whole = pin!(collect(body, limit_bytes));
    // Nearly every body is here already, and needs no clock.
    if let Some(whole) = whole.as_mut().now_or_never() {
        return whole;
    }
    timeout(Duration::from_secs(body_secs), whole).await.unwrap_or(Err(BodyError::TimedOut))
}

async fn collect<B>(body: B, limit_bytes: usize) -> Result<Bytes, BodyError>
where
    B: Body<Data = Bytes>,
{
    let mut body = pin!(body);
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| BodyError::Broken)?.into_data() else { continue };
        if first.len() + all.len() + data.len() > limit_bytes {
            return Err(BodyError::TooLarge);
        }
        // Nearly every body is one frame, and is then not copied.
        if first.is_empty() && all.is_empty() {
            first = data;
            continue;
        }
        if all.is_empty() {
            all.extend_from_slice(&std::mem::take(&mut first));
        }
        all.extend_from_slice(&data);
    }
    Ok(if all.is_empty() { first } else { all.freeze() })
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, future::pending};

    use futures_util::{StreamExt, stream};
    use http_body::Frame;
    use http_body_util::{Full, StreamBody};
    use tokio::time::sleep;

    use super::*;

    fn frames(parts: &'static [&'static str]) -> impl Body<Data = Bytes> {
        StreamBody::new(
            stream::iter(parts)
                .map(|part| Ok::<_, Infallible>(Frame::data(Bytes::from_static(part.as_bytes())))),
        )
    }

    #[tokio::test]
    async fn a_body_of_several_frames_is_joined() {
        assert_eq!(read_body(frames(&["ab", "", "c", "d"]), 4, 1).await, Ok(Bytes::from_static(b"abcd")));
        assert_eq!(read_body(frames(&[]), 4, 1).await, Ok(Bytes::new()));
    }

    #[tokio::test]
    async fn one_byte_too_many_is_too_large_with_or_without_a_length() {
        assert_eq!(read_body(Full::from("abcde"), 4, 1).await, Err(BodyError::TooLarge));
        assert_eq!(read_body(frames(&["abc", "de"]), 4, 1).await, Err(BodyError::TooLarge));
        assert_eq!(read_body(Full::from("abcd"), 4, 1).await, Ok(Bytes::from_static(b"abcd")));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_drips_is_ended_by_the_total_time() {
        let dripping = stream::unfold((), |()| async {
            sleep(Duration::from_secs(1)).await;
            Some((Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"."))), ()))
        });
        let body = StreamBody::new(Box::pin(dripping));
        assert_eq!(read_body(body, 1024, 30).await, Err(BodyError::TimedOut));
        let silent = StreamBody::new(stream::once(pending::<Result<Frame<Bytes>, Infallible>>()));
        assert_eq!(read_body(silent, 1024, 30).await, Err(BodyError::TimedOut));
    }
}
