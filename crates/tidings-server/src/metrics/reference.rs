//! The reference of the metrics, in Markdown, made of the table.

use std::fmt::{self, Write};

use super::{
    metric::{Metric, Reading},
    table::SECTIONS,
};

/// All metrics of a hub in Markdown, a section for each part of the hub: names, types, labels with
/// all their values, what they measure, and what to do with them.
pub fn metrics_reference() -> String {
    let mut page = String::new();
    for (title, metrics) in SECTIONS {
        write!(page, "## {title}\n\n").expect("a string grows");
        for metric in *metrics {
            write!(page, "{metric}\n\n").expect("a string grows");
        }
    }
    page
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "### {}\n\n{}", self.name, self.kind().as_str())?;
        if let Reading::Component(label) = self.reading {
            write!(f, "; `{label}`")?;
        }
        for label in self.labels() {
            write!(f, "; `{}`", label.name)?;
            // The only value of a label is one of this build, such as its version.
            if let [first, others @ ..] = label.values
                && !others.is_empty()
            {
                write!(f, ": `{first}`")?;
                others.iter().try_for_each(|value| write!(f, ", `{value}`"))?;
            }
        }
        write!(f, "\n\n{}.\n{}", self.help, self.action)
    }
}
