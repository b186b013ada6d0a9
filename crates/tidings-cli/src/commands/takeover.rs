//! What the two processes of an upgrade agree on.

/// How the new process of an upgrade takes over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Takeover {
    /// It serves already.
    Serves,
    /// It serves when this process has ended.
    WaitsForStore,
}
