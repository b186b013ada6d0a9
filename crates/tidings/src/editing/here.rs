//! Streams of this hub.

use std::time::Duration;

use tidings_topic::ConnectionId;
use tokio::time::{Instant, timeout};

use crate::{
    edits::{EditError, EditProof, Edited, TopicEdit},
    engine::Engine,
};

/// How long the driver of a stream may take. A shard takes a moment; a stream that its client pulls
/// is changed when it is polled.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(5);

/// Passes a change to the driver of the stream, and waits for its answer.
pub(super) async fn edit(
    engine: &Engine,
    connection: ConnectionId,
    proof: EditProof,
    edit: TopicEdit,
) -> Result<Edited, EditError> {
    let stream = engine.edits.find(&connection).ok_or(EditError::Unknown)?;
    let answered = stream.request(edit, proof, Instant::now())?;
    match timeout(ANSWER_TIME_MAX, answered).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) => Err(EditError::Unknown),
        Err(_) => Err(EditError::NotRead),
    }
}
