//! Components of a hub, such as a bridge, which appear in `/metrics` and `/readyz`. This crate
//! knows them only through [`Component`].

use std::fmt;

/// A component next to the hub. All components of one kind have the same metrics and are
/// distinguished by name.
pub trait Component: fmt::Debug + Send + Sync {
    /// The kind of component, used in names and labels of its metrics: `bridge`.
    fn kind(&self) -> &'static str;

    /// The name of this component. It is public and contains no secret.
    fn name(&self) -> String;

    /// Why the component is not healthy, if it is not. The hub is then not ready.
    fn trouble(&self) -> Option<String>;

    /// Its metrics, read at each scrape.
    fn figures(&self) -> Vec<Figure>;
}

/// One metric of a component.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Figure {
    /// The name, without prefix and without `_total`.
    pub name: &'static str,
    /// The help text, a few words.
    pub help: &'static str,
    /// Whether it is a counter, from the start of the process.
    pub is_counter: bool,
    /// The current value.
    pub value: u64,
}

impl Figure {
    /// A counter.
    pub const fn counter(name: &'static str, help: &'static str, value: u64) -> Self {
        Self { name, help, is_counter: true, value }
    }

    /// A gauge.
    pub const fn gauge(name: &'static str, help: &'static str, value: u64) -> Self {
        Self { name, help, is_counter: false, value }
    }
}
