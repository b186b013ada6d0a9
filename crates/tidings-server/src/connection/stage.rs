//! What connections know of the end of their server.

use tokio::sync::watch;

/// How far the end is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stage {
    Serving,
    /// The next response of a connection is its last one.
    Leaving,
    /// Idle connections are closed.
    Ending,
}

/// Ready when idle connections are to be closed.
pub(crate) async fn ending(stage: &mut watch::Receiver<Stage>) {
    // An error means that the server is gone, which ends this task too.
    let _ = stage.wait_for(|stage| *stage == Stage::Ending).await;
}
