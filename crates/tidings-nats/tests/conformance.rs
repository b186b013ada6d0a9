//! What every log promises, on a real nats-server.

mod support;

use std::sync::Arc;

use tidings_log::conformance::{Abilities, Subject, Wanted};
use tidings_nats::NatsSettings;

use support::{WithServer, connect, fresh_address, shared_server};

/// Time is the server's, and so is the window of keys.
const ABILITIES: Abilities = Abilities { bounds: true, clock: false, keys: false };

fn settings(wanted: &Wanted) -> NatsSettings {
    let default = NatsSettings::default();
    // The server sets aside what a stream may need, and there are many.
    let bytes_max = wanted.bytes_max.unwrap_or(16 << 20);
    NatsSettings { bytes_max, count_max: wanted.count_max, age_max: wanted.age_max, ..default }
}

async fn make(wanted: Wanted) -> Subject {
    let server = shared_server();
    let nats = connect(&fresh_address(&server), settings(&wanted)).await;
    let log = nats.log().await.expect("the log opens");
    Subject { log: Arc::new(WithServer { log, server }), abilities: ABILITIES }
}

tidings_log::conformance!(with_events_at_hand, make);

/// Everything has to be fetched from the stream.
async fn make_without_events_at_hand(wanted: Wanted) -> Subject {
    let server = shared_server();
    let settings = NatsSettings { recent_bytes_max: 0, ..settings(&wanted) };
    let nats = connect(&fresh_address(&server), settings).await;
    let log = nats.log().await.expect("the log opens");
    Subject { log: Arc::new(WithServer { log, server }), abilities: ABILITIES }
}

tidings_log::conformance!(with_nothing_at_hand, make_without_events_at_hand);
