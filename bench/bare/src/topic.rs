//! A topic: the log of its events as they are sent, and its subscribers.
//!
//! The id of an event is the number of bytes up to its end. To resume is to read on from there, so
//! history takes no code of its own.

use std::io::Write;

/// Beyond this the program ends.
const LOG_BYTES_MAX: usize = 512 << 20;
const ID: &[u8] = b"id: 0000000000000000\n";

#[derive(Default)]
pub(crate) struct Topic {
    pub(crate) log: Vec<u8>,
    /// Descriptors of the subscribers' sockets.
    pub(crate) subscribers: Vec<u32>,
    /// How many of them this pass has visited.
    pub(crate) visited: usize,
    /// Whether it is in the queue.
    pub(crate) queued: bool,
    /// Whether another pass must follow, for subscribers that this one has visited.
    pub(crate) again: bool,
}

impl Topic {
    pub(crate) fn append(&mut self, data: &[u8]) {
        let start = self.log.len();
        self.log.extend_from_slice(ID);
        for line in data.split(|byte| *byte == b'\n') {
            self.log.extend_from_slice(b"data: ");
            self.log.extend_from_slice(line);
            self.log.push(b'\n');
        }
        self.log.push(b'\n');
        let end = self.log.len();
        writeln!(&mut self.log[start..start + ID.len()], "id: {end:016}").expect("it has sixteen digits");
        assert!(end <= LOG_BYTES_MAX, "a topic has more than {LOG_BYTES_MAX} bytes");
    }

    /// The end of the event with this id; of the log if there is no such event.
    pub(crate) fn position_of(&self, id: Option<usize>) -> usize {
        let exists = |id: &usize| self.log.get(..*id).is_some_and(|before| before.ends_with(b"\n\n"));
        id.filter(exists).unwrap_or(self.log.len())
    }
}
