//! The log on standard error, and how much of it is written.

use std::{
    env,
    io::{self, IsTerminal},
};

use tracing_subscriber::{
    EnvFilter, Registry, fmt::time::SystemTime, layer::SubscriberExt, reload, util::SubscriberInitExt,
};

use crate::{config::LogFormat, failure::Failure, output};

/// Changes how much a log that has started writes. None where `RUST_LOG` decides.
#[derive(Debug)]
pub(super) struct LogFilter(Option<reload::Handle<EnvFilter, Registry>>);

impl LogFilter {
    /// Starts the log. `RUST_LOG` overrides `level`.
    pub(super) fn start(format: LogFormat, level: &str) -> Result<Self, Failure> {
        output::set_format(format);
        output::STDERR.start().map_err(|error| Failure::runtime(format!("cannot start: {error}")))?;
        let wanted = env::var(EnvFilter::DEFAULT_ENV).ok().filter(|words| !words.trim().is_empty());
        let (filter, mistake) = match wanted.map(EnvFilter::try_new) {
            None => (None, None),
            Some(Ok(filter)) => (Some(filter), None),
            Some(Err(mistake)) => (None, Some(mistake)),
        };
        let is_overridden = filter.is_some();
        let (filter, handle) = reload::Layer::new(filter.unwrap_or_else(|| filter_of(level)));
        let log = tracing_subscriber::registry().with(filter);
        let lines = tracing_subscriber::fmt::layer()
            .with_timer(SystemTime)
            .with_writer(|| &output::STDERR)
            // Internal errors would bypass the queue.
            .log_internal_errors(false)
            .with_ansi(format == LogFormat::Text && io::stderr().is_terminal());
        match format {
            LogFormat::Text => log.with(lines).init(),
            LogFormat::Json => log.with(lines.json()).init(),
        }
        if let Some(mistake) = mistake {
            tracing::warn!("RUST_LOG is ignored: {mistake}");
        }
        Ok(Self((!is_overridden).then_some(handle)))
    }

    /// Changes the level. False where `RUST_LOG` overrides it.
    pub(super) fn set_level(&self, level: &str) -> bool {
        // The log lasts as long as the process, so the handle is valid.
        self.0.as_ref().is_some_and(|handle| handle.reload(filter_of(level)).is_ok())
    }
}

/// The NATS client logs every lost connection as an error; the hub logs what matters of it.
fn filter_of(level: &str) -> EnvFilter {
    EnvFilter::new(format!("async_nats=off,{level}"))
}
