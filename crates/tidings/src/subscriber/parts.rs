//! What a subscription is made of, for another driver.

use std::time::Duration;

use tidings_log::Cursor;

use super::{backlog::Backlog, end::End, reader::Reader};
use crate::{edits::Registration, presence::Membership};

/// See the module's documentation.
pub(crate) struct Parts {
    pub(crate) reader: Reader,
    pub(crate) backlog: Backlog,
    /// Everything up to here has been sent.
    pub(crate) sent: Cursor,
    pub(crate) ends: Vec<End>,
    pub(crate) heartbeat: Duration,
    pub(crate) membership: Membership,
    /// Where its topics can be changed, if they can be.
    pub(crate) editable: Option<Box<Registration>>,
}
