//! The connection of a subscriber, as a shard sees it.

use std::io;

use crate::CloseReason;

/// Bytes that a subscriber may send unasked on a stream. More of them end the connection.
pub(crate) const INPUT_BYTES_MAX: usize = 8 * 1024;

/// The connection of a subscriber.
pub(crate) trait Wire {
    /// Accepts what it can without waiting. Every byte for a subscriber leaves through here.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;
    /// Sends what was accepted and did not fit into the socket. [`WouldBlock`](io::ErrorKind) if it
    /// still does not fit. A wire that accepts only what its socket takes has nothing to do.
    fn flush(&mut self) -> io::Result<()>;
    /// How much was accepted and has not been sent.
    fn unsent_bytes(&self) -> usize;
    /// Reads what is there without waiting; 0 is the end.
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize>;
    /// Everything has been sent.
    fn shut_down(&mut self);
    /// The stream has ended for this reason. This is the last call.
    fn report_end(&mut self, reason: CloseReason);
}
