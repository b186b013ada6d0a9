//! Parts of a log, for those who build one in another crate: what a filter can look up, who missed what is gone, and how often reading gives
//! other tasks their turn.
//!
//! They count in **numbers**, of which [`position`] makes the position: a log gives them out in its order, with or without holes between them.

pub use crate::{
    draft::{Audience, FloorDraft, Plan, Private, Reach},
    ledger::{floors::Floors, just_before, number, position},
    pace::Pace,
};
