//! The progress of a measurement, as a line on standard error if that is a terminal.

use std::{
    io::{self, IsTerminal, Write},
    time::{Duration, Instant},
};

/// The minimum interval of updates: the terminal must not affect the measurement.
const REDRAW: Duration = Duration::from_millis(200);
const WIDTH: u64 = 30;

/// Shows how far a measurement is.
#[derive(Debug)]
pub struct Progress {
    visible: bool,
    label: String,
    what: String,
    drawn: Option<Instant>,
}

impl Progress {
    /// A bar on standard error if that is a terminal.
    pub fn on_terminal() -> Self {
        Self::new(io::stderr().is_terminal())
    }

    /// Shows nothing.
    pub fn hidden() -> Self {
        Self::new(false)
    }

    fn new(visible: bool) -> Self {
        Self { visible, label: String::new(), what: String::new(), drawn: None }
    }

    pub(crate) fn label(&mut self, label: &str) {
        label.clone_into(&mut self.label);
    }

    pub(crate) fn begin(&mut self, what: &str) {
        what.clone_into(&mut self.what);
        self.drawn = None;
    }

    pub(crate) fn show(&mut self, done: u64, of: u64) {
        if !self.visible || self.drawn.is_some_and(|drawn| drawn.elapsed() < REDRAW) {
            return;
        }
        self.drawn = Some(Instant::now());
        let full = done * WIDTH / of.max(1);
        let bar: String = (0..WIDTH).map(|place| if place < full { '█' } else { '░' }).collect();
        // A closed terminal does no harm.
        write!(io::stderr(), "\r\x1b[K{} {bar} {} {done}/{of}", self.label, self.what).ok();
    }

    /// Clears the line.
    pub(crate) fn clear(&mut self) {
        if self.visible && self.drawn.take().is_some() {
            write!(io::stderr(), "\r\x1b[K").ok();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}
