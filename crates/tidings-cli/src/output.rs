//! The output of the program, of two kinds.
//!
//! **Results** ([`print_line`]): the output of a command such as `publish` or `key new` is its
//! purpose. If it cannot be written, the command fails, unless the reader has closed it, as `head`
//! does.
//!
//! **Messages** of a hub ([`STDERR`], [`STDOUT`]): its log, the events that `-v` prints, its
//! banner, panics, the reason why it ends. Serving clients matters more, so messages are best
//! effort: they never block or end the process and never change its exit status ([`queue`]).

mod queue;

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    cell::Cell,
    io::{self, IsTerminal, Write},
    panic,
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use serde_json::json;

use self::queue::{Output, Queue};
use crate::{config::LogFormat, failure::Failure};

/// Where the log of a hub goes.
pub(crate) static STDERR: Queue<Descriptor> = Queue::new(Descriptor::Stderr);
/// Where a hub prints events and its banner.
pub(crate) static STDOUT: Queue<Descriptor> = Queue::new(Descriptor::Stdout);

/// How long an ending process waits for its outputs: long enough for the thread that writes them to
/// get its turn on an overloaded machine. In an upgrade the new process may wait for that end.
const FLUSH_TIME_MAX: Duration = Duration::from_secs(1);

/// Whether messages are JSON objects, one a line.
static IS_JSON: AtomicBool = AtomicBool::new(false);

/// Sets the format of messages.
pub(crate) fn set_format(format: LogFormat) {
    IS_JSON.store(format == LogFormat::Json, Relaxed);
}

/// Prints a line of a result. If the reader has closed the output, as `head` does, the program ends
/// without an error.
pub(crate) fn print_line(line: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}").and_then(|()| stdout.flush()).map_err(|error| output_error(&error))
}

/// Why a result could not be written.
pub(crate) fn output_error(error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::OutputClosed,
        _ => Failure::runtime(format!("cannot write to standard output: {error}")),
    }
}

/// Prints text of other origin. A terminal would execute control characters, so it gets them
/// escaped.
pub(crate) fn print_foreign(text: &str) -> Result<(), Failure> {
    if io::stdout().is_terminal() { print_line(&harmless(text)) } else { print_line(text) }
}

