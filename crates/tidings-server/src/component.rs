//! Components of a hub, such as a bridge, which appear in `/metrics` and `/readyz`. This crate
//! knows them only through [`Component`].

use std::fmt;

/// A component next to the hub. All components of one kind have the same metrics and are
/// distinguished by name.
pub trait Component: fmt::Debug + Send + Sync {
    /// The kind of component, the name of the label of its metrics: `bridge`.
    fn kind(&self) -> &'static str;

    /// The name of this component. It is public and contains no secret.
    fn name(&self) -> String;

    /// Why the component is not healthy, if it is not. The hub is then not ready.
    fn trouble(&self) -> Option<String>;

    /// Its metrics, read at each scrape.
    fn figures(&self) -> Vec<Figure>;
}

/// The value of one metric of a component.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Figure {
    /// The name of the metric in the table of this crate (`metrics/table/components.rs`), which also
    /// describes it. What is not in the table is not shown.
    pub name: &'static str,
    /// The current value; of a counter, since the start of the process.
    pub value: u64,
}

impl Figure {
    /// The value of this metric.
    pub const fn new(name: &'static str, value: u64) -> Self {
        Self { name, value }
    }
}
