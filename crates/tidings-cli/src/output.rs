//! What the program prints, of two kinds.
//!
//! **Results** ([`print_line`]): a command such as `publish` or `key new` exists for what it prints. If that cannot be
//! written, the command has failed, unless its reader had enough, as `head` has.
//!
//! **Messages** of a hub ([`STDERR`], [`STDOUT`]): its log, the events that `-v` prints, its banner, panics, the reason
//! why it ends. Clients are worth more than any of them, so they are best effort: they never block or end the process
//! and never change its exit status ([`queue`]).

mod queue;

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    cell::Cell,
    io::{self, IsTerminal, Write},
    panic,
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

/// How long a process that ends waits for its outputs. A new process may be waiting for that end in an upgrade.
const FLUSH_TIME_MAX: Duration = Duration::from_millis(250);

/// Whether messages are JSON objects, one a line.
static IS_JSON: AtomicBool = AtomicBool::new(false);

/// From now on messages have this format.
pub(crate) fn set_format(format: LogFormat) {
    IS_JSON.store(format == LogFormat::Json, Relaxed);
}

/// Prints a line of a result. A reader that has gone, as `head` does after enough, ends the program quietly.
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

/// Prints what somebody else wrote. To a terminal, control characters would be commands; they are shown instead.
pub(crate) fn print_foreign(text: &str) -> Result<(), Failure> {
    if io::stdout().is_terminal() { print_line(&harmless(text)) } else { print_line(text) }
}

/// The text with control characters spelled out, but for line feeds and tabs.
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

/// A message of a command to the person who started it. If it cannot be written, the command goes on.
pub(crate) fn remark(line: &str) {
    if STDERR.has_writer() {
        STDERR.add(line.as_bytes());
    } else {
        let _ = writeln!(io::stderr(), "{line}");
    }
}

/// Says why the program ends, in the format of the log if that is JSON. The one that started it must not wait for its end
/// because nobody reads this.
pub(crate) fn report_failure(message: &str) {
    // Without a thread it is written directly.
    let _ = STDERR.start();
    if IS_JSON.load(Relaxed) {
        remark(&message_line("ERROR", message));
    } else {
        remark(&format!("error: {message}"));
    }
}

thread_local! {
    static IS_QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Does something whose panic is expected and handled.
pub(crate) fn quietly<T>(something: impl FnOnce() -> T) -> T {
    IS_QUIET.set(true);
    let done = something();
    IS_QUIET.set(false);
    done
}

/// Panics are messages, too: the standard library would write them while a thread that serves waits.
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

/// Waits a moment for what is still to be written. Call it last.
pub(crate) fn flush() {
    let deadline = Instant::now() + FLUSH_TIME_MAX;
    for queue in [&STDERR, &STDOUT] {
        queue.flush(deadline.saturating_duration_since(Instant::now()));
    }
}

/// Completes when nobody can read standard output any more. For a file or a terminal that stays, that is never.
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
    // Without a thread the next write notices.
    if watched.is_err() || gone.await.is_err() {
        std::future::pending::<()>().await;
    }
}

#[cfg(not(unix))]
pub(crate) async fn reader_gone() {
    std::future::pending().await
}

/// A line as the log writes it, for what must be said whatever `RUST_LOG` leaves out.
fn message_line(level: &str, message: &str) -> String {
    let now = format!("{:.6}", jiff::Timestamp::now());
    if IS_JSON.load(Relaxed) {
        let fields = json!({ "message": message });
        json!({ "timestamp": now, "level": level, "fields": fields, "target": "tidings" }).to_string()
    } else {
        format!("{now} {level:>5} tidings: {message}")
    }
}

/// The descriptors that a process is started with.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Descriptor {
    Stdout,
    Stderr,
}

impl Output for Descriptor {
    fn name(&self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }

    /// Past the buffers and locks of the standard library, so that a write that never ends holds none of them.
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
                // Somebody else who has this pipe made it so.
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
            format!("{lines} lines for {name} were dropped: they could not be written, or not as fast");
        STDERR.try_add(message_line("WARN", &message).as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_cannot_command_the_terminal() {
        assert_eq!(harmless("a\tb\nc é"), "a\tb\nc é");
        assert_eq!(harmless("\u{1b}[2J\r\u{9b}x"), "\\u{1b}[2J\\r\\u{9b}x");
    }
}
