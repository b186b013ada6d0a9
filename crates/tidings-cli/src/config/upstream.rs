//! The application behind the hub, and what may be asked of it at a time.

use std::time::Duration;

use tidings_server::{Upstream, UpstreamSettings};

use super::{layers::Merged, values};
use crate::failure::Failure;

/// The application behind the hub, as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UpstreamConfig {
    address: String,
    settings: UpstreamSettings,
}

impl UpstreamConfig {
    /// Reads the settings. `room`: how many connections the file descriptor limit allows, from which
    /// those to the application are taken; what is left is for clients.
    pub(super) fn read(merged: &mut Merged, room: usize) -> Result<(Option<Self>, usize), Failure> {
        merged
            .default_to("upstream_requests_max", UpstreamSettings::REQUESTS_MAX_DEFAULT.min(room / 2).max(1));
        let mut settings = UpstreamSettings::default();
        settings.requests_max = merged.value("upstream_requests_max", values::count)?;
        settings.time = Duration::from_secs(merged.value("upstream_secs", values::seconds)?);
        settings.wait = Duration::from_secs(merged.value("upstream_wait_secs", values::seconds)?);
        let upstream = merged.one("upstream", |address| {
            Upstream::new(address, settings.clone()).map_err(|error| error.to_string())?;
            Ok(Self { address: address.to_owned(), settings: settings.clone() })
        })?;
        let taken = upstream.as_ref().map_or(0, |upstream| upstream.settings.requests_max);
        Ok((upstream, room.saturating_sub(taken).max(room / 2)))
    }

    /// A handle to it.
    pub(crate) fn handle(&self) -> Upstream {
        Upstream::new(&self.address, self.settings.clone()).expect("it was checked when it was read")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::layers::Layer;

    fn read(words: &[(&'static str, &str)], room: usize) -> Result<(Option<UpstreamConfig>, usize), String> {
        let flags = words.iter().map(|(name, word)| (*name, vec![(*word).to_owned()])).collect();
        let mut merged = Merged::new(Layer::new(), Layer::new(), flags, "f.toml");
        UpstreamConfig::read(&mut merged, room).map_err(|failure| failure.to_string())
    }

    #[test]
    fn connections_to_the_application_are_taken_from_those_of_clients() {
        let given = ("upstream", "http://127.0.0.1:5000");
        let left = |words: &[(&'static str, &str)], room| read(words, room).unwrap().1;
        assert_eq!(left(&[], 10_000), 10_000);
        assert_eq!(left(&[given], 10_000), 10_000 - 4096);
        assert_eq!(left(&[given], 500), 250);
        assert_eq!(left(&[given, ("upstream_requests_max", "100")], 500), 400);
        assert_eq!(left(&[given, ("upstream_requests_max", "9000")], 500), 250);
        assert_eq!(read(&[given], 500).unwrap().0.unwrap().settings.requests_max, 250);
    }

    #[test]
    fn an_address_that_cannot_be_one_is_refused_without_its_secrets() {
        for (word, part) in [
            ("5000", "--upstream: `5000` is not the address of an application"),
            ("http://a/app", "--upstream: `http://a/app` contains a path"),
            ("http://me:hidden@a", "--upstream: `http://…@a` contains a user"),
        ] {
            let refused = read(&[("upstream", word)], 500).unwrap_err();
            assert!(refused.starts_with(part) && !refused.contains("hidden"), "{refused}");
        }
    }
}
