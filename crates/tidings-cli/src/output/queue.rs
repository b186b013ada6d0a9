//! A bounded queue of lines in front of an output, for a process that must not depend on that
//! output.
//!
//! Threads that serve clients add complete lines; one thread for each output writes them.
//! Invariants:
//!
//! - Adding a line never waits for the output and never fails. The lock is held for a copy, never
//!   for a write.
//! - At most [`QUEUE_BYTES_MAX`] bytes wait, and as many again are being written. A line beyond
//!   that is dropped and counted, and so is a line that the output refuses (a full disk, a closed
//!   pipe). The count is reported when a write succeeds again.
//! - The flags of the descriptor are not changed: other processes share it, and `O_NONBLOCK` would
//!   affect them.
//! - Short lines are written complete, in writes of at most [`ATOMIC_BYTES`], so that the lines of
//!   two processes on one pipe, as during an upgrade, do not mix.

use std::{
    io,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

/// Maximum size of lines that wait for an output.
const QUEUE_BYTES_MAX: usize = 1 << 20;
/// The size up to which a write to a pipe is atomic: `PIPE_BUF` of Linux.
const ATOMIC_BYTES: usize = 4096;

/// Where lines go.
pub(crate) trait Output: Sync {
    /// The name of the thread that writes.
    fn name(&self) -> &'static str;

    /// Writes a part of this and returns how much. May block without a limit.
    fn write(&self, bytes: &[u8]) -> io::Result<usize>;

    /// Reports that lines were dropped. Returns whether the report was accepted.
    fn report_dropped(&self, lines: u64) -> bool;
}

/// Lines that wait for an output.
pub(crate) struct Queue<O> {
    output: O,
    state: Mutex<State>,
    added: Condvar,
    written: Condvar,
}

struct State {
    waiting: Vec<u8>,
    is_writing: bool,
    has_writer: bool,
    /// Lines that were dropped and not yet reported.
    dropped: u64,
}

impl<O: Output> Queue<O> {
    pub(crate) const fn new(output: O) -> Self {
        Self {
            output,
            state: Mutex::new(State {
                waiting: Vec::new(),
                is_writing: false,
                has_writer: false,
                dropped: 0,
            }),
            added: Condvar::new(),
            written: Condvar::new(),
        }
    }

    /// Starts the thread that writes. Without it every line is dropped.
    pub(crate) fn start(&'static self) -> io::Result<()> {
        if std::mem::replace(&mut self.lock().has_writer, true) {
            return Ok(());
        }
        let spawned = thread::Builder::new().name(self.output.name().into()).spawn(|| self.write_lines());
        self.lock().has_writer = spawned.is_ok();
        spawned.map(drop)
    }

    /// Whether lines that are added now will be written.
    pub(crate) fn has_writer(&self) -> bool {
        self.lock().has_writer
    }

    /// Adds a line, with or without its line feed, or drops and counts it.
    pub(crate) fn add(&self, line: &[u8]) {
        if !self.try_add(line) {
            self.lock().dropped += 1;
        }
    }

    /// Counts lines that were dropped elsewhere.
    #[cfg(unix)]
    pub(crate) fn count_dropped(&self, lines: u64) {
        self.lock().dropped += lines;
    }

    /// Adds a line if the queue has capacity for it.
    pub(crate) fn try_add(&self, line: &[u8]) -> bool {
        let mut state = self.lock();
        // An empty queue accepts a line of any length.
        let is_full = !state.waiting.is_empty() && state.waiting.len() + line.len() >= QUEUE_BYTES_MAX;
        if is_full || !state.has_writer {
            return false;
        }
        state.waiting.extend_from_slice(line);
        if line.last() != Some(&b'\n') {
            state.waiting.push(b'\n');
        }
        drop(state);
        self.added.notify_one();
        true
    }

    /// Waits until everything is written, but not for longer than this.
    pub(crate) fn flush(&self, patience: Duration) {
        let is_pending = |state: &mut State| state.is_writing || !state.waiting.is_empty();
        let state = self.lock();
        if state.has_writer {
            drop(self.written.wait_timeout_while(state, patience, is_pending));
        }
    }

    /// The thread that writes. It ends with the process.
    fn write_lines(&self) {
        let mut is_mid_line = false;
        loop {
            let mut state = self.lock();
            state.is_writing = false;
            self.written.notify_all();
            state = self
                .added
                .wait_while(state, |state| state.waiting.is_empty())
                .unwrap_or_else(PoisonError::into_inner);
            let lines = std::mem::take(&mut state.waiting);
            state.is_writing = true;
            drop(state);

            let lost = write_whole_lines(&self.output, &lines, &mut is_mid_line);
            let mut state = self.lock();
            state.dropped += lost;
            if lost > 0 || state.dropped == 0 {
                continue;
            }
            let dropped = std::mem::take(&mut state.dropped);
            drop(state);
            if !self.output.report_dropped(dropped) {
                self.lock().dropped += dropped;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `tracing` writes each line in one call.
impl<O: Output> io::Write for &Queue<O> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.add(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes lines until the output refuses one. Returns how many were lost. A line that an earlier
/// error cut is terminated first, so that it does not merge with the next one.
fn write_whole_lines(output: &impl Output, lines: &[u8], is_mid_line: &mut bool) -> u64 {
    if *is_mid_line {
        match write(output, b"\n") {
            Ok(_) => *is_mid_line = false,
            Err(_) => return count_lines(lines),
        }
    }
    let mut rest = lines;
    while !rest.is_empty() {
        match write(output, next_piece(rest)) {
            Ok(count) => {
                *is_mid_line = rest[count - 1] != b'\n';
                rest = &rest[count..];
            }
            Err(_) => return count_lines(rest),
        }
    }
    0
}

/// As many complete lines as fit into one atomic write, at least one.
fn next_piece(lines: &[u8]) -> &[u8] {
    let is_line_feed = |byte: &u8| *byte == b'\n';
    let fitting = &lines[..lines.len().min(ATOMIC_BYTES)];
    let end = fitting.iter().rposition(is_line_feed).or_else(|| lines.iter().position(is_line_feed));
    end.map_or(lines, |end| &lines[..=end])
}

fn write(output: &impl Output, bytes: &[u8]) -> io::Result<usize> {
    loop {
        match output.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

fn count_lines(lines: &[u8]) -> u64 {
    lines.split_inclusive(|byte| *byte == b'\n').count() as u64
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, mpsc};

    use super::*;

    /// An output controlled by the test: each write waits for its result.
    struct Scripted {
        results: Mutex<mpsc::Receiver<io::Result<usize>>>,
        written: Arc<Mutex<Vec<u8>>>,
        reports: mpsc::Sender<u64>,
    }

    struct Script {
        queue: &'static Queue<Scripted>,
        results: mpsc::Sender<io::Result<usize>>,
        written: Arc<Mutex<Vec<u8>>>,
        reports: mpsc::Receiver<u64>,
    }

    impl Output for Scripted {
        fn name(&self) -> &'static str {
            "scripted"
        }

        fn write(&self, bytes: &[u8]) -> io::Result<usize> {
            let result = self.results.lock().unwrap().recv();
            let count = result.unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into()))?.min(bytes.len());
            self.written.lock().unwrap().extend_from_slice(&bytes[..count]);
            Ok(count)
        }

        fn report_dropped(&self, lines: u64) -> bool {
            self.reports.send(lines).is_ok()
        }
    }

    impl Script {
        fn start() -> Self {
            let (results, receiver) = mpsc::channel();
            let (sender, reports) = mpsc::channel();
            let written = Arc::<Mutex<Vec<u8>>>::default();
            let output =
                Scripted { results: Mutex::new(receiver), written: Arc::clone(&written), reports: sender };
            // The writing thread runs as long as the process, and so does the queue.
            let queue: &'static Queue<Scripted> = Box::leak(Box::new(Queue::new(output)));
            queue.start().unwrap();
            Self { queue, results, written, reports }
        }

        /// Permits a write of so many bytes.
        fn permit(&self, count: usize) {
            self.results.send(Ok(count)).unwrap();
        }

        fn fail(&self) {
            self.results.send(Err(io::ErrorKind::StorageFull.into())).unwrap();
        }

        fn written(&self) -> String {
            self.queue.flush(Duration::from_secs(30));
            String::from_utf8(self.written.lock().unwrap().clone()).unwrap()
        }
    }

    #[test]
    fn a_blocked_output_takes_bounded_memory_and_the_loss_is_reported() {
        let script = Script::start();
        let line = [b'x'; 1000];
        for _ in 0..10_000 {
            script.queue.add(&line);
        }
        for _ in 0..10_000 {
            script.permit(usize::MAX);
        }
        let written = script.written().lines().count();
        // One more write may already be in progress.
        assert!(written <= 2 * QUEUE_BYTES_MAX / line.len(), "{written}");
        assert_eq!(script.reports.recv().unwrap(), 10_000 - written as u64);
    }

    #[test]
    fn refused_lines_are_counted_and_a_cut_line_is_terminated() {
        let script = Script::start();
        script.permit(2);
        script.fail();
        script.queue.add(b"first");
        assert_eq!(script.written(), "fi");
        script.fail();
        script.queue.add(b"second\n");
        assert_eq!(script.written(), "fi");
        for _ in 0..2 {
            script.permit(usize::MAX);
        }
        script.queue.add(b"third");
        assert_eq!(script.written(), "fi\nthird\n");
        assert_eq!(script.reports.recv().unwrap(), 2);
    }

    #[test]
    fn a_flush_does_not_wait_forever() {
        let script = Script::start();
        script.queue.add(b"stuck");
        script.queue.flush(Duration::from_millis(1));
        assert!(script.written.lock().unwrap().is_empty());
        script.permit(usize::MAX);
        assert_eq!(script.written(), "stuck\n");
    }

    #[test]
    fn lines_are_written_complete_and_in_short_pieces() {
        let long = format!("{}\n", "x".repeat(ATOMIC_BYTES));
        assert_eq!(next_piece(b"a\nb\n"), b"a\nb\n");
        assert_eq!(next_piece(format!("a\n{long}").as_bytes()), b"a\n");
        assert_eq!(next_piece(format!("{long}a\n").as_bytes()), long.as_bytes());
        let many = "0123456\n".repeat(ATOMIC_BYTES);
        assert_eq!(next_piece(many.as_bytes()).len(), ATOMIC_BYTES);
    }

    #[test]
    fn lines_are_dropped_without_a_thread() {
        let (_results, receiver) = mpsc::channel();
        let output =
            Scripted { results: Mutex::new(receiver), written: Arc::default(), reports: mpsc::channel().0 };
        let queue = Queue::new(output);
        assert!(!queue.try_add(b"lost"));
    }
}
