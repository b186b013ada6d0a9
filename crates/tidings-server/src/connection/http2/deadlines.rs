//! When the client of an HTTP/2 connection takes too long, and for what: the next request, the rest
//! of a header list, a response.
//!
//! A connection has one timer. While nothing is open, it stands for the end of that time; otherwise
//! for the next check of what is open ([`Deadlines::is_late`]), which comes often enough to find a
//! client that reads nothing within one and a half times of what it is given.

use std::{
    pin::Pin,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

use super::{
    super::{
        admission::{Awaited, Wait},
        driver::Shared,
        linger::LINGER_SECS,
    },
    streams::{ReadLimits, Streams},
    wire::Wire,
};
use crate::{
    client_address::Neighbourhood,
    http1::{Lateness, Refusal},
};

/// How long a client may take to receive that a connection ends.
pub(super) const CLOSING_TIME: Duration = Duration::from_secs(LINGER_SECS);

/// See the module's documentation.
pub(super) struct Deadlines {
    driver: Arc<Shared>,
    address: Option<Neighbourhood>,
    is_closing: bool,
    idle_since: Option<Instant>,
    checked_at: Instant,
    waited_for: Option<Wait>,
    timer: Pin<Box<Sleep>>,
}

/// What is due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Due {
    /// Nothing is open for too long, or others need the capacity: send that this is the end.
    Close,
    /// That was sent, and not received.
    End,
    /// A check of what is open.
    Check,
}

impl Deadlines {
    pub(super) fn new(driver: Arc<Shared>, address: Option<Neighbourhood>) -> Self {
        let now = Instant::now();
        Self {
            address,
            is_closing: false,
            idle_since: None,
            checked_at: now,
            waited_for: None,
            timer: Box::pin(sleep_until(now + driver.limits.keep_alive)),
            driver,
        }
    }

    pub(super) fn is_closing(&self) -> bool {
        self.is_closing
    }

    /// Whether the requests that have arrived are the last ones: who found no capacity has asked
    /// when there is something to respond to.
    pub(super) fn is_last(&self, has_arrivals: bool) -> bool {
        has_arrivals && !self.driver.has_capacity
    }

    /// The client is being notified that this is the end.
    pub(super) fn close(&mut self) {
        self.is_closing = true;
        self.wait_for_nothing();
    }

    /// Something is open, or was: it may be done before the connection is looked at again.
    pub(super) fn wait_for_nothing(&mut self) {
        self.idle_since = None;
        self.waited_for = None;
    }

    /// Checks what is open. True if the connection has to end; responses that can be aborted by
    /// themselves are.
    pub(super) fn is_late<IO>(&self, wire: &Wire<IO>, streams: &mut Streams) -> bool {
        let now = Instant::now();
        let Shared { dead_peer, response_time, limits, metrics, .. } = &*self.driver;
        let reading = ReadLimits { silence: *dead_peer, response: *response_time };
        let (cut, ends) = streams.cut_slow(now, reading);
        metrics.closed_slow.fetch_add((cut + ends) as u64, Relaxed);
        let is_late = wire.waits_for_fields(now, limits.headers);
        if is_late {
            metrics.count_refusal(Refusal::HeadersLate);
        }
        is_late || ends > 0
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>, is_idle: bool) -> Poll<Due> {
        if !is_idle {
            self.wait_for_nothing();
        } else if self.idle_since.is_none() {
            self.idle_since = Some(Instant::now());
        }
        if is_idle && self.is_given_up(cx) {
            return Poll::Ready(self.close_idle());
        }
        loop {
            let due = match self.idle_since {
                Some(since) if self.is_closing => since + CLOSING_TIME,
                Some(since) => since + self.driver.limits.keep_alive,
                None => self.checked_at + self.check_interval(),
            };
            // Left armed for an earlier time: that is one wake-up more, where arming it anew would
            // cost something in every request.
            if self.timer.deadline() > due {
                self.timer.as_mut().reset(due);
            }
            ready!(self.timer.as_mut().poll(cx));
            let now = Instant::now();
            if now < due {
                self.timer.as_mut().reset(due);
                continue;
            }
            return Poll::Ready(match self.idle_since {
                None => {
                    self.checked_at = now;
                    Due::Check
                }
                Some(_) if self.is_closing => Due::End,
                Some(_) => self.close_idle(),
            });
        }
    }

    fn check_interval(&self) -> Duration {
        (self.driver.dead_peer.min(self.driver.response_time) / 2).max(Duration::from_secs(1))
    }

    fn close_idle(&self) -> Due {
        self.driver.metrics.count_lateness(Lateness::Idle);
        Due::Close
    }

    /// Whether others need the capacity of a connection that has nothing open.
    fn is_given_up(&mut self, cx: &Context<'_>) -> bool {
        if self.is_closing {
            return false;
        }
        let Self { driver, address, waited_for, .. } = self;
        let waited_for =
            waited_for.get_or_insert_with(|| driver.admission.wait_for(Awaited::Request, *address));
        waited_for.is_given_up(cx)
    }
}
