//! What every cluster promises, on a real nats-server: two nodes with a connection each.
//!
//! Needs: nats-server.

mod support;

use support::Fresh;

tidings_log_conformance::cluster_conformance!(nats, Fresh::new());