/// The text with control characters escaped, except line feeds and tabs.
pub(crate) fn harmless(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() && !matches!(character, '\n' | '\t') {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

/// Prints a message of a command to standard error. If it cannot be written, the command continues.
pub(crate) fn remark(line: &str) {
    if STDERR.has_writer() {
        STDERR.add(line.as_bytes());
    } else {
        let _ = writeln!(io::stderr(), "{line}");
    }
}

/// Reports why the program ends, and returns its exit code.
pub(crate) fn report_failure(failure: &Failure) -> ExitCode {
    let code = ExitCode::from(failure.exit_code());
    if matches!(failure, Failure::OutputClosed) {
        return code;
    }
    // The exit must not wait for a reader of this message. If no thread can start, it is written
    // directly.
    let _ = STDERR.start();
    if IS_JSON.load(Relaxed) {
        remark(&message_line("ERROR", &failure.to_string()));
    } else {
        remark(&format!("error: {failure}"));
    }
    code
}

thread_local! {
    static IS_QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Runs something without reporting its panic, which the caller handles.
pub(crate) fn quietly<T>(something: impl FnOnce() -> T) -> T {
    IS_QUIET.set(true);
    let done = something();
    IS_QUIET.set(false);
    done
}

/// Reports panics as messages: the standard library would block a thread that serves while it
/// writes them.
pub(crate) fn report_panics() {
    panic::set_hook(Box::new(|panic| {
        if IS_QUIET.get() {
            return;
        }
        let thread = thread::current();
        let mut message =
            format!("thread {} {}", thread.name().unwrap_or("without a name"), panic).replace('\n', " ");
        let backtrace = Backtrace::capture();
        if backtrace.status() == BacktraceStatus::Captured {
            message = format!("{message}\n{backtrace}");
        }
        remark(&message_line("ERROR", &message));
    }));
}

/// Waits briefly for messages that are not written yet. Call it last.
pub(crate) fn flush() {
    let deadline = Instant::now() + FLUSH_TIME_MAX;
    for queue in [&STDERR, &STDOUT] {
        queue.flush(deadline.saturating_duration_since(Instant::now()));
    }
}

/// Completes when standard output has no reader any more. For a file or an open terminal that is
/// never.
#[cfg(unix)]
pub(crate) async fn reader_gone() {
    use rustix::event::{PollFd, PollFlags, poll};
    let (sender, gone) = tokio::sync::oneshot::channel();
    let watched = thread::Builder::new().name("reader-gone".into()).spawn(move || {
        // Without flags of its own, poll(2) reports nothing but POLLERR and POLLHUP.
        let stdout = rustix::stdio::stdout();
        while poll(&mut [PollFd::new(&stdout, PollFlags::empty())], None) == Err(rustix::io::Errno::INTR) {}
        let _ = sender.send(());
    });
    // If no thread can start, the next write fails.
    if watched.is_err() || gone.await.is_err() {
        std::future::pending::<()>().await;
    }
}

#[cfg(not(unix))]
pub(crate) async fn reader_gone() {
    std::future::pending().await
}

/// A line in the format of the log, for messages that `RUST_LOG` must not filter.
fn message_line(level: &str, message: &str) -> String {
    let now = format!("{:.6}", jiff::Timestamp::now());
    if IS_JSON.load(Relaxed) {
        let fields = json!({ "message": message });
        json!({ "timestamp": now, "level": level, "fields": fields, "target": "tidings" }).to_string()
    } else {
        format!("{now} {level:>5} tidings: {message}")
    }
}

/// The standard output descriptors.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Descriptor {
    Stdout,
    Stderr,
}

#[cfg(unix)]
impl Descriptor {
    pub(crate) fn is_terminal(self) -> bool {
        match self {
            Self::Stdout => io::stdout().is_terminal(),
            Self::Stderr => io::stderr().is_terminal(),
        }
    }

    /// Adds a line of the application that `tidings run` runs, if there is capacity for it.
    pub(crate) fn try_add_of_application(self, line: &str) -> bool {
        self.queue().try_add(application_line(line).as_bytes())
    }

    /// Counts lines that were dropped before they were added.
    pub(crate) fn count_dropped(self, lines: u64) {
        self.queue().count_dropped(lines);
    }

    fn queue(self) -> &'static Queue<Self> {
        match self {
            Self::Stdout => &STDOUT,
            Self::Stderr => &STDERR,
        }
    }
}

/// A line that an application has printed, which differs from those of the hub.
#[cfg(unix)]
fn application_line(line: &str) -> String {
    if !IS_JSON.load(Relaxed) {
        return format!("app | {line}");
    }
    let now = format!("{:.6}", jiff::Timestamp::now());
    json!({ "timestamp": now, "level": "INFO", "fields": { "message": line }, "target": "app" }).to_string()
}

impl Output for Descriptor {
    fn name(&self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }

    /// Bypasses the buffers and locks of the standard library, so that a blocked write holds none
    /// of them.
    #[cfg(unix)]
    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        use rustix::{
            event::{PollFd, PollFlags, poll},
            io::Errno,
        };
        let descriptor = match self {
            Self::Stdout => rustix::stdio::stdout(),
            Self::Stderr => rustix::stdio::stderr(),
        };
        loop {
            match rustix::io::write(descriptor, bytes) {
                // Another process that shares this pipe made it non-blocking.
                Err(Errno::AGAIN) => {
                    poll(&mut [PollFd::new(&descriptor, PollFlags::OUT)], None)?;
                }
                done => return Ok(done?),
            }
        }
    }

    #[cfg(not(unix))]
    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Stdout => io::stdout().write(bytes),
            Self::Stderr => io::stderr().write(bytes),
        }
    }

    fn report_dropped(&self, lines: u64) -> bool {
        let name = match self {
            Self::Stdout => "standard output",
            Self::Stderr => "standard error",
        };
        let message =
            format!("{lines} lines for {name} were dropped: they could not be written, or not fast enough");
        STDERR.try_add(message_line("WARN", &message).as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(harmless("a\tb\nc é"), "a\tb\nc é");
        assert_eq!(harmless("\u{1b}[2J\r\u{9b}x"), "\\u{1b}[2J\\r\\u{9b}x");
    }
}
