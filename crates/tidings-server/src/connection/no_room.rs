//! Connections beyond the capacity: all permits are taken, or no file descriptor is left.
//!
//! Each is served one request, which is marked with [`NoRoom`]: health checks are answered, and a
//! browser receives a `retry` time instead of an error after which it would not reconnect. The cost
//! is bounded: there are at most [`REJECTED_MAX`] at a time, which hold nothing else, and each ends
//! after [`REJECTED_TIME_MAX`]. Further connections wait in the kernel's queue. Only a few may have
//! incomplete request headers, so that silent connections do not delay those that send a request.

use std::{sync::Arc, time::Duration};

use super::{Admission, Driver};
use crate::head::HeadLimits;

/// Most connections without room that are served at a time.
pub(crate) const REJECTED_MAX: usize = 16;
/// Of these, most whose heads are still waited for. One more, and the address that has the most of
/// them loses its oldest.
const REJECTED_HEADS_MAX: usize = 8;
/// How long the head of one is waited for.
const REJECTED_HEAD_TIME: Duration = Duration::from_secs(2);
/// How long one lasts, whatever it asks and however slowly it listens.
pub(super) const REJECTED_TIME_MAX: Duration = Duration::from_secs(5);

/// In the extensions of a request: its connection found no room and ends with the answer.
/// [`serve`](crate::serve) puts it there; a service that knows it answers at once and keeps
/// nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoRoom;

impl<S: Clone> Driver<S> {
    /// The same for connections without room.
    pub(super) fn without_room(&self) -> Self {
        let mut driver = self.clone();
        driver.has_room = false;
        driver.raw_streams = false;
        driver.limits = HeadLimits {
            first_byte: self.limits.first_byte.min(REJECTED_HEAD_TIME),
            head: self.limits.head.min(REJECTED_HEAD_TIME),
            ..self.limits
        };
        driver.admission = Arc::new(Admission::with_limits(REJECTED_HEADS_MAX, REJECTED_MAX));
        driver
    }
}
