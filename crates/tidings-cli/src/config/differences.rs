//! How two configurations differ: what a reload takes over, and what a restart would.

use super::{ServeConfig, own_urls};

impl ServeConfig {
    /// The settings that a running hub takes over and that differ from those of `other`, except for
    /// the contents of certificates.
    pub(crate) fn live_differences(&self, other: &Self) -> Vec<&'static str> {
        let differences = [
            ("keys", self.auth.keys != other.auth.keys),
            ("issuer", self.auth.issuers != other.auth.issuers),
            ("ticket_secret", self.auth.ticket_secrets != other.auth.ticket_secrets),
            ("cookie_name", self.auth.cookie_name != other.auth.cookie_name),
            ("private_topics", !self.written.access.has_private_topics_of(&other.written.access)),
            ("allow_origin", self.allow_origins != other.allow_origins),
            ("authorize", self.authorize != other.authorize),
            ("log_level", self.log_level != other.log_level),
        ];
        differences.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
    }

    /// The audiences of tokens are URLs of the hub unless an issuer names others, and the hub has
    /// those of its start until it is restarted.
    pub(crate) fn keep_audiences_of(&mut self, started: &Self) {
        let own_urls = own_urls(started.public_url.as_ref(), &started.allow_hosts);
        // It had no URL: an issuer that was added has the one of the new configuration.
        if own_urls.is_empty() {
            return;
        }
        for (issuer, table) in self.auth.issuers.iter_mut().zip(&self.written.access.issuers) {
            if !table.has_audience() {
                issuer.audiences.clone_from(&own_urls);
            }
        }
    }

    /// The settings that differ from those of `other` and hold from a start on.
    pub(crate) fn restart_differences(&self, other: &Self) -> Vec<&'static str> {
        const LIVE: [&str; 5] = ["allow_origin", "authorize", "authorize_secs", "cookie_name", "log_level"];
        let tls = ["tls_certificate", "tls_key"];
        let mut differences = self.written.merged.differences(&other.written.merged);
        differences.retain(|name| !LIVE.contains(name) && !tls.contains(name));
        if self.has_tls() != other.has_tls() {
            differences.push("tls_certificate");
        }
        if self.acme != other.acme {
            differences.push("acme");
        }
        if self.written.retention != other.written.retention {
            differences.push("retention");
        }
        if self.hooks != other.hooks {
            differences.push("hook");
        }
        differences
    }
}
