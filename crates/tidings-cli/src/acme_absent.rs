//! ACME in builds without the cargo feature `acme`: there is no such table in the configuration.

use tidings_server::{Settings, Tls};

use crate::{config::AcmeSettings, failure::Failure};

/// No authority.
#[derive(Clone, Debug)]
pub(crate) struct Acme;

#[expect(clippy::unused_self, reason = "the same signatures as with an authority")]
impl Acme {
    #[expect(clippy::unnecessary_wraps, reason = "the same signature as with an authority")]
    pub(crate) fn open(_: Option<&AcmeSettings>, _: Option<&Tls>) -> Result<Self, Failure> {
        Ok(Self)
    }

    pub(crate) fn add_to(&self, _: &mut Settings) {}

    pub(crate) fn start(&self) {}

    pub(crate) fn look_now(&self) {}

    pub(crate) fn stop(&self) {}
}
