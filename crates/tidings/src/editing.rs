//! Changes the topics of an open stream, of this hub or of another one of its cluster.

pub(crate) mod elsewhere;
mod here;
pub(crate) mod waiting;

use tidings_topic::ConnectionId;

use crate::{
    edits::{EditError, EditProof, Edited, TopicEdit},
    hub::Hub,
};

impl Hub {
    /// Adds topics to an open stream and removes others, with the proof that it was opened with
    /// ([`Subscribe::editable`](crate::Subscribe::editable)).
    ///
    /// The topics that are added begin at the place in the log where the stream is, which is
    /// returned: everything after it is in the stream. Private events on them are received as far
    /// as the grants of the stream cover them; the caller checks whether they should.
    #[doc(hidden)]
    pub async fn edit(
        &self,
        connection: ConnectionId,
        proof: EditProof,
        edit: TopicEdit,
    ) -> Result<Edited, EditError> {
        if self.state.is_clustered && self.state.engine.edits.find(&connection).is_none() {
            return elsewhere::edit(self, connection, proof, &edit).await;
        }
        here::edit(&self.state.engine, connection, proof, edit).await
    }
}
