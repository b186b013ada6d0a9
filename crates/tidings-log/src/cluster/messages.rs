//! Broadcast within a process, for clusters whose messages come in by one connection.

use tokio::sync::broadcast::{self, error::RecvError};

use super::ClusterError;

/// The next message of a channel of this process, for [`Messages::next`](super::Messages::next). A
/// listener that is too slow misses messages. `ended` says what has ended when there is no sender any
/// more.
pub async fn next_message<M: AsRef<[u8]> + Clone>(
    received: &mut broadcast::Receiver<M>,
    ended: &str,
) -> Result<Vec<u8>, ClusterError> {
    loop {
        match received.recv().await {
            Ok(message) => return Ok(message.as_ref().to_vec()),
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return Err(ClusterError::Unavailable(ended.to_owned())),
        }
    }
}
