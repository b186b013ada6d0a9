//! Reload: takes over what has changed in the configuration of a hub that serves.
//!
//! All sources are read and checked as at the start, files that they name included. If anything is
//! wrong, nothing changes. Otherwise each part that can change while the hub serves is replaced, and
//! settings that need a restart and differ are named in a warning. No connection is closed.

use std::{path::PathBuf, pin::Pin, sync::Arc};

use tidings::Hub;
use tidings_auth::Authenticator;
use tidings_server::{AllowedOrigins, Applications, Certificates, Reload, Reloaded, Tls};
use tokio::sync::{mpsc, oneshot};
use url::Url;

use super::{log_filter::LogFilter, rules::Rules, signals::Reloads, supervisor};
use crate::{
    acme::Acme,
    config::{self, ServeConfig, SettingFlags, warn_of_readable},
    failure::Failure,
    issuer_keys::KeyFetchers,
};

/// Where the configuration of a hub comes from.
#[derive(Clone, Debug)]
pub(super) struct Sources {
    pub(super) file: Option<PathBuf>,
    pub(super) given: SettingFlags,
    /// How many connections the file descriptor limit allows.
    pub(super) room: usize,
}

/// The parts of a hub that a reload replaces.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) hub: Hub,
    pub(super) hub_url: Url,
    pub(super) authenticator: Option<Authenticator>,
    pub(super) origins: AllowedOrigins,
    pub(super) applications: Applications,
    pub(super) key_fetchers: Arc<KeyFetchers>,
    pub(super) tls: Option<Tls>,
    pub(super) acme: Acme,
    pub(super) log: LogFilter,
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Reloader {
    sources: Sources,
    /// What the hub was started with.
    started: ServeConfig,
    /// What holds now.
    current: ServeConfig,
    live: Live,
}

/// A request to reload that wants to know what became of it.
type Asked = oneshot::Sender<Result<Reloaded, String>>;

/// Has the hub reload: `POST /reload`.
#[derive(Debug)]
pub(super) struct ReloadRequests(mpsc::Sender<Asked>);

/// Most requests that wait for a reload; one reads all files.
const REQUESTS_MAX: usize = 16;

impl ReloadRequests {
    pub(super) fn new() -> (Self, mpsc::Receiver<Asked>) {
        let (ask, asked) = mpsc::channel(REQUESTS_MAX);
        (Self(ask), asked)
    }
}

impl Reload for ReloadRequests {
    fn reload(&self) -> Pin<Box<dyn Future<Output = Result<Reloaded, String>> + Send>> {
        let ask = self.0.clone();
        Box::pin(async move {
            let (answer, answered) = oneshot::channel();
            let gone = || "the hub cannot reload any more: restart it".to_owned();
            ask.send(answer).await.map_err(|_| gone())?;
            answered.await.map_err(|_| gone())?
        })
    }
}

impl Sources {
    pub(super) fn load(&self) -> Result<ServeConfig, Failure> {
        config::load(self.file.as_deref(), self.given.clone(), self.room)
    }
}

impl Reloader {
    pub(super) fn new(sources: Sources, config: ServeConfig, live: Live) -> Self {
        Self { sources, started: config.clone(), current: config, live }
    }

    /// Reloads at each request, until the process ends. Each ends with one line in the log.
    pub(super) async fn run(mut self, mut signals: Reloads, mut requests: mpsc::Receiver<Asked>) {
        loop {
            let asked = tokio::select! {
                () = signals.requested() => None,
                Some(asked) = requests.recv() => Some(asked),
            };
            supervisor::notify_reloading();
            // Files are read, and a name may have to be resolved.
            let reload = tokio::task::spawn_blocking(move || {
                let outcome = self.reload();
                (self, outcome)
            });
            let Ok((this, outcome)) = reload.await else {
                tracing::error!("a reload has panicked: further ones need a restart");
                return;
            };
            self = this;
            match &outcome {
                Ok(reloaded) => log(reloaded),
                Err(failure) => {
                    tracing::error!(reason = %failure, "the configuration was not reloaded; nothing has changed");
                }
            }
            if let Some(asked) = asked {
                // The client may have gone.
                let _ = asked.send(outcome.map_err(|failure| failure.to_string()));
            }
            supervisor::notify("READY=1");
        }
    }

    fn reload(&mut self) -> Result<Reloaded, Failure> {
        let mut new = self.sources.load()?;
        new.keep_audiences_of(&self.started);
        let rules = Rules::new(&new, &self.live.hub_url)?;
        let certificates = new.read_certificates()?;
        // Without a key a hub trusts every client that reaches it: no mistake in a file decides that.
        if new.has_credentials() != self.started.has_credentials() {
            let (is, was) = if new.has_credentials() { ("has", "none") } else { ("has no", "one") };
            return Err(Failure::usage(format!(
                "the configuration {is} key, issuer or ticket secret, and the hub was started with {was}: restart it"
            )));
        }
        self.check_authorize(&new)?;
        // From here on nothing fails.
        let mut changed = new.live_differences(&self.current);
        if self.replace(&new, &rules, certificates) {
            changed.push("certificates");
        }
        self.live.acme.look_now();
        warn_of_readable(&new.secret_files);
        let needs_restart = new.restart_differences(&self.started);
        self.current = new;
        Ok(Reloaded { changed, needs_restart })
    }

    /// Refuses paths that fit the new configuration and not the hub as it was started.
    fn check_authorize(&self, new: &ServeConfig) -> Result<(), Failure> {
        self.started.check_waiting(new.authorize.len())?;
        let hub_path = self.live.hub_url.path();
        if new.authorize.iter().any(|path| path.path() == hub_path) {
            return Err(Failure::usage(format!(
                "authorize: `{hub_path}` is the path of the Mercure API until the hub is restarted with another public_url"
            )));
        }
        Ok(())
    }

    /// Whether the certificates differ.
    fn replace(&self, new: &ServeConfig, rules: &Rules, certificates: Option<Certificates>) -> bool {
        let Live { hub, authenticator, origins, applications, key_fetchers, tls, log, .. } = &self.live;
        if let (Some(authenticator), Some(new)) = (authenticator, &rules.authenticator) {
            authenticator.replace(new);
            key_fetchers.follow(authenticator);
        }
        origins.replace(new.allow_origins.clone());
        applications.replace(&new.authorize);
        hub.set_private_topics(&new.private_topics);
        if !log.set_level(&new.log_level) && new.log_level != self.current.log_level {
            tracing::warn!("log_level has no effect: RUST_LOG is set");
        }
        tls.as_ref().zip(certificates).is_some_and(|(tls, certificates)| tls.replace(certificates))
    }
}

fn log(reloaded: &Reloaded) {
    let list = |names: &[&str]| if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
    tracing::info!(changed = list(&reloaded.changed), "the configuration was reloaded");
    if !reloaded.needs_restart.is_empty() {
        tracing::warn!(
            settings = list(&reloaded.needs_restart),
            "these settings differ from those that the hub was started with, and need a restart or an upgrade"
        );
    }
}
