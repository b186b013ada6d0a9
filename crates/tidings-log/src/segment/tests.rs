//! Tests of the log in files.

mod compaction;
mod crash;
mod damage;
mod deleting;
mod limits;
mod model;
mod reopening;
mod simulated;
mod tools;
mod trouble;

use std::sync::Arc;

use tidings_topic::{Event, Matcher, NewEvent, Validator};

use super::*;
use crate::{IdempotencyKey, MemoryLimits, numbers::position};

async fn make(limits: MemoryLimits, clock: Option<Clock>) -> Option<Arc<dyn Log>> {
    let directory = tempfile::tempdir().expect("a directory");
    let settings = SegmentSettings {
        sync: SyncLevel::Never,
        bytes_max: limits.bytes_max,
        count_max: limits.count_max,
        age_max: limits.age_max,
        keys_max: limits.keys_max,
        ..SegmentSettings::default()
    };
    let (disk, lock) = RealDisk::open(directory.path()).expect("a directory");
    let held = Box::new((lock, directory));
    let clock = clock.unwrap_or_default();
    let log = SegmentLog::open_on(Arc::new(disk), held, settings, clock).expect("a fresh log");
    Some(Arc::new(log))
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
