//! Settings that contradict each other.

use std::fmt;

use super::{Listen, ServeConfig};
use crate::failure::Failure;

impl ServeConfig {
    /// Refuses settings that contradict each other.
    pub(super) fn check_combinations(&self) -> Result<(), Failure> {
        if self.runs_application && self.no_auth {
            return Err(self.refuse(
                "no_auth",
                "`tidings run` has a key, which it gives to the application: remove this, and let clients publish through the application, \
                 or give them a [[key]] of their own",
            ));
        }
        if self.has_credentials() && self.no_auth {
            return Err(self.refuse(
                "no_auth",
                "the configuration has a key, an issuer or a ticket secret: remove it, or no_auth",
            ));
        }
        if self.streams_max >= self.connections_max {
            let reason = format!(
                "must be less than connections_max ({}), so that the hub can ask browsers to retry later and applications \
                 can publish",
                self.connections_max
            );
            return Err(self.refuse("streams_max", &reason));
        }
        self.check_waiting(self.authorize.len())?;
        self.check_addresses()
    }

    /// Refuses limits by which applications that hang, of so many paths, could keep all other
    /// requests waiting.
    pub(crate) fn check_waiting(&self, paths: usize) -> Result<(), Failure> {
        let waiting_max = paths.saturating_mul(self.authorize_requests_max);
        let share = self.requests_max / 2;
        if waiting_max <= share {
            return Ok(());
        }
        let reason = format!(
            "{paths} paths with an application and {} requests each are more than half of requests_max ({}): applications that hang would \
             keep other requests waiting; raise requests_max, or lower authorize_requests_max",
            self.authorize_requests_max, self.requests_max
        );
        Err(self.refuse("authorize_requests_max", &reason))
    }

    fn check_addresses(&self) -> Result<(), Failure> {
        for (name, listens) in [("listen", &self.listen), ("admin_listen", &self.admin_listen)] {
            if let Some(open) = listens.iter().find(|listen| listen.reaches_others()) {
                self.check_reach(name, &open.address)?;
            }
        }
        if self.listen.is_empty() {
            return Err(self.refuse("listen", "the list is empty: name at least one address"));
        }
        let needs_tls = |(_, listens): &(_, &Vec<Listen>)| listens.iter().any(Listen::needs_tls);
        let addresses = [("listen", &self.listen), ("admin_listen", &self.admin_listen)];
        if !self.has_tls()
            && let Some((name, _)) = addresses.into_iter().find(needs_tls)
        {
            return Err(self.refuse(
                name,
                "an address has tls=true, which needs tls_certificate and tls_key, or [acme]",
            ));
        }
        Ok(())
    }

    /// Refuses an address that other machines reach, unless there are keys or `no_auth` asks for
    /// it.
    pub(crate) fn check_reach(&self, name: &str, address: impl fmt::Display) -> Result<(), Failure> {
        if self.has_credentials() || self.no_auth {
            return Ok(());
        }
        let reason = format!(
            "{address} can be reached from other machines, and there is no key: add one (`tidings key new` shows how), \
             or let every client publish with --no-auth"
        );
        Err(self.refuse(name, &reason))
    }
}
