//! What runs beside a hub and belongs to it, such as a bridge: the operator wants to see it in `/metrics` and `/readyz`, and this crate does not
//! know what it is.

use std::fmt;

/// Something beside the hub. Every component of one kind has the same figures; its name tells it from the others.
pub trait Component: fmt::Debug + Send + Sync {
    /// What it is, as a label of its figures: `bridge`.
    fn kind(&self) -> &'static str;

    /// Which one it is, for anybody to see.
    fn name(&self) -> String;

    /// Why the hub should not be called ready, if there is a reason.
    fn trouble(&self) -> Option<String>;

    /// Its figures, read when they are asked for.
    fn figures(&self) -> Vec<Figure>;
}

/// One figure of a component.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Figure {
    /// Its name, without a prefix and without `_total`.
    pub name: &'static str,
    /// What it says, in a few words.
    pub help: &'static str,
    /// Whether it only grows, since the process started.
    pub is_counter: bool,
    /// How much it is now.
    pub value: u64,
}

impl Figure {
    /// One that only grows.
    pub const fn counter(name: &'static str, help: &'static str, value: u64) -> Self {
        Self { name, help, is_counter: true, value }
    }

    /// One that grows and shrinks.
    pub const fn gauge(name: &'static str, help: &'static str, value: u64) -> Self {
        Self { name, help, is_counter: false, value }
    }
}
