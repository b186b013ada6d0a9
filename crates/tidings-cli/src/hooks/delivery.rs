//! Delivers the changes of one hook: one batch at a time, in order, each until it is received.
//!
//! A batch is what has accumulated while the one before was under way. Its records are in the
//! journal, so a hub that takes over continues where this one was: at least once, never with a gap.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::future::try_join_all;
use reqwest::{Client, StatusCode, header::CONTENT_TYPE};
use tidings::{
    Error, Hub, IdempotencyKey, NewEvent, Validator,
    log::{Clock, Cursor, Log},
};
use tidings_net::Backoff;
use tidings_presence::PRESENCE_SUFFIX;
use tidings_server::subscription_updates;
use tokio::time::sleep;
use url::Url;

use super::{
    board::Board,
    change::{Member, Recorded},
    journal::{Record, append},
    message::{Message, Reported, SigningSecret},
};
use crate::checked_client::{checked_client, reason, refuse_private};

/// Most changes of a batch.
const BATCH_MAX: usize = 100;

/// The delay after the first failed attempt, at most; it doubles up to the longest one.
const FIRST_DELAY: Duration = Duration::from_secs(1);
const LONGEST_DELAY: Duration = Duration::from_secs(60);

/// Who receives the changes.
#[derive(Debug)]
pub(super) enum Target {
    /// An application.
    Web(Box<WebTarget>),
    /// Subscribers of the topics that report presence.
    Events(Hub),
    /// Subscribers of the updates about active subscriptions.
    Subscriptions { hub: Hub, serves_older_mercure_revision: bool },
}

/// An application, and how messages for it are sent.
#[derive(Debug)]
pub(super) struct WebTarget {
    url: Url,
    secrets: Vec<SigningSecret>,
    allow_private: bool,
    client: Client,
}

impl WebTarget {
    /// `time`: for an attempt, with name, connection, TLS and response.
    pub(super) fn new(
        url: Url,
        secrets: Vec<SigningSecret>,
        allow_private: bool,
        time: Duration,
    ) -> Result<Self, String> {
        let client = checked_client(&url, allow_private).timeout(time).pool_max_idle_per_host(1);
        let client = client.build().map_err(reason)?;
        Ok(Self { url, secrets, allow_private, client })
    }

    /// Standard Webhooks, "Delivery": every response of 2xx is a success, and nothing else is.
    async fn send(&self, message: &Message) -> Result<(), String> {
        refuse_private(&self.url, self.allow_private)?;
        let unix_secs = Clock::system().now().to_millis() / 1_000;
        let request = self
            .client
            .post(self.url.clone())
            .header(CONTENT_TYPE, "application/json")
            .header("webhook-id", &message.id)
            .header("webhook-timestamp", unix_secs)
            .header("webhook-signature", message.signatures(&self.secrets, unix_secs))
            .body(message.body.clone());
        let status = request.send().await.map_err(reason)?.status();
        match status {
            _ if status.is_success() => Ok(()),
            _ if status.is_redirection() => {
                Err(format!("the response is {status}: redirects are not followed; configure the final URL"))
            }
            StatusCode::GONE => Err(format!("the response is {status}: remove the hook if it is not wanted")),
            _ => Err(format!("the response is {status} instead of 2xx")),
        }
    }
}

impl Target {
    async fn deliver(&self, changes: &[Arc<Recorded>]) -> Result<(), String> {
        match self {
            Self::Web(target) => target.send(&Message::new(changes)).await,
            Self::Events(hub) => {
                for change in changes {
                    publish(hub, change).await?;
                }
                Ok(())
            }
            Self::Subscriptions { hub, serves_older_mercure_revision } => {
                for wave in waves(changes) {
                    let updates =
                        wave.into_iter().map(|change| update(hub, change, *serves_older_mercure_revision));
                    try_join_all(updates).await?;
                }
                Ok(())
            }
        }
    }
}

/// Changes that can be published together, since each is about another member: the first change of
/// each, then the second, and so on.
fn waves(changes: &[Arc<Recorded>]) -> Vec<Vec<&Recorded>> {
    let mut waves: Vec<Vec<&Recorded>> = Vec::new();
    let mut counts = HashMap::new();
    for recorded in changes {
        let count: &mut usize = counts.entry(&recorded.change.member).or_default();
        if *count == waves.len() {
            waves.push(Vec::new());
        }
        waves[*count].push(recorded);
        *count += 1;
    }
    waves
}

