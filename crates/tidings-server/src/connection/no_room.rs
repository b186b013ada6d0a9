//! Connections that find no room: where all places are taken, or no file is left for one more.
//!
//! Each is served one request, which is marked with [`NoRoom`]: who asks for the hub's health is answered, and a browser receives when to come
//! back instead of an error that it would not come back from. That takes little and cannot last: there are [`FAREWELLS_MAX`] at a time, which
//! keep nothing, and [`FAREWELL_TIME_MAX`] is the end of each. The one that comes beyond them waits in the kernel's queue. Few of
//! them may be waited for with their heads, so that silent ones do not hold up those who have something to ask.

use std::{sync::Arc, time::Duration};

use super::{Admission, Driver};
use crate::head::HeadLimits;

/// Most connections without room that are served at a time.
pub(crate) const FAREWELLS_MAX: usize = 16;
/// Of these, most whose heads are still waited for. One more, and the address that has the most of them loses its oldest.
const FAREWELL_HEADS_MAX: usize = 8;
/// How long the head of one is waited for.
const FAREWELL_HEAD_TIME: Duration = Duration::from_secs(2);
/// How long one lasts, whatever it asks and however slowly it listens.
pub(super) const FAREWELL_TIME_MAX: Duration = Duration::from_secs(5);

/// In the extensions of a request: its connection found no room and ends with the answer. [`serve`](crate::serve) puts it there; a service
/// that knows it answers at once and keeps nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoRoom;

impl<S: Clone> Driver<S> {
    /// The same for connections without room.
    pub(super) fn without_room(&self) -> Self {
        let mut driver = self.clone();
        driver.has_room = false;
        driver.raw_streams = false;
        driver.limits = HeadLimits {
            first_byte: self.limits.first_byte.min(FAREWELL_HEAD_TIME),
            head: self.limits.head.min(FAREWELL_HEAD_TIME),
            ..self.limits
        };
        driver.admission = Arc::new(Admission::with_limits(FAREWELL_HEADS_MAX, FAREWELLS_MAX));
        driver
    }
}
