//! Why a measurement could not be made.

/// Why a measurement could not be made. Each is one line for people; what went wrong inside a measurement that was
/// made stands in its [`Faults`](crate::Faults).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BenchError {
    /// What was asked for makes no sense; the text names the flag.
    #[error("{0}")]
    Plan(String),
    /// The hub cannot be reached, or does something that no hub may do.
    #[error("{0}")]
    Hub(String),
    /// This machine refuses something: descriptors, sockets, files.
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