/// Publishes the updates about a subscription. A repeat within the log's window publishes nothing.
async fn update(hub: &Hub, change: &Recorded, serves_older_mercure_revision: bool) -> Result<(), String> {
    let Member::Subscription(subscription) = &change.change.member else { return Ok(()) };
    let is_active = change.change.is_here;
    let events =
        subscription_updates(hub.validator(), subscription, is_active, serves_older_mercure_revision);
    let key = IdempotencyKey::new(&format!("subscription-{}", change.id));
    hub.publish_events(events, key).await.map(drop).map_err(|error| error.to_string())
}

/// Publishes a change as a private event on the topic that reports presence. A repeat within the
/// log's window publishes nothing.
async fn publish(hub: &Hub, change: &Recorded) -> Result<(), String> {
    let Member::Presence(member) = &change.change.member else { return Ok(()) };
    let topic = format!("{}{PRESENCE_SUFFIX}", member.topic);
    let data = serde_json::to_string(&Reported::of(change)).expect("texts serialize");
    let event = NewEvent::new(topic, data)
        .event_type(change.change.kind().name())
        .private()
        .key(format!("presence-{}", change.id));
    match hub.publish(event).await {
        // The name of the topic is too long with its suffix: no one can subscribe to that.
        Ok(_) | Err(Error::Invalid(_)) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

/// What has happened since the start of the process.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Changes that were received.
    pub(super) delivered: AtomicU64,
    /// Attempts that failed.
    pub(super) failed: AtomicU64,
    /// Changes that could not be recorded, because too many waited.
    pub(super) unrecorded: AtomicU64,
}

/// Delivers the changes of the hook with this index until it is cancelled.
pub(super) async fn deliver(
    index: usize,
    name: &str,
    target: &Target,
    counts: &Counts,
    board: &Board,
    journal: &dyn Log,
) {
    let validator = Validator::default();
    let mut backoff = Backoff::new(FIRST_DELAY, LONGEST_DELAY);
    loop {
        let changes = board.pending(index, BATCH_MAX).await;
        while let Err(reason) = target.deliver(&changes).await {
            counts.failed.fetch_add(1, Ordering::Relaxed);
            if backoff.failures() == 0 {
                tracing::warn!(
                    hook = name,
                    reason,
                    changes = changes.len(),
                    "a hook cannot be delivered; it is tried again until it can"
                );
            } else {
                tracing::debug!(hook = name, reason, "a hook cannot be delivered yet");
            }
            sleep(backoff.failed()).await;
        }
        if backoff.failures() > 0 {
            tracing::info!(hook = name, failures = backoff.failures(), "a hook is delivered again");
        }
        backoff.succeeded();
        counts.delivered.fetch_add(changes.len() as u64, Ordering::Relaxed);
        let through = changes.last().expect("a batch has at least one").cursor;
        record(name, through, &validator, journal).await;
        board.delivered(index, through);
    }
}

/// Notes how far the hook is. If that fails, a hub that takes over delivers the batch once more.
async fn record(hook: &str, through: Cursor, validator: &Validator, journal: &dyn Log) {
    let record = Record::Delivered { hook: hook.to_owned(), through: through.to_string() };
    if let Err(error) = append(journal, validator, &[record], None).await {
        tracing::debug!(hook, %error, "cannot record how far a hook is delivered");
    }
}

#[cfg(test)]
mod tests {
    use tidings::log::{Epoch, Position, Timestamp};

    use super::*;
    use crate::hooks::change::Change;

    #[test]
    fn changes_of_one_member_are_published_one_after_the_other() {
        let recorded = |id: &str| {
            let (label, is_here) = (id.trim_end_matches(['+', '-']), id.ends_with('+'));
            let member = tidings_presence::Member { topic: "chat".into(), label: Some(label.into()) };
            Arc::new(Recorded {
                cursor: Cursor { epoch: Epoch::from_u64(1), position: Position::BEFORE_ALL },
                id: id.to_owned(),
                time: Timestamp::from_millis(0),
                change: Change { member: Member::Presence(member), is_here },
            })
        };
        let changes = ["ann+", "ann-", "bob+", "bob-", "ann+", "cat+"].map(recorded);
        let ids = |wave: Vec<&Recorded>| wave.iter().map(|change| change.id.clone()).collect::<Vec<_>>();
        let waves: Vec<_> = waves(&changes).into_iter().map(ids).collect();
        assert_eq!(waves, [vec!["ann+", "bob+", "cat+"], vec!["ann-", "bob-"], vec!["ann+"]]);
    }
}
