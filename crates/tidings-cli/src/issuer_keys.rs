//! Fetches the keys that issuers of tokens publish at a URL, and keeps them fresh.
//!
//! Each issuer has a task of its own, so that an endpoint that hangs, lies, redirects or floods has no
//! effect on the tokens of another. The keys of an issuer are fetched
//!
//! - at the start;
//! - when they are due: after `refresh_secs`, or earlier if the response says so (`max-age`), and
//!   after a failure, at growing intervals;
//! - when a token names a key that is not there, at most once in `refresh_secs_min`, whatever the
//!   tokens say.
//!
//! A failed fetch keeps the keys, for at most [`STALE_SECS`]. It is logged and counted, and the hub
//! stays ready: it serves everything but the new tokens of one issuer.

mod download;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tidings::log::parts::lock;
use tidings_auth::{Authenticator, Fetching, JwksUrl, RemoteKeys};
use tidings_net::{Backoff, Spread};
use tidings_server::{Component, Figure};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep_until},
};

use self::download::{Downloaded, download};

/// How long keys are used that could not be fetched again, in seconds: a day. Then the tokens of the
/// issuer are refused, as before the first fetch. An attacker who keeps the hub from an endpoint must
/// not be able to keep a withdrawn key in use for ever.
const STALE_SECS: u64 = 24 * 60 * 60;

/// The first delay after a failed fetch, at most, in seconds; it doubles up to `refresh_secs`.
const RETRY_SECS: u64 = 5;

/// Fetches keys until it is dropped.
#[derive(Debug, Default)]
pub(crate) struct KeyFetchers {
    tasks: Mutex<Vec<Task>>,
    counts: Arc<Counts>,
}

/// What has happened since the start of the process.
#[derive(Debug, Default)]
struct Counts {
    fetched: AtomicU64,
    failed: AtomicU64,
}

/// The task of one issuer, which ends with this.
#[derive(Debug)]
struct Task {
    keys: RemoteKeys,
    handle: JoinHandle<()>,
}

impl KeyFetchers {
    /// Begins to fetch, and returns the component of a hub with credentials.
    pub(crate) fn component(
        this: &Arc<Self>,
        authenticator: Option<&Authenticator>,
    ) -> Option<Arc<dyn Component>> {
        this.follow(authenticator?);
        Some(Arc::clone(this) as Arc<dyn Component>)
    }

    /// Fetches the keys of these issuers from now on, instead of those before. The first fetch is
    /// under way when this returns, so that requests wait for it.
    pub(crate) fn follow(&self, authenticator: &Authenticator) {
        let tasks = authenticator.remote_keys().into_iter().map(|keys| {
            let first = keys.begin();
            let handle = tokio::spawn(keep_fresh(keys.clone(), first, Arc::clone(&self.counts)));
            Task { keys, handle }
        });
        let tasks = tasks.collect();
        *lock(&self.tasks) = tasks;
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.handle.abort();
    }
}

impl Component for KeyFetchers {
    fn kind(&self) -> &'static str {
        "keys"
    }

    fn name(&self) -> String {
        "issuers".to_owned()
    }

    /// Never: one issuer that cannot be reached must not take the hub out of service for all others.
    fn trouble(&self) -> Option<String> {
        None
    }

    fn figures(&self) -> Vec<Figure> {
        let tasks = lock(&self.tasks);
        let missing = tasks.iter().filter(|task| task.keys.count() == 0).count();
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        vec![
            Figure::new("tidings_issuers_without_keys", missing as u64),
            Figure::new("tidings_issuer_keys_fetched_total", read(&self.counts.fetched)),
            Figure::new("tidings_issuer_keys_failed_total", read(&self.counts.failed)),
        ]
    }
}

