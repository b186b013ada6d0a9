//! How many events were delivered, and how many bytes.

use std::{
    ops::AddAssign,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
};

/// Cells of a counter. Threads beyond share them.
const CELLS: usize = 16;

/// Events and bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Delivered {
    /// Events whose last byte was handed over, each once for every subscriber.
    pub(crate) events: u64,
    /// Everything that was handed over for streams.
    pub(crate) bytes: u64,
}

impl AddAssign for Delivered {
    fn add_assign(&mut self, more: Self) {
        self.events += more.events;
        self.bytes += more.bytes;
    }
}

/// Counts deliveries. Each thread has a cell, so that threads do not wait for each other's caches.
#[derive(Debug, Default)]
pub(crate) struct Deliveries([Cell; CELLS]);

#[derive(Debug, Default)]
#[repr(align(128))]
struct Cell {
    events: AtomicU64,
    bytes: AtomicU64,
}

impl Deliveries {
    pub(crate) fn add(&self, delivered: Delivered) {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static OF_THIS_THREAD: usize = NEXT.fetch_add(1, Ordering::Relaxed) % CELLS;
        }
        // A thread that ends has no such number any more.
        let cell = &self.0[OF_THIS_THREAD.try_with(|number| *number).unwrap_or_default()];
        // Relaxed is enough: these count and order nothing else.
        cell.events.fetch_add(delivered.events, Ordering::Relaxed);
        cell.bytes.fetch_add(delivered.bytes, Ordering::Relaxed);
    }

    pub(crate) fn total(&self) -> Delivered {
        let mut total = Delivered::default();
        for cell in &self.0 {
            let (events, bytes) = (cell.events.load(Ordering::Relaxed), cell.bytes.load(Ordering::Relaxed));
            total += Delivered { events, bytes };
        }
        total
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn what_all_threads_add_is_counted() {
        let deliveries = Deliveries::default();
        thread::scope(|scope| {
            for _ in 0..2 * CELLS {
                scope.spawn(|| {
                    for _ in 0..1_000 {
                        deliveries.add(Delivered { events: 1, bytes: 10 });
                    }
                });
            }
        });
        let events = 2_000 * CELLS as u64;
        assert_eq!(deliveries.total(), Delivered { events, bytes: 10 * events });
    }
}
