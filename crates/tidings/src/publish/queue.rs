//! Batches that wait for the [committer](super::committer).

use tidings_log::{AppendError, Appended, Batch};
use tokio::sync::{mpsc, oneshot};

use crate::publish::pressure::AppendPermit;

/// What became of a batch.
pub(super) type Outcome = Result<Appended, AppendError>;

/// Where publishers leave their batches. The number of batches is bounded by their permits.
#[derive(Debug)]
pub(crate) struct Committer {
    pub(super) waiting: mpsc::UnboundedSender<Waiting>,
}

/// The other end, for the task.
pub(crate) struct Queue(pub(super) mpsc::UnboundedReceiver<Waiting>);

/// A batch and its publisher.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) batch: Batch,
    pub(super) permit: AppendPermit,
    pub(super) publisher: oneshot::Sender<Outcome>,
}

impl Committer {
    pub(crate) fn new() -> (Self, Queue) {
        let (waiting, queue) = mpsc::unbounded_channel();
        (Self { waiting }, Queue(queue))
    }
}