async fn keep_fresh(keys: RemoteKeys, first: Fetching, counts: Arc<Counts>) {
    let source = keys.source();
    let [refresh, refresh_min] = [source.refresh_secs, source.refresh_secs_min].map(Duration::from_secs);
    let mut backoff = Backoff::new(Duration::from_secs(RETRY_SECS).min(refresh_min), refresh);
    let mut is_first_success = true;
    // Tokens may cause a fetch from then on.
    let mut possible_from = Instant::now();
    let mut fetching = first;
    loop {
        let next = match fetch(source, &fetching).await {
            Ok(Fetched { count, max_age }) => {
                counts.fetched.fetch_add(1, Ordering::Relaxed);
                if is_first_success || backoff.failures() > 0 {
                    tracing::info!(
                        issuer = keys.issuer(),
                        keys = count,
                        "fetched the keys of an issuer of tokens"
                    );
                }
                backoff.succeeded();
                is_first_success = false;
                Spread::QUARTER.of(max_age.unwrap_or(refresh).clamp(refresh_min, refresh))
            }
            Err(reason) => {
                counts.failed.fetch_add(1, Ordering::Relaxed);
                let now = Instant::now().into_std();
                let consequence = consequence(&keys, now);
                tracing::warn!(
                    issuer = keys.issuer(),
                    url = %source.url,
                    reason,
                    "cannot fetch the keys of an issuer of tokens; {consequence}"
                );
                backoff.failed().min(lifetime_left(&keys, now))
            }
        };
        let due = Instant::now() + next;
        fetching.finish(Instant::now() >= possible_from);
        let is_wanted = tokio::select! {
            () = sleep_until(due) => false,
            () = wanted(&keys, possible_from) => true,
        };
        fetching = keys.begin();
        if is_wanted {
            possible_from = Instant::now() + refresh_min;
        }
    }
}

/// Until a token causes a fetch, which is possible from this time on.
async fn wanted(keys: &RemoteKeys, possible_from: Instant) {
    sleep_until(possible_from).await;
    keys.allow_fetch();
    keys.wanted().await;
}

/// How long keys may still be used without another fetch. For ever if there are none to forget.
fn lifetime_left(keys: &RemoteKeys, now: std::time::Instant) -> Duration {
    let age = keys.fetched_at().map(|at| now.saturating_duration_since(at));
    age.map_or(Duration::MAX, |age| Duration::from_secs(STALE_SECS).saturating_sub(age))
}

/// What a failed fetch means for tokens. Drops keys that are too old, also if this process has read
/// its configuration again since they were fetched.
fn consequence(keys: &RemoteKeys, now: std::time::Instant) -> &'static str {
    let age = keys.fetched_at().map(|at| now.saturating_duration_since(at));
    if age.is_some_and(|age| age >= Duration::from_secs(STALE_SECS)) {
        keys.forget();
    }
    if keys.count() == 0 {
        "its tokens are answered with 503 until this succeeds"
    } else {
        "its tokens are checked with the keys that were fetched before"
    }
}

struct Fetched {
    count: usize,
    max_age: Option<Duration>,
}

async fn fetch(source: &JwksUrl, fetching: &Fetching) -> Result<Fetched, String> {
    let Downloaded { body, max_age } = download(source).await?;
    let count = fetching.succeeded(&body, Instant::now().into_std()).map_err(|error| error.to_string())?;
    Ok(Fetched { count, max_age })
}

#[cfg(test)]
mod tests {
    use tidings::Validator;
    use tidings_auth::{AuthConfig, IssuerConfig};

    use super::*;

    const KEY_SET: &str = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"1","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

    fn authenticator() -> Authenticator {
        let issuer = IssuerConfig {
            issuer: "https://issuer.example".to_owned(),
            audiences: vec!["https://hub.example/".to_owned()],
            jwks_url: Some(JwksUrl::new("https://issuer.example/jwks".parse().unwrap())),
            ..IssuerConfig::default()
        };
        let config = AuthConfig { issuers: vec![issuer], ..AuthConfig::default() };
        Authenticator::new(config, &Validator::default()).unwrap()
    }

    #[test]
    fn keys_that_cannot_be_fetched_again_are_used_for_a_day_whenever_the_configuration_was_read() {
        let hub = authenticator();
        let fetched_at = std::time::Instant::now();
        let fetching = hub.remote_keys()[0].begin();
        fetching.succeeded(KEY_SET.as_bytes(), fetched_at).unwrap();
        drop(fetching);
        hub.replace(&authenticator());
        let keys = &hub.remote_keys()[0];
        let day = Duration::from_secs(STALE_SECS);
        let almost = fetched_at + day.saturating_sub(Duration::from_secs(1));
        consequence(keys, almost);
        assert_eq!(keys.count(), 1);
        assert_eq!(lifetime_left(keys, almost), Duration::from_secs(1), "then the fetch is tried again");
        consequence(keys, fetched_at + day);
        assert_eq!(keys.count(), 0);
        assert_eq!(lifetime_left(keys, fetched_at + day), Duration::MAX);
    }
}
