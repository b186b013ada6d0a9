//! Copies what an application prints to the same output of the hub, line by line.
//!
//! Invariants: the pipes of the application are always read, so that it never waits for the
//! reader of the hub's output; memory is bounded; where lines have to be dropped, the newest are
//! kept, since the last ones before a crash are those that explain it.

use std::{collections::VecDeque, io, os::fd::OwnedFd, time::Duration};

use tokio::{
    io::AsyncReadExt,
    net::unix::pipe,
    task::JoinHandle,
    time::{Instant, sleep},
};

use super::lines::{Lines, shown};
use crate::output::Descriptor;

/// How much is read at a time.
const READ_BYTES: usize = 64 * 1024;
/// Lines that wait for capacity in the queue of the output, together.
const WAITING_BYTES_MAX: usize = 256 * 1024;
/// How often that queue is asked for capacity while lines wait.
const RETRY: Duration = Duration::from_millis(20);
/// How long the last lines wait for it once the application has closed its output.
const LAST_LINES_TIME_MAX: Duration = Duration::from_secs(1);

/// Copies lines from the pipe until the application and all its children have closed it.
pub(super) fn copy(pipe: OwnedFd, to: Descriptor) -> io::Result<JoinHandle<()>> {
    let pipe = pipe::Receiver::from_owned_fd(pipe)?;
    Ok(tokio::spawn(copy_lines(pipe, to)))
}

async fn copy_lines(mut pipe: pipe::Receiver, to: Descriptor) {
    let is_terminal = to.is_terminal();
    let mut read = vec![0; READ_BYTES];
    let mut lines = Lines::default();
    let mut waiting = Waiting::default();
    let add = |line: &[u8]| to.try_add_of_application(&shown(line, is_terminal));
    loop {
        let count = tokio::select! {
            count = pipe.read(&mut read) => count.unwrap_or_default(),
            () = sleep(RETRY), if !waiting.lines.is_empty() => {
                waiting.drain(add);
                continue;
            }
        };
        if count == 0 {
            break;
        }
        let mut dropped = 0;
        lines.push(&read[..count], |line| dropped += waiting.push(line));
        to.count_dropped(dropped);
        waiting.drain(add);
    }
    lines.finish(|line| to.count_dropped(waiting.push(line)));
    let deadline = Instant::now() + LAST_LINES_TIME_MAX;
    while !waiting.drain(add) && Instant::now() < deadline {
        sleep(RETRY).await;
    }
    to.count_dropped(waiting.lines.len() as u64);
}

/// The newest lines that wait for capacity.
#[derive(Debug, Default)]
struct Waiting {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
}

impl Waiting {
    /// Adds a line. Returns how many older ones had to be dropped.
    fn push(&mut self, line: &[u8]) -> u64 {
        self.bytes += line.len();
        self.lines.push_back(line.to_vec());
        let mut dropped = 0;
        // An empty line takes memory as well.
        while self.bytes + self.lines.len() * size_of::<Vec<u8>>() > WAITING_BYTES_MAX {
            let Some(oldest) = self.lines.pop_front() else { break };
            self.bytes -= oldest.len();
            dropped += 1;
        }
        dropped
    }

    /// Removes lines as long as they are accepted. Returns whether none is left.
    fn drain(&mut self, mut accept: impl FnMut(&[u8]) -> bool) -> bool {
        while let Some(line) = self.lines.front() {
            if !accept(line) {
                return false;
            }
            self.bytes -= line.len();
            self.lines.pop_front();
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_lines_are_kept() {
        let mut waiting = Waiting::default();
        let dropped: u64 = (0..100_000).map(|number| waiting.push(format!("line {number}").as_bytes())).sum();
        let mut kept = Vec::new();
        assert!(!waiting.drain(|line| {
            let is_accepted = kept.len() < 10;
            if is_accepted {
                kept.push(String::from_utf8(line.to_vec()).unwrap());
            }
            is_accepted
        }));
        assert_eq!(kept[0], format!("line {dropped}"));
        assert!(waiting.drain(|line| {
            kept.push(String::from_utf8(line.to_vec()).unwrap());
            true
        }));
        assert_eq!(kept.len() as u64 + dropped, 100_000);
        assert_eq!(kept.last().unwrap(), "line 99999");
        assert_eq!(waiting.bytes, 0);
        assert!(dropped > 0);
    }

    #[test]
    fn a_flood_of_empty_lines_is_bounded() {
        let mut waiting = Waiting::default();
        for _ in 0..1_000_000 {
            waiting.push(b"");
        }
        assert!(waiting.lines.len() * size_of::<Vec<u8>>() <= WAITING_BYTES_MAX);
    }
}
