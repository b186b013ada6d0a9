//! Tests of the log in files.

mod compaction;
mod crash;
mod damage;
mod deleting;
mod model;
mod reopening;
mod simulated;
mod tools;
mod trouble;

use std::sync::Arc;

use tidings_topic::{Event, Matcher, NewEvent, Validator};

use super::*;
use crate::{
    IdempotencyKey,
    conformance::{Abilities, Subject, Wanted},
};

async fn make(wanted: Wanted) -> Subject {
    let directory = tempfile::tempdir().expect("a directory");
    let default = SegmentSettings::default();
    let settings = SegmentSettings {
        sync: SyncLevel::Never,
        bytes_max: wanted.bytes_max.unwrap_or(default.bytes_max),
        count_max: wanted.count_max,
        age_max: wanted.age_max,
        keys_max: wanted.keys_max.unwrap_or(default.keys_max),
        ..default
    };
    let (disk, lock) = RealDisk::open(directory.path()).expect("a directory");
    let held = Box::new((lock, directory));
    let log = SegmentLog::open_on(Arc::new(disk), held, settings, wanted.clock).expect("a fresh log");
    Subject { log: Arc::new(log), abilities: Abilities::ALL }
}

crate::conformance!(conformance, make);

fn event(topic: &str, data: &str) -> Event {
    Validator::default().event(NewEvent::new(topic, data)).expect("a valid event")
}

fn everything() -> Filter {
    Filter { matchers: vec![Matcher::Any], grants: Grants::all() }
}

fn exact(topic: &str) -> Filter {
    let topic = Validator::default().exact(topic).expect("a topic");
    Filter { matchers: vec![topic], grants: Grants::NONE }
}

/// Small segments and little memory, so that a few events come to all places that there are.
fn small() -> SegmentSettings {
    SegmentSettings {
        age_max: None,
        segment_bytes: Some(4_000),
        recent_bytes_max: 1_000,
        ..SegmentSettings::default()
    }
}

/// Names in a directory of a log.
fn is_segment(name: &str) -> bool {
    name.strip_suffix(".log").is_some()
}

fn is_index(name: &str) -> bool {
    name.strip_suffix(".index").is_some()
}
