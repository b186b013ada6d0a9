//! Sending a publication, again if it has a key and its outcome is open.

use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{HeaderName, HeaderValue};
use tokio::time::{Instant, sleep, timeout_at};

use crate::{
    ClientError,
    backoff::Backoff,
    http::{Http, Request, read_all},
};

/// How long a publication may take in total. When it has passed, the events may or may not have
/// been published.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(30);
/// How often a publication with an idempotency key is sent at most.
const ATTEMPTS_MAX: u32 = 4;
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The header field of an idempotency key.
pub(crate) fn key_header(key: &str) -> Result<(HeaderName, HeaderValue), ClientError> {
    let value = HeaderValue::from_str(key).map_err(|_| {
        ClientError::Request(
            "the idempotency key contains characters that are not allowed in a header".to_owned(),
        )
    })?;
    Ok((IDEMPOTENCY_KEY, value))
}

/// Sends a publication once, or with a key up to [`ATTEMPTS_MAX`] times within [`PUBLISH_TIMEOUT`].
/// Returns the reply, of at most this many bytes.
pub(crate) async fn send_publication(
    http: &Http,
    request: Request,
    reply_bytes_max: usize,
) -> Result<Bytes, ClientError> {
    let deadline = Instant::now() + PUBLISH_TIMEOUT;
    let mut backoff = Backoff::default();
    let mut attempts_left = if request.headers.contains_key(IDEMPOTENCY_KEY) { ATTEMPTS_MAX } else { 1 };
    loop {
        let attempt = async {
            let response = http.send(request.clone()).await?;
            read_all(response, reply_bytes_max).await.ok_or(ClientError::UnreadableReply)
        };
        let error = match timeout_at(deadline, attempt).await {
            Ok(Ok(reply)) => return Ok(reply),
            Ok(Err(error)) => error,
            Err(_) => return Err(ClientError::Silent(PUBLISH_TIMEOUT)),
        };
        attempts_left -= 1;
        let pause = backoff.delay(error.retry_after(), tidings_net::random_share());
        if attempts_left == 0 || !may_settle(&error) || Instant::now() + pause >= deadline {
            return Err(error);
        }
        sleep(pause).await;
    }
}

/// Whether another attempt may settle the outcome: the server was not reached, or a server or proxy
/// reports a transient error.
fn may_settle(error: &ClientError) -> bool {
    match error {
        ClientError::Connection(_) => true,
        ClientError::Unavailable { status, .. } => matches!(status, 408 | 425 | 429 | 502 | 503 | 504),
        _ => false,
    }
}
