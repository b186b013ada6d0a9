//! Connections beyond the capacity: all permits are taken, or no file descriptor is left.
//!
//! Each is served one request, which is marked with [`NoCapacity`]: health checks are answered, and a
//! browser receives a `retry` time instead of an error after which it would not reconnect. The cost
//! is bounded: there are at most [`REJECTED_MAX`] at a time, which hold nothing else, and each ends
//! after [`REJECTED_TIME_MAX`]. Further connections wait in the kernel's queue. Only a few may have
//! incomplete request headers, so that silent connections do not delay those that send a request.

use std::time::Duration;

/// Most rejected connections that are served at a time.
pub(crate) const REJECTED_MAX: usize = 16;
/// Of these, most whose request headers are incomplete. One more, and the address that has the most
/// of them loses its oldest.
pub(super) const REJECTED_INCOMPLETE_MAX: usize = 8;
/// How long the request headers of one are waited for.
pub(super) const REJECTED_HEADERS_TIME: Duration = Duration::from_secs(2);
/// How long one lasts, whatever it requests and however slowly it reads.
pub(super) const REJECTED_TIME_MAX: Duration = Duration::from_secs(5);

/// In the extensions of a request: its connection found no capacity and ends with the response.
/// [`serve`](crate::serve) puts it there; a service that knows it answers at once and keeps
/// nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoCapacity;
