//! Tests of the log in files.

mod compaction;
mod crash;
mod damage;
mod deleting;
mod limits;
mod model;
mod recovery;
mod reopening;
mod simulated;
mod tools;
mod trouble;

use std::sync::Arc;

use tidings_topic::{Event, Matcher, NewEvent, Validator};

use super::*;
use crate::{IdempotencyKey, numbers::position};

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

/// Maintenance does nothing as long as the result is held.
fn busy(log: &SegmentLog) -> impl Sized + '_ {
    crate::lock::lock(&log.0.log.maintaining)
}

/// Names in a directory of a log.
fn is_segment(name: &str) -> bool {
    name.strip_suffix(".log").is_some()
}

fn is_index(name: &str) -> bool {
    name.strip_suffix(".index").is_some()
}

/// Damages the file where it has this text.
fn flip(disk: &simulated::SimulatedDisk, name: &str, text: &str) {
    disk.change(name, |content| {
        let place = content.windows(text.len()).position(|window| window == text.as_bytes());
        content[place.expect("it is there")] ^= 1;
    });
}

fn contains(content: &[u8], text: &str) -> bool {
    content.windows(text.len()).any(|window| window == text.as_bytes())
}
