//! The socket of a subscriber, plain or encrypted.
//!
//! Invariant: a plain socket is as small as without encryption, and a write to it is a system call
//! and nothing else. What an encrypted one needs besides is in one allocation.

use std::{
    fmt,
    io::{self, Read, Write},
    net::{Shutdown, TcpStream},
    os::fd::{AsFd, BorrowedFd},
};

use super::wire::{INPUT_BYTES_MAX, Wire};
use crate::{CloseReason, OnEnd};

/// What encrypts the bytes of a socket that the hub writes to, such as TLS.
///
/// A shard calls it without a lock and expects that nothing waits: the socket is non-blocking, and
/// where it accepts nothing, the result is [`io::ErrorKind::WouldBlock`].
pub trait Encryption: Send {
    /// Encrypts these bytes, as many as it chooses, and sends what the socket accepts. Returns how
    /// many were encrypted: they count as sent, and are not passed again. At most one record may
    /// then wait in [`unsent_bytes`](Self::unsent_bytes); while one waits, this is an error of the
    /// kind `WouldBlock`.
    fn write(&mut self, socket: &TcpStream, bytes: &[u8]) -> io::Result<usize>;

    /// Sends what is encrypted and did not fit into the socket.
    fn flush(&mut self, socket: &TcpStream) -> io::Result<()>;

    /// How many bytes are encrypted and have not been sent.
    fn unsent_bytes(&self) -> usize;

    /// Reads from the socket and decrypts; 0 is the end of the client's input.
    fn read(&mut self, socket: &TcpStream, into: &mut [u8]) -> io::Result<usize>;

    /// Reports the end to the other side. Nothing is written after it.
    fn end(&mut self, socket: &TcpStream);
}

/// A connection that is handed over to the hub.
pub struct Socket {
    stream: TcpStream,
    layer: Layer,
}

/// What is between the stream and its socket, and what learns of the end of the connection.
enum Layer {
    Plain { on_end: OnEnd },
    Encrypted(Box<Encrypted>),
}

struct Encrypted {
    encryption: Box<dyn Encryption>,
    on_end: OnEnd,
}

impl Socket {
    /// A socket whose bytes are those of the stream. It must be non-blocking.
    pub fn plain(stream: TcpStream, on_end: OnEnd) -> Self {
        Self { stream, layer: Layer::Plain { on_end } }
    }

    /// Why the system has given the connection up, if it has. It reports that once.
    pub(crate) fn error(&self) -> Option<io::ErrorKind> {
        self.stream.take_error().ok().flatten().map(|error| error.kind())
    }

    /// The same with encryption in between.
    pub fn encrypted(stream: TcpStream, encryption: Box<dyn Encryption>, on_end: OnEnd) -> Self {
        Self { stream, layer: Layer::Encrypted(Box::new(Encrypted { encryption, on_end })) }
    }
}

impl Wire for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.layer {
            Layer::Plain { .. } => Write::write(&mut self.stream, bytes),
            Layer::Encrypted(layer) => layer.encryption.write(&self.stream, bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.layer {
            Layer::Plain { .. } => Ok(()),
            Layer::Encrypted(layer) => layer.encryption.flush(&self.stream),
        }
    }

    fn unsent_bytes(&self) -> usize {
        match &self.layer {
            Layer::Plain { .. } => 0,
            Layer::Encrypted(layer) => layer.encryption.unsent_bytes(),
        }
    }

    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match &mut self.layer {
            Layer::Plain { .. } => Read::read(&mut self.stream, into),
            Layer::Encrypted(layer) => layer.encryption.read(&self.stream, into),
        }
    }

    fn shut_down(&mut self) {
        // What the client has sent and nobody read would turn the end into a reset, and take the
        // closing frames with it.
        let mut unread = [0; INPUT_BYTES_MAX];
        let _ = Read::read(&mut self.stream, &mut unread);
        if let Layer::Encrypted(layer) = &mut self.layer {
            layer.encryption.end(&self.stream);
        }
        let _ = TcpStream::shutdown(&self.stream, Shutdown::Write);
    }

    fn report_end(&mut self, reason: CloseReason) {
        match &mut self.layer {
            Layer::Plain { on_end } => on_end(reason),
            Layer::Encrypted(layer) => (layer.on_end)(reason),
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_encrypted = matches!(self.layer, Layer::Encrypted(_));
        f.debug_struct("Socket")
            .field("stream", &self.stream)
            .field("is_encrypted", &is_encrypted)
            .finish_non_exhaustive()
    }
}
