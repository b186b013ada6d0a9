//! Parts of a log, for those who build one in another crate: what a filter can look up, and who missed what is gone.
//!
//! They count in **numbers**, of which [`position`] makes the position: a log gives them out in its order, with or without holes between them.

pub use crate::{
    draft::{Audience, FloorDraft, Plan, Private, Reach},
    ledger::{floors::Floors, just_before, number, position},
};
