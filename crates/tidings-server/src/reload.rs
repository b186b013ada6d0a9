//! What `POST /reload` has reloaded: the configuration of the program, which this crate knows only as
//! a [`Reload`].

use std::{fmt, pin::Pin};

use serde::Serialize;

/// What reloads the configuration of a hub.
pub trait Reload: fmt::Debug + Send + Sync {
    /// Reloads everything, or nothing. The error says for an operator what is wrong; it contains no
    /// secret.
    fn reload(&self) -> Pin<Box<dyn Future<Output = Result<Reloaded, String>> + Send>>;
}

/// What a reload has done.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize)]
pub struct Reloaded {
    /// The settings that have changed.
    pub changed: Vec<&'static str>,
    /// Those that differ from what the hub was started with, and hold from the next start on.
    pub needs_restart: Vec<&'static str>,
}
