//! Bridges in builds without the cargo feature `redis`: there are none.

use std::{fmt, iter, path::Path, sync::Arc};

use tidings::Hub;
use tidings_server::Component;

/// No bridge is accepted.
#[derive(Clone, Debug)]
pub(crate) enum BridgeSettings {}

impl BridgeSettings {
    pub(crate) fn lease_key(&self) -> String {
        match *self {}
    }

    pub(crate) fn secret_files(&self) -> iter::Empty<&Path> {
        match *self {}
    }
}

impl fmt::Display for BridgeSettings {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {}
    }
}

/// Errors continue after the URL.
pub(crate) fn parse(_: &str) -> Result<BridgeSettings, String> {
    Err("is a bridge, and this program was built without them: its cargo feature `redis` is off".to_owned())
}

/// No bridges.
pub(crate) struct Bridges;

impl Bridges {
    pub(crate) fn start(_: &[BridgeSettings], _: &Hub) -> Self {
        Self
    }

    #[expect(clippy::unused_self, reason = "the same signature as with bridges")]
    pub(crate) fn components(&self) -> Vec<Arc<dyn Component>> {
        Vec::new()
    }

    #[expect(clippy::unused_async, reason = "the same signature as with bridges")]
    pub(crate) async fn stop(&self) {}
}
