//! Building blocks for log implementations in other crates: read plans, floors, locks and
//! cooperative yielding.
//!
//! Events are identified by **numbers**, which [`position`] turns into positions. A log assigns
//! them in its order, with or without holes.

pub use crate::{
    draft::{Audience, FloorDraft, Plan, Private, Reach},
    ledger::floors::Floors,
    lock::lock,
    numbers::{just_before, number, position},
    pace::Pace,
};
