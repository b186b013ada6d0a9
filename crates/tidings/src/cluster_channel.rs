//! What the other hubs of a cluster send on a channel.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;

use crate::hub::HubState;

/// The delay before a failed subscription to a channel is retried.
const RELISTEN_WAIT: Duration = Duration::from_millis(500);

/// Subscribes to a channel. The future that this returns takes what is received there, for as long
/// as the hub runs: nothing is missed that is sent after this has returned.
pub(crate) async fn receive(
    state: &Arc<HubState>,
    channel: &'static str,
    take: fn(&Arc<HubState>, &[u8]),
) -> impl Future<Output = ()> + Send + use<> {
    let state = Arc::clone(state);
    let mut messages = state.cluster.listen(channel).await;
    async move {
        loop {
            let received = match &mut messages {
                Ok(messages) => messages.next().await,
                Err(error) => Err(error.clone()),
            };
            match received {
                Ok(message) => take(&state, &message),
                Err(error) => {
                    tracing::debug!(%error, channel, "messages of other hubs cannot be received; retrying");
                    sleep(RELISTEN_WAIT).await;
                    messages = state.cluster.listen(channel).await;
                }
            }
        }
    }
}
