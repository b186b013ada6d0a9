//! What every log promises, on a real nats-server.
//!
//! Needs: nats-server.

mod support;

use support::Fresh;

tidings_log_conformance::conformance!(with_events_at_hand, Fresh::new());
tidings_log_conformance::conformance!(with_nothing_at_hand, Fresh::with_nothing_at_hand());
