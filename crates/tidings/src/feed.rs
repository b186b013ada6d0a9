//! From the tail of the log to bytes that are ready to be sent, in this order: the [`fan_out`] task
//! follows the log, [`feeds`] finds the feeds of an event, [`encode`] writes it, [`frames`] holds what
//! is written, and a [`feed`] hands it to its readers. [`place`] says where something is in there.

pub(crate) mod encode;
pub(crate) mod fan_out;
#[expect(clippy::module_inception, reason = "the folder is named after what is in it")]
pub(crate) mod feed;
pub(crate) mod feeds;
pub(crate) mod frames;
pub(crate) mod place;
pub(crate) mod sampling;
