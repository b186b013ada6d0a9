//! Building blocks for implementations of logs and clusters in other crates: read plans, floors,
//! locks, cooperative yielding and broadcast.
//!
//! Events are identified by **numbers**, which [`position`] turns into positions. A log assigns
//! them in its order, with or without holes.

pub use crate::{
    cluster::messages::next_message,
    draft::{Audience, FloorDraft, Plan, Private, Reach},
    ledger::floors::Floors,
    lock::lock,
    numbers::{just_before, number, position},
    pace::Pace,
};
