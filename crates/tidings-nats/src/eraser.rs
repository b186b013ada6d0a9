//! Erases the bytes of deleted events from the stream.
//!
//! A deletion hides at once. Afterwards each message without visible events is erased: overwritten,
//! then removed by the server. A message whose batch also holds events of other topics stays until
//! retention takes it. A message with an idempotency key stays as long as the key is valid, because
//! a server that restarts learns its keys from its messages.

use std::{sync::Arc, time::Duration};

use async_nats::jetstream::stream::DeleteMessageErrorKind;
use futures_util::{StreamExt, stream};
use tidings_net::Spread;
use tokio::time::sleep;

use crate::{history, index::Hidden, shared_index::SharedIndex};

/// Most messages that are erased at the same time: publishing and reading come first.
const REQUESTS_MAX: usize = 4;
/// How often erasing a message is retried; then it stays until a hub restarts, or until retention
/// takes it.
const TRIES_MAX: usize = 20;
/// The delay before a message is tried again.
const RETRY_WAIT: Duration = Duration::from_secs(5);

/// Erases messages in the background. Stops with the log.
pub(crate) fn erase(shared: &Arc<SharedIndex>, hidden: Vec<Hidden>) {
    if hidden.is_empty() {
        return;
    }
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        let (with_key, at_once): (Vec<_>, Vec<_>) = hidden.into_iter().partition(|hidden| hidden.has_key);
        let mut notifier = shared.listen();
        let closed = async { while !shared.is_closed() && notifier.changed().await.is_ok() {} };
        tokio::select! {
            () = closed => {}
            () = async {
                erase_all(&shared, at_once).await;
                if !with_key.is_empty() {
                    sleep(shared.settings.keys_age_max).await;
                    erase_all(&shared, with_key).await;
                }
            } => {}
        }
    });
}

async fn erase_all(shared: &SharedIndex, hidden: Vec<Hidden>) {
    // If the beginning of the stream is erased, a hub that starts later finds no trace of it: this
    // record shows which subscribers missed something.
    if let Ok(trusted) = shared.trusted()
        && let Err(error) = history::leave_audiences(shared, &trusted.bucket).await
    {
        tracing::debug!(error, "the audiences of erased events could not be saved");
    }
    stream::iter(hidden).for_each_concurrent(REQUESTS_MAX, |hidden| erase_one(shared, hidden)).await;
}

async fn erase_one(shared: &SharedIndex, hidden: Hidden) {
    let sequence = hidden.mark.sequence;
    for _ in 0..TRIES_MAX {
        // Only in the stream in which it was found.
        let is_the_same =
            shared.state().index.nanos_of(sequence).is_none_or(|nanos| nanos == hidden.mark.nanos);
        let Ok(trusted) = shared.trusted() else {
            sleep(Spread::AROUND.of(RETRY_WAIT)).await;
            continue;
        };
        if !is_the_same {
            return;
        }
        let asked = async {
            match trusted.stream.delete_message(sequence).await {
                Err(error) if matches!(error.kind(), DeleteMessageErrorKind::JetStream(_)) => Ok(()), // it is not there
                other => other.map(drop),
            }
        };
        match shared.link.ask("erasing what was deleted", asked).await {
            Ok(()) => return,
            Err(error) => tracing::debug!(sequence, error, "a deleted message could not be erased yet"),
        }
        sleep(Spread::AROUND.of(RETRY_WAIT)).await;
    }
    tracing::warn!(sequence, "a deleted message could not be erased; it stays until it expires");
}
