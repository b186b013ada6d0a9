//! Why a measurement could not be made.

/// Why a measurement could not be made. Each displays as one line; the faults of a completed
/// measurement are in its [`Faults`](crate::Faults).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BenchError {
    /// The request is invalid; the text names the flag.
    #[error("{0}")]
    Plan(String),
    /// The hub cannot be reached, or violates its protocol.
    #[error("{0}")]
    Hub(String),
    /// This machine refuses a resource: descriptors, sockets, files.
    #[error("{0}")]
    Machine(String),
}

impl BenchError {
    pub(crate) fn plan(text: impl Into<String>) -> Self {
        Self::Plan(text.into())
    }

    pub(crate) fn hub(text: impl Into<String>) -> Self {
        Self::Hub(text.into())
    }

    pub(crate) fn machine(what: &str, error: impl std::fmt::Display) -> Self {
        Self::Machine(format!("{what}: {error}"))
    }
}
